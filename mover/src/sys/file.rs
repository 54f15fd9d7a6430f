//! Reading, writing and laying out open files and devices.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// Opens one name for reading, never waiting for the other end of a pipe, never following a link.
pub fn open_for_reading(directory: impl AsFd, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory.as_fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may ask for O_NOATIME.
        Err(Errno::PERM) => Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?.into()),
        other => Ok(other?.into()),
    }
}

/// Opens the inode behind a name without opening what it stands for.
pub fn open_path_only(directory: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

/// Fills `buffer` from `offset` as far as the file goes; less only at its end.
pub fn read_full_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file.as_fd(), &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`.
pub fn write_full_at(file: impl AsFd, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::pwrite(file.as_fd(), &bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A run of a file that the file system keeps data for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, never 0.
    pub length: u64,
}

/// The data runs of a file in ascending order, asked for one at a time, so memory does not grow with them.
///
/// Where the file system does not tell, or stops telling, the rest of the file is one run.
#[derive(Debug)]
pub struct Extents<'file> {
    fd: BorrowedFd<'file>,
    position: u64,
    size: u64,
    telling: bool,
}

impl<'file> Extents<'file> {
    /// The runs of the first `size` bytes; `telling` is false to take them as one run without asking.
    pub fn new(file: &'file impl AsFd, size: u64, telling: bool) -> Self {
        Self { fd: file.as_fd(), position: 0, size, telling }
    }

    /// The runs from `start` up to `end`.
    pub fn within(file: &'file impl AsFd, start: u64, end: u64) -> Self {
        Self { fd: file.as_fd(), position: start, size: end, telling: true }
    }

    fn rest(&mut self) -> Option<Extent> {
        let extent = Extent { offset: self.position, length: self.size - self.position };
        self.position = self.size;
        Some(extent)
    }
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.position >= self.size {
            return None;
        }
        if !self.telling {
            return self.rest();
        }
        let start = match rustix::fs::seek(self.fd, SeekFrom::Data(self.position)) {
            Ok(start) if start < self.size => start,
            Ok(_) | Err(Errno::NXIO) => {
                self.position = self.size;
                return None;
            }
            Err(_) => return self.rest(),
        };
        let end = match rustix::fs::seek(self.fd, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(self.size),
            _ => self.size,
        };
        self.position = end;
        Some(Extent { offset: start, length: end - start })
    }
}

/// Makes a range of a file a hole; the length of the file stays.
pub fn punch_hole(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, offset, length)?)
}

/// Whether an error of [`punch_hole`] or of zeroing a device means that it cannot be done here at all.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY | Errno::NODEV)
    )
}

/// Tells the kernel that the file is read from front to back. Advice only: a refusal changes nothing.
pub fn advise_sequential(file: impl AsFd) {
    rustix::fs::fadvise(file, 0, None, Advice::Sequential).unwrap_or_default();
}

/// Tells the kernel that a range will not be read again, so that a backup does not push out what is in use.
pub fn advise_done(file: impl AsFd, offset: u64, length: u64) {
    rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), Advice::DontNeed)
        .unwrap_or_default();
}

/// The length of a device or file by seeking to its end; moves the position of the descriptor.
pub fn end_of(file: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

/// Whether two stats are of one inode whose contents have not changed between them.
pub fn unchanged(before: &rustix::fs::Stat, after: &rustix::fs::Stat) -> bool {
    let key = |s: &rustix::fs::Stat| {
        (s.st_dev, s.st_ino, s.st_size, s.st_mtime, s.st_mtime_nsec, s.st_ctime, s.st_ctime_nsec)
    };
    key(before) == key(after)
}
