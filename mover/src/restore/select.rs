//! What of a snapshot is restored, and where each path goes.

use crate::{
    error::{Error, Result},
    format::{entry::Entry, metadata::Kind, order::split_path},
    reader::{SnapshotReader, walk::Part},
    source::exclude::Exclude,
};

/// Part of a snapshot: below one path, what the patterns include and do not exclude.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The path in the snapshot, without a leading slash; empty for all.
    pub path: Vec<u8>,
    /// If any, only what one of these matches, and what is below it.
    pub include: Exclude,
    /// What these match is left out.
    pub exclude: Exclude,
}

impl Selection {
    /// Whether an entry at this path below the target is wanted: patterns begin where the target does, so at the chosen
    /// directory and not at the top of the snapshot.
    pub fn wants(&self, path: &[u8]) -> bool {
        !self.is_excluded(path) && self.is_included(path)
    }

    /// Whether there is any pattern to ask.
    pub fn has_patterns(&self) -> bool {
        self.include.has_patterns() || self.exclude.has_patterns()
    }

    fn is_excluded(&self, path: &[u8]) -> bool {
        self.exclude.has_patterns() && matches_or_above(&self.exclude, path)
    }

    fn is_included(&self, path: &[u8]) -> bool {
        !self.include.has_patterns() || matches_or_above(&self.include, path)
    }

    /// The part of the tree to walk.
    pub fn part(&self) -> Part {
        Part::below(&self.path)
    }

    /// What is taken off the front of every path: the chosen directory's contents go into the target, a chosen
    /// file keeps its name.
    pub async fn prefix(&self, reader: &SnapshotReader) -> Result<Vec<u8>> {
        if self.path.is_empty() {
            return Ok(Vec::new());
        }
        let entry: Entry = reader.find(&self.path).await?;
        match entry.kind {
            Kind::Directory => Ok(self.path.clone()),
            Kind::Image => Err(Error::invalid("this is an image, not a tree of files")
                .with_hint("restore it to a device, to a file, or with dump")),
            _ => Ok(split_path(&self.path).0.to_vec()),
        }
    }
}

fn matches_or_above(patterns: &Exclude, path: &[u8]) -> bool {
    let matched = patterns.matches(path);
    // Where matches are taken back, what is above has been looked at already.
    if matched || patterns.takes_back() {
        return matched;
    }
    let mut above = split_path(path).0;
    while !above.is_empty() {
        if patterns.matches(above) {
            return true;
        }
        above = split_path(above).0;
    }
    false
}

/// The path below the target; `None` for the directory that is the target itself.
pub(crate) fn relative<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    if prefix.is_empty() {
        return Some(path);
    }
    path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorKind,
        format::entry::Content,
        reader::testing::{Writer, entry},
    };

    #[tokio::test]
    async fn of_a_directory_its_contents_are_restored_and_a_file_keeps_its_name() {
        let entries = [("d", Kind::Directory), ("d/f", Kind::File), ("d/image", Kind::Image)];
        let entries = entries.map(|(path, kind)| entry(path, kind, Content::default(), 0));
        let reader = Writer::new().finish(entries.into(), 2);
        for (path, wanted) in [
            ("", Ok("")),
            ("d", Ok("d")),
            ("d/f", Ok("d")),
            ("d/image", Err(ErrorKind::Invalid)),
            ("none", Err(ErrorKind::NotFound)),
        ] {
            let selection = Selection { path: path.into(), ..Selection::default() };
            let prefix = selection.prefix(&reader).await.map_err(|error| error.kind());
            assert_eq!(prefix, wanted.map(|wanted: &str| wanted.as_bytes().to_vec()), "{path:?}");
        }
    }

    #[test]
    fn a_path_stands_below_what_was_chosen() {
        assert_eq!(relative(b"a/b", b""), Some(&b"a/b"[..]));
        assert_eq!(relative(b"a/b/c", b"a"), Some(&b"b/c"[..]));
        assert_eq!((relative(b"a", b"a"), relative(b"ab/c", b"a"), relative(b"b", b"a")), (None, None, None));
    }

    #[test]
    fn what_is_below_a_match_is_meant_too() {
        let patterns = |list: &[&str]| {
            let mut patterns = Exclude::default();
            list.iter().for_each(|pattern| patterns.add_pattern(pattern, false, "a test").unwrap());
            patterns
        };
        let include = Selection { include: patterns(&["/one", "*.o"]), ..Selection::default() };
        let exclude = Selection { exclude: patterns(&["/one", "*.o"]), ..Selection::default() };
        let (all, both) =
            (Selection::default(), Selection { exclude: patterns(&["*.o"]), ..include.clone() });
        assert!(!all.has_patterns() && include.has_patterns() && exclude.has_patterns());
        for (path, is_meant) in
            [("one", true), ("one/x/y", true), ("x/one", false), ("x.o", true), ("x.o/y", true), ("x", false)]
        {
            assert_eq!(
                (include.wants(path.as_bytes()), exclude.wants(path.as_bytes())),
                (is_meant, !is_meant),
                "{path}"
            );
            assert!(all.wants(path.as_bytes()));
            assert_eq!(both.wants(path.as_bytes()), path.starts_with("one"), "{path}");
        }
        assert!(!both.wants(b"one/x.o") && !both.wants(b"one/x.o/y"));
    }
}
