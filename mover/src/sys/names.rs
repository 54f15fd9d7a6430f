//! The names of one directory in order, in little memory however many there are.
//!
//! Names are kept in memory as long as a walk has room for them. Beyond that they go into a file without a name in
//! the directory for temporary files: sorted runs first, which are then merged into one sorted list that is read a
//! batch at a time.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::directory::{Names, each_name};

#[cfg(test)]
mod tests;

/// How many names are looked at as one piece of work: small enough that the parts of a huge directory are shared
/// among the threads, large enough that handing over costs nothing.
pub(crate) const BATCH: usize = 1024;

/// What a directory may take even if others have taken all there is, in bytes: runs that are not too many.
const LEAST: usize = 64 << 10;

/// Of a run, at least this much is read at once while runs are merged, in bytes, and at most so much.
const RUN_BUFFER: Range<usize> = 4 << 10..256 << 10;

/// Where `TMPDIR` says, and otherwise on a disk: `/tmp` may be in memory.
pub(crate) fn temporary() -> PathBuf {
    let on_disk = PathBuf::from("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && on_disk.is_dir() { on_disk } else { std::env::temp_dir() }
}

/// The memory that all directories of a walk share for their names, and where the names go that do not fit.
#[derive(Debug)]
pub(crate) struct Room {
    free: AtomicUsize,
    temporary: PathBuf,
}

impl Room {
    pub(crate) fn new(bytes: usize, temporary: PathBuf) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes), temporary })
    }

    /// A file that nobody else can open and that is gone with its descriptor.
    fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.temporary)
    }

    fn failed(&self, error: io::Error) -> io::Error {
        let place = self.temporary.display();
        let text = format!(
            "it has more names than memory takes, and they cannot be sorted in {place} (TMPDIR): {error}"
        );
        io::Error::new(error.kind(), text)
    }
}

/// What one directory has taken of the room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    taken: usize,
}

impl Share {
    /// Whether the share is `bytes` now; it stays what it was if there is not so much.
    fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.taken);
        let take = |free: usize| free.checked_sub(more);
        let grown = self.room.free.fetch_update(Relaxed, Relaxed, take).is_ok();
        self.taken += if grown { more } else { 0 };
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.free.fetch_add(self.taken, Relaxed);
    }
}

/// The sorted names of a directory.
#[derive(Debug)]
pub(crate) enum Listed {
    /// All in memory; what they take of the room is free again when they are dropped.
    Here { names: Names, _share: Option<Share> },
    /// In a file.
    There(Sorted),
}

impl Listed {
    /// Names that somebody else holds in memory, in order.
    pub(crate) fn of(names: Names) -> Self {
        Self::Here { names, _share: None }
    }

    /// The names of an open directory. What was read before an error is kept beside the error; nothing is kept when
    /// names went into a file and that failed.
    pub(crate) fn read(directory: impl AsFd, room: &Arc<Room>) -> (Self, Option<io::Error>) {
        Self::read_telling(directory, room, &|| ())
    }

    /// The same; `goes_on` is called after each batch of names, of which there may be more than anybody waits for.
    pub(crate) fn read_telling(
        directory: impl AsFd,
        room: &Arc<Room>,
        goes_on: &dyn Fn(),
    ) -> (Self, Option<io::Error>) {
        let mut collected = Collected::new(room);
        let (mut kept, mut met) = (true, 0_usize);
        let read = each_name(directory, |name| {
            met += 1;
            if met.is_multiple_of(BATCH) {
                goes_on();
            }
            collected.push(name).inspect_err(|_| kept = false)
        });
        let listed = match read {
            // A run that was written in part is in the way of the others.
            Err(error) if !kept => Err(error),
            read => collected.finish(goes_on).map(|listed| (listed, read.err())),
        };
        listed.unwrap_or_else(|error| (Self::of(Names::default()), Some(room.failed(error))))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here { names, .. } => names.len(),
            Self::There(sorted) => sorted.len,
        }
    }

    /// The names of this batch: where they are, and which of them.
    pub(crate) fn batch(&self, batch: usize) -> io::Result<(Cow<'_, Names>, Range<usize>)> {
        match self {
            Self::Here { names, .. } => {
                let range = batch * BATCH..names.len().min((batch + 1) * BATCH);
                Ok((Cow::Borrowed(names), range))
            }
            Self::There(sorted) => {
                let names = sorted.batch(batch)?;
                let range = 0..names.len();
                Ok((Cow::Owned(names), range))
            }
        }
    }
}

/// Names on their way into order.
#[derive(Debug)]
struct Collected {
    names: Names,
    share: Share,
    runs: Option<Runs>,
}

/// Sorted runs, one after the other in a file.
#[derive(Debug)]
struct Runs {
    file: File,
    ends: Vec<u64>,
}

impl Collected {
    fn new(room: &Arc<Room>) -> Self {
        Self { names: Names::default(), share: Share { room: Arc::clone(room), taken: 0 }, runs: None }
    }

    fn push(&mut self, name: &CStr) -> io::Result<()> {
        if !self.names.push(name) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.names.memory() > self.share.taken
            && !self.share.grow(self.names.memory())
            && self.names.bytes() >= LEAST
        {
            self.put_aside()?;
        }
        Ok(())
    }

    /// Writes what is in memory as one more run.
    fn put_aside(&mut self) -> io::Result<()> {
        self.names.sort();
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert(Runs { file: self.share.room.file()?, ends: Vec::new() }),
        };
        let mut out = BufWriter::new(&runs.file);
        let mut end = runs.ends.last().copied().unwrap_or_default();
        for name in self.names.iter() {
            out.write_all(name.to_bytes_with_nul())?;
            end += name.to_bytes_with_nul().len() as u64;
        }
        out.flush()?;
        drop(out);
        runs.ends.push(end);
        // With its memory, which has just grown beyond the share.
        self.names = Names::default();
        Ok(())
    }

    fn finish(mut self, goes_on: &dyn Fn()) -> io::Result<Listed> {
        if self.runs.is_none() {
            self.names.sort();
            return Ok(Listed::Here { names: self.names, _share: Some(self.share) });
        }
        self.put_aside()?;
        let Some(runs) = self.runs else { return Err(io::ErrorKind::NotFound.into()) };
        runs.merge(&self.share, goes_on).map(Listed::There)
    }
}

impl Runs {
    /// One sorted list of all runs, with no more memory than `share` and the least buffer for each.
    fn merge(&self, share: &Share, goes_on: &dyn Fn()) -> io::Result<Sorted> {
        let buffer = (share.taken.max(LEAST) / self.ends.len()).clamp(RUN_BUFFER.start, RUN_BUFFER.end);
        let mut heads = BinaryHeap::with_capacity(self.ends.len());
        let mut at = 0;
        for &end in &self.ends {
            let section = Section { file: &self.file, at, end };
            let mut head = Head { name: Vec::new(), rest: BufReader::with_capacity(buffer, section) };
            if head.advance()? {
                heads.push(Reverse(head));
            }
            at = end;
        }
        let file = share.room.file()?;
        let (mut out, mut written, mut starts) = (BufWriter::new(&file), 0, Vec::new());
        let (mut len, mut last) = (0, Vec::new());
        while let Some(mut first) = heads.peek_mut() {
            // What two runs have is one name.
            if first.0.name != last {
                if len % BATCH == 0 {
                    starts.push(written);
                    goes_on();
                }
                out.write_all(&first.0.name)?;
                written += first.0.name.len() as u64;
                len += 1;
                last.clone_from(&first.0.name);
            }
            if !first.0.advance()? {
                PeekMut::pop(first);
            }
        }
        out.flush()?;
        drop(out);
        starts.push(written);
        Ok(Sorted { file, starts, len })
    }
}

/// A run that is being merged: its first name, with its NUL, and the others.
struct Head<'file> {
    name: Vec<u8>,
    rest: BufReader<Section<'file>>,
}

impl Head<'_> {
    /// Goes to the next name, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        self.name.clear();
        Ok(self.rest.read_until(0, &mut self.name)? > 0)
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Head<'_> {}

/// A part of a file.
struct Section<'file> {
    file: &'file File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        if read == 0 && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// Names in order in a file.
#[derive(Debug)]
pub(crate) struct Sorted {
    file: File,
    /// Where each batch begins, and the end.
    starts: Vec<u64>,
    len: usize,
}

impl Sorted {
    fn batch(&self, batch: usize) -> io::Result<Names> {
        let mut names = Names::default();
        let Some(&[at, end]) = self.starts.get(batch..batch + 2) else { return Ok(names) };
        let mut bytes = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, at)?;
        for name in bytes.split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
            if !names.push(name) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        Ok(names)
    }
}

/// Sorted names beside others in the same order, which are asked for one after the other.
#[derive(Debug)]
pub(crate) struct Cursor {
    listed: Listed,
    next: usize,
    /// The batch that was read last from a file, with its number.
    loaded: Option<(usize, Names)>,
}

impl Cursor {
    pub(crate) fn new(listed: Listed) -> Self {
        Self { listed, next: 0, loaded: None }
    }

    /// Takes the next name that comes before `bound`, or the next one at all without a bound. Passes by a name that is
    /// the bound.
    pub(crate) fn next_before(&mut self, bound: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let Some(name) = self.peek()? else { return Ok(None) };
        let name = name.to_bytes();
        let order = bound.map_or(Ordering::Less, |bound| name.cmp(bound));
        let taken = order.is_lt().then(|| name.to_vec());
        self.next += usize::from(order.is_le());
        Ok(taken)
    }

    fn peek(&mut self) -> io::Result<Option<&CStr>> {
        if self.next >= self.listed.len() {
            return Ok(None);
        }
        let sorted = match &self.listed {
            Listed::Here { names, .. } => return Ok(Some(names.get(self.next))),
            Listed::There(sorted) => sorted,
        };
        let number = self.next / BATCH;
        let loaded = match self.loaded.take() {
            Some(loaded) if loaded.0 == number => loaded,
            _ => (number, sorted.batch(number)?),
        };
        Ok(Some(self.loaded.insert(loaded).1.get(self.next % BATCH)))
    }
}
