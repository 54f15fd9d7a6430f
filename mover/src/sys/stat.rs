//! From `struct stat` to [`Metadata`].

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat};

use crate::format::metadata::{FileTime, Kind, Metadata};

/// `lstat` of one name in a directory.
pub fn stat_at(directory: impl AsFd, name: &CStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// `stat` of an open descriptor.
pub fn stat_of(fd: impl AsFd) -> io::Result<Stat> {
    Ok(rustix::fs::fstat(fd)?)
}

/// The type of the inode.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The kind, but for the target of a symbolic link, which is left empty. `None` for a type unknown to Linux.
pub fn kind_of(stat: &Stat) -> Option<Kind> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Some(match file_type(stat) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: Vec::new() },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return None,
    })
}

/// Everything a `stat` knows; flags and extended attributes are read separately.
#[expect(clippy::unnecessary_cast, reason = "the widths of struct stat differ between processors")]
pub fn metadata_of(stat: &Stat) -> Metadata {
    Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        ctime: time(stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
        links: stat.st_nlink as u64,
        size: if file_type(stat) == FileType::RegularFile { stat.st_size.max(0) as u64 } else { 0 },
        flags: 0,
        xattrs: Vec::new(),
    }
}

fn time(seconds: i64, nanoseconds: u32) -> FileTime {
    FileTime { seconds, nanoseconds }
}
