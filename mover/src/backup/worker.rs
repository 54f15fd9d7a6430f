//! Workers: each carries a task from reading to the pack.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, atomic::Ordering},
};

use crossbeam_channel::Receiver;

use crate::{
    cancel::Cancel,
    chunker::{self, Chunker},
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::ChunkRef,
    },
    monitor::{Monitor, Problem, Progress, escape_path},
    pipeline::{
        cut::{self, cut_segment},
        frames::{Framer, Shared},
        promise::Giver,
    },
    source::file::{self, OpenedFile},
};

/// A file that is read whole: small enough to share a slab with its neighbours.
pub(crate) struct SmallFile {
    /// Everything but the contents.
    pub(crate) entry: Entry,
    /// How to open it.
    pub(crate) locator: file::Locator,
    /// The parent's entry, whose contents may be the same.
    pub(crate) parent: Option<Entry>,
}

/// An entry of a batch: done, or to be read.
pub(crate) enum BatchItem {
    /// Goes into the tree as it is.
    Done(Entry),
    /// Is read first.
    Read(Box<SmallFile>),
}

/// What one worker does in one go.
pub(crate) enum Task {
    /// Read small files; what cannot be read is left out and reported.
    Batch(Vec<BatchItem>, Giver<Result<Vec<Entry>>>),
    /// Read and cut a segment of a large file or device.
    Segment(Segment),
    /// Store bytes that were read and cut already.
    Buffer(Vec<u8>, Vec<usize>, Giver<Result<Vec<Run>, Failure>>),
}

/// A segment of one run of data.
pub(crate) struct Segment {
    /// The open file or device.
    pub(crate) file: Arc<File>,
    /// Where the segment begins in the file.
    pub(crate) start: u64,
    /// Where its run of data begins.
    pub(crate) run: u64,
    /// Bytes of the segment.
    pub(crate) length: usize,
    /// Bytes of the run behind the segment, which its last chunk may reach into.
    pub(crate) behind: usize,
    /// How to cut.
    pub(crate) cutting: Cutting,
    /// Where the answer goes.
    pub(crate) answer: Giver<Result<Vec<Run>, Failure>>,
}

/// How a segment is cut.
pub(crate) enum Cutting {
    /// By contents: where the first chunk begins, and who waits for where the next segment's does.
    Content(cut::Entry, Giver<u64>),
    /// By a fixed grid; blocks of zeros become holes.
    Grid(u32),
}

/// What workers share.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) chunker: Chunker,
    pub(crate) monitor: Arc<dyn Monitor>,
    pub(crate) cancel: Cancel,
    pub(crate) slab_bytes: usize,
}

/// Works until there are no more tasks.
pub(crate) fn work(context: &Context, tasks: &Receiver<Task>) {
    let mut worker = Worker {
        framer: Framer::new(Arc::clone(&context.shared)),
        slab: Vec::with_capacity(context.slab_bytes),
        context,
    };
    for task in tasks {
        match task {
            Task::Batch(items, answer) => answer.give(worker.batch(items)),
            Task::Segment(segment) => worker.segment(segment),
            Task::Buffer(data, ends, answer) => {
                answer.give(worker.chunks(&data, 0, &ends).map_err(Failure::Store));
            }
        }
    }
}

struct Worker<'c> {
    framer: Framer,
    slab: Vec<u8>,
    context: &'c Context,
}

impl Worker<'_> {
    fn batch(&mut self, items: Vec<BatchItem>) -> Result<Vec<Entry>> {
        let mut slab = std::mem::take(&mut self.slab);
        slab.clear();
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            match item {
                BatchItem::Done(entry) => entries.push(entry),
                BatchItem::Read(small) => {
                    self.context.cancel.check()?;
                    let path = small.entry.path.clone();
                    match self.small_file(*small, &mut slab) {
                        Ok(entry) => entries.push(entry),
                        Err(Failure::Source(error)) => self.report(&path, &error),
                        Err(Failure::Store(error)) => return Err(error),
                    }
                }
            }
        }
        self.framer.flush(&slab)?;
        self.slab = slab;
        Ok(entries)
    }

    fn report(&self, path: &[u8], error: &Error) {
        let what = format!("/{}", escape_path(path));
        self.context.monitor.problem(Problem { what, message: describe(error) });
    }

    /// Reads a file behind what is in the slab already, and cuts it.
    fn small_file(&mut self, small: SmallFile, slab: &mut Vec<u8>) -> Result<Entry, Failure> {
        let SmallFile { mut entry, locator, parent } = small;
        let opened = locator.open(&entry.metadata).map_err(Failure::Source)?;
        let start = slab.len();
        let expected = usize::try_from(entry.metadata.size).expect("small files are small");
        slab.resize(start + expected + 1, 0);
        let mut read = 0;
        while read < expected + 1 {
            match opened.file().read_at(&mut slab[start + read..], read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    slab.truncate(start);
                    return Err(Failure::Source(Error::io(error, format!("cannot read at byte {read}"))));
                }
            }
        }
        let read = read.min(expected);
        slab.truncate(start + read);
        if let Some(change) = opened.changed_since(&entry.metadata) {
            self.report(&entry.path, &change);
        }
        entry.metadata.size = read as u64;
        let progress = self.context.monitor.progress();
        Progress::add(&progress.bytes, read as u64);
        Progress::add(&progress.bytes_moved, read as u64);
        entry.content = self.small_content(&opened, slab, start, parent.as_ref())?;
        Ok(entry)
    }

    fn small_content(
        &mut self,
        opened: &OpenedFile,
        slab: &[u8],
        start: usize,
        parent: Option<&Entry>,
    ) -> Result<Content, Failure> {
        let parent = match parent.map(|entry| &entry.content) {
            Some(Content::Inline(runs)) => &runs[..],
            _ => &[],
        };
        let mut runs = Vec::new();
        for (at, length, hole) in extents_of(opened, &slab[start..])? {
            if hole {
                runs.push(Run::Hole(length as u64));
                continue;
            }
            let end = start + at + length;
            let mut at = start + at;
            while at < end {
                let next = at + self.context.chunker.cut(&slab[at..end]);
                let id = self.context.shared.keys.chunk_id(&slab[at..next]);
                let chunk = match same_chunk(parent, &id) {
                    Some(known) => {
                        self.context.shared.counts.chunks_known.fetch_add(1, Ordering::Relaxed);
                        known.clone()
                    }
                    None => self.framer.chunk_with_id(slab, id, at, next).map_err(Failure::Store)?,
                };
                runs.push(Run::Chunk(chunk));
                at = next;
            }
        }
        Ok(Content::Inline(runs))
    }

    fn segment(&mut self, segment: Segment) {
        let Segment { file, start, run, length, behind, cutting, answer } = segment;
        let result = self.read_segment(&file, (start, run), length, behind, cutting);
        answer.give(result);
    }

    fn read_segment(
        &mut self,
        file: &File,
        (start, run): (u64, u64),
        length: usize,
        behind: usize,
        cutting: Cutting,
    ) -> Result<Vec<Run>, Failure> {
        self.context.cancel.check().map_err(Failure::Store)?;
        let mut slab = std::mem::take(&mut self.slab);
        slab.resize(length + behind, 0);
        let read = read_full(file, &mut slab, start)
            .map_err(|error| Failure::Source(Error::io(error, format!("cannot read at byte {start}"))))?;
        if read < length {
            return Err(Failure::Source(Error::conflict(format!(
                "it became shorter while it was read: {} bytes are missing from byte {} on",
                length - read,
                start + read as u64
            ))));
        }
        slab.truncate(read);
        let progress = self.context.monitor.progress();
        Progress::add(&progress.bytes, length as u64);
        Progress::add(&progress.bytes_moved, length as u64);
        let runs = match cutting {
            Cutting::Content(entry, next) => {
                let (first, ends) = cut_segment(&self.context.chunker, &slab, start - run, length, entry, next);
                self.chunks(&slab, first, &ends)
            }
            Cutting::Grid(grid) => {
                let ends: Vec<usize> =
                    (0..length).step_by(grid as usize).map(|at| length.min(at + grid as usize)).collect();
                self.blocks(&slab, &ends)
            }
        };
        self.slab = slab;
        runs.map_err(Failure::Store)
    }

    fn chunks(&mut self, data: &[u8], first: usize, ends: &[usize]) -> Result<Vec<Run>> {
        let mut at = first;
        let mut runs = Vec::with_capacity(ends.len());
        for end in ends {
            runs.push(Run::Chunk(self.framer.chunk(data, at, *end)?));
            at = *end;
        }
        self.framer.flush(data)?;
        Ok(runs)
    }

    fn blocks(&mut self, data: &[u8], ends: &[usize]) -> Result<Vec<Run>> {
        let mut at = 0;
        let mut runs = Vec::with_capacity(ends.len());
        for end in ends {
            runs.push(match chunker::is_zero(&data[at..*end]) {
                true => Run::Hole((*end - at) as u64),
                false => Run::Chunk(self.framer.chunk(data, at, *end)?),
            });
            at = *end;
        }
        self.framer.flush(data)?;
        Ok(runs)
    }
}

/// Whose fault it is: a source that cannot be read costs one entry, a store that cannot be written the backup.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The source could not be read.
    Source(Error),
    /// The store could not be written, or somebody asked to stop.
    Store(Error),
}

/// The parent's chunk with this id, if it has one.
fn same_chunk<'r>(parent: &'r [Run], id: &crate::id::ChunkId) -> Option<&'r ChunkRef> {
    parent.iter().find_map(|run| match run {
        Run::Chunk(chunk) if chunk.id == *id => Some(chunk),
        _ => None,
    })
}

/// Data and holes of a small file: `(offset, length, is a hole)`. Asks the file system only where a whole block of
/// zeros suggests that there is a hole.
fn extents_of(opened: &OpenedFile, data: &[u8]) -> Result<Vec<(usize, usize, bool)>, Failure> {
    let (blocks, _) = data.as_chunks::<4096>();
    if data.is_empty() {
        return Ok(Vec::new());
    }
    if !blocks.iter().any(|block| chunker::is_zero(block)) {
        return Ok(vec![(0, data.len(), false)]);
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    for extent in file::data_extents(opened.file(), data.len() as u64) {
        let (start, end) = extent.map_err(Failure::Source)?;
        // The file may have changed meanwhile: nothing outside what was read.
        let (start, end) = ((start as usize).clamp(at, data.len()), (end as usize).min(data.len()));
        let start = first_nonzero_if_hole(data, at, start);
        if start > at {
            pieces.push((at, start - at, true));
        }
        if end > start {
            pieces.push((start, end - start, false));
        }
        at = end.max(start);
    }
    let rest = first_nonzero_if_hole(data, at, data.len());
    if rest > at {
        pieces.push((at, rest - at, true));
    }
    if rest < data.len() {
        pieces.push((rest, data.len() - rest, false));
    }
    Ok(pieces)
}

/// A hole that does hold data by now ends where that begins.
fn first_nonzero_if_hole(data: &[u8], from: usize, to: usize) -> usize {
    data[from..to].iter().position(|byte| *byte != 0).map_or(to, |at| from + at)
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// An error with its cause, in one line.
pub(crate) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
