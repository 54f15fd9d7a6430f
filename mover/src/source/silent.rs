//! What of a source did not answer, so that it is not touched again; and which mount it lies on, told without asking it.

use std::collections::BTreeMap;

use super::{Problem, show_path};
use crate::error::Error;

/// Paths that a walk leaves out without touching them, each with the seconds that it was waited for.
#[derive(Debug, Clone, Default)]
pub struct SilentPaths(BTreeMap<Vec<u8>, u64>);

impl SilentPaths {
    /// Adds a path, slash-joined and without a leading slash.
    pub fn insert(&mut self, path: Vec<u8>, seconds: u64) {
        self.0.insert(path, seconds);
    }

    /// Whether there is nothing to leave out, as in nearly every walk.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this path is one of them, or lies below one.
    pub fn hold(&self, path: &[u8]) -> bool {
        self.0.keys().any(|silent| holds(silent, path))
    }

    /// What is told instead of this path, if it is one of them.
    pub(super) fn problem(&self, path: &[u8]) -> Option<Problem> {
        let seconds = self.0.get(path)?;
        let error = Error::unavailable(format!(
            "/{} did not answer within {seconds} s and is left out with all below it; see what is mounted there and \
             back up again, leave it out for good (--exclude), or wait longer (--source-timeout)",
            show_path(path)
        ));
        Some(Problem::new(path, "entry", error))
    }
}

/// Whether a path is this one or lies below it. The empty path is the top.
pub fn holds(above: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| above.is_empty() || rest.first().is_none_or(|next| *next == b'/'))
}

/// The mount points in a list such as `/proc/self/mountinfo`, without their leading slash.
pub fn mount_points(list: &[u8]) -> Vec<Vec<u8>> {
    let points = list.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.filter_map(|point| point.strip_prefix(b"/")).map(unescape).collect()
}

/// The mount point that a path lies on: the longest that holds it.
pub fn mount_of<'m>(points: &'m [Vec<u8>], path: &[u8]) -> Option<&'m [u8]> {
    let above = points.iter().filter(|point| holds(point, path));
    above.max_by_key(|point| point.len()).map(Vec::as_slice)
}

/// The kernel writes space, tab, line feed, backslash and the number sign as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', after @ ..]) => {
                plain.push((high - b'0') * 64 + (middle - b'0') * 8 + (low - b'0'));
                after
            }
            (other, after) => {
                plain.push(*other);
                after
            }
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        36 22 98:0 /sub /mnt/share rw,noatime master:1 - nfs server:/sub rw\n\
        37 36 98:1 / /mnt/share/in\\040a\\134b\\011\\012\\043\\9 rw - fuse x rw\n\
        38 22 0:4 net:[1] nowhere rw - nsfs nsfs rw\n\
        broken\n";

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(mount_points(LIST), [&b""[..], b"mnt/share", b"mnt/share/in a\\b\t\n#\\9"]);
        assert!(mount_points(b"").is_empty());
    }

    #[test]
    fn a_path_lies_on_the_longest_mount_point_that_holds_it() {
        let points = mount_points(LIST);
        let on = |path: &[u8]| mount_of(&points, path).unwrap().to_vec();
        assert_eq!(on(b"mnt/share/x/y"), b"mnt/share");
        assert_eq!(on(b"mnt/share"), b"mnt/share");
        assert_eq!(on(b"mnt/shared/x"), b"");
        assert_eq!(on(b"mnt/share/in a\\b\t\n#\\9/x"), &points[2][..]);
        assert_eq!(mount_of(&[], b"mnt"), None);
    }

    #[test]
    fn only_whole_names_hold_others() {
        for (above, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "ab", false),
            ("a/b", "a", false),
            ("", "a", true),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(holds(above.as_bytes(), path.as_bytes()), expected, "{above:?} {path:?}");
        }
    }
}
