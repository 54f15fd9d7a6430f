//! Reading and writing past the page cache: what is aligned goes between memory and disk without a copy, and pushes
//! out nothing that others have in the cache.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::{file::write_full_at, memory::expect_filling};

/// What direct transfers are aligned to, in bytes: the largest sector there is.
pub const DIRECT_ALIGNMENT: usize = 4096;
/// Bytes of one direct write: enough to keep a disk busy, little enough to be told early that it is full.
const WRITE_BYTES: usize = 8 << 20;

/// Bytes that grow, and begin where a direct transfer wants them as long as they do not outgrow their capacity.
#[derive(Debug, Default)]
pub struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBytes {
    /// No bytes, and room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + DIRECT_ALIGNMENT);
        expect_filling(bytes.spare_capacity_mut());
        let start = start_in(&bytes);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Forgets the bytes and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Makes room for so many more bytes and not for twice as many.
    pub fn reserve_exact(&mut self, additional: usize) {
        self.bytes.reserve_exact(additional);
    }

    /// Appends these bytes.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Appends so many zeros, to be filled.
    pub fn extend_zeroed(&mut self, count: usize) -> &mut [u8] {
        let from = self.bytes.len();
        self.bytes.resize(from + count, 0);
        &mut self.bytes[from..]
    }
}

/// How far behind the first byte of a buffer, filled or not, the first aligned one is.
fn start_in(bytes: &[u8]) -> usize {
    bytes.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT)
}

/// Whether bytes in memory begin where a direct transfer wants them.
pub fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(DIRECT_ALIGNMENT) == 0
}

/// Writes the beginning of `bytes` at the start of `file`, past the page cache, and says how far it came: to the last
/// whole block, or nowhere if the bytes are not aligned or the file system has no direct writes. The rest is for
/// ordinary writes.
pub fn write_front(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let whole = bytes.len() - bytes.len() % DIRECT_ALIGNMENT;
    if whole == 0 || !is_aligned(bytes) || set_direct(file.as_fd(), true).is_err() {
        return Ok(0);
    }
    let mut written = 0;
    let mut result = Ok(());
    for piece in bytes[..whole].chunks(WRITE_BYTES) {
        result = write_full_at(file.as_fd(), piece, written as u64);
        if result.is_err() {
            break;
        }
        written += piece.len();
    }
    set_direct(file, false)?;
    match result {
        // The alignment is not to the taste of this file system.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(written),
        Err(error) => Err(error),
        Ok(()) => Ok(written),
    }
}

/// Length from which a read may go past the page cache: for less, the blocks at both ends cost too much.
const READ_FROM_BYTES: usize = 128 << 10;

/// Reads `length` bytes from `offset` of a file that nobody else has open by this descriptor: out of the page cache if
/// they are there, past it otherwise. Less comes only at the end of the file. The bytes begin at the answer's index.
pub fn read_range(file: &File, offset: u64, length: usize) -> io::Result<(Vec<u8>, usize)> {
    if length >= READ_FROM_BYTES && !is_cached(file, offset) && set_direct(file, true).is_ok() {
        let read = read_direct(file, offset, length);
        match &read {
            // No direct reads here, or of other blocks: the page cache serves.
            Err(error) if Errno::from_io_error(error) == Some(Errno::INVAL) => set_direct(file, false)?,
            _ => return read,
        }
    }
    let mut bytes = Vec::with_capacity(length);
    read_into(file, &mut bytes, offset, length)?;
    Ok((bytes, 0))
}

fn read_direct(file: &File, offset: u64, length: usize) -> io::Result<(Vec<u8>, usize)> {
    let skipped = (offset % DIRECT_ALIGNMENT as u64) as usize;
    let whole = (skipped + length).next_multiple_of(DIRECT_ALIGNMENT);
    let mut bytes = Vec::with_capacity(whole + DIRECT_ALIGNMENT);
    let start = start_in(&bytes);
    bytes.resize(start, 0);
    read_into(file, &mut bytes, offset - skipped as u64, whole)?;
    bytes.truncate(start + skipped + length);
    let first = bytes.len().min(start + skipped);
    Ok((bytes, first))
}

/// Whether the byte at `offset` can be had without waiting for a disk. Where the kernel cannot tell, yes.
fn is_cached(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    let answer = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    answer != Err(Errno::AGAIN)
}

/// Appends up to `length` bytes from `offset`, for which there is room already; less only at the end of the file.
#[expect(unsafe_code, reason = "room that a read fills need not be filled with zeros first")]
fn read_into(file: &File, bytes: &mut Vec<u8>, offset: u64, length: usize) -> io::Result<()> {
    let end = bytes.len() + length;
    let mut at = offset;
    while bytes.len() < end {
        let wanted = end - bytes.len();
        let room: &mut [MaybeUninit<u8>] = &mut bytes.spare_capacity_mut()[..wanted];
        let count = match rustix::io::pread(file, room, at) {
            Ok((filled, _)) => filled.len(),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if count == 0 {
            break;
        }
        // SAFETY: the read has filled that many bytes from the end of `bytes` on, and they are within its capacity,
        // as `room` is a part of it.
        unsafe { bytes.set_len(bytes.len() + count) };
        at += count as u64;
    }
    Ok(())
}

fn set_direct(file: impl AsFd, direct: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file.as_fd())?;
    flags.set(OFlags::DIRECT, direct);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}
