//! Workers: each carries a task from reading to the pack.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crossbeam_channel::Receiver;

use super::{
    compare::same_contents,
    extents::{Extent, extents_of},
    queue,
};
use crate::{
    cancel::Cancel,
    chunker::{self, Chunker},
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::ChunkRef,
        metadata::Kind,
    },
    monitor::{Monitor, Problem, Progress, escape_path},
    pipeline::{
        cut::{self, cut_segment},
        frames::{Framer, Shared},
        promise::Giver,
    },
    source::{
        self,
        attributes::read_attributes,
        block::BlockSource,
        file::SourceFile,
        reads::{Reader, Reads},
        walk::Walked,
    },
};

/// An entry of a batch: done, or to be read.
pub(crate) enum BatchItem {
    /// Goes into the tree as it is.
    Done(Entry),
    /// Has its attributes read, and its contents if it is a file: small enough to share a slab with its neighbours.
    Read(Box<Unread>),
    /// Has its attributes read; its contents are known from an earlier run.
    Renewed(Box<Renewed>),
    /// Its contents were fetched from the snapshot that is copied.
    Loaded(Box<Loaded>),
}

impl BatchItem {
    /// Bytes of its path.
    pub(crate) fn path_bytes(&self) -> usize {
        let walked = |walked: &Walked| walked.directory.path().len() + walked.name.len();
        match self {
            Self::Done(entry) => entry.path.len(),
            Self::Read(unread) => walked(&unread.walked),
            Self::Renewed(renewed) => walked(&renewed.walked),
            Self::Loaded(loaded) => loaded.entry.path.len(),
        }
    }
}

/// What the walk found and a worker reads.
pub(crate) struct Unread {
    /// What the walk found.
    pub(crate) walked: Walked,
    /// An earlier entry, whose contents may be the same.
    pub(crate) earlier: Option<Entry>,
    /// What the parent has of a file that looks the same.
    pub(crate) before: Option<Content>,
}

/// What looks as it did, but for the time of the last change of its attributes.
pub(crate) struct Renewed {
    /// What the walk found.
    pub(crate) walked: Walked,
    /// Its contents.
    pub(crate) content: Content,
}

/// A small file with its contents.
pub(crate) struct Loaded {
    /// Everything but the contents.
    pub(crate) entry: Entry,
    /// The contents, holes as zeros.
    pub(crate) data: Vec<u8>,
    /// Data and holes.
    pub(crate) extents: Vec<Extent>,
    /// The parent's entry, whose contents may be the same.
    pub(crate) parent: Option<Entry>,
}

/// A large thing to read from.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A file.
    File(Arc<SourceFile>),
    /// A device or image file.
    Block(Arc<BlockSource>),
}

impl Input {
    fn path(&self) -> &[u8] {
        match self {
            Self::File(file) => file.path(),
            Self::Block(block) => block.path(),
        }
    }

    /// Whether it is still as it was when it was opened, as far as that can be told.
    pub(crate) fn is_unchanged(&self) -> Result<bool> {
        match self {
            Self::File(file) => file.is_unchanged(),
            Self::Block(block) => block.is_unchanged(),
        }
    }

    /// Fills the buffer; less only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Block(block) => block.read_at(buffer, offset),
        }
    }
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
    pub(crate) input: Input,
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
    /// Entries that could not be read, each of which was reported.
    pub(crate) left_out: AtomicU64,
    /// Files that were read and are as the parent has them.
    pub(crate) found_same: AtomicU64,
    /// Who hears what is read just now.
    pub(crate) reads: Arc<Reads>,
}

/// Works until there are no more tasks.
pub(crate) fn work(context: &Context, tasks: &Receiver<Task>) {
    let mut worker = Worker {
        framer: Framer::new(Arc::clone(&context.shared)),
        slab: Vec::with_capacity(context.slab_bytes),
        reader: context.reads.reader(),
        context,
    };
    while let Some(task) = queue::next(tasks, context.reads.given_up()) {
        match task {
            Task::Batch(items, answer) => {
                let result = worker.batch(items);
                worker.forget_failed(result.is_err());
                answer.give(result);
            }
            Task::Segment(segment) => worker.segment(segment),
            Task::Buffer(data, ends, answer) => {
                let result = worker.chunks(&data, 0, &ends).map_err(Failure::Store);
                worker.forget_failed(result.is_err());
                answer.give(result);
            }
        }
    }
}

struct Worker<'c> {
    framer: Framer,
    slab: Vec<u8>,
    reader: Reader,
    context: &'c Context,
}

impl Worker<'_> {
    /// What was gathered from a slab that is gone must not be packed.
    fn forget_failed(&mut self, failed: bool) {
        if failed {
            self.framer.abandon();
        }
    }

    fn batch(&mut self, items: Vec<BatchItem>) -> Result<Vec<Entry>> {
        let mut slab = std::mem::take(&mut self.slab);
        slab.clear();
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            match item {
                BatchItem::Done(entry) => entries.push(entry),
                BatchItem::Loaded(loaded) => {
                    self.context.cancel.check()?;
                    entries.push(self.loaded(*loaded, &mut slab)?);
                }
                BatchItem::Renewed(renewed) => {
                    self.context.cancel.check()?;
                    let Renewed { walked, content } = *renewed;
                    entries.push(Entry { content, ..self.attributes(walked) });
                }
                BatchItem::Read(unread) => {
                    let Unread { walked, earlier, before } = *unread;
                    self.context.cancel.check()?;
                    let path = walked.path();
                    self.make_room(&mut slab)?;
                    match self.read(walked, &path, earlier.as_ref(), &mut slab) {
                        Ok(entry) => {
                            if before.is_some_and(|before| same_contents(&before, &entry.content)) {
                                self.context.found_same.fetch_add(1, Ordering::Relaxed);
                            }
                            entries.push(entry);
                        }
                        Err(Failure::Source(error)) if !error.is_of_the_run() => {
                            self.leave_out(&path, &error);
                        }
                        Err(Failure::Source(error) | Failure::Store(error)) => return Err(error),
                    }
                }
            }
        }
        self.framer.flush(&slab)?;
        self.slab = slab;
        Ok(entries)
    }

    /// A batch was gathered by what the walk saw; files that grew since may be more than one slab.
    fn make_room(&mut self, slab: &mut Vec<u8>) -> Result<()> {
        if slab.len() >= self.context.slab_bytes {
            self.framer.flush(slab)?;
            slab.clear();
        }
        Ok(())
    }

    fn leave_out(&self, path: &[u8], error: &Error) {
        self.context.left_out.fetch_add(1, Ordering::Relaxed);
        self.report(path, error);
    }

    fn report(&self, path: &[u8], error: &Error) {
        let what = format!("/{}", escape_path(path));
        self.context.monitor.problem(Problem { what, message: error.in_one_line() });
    }

    fn read(
        &mut self,
        walked: Walked,
        path: &[u8],
        parent: Option<&Entry>,
        slab: &mut Vec<u8>,
    ) -> Result<Entry, Failure> {
        match walked.kind {
            Kind::File => self.small_file(&walked, path, parent, slab),
            _ => Ok(self.attributes(walked)),
        }
    }

    /// Everything of an entry but its contents.
    fn attributes(&mut self, mut walked: Walked) -> Entry {
        let path = walked.path();
        let reading = self.reader.begin(&path);
        let problems = read_attributes(&mut walked);
        drop(reading);
        self.note(problems);
        Entry { path, kind: walked.kind, metadata: walked.metadata, content: Content::default() }
    }

    fn note(&self, problems: Vec<source::Problem>) {
        for problem in problems {
            self.report(&problem.path, &problem.error);
        }
    }

    /// Reads a file behind what is in the slab already, and cuts it.
    fn small_file(
        &mut self,
        walked: &Walked,
        path: &[u8],
        parent: Option<&Entry>,
        slab: &mut Vec<u8>,
    ) -> Result<Entry, Failure> {
        let reading = self.reader.begin(path);
        let file = SourceFile::open(walked).map_err(Failure::Source)?;
        let (mut metadata, problems) = file.read_attributes();
        self.note(problems);
        let start = slab.len();
        // It may have grown since the walk put it among the small ones; what is beyond that is read next time.
        let expected = usize::try_from(metadata.size.min(super::dispatch::SMALL_FILE_BYTES)).unwrap_or(0);
        debug_assert!(start <= self.context.slab_bytes, "{start} bytes lie before a small file");
        slab.resize(start + expected, 0);
        let read = file.read_at(&mut slab[start..], 0);
        slab.truncate(start + *read.as_ref().unwrap_or(&0));
        let read = read.map_err(Failure::Source)? as u64;
        if read < metadata.size || !file.is_unchanged().map_err(Failure::Source)? {
            self.report(path, &Error::conflict(super::CHANGED_WHILE_READ));
        }
        metadata.size = read;
        let extents = extents_of(&file, &slab[start..]);
        drop(reading);
        self.still_wanted()?;
        let progress = self.context.monitor.progress();
        Progress::add(&progress.bytes, read);
        Progress::add(&progress.bytes_moved, read);
        let content = self.small_content(&extents, slab, start, parent).map_err(Failure::Store)?;
        Ok(Entry { path: path.to_vec(), kind: Kind::File, metadata, content })
    }

    /// Cuts a file that was fetched, behind what is in the slab already.
    fn loaded(&mut self, loaded: Loaded, slab: &mut Vec<u8>) -> Result<Entry> {
        let Loaded { entry, data, extents, parent } = loaded;
        let start = slab.len();
        slab.extend_from_slice(&data);
        let content = self.small_content(&extents, slab, start, parent.as_ref())?;
        Ok(Entry { content, ..entry })
    }

    fn small_content(
        &mut self,
        extents: &[Extent],
        slab: &[u8],
        start: usize,
        parent: Option<&Entry>,
    ) -> Result<Content> {
        let parent = match parent.map(|entry| &entry.content) {
            Some(Content::Inline(runs)) => &runs[..],
            _ => &[],
        };
        let mut runs = Vec::new();
        for (at, length, hole) in extents.iter().copied() {
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
                    None => self.framer.chunk_with_id(slab, id, at, next)?,
                };
                runs.push(Run::Chunk(chunk));
                at = next;
            }
        }
        Ok(Content::Inline(runs))
    }

    fn segment(&mut self, segment: Segment) {
        let Segment { input, start, run, length, behind, cutting, answer } = segment;
        let result = self.read_segment(&input, (start, run), length, behind, cutting);
        self.forget_failed(result.is_err());
        answer.give(result);
    }

    fn read_segment(
        &mut self,
        input: &Input,
        (start, run): (u64, u64),
        length: usize,
        behind: usize,
        cutting: Cutting,
    ) -> Result<Vec<Run>, Failure> {
        self.still_wanted()?;
        let mut slab = std::mem::take(&mut self.slab);
        slab.resize(length + behind, 0);
        let reading = self.reader.begin(input.path());
        let read = input.read_at(&mut slab, start).map_err(Failure::Source)?;
        drop(reading);
        self.still_wanted()?;
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
                let (chunker, given_up) = (&self.context.chunker, self.context.reads.given_up());
                let (first, ends) = cut_segment(chunker, &slab, start - run, length, entry, next, given_up);
                // What it did not wait for would be twice in the contents, or not at all.
                self.still_wanted()?;
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

    /// A read may have taken so long that the next attempt is at work.
    fn still_wanted(&self) -> Result<(), Failure> {
        self.context.cancel.check().map_err(Failure::Store)
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
