//! Removing what is in the way of a restore, or what the snapshot does not hold.

use std::ffi::CStr;
use std::io;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::tree::{DirectoryHandle, TargetTree, failed};
use crate::error::{Error, Result};
use crate::source::show_path;
use crate::sys::attributes::write_flags;
use crate::sys::directory::{open_directory, read_names};
use crate::sys::file::open_for_reading;
use crate::sys::stat::{file_type, stat_at};

/// How often a name is cleared for one entry; more means that somebody else keeps making it.
const ATTEMPTS: usize = 3;

impl TargetTree {
    /// Removes what is at `path`, a directory with all that is in it. Returns how many entries went. Links
    /// are removed, never followed.
    pub fn remove(&self, path: &[u8]) -> Result<u64> {
        self.forget_directories();
        let removed = self.bottom_up(path, unlink)?;
        self.forget_directories();
        Ok(removed)
    }

    /// How many entries [`Self::remove`] would remove.
    pub fn count(&self, path: &[u8]) -> Result<u64> {
        self.bottom_up(path, |_, _, _| Ok(()))
    }

    fn bottom_up(
        &self,
        path: &[u8],
        act: impl Fn(&DirectoryHandle, &CStr, bool) -> io::Result<()>,
    ) -> Result<u64> {
        let mut count = 0;
        let mut waiting = vec![(path.to_vec(), false)];
        while let Some((path, emptied)) = waiting.pop() {
            let (parent, name) = self.locate(&path)?;
            let stat = stat_at(&parent.fd, &name).map_err(|error| failed(error, "examine", &path))?;
            let directory = file_type(&stat) == FileType::Directory;
            if directory && !emptied {
                let fd = open_directory(&parent.fd, &name).map_err(|error| failed(error, "open", &path))?;
                let (names, failure) = read_names(&fd);
                if let Some(error) = failure {
                    return Err(failed(error, "list", &path));
                }
                waiting.push((path.clone(), true));
                for index in 0..names.len() {
                    waiting.push(([&path, &b"/"[..], names.get(index).to_bytes()].concat(), false));
                }
                continue;
            }
            act(&parent, &name, directory).map_err(|error| failed(error, "remove", &path))?;
            count += 1;
        }
        Ok(count)
    }

    /// Clears the name if the options allow it, and calls `make` again.
    pub(super) fn replacing<T>(
        &self,
        path: &[u8],
        parent: &DirectoryHandle,
        name: &CStr,
        make: impl Fn() -> io::Result<T>,
    ) -> Result<T> {
        if !self.options.replace {
            return Err(Error::conflict(format!("{} exists in the target", show_path(path)))
                .with_hint("restore into an empty directory, or allow existing files to be overwritten"));
        }
        for _ in 0..ATTEMPTS {
            match unlink(parent, name, false) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    self.remove(path)?;
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(error, "remove", path));
                }
                _ => {}
            }
            match make() {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map_err(|error| failed(error, "create", path)),
            }
        }
        Err(Error::conflict(format!("somebody keeps making {} in the target", show_path(path))))
    }
}

/// Removes one name, taking a flag off that forbids it.
fn unlink(parent: &DirectoryHandle, name: &CStr, directory: bool) -> io::Result<()> {
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(&parent.fd, name, flags) {
        Err(Errno::PERM) => {
            let stat = stat_at(&parent.fd, name)?;
            match file_type(&stat) {
                FileType::RegularFile => write_flags(open_for_reading(&parent.fd, name)?, 0)?,
                FileType::Directory if !directory => return Err(io::ErrorKind::IsADirectory.into()),
                FileType::Directory => write_flags(open_directory(&parent.fd, name)?, 0)?,
                _ => return Err(Errno::PERM.into()),
            }
            Ok(rustix::fs::unlinkat(&parent.fd, name, flags)?)
        }
        other => Ok(other?),
    }
}
