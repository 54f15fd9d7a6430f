//! Reading a regular file of a walked tree.

use std::fs::File;

use rustix::fs::{FileType, Stat};

use super::walk::Walked;
use super::{Problem, show_path};
use crate::error::{Error, Result};
use crate::format::metadata::Metadata;
use crate::sys::directory::to_c_string;
use crate::sys::file::{Extents, advise_sequential, open_for_reading, read_full_at, unchanged};
use crate::sys::stat::{file_type, metadata_of, stat_of};

/// Bytes that one `st_blocks` stands for, whatever the file system's block size.
const STAT_BLOCK: u64 = 512;

/// Files of at least this many bytes are announced to the kernel as read in sequence.
const ADVISE_FROM: u64 = 1 << 20;

/// An open file of the source.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: Vec<u8>,
    opened: Stat,
}

impl SourceFile {
    /// Opens the file of an entry, checking that it is still the inode that was found.
    pub fn open(entry: &Walked) -> Result<Self> {
        let path = entry.path();
        let failed = |error| Error::io(error, format!("cannot open /{}", show_path(&path)));
        let name = to_c_string(&entry.name).map_err(failed)?;
        let directory = entry.directory.fd().map_err(failed)?;
        let file = open_for_reading(&*directory, &name).map_err(failed)?;
        let opened = stat_of(&file).map_err(failed)?;
        let found = metadata_of(&opened);
        let same = (found.device, found.inode) == (entry.metadata.device, entry.metadata.inode);
        if !same || file_type(&opened) != FileType::RegularFile {
            return Err(Error::conflict(format!("/{} was replaced during the backup", show_path(&path))));
        }
        if found.size >= ADVISE_FROM {
            advise_sequential(&file);
        }
        Ok(Self { file, path, opened })
    }

    /// The attributes at the time of opening, with flags and extended attributes; they, not those of the
    /// walk, belong to the contents that are read.
    pub fn read_attributes(&self) -> (Metadata, Vec<Problem>) {
        let (mut metadata, mut problems) = (metadata_of(&self.opened), Vec::new());
        if let Err(error) = super::attributes::read_open(&mut metadata, &self.file, &self.path, &mut problems)
        {
            let error = Error::io(error, format!("cannot read the attributes of /{}", show_path(&self.path)));
            problems.push(Problem::new(self.path.as_slice(), "attributes", error));
        }
        if !problems.is_empty() {
            metadata.ctime = super::attributes::INCOMPLETE;
        }
        (metadata, problems)
    }

    /// Whether it was opened as the walk had found it: size, mtime and ctime.
    pub fn is_as_walked(&self, walked: &Metadata) -> bool {
        let opened = metadata_of(&self.opened);
        (opened.size, opened.mtime, opened.ctime) == (walked.size, walked.mtime, walked.ctime)
    }

    /// The slash-joined path, without the leading slash.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Length at the time of opening, in bytes.
    pub fn size(&self) -> u64 {
        self.opened.st_size.max(0).unsigned_abs()
    }

    /// The data runs; everything between them is a hole and reads as zeros.
    pub fn extents(&self) -> Extents<'_> {
        let kept = self.opened.st_blocks.unsigned_abs().saturating_mul(STAT_BLOCK);
        Extents::new(&self.file, self.size(), kept < self.size())
    }

    /// Fills `buffer` from `offset`; less only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full_at(&self.file, buffer, offset).map_err(|error| {
            Error::io(error, format!("cannot read /{} at byte {offset}", show_path(&self.path)))
        })
    }

    /// Whether the file is still as it was when it was opened: size, mtime and ctime.
    pub fn is_unchanged(&self) -> Result<bool> {
        let now = stat_of(&self.file)
            .map_err(|error| Error::io(error, format!("cannot examine /{}", show_path(&self.path))))?;
        Ok(unchanged(&self.opened, &now))
    }
}
