//! A small repository in memory that has an object of every kind, with the trees that its snapshots must give back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    backup::{BackupOptions, BackupReport, BackupSource, backup},
    cancel::Cancel,
    check::{CheckLevel, CheckOptions, check},
    chunker::CutSizes,
    clock::{Clock, World},
    error::{Error, Result as EngineResult},
    format::{
        frame::{FrameKind, Suite},
        pack::{pack_object, parse_pack_object},
        records::{Fenced, RecordKind, encode_record, to_json},
        session::{SessionKind, SessionName},
    },
    id::{LineageId, PackId},
    limits,
    monitor::CollectMonitor,
    repack::repack,
    repo::{CreateOptions, PruneOptions, Repository, Unlock, Unused},
    secret::Key,
    source::walk::WalkOptions,
    store::{ByteRange, Capabilities, ObjectStore, Page, Put, list_all, mem::MemStore},
};
use tempfile::TempDir;

use super::support::Support;
use crate::{engine::leave_small_segments, trees::noise};

/// Paths as snapshots have them, with contents.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Memory that every verb is given: the least.
pub const MEMORY_BYTES: u64 = 64 << 20;

/// The host of the image, and its name.
pub const IMAGE: &str = "image";

/// The secret that verbs open the repository with.
pub const OWN_SECRET: u8 = 5;
/// The secret of its other key.
pub const OTHER_SECRET: u8 = 6;
/// The secret of a key that was removed.
const REMOVED_SECRET: u8 = 7;

/// The repository, how it was before, and what is in it.
#[derive(Debug)]
pub struct Scene {
    directory: TempDir,
    /// As it is, undamaged.
    pub now: MemStore,
    /// As it was when its first snapshot was still there.
    pub older: MemStore,
    /// What each visible snapshot must give back.
    pub truth: BTreeMap<SessionName, Tree>,
    /// The first of the visible ones: it finds moved frames through relocations.
    pub moved: SessionName,
    /// The last of the first source.
    pub last: SessionName,
    /// The one that no check has marked, and that is nobody's parent.
    pub unmarked: SessionName,
    /// A snapshot with a forgotten marker, and what it held.
    pub forgotten: (SessionName, Tree),
    /// The one of an image.
    pub image: SessionName,
    /// A pack that was sent twice.
    pub twice: PackId,
    /// The object of the key that belongs to [`OWN_SECRET`].
    pub own_key: String,
    /// What every file of these snapshots needs.
    pub support: Support,
}

/// A secret of which all bytes are this one.
pub fn unlock(secret: u8) -> Unlock {
    Unlock::Secret(Key::new([secret; 32]))
}

/// The system's world, so many days from now.
pub fn world(days: u64) -> World {
    let system = World::system();
    World {
        clock: Arc::new(Later { system: system.clock, by: Duration::from_secs(days * 86_400) }),
        ..system
    }
}

#[derive(Debug)]
struct Later {
    system: Arc<dyn Clock>,
    by: Duration,
}

impl Clock for Later {
    fn now(&self) -> jiff::Timestamp {
        self.system.now() + self.by
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

/// Opens what is in a store.
pub async fn open(store: &Arc<MemStore>, secret: u8, days: u64) -> EngineResult<Repository> {
    Repository::open(Arc::clone(store) as Arc<dyn ObjectStore>, world(days), &unlock(secret)).await
}

/// A new repository in memory with small chunks, so that a few hundred kilobytes have pages of chunks.
pub async fn create(store: Arc<dyn ObjectStore>, secret: u8) -> EngineResult<Repository> {
    let cut = CutSizes { minimum: 4096, average: 4096, maximum: 16_384 };
    let options = CreateOptions { cut, ..CreateOptions::default() };
    Repository::create(store, world(0), &unlock(secret), &options).await
}

/// Backs up a folder, or a file as an image, as the scene does: unchanged files are believed to be as in the parent.
pub async fn back_up(repository: &Repository, source: &Path, host: &str) -> EngineResult<BackupReport> {
    back_up_with(repository, source, host, limits::CHECKPOINT_INTERVAL).await
}

async fn back_up_with(
    repository: &Repository,
    source: &Path,
    host: &str,
    checkpoint_interval: Duration,
) -> EngineResult<BackupReport> {
    let from = match source.is_file() {
        true => BackupSource::Block { path: source.to_owned(), changed: None, change_id: None },
        false => {
            BackupSource::Files(WalkOptions { roots: vec![source.to_owned()], ..WalkOptions::default() })
        }
    };
    let options = BackupOptions {
        host: host.to_owned(),
        memory_bytes: MEMORY_BYTES,
        threads: 1,
        ignore_ctime: true,
        checkpoint_interval,
        ..BackupOptions::new(from)
    };
    backup(repository, options, Arc::new(CollectMonitor::default()), Cancel::default()).await
}

/// Frees all that nothing needs, moving what is needed out of packs that are needed in part.
pub async fn prune(repository: &Repository) -> EngineResult<CollectMonitor> {
    let options =
        PruneOptions { wait: Duration::ZERO, max_unused: Some(Unused::Bytes(0)), ..PruneOptions::default() };
    let (monitor, cancel) = (Arc::new(CollectMonitor::default()), Cancel::default());
    let mut plan = repository.plan_prune(&options, &*monitor, &cancel).await?;
    repack(repository, &mut plan, MEMORY_BYTES, monitor.clone(), &cancel).await?;
    let report = repository.apply_prune(&plan, &*monitor, &cancel).await?;
    let told = CollectMonitor::default();
    for problem in plan.problems.iter().chain(&report.problems) {
        carrack_mover::monitor::Monitor::problem(
            &told,
            carrack_mover::monitor::Problem { what: problem.path.clone(), message: problem.message.clone() },
        );
    }
    for problem in monitor.problems() {
        carrack_mover::monitor::Monitor::problem(&told, problem);
    }
    Ok(told)
}

/// What a plan to prune names, as the program tells it before it does anything.
pub async fn planned(repository: &Repository) -> String {
    let (monitor, cancel) = (CollectMonitor::default(), Cancel::default());
    let plan = repository.plan_prune(&PruneOptions::default(), &monitor, &cancel).await;
    plan.map(|plan| format!("{:?}", plan.problems)).unwrap_or_default()
}

fn write_old(path: &Path, contents: &[u8]) -> Result<()> {
    fs::write(path, contents)?;
    let file = fs::File::options().write(true).open(path)?;
    Ok(file.set_modified(SystemTime::now() - Duration::from_secs(3600))?)
}

/// The files below a folder, as a snapshot of it names them.
pub fn tree_of(folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.to_str().context("a path in UTF-8")?.trim_start_matches('/').to_owned();
            tree.insert(name, fs::read(path)?);
        }
    }
    Ok(tree)
}

/// An image, as a snapshot of it names it.
fn image_of(file: &Path) -> Result<Tree> {
    Ok(Tree::from([(IMAGE.to_owned(), fs::read(file)?)]))
}

impl Scene {
    /// The folder, or image, that is backed up as this host.
    pub fn source(&self, host: &str) -> PathBuf {
        self.directory.path().join(host)
    }

    /// What a snapshot of this host, made now, must give back.
    pub fn tree(&self, host: &str) -> Result<Tree> {
        match host {
            IMAGE => image_of(&self.source(IMAGE)),
            _ => tree_of(&self.source(host)),
        }
    }

    /// Makes it: some seconds, once for all cells.
    pub async fn make() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let store = Arc::new(MemStore::new());
        let repository = create(Arc::clone(&store) as Arc<dyn ObjectStore>, OWN_SECRET).await?;
        let own_key = Self::names(&store).await?.into_iter().find(|name| name.starts_with("keys/"));
        let own_key = own_key.context("a key")?;
        let (own, options) = (unlock(OWN_SECRET), CreateOptions::default());
        let removed = repository.add_key(&own, &unlock(REMOVED_SECRET), &options).await?;
        let [one, two, gone, device] = make_sources(directory.path())?;
        let mut truth = BTreeMap::new();
        let first = session_of(back_up(&repository, &one, "one").await?)?;
        fs::remove_file(one.join("a dropped"))?;
        let moved = session_of(back_up(&repository, &one, "one").await?)?;
        truth.insert(moved, tree_of(&one)?);
        let older = store.fork();
        repository.remove_key(removed).await?;
        repository.add_key(&own, &unlock(OTHER_SECRET), &options).await?;
        let repository = open(&store, OWN_SECRET, 0).await?;
        repository.forget(&[first]).await?;
        prune(&repository).await?;

        write_old(&one.join("small 7"), &noise(50, 30_000))?;
        let last = session_of(back_up(&repository, &one, "one").await?)?;
        truth.insert(last, tree_of(&one)?);
        fs::copy(one.join("small 3"), two.join("as in one"))?;
        for index in 0..4 {
            write_old(&two.join(format!("other {index}")), &noise(60 + index, 20_000))?;
        }
        let other = session_of(back_up(&repository, &two, "two").await?)?;
        truth.insert(other, tree_of(&two)?);
        let twice = send_twice(&store, &repository, other).await?;
        let image = session_of(back_up(&repository, &device, IMAGE).await?)?;
        truth.insert(image, image_of(&device)?);
        write_old(&gone.join("gone"), &noise(70, 50_000))?;
        let forgotten = (session_of(back_up(&repository, &gone, "gone").await?)?, tree_of(&gone)?);
        repository.forget(&[forgotten.0]).await?;
        Self::leave_unfinished(&store, directory.path()).await?;
        mark_all(&repository).await?;
        repository.note_damage(&[PackId([7; 16])].into()).await?;
        leave_small_segments(&repository, LineageId::default()).await?;
        leave_shut_out(&repository).await?;
        write_old(&two.join("other 4"), &noise(80, 20_000))?;
        let unmarked = session_of(back_up(&repository, &two, "two").await?)?;
        truth.insert(unmarked, tree_of(&two)?);
        // The marker of the forgotten one is one of the objects that are harmed: then it is in view again.
        let unforgotten = Arc::new(store.fork());
        let markers = Self::names(&store).await?.into_iter().filter(|name| name.starts_with("forgotten/"));
        markers.for_each(|name| unforgotten.tamper(&name, None));
        let sessions: Vec<SessionName> = truth.keys().copied().chain([forgotten.0]).collect();
        let repository = open(&unforgotten, OWN_SECRET, 0).await?;
        let support = Support::of(&unforgotten, &repository, sessions).await?;
        let now = store.fork();
        Ok(Self {
            directory,
            now,
            older,
            truth,
            moved,
            last,
            unmarked,
            forgotten,
            image,
            twice,
            own_key,
            support,
        })
    }

    /// A prune that was killed when it began to delete, and a backup that was killed at its end.
    async fn leave_unfinished(store: &Arc<MemStore>, directory: &Path) -> Result<()> {
        let walled = |put, delete| {
            let inner: Arc<dyn ObjectStore> = store.clone();
            Arc::new(Walled { inner, put, delete })
        };
        let repository = Repository::open(walled("", "packs/"), world(0), &unlock(OWN_SECRET)).await?;
        anyhow::ensure!(prune(&repository).await.is_err(), "the prune was to be killed");
        let repository = Repository::open(walled("snapshots/", ""), world(0), &unlock(OWN_SECRET)).await?;
        let killed = directory.join("killed");
        fs::create_dir(&killed)?;
        for index in 0..40 {
            write_old(&killed.join(format!("file {index}")), &noise(90 + index, 8000))?;
        }
        let done = back_up_with(&repository, &killed, "killed", Duration::ZERO).await;
        anyhow::ensure!(done.is_err(), "the backup was to be killed");
        Ok(())
    }

    /// The store with names, to look at.
    pub async fn names(store: &MemStore) -> EngineResult<Vec<String>> {
        Ok(list_all(store, "").await?.into_iter().map(|object| object.name).collect())
    }
}

/// What is backed up at first, of two hosts and one whose snapshot is forgotten; and an image.
fn make_sources(directory: &Path) -> Result<[PathBuf; 4]> {
    let [one, two, gone, device] = ["one", "two", "gone", IMAGE].map(|name| directory.join(name));
    [&one, &two, &gone].into_iter().try_for_each(fs::create_dir)?;
    write_old(&one.join("a dropped"), &noise(1, 1_500_000))?;
    write_old(&one.join("large"), &noise(2, 1_000_000))?;
    for index in 0..8 {
        write_old(&one.join(format!("small {index}")), &noise(10 + index, 9000 * (index as usize + 1)))?;
    }
    write_old(&device, &noise(75, 100_000))?;
    Ok([one, two, gone, device])
}

/// A session that a prune has shut out, and was killed before it cleaned up.
async fn leave_shut_out(repository: &Repository) -> Result<()> {
    let session = repository.begin(SessionKind::Backup, LineageId::default(), Suite::Aes256Gcm).await?;
    let (session, created) = (session.name(), jiff::Timestamp::now());
    let fence = Fenced { session, created, reason: "it was overdue".to_owned(), cleaned_up: false };
    let (name, json) = (session.end_object(), to_json(&fence)?);
    let signed = [repository.keys().sign_maintenance(&name, &json)?, json].concat();
    repository.store().put_if_absent(&name, encode_record(RecordKind::Fenced, &signed).into()).await?;
    Ok(())
}

/// Sends a pack of data of a session once more, as after an answer that was not clear.
async fn send_twice(store: &MemStore, repository: &Repository, of: SessionName) -> Result<PackId> {
    for name in Scene::names(store).await? {
        let parsed = parse_pack_object(&name).filter(|(pack, _)| pack.tag() == of.nonce.tag());
        let Some((pack, _)) = parsed else { continue };
        let footer = repository.footer(pack).await?.footer;
        if footer.frames.iter().any(|frame| frame.kind == FrameKind::Data) {
            let body = store.get(&name, ByteRange::All).await?;
            store.put_if_absent(&pack_object(pack, 1), body).await?;
            return Ok(pack);
        }
    }
    anyhow::bail!("session {of} has no pack of data")
}

async fn mark_all(repository: &Repository) -> Result<()> {
    let options = CheckOptions {
        level: CheckLevel::Data,
        memory_bytes: MEMORY_BYTES,
        threads: 1,
        only: None,
        mark: true,
    };
    let report = check(repository, &options, Arc::new(CollectMonitor::default()), Cancel::default()).await?;
    anyhow::ensure!(report.is_clean() && report.marked == 4, "the scene is whole: {report:?}");
    Ok(())
}

fn session_of(report: BackupReport) -> Result<SessionName> {
    Ok(report.snapshot.context("a snapshot")?.session)
}

/// Refuses to put or delete objects whose names begin so; nothing is refused for an empty beginning.
#[derive(Debug)]
pub struct Walled {
    /// What it stands before.
    pub inner: Arc<dyn ObjectStore>,
    /// How names begin that nobody puts.
    pub put: &'static str,
    /// How names begin that nobody deletes.
    pub delete: &'static str,
}

fn refuse(beginning: &str, name: &str) -> EngineResult<()> {
    match !beginning.is_empty() && name.starts_with(beginning) {
        true => Err(Error::denied(format!("{name} is behind the wall"))),
        false => Ok(()),
    }
}

#[async_trait]
impl ObjectStore for Walled {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> EngineResult<Put> {
        refuse(self.put, name)?;
        self.inner.put_if_absent(name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> EngineResult<Bytes> {
        self.inner.get(name, range).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> EngineResult<Page> {
        self.inner.list(prefix, token).await
    }

    async fn delete(&self, name: &str) -> EngineResult<bool> {
        refuse(self.delete, name)?;
        self.inner.delete(name).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn flush(&self) -> EngineResult<()> {
        self.inner.flush().await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
