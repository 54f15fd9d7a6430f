//! The in-order beginning of the pipeline: walks the source, compares with the parent, hands out work.

use std::{fs::File, sync::Arc};

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupOptions,
    assemble::{Item, Large, Piece},
    parent::{PageOpener, ParentStream},
    worker::{BatchItem, Cutting, Failure, Segment, SmallFile, Task},
};
use crate::{
    cancel::Cancel,
    chunker::CutSizes,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::ChunkRef,
        metadata::{FileTime, Kind},
        page::Page,
        records::Statistics,
    },
    monitor::{Monitor, Problem, Progress, escape_path},
    pipeline::{
        cut,
        frames::Shared,
        promise::promise,
    },
    source::{
        file,
        walk::{self, WalkEvent, Walked},
    },
};

/// Files up to this many bytes are read whole, several to a slab.
pub(crate) const SMALL_FILE_BYTES: u64 = 1 << 20;
/// Entries that go to the tree in one piece, so that a queue is touched once for many.
const BATCH_ENTRIES: usize = 256;
/// Pieces of one large file that wait for the tree: bounds what a file of any size holds in memory.
const PIECES_AHEAD: usize = 64;

/// Hands out the work of one backup.
pub(crate) struct Dispatcher<'d> {
    pub(crate) options: &'d BackupOptions,
    pub(crate) monitor: Arc<dyn Monitor>,
    pub(crate) cancel: Cancel,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: Sender<Task>,
    pub(crate) items: Sender<Item>,
    pub(crate) parent: ParentStream,
    pub(crate) opener: Option<Arc<PageOpener>>,
    /// Files changed at or after this moment may have changed again without a trace in the parent's times.
    pub(crate) racy_from: FileTime,
    pub(crate) segment_bytes: usize,
    /// How files and streams are cut.
    pub(crate) cut: CutSizes,
    pub(crate) batch: Vec<BatchItem>,
    pub(crate) batch_bytes: u64,
    pub(crate) statistics: Statistics,
}

impl Dispatcher<'_> {
    /// Walks file trees.
    pub(crate) fn files(mut self, walk_options: walk::WalkOptions) -> Result<Statistics> {
        for event in walk::walk(walk_options)? {
            self.cancel.check()?;
            match event {
                WalkEvent::Entry(walked) => self.entry(walked)?,
                WalkEvent::Problem(problem) => self.monitor.problem(Problem {
                    what: format!("/{}", escape_path(&problem.path)),
                    message: super::worker::describe(&problem.error),
                }),
                WalkEvent::Excluded { .. } => self.statistics.excluded += 1,
            }
            if let Some(error) = self.parent.take_error() {
                self.monitor.problem(Problem {
                    what: "parent snapshot".to_owned(),
                    message: format!("{error}: what it would have told is read again"),
                });
            }
        }
        self.flush_batch()?;
        Ok(self.statistics)
    }

    fn entry(&mut self, walked: Walked) -> Result<()> {
        let parent = self.parent.find(&walked.path);
        let unchanged = parent.as_ref().is_some_and(|parent| self.is_unchanged(parent, &walked));
        if let Some(parent) = parent.as_ref().filter(|_| unchanged) {
            if matches!(walked.kind, Kind::File) {
                self.statistics.files_unmodified += 1;
                Progress::add(&self.monitor.progress().bytes, parent.metadata.size);
            }
            let mut entry = parent.clone();
            // What the times cannot tell: names of the inode come and go without a change of the file.
            entry.metadata.links = walked.metadata.links;
            return self.push(BatchItem::Done(entry), 0);
        }
        self.changed(walked, parent)
    }

    /// Kind, size and times as the parent has them, and not so young that a change could hide.
    fn is_unchanged(&self, parent: &Entry, walked: &Walked) -> bool {
        let (old, new) = (&parent.metadata, &walked.metadata);
        let same = parent.kind == walked.kind
            && old.size == new.size
            && old.mtime == new.mtime
            && (self.options.ignore_ctime || old.ctime == new.ctime)
            && (self.options.ignore_inode || old.inode == new.inode)
            && old.mode == new.mode
            && (old.uid, old.gid) == (new.uid, new.gid);
        same && !self.options.force && old.mtime < self.racy_from && (self.options.ignore_ctime || old.ctime < self.racy_from)
    }

    fn changed(&mut self, walked: Walked, parent: Option<Entry>) -> Result<()> {
        if matches!(walked.kind, Kind::File) {
            match &parent {
                Some(_) => self.statistics.files_changed += 1,
                None => self.statistics.files_new += 1,
            }
        }
        let Walked { path, name, kind, mut metadata, directory } = walked;
        for lost in file::read_attributes(&directory, &name, &kind, &mut metadata) {
            let what = format!("/{}", escape_path(&path));
            self.monitor.problem(Problem { what, message: super::worker::describe(&lost) });
        }
        let entry = Entry { path, kind, metadata, content: Content::default() };
        if entry.kind != Kind::File {
            return self.push(BatchItem::Done(entry), 0);
        }
        let locator = file::Locator::new(directory, name);
        let size = entry.metadata.size;
        if size == 0 {
            return self.push(BatchItem::Done(entry), 0);
        }
        if size <= SMALL_FILE_BYTES {
            let parent = parent.filter(|parent| matches!(parent.content, Content::Inline(_)));
            return self.push(BatchItem::Read(Box::new(SmallFile { entry, locator, parent })), size);
        }
        self.flush_batch()?;
        self.large_file(entry, &locator, parent)
    }

    fn push(&mut self, item: BatchItem, bytes: u64) -> Result<()> {
        if self.batch_bytes + bytes > self.segment_bytes as u64 {
            self.flush_batch()?;
        }
        self.batch.push(item);
        self.batch_bytes += bytes;
        if self.batch.len() >= BATCH_ENTRIES { self.flush_batch() } else { Ok(()) }
    }

    fn flush_batch(&mut self) -> Result<()> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ENTRIES));
        let needs_reading = self.batch_bytes > 0;
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        if needs_reading {
            let (answer, promised) = promise(|| Err(stopped()));
            self.task(Task::Batch(batch, answer))?;
            return self.item(Item::Batch(promised));
        }
        let done = batch.into_iter().map(|item| match item {
            BatchItem::Done(entry) => entry,
            BatchItem::Read(small) => small.entry,
        });
        self.item(Item::Entries(done.collect()))
    }

    fn large_file(&mut self, entry: Entry, locator: &file::Locator, parent: Option<Entry>) -> Result<()> {
        let opened = match locator.open(&entry.metadata) {
            Ok(opened) => opened,
            Err(error) => {
                let what = format!("/{}", escape_path(&entry.path));
                self.monitor.problem(Problem { what, message: super::worker::describe(&error) });
                return Ok(());
            }
        };
        let file = Arc::new(opened.into_file());
        let size = entry.metadata.size;
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        let mut hints = self.hints(parent);
        let item = Large { entry, pieces: receiver, file: Some(Arc::clone(&file)) };
        self.item(Item::Large(Box::new(item)))?;
        let mut at = 0;
        for extent in file::data_extents(&file, size) {
            let (start, end) = match extent {
                Ok(extent) => extent,
                Err(error) => return self.piece(&pieces, Piece::Unreadable(error)),
            };
            if start > at {
                self.piece(&pieces, Piece::Runs(vec![Run::Hole(start - at)]))?;
            }
            self.extent(&file, start, end, &pieces, hints.as_mut())?;
            at = end;
        }
        if at < size {
            self.piece(&pieces, Piece::Runs(vec![Run::Hole(size - at)]))?;
        }
        Ok(())
    }

    /// Cuts one run of data into segments, each with a worker.
    fn extent(
        &mut self,
        file: &Arc<File>,
        start: u64,
        end: u64,
        pieces: &Sender<Piece>,
        mut hints: Option<&mut Hints>,
    ) -> Result<()> {
        let longest = u64::from(self.cut.maximum);
        let mut entry = cut::Entry::At(0);
        let mut at = start;
        while at < end {
            self.cancel.check()?;
            let length = usize::try_from((end - at).min(self.segment_bytes as u64)).expect("a segment is small");
            let behind = usize::try_from((end - at - length as u64).min(longest)).expect("a chunk is small");
            if let Some(hints) = hints.as_deref_mut() {
                hints.cover(at + length as u64);
            }
            // Should the worker fail, the next one begins at its own first byte.
            let fallback = at - start + length as u64;
            let (next, promised) = promise(move || fallback);
            let (answer, result) = promise(|| Err(Failure::Store(stopped())));
            let cutting = Cutting::Content(entry, next);
            let base = Arc::clone(file);
            let segment = Segment { file: base, start: at, run: start, length, behind, cutting, answer };
            self.task(Task::Segment(segment))?;
            self.piece(pieces, Piece::Later(result))?;
            entry = cut::Entry::Later(promised);
            at += length as u64;
        }
        Ok(())
    }

    /// Chunks of the parent's contents become known shortly before they are likely to be met again.
    fn hints(&self, parent: Option<Entry>) -> Option<Hints> {
        let opener = Arc::clone(self.opener.as_ref()?);
        Some(Hints::new(opener, Arc::clone(&self.shared), parent?.content))
    }

    pub(crate) fn piece(&self, pieces: &Sender<Piece>, piece: Piece) -> Result<()> {
        pieces.send(piece).map_err(|_| stopped())
    }

    pub(crate) fn task(&self, task: Task) -> Result<()> {
        self.tasks.send(task).map_err(|_| stopped())
    }

    pub(crate) fn item(&self, item: Item) -> Result<()> {
        self.items.send(item).map_err(|_| stopped())
    }
}

/// What a thread says when another one failed; that one's error is the one that is shown.
pub(crate) fn stopped() -> Error {
    Error::cancelled("another part of the backup stopped")
}

/// Makes the chunks of the parent's contents known, a little ahead of reading.
pub(crate) struct Hints {
    opener: Arc<PageOpener>,
    shared: Arc<Shared>,
    levels: Vec<(u8, std::vec::IntoIter<(ChunkRef, u64)>)>,
    at: u64,
}

impl Hints {
    pub(crate) fn new(opener: Arc<PageOpener>, shared: Arc<Shared>, content: Content) -> Self {
        let mut hints = Self { opener, shared, levels: Vec::new(), at: 0 };
        match content {
            Content::Inline(runs) => hints.learn(&runs),
            Content::Paged { depth, pages } => hints.levels.push((depth, pages.into_iter())),
        }
        hints
    }

    /// Reads on until the chunks up to this byte and some more are known.
    pub(crate) fn cover(&mut self, end: u64) {
        while self.at < end.saturating_add(HINTS_AHEAD_BYTES)
            && let Some((depth, pages)) = self.levels.last_mut()
        {
            let depth = *depth;
            let Some((page, bytes)) = pages.next() else {
                self.levels.pop();
                continue;
            };
            match self.opener.open(&page) {
                Ok(Page::Runs(runs)) if depth == 1 => self.learn(&runs),
                Ok(Page::RunsInner(pages)) if depth > 1 => self.levels.push((depth - 1, pages.into_iter())),
                // A list that cannot be read costs reuse, not correctness; check names the damage.
                _ => self.at += bytes,
            }
        }
    }

    fn learn(&mut self, runs: &[Run]) {
        for run in runs {
            self.at += run.length();
            if let Run::Chunk(chunk) = run {
                self.shared.known.insert(chunk);
            }
        }
    }
}

/// How far the parent's chunks are known ahead of reading: insertions up to this many bytes do not outrun them.
const HINTS_AHEAD_BYTES: u64 = 64 << 20;
