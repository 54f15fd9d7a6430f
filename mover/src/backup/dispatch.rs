//! The in-order beginning of the pipeline: walks the source, compares with earlier runs, hands out work.

use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupOptions,
    assemble::{Item, Large, Piece},
    compare::Met,
    copied::{Original, Wanted},
    earlier::{Earlier, Found},
    fetch::Fetch,
    hints::Hints,
    queue,
    resume::{Begun, Continued},
    worker::{BatchItem, Cutting, Failure, Input, Segment, Task, Unread},
};
use crate::{
    cancel::Cancel,
    chunker::CutSizes,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::Kind,
        records::Statistics,
    },
    monitor::{Monitor, Problem, escape_path},
    pipeline::{cut, frames::Shared, promise::promise},
    source::{
        self,
        file::SourceFile,
        reads::Reader,
        walk::{self, WalkEvent, Walked},
    },
};

/// Files up to this many bytes are read whole, several to a slab.
pub(crate) const SMALL_FILE_BYTES: u64 = 1 << 20;
/// Entries that go to the tree in one piece, so that a queue is touched once for many.
const BATCH_ENTRIES: usize = 256;
/// Bytes of paths that do so: many batches wait, and a path may be as long as no call of the system takes it.
const BATCH_PATH_BYTES: usize = 256 << 10;
/// Pieces of one large file that wait for the tree: bounds what a file of any size holds in memory.
const PIECES_AHEAD: usize = 64;

/// What a dispatcher counted.
#[derive(Debug, Default)]
pub(super) struct Dispatched {
    pub(super) statistics: Statistics,
    pub(super) continued: Continued,
    /// Entries that the source had.
    pub(super) met: u64,
    /// Those that it reported instead of handing them out.
    pub(super) left_out: u64,
}

/// Hands out the work of one backup.
pub(super) struct Dispatcher<'d> {
    pub(super) options: &'d BackupOptions,
    pub(super) monitor: Arc<dyn Monitor>,
    pub(super) cancel: Cancel,
    /// Of this thread.
    pub(super) reader: Reader,
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Sender<Task>,
    pub(super) items: Sender<Item>,
    pub(super) earlier: Earlier,
    pub(super) segment_bytes: usize,
    /// How files and streams are cut.
    pub(super) cut: CutSizes,
    /// What fetches from the snapshot that is copied; none for other sources.
    pub(super) fetch: Option<Fetch>,
    /// The snapshot that is copied, and what is known of earlier ones; none for other sources.
    pub(super) original: Option<Original>,
    pub(super) batch: Vec<Gathered>,
    pub(super) batch_bytes: u64,
    pub(super) batch_path_bytes: usize,
    pub(super) statistics: Statistics,
    /// What a checkpoint saved.
    pub(super) continued: Continued,
    /// Entries that the source had.
    pub(super) met: u64,
    /// Those that were reported instead of handed out.
    pub(super) left_out: u64,
}

/// An entry that waits for its neighbours.
pub(super) enum Gathered {
    /// To be handed out as it is.
    Ready(BatchItem),
    /// Its contents are still to be fetched from the snapshot that is copied.
    Wanted(Box<Wanted>),
}

impl Gathered {
    fn path_bytes(&self) -> usize {
        match self {
            Self::Ready(item) => item.path_bytes(),
            Self::Wanted(wanted) => wanted.entry.path.len(),
        }
    }
}

impl Dispatcher<'_> {
    /// Walks file trees.
    pub(super) fn files(mut self, walk_options: walk::WalkOptions) -> Result<Dispatched> {
        let mut walk = walk::walk(walk_options)?;
        for event in walk.by_ref() {
            self.cancel.check()?;
            match event {
                WalkEvent::Entry(walked) => {
                    if let Some(problem) = source::attributes::hidden_owner(&walked) {
                        self.report(problem);
                    }
                    self.meet(Met::Walked(walked))?;
                }
                WalkEvent::Problem(problem) if problem.error.kind() == ErrorKind::Internal => {
                    return Err(problem.error);
                }
                WalkEvent::Problem(problem) => self.report(problem),
            }
            self.note_lost_parent()?;
        }
        // A walk that is given up ends without a word.
        self.cancel.check()?;
        self.flush_batch()?;
        let excluded = walk.excluded();
        self.statistics.excluded = excluded.pattern + excluded.tag + excluded.size + excluded.file_system;
        Ok(self.done())
    }

    /// A parent that cannot be read costs work, and is told of. A defect of the program ends the backup.
    pub(super) fn note_lost_parent(&mut self) -> Result<()> {
        match self.earlier.take_error() {
            None => {}
            Some(error) if error.is_of_the_run() => return Err(error),
            Some(error) => self.monitor.problem(Problem {
                what: "parent snapshot".to_owned(),
                message: format!("{error}: what it would have told is read again"),
            }),
        }
        Ok(())
    }

    /// Reads what changed, or may have: what the parent has of the latter is `before`. Of earlier runs' contents
    /// (`hints`, the likeliest first) chunks may be found again.
    pub(super) fn changed(
        &mut self,
        walked: Walked,
        hints: Vec<Found>,
        begun: Option<Begun>,
        before: Option<Content>,
    ) -> Result<()> {
        let size = if walked.kind == Kind::File { walked.metadata.size } else { 0 };
        if size <= SMALL_FILE_BYTES {
            let earlier = Found::first_inline(hints)?;
            let item = BatchItem::Read(Box::new(Unread { walked, earlier, before }));
            return self.push(Gathered::Ready(item), size);
        }
        self.flush_batch()?;
        self.large_file(&walked, hints, begun, before)
    }

    pub(super) fn push(&mut self, item: Gathered, bytes: u64) -> Result<()> {
        if self.batch_bytes + bytes > self.segment_bytes as u64 {
            self.flush_batch()?;
        }
        self.batch_path_bytes += item.path_bytes();
        self.batch.push(item);
        self.batch_bytes += bytes;
        let is_full = self.batch.len() >= BATCH_ENTRIES || self.batch_path_bytes >= BATCH_PATH_BYTES;
        if is_full { self.flush_batch() } else { Ok(()) }
    }

    pub(super) fn flush_batch(&mut self) -> Result<()> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ENTRIES));
        (self.batch_bytes, self.batch_path_bytes) = (0, 0);
        let batch = self.fetch(batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        // A worker must see a batch with anything to read. Asked of the batch itself: a flag beside it could speak of
        // the batch before.
        if batch.iter().any(|item| !matches!(item, BatchItem::Done(_))) {
            let (answer, promised) = promise(|| Err(stopped()));
            self.task(Task::Batch(batch, answer))?;
            return self.item(Item::Batch(promised));
        }
        let done = batch.into_iter().filter_map(|item| match item {
            BatchItem::Done(entry) => Some(entry),
            BatchItem::Read(_) | BatchItem::Loaded(_) | BatchItem::Renewed(_) => None,
        });
        self.item(Item::Entries(done.collect()))
    }

    fn large_file(
        &mut self,
        walked: &Walked,
        mut hints: Vec<Found>,
        begun: Option<Begun>,
        before: Option<Content>,
    ) -> Result<()> {
        let reading = self.reader.begin(&walked.path());
        let file = match SourceFile::open(walked) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                drop(reading);
                self.left_out += 1;
                self.report(source::Problem::new(walked.path(), "contents", error));
                return Ok(());
            }
        };
        let (metadata, problems) = file.read_attributes();
        drop(reading);
        problems.into_iter().for_each(|problem| self.report(problem));
        let size = metadata.size;
        // What was begun is that of the file as the walk found it, which may be a while ago.
        let begun = match begun {
            Some(begun) if !file.is_as_walked(&walked.metadata) => {
                hints.insert(0, begun.found);
                None
            }
            begun => begun,
        };
        let entry = Entry { path: walked.path(), kind: Kind::File, metadata, content: Content::default() };
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        let mut hints = Hints::of(hints, &self.shared)?;
        let large = Large { entry, pieces: receiver, input: Some(Input::File(Arc::clone(&file))), before };
        self.item(Item::Large(Box::new(large)))?;
        let mut at = self.go_on(begun, &pieces)?;
        let mut extents = file.extents();
        while let Some(extent) = self.reading(file.path(), || extents.next()) {
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

    /// Asks the file system something about what is at this path.
    pub(super) fn reading<T>(&self, path: &[u8], ask: impl FnOnce() -> T) -> T {
        let _reading = self.reader.begin(path);
        ask()
    }

    pub(super) fn report(&self, problem: source::Problem) {
        let what = format!("/{}", escape_path(&problem.path));
        self.monitor.problem(Problem { what, message: problem.error.in_one_line() });
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
            hints.cover(at + length as u64)?;
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
        let Self { statistics, continued, met, left_out, .. } = self;
        Dispatched { statistics, continued, met, left_out }
    }

    pub(super) fn piece(&self, pieces: &Sender<Piece>, piece: Piece) -> Result<()> {
        pieces.send(piece).map_err(|_| stopped())
    }

    pub(super) fn task(&self, task: Task) -> Result<()> {
        queue::send(&self.tasks, task, &self.cancel)
    }

    pub(super) fn item(&self, item: Item) -> Result<()> {
        self.items.send(item).map_err(|_| stopped())
    }
}

/// What a thread says when another one failed; that one's error is the one that is shown.
pub(crate) fn stopped() -> Error {
    Error::cancelled("another part of the backup stopped")
}
