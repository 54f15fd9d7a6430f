//! The order of a tree: all names of a directory, then what is in its sub-directories, in that order again.
//!
//! So a directory is contiguous, and so is everything below it.

use std::cmp::Ordering;

/// Compares two paths (components joined by `/`, no leading slash) in tree order.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    // Back to the start of the component in which they differ.
    let start = match (a.get(common), b.get(common)) {
        (None, None) => return Ordering::Equal,
        (None, Some(b'/')) => return Ordering::Less,
        (Some(b'/'), None) => return Ordering::Greater,
        _ => a[..common].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1),
    };
    let (a, b) = (&a[start..], &b[start..]);
    let (a_name, a_deeper) = first_component(a);
    let (b_name, b_deeper) = first_component(b);
    a_deeper.cmp(&b_deeper).then_with(|| a_name.cmp(b_name))
}

/// The first component, and whether something follows it.
fn first_component(path: &[u8]) -> (&[u8], bool) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], true),
        None => (path, false),
    }
}

/// The directory part and the name of a path; the directory is empty at the top.
pub fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Whether this can be the path of an entry: no empty component, no `.` or `..`, no NUL, not too long.
pub fn is_valid_path(path: &[u8]) -> bool {
    path.len() <= crate::limits::PATH_LIMIT
        && path
            .split(|byte| *byte == b'/')
            .all(|name| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_lead_elsewhere() {
        let longest = vec![b'a'; crate::limits::PATH_LIMIT];
        for path in [&b"a"[..], b"a/b", b"...", b"a/..b/c", b".a", b"\xff", &longest] {
            assert!(is_valid_path(path), "{:?}", path.escape_ascii().to_string());
        }
        let too_long = vec![b'a'; crate::limits::PATH_LIMIT + 1];
        for path in [
            &b""[..],
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"..",
            b"a/.",
            b"../a",
            b"a/../b",
            b"./a",
            b"a\0",
            b"a/\0/b",
            &too_long,
        ] {
            assert!(!is_valid_path(path), "{:?}", path.escape_ascii().to_string());
        }
    }

    #[test]
    fn names_before_depths() {
        let sorted: [&[u8]; 10] =
            [b"a", b"a-", b"b", b"zz", b"a/a", b"a/z", b"a/a/b", b"a-/x", b"b/1", b"b/1/2"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare_paths(a, b), i.cmp(&j), "{:?} {:?}", a.escape_ascii(), b.escape_ascii());
            }
        }
    }
}
