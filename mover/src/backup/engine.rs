//! The threads of one backup: who they are, what they share, and in which order they end.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Sender, bounded};
use jiff::Timestamp;

use super::{
    BackupOptions, BackupSource, CompressionChoice, Noting, ParentChoice,
    assemble::{Assembled, Assembler},
    attempt::{Ended, examine, give_up, leave_behind, look_out},
    checkpoint::{About, Checkpoints},
    compare::was_unmodified,
    copied::{self, Original},
    dispatch::{Dispatched, Dispatcher},
    earlier::{self, Earlier},
    fetch::Fetch,
    memory::Memory,
    options::source_kind,
    parent::SharedPages,
    resume::Continued,
    worker,
};
use crate::{
    cancel::Cancel,
    chunker::CutSizes,
    error::{Error, ErrorKind, Result},
    format::{
        records::{Snapshot, SourceKind, Statistics},
        session::SessionKeyInfo,
    },
    id::{ChunkId, PackId},
    limits,
    monitor::{Monitor, Progress},
    pipeline::{
        bridge::Bridge,
        frames::{Counts, Shared},
        known::KnownChunks,
        packer::{DATA_BUFFERS, Packer},
        tree::{EarlierPages, Pages, TreeWriter},
    },
    repo::{Checkpoint, ImageState, Join, LoadedIndex, Repository, Session},
    source::{reads::Reads, walk::WalkOptions},
};

/// What is decided before the threads start.
pub(super) struct Plan {
    session: Arc<Session>,
    parent: Option<Snapshot>,
    /// Trees of backups that did not finish: hints, each pack of which is looked at before use.
    checkpoints: Vec<Checkpoint>,
    index: LoadedIndex,
    memory: Memory,
    started: Timestamp,
}

impl Plan {
    /// Reads side by side what does not hang on each other; each after W2.
    pub(super) async fn new(
        repository: &Repository,
        options: &BackupOptions,
        session: Arc<Session>,
        started: Timestamp,
    ) -> Result<Self> {
        let lineage = session.name().lineage;
        let memory = Memory::divide(options.memory_bytes, options.threads);
        let checkpoints = async {
            match options.parent != ParentChoice::None && !options.force {
                true => repository.checkpoints(lineage).await,
                false => Ok(Vec::new()),
            }
        };
        let (parent, checkpoints, index) = tokio::try_join!(
            super::parent(repository, options, lineage),
            checkpoints,
            repository.load_index(memory.index_rows)
        )?;
        if let Some(parent) = &parent {
            session.learn_keys(&parent.sessions);
        }
        let checkpoints = earlier::choose(checkpoints, source_kind(&options.source), parent.as_ref());
        checkpoints.iter().for_each(|checkpoint| session.learn_keys(&checkpoint.sessions));
        Ok(Self { session, parent, checkpoints, index, memory, started })
    }

    /// What the backup is compared with.
    pub(super) fn parent(&self) -> Option<&Snapshot> {
        self.parent.as_ref()
    }
}

/// What the threads leave.
pub(super) struct Outcome {
    pub(super) session: Arc<Session>,
    pub(super) assembled: Assembled,
    pub(super) continued: Continued,
    pub(super) keys: Vec<SessionKeyInfo>,
    pub(super) segment: Vec<(ChunkId, PackId)>,
    pub(super) join: Option<Join>,
    pub(super) parent: Option<Snapshot>,
    pub(super) source: SourceKind,
    pub(super) grid: u32,
}

/// Who looks after one attempt of a backup.
pub(super) struct Watched<'w> {
    pub(super) monitor: Arc<Noting>,
    /// Also asks to stop when the reads are given up.
    pub(super) cancel: Cancel,
    pub(super) reads: Arc<Reads>,
    /// Hears how the attempt ended when some of its threads are left behind: this one, or one that it waits for, may never
    /// come back.
    pub(super) on_end: &'w (dyn Fn(Ended) + Sync),
}

/// Runs one attempt of a backup on this thread and those that it starts.
pub(super) fn run(
    repository: &Repository,
    options: &BackupOptions,
    plan: Plan,
    handle: tokio::runtime::Handle,
    watched: Watched<'_>,
) -> Result<Outcome> {
    let Watched { monitor, cancel, reads, on_end } = watched;
    let moved_before = Progress::get(&monitor.progress().bytes_moved);
    let Plan { session, parent, checkpoints, index: LoadedIndex { index, join }, memory, started } = plan;
    let bridge = Arc::new(Bridge::new(handle, Arc::clone(&session), monitor.clone(), memory.flight_bytes));
    let shared = Arc::new(Shared {
        keys: repository.keys().clone(),
        known: KnownChunks::new(memory.known_bytes),
        index: RwLock::new(index),
        packer: Packer::new(Arc::clone(&bridge), memory.pack_bytes, DATA_BUFFERS),
        bridge: Arc::clone(&bridge),
        level: AtomicI32::new(first_level(options.compression)),
        adapts: adapts(options.compression),
        counts: Counts::default(),
    });
    let metadata = Arc::new(Packer::new(Arc::clone(&bridge), memory.pack_bytes / 4, 0));
    let parent_grid = parent.as_ref().map_or(0, |parent| parent.grid);
    let image = examine(options, parent_grid, &reads, &*monitor, on_end)?;
    let about = About {
        repository: repository.clone(),
        source: source_kind(&options.source),
        started,
        image,
        copied_from: copied::origin(&options.source),
        interval: options.checkpoint_interval,
        rows: memory.own_rows,
    };
    let (source, image_grid) = (about.source, about.image.as_ref().map_or(0, |image| image.grid));
    let grid = copied::grid(&options.source).unwrap_or(image_grid);
    let packing = (Arc::clone(&shared), Arc::clone(&metadata));
    let original = bridge.wait(Original::find(&options.source, repository, parent.as_ref()))?;
    let stops = (cancel, Arc::clone(&reads));
    let parts = Parts::new(about, memory, packing, (parent.as_ref(), &checkpoints), monitor.clone(), stops);
    let (mut assembled, pages, dispatched) = drive(options, memory, Parts { original, ..parts }, on_end)?;
    // What was given up has lost packs, however it came to its end.
    reads.given_up().check()?;
    shared.packer.flush()?;
    metadata.flush()?;
    let packs = bridge.settle()?;
    complete(&mut assembled.statistics, &dispatched.statistics, &shared.counts);
    assembled.statistics.packs = packs;
    assembled.statistics.bytes_stored = shared.packer.stored() + metadata.stored();
    assembled.statistics.bytes_read = Progress::get(&monitor.progress().bytes_moved) - moved_before;
    let keys = session.known_keys(&pages.sessions())?;
    let segment = shared.packer.take_indexed();
    let mut continued = dispatched.continued;
    continued.written = checkpoints.first().filter(|_| continued.files > 0).map(|newest| newest.written);
    Ok(Outcome { session, assembled, continued, keys, segment, join, parent, source, grid })
}

/// Adds what dispatcher and workers counted to what the tree writer did.
fn complete(statistics: &mut Statistics, dispatched: &Statistics, counts: &Counts) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    statistics.files_new = dispatched.files_new;
    statistics.files_changed = dispatched.files_changed;
    statistics.files_unmodified = dispatched.files_unmodified;
    statistics.excluded = dispatched.excluded;
    statistics.bytes_new = load(&counts.bytes_new);
    statistics.chunks_new = load(&counts.chunks_new);
    statistics.chunks_known = load(&counts.chunks_known);
}

/// What the threads of one backup work with.
struct Parts {
    context: worker::Context,
    assembler: Assembler,
    earlier: Earlier,
    image: Option<ImageState>,
    cut: CutSizes,
    original: Option<Original>,
    held: Held,
}

impl Parts {
    fn new(
        about: About,
        memory: Memory,
        (shared, metadata): (Arc<Shared>, Arc<Packer>),
        (parent, checkpoints): (Option<&Snapshot>, &[Checkpoint]),
        monitor: Arc<dyn Monitor>,
        (cancel, reads): (Cancel, Arc<Reads>),
    ) -> Self {
        let repository = about.repository.clone();
        let cut = repository.format().cut;
        let image = about.image.clone();
        let earlier_pages = Arc::new(Mutex::new(EarlierPages::new(memory.pages_bytes)));
        let earlier = Earlier::start(&repository, &shared.bridge, parent, checkpoints, &earlier_pages);
        let held = Held {
            shared: Arc::clone(&shared),
            metadata: Arc::clone(&metadata),
            pages: Arc::clone(&earlier_pages),
        };
        let checkpoints = Checkpoints::new(
            about,
            Arc::clone(&shared),
            Arc::clone(&metadata),
            Arc::clone(&monitor),
            cancel.clone(),
        );
        let assembler = Assembler {
            tree: TreeWriter::new(),
            pages: Pages::new(Arc::clone(&shared), metadata, earlier_pages),
            monitor: Arc::clone(&monitor),
            reader: reads.reader(),
            given_up: reads.given_up().clone(),
            checkpoints,
            statistics: Statistics::default(),
            entries: 0,
            left_out: 0,
            found_same: 0,
            is_whole: true,
        };
        let slab_bytes = memory.segment_bytes + (limits::CHUNK_LIMIT.min(cut.maximum)) as usize;
        let chunker = repository.chunker();
        let (left_out, found_same) = (AtomicU64::new(0), AtomicU64::new(0));
        let context =
            worker::Context { shared, chunker, monitor, cancel, slab_bytes, left_out, found_same, reads };
        Self { context, assembler, earlier, image, cut, original: None, held }
    }
}

/// What takes most of an attempt's memory, and is shared by its threads.
pub(super) struct Held {
    shared: Arc<Shared>,
    metadata: Arc<Packer>,
    pages: SharedPages,
}

impl Held {
    /// Gives it back, though a thread that may never end holds it, too.
    pub(super) fn release(&self) {
        // First, so that no checkpoint comes of what lacks the rest.
        self.shared.abandon();
        self.metadata.abandon();
        *self.pages.lock().unwrap_or_else(PoisonError::into_inner) = EarlierPages::new(0);
    }
}

/// Runs the threads: workers, tree writer, tuner, and the dispatcher on this one.
fn drive(
    options: &BackupOptions,
    memory: Memory,
    parts: Parts,
    on_end: &(dyn Fn(Ended) + Sync),
) -> Result<(Assembled, Pages, Dispatched)> {
    let Parts { context, assembler, earlier, image, cut, original, held } = parts;
    let (monitor, shared) = (Arc::clone(&context.monitor), Arc::clone(&context.shared));
    monitor.phase("backing up");
    let stop_tuning = Cancel::default();
    let fetch = Fetch::of(&options.source, memory.fetch_bytes);
    thread::scope(|scope| {
        let (tasks, task_queue) = bounded(tasks_ahead(options, memory.threads));
        let (items, item_queue) = bounded(ITEMS_AHEAD);
        let (working, all_worked) = bounded(0);
        for _ in 0..memory.threads {
            let (context, queue, working) = (&context, task_queue.clone(), working.clone());
            scope.spawn(move || {
                let _working: Sender<()> = working;
                worker::work(context, &queue);
            });
        }
        drop((task_queue, working));
        let tuner =
            scope.spawn(|| tune(options.compression, &shared, &stop_tuning.or(context.reads.given_up())));
        let (at_work, assembled_all) = bounded(0);
        let lookout = scope.spawn(|| {
            let silences = look_out(&context.reads, &*monitor, &stop_tuning, options.source_timeout);
            give_up(silences, &context.reads, &held, assembled_all, on_end);
        });
        let assembling = scope.spawn(move || {
            let _at_work: Sender<()> = at_work;
            assembler.run(&item_queue)
        });
        let dispatcher = Dispatcher {
            options,
            monitor: Arc::clone(&monitor),
            cancel: context.cancel.clone(),
            reader: context.reads.reader(),
            shared: Arc::clone(&shared),
            tasks,
            items,
            earlier,
            segment_bytes: memory.segment_bytes,
            cut,
            fetch,
            original,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_path_bytes: 0,
            statistics: Statistics::default(),
            continued: Continued::default(),
            met: 0,
            left_out: 0,
        };
        let dispatched = dispatch(dispatcher, image.as_ref(), memory, &context.reads);
        let assembled = assembling.join();
        stop_tuning.cancel();
        tuner.thread().unpark();
        lookout.thread().unpark();
        let assembled =
            assembled.unwrap_or_else(|_| Err(Error::internal("the thread that writes the tree broke")));
        let ended = worst_of(assembled, dispatched);
        if let Err(error) = &ended {
            leave_behind(error, &context.reads, &held, &all_worked, on_end);
        }
        let (assembled, pages, mut dispatched) = ended?;
        add_up(&context, &assembled, &mut dispatched)?;
        Ok((assembled, pages, dispatched))
    })
}

/// Adds up what all of them counted.
fn add_up(context: &worker::Context, assembled: &Assembled, dispatched: &mut Dispatched) -> Result<()> {
    let found_same = context.found_same.load(Ordering::Relaxed) + assembled.found_same;
    was_unmodified(&mut dispatched.statistics, found_same);
    let left_out = dispatched.left_out + context.left_out.load(Ordering::Relaxed) + assembled.left_out;
    account_for_all(dispatched.met, assembled.entries, left_out)
}

/// Goes through the source, whatever it is.
fn dispatch(
    dispatcher: Dispatcher<'_>,
    image: Option<&ImageState>,
    memory: Memory,
    reads: &Arc<Reads>,
) -> Result<Dispatched> {
    let options = dispatcher.options;
    match (&options.source, image) {
        (BackupSource::Files(walk_options), _) => {
            let window_entries = walk_options.window_entries.min(memory.window_entries);
            let names_bytes = walk_options.names_bytes.min(memory.names_bytes);
            let reads = Arc::clone(reads);
            dispatcher.files(WalkOptions { window_entries, names_bytes, reads, ..walk_options.clone() })
        }
        (BackupSource::Stdin { name }, _) => dispatcher.stream(&mut std::io::stdin().lock(), name),
        (BackupSource::Block { path, changed, .. }, Some(image)) => {
            dispatcher.block(path, changed.as_deref(), image)
        }
        (BackupSource::Snapshot { reader, .. }, _) => dispatcher.snapshot(reader),
        (BackupSource::Block { .. }, None) => Err(Error::internal("a device was not examined")),
    }
}

/// Invariant 9: every entry that the source had is in the tree, or was left out and reported.
fn account_for_all(met: u64, in_tree: u64, left_out: u64) -> Result<()> {
    if met == in_tree + left_out {
        return Ok(());
    }
    let counts =
        format!("the source had {met} entries, {in_tree} are in the tree and {left_out} were left out");
    Err(Error::internal("an entry was lost on its way, so nothing is committed").context(counts))
}

/// Tasks that wait for a worker. Those of a stream or a snapshot hold what was read, so they are no more than workers.
fn tasks_ahead(options: &BackupOptions, threads: usize) -> usize {
    match options.source {
        BackupSource::Stdin { .. } | BackupSource::Snapshot { .. } => threads,
        BackupSource::Files(_) | BackupSource::Block { .. } => 2 * threads,
    }
}

/// Items between dispatcher and tree: each holds at most 256 entries or one large file.
const ITEMS_AHEAD: usize = 64;

/// The error that came first: threads that stop because another one failed say so by kind `Cancelled`.
fn worst_of(
    assembled: Result<(Assembled, Pages)>,
    dispatched: Result<Dispatched>,
) -> Result<(Assembled, Pages, Dispatched)> {
    match (assembled, dispatched) {
        (Ok((assembled, pages)), Ok(dispatched)) => Ok((assembled, pages, dispatched)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(first), Err(second)) => Err(if first.kind() == ErrorKind::Cancelled { second } else { first }),
    }
}

fn first_level(choice: CompressionChoice) -> i32 {
    match choice {
        CompressionChoice::Off => 0,
        CompressionChoice::Adaptive { lightest, .. } => lightest,
    }
}

fn adapts(choice: CompressionChoice) -> bool {
    matches!(choice, CompressionChoice::Adaptive { lightest, tightest } if lightest < tightest)
}

/// Tightens compression while workers wait for the store, and lightens it again when they do not.
fn tune(choice: CompressionChoice, shared: &Shared, stop: &Cancel) {
    let CompressionChoice::Adaptive { lightest, tightest } = choice else { return };
    let mut before = 0;
    while !stop.is_cancelled() {
        thread::park_timeout(TUNE_INTERVAL);
        let waited = shared.bridge.waited_ns();
        let share = (waited - before) as f64 / TUNE_INTERVAL.as_nanos() as f64;
        before = waited;
        let level = shared.level.load(Ordering::Relaxed);
        let next = if share > 0.5 {
            level + 1
        } else if share < 0.1 {
            level - 1
        } else {
            level
        };
        shared.level.store(next.clamp(lightest, tightest), Ordering::Relaxed);
    }
}

/// Often enough to follow a store that slows down, rarely enough to cost nothing.
const TUNE_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_nowhere_ends_the_backup() {
        assert!(account_for_all(5, 3, 2).is_ok());
        for (met, in_tree, left_out) in [(5, 3, 1), (5, 6, 0), (0, 1, 0)] {
            let error = account_for_all(met, in_tree, left_out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
        }
    }
}
