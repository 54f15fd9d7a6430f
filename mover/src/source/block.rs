//! A block device or an image file as a source: read by position.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use crate::error::{Error, Result};
use crate::sys::file::{Extents, advise_sequential, end_of, read_full_at, unchanged};
use crate::sys::stat::stat_of;

/// An open device or image.
#[derive(Debug)]
pub struct BlockSource {
    path: PathBuf,
    file: File,
    size: u64,
    opened: Stat,
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
        let file = File::open(path).map_err(failed)?;
        let size = end_of(&file).map_err(failed)?;
        let opened = stat_of(&file).map_err(failed)?;
        advise_sequential(&file);
        Ok(Self { path: path.to_owned(), file, size, opened, device: kind.is_block_device() })
    }

    /// The path as it was given, without the leading slash.
    pub fn path(&self) -> &[u8] {
        super::stored_path(&self.path)
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is a device and not a file.
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// Whether an image file is still as it was when it was opened: size, mtime and ctime. A device does not tell.
    pub fn is_unchanged(&self) -> Result<bool> {
        let now = stat_of(&self.file)
            .map_err(|error| Error::io(error, format!("cannot examine {}", self.path.display())))?;
        Ok(self.device || unchanged(&self.opened, &now))
    }

    /// The data runs: the holes of an image file are known, a device is one run.
    pub fn extents(&self) -> Extents<'_> {
        Extents::new(&self.file, self.size, !self.device)
    }

    /// Fills `buffer` from `offset`; less only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full_at(&self.file, buffer, offset).map_err(|error| {
            Error::io(error, format!("cannot read {} at byte {offset}", self.path.display()))
        })
    }
}
