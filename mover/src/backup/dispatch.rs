//! The in-order beginning of the pipeline: walks the source, compares with earlier runs, hands out work.

use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupOptions,
    assemble::{Item, Large, Piece},
    earlier::{Earlier, Found},
    hints::Hints,
    resume::{Begun, Continued},
    worker::{BatchItem, Cutting, Failure, Input, Segment, Task},
};
use crate::{
    cancel::Cancel,
    chunker::CutSizes,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::{FileTime, Kind, Metadata},
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

/// What a dispatcher counted.
#[derive(Debug, Default)]
pub(super) struct Dispatched {
    pub(super) statistics: Statistics,
    pub(super) continued: Continued,
}

/// Hands out the work of one backup.
pub(super) struct Dispatcher<'d> {
    pub(super) options: &'d BackupOptions,
    pub(super) monitor: Arc<dyn Monitor>,
    pub(super) cancel: Cancel,
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Sender<Task>,
    pub(super) items: Sender<Item>,
    pub(super) earlier: Earlier,
    pub(super) segment_bytes: usize,
    /// How files and streams are cut.
    pub(super) cut: CutSizes,
    pub(super) batch: Vec<BatchItem>,
    pub(super) batch_bytes: u64,
    pub(super) statistics: Statistics,
    /// What a checkpoint saved.
    pub(super) continued: Continued,
}

impl Dispatcher<'_> {
    /// Walks file trees.
    pub(super) fn files(mut self, walk_options: walk::WalkOptions) -> Result<Dispatched> {
        let mut walk = walk::walk(walk_options)?;
        for event in walk.by_ref() {
            self.cancel.check()?;
            match event {
                WalkEvent::Entry(walked) => self.entry(walked)?,
                WalkEvent::Problem(problem) => self.report(problem),
            }
            if let Some(error) = self.earlier.take_error() {
                self.monitor.problem(Problem {
                    what: "parent snapshot".to_owned(),
                    message: format!("{error}: what it would have told is read again"),
                });
            }
        }
        self.flush_batch()?;
        let excluded = walk.excluded();
        self.statistics.excluded = excluded.pattern + excluded.tag + excluded.size + excluded.file_system;
        Ok(self.done())
    }

    fn entry(&mut self, walked: Walked) -> Result<()> {
        let path = walked.path();
        let racy_from = self.earlier.parent.racy_from;
        let parent = self.earlier.parent.find(&path);
        match parent {
            Some(parent)
                if self.is_unchanged(&parent.entry.metadata, &parent.entry.kind, &walked, racy_from) =>
            {
                if matches!(walked.kind, Kind::File) {
                    self.statistics.files_unmodified += 1;
                }
                match parent.is_sound() {
                    true => self.take_over(parent.entry, walked),
                    // What it names is about to be deleted, or was moved: it is read again, once.
                    false => self.not_as_parent(&path, walked, Some(parent)),
                }
            }
            parent => {
                if matches!(walked.kind, Kind::File) {
                    match &parent {
                        Some(_) => self.statistics.files_changed += 1,
                        None => self.statistics.files_new += 1,
                    }
                }
                self.not_as_parent(&path, walked, parent)
            }
        }
    }

    /// Takes an entry from an unfinished run if it is as it was then; otherwise it is read.
    fn not_as_parent(&mut self, path: &[u8], walked: Walked, parent: Option<Found>) -> Result<()> {
        let mut hints: Vec<Found> = Vec::new();
        let mut begun = None;
        for index in 0..self.earlier.checkpoints.len() {
            let Some(mut found) = self.earlier.checkpoints[index].find(path) else { continue };
            let tree = &self.earlier.checkpoints[index];
            let (unfinished, racy_from) = (tree.unfinished_size(path), tree.racy_from);
            let covered = found.entry.metadata.size;
            found.entry.metadata.size = unfinished.unwrap_or(covered);
            let unchanged = self.is_unchanged(&found.entry.metadata, &found.entry.kind, &walked, racy_from);
            match unfinished {
                None if unchanged && found.is_sound() => {
                    self.continued.file(&found.entry, covered);
                    return self.take_over(found.entry, walked);
                }
                Some(_) if unchanged && begun.is_none() => begun = Some(Begun { found, covered }),
                _ => hints.push(found),
            }
        }
        hints.extend(parent);
        self.changed(walked, hints, begun)
    }

    fn take_over(&mut self, mut entry: Entry, walked: Walked) -> Result<()> {
        if matches!(walked.kind, Kind::File) {
            Progress::add(&self.monitor.progress().bytes, entry.metadata.size);
        }
        // Hard-link groups are told by device and inode of one and the same walk, never by an older one's.
        let xattrs = std::mem::take(&mut entry.metadata.xattrs);
        entry.metadata = Metadata { xattrs, flags: entry.metadata.flags, ..walked.metadata };
        self.push(BatchItem::Done(entry), 0)
    }

    /// Kind, size and times as the earlier run has them, and not so young that a change could hide.
    fn is_unchanged(&self, old: &Metadata, kind: &Kind, walked: &Walked, racy_from: FileTime) -> bool {
        let new = &walked.metadata;
        let same = *kind == walked.kind
            && old.size == new.size
            && old.mtime == new.mtime
            && (self.options.ignore_ctime || old.ctime == new.ctime)
            && (self.options.ignore_inode || old.inode == new.inode)
            && old.mode == new.mode
            && (old.uid, old.gid) == (new.uid, new.gid);
        same && !self.options.force
            && old.mtime < racy_from
            && (self.options.ignore_ctime || old.ctime < racy_from)
    }

    /// Reads what changed. Of earlier runs' contents (`hints`, the likeliest first) chunks may be found again.
    fn changed(&mut self, walked: Walked, hints: Vec<Found>, begun: Option<Begun>) -> Result<()> {
        let size = if walked.kind == Kind::File { walked.metadata.size } else { 0 };
        if size <= SMALL_FILE_BYTES {
            let parent = hints.into_iter().find_map(Found::into_inline);
            return self.push(BatchItem::Read { walked: Box::new(walked), parent }, size);
        }
        self.flush_batch()?;
        self.large_file(&walked, hints, begun)
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

    fn large_file(&mut self, walked: &Walked, hints: Vec<Found>, begun: Option<Begun>) -> Result<()> {
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
        let mut hints = Hints::of(hints, &self.shared);
        self.item(Item::Large(Box::new(Large { entry, pieces: receiver, file: Some(Arc::clone(&file)) })))?;
        let mut at = self.go_on(begun, &pieces)?;
        for extent in file.extents() {
            let (start, end) = (extent.offset.max(at), extent.offset + extent.length);
            if end <= at {
                continue;
            }
            if start > at {
                self.piece(&pieces, Piece::Runs(vec![Run::Hole(start - at)]))?;
            }
            self.extent(&file, start, end, &pieces, &mut hints)?;
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
        hints: &mut Hints,
    ) -> Result<()> {
        let longest = u64::from(self.cut.maximum);
        let mut entry = cut::Entry::At(0);
        let mut at = start;
        while at < end {
            self.cancel.check()?;
            let length =
                usize::try_from((end - at).min(self.segment_bytes as u64)).expect("a segment is small");
            let behind = usize::try_from((end - at - length as u64).min(longest)).expect("a chunk is small");
            hints.cover(at + length as u64);
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

    /// What it has to say when it has sent everything.
    pub(super) fn done(self) -> Dispatched {
        Dispatched { statistics: self.statistics, continued: self.continued }
    }

    pub(super) fn piece(&self, pieces: &Sender<Piece>, piece: Piece) -> Result<()> {
        pieces.send(piece).map_err(|_| stopped())
    }

    pub(super) fn task(&self, task: Task) -> Result<()> {
        self.tasks.send(task).map_err(|_| stopped())
    }

    pub(super) fn item(&self, item: Item) -> Result<()> {
        self.items.send(item).map_err(|_| stopped())
    }
}

/// What a thread says when another one failed; that one's error is the one that is shown.
pub(crate) fn stopped() -> Error {
    Error::cancelled("another part of the backup stopped")
}
