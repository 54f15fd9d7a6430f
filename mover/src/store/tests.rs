use super::{is_decision, valid_name};

#[test]
fn names_stay_inside_the_repository() {
    for name in ["format", "packs/ab/abcd-01", "gc/x/final", "a.b_c-d"] {
        assert!(valid_name(name), "{name}");
    }
    for name in ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "A", "a b", "ä", "a\\b", "a\0"] {
        assert!(!valid_name(name), "{name:?}");
    }
    assert!(valid_name(&"a".repeat(200)));
    assert!(!valid_name(&"a".repeat(201)));
}

#[test]
fn only_ends_and_finals_are_decisions() {
    for name in ["snapshots/b-01", "gc/0f/final"] {
        assert!(is_decision(name), "{name}");
    }
    for name in ["sessions/b-01", "gc/0f/condemned", "gc/final", "gc/a/b/final", "packs/aa/final", "index/1"]
    {
        assert!(!is_decision(name), "{name}");
    }
}
