//! Backups that are killed and go on, against a store in memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{BackupOptions, BackupReport, BackupSource, backup, parent::KEYS_CARRIED};
use crate::{
    cancel::Cancel,
    clock::{Clock, World},
    error::{Error, ErrorKind, Result},
    format::{
        entry::Run,
        metadata::Kind,
        pack::{PackSending, parse_pack_object},
        records::{self, Condemned, RecordKind},
    },
    id::RandomId,
    monitor::CollectMonitor,
    reader::{SnapshotReader, testing::noise, walk::Part},
    repo::{CreateOptions, Repository, Unlock},
    source::walk::WalkOptions,
    store::{ByteRange, Decorator, ObjectStore, Put, list_all, mem::MemStore},
};

mod image;
mod many;
mod meanwhile;
mod silent;
mod times;

/// A store of which the power goes off: after so many checkpoints no pack arrives any more.
#[derive(Debug)]
struct Dying {
    inner: Arc<MemStore>,
    checkpoints_left: AtomicU64,
}

#[async_trait]
impl Decorator for Dying {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        if name.starts_with("packs/") && self.checkpoints_left.load(Ordering::SeqCst) == 0 {
            return Err(Error::new(ErrorKind::NoSpace, "the store died"));
        }
        let put = self.inner.put_if_absent(name, body).await?;
        if name.starts_with("index/c") {
            let left = self.checkpoints_left.load(Ordering::SeqCst);
            self.checkpoints_left.store(left.saturating_sub(1), Ordering::SeqCst);
        }
        Ok(put)
    }
}

/// A store at which somebody asks the backup to stop, when so many packs have come.
#[derive(Debug)]
struct Stopping {
    inner: Arc<MemStore>,
    packs_left: AtomicU64,
    cancel: Cancel,
}

#[async_trait]
impl Decorator for Stopping {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        // Two may come at once.
        if name.starts_with("packs/") && self.packs_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cancel.cancel();
        }
        self.inner.put_if_absent(name, body).await
    }
}

/// For a run that takes no time a checkpoint is always due, however slow this machine is.
#[derive(Debug)]
struct Timeless(World);

#[async_trait]
impl Clock for Timeless {
    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn unlock() -> Unlock {
    Unlock::Secret(crate::secret::Key::new([7; 32]))
}

struct Place {
    store: Arc<MemStore>,
    directory: tempfile::TempDir,
}

/// Old enough that no change could hide in its times. The time of the inode's last change cannot be set.
fn write_old(path: &Path, contents: &[u8]) {
    write_modified(path, contents, SystemTime::now() - Duration::from_secs(3600));
}

fn write_modified(path: &Path, contents: &[u8], time: SystemTime) {
    fs::write(path, contents).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

impl Place {
    async fn new() -> Self {
        let place = Self { store: Arc::new(MemStore::new()), directory: tempfile::tempdir().unwrap() };
        let store: Arc<dyn ObjectStore> = place.store.clone();
        Repository::create(store, World::system(), &unlock(), &CreateOptions::default()).await.unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As a collector that has published its list, and may delete at any moment.
    async fn condemn_every_other_pack(&self) -> Vec<String> {
        let condemned: Vec<String> = self.names("packs/").await.into_iter().step_by(2).collect();
        let sending = |(pack, attempt)| PackSending { pack, attempt };
        let packs = condemned.iter().filter_map(|name| parse_pack_object(name).map(sending)).collect();
        let collection = RandomId([3; 16]);
        let list =
            Condemned { collection, created: World::system().clock.now(), packs, relocations: Vec::new() };
        let body = [&[0; 64][..], &records::to_json(&list).unwrap()].concat();
        let record = records::encode_record(RecordKind::Condemned, &body);
        self.store.put_if_absent(&format!("gc/{collection}.condemned"), record.into()).await.unwrap();
        condemned
    }

    fn lose(&self, names: Vec<String>) {
        names.iter().for_each(|name| self.store.tamper(name, None));
    }

    /// Sixty small files, and one of 24 MiB behind them.
    fn tree(&self) -> PathBuf {
        let source = self.path("source");
        fs::create_dir_all(source.join("below")).unwrap();
        for index in 0..60_u64 {
            write_old(&source.join(format!("a{index:02}")), &noise(index, 300_000));
        }
        write_old(&source.join("below/large"), &noise(1000, 24 << 20));
        source
    }

    async fn open(store: Arc<dyn ObjectStore>) -> Repository {
        Repository::open(store, World::system(), &unlock()).await.unwrap()
    }

    async fn repository(&self) -> Repository {
        Self::open(self.store.clone()).await
    }

    fn options(&self, source: BackupSource) -> BackupOptions {
        BackupOptions {
            host: "host".to_owned(),
            // The clock of a change of the inode cannot be turned back, so a run would always be too young.
            ignore_ctime: true,
            memory_bytes: 64 << 20,
            threads: 2,
            checkpoint_interval: Duration::ZERO,
            ..BackupOptions::new(source)
        }
    }

    async fn run(&self, options: BackupOptions) -> BackupReport {
        let repository = self.repository().await;
        backup(&repository, options, Arc::new(CollectMonitor::default()), Cancel::default()).await.unwrap()
    }

    /// A run that ends after so many checkpoints: one behind each batch of small files, and each two megabytes of a large one.
    async fn killed(&self, options: BackupOptions, checkpoints: u64) {
        self.killed_by(Arc::new(Timeless(World::system())), options, checkpoints).await;
    }

    /// The same by another clock for which no time passes.
    async fn killed_by(&self, clock: Arc<dyn Clock>, options: BackupOptions, checkpoints: u64) {
        let before = self.names("index/c").await.len() as u64;
        let store = Dying { inner: self.store.clone(), checkpoints_left: AtomicU64::new(checkpoints) };
        let world = World { clock, ..World::system() };
        let repository = Repository::open(Arc::new(store), world, &unlock()).await.unwrap();
        let monitor = Arc::new(CollectMonitor::default());
        let error = backup(&repository, options, monitor, Cancel::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert_eq!(self.names("index/c").await.len() as u64, before + checkpoints);
    }

    async fn names(&self, prefix: &str) -> Vec<String> {
        let listed = list_all(self.store.as_ref(), prefix).await.unwrap();
        listed.into_iter().map(|object| object.name).collect()
    }

    /// Reads every chunk of the snapshot and compares files with the source.
    async fn compare(&self, report: &BackupReport) -> u64 {
        let snapshot = report.snapshot.clone().unwrap();
        let reader = SnapshotReader::new(self.repository().await, snapshot);
        let mut walk = reader.entries(Part::all()).unwrap();
        let mut files = 0;
        while let Some(leaf) = walk.next_leaf().await.unwrap() {
            for entry in leaf {
                if !matches!(entry.kind, Kind::File | Kind::Image) {
                    continue;
                }
                let mut contents = Vec::new();
                let mut runs = reader.runs(&entry.content);
                while let Some((_, piece)) = runs.next_piece().await.unwrap() {
                    for run in piece {
                        match run {
                            Run::Hole(length) => contents.resize(contents.len() + length as usize, 0),
                            Run::Chunk(chunk) => {
                                contents.extend_from_slice(&reader.chunk(&chunk).await.unwrap());
                            }
                        }
                    }
                }
                let path = match entry.kind {
                    Kind::Image => self.path("image"),
                    _ => PathBuf::from(format!("/{}", String::from_utf8(entry.path.clone()).unwrap())),
                };
                assert!(fs::read(&path).unwrap() == contents, "{}", path.display());
                files += 1;
            }
        }
        files
    }
}

fn files(source: &Path) -> BackupSource {
    BackupSource::Files(WalkOptions { roots: vec![source.to_owned()], ..WalkOptions::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let place = Place::new().await;
    let source = place.tree();
    place.killed(place.options(files(&source)), 5).await;
    let report = place.run(place.options(files(&source))).await;
    let read = report.snapshot.as_ref().unwrap().statistics.bytes_read;
    assert!(report.continued.written.is_some());
    assert!(report.continued.files > 3, "{:?}", report.continued);
    assert!(read + report.continued.bytes >= 60 * 300_000 + (24 << 20), "{read} {:?}", report.continued);
    assert!(read < 60 * 300_000 + (24 << 20), "{read}");
    assert_eq!(place.compare(&report).await, 61);
    // Committed: what the checkpoints had is the parent's now.
    let third = place.run(place.options(files(&source))).await;
    assert_eq!(third.continued, Default::default());
    assert_eq!(third.snapshot.unwrap().statistics.files_unmodified, 61);
}

/// What was written just before a run is read again by the next one, which says what it found and not what it did.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_again_and_the_same_is_unmodified() {
    let place = Place::new().await;
    let source = place.path("young");
    fs::create_dir(&source).unwrap();
    let path = |name: &str| source.join(name);
    // Younger than the next run, however long it takes until that begins.
    let time = SystemTime::now() + Duration::from_secs(3600);
    for (name, length) in [("same", 300_000), ("empty", 0), ("other", 5000), ("large", 24 << 20)] {
        write_modified(&path(name), &noise(1, length), time);
    }
    let counts = |report: BackupReport| {
        let counts = report.snapshot.unwrap().statistics;
        (counts.files_new, counts.files_changed, counts.files_unmodified)
    };
    assert_eq!(counts(place.run(place.options(files(&source))).await), (4, 0, 0));
    // As many bytes, at the same time: only the contents tell.
    write_modified(&path("other"), &noise(2, 5000), time);
    let report = place.run(place.options(files(&source))).await;
    assert!(report.snapshot.as_ref().unwrap().statistics.bytes_read > 24 << 20);
    assert_eq!(counts(report), (0, 1, 3));
    // A touched file has changed, whatever is in it.
    fs::File::options().write(true).open(path("same")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(counts(place.run(place.options(files(&source))).await), (0, 1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_on_in_the_middle() {
    let place = Place::new().await;
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    write_old(&source.join("large"), &noise(1, 80 << 20));
    // The first run is killed early, the second one later: each goes on from the one before.
    place.killed(place.options(files(&source)), 5).await;
    place.killed(place.options(files(&source)), 5).await;
    let report = place.run(place.options(files(&source))).await;
    let read = report.snapshot.as_ref().unwrap().statistics.bytes_read;
    assert_eq!(read + report.continued.bytes, 80 << 20);
    // Five parts of two megabytes are less.
    assert!(report.continued.bytes > 12 << 20, "{:?}", report.continued);
    assert_eq!(place.compare(&report).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_in_between_is_read_again() {
    let place = Place::new().await;
    let source = place.tree();
    place.killed(place.options(files(&source)), 5).await;
    write_old(&source.join("a00"), &noise(77, 310_000));
    fs::write(source.join("a01"), noise(78, 300_000)).unwrap();
    fs::remove_file(source.join("a02")).unwrap();
    write_old(&source.join("a025"), b"new");
    let report = place.run(place.options(files(&source))).await;
    assert!(report.continued.files > 0);
    assert_eq!(place.compare(&report).await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_are_gone_or_damaged_cost_reading_and_nothing_else() {
    for damage in [true, false] {
        let place = Place::new().await;
        let source = place.tree();
        place.killed(place.options(files(&source)), 5).await;
        for (index, name) in place.names("packs/").await.into_iter().enumerate() {
            if index % 2 == 0 {
                place.store.tamper(&name, damage.then(|| Bytes::from_static(b"damaged")));
            }
        }
        let report = place.run(place.options(files(&source))).await;
        assert_eq!(report.problems, 0);
        assert_eq!(place.compare(&report).await, 61);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_no_reason_to_fail() {
    let place = Place::new().await;
    let source = place.tree();
    place.killed(place.options(files(&source)), 5).await;
    for name in place.names("index/c").await {
        place.store.tamper(&name, Some(Bytes::from_static(b"CRKR\x01\x0c\0\0damaged")));
    }
    let report = place.run(place.options(files(&source))).await;
    assert_eq!((report.problems, report.continued.files), (0, 0));
    assert_eq!(place.compare(&report).await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_lineage_is_not_used() {
    let place = Place::new().await;
    let source = place.tree();
    let other = BackupOptions { host: "other".to_owned(), ..place.options(files(&source)) };
    place.killed(other, 5).await;
    // Renamed as if it were ours: what it says of itself counts.
    let repository = place.repository().await;
    let path = std::path::absolute(&source).unwrap().into_os_string().into_encoded_bytes();
    let lineage = repository.lineage("host", &[path]);
    for name in place.names("index/c").await {
        let body = place.store.get(&name, ByteRange::All).await.unwrap();
        place.store.tamper(&format!("index/c{lineage}-{}", &name[24..]), Some(body));
    }
    assert!(!place.names(&format!("index/c{lineage}-")).await.is_empty());
    let report = place.run(place.options(files(&source))).await;
    assert_eq!(report.continued, Default::default());
    assert_eq!(place.compare(&report).await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn condemned_packs_are_not_named_again() {
    let place = Place::new().await;
    let source = place.tree();
    place.killed(place.options(files(&source)), 5).await;
    // A collector that has published its list may delete at any moment; so it does, behind the next run's back.
    let condemned = place.condemn_every_other_pack().await;
    let report = place.run(place.options(files(&source))).await;
    place.lose(condemned);
    assert_eq!(place.compare(&report).await, 61);
}

/// W2 holds for what the parent names too: a prune that began before may delete it behind the run's back.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_condemned_is_not_taken_over_from_the_parent() {
    let place = Place::new().await;
    let source = place.tree();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    place.run(place.options(files(&source))).await;
    let report = place.run(place.options(files(&source))).await;
    assert_eq!(report.snapshot.unwrap().statistics.bytes_read, 0, "nothing changed, nothing is read");
    let condemned = place.condemn_every_other_pack().await;
    let report = place.run(place.options(files(&source))).await;
    let statistics = report.snapshot.as_ref().unwrap().statistics;
    assert_eq!(statistics.files_unmodified, 61);
    assert!(statistics.bytes_read > 0);
    place.lose(condemned);
    assert_eq!(place.compare(&report).await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_to_stop_leaves_a_last_checkpoint() {
    let place = Place::new().await;
    let source = place.tree();
    let cancel = Cancel::default();
    let store =
        Stopping { inner: place.store.clone(), packs_left: AtomicU64::new(3), cancel: cancel.clone() };
    let repository = Place::open(Arc::new(store)).await;
    let options =
        BackupOptions { checkpoint_interval: Duration::from_secs(3600), ..place.options(files(&source)) };
    let monitor = Arc::new(CollectMonitor::default());
    let error = backup(&repository, options, monitor, cancel).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert_eq!(place.names("index/c").await.len(), 1);
    let report = place.run(place.options(files(&source))).await;
    assert!(report.continued.bytes > 3 << 20, "{:?}", report.continued);
    assert_eq!(place.compare(&report).await, 61);
}

/// A large file that changes a little each time is named by chunks of many backups.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_what_is_taken_over_are_carried_and_not_for_ever() {
    let place = Place::new().await;
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    let mut contents = noise(1, 16 << 20);
    for round in 0..3_usize {
        contents[round << 20..][..1000].copy_from_slice(&noise(round as u64, 1000));
        write_old(&source.join("large"), &contents);
        for _ in 0..2 {
            let report = place.run(place.options(files(&source))).await;
            assert_eq!(place.compare(&report).await, 1);
        }
    }
    // Whether one that carries many looks up what is needed, its random name says: one in 32 does, and of a thousand in a
    // row one is sure to.
    let (mut before, mut keys) = (0, 0);
    for round in 0..KEYS_CARRIED as u64 + 1000 {
        write_old(&source.join("small"), &noise(round, 10));
        let report = place.run(place.options(files(&source))).await;
        keys = report.snapshot.unwrap().sessions.len();
        if keys < before {
            break;
        }
        before = keys;
    }
    assert!(keys < KEYS_CARRIED && KEYS_CARRIED < before, "{keys} keys after {before}");
    let last = place.run(place.options(files(&source))).await;
    assert_eq!(place.compare(&last).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_record_lacks_are_learnt_from_packs() {
    let place = Place::new().await;
    let source = place.tree();
    let mut report = place.run(place.options(files(&source))).await;
    let mut contents = noise(1000, 24 << 20);
    contents[..1000].fill(7);
    write_old(&source.join("below/large"), &contents);
    let changed = place.run(place.options(files(&source))).await.snapshot.unwrap();
    let snapshot = report.snapshot.insert(changed);
    let root = snapshot.root.as_ref().unwrap().to_chunk().frame.place().unwrap().session;
    let before = snapshot.sessions.len();
    snapshot.sessions.retain(|info| info.session == root);
    assert!(snapshot.sessions.len() < before);
    assert_eq!(place.compare(&report).await, 61);
}
