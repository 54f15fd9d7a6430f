//! A block device or an image file as a source: read by position, past the page cache where possible.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::sys::direct::{DIRECT_ALIGNMENT, is_aligned};
use crate::sys::file::{Extents, advise_sequential, end_of, read_full_at};

/// An open device or image.
#[derive(Debug)]
pub struct BlockSource {
    path: PathBuf,
    buffered: File,
    direct: Option<File>,
    refused: AtomicBool,
    size: u64,
    device: bool,
}

impl BlockSource {
    /// Opens a device or an image file; symbolic links such as `/dev/disk/by-id` are followed.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(error, format!("cannot open {}", path.display()));
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(Error::invalid(format!(
                "{} is neither a block device nor an image file",
                path.display()
            )));
        }
        let buffered = File::open(path).map_err(failed)?;
        let size = end_of(&buffered).map_err(failed)?;
        // Not every file system has direct reads; then the page cache serves.
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = File::options().read(true).custom_flags(flags).open(path).ok();
        advise_sequential(&buffered);
        let (refused, device) = (AtomicBool::new(false), kind.is_block_device());
        Ok(Self { path: path.to_owned(), buffered, direct, refused, size, device })
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is a device and not a file.
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// The data runs: the holes of an image file are known, a device is one run.
    pub fn extents(&self) -> Extents<'_> {
        Extents::new(&self.buffered, self.size, !self.device)
    }

    /// Fills `buffer` from `offset`; less only at the end. Reads past the page cache if buffer, offset and
    /// length are aligned to [`DIRECT_ALIGNMENT`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let read = match &self.direct {
            Some(direct) if self.may_be_direct(buffer, offset) => {
                match read_full_at(direct, buffer, offset) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        self.refused.store(true, Ordering::Relaxed);
                        read_full_at(&self.buffered, buffer, offset)
                    }
                    other => other,
                }
            }
            _ => read_full_at(&self.buffered, buffer, offset),
        };
        read.map_err(|error| {
            Error::io(error, format!("cannot read {} at byte {offset}", self.path.display()))
        })
    }

    fn may_be_direct(&self, buffer: &[u8], offset: u64) -> bool {
        let whole = offset.saturating_add(buffer.len() as u64) <= self.size;
        whole
            && !self.refused.load(Ordering::Relaxed)
            && offset.is_multiple_of(DIRECT_ALIGNMENT as u64)
            && buffer.len().is_multiple_of(DIRECT_ALIGNMENT)
            && is_aligned(buffer)
    }
}
