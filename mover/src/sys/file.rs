//! Reading, writing and laying out open files and devices.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

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

/// Fills `buffer` from `offset` as far as the file goes; less only at its end. Large reads leave nothing behind in the
/// page cache that was not there before.
pub fn read_full_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut flags = flags_for(buffer.len());
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = IoSliceMut::new(&mut buffer[filled..]);
        match rustix::io::preadv2(file.as_fd(), &mut [rest], offset + filled as u64, flags) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL) if !flags.is_empty() => flags = ReadWriteFlags::empty(),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`. Large writes are on their way to the disk when this returns, and leave the page
/// cache when they are there; but for the pages at both ends, which a neighbour may write the rest of.
pub fn write_full_at(file: impl AsFd, bytes: &[u8], offset: u64) -> io::Result<()> {
    let head = (offset.next_multiple_of(PAGE_BYTES) - offset).min(bytes.len() as u64) as usize;
    let tail = ((offset + bytes.len() as u64) % PAGE_BYTES).min((bytes.len() - head) as u64) as usize;
    let (head, middle) = bytes.split_at(head);
    let (middle, tail) = middle.split_at(middle.len() - tail);
    let flags = flags_for(middle.len());
    if flags.is_empty() {
        return write_with(file, bytes, offset, flags);
    }
    let behind = offset + head.len() as u64;
    write_with(file.as_fd(), head, offset, ReadWriteFlags::empty())?;
    write_with(file.as_fd(), middle, behind, flags)?;
    write_with(file, tail, behind + middle.len() as u64, ReadWriteFlags::empty())
}

fn write_with(file: impl AsFd, bytes: &[u8], offset: u64, mut flags: ReadWriteFlags) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        let rest = IoSlice::new(&bytes[written..]);
        match rustix::io::pwritev2(file.as_fd(), &[rest], offset + written as u64, flags) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL) if !flags.is_empty() => flags = ReadWriteFlags::empty(),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn flags_for(length: usize) -> ReadWriteFlags {
    if length >= IN_PASSING_FROM_BYTES && cache_can_let_go() { DONT_CACHE } else { ReadWriteFlags::empty() }
}

/// Bytes of a page, or a part of one where pages are larger.
const PAGE_BYTES: u64 = 4096;
/// `RWF_DONTCACHE`: pages that this transfer brings into the page cache leave it again.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// Length from which a transfer is in passing: what belongs to smaller ones is soon asked for again.
const IN_PASSING_FROM_BYTES: usize = 256 << 10;
/// The first Linux on which pages that are written again while they leave are safe: the flag is older (6.14).
const LETS_GO_SINCE: (u32, u32) = (6, 16);

fn cache_can_let_go() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let name = rustix::system::uname();
        version_of(&name.release().to_string_lossy()).is_some_and(|version| version >= LETS_GO_SINCE)
    })
}

/// Major and minor number of a kernel's release, such as `6.12.3-amd64`.
pub(super) fn version_of(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
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
