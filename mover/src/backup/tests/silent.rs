//! A source of which a part does not answer.

use std::{
    os::unix::ffi::OsStrExt as _,
    sync::{
        Mutex, Weak,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Instant,
};

use super::*;
use crate::{
    backup::CHANGED_WHILE_READ,
    monitor::{Monitor, Problem, Progress},
    source::silent::SilentPaths,
};

/// What grows while it is read is told of in the middle of the read, and the first time that takes as long as somebody likes.
#[derive(Debug)]
struct Stuck {
    progress: Progress,
    grows: PathBuf,
    release: Mutex<Option<Receiver<()>>>,
    told: Mutex<Vec<Problem>>,
}

impl Stuck {
    fn new(grows: &Path) -> (Arc<Self>, SyncSender<()>) {
        let (sender, receiver) = sync_channel(1);
        let (progress, grows) = (Progress::default(), grows.to_owned());
        let release = Mutex::new(Some(receiver));
        (Arc::new(Self { progress, grows, release, told: Mutex::default() }), sender)
    }

    /// Whether somebody waits in the middle of a read.
    fn is_stuck(&self) -> bool {
        self.release.lock().unwrap().is_none()
    }

    /// The last parts of paths, and what was said.
    fn told(&self) -> Vec<(String, String)> {
        let told = self.told.lock().unwrap();
        let name = |problem: &Problem| problem.what.rsplit('/').next().unwrap().to_owned();
        told.iter().map(|problem| (name(problem), problem.message.clone())).collect()
    }
}

impl Monitor for Stuck {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn phase(&self, _name: &str) {}

    fn problem(&self, problem: Problem) {
        // Told by the thread that hands out what the walk has seen: what comes before it waits for its neighbours.
        if problem.what.ends_with("/z") {
            fs::write(&self.grows, noise(7, 2 << 20)).unwrap();
        }
        let is_stuck = problem.message == CHANGED_WHILE_READ;
        self.told.lock().unwrap().push(problem);
        let release = if is_stuck { self.release.lock().unwrap().take() } else { None };
        if let Some(release) = release {
            release.recv().unwrap();
        }
    }
}

/// A store that takes no pack, and says so when a reader is stuck.
#[derive(Debug)]
struct Failing {
    inner: Arc<MemStore>,
    monitor: Weak<Stuck>,
}

#[async_trait]
impl Decorator for Failing {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        if !name.starts_with("packs/") {
            return self.inner.put_if_absent(name, body).await;
        }
        while self.monitor.upgrade().is_some_and(|monitor| !monitor.is_stuck()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Error::new(ErrorKind::NoSpace, "the store died"))
    }
}

/// A directory with a large file, one that grows while it is read, and one that comes behind it.
fn scene(place: &Place, large: usize) -> PathBuf {
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    write_old(&source.join("0-large"), &noise(1, large));
    write_old(&source.join("a"), b"small");
    write_old(&source.join("z"), b"not touched");
    source
}

/// A backup of these roots that waits three seconds, and knows from the start that one path does not answer.
fn options(place: &Place, roots: Vec<PathBuf>, silent: &Path) -> BackupOptions {
    let mut paths = SilentPaths::default();
    paths.insert(silent.as_os_str().as_bytes().strip_prefix(b"/").unwrap().to_vec(), 1);
    let walk_options = WalkOptions { roots, silent: Arc::new(paths), ..WalkOptions::default() };
    let options = place.options(BackupSource::Files(walk_options));
    BackupOptions { source_timeout: Duration::from_secs(3), ..options }
}

/// What was left behind comes back, and ends without having done anything.
async fn comes_back(place: &Place, monitor: &Arc<Stuck>, release: &SyncSender<()>) {
    let (packs, told) = (place.names("packs/").await, monitor.told());
    release.send(()).unwrap();
    let start = Instant::now();
    while Arc::strong_count(monitor) > 1 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "a thread of an attempt that was given up goes on"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((place.names("packs/").await, monitor.told()), (packs, told));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_left_out_and_the_rest_goes_on_where_it_was() {
    let place = Place::new().await;
    let source = scene(&place, 5 << 20);
    let (monitor, release) = Stuck::new(&source.join("a"));
    let options = options(&place, vec![source.clone()], &source.join("z"));
    let repository = place.repository().await;
    let report = backup(&repository, options, monitor.clone(), Cancel::default()).await.unwrap();
    assert_eq!((report.problems, report.continued.files, report.continued.bytes), (2, 1, 5 << 20));
    let snapshot = report.snapshot.clone().unwrap();
    assert_eq!((snapshot.statistics.problems, snapshot.statistics.bytes_read), (2, 0));
    let named: Vec<_> = snapshot.problems.iter().map(|problem| &problem.path[..]).collect();
    assert_eq!(named, ["a", "z"].map(|name| format!("{}/{name}", source.display())));
    assert!(snapshot.problems.iter().all(|problem| problem.message.contains("did not answer within")));
    assert_eq!(place.compare(&report).await, 1);
    // Each is told once, though there were two attempts.
    let told = monitor.told();
    assert_eq!(told.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(), ["z", "a", "a"]);
    assert!(told[1].1 == CHANGED_WHILE_READ && told[2].1.contains("did not answer within"));
    comes_back(&place, &monitor, &release).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_ends_the_backup_if_it_does_not_answer() {
    let place = Place::new().await;
    let (file, beside) = (place.path("a"), place.path("beside"));
    fs::create_dir(&beside).unwrap();
    write_old(&file, b"small");
    write_old(&beside.join("z"), b"not touched");
    let (monitor, release) = Stuck::new(&file);
    let options = options(&place, vec![file.clone(), beside.clone()], &beside.join("z"));
    let repository = place.repository().await;
    let error = backup(&repository, options, monitor.clone(), Cancel::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with(&format!("{} has not been read for", file.display())), "{error}");
    comes_back(&place, &monitor, &release).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_although_a_reader_is_stuck() {
    let place = Place::new().await;
    let source = scene(&place, 2 << 20);
    let (monitor, release) = Stuck::new(&source.join("a"));
    let options = BackupOptions {
        source_timeout: Duration::from_secs(3600),
        ..options(&place, vec![source.clone()], &source.join("z"))
    };
    let store = Failing { inner: place.store.clone(), monitor: Arc::downgrade(&monitor) };
    let repository = Place::open(Arc::new(store)).await;
    let backup = backup(&repository, options, monitor.clone(), Cancel::default());
    let error = tokio::time::timeout(Duration::from_secs(300), backup).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(monitor.is_stuck());
    comes_back(&place, &monitor, &release).await;
}
