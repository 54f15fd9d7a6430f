//! Regular files of the target: made or taken over, written at any place from any thread, finished.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::attributes::{Handle, apply};
use super::tree::{DirectoryHandle, Made, TargetTree, failed};
use crate::error::{Error, Result};
use crate::format::metadata::Metadata;
use crate::source::show_path;
use crate::sys::attributes::{EARLY_FLAGS, LOCKING_FLAGS, write_flags};
use crate::sys::fds::Slot;
use crate::sys::file::{is_unsupported, punch_hole, read_full_at, write_full_at};
use crate::sys::stat::{file_type, stat_of};

/// Zeros that are written where no hole can be made, in bytes per call.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file being restored. Its descriptor is closed when others need the place, and opened again by need.
#[derive(Debug)]
pub struct TargetFile {
    path: Vec<u8>,
    identity: (u64, u64),
    slot: Arc<Slot>,
    reused: bool,
    inherits: bool,
}

impl TargetFile {
    /// Its path beneath the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether it has contents from before, which may be compared and must be overwritten.
    pub fn is_reused(&self) -> bool {
        self.reused
    }
}

impl TargetTree {
    /// Makes an empty file that is to have these inode flags, or with `reuse` takes over a regular file that is there and has no
    /// other name.
    pub fn prepare_file(&self, path: &[u8], flags: u32, reuse: bool) -> Result<TargetFile> {
        let (parent, name) = self.locate(path)?;
        let old = if reuse && self.options.replace { self.take_over(path, &parent, &name)? } else { None };
        let reused = old.is_some();
        let fd = match old {
            Some(fd) => fd,
            None => self.create(path, &parent, &name, Mode::RUSR | Mode::WUSR, flags)?,
        };
        let stat = stat_of(&fd).map_err(|error| failed(error, "examine", path))?;
        let slot = Arc::new(Slot::default());
        self.files.fill(&slot, fd);
        let identity = (stat.st_dev, stat.st_ino);
        Ok(TargetFile { path: path.to_vec(), identity, slot, reused, inherits: parent.inherits })
    }

    /// Makes a small file with all that belongs to it, in as few calls as there can be.
    pub fn create_small_file(&self, path: &[u8], metadata: &Metadata, contents: &[u8]) -> Result<Made> {
        let (parent, name) = self.locate(path)?;
        let mode = if metadata.xattrs.is_empty() { metadata.mode & 0o777 } else { 0o600 };
        let file = self.create(path, &parent, &name, Mode::from_raw_mode(mode), metadata.flags)?;
        write_full_at(&file, contents, 0).map_err(|error| failed(error, "write", path))?;
        let stat = stat_of(&file).map_err(|error| failed(error, "examine", path))?;
        Ok(self.complete(path, &file, metadata, &stat, parent.inherits))
    }

    /// Writes at a place; places may come in any order and from several threads.
    pub fn write_at(&self, file: &TargetFile, offset: u64, bytes: &[u8]) -> Result<()> {
        self.with_file(file, |open| write_full_at(open, bytes, offset), "write")
    }

    /// Reads what is there, to compare it; less than asked for only at the end of the file.
    pub fn read_at(&self, file: &TargetFile, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.with_file(file, |open| read_full_at(open, buffer, offset), "read")
    }

    /// Makes a range read as zeros, as a hole where that can be. Nothing to do in a new file, whose
    /// unwritten ranges are holes.
    pub fn punch(&self, file: &TargetFile, offset: u64, length: u64) -> Result<()> {
        if !file.reused || length == 0 {
            return Ok(());
        }
        self.with_file(file, |open| zero_range(open, offset, length), "make a hole in")
    }

    /// Gives the file its length and attributes and closes it.
    pub fn finish_file(&self, file: &TargetFile, metadata: &Metadata) -> Result<Made> {
        let fd = self.fd_of(file)?;
        let stat = stat_of(&*fd).map_err(|error| failed(error, "examine", &file.path))?;
        if stat.st_size.unsigned_abs() != metadata.size {
            rustix::fs::ftruncate(&*fd, metadata.size)
                .map_err(|error| failed(error.into(), "set the length of", &file.path))?;
        }
        let made = self.complete(&file.path, &*fd, metadata, &stat, file.reused || file.inherits);
        file.slot.clear();
        Ok(made)
    }

    fn complete(&self, path: &[u8], fd: &impl AsFd, metadata: &Metadata, stat: &Stat, examine: bool) -> Made {
        let made = Made { path: path.to_vec(), identity: (stat.st_dev, stat.st_ino) };
        let handle = Handle::open(fd, self.is_root);
        // A locked inode takes no more names, so its flags wait until all links are made.
        if metadata.links > 1 && metadata.flags & LOCKING_FLAGS != 0 {
            self.lock_later(made.clone(), metadata.flags);
            let unlocked = Metadata { flags: metadata.flags & !LOCKING_FLAGS, ..metadata.clone() };
            apply(&handle, path, &unlocked, stat, examine, &mut |problem| self.report(problem));
        } else {
            apply(&handle, path, metadata, stat, examine, &mut |problem| self.report(problem));
        }
        made
    }

    fn create(
        &self,
        path: &[u8],
        parent: &DirectoryHandle,
        name: &CStr,
        mode: Mode,
        inode_flags: u32,
    ) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || -> io::Result<OwnedFd> {
            let fd = rustix::fs::openat(&parent.fd, name, flags, mode)?;
            if parent.inherits || inode_flags & EARLY_FLAGS != 0 {
                // Whoever sets all of them at the end says what could not be set.
                write_flags(&fd, inode_flags & EARLY_FLAGS).unwrap_or_default();
            }
            Ok(fd)
        };
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.replacing(path, parent, name, make)
            }
            other => other.map_err(|error| failed(error, "create", path)),
        }
    }

    fn take_over(&self, path: &[u8], parent: &DirectoryHandle, name: &CStr) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let plain = crate::sys::stat::stat_at(&parent.fd, name)
            .is_ok_and(|stat| file_type(&stat) == FileType::RegularFile && stat.st_nlink == 1);
        if !plain {
            return Ok(None);
        }
        // One that cannot be opened is replaced by a new one.
        let Ok(fd) = rustix::fs::openat(&parent.fd, name, flags, Mode::empty()) else { return Ok(None) };
        let stat = stat_of(&fd).map_err(|error| failed(error, "examine", path))?;
        // Writing through another name would change a file outside of the restore.
        Ok((file_type(&stat) == FileType::RegularFile && stat.st_nlink == 1).then_some(fd))
    }

    fn fd_of(&self, file: &TargetFile) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = file.slot.get() {
            return Ok(fd);
        }
        let (parent, name) = self.locate(&file.path)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent.fd, name.as_c_str(), flags, Mode::empty())
            .map_err(|error| failed(error.into(), "open", &file.path))?;
        let stat = stat_of(&fd).map_err(|error| failed(error, "examine", &file.path))?;
        if (stat.st_dev, stat.st_ino) != file.identity {
            let path = show_path(&file.path);
            return Err(Error::conflict(format!("{path} was replaced in the target during the restore")));
        }
        Ok(self.files.fill(&file.slot, fd))
    }

    fn with_file<T>(
        &self,
        file: &TargetFile,
        action: impl FnOnce(&OwnedFd) -> io::Result<T>,
        verb: &str,
    ) -> Result<T> {
        let fd = self.fd_of(file)?;
        action(&fd).map_err(|error| failed(error, verb, &file.path))
    }
}

/// Makes a range read as zeros: a hole, or zeros where the file system has none.
pub(super) fn zero_range(file: &impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    match punch_hole(file, offset, length) {
        Err(error) if is_unsupported(&error) => write_zeros(file, offset, length),
        other => other,
    }
}

/// Writes zeros.
pub(super) fn write_zeros(file: &impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let count = (length - done).min(ZEROS.len() as u64);
        let piece = usize::try_from(count).expect("at most the length of ZEROS");
        write_full_at(file, &ZEROS[..piece], offset + done)?;
        done += count;
    }
    Ok(())
}
