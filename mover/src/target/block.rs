//! Restores to a block device or an image file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::file::{write_zeros, zero_range};
use crate::error::{Error, Result};
use crate::sys::file::{Extents, end_of, is_unsupported, write_full_at};
use crate::sys::ioctl::{is_read_only_device, zero_device_range};

/// Bytes that are compared with zeros at once.
const ZEROS_AT_ONCE: u64 = 1 << 20;

/// How an image is restored.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockTargetOptions {
    /// The target is known to read as zeros (a fresh volume), so zeros need not be written.
    pub known_zero: bool,
    /// Whether an image file that exists is overwritten; a device always is.
    pub replace: bool,
}

/// An open device or image file of sufficient size.
#[derive(Debug)]
pub struct BlockTarget {
    file: File,
    path: PathBuf,
    size: u64,
    device: bool,
    known_zero: bool,
}

impl BlockTarget {
    /// Opens the target for an image of `size` bytes. Everything that can be refused is refused here, before
    /// a byte is written: too small, read-only, in use.
    pub fn open(path: &Path, size: u64, options: BlockTargetOptions) -> Result<Self> {
        match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => Self::open_device(path, size, options, true),
            Ok(found) if !found.is_file() => {
                Err(Error::invalid(format!("{} is neither a block device nor an image file", path.display())))
            }
            Ok(_) if !options.replace => Err(exists(path)),
            Ok(_) => Self::open_file(path, size, options, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::open_file(path, size, options, true)
            }
            Err(error) => Err(Error::io(error, format!("cannot examine {}", path.display()))),
        }
    }

    /// Refuses what [`Self::open`] would refuse, and writes nothing. How many bytes the target can take.
    pub fn examine(path: &Path, size: u64, options: BlockTargetOptions) -> Result<u64> {
        match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => {
                Self::open_device(path, size, options, false).and_then(|target| target.room())
            }
            Ok(found) if !found.is_file() => {
                Err(Error::invalid(format!("{} is neither a block device nor an image file", path.display())))
            }
            Ok(_) if !options.replace => Err(exists(path)),
            Ok(found) => free_bytes(path).map(|free| free.saturating_add(found.blocks() * 512)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                free_bytes(parent.unwrap_or(Path::new(".")))
            }
            Err(error) => Err(Error::io(error, format!("cannot examine {}", path.display()))),
        }
    }

    /// Opens what was restored, to read it back from the medium and not from memory.
    pub fn open_restored(path: &Path, size: u64) -> Result<Self> {
        let failed = |error| Error::io(error, format!("cannot read {} back", path.display()));
        let file = File::open(path).map_err(failed)?;
        let device = file.metadata().map_err(failed)?.file_type().is_block_device();
        // Only a wish: what is not dropped is compared as well.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap_or_default();
        Ok(Self { file, path: path.to_owned(), size, device, known_zero: false })
    }

    /// Whether it has as many bytes as were restored: a device may have more.
    pub fn check_length(&self) -> Result<()> {
        let room = self.room()?;
        if room == self.size || self.device && room > self.size {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{} has {room} bytes, and {} were restored",
            self.path.display(),
            self.size
        )))
    }

    /// Bytes of the device or file.
    pub fn room(&self) -> Result<u64> {
        end_of(&self.file).map_err(|error| self.failed(error, "examine", 0))
    }

    fn open_device(path: &Path, size: u64, options: BlockTargetOptions, write: bool) -> Result<Self> {
        // O_EXCL on a device asks the kernel whether anything else has claimed it.
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let opened = File::options().read(true).write(write).custom_flags(exclusive).open(path);
        let file = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => {
                Error::conflict(format!("{} is in use: mounted, or part of another device", path.display()))
                    .with_hint("unmount it first")
                    .with_source(error)
            }
            _ => Error::io(error, format!("cannot open {} for writing", path.display())),
        })?;
        let failed = |error| Error::io(error, format!("cannot examine {}", path.display()));
        if is_read_only_device(&file).map_err(failed)? {
            return Err(Error::denied(format!("{} is read-only", path.display())));
        }
        let room = end_of(&file).map_err(failed)?;
        if room < size {
            return Err(Error::invalid(format!(
                "{} is too small: it has {room} bytes, the image needs {size}; nothing was written",
                path.display()
            ))
            .with_hint("restore to a device of at least that size"));
        }
        let known_zero = options.known_zero;
        Ok(Self { file, path: path.to_owned(), size, device: true, known_zero })
    }

    fn open_file(path: &Path, size: u64, options: BlockTargetOptions, fresh: bool) -> Result<Self> {
        let failed = |error: io::Error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = Error::io(error, format!("cannot prepare {}", path.display()));
            if missing { error.with_hint("make the directory of the image first") } else { error }
        };
        let mut how = File::options();
        how.read(true).write(true).create_new(fresh).mode(0o600);
        let file = how.open(path).map_err(failed)?;
        file.set_len(size).map_err(failed)?;
        let known_zero = fresh || options.known_zero;
        Ok(Self { file, path: path.to_owned(), size, device: false, known_zero })
    }

    /// Writes at a place; places may come in any order and from several threads.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len() as u64)?;
        write_full_at(&self.file, bytes, offset).map_err(|error| self.failed(error, "write", offset))
    }

    /// Reads what is there, to compare it.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        crate::sys::file::read_full_at(&self.file, buffer, offset)
            .map_err(|error| self.failed(error, "read", offset))
    }

    /// Fails if a range does not read as zeros. Of a file only what it keeps data for is read.
    pub fn check_zeros(&self, offset: u64, length: u64, go_on: impl Fn() -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(length.min(ZEROS_AT_ONCE)).unwrap_or_default()];
        for extent in Extents::within(&self.file, offset, offset + length) {
            let (mut at, end) = (extent.offset, extent.offset + extent.length);
            while at < end {
                go_on()?;
                let wanted = usize::try_from((end - at).min(buffer.len() as u64)).unwrap_or_default();
                let count = self.read_at(at, &mut buffer[..wanted])?;
                if count != wanted || buffer[..wanted].iter().any(|byte| *byte != 0) {
                    return Err(Error::corrupt(format!("the {length} bytes at {offset} are not zeros")));
                }
                at += wanted as u64;
            }
        }
        Ok(())
    }

    /// Makes a range read as zeros by the cheapest way there is.
    pub fn zero(&self, offset: u64, length: u64) -> Result<()> {
        self.check(offset, length)?;
        if self.known_zero || length == 0 {
            return Ok(());
        }
        let zeroed = if self.device {
            match zero_device_range(&self.file, offset, length) {
                // The device cannot, or the range is not made of whole sectors.
                Err(error) if is_unsupported(&error) => write_zeros(&self.file, offset, length),
                other => other,
            }
        } else {
            zero_range(&self.file, offset, length)
        };
        zeroed.map_err(|error| self.failed(error, "zero", offset))
    }

    /// Waits until everything is on the medium: of an image file its name too.
    pub fn finish(self) -> Result<()> {
        let failed = |error| self.failed(error, "finish writing", self.size);
        self.file.sync_all().map_err(failed)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        match File::open(parent.unwrap_or(Path::new("."))) {
            _ if self.device => Ok(()),
            Ok(parent) => parent.sync_all().map_err(failed),
            // A directory that may be written and not read cannot be synced.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn check(&self, offset: u64, length: u64) -> Result<()> {
        if offset.checked_add(length).is_some_and(|end| end <= self.size) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "the snapshot holds {length} bytes at {offset}, beyond the {} bytes of the image",
            self.size
        )))
    }

    fn failed(&self, error: io::Error, action: &str, offset: u64) -> Error {
        Error::io(error, format!("cannot {action} {} at byte {offset}", self.path.display()))
    }
}

fn exists(path: &Path) -> Error {
    Error::conflict(format!("{} exists", path.display()))
        .with_hint("name a new file, or allow existing files to be overwritten")
}

/// What the file system at `path` has left.
fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)
        .map_err(|error| Error::io(error.into(), format!("cannot examine {}", path.display())))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
