//! Directories that are being walked: opened beneath each other, closed when descriptors run short, and
//! opened again with a check that they are still the same.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::sys::directory::{open_directory, open_trusted_directory, pass_directory};
use crate::sys::fds::{FdCache, Slot};
use crate::sys::stat::stat_of;

/// A directory of the source.
#[derive(Debug)]
pub struct OpenDirectory {
    parent: Option<Arc<Self>>,
    name: CString,
    path: Box<[u8]>,
    identity: Option<(u64, u64)>,
    slot: Arc<Slot>,
    cache: Arc<FdCache>,
}

impl OpenDirectory {
    /// The top of the file system, from which every root is reached.
    pub fn top(cache: Arc<FdCache>) -> Arc<Self> {
        let (name, path) = (CString::from(c"/"), Box::default());
        Arc::new(Self { parent: None, name, path, identity: None, slot: Arc::default(), cache })
    }

    /// A sub-directory. With an `identity` (device and inode) it must be that directory whenever it is
    /// opened and no symbolic link; without, it is only passed through and a link is followed.
    pub fn child(self: &Arc<Self>, name: &CStr, identity: Option<(u64, u64)>) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            path: self.join(name.to_bytes()).into(),
            name: name.into(),
            identity,
            slot: Arc::default(),
            cache: Arc::clone(&self.cache),
        })
    }

    /// Slash-joined, without a leading slash; empty for the top.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() {
            return name.to_vec();
        }
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    /// The open descriptor; opens the directory, and those above it that were closed, if need be.
    pub fn fd(&self) -> io::Result<Arc<OwnedFd>> {
        let mut closed = vec![self];
        let mut fd = loop {
            let lowest = closed.last().copied().expect("one is pushed before the loop");
            if let Some(fd) = lowest.slot.get() {
                closed.pop();
                break fd;
            }
            match &lowest.parent {
                Some(parent) => closed.push(parent),
                None => {
                    closed.pop();
                    break lowest.cache.fill(&lowest.slot, open_trusted_directory(&lowest.name)?);
                }
            }
        };
        while let Some(directory) = closed.pop() {
            fd = directory.open_in(&fd)?;
        }
        Ok(fd)
    }

    fn open_in(&self, parent: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        let fd = match self.identity {
            None => pass_directory(parent, &self.name)?,
            Some(identity) => {
                let fd = open_directory(parent, &self.name)?;
                let stat = stat_of(&fd)?;
                if (stat.st_dev, stat.st_ino) != identity {
                    return Err(io::Error::other(
                        "the directory was replaced by another one during the walk",
                    ));
                }
                fd
            }
        };
        Ok(self.cache.fill(&self.slot, fd))
    }
}

impl Drop for OpenDirectory {
    // A chain as deep as the tree must not be dropped by recursion.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut directory) = parent.and_then(Arc::into_inner) {
            parent = directory.parent.take();
        }
    }
}
