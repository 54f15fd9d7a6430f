//! The in-order beginning of the pipeline: walks the source, compares with the parent, hands out work.

use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupOptions,
    assemble::{Item, Large, Piece},
    parent::{PageOpener, ParentStream},
    worker::{BatchItem, Cutting, Failure, Input, Segment, Task},
};
use crate::{
    cancel::Cancel,
    chunker::CutSizes,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::ChunkRef,
        metadata::{FileTime, Kind, Metadata},
        page::Page,
        records::Statistics,
    },
    monitor::{Monitor, Problem, Progress, escape_path},
    pipeline::{cut, frames::Shared, promise::promise},
    source::{
        self,
        file::SourceFile,
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
        let mut walk = walk::walk(walk_options)?;
        for event in walk.by_ref() {
            self.cancel.check()?;
            match event {
                WalkEvent::Entry(walked) => self.entry(walked)?,
                WalkEvent::Problem(problem) => self.report(problem),
            }
            if let Some(error) = self.parent.take_error() {
                self.monitor.problem(Problem {
                    what: "parent snapshot".to_owned(),
                    message: format!("{error}: what it would have told is read again"),
                });
            }
        }
        self.flush_batch()?;
        let excluded = walk.excluded();
        self.statistics.excluded = excluded.pattern + excluded.tag + excluded.size + excluded.file_system;
        Ok(self.statistics)
    }

    fn entry(&mut self, walked: Walked) -> Result<()> {
        let path = walked.path();
        let mut parent = self.parent.find(&path);
        let unchanged = parent.as_ref().is_some_and(|parent| self.is_unchanged(parent, &walked));
        if let Some(mut entry) = parent.take_if(|_| unchanged) {
            if matches!(walked.kind, Kind::File) {
                self.statistics.files_unmodified += 1;
                Progress::add(&self.monitor.progress().bytes, entry.metadata.size);
            }
            // Hard-link groups are told by device and inode of one and the same walk, never by an older one's.
            let xattrs = std::mem::take(&mut entry.metadata.xattrs);
            entry.metadata = Metadata { xattrs, flags: entry.metadata.flags, ..walked.metadata };
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
        same && !self.options.force
            && old.mtime < self.racy_from
            && (self.options.ignore_ctime || old.ctime < self.racy_from)
    }

    fn changed(&mut self, walked: Walked, parent: Option<Entry>) -> Result<()> {
        if matches!(walked.kind, Kind::File) {
            match &parent {
                Some(_) => self.statistics.files_changed += 1,
                None => self.statistics.files_new += 1,
            }
        }
        let size = if walked.kind == Kind::File { walked.metadata.size } else { 0 };
        if size <= SMALL_FILE_BYTES {
            let parent = parent.filter(|parent| matches!(parent.content, Content::Inline(_)));
            return self.push(BatchItem::Read { walked: Box::new(walked), parent }, size);
        }
        self.flush_batch()?;
        self.large_file(&walked, parent)
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
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        // A worker must see a batch with anything to read. Asked of the batch itself: a flag beside it could speak of
        // the batch before.
        if batch.iter().any(|item| matches!(item, BatchItem::Read { .. })) {
            let (answer, promised) = promise(|| Err(stopped()));
            self.task(Task::Batch(batch, answer))?;
            return self.item(Item::Batch(promised));
        }
        let done = batch.into_iter().filter_map(|item| match item {
            BatchItem::Done(entry) => Some(entry),
            BatchItem::Read { .. } => None,
        });
        self.item(Item::Entries(done.collect()))
    }

    fn large_file(&mut self, walked: &Walked, parent: Option<Entry>) -> Result<()> {
        let file = match SourceFile::open(walked) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                self.report(source::Problem::new(walked.path(), "contents", error));
                return Ok(());
            }
        };
        let (metadata, problems) = file.read_attributes();
        problems.into_iter().for_each(|problem| self.report(problem));
        let size = metadata.size;
        let entry = Entry { path: walked.path(), kind: Kind::File, metadata, content: Content::default() };
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        let mut hints = self.hints(parent);
        self.item(Item::Large(Box::new(Large { entry, pieces: receiver, file: Some(Arc::clone(&file)) })))?;
        let mut at = 0;
        for extent in file.extents() {
            let (start, end) = (extent.offset, extent.offset + extent.length);
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

    fn report(&self, problem: source::Problem) {
        let what = format!("/{}", escape_path(&problem.path));
        self.monitor.problem(Problem { what, message: super::worker::describe(&problem.error) });
    }

    /// Cuts one run of data into segments, each with a worker.
    fn extent(
        &self,
        file: &Arc<SourceFile>,
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
            let length =
                usize::try_from((end - at).min(self.segment_bytes as u64)).expect("a segment is small");
            let behind = usize::try_from((end - at - length as u64).min(longest)).expect("a chunk is small");
            if let Some(hints) = hints.as_deref_mut() {
                hints.cover(at + length as u64);
            }
            // Should the worker fail, the next one begins at its own first byte.
            let fallback = at - start + length as u64;
            let (next, promised) = promise(move || fallback);
            let (answer, result) = promise(|| Err(Failure::Store(stopped())));
            let cutting = Cutting::Content(entry, next);
            let input = Input::File(Arc::clone(file));
            let segment = Segment { input, start: at, run: start, length, behind, cutting, answer };
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
