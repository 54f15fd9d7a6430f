//! The order of a snapshot's tree: all entries of a directory in byte order of their names, then the contents
//! of its sub-directories in that same order. A directory is contiguous and a sub-tree is one range.

use std::cmp::Ordering;

/// Compares two slash-joined relative paths without leading or trailing slash. The empty path is the top
/// and comes first.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    if a.is_empty() || b.is_empty() {
        return a.len().cmp(&b.len());
    }
    let Some(differ) = first_difference(a, b) else { return Ordering::Equal };
    let start = a[..differ].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (name_a, deeper_a) = first_component(&a[start..]);
    let (name_b, deeper_b) = first_component(&b[start..]);
    deeper_a.cmp(&deeper_b).then_with(|| name_a.cmp(name_b))
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let shared = a.iter().zip(b).position(|(x, y)| x != y);
    shared.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))
}

/// The first name, and whether something lies below it.
fn first_component(path: &[u8]) -> (&[u8], bool) {
    match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], true),
        None => (path, false),
    }
}
