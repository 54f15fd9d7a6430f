//! Attributes as the kernel takes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::format::{
    entry::Entry,
    metadata::{FileTime, Kind},
};

/// What `stat` says is a good size to read, in bytes.
pub(super) const BLOCK_SIZE: u32 = 4096;
/// What `st_blocks` counts, in bytes.
const STAT_BLOCK: u64 = 512;

pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File | Kind::Image => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::CharDevice { .. } => FileType::CharDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

pub(super) fn of_entry(number: u64, entry: &Entry) -> FileAttr {
    let metadata = &entry.metadata;
    let modified = system_time(metadata.mtime);
    let (size, rdev) = match &entry.kind {
        Kind::Symlink { target } => (target.len() as u64, 0),
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => (0, device(*major, *minor)),
        _ => (metadata.size, 0),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(STAT_BLOCK),
        atime: modified,
        mtime: modified,
        ctime: system_time(metadata.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(&entry.kind),
        perm: (metadata.mode & 0o7777) as u16,
        nlink: u32::try_from(metadata.links.max(1)).unwrap_or(u32::MAX),
        uid: metadata.uid,
        gid: metadata.gid,
        rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// A directory or link that is not in any snapshot; it belongs to who mounts.
pub(super) fn of_own(number: u64, kind: FileType, size: u64, time: SystemTime) -> FileAttr {
    let (perm, nlink) = if kind == FileType::Directory { (0o555, 2) } else { (0o777, 1) };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Times before 1970 too; the epoch for what the system cannot hold.
pub(super) fn system_time(time: FileTime) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let fraction = Duration::from_nanos(time.nanoseconds.into());
    whole.and_then(|whole| whole.checked_add(fraction)).unwrap_or(UNIX_EPOCH)
}

/// The kernel's 32-bit form: 12 bits of the major number between 8 and 12 of the minor one.
pub(super) fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}
