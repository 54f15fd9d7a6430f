//! Extended attributes and inode flags of walked entries, read only when somebody asks.
//!
//! Changing either changes the ctime, so an entry with the parent's ctime needs no call at all, and any other does.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::walk::Walked;
use super::{Problem, show_path};
use crate::error::Error;
use crate::format::metadata::{FileTime, Kind, Metadata};
use crate::sys::attributes::{Inode, read_flags, read_xattrs};
use crate::sys::directory::{open_directory, to_c_string};
use crate::sys::file::{open_for_reading, open_path_only};
use crate::sys::owners;
use crate::sys::stat::{file_type, stat_of};

/// The ctime of an entry whose attributes could not all be read, 8 700 years before 1970: no inode has it, so no later run
/// takes the entry for unchanged, and each tells of it again.
pub const INCOMPLETE: FileTime = FileTime { seconds: -(1 << 38), nanoseconds: 0 };

/// Fills in the extended attributes and flags of an entry; what cannot be read comes back as problems, and the entry's ctime
/// is [`INCOMPLETE`] then.
pub fn read_attributes(entry: &mut Walked) -> Vec<Problem> {
    let path = entry.path();
    let mut problems = Vec::new();
    if let Err(error) = read_by_name(entry, &path, &mut problems) {
        let error = Error::io(error, format!("cannot read the attributes of /{}", show_path(&path)));
        problems.push(Problem::new(path, "attributes", error));
    }
    if !problems.is_empty() {
        entry.metadata.ctime = INCOMPLETE;
    }
    problems
}

fn read_by_name(entry: &mut Walked, path: &[u8], problems: &mut Vec<Problem>) -> io::Result<()> {
    let directory = entry.directory.fd()?;
    let name = to_c_string(&entry.name)?;
    // Only what can be opened without an effect has flags; the type is checked again on what was reached.
    match entry.kind {
        Kind::Directory if entry.passed => {
            let fd = crate::sys::directory::pass_directory(&*directory, &name)?;
            read_into(&mut entry.metadata, &Inode::path_only(&fd), path, problems)
        }
        Kind::Directory => match open_directory(&*directory, &name) {
            Ok(fd) => read_open(&mut entry.metadata, &fd, path, problems),
            Err(_) => {
                let fd = open_path_only(&*directory, &name)?;
                read_into(&mut entry.metadata, &Inode::path_only(&fd), path, problems)
            }
        },
        Kind::File => {
            let fd = open_path_only(&*directory, &name)?;
            if file_type(&stat_of(&fd)?) != FileType::RegularFile {
                return Err(io::Error::other("it is no longer a regular file"));
            }
            match open_for_reading(&*directory, &name) {
                Ok(file) => read_open(&mut entry.metadata, &file, path, problems),
                Err(_) => read_into(&mut entry.metadata, &Inode::path_only(&fd), path, problems),
            }
        }
        _ => {
            let fd = open_path_only(&*directory, &name)?;
            read_into(&mut entry.metadata, &Inode::path_only(&fd), path, problems)
        }
    }
}

/// Fills in the extended attributes and flags of an open file or directory.
pub(crate) fn read_open(
    metadata: &mut Metadata,
    fd: &impl AsFd,
    path: &[u8],
    problems: &mut Vec<Problem>,
) -> io::Result<()> {
    match read_flags(fd) {
        Ok(flags) => metadata.flags = flags,
        Err(error) => {
            let error = Error::io(error, format!("cannot read the flags of /{}", show_path(path)));
            problems.push(Problem::new(path, "flags", error));
        }
    }
    read_into(metadata, &Inode::open(fd), path, problems)
}

/// The owner of an entry, if this user namespace may hide it.
pub fn hidden_owner(entry: &Walked) -> Option<Problem> {
    let Metadata { uid, gid, .. } = entry.metadata;
    (!entry.passed && owners::are_hidden(uid, gid)).then(|| hidden(&entry.path(), "owner"))
}

fn hidden(path: &[u8], what: &'static str) -> Problem {
    let message =
        format!("the {what} of /{} names somebody whom this user namespace does not know", show_path(path));
    let error = Error::denied(message).with_hint("run it with the users of the machine");
    Problem::new(path, what, error)
}

fn read_into(
    metadata: &mut Metadata,
    inode: &Inode<'_>,
    path: &[u8],
    problems: &mut Vec<Problem>,
) -> io::Result<()> {
    let (xattrs, failed) = read_xattrs(inode)?;
    for list in xattrs.iter().filter(|xattr| xattr.name.starts_with(b"system.posix_acl_")) {
        if owners::are_hidden_in_acl(&list.value) {
            problems.push(hidden(path, "list of rights"));
        }
    }
    metadata.xattrs = xattrs;
    for (name, error) in failed {
        let name = show_path(name.as_bytes());
        let error = Error::io(error, format!("cannot read the attribute {name} of /{}", show_path(path)));
        problems.push(Problem::new(path, name, error));
    }
    Ok(())
}
