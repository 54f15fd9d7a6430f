use std::cmp::Ordering;

use proptest::prelude::*;

use crate::format::order::compare_paths;

#[test]
fn entries_of_a_directory_come_before_what_is_below() {
    let ordered = ["", "a", "a.b", "b", "z", "a/x", "a/y", "a/x/1", "a/y/1", "a.b/0", "b/0", "b/0/0"];
    for (i, a) in ordered.iter().enumerate() {
        for (j, b) in ordered.iter().enumerate() {
            assert_eq!(compare_paths(a.as_bytes(), b.as_bytes()), i.cmp(&j), "{a} against {b}");
        }
    }
}

/// The definition, component by component.
fn reference(a: &str, b: &str) -> Ordering {
    let split = |path: &str| {
        let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        let name = parts.pop().unwrap();
        (parts, name)
    };
    split(a).cmp(&split(b))
}

proptest! {
    #[test]
    fn agrees_with_the_definition(a in "[a.]{1,2}(/[a.-]{1,2}){0,3}", b in "[a.]{1,2}(/[a.-]{1,2}){0,3}") {
        prop_assert_eq!(compare_paths(a.as_bytes(), b.as_bytes()), reference(&a, &b));
    }
}
