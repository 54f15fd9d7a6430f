//! Backing up: a source becomes a snapshot.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use crossbeam_channel::bounded;
use jiff::Timestamp;

use crate::{
    cancel::Cancel,
    chunker::CutSizes,
    error::{Error, ErrorKind, Result},
    format::{
        frame::Suite,
        metadata::FileTime,
        records::{ProblemRecord, Snapshot, SourceKind, Statistics},
        session::{SessionKind, SessionName},
    },
    limits,
    monitor::{CollectMonitor, Monitor, Problem, Progress, escape_path},
    pipeline::{
        bridge::Bridge,
        frames::{Counts, Shared},
        known::KnownChunks,
        packer::Packer,
        tree::{Pages, TreeWriter},
    },
    repo::{Repository, Session},
    source::walk,
};

/// What is said of a file that was not the same from beginning to end.
pub(crate) const CHANGED_WHILE_READ: &str =
    "it changed while it was read: the backup holds a mixture of before and after";

mod assemble;
mod checkpoint;
mod dispatch;
mod image;
mod parent;
mod worker;

use assemble::{Assembled, Assembler};
use parent::{PageOpener, ParentStream};

/// What to back up.
#[derive(Debug, Clone)]
pub enum BackupSource {
    /// Trees of files.
    Files(walk::WalkOptions),
    /// A block device or an image file, as one image.
    Block {
        /// The device or file.
        path: PathBuf,
        /// A list of what changed since the parent: everything else is taken from there.
        changed: Option<PathBuf>,
        /// Names this state of the device, for the next list of changes.
        change_id: Option<String>,
    },
    /// Standard input, as one image of this name.
    Stdin {
        /// The name in the snapshot.
        name: String,
    },
}

/// Which cipher to seal with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CipherChoice {
    /// What the processor does best.
    #[default]
    Auto,
    /// This one.
    Suite(Suite),
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionChoice {
    /// Not at all.
    Off,
    /// zstd, between these levels: tighter while the store is the bottleneck, lighter while the processor is.
    Adaptive {
        /// Lightest level.
        lightest: i32,
        /// Tightest level.
        tightest: i32,
    },
}

impl Default for CompressionChoice {
    fn default() -> Self {
        Self::Adaptive { lightest: 3, tightest: 9 }
    }
}

/// Which snapshot to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The newest one of the same source.
    #[default]
    Latest,
    /// None: everything is read.
    None,
    /// This one.
    Session(SessionName),
}

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// What.
    pub source: BackupSource,
    /// Host to record.
    pub host: String,
    /// User to record.
    pub user: String,
    /// Tags to record.
    pub tags: Vec<String>,
    /// Which cipher.
    pub cipher: CipherChoice,
    /// How hard to compress.
    pub compression: CompressionChoice,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
    /// Which parent.
    pub parent: ParentChoice,
    /// Read everything, whatever the parent says.
    pub force: bool,
    /// Do not look at the time of the last change of the inode.
    pub ignore_ctime: bool,
    /// Do not look at inode numbers.
    pub ignore_inode: bool,
    /// Worker threads; 0 for one a core.
    pub threads: usize,
    /// Commit nothing when nothing differs from the parent.
    pub skip_if_unchanged: bool,
}

impl BackupOptions {
    /// Defaults for a source.
    pub fn new(source: BackupSource) -> Self {
        Self {
            source,
            host: String::new(),
            user: String::new(),
            tags: Vec::new(),
            cipher: CipherChoice::default(),
            compression: CompressionChoice::default(),
            memory_bytes: limits::MEMORY_DEFAULT,
            parent: ParentChoice::default(),
            force: false,
            ignore_ctime: false,
            ignore_inode: false,
            threads: 0,
            skip_if_unchanged: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot; none if nothing was committed because nothing had changed.
    pub snapshot: Option<Snapshot>,
    /// Things that could not be read or kept. More than none makes the result partial.
    pub problems: u64,
}

/// Backs up a source.
pub async fn backup(
    repository: &Repository,
    options: BackupOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<BackupReport> {
    if options.memory_bytes < limits::MEMORY_MIN {
        return Err(Error::invalid(format!(
            "a backup needs at least {} MiB of memory",
            limits::MEMORY_MIN >> 20
        )));
    }
    let started = repository.world().clock.now();
    let paths = source_paths(&options.source)?;
    let lineage = repository.lineage(&options.host, &paths);
    let session = Arc::new(repository.begin(SessionKind::Backup, lineage, suite(options.cipher)).await?);
    let parent = match options.parent {
        ParentChoice::None => None,
        ParentChoice::Latest => latest(repository, lineage).await?,
        ParentChoice::Session(name) => Some(repository.snapshot(name).await?),
    };
    let plan = Plan::new(repository, &options, session, parent, &monitor).await?;
    let (repository, handle) = (repository.clone(), tokio::runtime::Handle::current());
    let noted = Arc::new(Noting { inner: monitor, kept: CollectMonitor::default() });
    let scope = Arc::clone(&noted);
    let engine = tokio::task::spawn_blocking(move || -> Result<(Outcome, BackupOptions)> {
        let outcome = run(&repository, &options, plan, handle, scope, cancel)?;
        Ok((outcome, options))
    });
    let (outcome, options) =
        engine.await.map_err(|error| Error::internal("the backup's threads broke").with_source(error))??;
    finish(outcome, &options, &noted, started, &paths).await
}

/// What is decided before the threads start.
struct Plan {
    session: Arc<Session>,
    parent: Option<Snapshot>,
    /// A tree of a backup that did not finish: hints, each pack of which is looked at before use.
    index: crate::repo::DedupIndex,
    grid: u32,
}

impl Plan {
    async fn new(
        repository: &Repository,
        options: &BackupOptions,
        session: Arc<Session>,
        parent: Option<Snapshot>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Self> {
        monitor.phase("reading what the repository knows");
        if let Some(parent) = &parent {
            session.learn_keys(&parent.sessions);
        }
        // A row takes 24 bytes; the index gets an eighth of the memory.
        let rows = usize::try_from(options.memory_bytes / 8 / 24).unwrap_or(usize::MAX);
        let index = repository.load_index(rows).await?;
        Ok(Self { session, grid: parent.as_ref().map_or(0, |parent| parent.grid), parent, index })
    }
}

struct Outcome {
    session: Arc<Session>,
    assembled: Assembled,
    keys: Vec<crate::format::session::SessionKeyInfo>,
    segment: Vec<(crate::id::ChunkId, crate::id::PackId)>,
    parent: Option<Snapshot>,
    source: SourceKind,
    grid: u32,
}

fn run(
    repository: &Repository,
    options: &BackupOptions,
    plan: Plan,
    handle: tokio::runtime::Handle,
    monitor: Arc<Noting>,
    cancel: Cancel,
) -> Result<Outcome> {
    let memory = Memory::divide(options.memory_bytes, options.threads);
    let session = Arc::clone(&plan.session);
    let bridge = Arc::new(Bridge::new(handle, Arc::clone(&session), monitor.clone(), memory.flight_bytes));
    let shared = Arc::new(Shared {
        keys: repository.keys().clone(),
        known: KnownChunks::new(memory.known_bytes),
        index: plan.index,
        packer: Packer::new(Arc::clone(&bridge), memory.pack_bytes),
        bridge: Arc::clone(&bridge),
        level: AtomicI32::new(first_level(options.compression)),
        counts: Counts::default(),
    });
    let metadata = Arc::new(Packer::new(Arc::clone(&bridge), memory.pack_bytes / 4));
    let parent_pages = Arc::new(Mutex::default());
    let opener = plan.parent.as_ref().map(|parent| {
        let pages = Arc::clone(&parent_pages);
        Arc::new(PageOpener::new(repository.clone(), Arc::clone(&bridge), &parent.sessions, pages))
    });
    let source = source_kind(&options.source);
    let grid = image::grid(&options.source, plan.grid)?;
    let pages = Pages::new(Arc::clone(&shared), Arc::clone(&metadata), parent_pages);
    let assembler = Assembler {
        tree: TreeWriter::new(),
        pages,
        monitor: monitor.clone(),
        checkpoints: Some(checkpoint::Checkpoints::new(
            repository.world().clone(),
            Arc::clone(&shared),
            Arc::clone(&metadata),
            source,
        )),
        statistics: Statistics::default(),
    };
    let context = worker::Context {
        shared: Arc::clone(&shared),
        chunker: repository.chunker(),
        monitor: monitor.clone(),
        cancel: cancel.clone(),
        slab_bytes: memory.segment_bytes
            + (limits::CHUNK_LIMIT.min(repository.format().cut.maximum)) as usize,
    };
    let parts = Parts {
        context,
        assembler,
        opener,
        parent: plan.parent.as_ref(),
        grid,
        cut: repository.format().cut,
    };
    let (assembled, pages, dispatched) = drive(options, memory, parts)?;
    shared.packer.flush()?;
    metadata.flush()?;
    let mut statistics = merge(assembled.statistics, dispatched);
    statistics.packs = bridge.finish()?;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    statistics.bytes_new = load(&shared.counts.bytes_new);
    statistics.chunks_new = load(&shared.counts.chunks_new);
    statistics.chunks_known = load(&shared.counts.chunks_known);
    statistics.bytes_stored = shared.packer.stored() + metadata.stored();
    statistics.bytes_read = Progress::get(&monitor.progress().bytes_moved);
    let keys = session.known_keys(pages.sessions())?;
    let segment = shared.packer.take_indexed();
    let assembled = Assembled { statistics, ..assembled };
    Ok(Outcome { session, assembled, keys, segment, parent: plan.parent, source, grid })
}

/// What the threads of one backup work with.
struct Parts<'p> {
    context: worker::Context,
    assembler: Assembler,
    opener: Option<Arc<PageOpener>>,
    parent: Option<&'p Snapshot>,
    grid: u32,
    cut: CutSizes,
}

/// Runs the threads: workers, tree writer, tuner, and the dispatcher on this one.
fn drive(
    options: &BackupOptions,
    memory: Memory,
    parts: Parts<'_>,
) -> Result<(Assembled, Pages, Statistics)> {
    let Parts { context, assembler, opener, parent, grid, cut } = parts;
    let (monitor, shared) = (Arc::clone(&context.monitor), Arc::clone(&context.shared));
    monitor.phase("backing up");
    let stop_tuning = Cancel::default();
    thread::scope(|scope| {
        let (tasks, task_queue) = bounded(memory.threads * 2);
        let (items, item_queue) = bounded(ITEMS_AHEAD);
        for _ in 0..memory.threads {
            let (context, queue) = (&context, task_queue.clone());
            scope.spawn(move || worker::work(context, &queue));
        }
        drop(task_queue);
        let tuner = scope.spawn(|| tune(options.compression, &shared, &stop_tuning));
        let assembling = scope.spawn(move || assembler.run(&item_queue));
        let dispatcher = dispatch::Dispatcher {
            options,
            monitor,
            cancel: context.cancel.clone(),
            shared: Arc::clone(&shared),
            tasks,
            items,
            parent: match (&opener, parent) {
                (Some(opener), Some(Snapshot { root: Some(root), depth, .. })) => {
                    ParentStream::start(Arc::clone(opener), root.to_chunk(), *depth)
                }
                _ => ParentStream::empty(),
            },
            opener,
            racy_from: racy_from(parent),
            segment_bytes: memory.segment_bytes,
            cut,
            batch: Vec::new(),
            batch_bytes: 0,
            statistics: Statistics::default(),
        };
        let dispatched = match &options.source {
            BackupSource::Files(walk_options) => dispatcher.files(walk_options.clone()),
            BackupSource::Block { path, changed, .. } => dispatcher.block(path, changed.as_deref(), grid),
            BackupSource::Stdin { name } => dispatcher.stream(&mut std::io::stdin().lock(), name),
        };
        let assembled = assembling.join();
        stop_tuning.cancel();
        tuner.thread().unpark();
        let assembled =
            assembled.unwrap_or_else(|_| Err(Error::internal("the thread that writes the tree broke")));
        worst_of(assembled, dispatched)
    })
}

/// Items between dispatcher and tree: each holds at most 256 entries or one large file.
const ITEMS_AHEAD: usize = 64;

/// The error that came first: threads that stop because another one failed say so by kind `Cancelled`.
fn worst_of(
    assembled: Result<(Assembled, Pages)>,
    dispatched: Result<Statistics>,
) -> Result<(Assembled, Pages, Statistics)> {
    match (assembled, dispatched) {
        (Ok((assembled, pages)), Ok(dispatched)) => Ok((assembled, pages, dispatched)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(first), Err(second)) => Err(if first.kind() == ErrorKind::Cancelled { second } else { first }),
    }
}

async fn finish(
    outcome: Outcome,
    options: &BackupOptions,
    noted: &Noting,
    started: Timestamp,
    paths: &[Vec<u8>],
) -> Result<BackupReport> {
    let Outcome { session, assembled, keys, segment, parent, source, grid } = outcome;
    let problems = Progress::get(&noted.kept.progress().problems);
    let same_tree = parent.as_ref().is_some_and(|parent| parent.root == assembled.root);
    if options.skip_if_unchanged && same_tree && problems == 0 {
        session.abandon("nothing had changed").await?;
        return Ok(BackupReport { snapshot: None, problems });
    }
    noted.phase("committing");
    session.put_segment(&segment).await?;
    let snapshot = Snapshot {
        version: 1,
        session: session.name(),
        source,
        host: options.host.clone(),
        user: options.user.clone(),
        paths: paths.iter().map(|path| escape_path(path)).collect(),
        tags: options.tags.clone(),
        started,
        finished: session.world().clock.now(),
        parent: parent.map(|parent| parent.session),
        grid,
        change_id: match &options.source {
            BackupSource::Block { change_id, .. } => change_id.clone(),
            _ => None,
        },
        root: assembled.root,
        depth: assembled.depth,
        sessions: keys,
        statistics: Statistics { problems, ..assembled.statistics },
        problems: noted
            .kept
            .problems()
            .into_iter()
            .take(PROBLEMS_RECORDED)
            .map(|problem| ProblemRecord { path: problem.what, message: problem.message })
            .collect(),
        program: concat!("carrack ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    session.commit(&snapshot).await?;
    Ok(BackupReport { snapshot: Some(snapshot), problems })
}

/// Problems that a snapshot lists; its statistics have the number of all.
const PROBLEMS_RECORDED: usize = 100;

fn merge(assembled: Statistics, dispatched: Statistics) -> Statistics {
    Statistics {
        files_new: dispatched.files_new,
        files_changed: dispatched.files_changed,
        files_unmodified: dispatched.files_unmodified,
        excluded: dispatched.excluded,
        ..assembled
    }
}

async fn latest(repository: &Repository, lineage: crate::id::LineageId) -> Result<Option<Snapshot>> {
    let mut newest: Option<Snapshot> = None;
    for name in repository.visible(&format!("b{lineage}")).await? {
        // A parent only saves work: one that cannot be read, or is gone by now, is passed over and named.
        let snapshot = match repository.snapshot(name).await {
            Ok(snapshot) => snapshot,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Denied) => {
                tracing::warn!(snapshot = %name, %error, "it does not serve as parent");
                continue;
            }
            Err(error) => return Err(error),
        };
        if newest.as_ref().is_none_or(|newest| newest.started < snapshot.started) {
            newest = Some(snapshot);
        }
    }
    Ok(newest)
}

/// Files that were changed within two seconds before the parent was begun, or later, are read again: their times
/// may not tell of a change in the same tick.
fn racy_from(parent: Option<&Snapshot>) -> FileTime {
    parent.map_or(FileTime::default(), |parent| FileTime {
        seconds: parent.started.as_second() - 2,
        nanoseconds: 0,
    })
}

fn source_kind(source: &BackupSource) -> SourceKind {
    match source {
        BackupSource::Files(_) => SourceKind::Files,
        BackupSource::Block { .. } => SourceKind::Block,
        BackupSource::Stdin { .. } => SourceKind::Stdin,
    }
}

fn source_paths(source: &BackupSource) -> Result<Vec<Vec<u8>>> {
    use std::os::unix::ffi::OsStrExt as _;
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map(|path| path.as_os_str().as_bytes().to_vec())
            .map_err(|error| Error::io(error, format!("{} has no absolute form", path.display())))
    };
    let mut paths: Vec<Vec<u8>> = match source {
        BackupSource::Files(options) => options.roots.iter().map(absolute).collect::<Result<_>>()?,
        BackupSource::Block { path, .. } => vec![absolute(path)?],
        BackupSource::Stdin { name } => vec![format!("/{name}").into_bytes()],
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn suite(choice: CipherChoice) -> Suite {
    match choice {
        CipherChoice::Suite(suite) => suite,
        CipherChoice::Auto if has_fast_aes() => Suite::Aes256Gcm,
        CipherChoice::Auto => Suite::ChaCha20Poly1305,
    }
}

fn has_fast_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let fast = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    fast
}

fn first_level(choice: CompressionChoice) -> i32 {
    match choice {
        CompressionChoice::Off => 0,
        CompressionChoice::Adaptive { lightest, .. } => lightest,
    }
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
const TUNE_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// How the memory is divided. Fixed parts (program, runtime, zstd contexts, the walk's window) take about 48 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    threads: usize,
    segment_bytes: usize,
    pack_bytes: usize,
    flight_bytes: u64,
    known_bytes: usize,
}

impl Memory {
    fn divide(memory_bytes: u64, threads: usize) -> Self {
        let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let wanted = if threads == 0 { cores } else { threads };
        // A worker takes a segment, a frame before and after compression and a compressor: about 12 MiB.
        let affordable = usize::try_from(memory_bytes / 4 / (12 << 20)).unwrap_or(1).max(1);
        let pack_bytes = (memory_bytes / 8).clamp(8 << 20, limits::PACK_TARGET as u64) as usize;
        Self {
            threads: wanted.min(affordable),
            segment_bytes: if memory_bytes >= 192 << 20 { 4 << 20 } else { 2 << 20 },
            pack_bytes,
            flight_bytes: 2 * pack_bytes as u64 + (1 << 20),
            known_bytes: (memory_bytes / 8) as usize,
        }
    }
}

/// Passes everything on, and keeps the problems for the snapshot's record.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn Monitor>,
    kept: CollectMonitor,
}

impl Monitor for Noting {
    fn progress(&self) -> &Progress {
        self.inner.progress()
    }

    fn phase(&self, name: &str) {
        self.inner.phase(name);
    }

    fn problem(&self, problem: Problem) {
        self.kept.problem(problem.clone());
        self.inner.problem(problem);
    }
}
