//! Entries of a snapshot, for people and for programs.

use carrack_mover::{
    format::{
        entry::Entry,
        metadata::{FileTime, Kind},
        order::split_path,
    },
    monitor::escape_path,
};
use serde::Serialize;

use super::units;

/// Body of `node`, with the names that restic gives.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    path: String,
    uid: u32,
    gid: u32,
    size: u64,
    mode: u32,
    permissions: String,
    mtime: String,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<String>,
}

impl Node {
    pub(crate) fn new(entry: &Entry) -> Self {
        let (letter, kind) = kind_of(&entry.kind);
        let linktarget = match &entry.kind {
            Kind::Symlink { target } => Some(escape_path(target)),
            _ => None,
        };
        let metadata = &entry.metadata;
        Self {
            name: escape_path(split_path(&entry.path).1),
            kind,
            path: format!("/{}", escape_path(&entry.path)),
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            mode: metadata.mode,
            permissions: format!("{letter}{}", permissions(metadata.mode)),
            mtime: stamp(metadata.mtime).map_or_else(|| "out of range".into(), |time| time.to_string()),
            inode: metadata.inode,
            linktarget,
        }
    }
}

fn kind_of(kind: &Kind) -> (char, &'static str) {
    match kind {
        Kind::File => ('-', "file"),
        Kind::Directory => ('d', "dir"),
        Kind::Symlink { .. } => ('l', "symlink"),
        Kind::BlockDevice { .. } => ('b', "dev"),
        Kind::CharDevice { .. } => ('c', "chardev"),
        Kind::Fifo => ('p', "fifo"),
        Kind::Socket => ('s', "socket"),
        Kind::Image => ('-', "image"),
    }
}

fn stamp(time: FileTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, i32::try_from(time.nanoseconds).ok()?).ok()
}

/// `rwxr-xr-x`, with set-uid, set-gid and sticky as `ls` writes them.
fn permissions(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 > 0 { 'r' } else { '-' });
        text.push(if bits & 2 > 0 { 'w' } else { '-' });
        text.push(match (mode & special > 0, bits & 1 > 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// One line as `ls -l` writes it.
pub(crate) fn long(entry: &Entry, human: bool) -> String {
    let metadata = &entry.metadata;
    let size = if human { units::size(metadata.size) } else { metadata.size.to_string() };
    let time = stamp(metadata.mtime).map_or_else(|| "out of range".into(), units::moment);
    let arrow = match &entry.kind {
        Kind::Symlink { target } => format!(" -> {}", escape_path(target)),
        _ => String::new(),
    };
    format!(
        "{}{} {:5} {:5} {size:>12} {time} /{}{arrow}",
        kind_of(&entry.kind).0,
        permissions(metadata.mode),
        metadata.uid,
        metadata.gid,
        escape_path(&entry.path),
    )
}

/// Only the path.
pub(crate) fn short(entry: &Entry) -> String {
    format!("/{}", escape_path(&entry.path))
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn permissions_as_ls_writes_them() {
        for (mode, text) in [
            (0o755, "rwxr-xr-x"),
            (0o640, "rw-r-----"),
            (0o4755, "rwsr-xr-x"),
            (0o2644, "rw-r-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0o1000, "--------T"),
        ] {
            assert_eq!(permissions(mode), text, "{mode:o}");
        }
    }
}
