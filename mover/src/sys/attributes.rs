//! Extended attributes and inode flags.
//!
//! Attributes of things that must not be opened (pipes, devices, sockets, links) are reached through
//! `/proc/self/fd`, which names the inode and not a path that somebody can exchange.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{IFlags, XattrFlags};
use rustix::io::Errno;

use crate::format::metadata::Xattr;
use crate::limits;

/// Linux's limits: a list of names and a value are at most 64 KiB each.
const LIST_MAX: usize = 65_536;

/// How XFS shows its lists of rights a second time to root. They are kept and set under their names of every file
/// system, and these would mean nothing elsewhere.
const RIGHTS_OF_XFS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// The inode flags that a person can set and that have a meaning elsewhere; the others (extents, indexed
/// directory, …) describe how one file system stores the inode.
pub const KEPT_FLAGS: u32 = IFlags::SYNC
    .union(IFlags::IMMUTABLE)
    .union(IFlags::APPEND)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::DIRSYNC)
    .union(IFlags::JOURNALING)
    .union(IFlags::NOCOW)
    .union(IFlags::TOPDIR)
    .bits();

/// The flags that forbid every later change, and so are set last and taken off first.
pub const LOCKING_FLAGS: u32 = IFlags::IMMUTABLE.union(IFlags::APPEND).bits();

/// The flags that a file takes only while it is empty: btrfs passes over them later, without a word.
pub const EARLY_FLAGS: u32 = IFlags::NOCOW.bits();

/// The inode behind a descriptor, for reading and setting extended attributes.
#[derive(Debug)]
pub enum Inode<'fd> {
    /// An ordinary descriptor.
    Open(std::os::fd::BorrowedFd<'fd>),
    /// A path below `/proc/self/fd` that ends at the inode.
    Proc(CString),
}

impl<'fd> Inode<'fd> {
    /// An inode that is open for reading or writing.
    pub fn open(fd: &'fd impl AsFd) -> Self {
        Self::Open(fd.as_fd())
    }

    /// An inode opened with `O_PATH`, a symbolic link among them.
    pub fn path_only(fd: &'fd impl AsFd) -> Self {
        let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        Self::Proc(CString::new(path).expect("digits hold no NUL"))
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Proc(path) => rustix::fs::listxattr(path.as_c_str(), buffer),
        }
    }

    fn get(&self, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Proc(path) => rustix::fs::getxattr(path.as_c_str(), name, buffer),
        }
    }

    /// The names of all extended attributes that are kept; empty where the file system has none.
    pub fn names(&self) -> io::Result<Vec<CString>> {
        let mut small = [0_u8; 256];
        let listed = match self.list(&mut small) {
            Ok(length) => small[..length].to_vec(),
            Err(Errno::RANGE) => {
                let mut large = vec![0_u8; LIST_MAX];
                let length = self.list(&mut large)?;
                large.truncate(length);
                large
            }
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let names =
            listed.split(|&byte| byte == 0).filter(|name| !name.is_empty() && !RIGHTS_OF_XFS.contains(name));
        Ok(names.map(|name| CString::new(name).expect("split at every NUL")).collect())
    }

    /// The value of one attribute, `None` if there is no such attribute (any more).
    pub fn value(&self, name: &CStr) -> io::Result<Option<Vec<u8>>> {
        let mut small = [0_u8; 256];
        match self.get(name, &mut small) {
            Ok(length) => Ok(Some(small[..length].to_vec())),
            Err(Errno::RANGE) => {
                let mut large = vec![0_u8; LIST_MAX];
                let length = self.get(name, &mut large)?;
                large.truncate(length);
                Ok(Some(large))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sets one attribute, new or not.
    pub fn set(&self, xattr: &Xattr) -> io::Result<()> {
        let name = super::directory::to_c_string(&xattr.name)?;
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name.as_c_str(), &xattr.value, XattrFlags::empty())?,
            Self::Proc(path) => {
                rustix::fs::setxattr(path.as_c_str(), name.as_c_str(), &xattr.value, XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Takes one attribute off.
    pub fn remove(&self, name: &CStr) -> io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name)?,
            Self::Proc(path) => rustix::fs::removexattr(path.as_c_str(), name)?,
        }
        Ok(())
    }
}

/// Attributes that were read, and those that could not be.
pub type ReadXattrs = (Vec<Xattr>, Vec<(CString, io::Error)>);

/// All extended attributes in the order of their names, and those that could not be read, or are too much.
pub fn read_xattrs(inode: &Inode<'_>) -> io::Result<ReadXattrs> {
    let (mut xattrs, mut failed, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut names = inode.names()?;
    names.sort_unstable();
    for name in names {
        match inode.value(&name) {
            Ok(Some(value)) if bytes + name.count_bytes() + value.len() > limits::ATTRIBUTES_LIMIT => {
                let most = limits::ATTRIBUTES_LIMIT >> 20;
                let text = format!("all of them take more than the {most} MiB that are kept");
                failed.push((name, io::Error::other(text)));
            }
            Ok(Some(value)) => {
                bytes += name.count_bytes() + value.len();
                xattrs.push(Xattr { name: name.into_bytes(), value });
            }
            Ok(None) => {}
            Err(error) => failed.push((name, error)),
        }
    }
    Ok((xattrs, failed))
}

/// The flags of an open file or directory that are kept, 0 where the file system has none.
pub fn read_flags(fd: impl AsFd) -> io::Result<u32> {
    match rustix::fs::ioctl_getflags(fd) {
        Ok(flags) => Ok(flags.bits() & KEPT_FLAGS),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the kept flags of an open file or directory `wanted`, leaving all others as they are. Fails also where the file system
/// says yes and does something else.
pub fn write_flags(fd: impl AsFd, wanted: u32) -> io::Result<()> {
    let present = rustix::fs::ioctl_getflags(fd.as_fd())?;
    let flags = (present.bits() & !KEPT_FLAGS) | (wanted & KEPT_FLAGS);
    if flags == present.bits() {
        return Ok(());
    }
    rustix::fs::ioctl_setflags(fd.as_fd(), IFlags::from_bits_retain(flags))?;
    let differing = (rustix::fs::ioctl_getflags(fd)?.bits() ^ flags) & KEPT_FLAGS;
    if differing == 0 {
        return Ok(());
    }
    let names = IFlags::from_bits_retain(differing);
    Err(io::Error::other(format!("the file system took them and left {names:?} as it was")))
}
