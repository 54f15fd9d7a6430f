//! A check that looks at packs while a prune moves what is in them finds nothing wrong, and still finds what is lost: at
//! every call of the check the store becomes what it is after the prune, or after two.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    cancel::Cancel,
    check::{CheckLevel, CheckOptions, CheckReport, check},
    clock::World,
    error::{Error, ErrorKind, Result},
    format::session::SessionName,
    limits,
    monitor::CollectMonitor,
    repack::repack,
    repo::{CreateOptions, PruneOptions, Repository, Unused},
    store::{ByteRange, Decorator, ObjectStore, Page, list_all, mem::MemStore},
};
use carrack_tests::{
    engine::{back_up, unlock},
    trees::noise,
};

const LEVELS: [CheckLevel; 4] =
    [CheckLevel::Structure, CheckLevel::Sizes, CheckLevel::Sample(100.0), CheckLevel::Data];
/// Calls from one prune to the next.
const PAUSES: [u64; 4] = [1, 3, 8, 20];

/// A store that others change before some of its calls.
#[derive(Debug)]
struct ChangingStore {
    /// From which call on it is which.
    states: Vec<(u64, Arc<MemStore>)>,
    /// Calls are counted from here on.
    has_begun: AtomicBool,
    calls: AtomicU64,
    /// At which call a part of a pack cannot be read.
    fails: Option<u64>,
    /// Which part that was, and how often it was asked for since.
    failing: Mutex<Option<(String, ByteRange, u32)>>,
}

/// How often it cannot be read: a reader asks once more at once.
const FAILURES: u32 = 2;

impl ChangingStore {
    fn now(&self) -> (u64, &MemStore) {
        let counts = self.has_begun.load(Ordering::Relaxed);
        let call = if counts { self.calls.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let state = self.states.iter().rfind(|(from, _)| counts && *from <= call);
        (call, &state.unwrap_or(&self.states[0]).1)
    }

    /// Whether this is the part of a pack that cannot be read for a while.
    fn fails(&self, call: u64, name: &str, range: ByteRange) -> bool {
        let is_part = name.starts_with("packs/") && matches!(range, ByteRange::Slice { .. });
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if is_part && self.fails == Some(call) && self.has_begun.load(Ordering::Relaxed) {
            *failing = Some((name.to_owned(), range, 0));
        }
        match &mut *failing {
            Some((part, of, times)) if (part.as_str(), *of) == (name, range) && *times < FAILURES => {
                *times += 1;
                true
            }
            _ => false,
        }
    }
}

#[async_trait]
impl Decorator for ChangingStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.states[0].1
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let (call, store) = self.now();
        if self.fails(call, name, range) {
            return Err(Error::corrupt("the disk could not read it this time"));
        }
        store.get(name, range).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.now().1.list(prefix, token).await
    }
}

/// Moves everything out of packs that are not needed whole, and deletes these.
async fn prune(repository: &Repository) {
    let options = PruneOptions {
        fence_after: Duration::ZERO,
        wait: Duration::ZERO,
        max_unused: Some(Unused::Bytes(0)),
        ..PruneOptions::default()
    };
    let (monitor, cancel) = (Arc::new(CollectMonitor::default()), Cancel::default());
    let mut plan = repository.plan_prune(&options, &*monitor, &cancel).await.expect("plans");
    repack(repository, &mut plan, limits::MEMORY_MIN, monitor.clone(), &cancel).await.expect("repacks");
    repository.apply_prune(&plan, &*monitor, &cancel).await.expect("prunes");
}

async fn packs(store: &MemStore) -> Vec<String> {
    list_all(store, "packs/").await.expect("a listing").into_iter().map(|object| object.name).collect()
}

/// One repository before a prune, after it, and after a forget and another prune.
struct Scene {
    before: Arc<MemStore>,
    moved: Arc<MemStore>,
    moved_again: Arc<MemStore>,
    /// The snapshot that is there all the time.
    kept: SessionName,
}

impl Scene {
    async fn new() -> Self {
        let store = Arc::new(MemStore::new());
        let options = CreateOptions::default();
        let made = Repository::create(store.clone(), World::system(), &unlock(), &options).await;
        let repository = made.expect("a repository");
        let source = tempfile::tempdir().expect("a directory");
        let mut sessions = Vec::new();
        for files in [9, 6, 3] {
            for number in 0..9 {
                let file = source.path().join(format!("file {number}"));
                match number < files {
                    true => fs::write(file, noise(number, 1 << 20)).expect("writes"),
                    false => fs::remove_file(file).unwrap_or_default(),
                }
            }
            sessions.push(back_up(&repository, source.path()).await.expect("a backup"));
        }
        repository.forget(&sessions[..1]).await.expect("forgets");
        let before = Arc::new(store.fork());
        prune(&repository).await;
        let moved = Arc::new(store.fork());
        repository.forget(&sessions[1..2]).await.expect("forgets");
        prune(&repository).await;
        let scene = Self { before, moved, moved_again: store, kept: sessions[2] };
        let [first, second, third] =
            [packs(&scene.before).await, packs(&scene.moved).await, packs(&scene.moved_again).await];
        assert!(first.iter().any(|pack| !second.contains(pack)), "something moves");
        assert!(second.iter().any(|pack| !first.contains(pack) && !third.contains(pack)), "and once more");
        scene
    }

    fn store(&self, later: &[(u64, Arc<MemStore>)], fails: Option<u64>) -> Arc<ChangingStore> {
        let mut states = vec![(0, Arc::clone(&self.before))];
        states.extend_from_slice(later);
        Arc::new(ChangingStore {
            states,
            has_begun: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            fails,
            failing: Mutex::default(),
        })
    }

    /// How many packs there ever are.
    async fn packs(&self) -> u64 {
        let mut all = packs(&self.before).await;
        all.extend(packs(&self.moved).await);
        all.extend(packs(&self.moved_again).await);
        all.sort_unstable();
        all.dedup();
        all.len() as u64
    }

    /// Checks while the store changes; gives the report, and how many calls there were.
    async fn look(
        &self,
        later: &[(u64, Arc<MemStore>)],
        level: CheckLevel,
        all: bool,
    ) -> (Result<CheckReport>, u64) {
        let store = self.store(later, None);
        let report = self.check(&store, level, all).await;
        (report, store.calls.load(Ordering::Relaxed))
    }

    async fn check(&self, store: &Arc<ChangingStore>, level: CheckLevel, all: bool) -> Result<CheckReport> {
        let repository = Repository::open(store.clone(), World::system(), &unlock()).await?;
        store.has_begun.store(true, Ordering::Relaxed);
        let only = (!all).then(|| vec![self.kept]);
        let options = CheckOptions { level, memory_bytes: limits::MEMORY_MIN, threads: 1, only, mark: false };
        check(&repository, &options, Arc::new(CollectMonitor::default()), Cancel::default()).await
    }
}

#[tokio::test]
async fn a_prune_at_any_moment_of_a_check_is_no_damage() {
    let scene = Scene::new().await;
    // None is looked at twice.
    let packs = scene.packs().await;
    for (level, all) in LEVELS.into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let (mut at, mut calls) = (0, 1);
        while at < calls {
            let (report, made) = scene.look(&[(at, scene.moved.clone())], level, all).await;
            let report = report.expect("a report");
            assert!(report.packs_sized <= packs, "{level:?} at call {at}: {report:?}");
            assert!(report.is_clean(), "{level:?}, all {all}, at call {at}: {report:?} {:?}", report.damage);
            assert_eq!(report.whole.len(), if all { 2 } else { 1 }, "{level:?} at call {at}: {report:?}");
            (at, calls) = (at + 1, made);
        }
        assert!(at > 8, "{level:?} has more than {at} calls");
    }
}

#[tokio::test]
async fn two_prunes_at_any_moments_of_a_check_are_no_damage() {
    let scene = Scene::new().await;
    for (level, pause) in LEVELS.into_iter().flat_map(|level| PAUSES.map(|pause| (level, pause))) {
        let (mut at, mut calls) = (0, 1);
        while at < calls {
            let later = [(at, scene.moved.clone()), (at + pause, scene.moved_again.clone())];
            let (report, made) = scene.look(&later, level, false).await;
            let report = report.expect("a report");
            assert!(report.is_clean(), "{level:?} at {at} and {pause} later: {report:?} {:?}", report.damage);
            (at, calls) = (at + 1, made);
        }
    }
}

/// What goes while it is looked at, and was not moved, is named; what went after it was read is not known.
#[tokio::test]
async fn what_is_lost_at_any_moment_of_a_check_is_damage() {
    let scene = Scene::new().await;
    for victim in packs(&scene.moved).await {
        let lost = Arc::new(scene.moved.fork());
        lost.tamper(&victim, None);
        let mut seen = Vec::new();
        let (mut at, mut calls) = (0, 1);
        while at < calls {
            let (report, made) = scene.look(&[(at, lost.clone())], CheckLevel::Data, true).await;
            let report = report.expect("a report");
            let named = report.damage.iter().filter(|damage| damage.object == victim).count();
            assert_eq!(report.damages, named as u64, "{victim} at call {at}: {:?}", report.damage);
            seen.push(named > 0);
            (at, calls) = (at + 1, made);
        }
        // Once it is read, it does not matter; before that, it does.
        let known = seen.iter().take_while(|named| **named).count();
        assert!(known > 8 && seen[known..].iter().all(|named| !named), "{victim}: {seen:?}");
    }
}

/// A snapshot that is forgotten meanwhile, and freed, is whole, or the check says that it was forgotten.
#[tokio::test]
async fn what_is_forgotten_at_any_moment_of_a_check_is_said_to_be() {
    let scene = Scene::new().await;
    for level in LEVELS {
        let (mut at, mut calls, mut said) = (0, 1, 0);
        while at < calls {
            let (report, made) = scene.look(&[(at, scene.moved_again.clone())], level, true).await;
            match report {
                Ok(report) => assert!(report.is_clean(), "{level:?} at {at}: {:?}", report.damage),
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Conflict,
                        "{level:?} at {at}: {}",
                        error.in_one_line()
                    );
                    said += 1;
                }
            }
            (at, calls) = (at + 1, made);
        }
        assert!(said > 0, "{level:?}");
    }
}

/// What could not be read is named; and what is below such a page was not looked at, whatever a later try says.
#[tokio::test]
async fn what_fails_for_a_while_is_named_and_what_depends_on_it_is_not_whole() {
    let scene = Scene::new().await;
    for level in [CheckLevel::Structure, CheckLevel::Sample(100.0), CheckLevel::Data] {
        let (mut at, mut calls, mut failed, mut not_whole) = (0, 1, 0, 0);
        while at < calls {
            let store = scene.store(&[], Some(at));
            let report = scene.check(&store, level, false).await.expect("a report");
            if store.failing.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                failed += 1;
                assert!(report.damages > 0, "{level:?} at call {at}: {report:?}");
                assert!(report.pages > 0 || report.whole.is_empty(), "{level:?} at call {at}: {report:?}");
                not_whole += u32::from(report.whole.is_empty());
            }
            (at, calls) = (at + 1, store.calls.load(Ordering::Relaxed));
        }
        assert!(failed > 0 && not_whole > 0, "{level:?}: {failed}, {not_whole}");
    }
}
