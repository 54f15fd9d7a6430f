//! Puts attributes on what was restored, skipping calls that would change nothing.
//!
//! The order matters: a change of owner clears set-id bits and capabilities; attributes need a writable
//! mode; an ACL goes with the mode it belongs to; the immutable flag forbids everything after it.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};

use super::Problem;
use crate::error::Error;
use crate::format::metadata::{Metadata, Xattr};
use crate::source::show_path;
use crate::sys::attributes::{Inode, KEPT_FLAGS, read_flags, read_xattrs, write_flags};
use crate::sys::stat::{metadata_of, stat_of};

/// The label belongs to the system's policy and cannot be taken off.
const LABEL: &[u8] = b"security.selinux";

/// The inode to change.
#[derive(Debug)]
pub(super) struct Handle<'fd> {
    fd: BorrowedFd<'fd>,
    inode: Inode<'fd>,
    path_only: bool,
    link: bool,
    is_root: bool,
}

impl<'fd> Handle<'fd> {
    /// A file or directory that is open.
    pub(super) fn open(fd: &'fd impl AsFd, is_root: bool) -> Self {
        Self { fd: fd.as_fd(), inode: Inode::open(fd), path_only: false, link: false, is_root }
    }

    /// Anything else, opened with `O_PATH`; `link` for a symbolic link, which has no mode.
    pub(super) fn path_only(fd: &'fd impl AsFd, link: bool) -> Self {
        Self { fd: fd.as_fd(), inode: Inode::path_only(fd), path_only: true, link, is_root: true }
    }

    fn set_owner(&self, owner: Option<Uid>, group: Option<Gid>) -> io::Result<()> {
        if self.path_only {
            rustix::fs::chownat(self.fd, c"", owner, group, AtFlags::EMPTY_PATH)?;
        } else {
            rustix::fs::fchown(self.fd, owner, group)?;
        }
        Ok(())
    }

    fn set_mode(&self, mode: Mode) -> io::Result<()> {
        if self.path_only {
            rustix::fs::chmod(format!("/proc/self/fd/{}", self.fd.as_raw_fd()), mode)?;
        } else {
            rustix::fs::fchmod(self.fd, mode)?;
        }
        Ok(())
    }

    fn set_times(&self, times: &Timestamps) -> io::Result<()> {
        if self.path_only {
            rustix::fs::utimensat(self.fd, c"", times, AtFlags::EMPTY_PATH)?;
        } else {
            rustix::fs::futimens(self.fd, times)?;
        }
        Ok(())
    }
}

/// Makes the attributes of an inode those of `wanted`. `present` is its state now; `examine` says that it
/// may carry attributes and flags that must go. Each thing that fails is handed to `report`.
pub(super) fn apply(
    handle: &Handle<'_>,
    path: &[u8],
    wanted: &Metadata,
    present: &Stat,
    examine: bool,
    report: &mut dyn FnMut(Problem),
) {
    let mut check = |what: Cow<'static, str>, done: io::Result<()>| {
        if let Err(error) = done {
            let error = Error::io(error, format!("cannot restore the {what} of {}", show_path(path)));
            report(Problem::new(path, what, error));
        }
    };
    let owner = apply_owner(handle, wanted, present);
    let owned = owner.is_ok();
    check("owner".into(), owner);

    let is_acl = |xattr: &Xattr| xattr.name.starts_with(b"system.posix_acl_");
    if examine {
        check("extended attributes".into(), remove_others(handle, wanted));
    }
    let mut set = |xattr: &Xattr| check(show_path(&xattr.name).into(), handle.inode.set(xattr));
    wanted.xattrs.iter().filter(|xattr| !is_acl(xattr)).for_each(&mut set);
    if !handle.link {
        check("mode".into(), apply_mode(handle, wanted, present, owned));
    }
    let mut set = |xattr: &Xattr| check(show_path(&xattr.name).into(), handle.inode.set(xattr));
    wanted.xattrs.iter().filter(|xattr| is_acl(xattr)).for_each(&mut set);

    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let modified = Timespec { tv_sec: wanted.mtime.seconds, tv_nsec: wanted.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: omit, last_modification: modified };
    check("time".into(), handle.set_times(&times));
    if !handle.path_only && (examine || wanted.flags & KEPT_FLAGS != 0) {
        check("flags".into(), apply_flags(handle, wanted.flags));
    }
}

fn apply_flags(handle: &Handle<'_>, flags: u32) -> io::Result<()> {
    match write_flags(handle.fd, flags) {
        // A file system without flags has none that must go.
        Err(_) if flags & KEPT_FLAGS == 0 => Ok(()),
        other => other,
    }
}

fn apply_owner(handle: &Handle<'_>, wanted: &Metadata, present: &Stat) -> io::Result<()> {
    // To the kernel this number means to leave the owner as it is.
    if wanted.uid == u32::MAX || wanted.gid == u32::MAX {
        return Err(io::Error::other("there is no owner or group of this number"));
    }
    let owner = (wanted.uid != present.st_uid).then(|| Uid::from_raw(wanted.uid));
    let group = (wanted.gid != present.st_gid).then(|| Gid::from_raw(wanted.gid));
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    let done = handle.set_owner(owner, group);
    if done.is_err() && owner.is_some() && group.is_some() {
        // An ordinary user may still give a file to a group of theirs.
        handle.set_owner(None, group).unwrap_or_default();
    }
    done
}

fn apply_mode(handle: &Handle<'_>, wanted: &Metadata, present: &Stat, owned: bool) -> io::Result<()> {
    // Set-id bits on a file of the wrong owner would hand out rights that nobody gave.
    let mode = if owned { wanted.mode } else { wanted.mode & !0o6000 };
    let moved = (wanted.uid, wanted.gid) != (present.st_uid, present.st_gid);
    if moved || !handle.is_root || mode & 0o7777 != present.st_mode & 0o7777 {
        handle.set_mode(Mode::from_raw_mode(mode & 0o7777))?;
    }
    if mode == wanted.mode {
        return Ok(());
    }
    Err(io::Error::other("set-user-id and set-group-id are left out, because the owner is not the right one"))
}

/// What of an open file or directory is not as wanted.
pub fn differing(fd: &impl AsFd, wanted: &Metadata) -> io::Result<Vec<&'static str>> {
    let found = metadata_of(&stat_of(fd)?);
    let inode = Inode::open(fd);
    let (mut xattrs, unreadable) = read_xattrs(&inode)?;
    if let Some((_, error)) = unreadable.into_iter().next() {
        return Err(error);
    }
    let mut wanted_xattrs = wanted.xattrs.clone();
    for list in [&mut xattrs, &mut wanted_xattrs] {
        list.retain(|xattr| xattr.name != LABEL);
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let same_xattrs = xattrs.len() == wanted_xattrs.len()
        && xattrs.iter().zip(&wanted_xattrs).all(|(a, b)| (&a.name, &a.value) == (&b.name, &b.value));
    // A file system that keeps whole seconds has no more to give.
    let same_time = found.mtime.seconds == wanted.mtime.seconds
        && (found.mtime.nanoseconds == wanted.mtime.nanoseconds || found.mtime.nanoseconds == 0);
    let flags = read_flags(fd).unwrap_or_default() & KEPT_FLAGS;
    let parts = [
        ("owner", (found.uid, found.gid) == (wanted.uid, wanted.gid)),
        ("mode", found.mode & 0o7777 == wanted.mode & 0o7777),
        ("extended attributes", same_xattrs),
        ("time", same_time),
        ("flags", flags == wanted.flags & KEPT_FLAGS),
    ];
    Ok(parts.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect())
}

fn remove_others(handle: &Handle<'_>, wanted: &Metadata) -> io::Result<()> {
    for name in handle.inode.names()? {
        let kept = name.to_bytes() == LABEL;
        if !kept && !wanted.xattrs.iter().any(|xattr| xattr.name == name.to_bytes()) {
            handle.inode.remove(&name)?;
        }
    }
    Ok(())
}
