//! A year of daily backups with retention, in simulated time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use carrack_mover::{
    backup::{BackupOptions, BackupSource, CompressionChoice, backup},
    cancel::Cancel,
    check::{CheckLevel, CheckOptions, check},
    clock::{Clock, World},
    format::{pack::parse_pack_object, session::SessionName},
    limits,
    monitor::CollectMonitor,
    reader::SnapshotReader,
    repack::repack,
    repo::{
        CreateOptions, GroupBy, KeepPolicy, PruneOptions, Repository, SnapshotFilter, Unlock, Unused,
        plan_forget,
    },
    secret::Key,
    source::walk::WalkOptions,
    store::{list_all, mem::MemStore},
};
use carrack_tests::simulation::{
    model::compare,
    rng::Rng,
    source::{Source, Tree},
    world::timestamp,
};
use jiff::{Timestamp, tz::TimeZone};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct Calendar(Mutex<Duration>);

impl Clock for Calendar {
    fn now(&self) -> Timestamp {
        timestamp(*self.0.lock().expect("nobody panicked with it"))
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().expect("nobody panicked with it")
    }
}

struct Life {
    calendar: Arc<Calendar>,
    store: Arc<MemStore>,
    repository: Repository,
    source: Source,
    rng: Rng,
    /// What each snapshot must hold.
    kept: Vec<(SessionName, Tree)>,
    _directory: tempfile::TempDir,
}

impl Life {
    async fn new(seed: u64) -> Self {
        let (calendar, store) = (Arc::new(Calendar::default()), Arc::new(MemStore::new()));
        let world = World { clock: calendar.clone(), ..World::system() };
        let unlock = Unlock::Secret(Key::new([7; 32]));
        let options = CreateOptions::default();
        let repository = Repository::create(store.clone(), world, &unlock, &options)
            .await
            .expect("it works in this world");
        let directory = tempfile::tempdir().expect("it works in this world");
        let source = Source::new(directory.path()).expect("it works in this world");
        Self {
            calendar,
            store,
            repository,
            source,
            rng: Rng::new(&[seed]),
            kept: Vec::new(),
            _directory: directory,
        }
    }

    fn pass(&self, time: Duration) {
        *self.calendar.0.lock().expect("it works in this world") += time;
    }

    /// The source changes, and is backed up.
    async fn day(&mut self) {
        let at = Duration::from_secs(self.calendar.now().as_second().unsigned_abs());
        self.source.change(&mut self.rng, at).expect("it works in this world");
        self.pass(Duration::from_secs(3600));
        let roots = vec![self.source.root.clone()];
        let walk = WalkOptions { roots, threads: 1, ..WalkOptions::default() };
        let options = BackupOptions {
            host: "host".to_owned(),
            compression: CompressionChoice::Off,
            memory_bytes: limits::MEMORY_MIN,
            ignore_ctime: true,
            threads: 1,
            ..BackupOptions::new(BackupSource::Files(walk))
        };
        let monitor = Arc::new(CollectMonitor::default());
        let report = backup(&self.repository, options, monitor, Cancel::default())
            .await
            .expect("it works in this world");
        assert_eq!(report.problems, 0);
        let session = report.snapshot.expect("it works in this world").session;
        self.kept.push((session, self.source.tree.clone()));
    }

    async fn forget(&mut self, policy: &KeepPolicy) {
        let list = self.repository.snapshots().await.expect("it works in this world");
        let (filter, by, zone) = (SnapshotFilter::default(), GroupBy::default(), TimeZone::UTC);
        let plan = plan_forget(&list.snapshots, &list.marks, &filter, policy, by, &zone);
        let gone: BTreeSet<SessionName> = plan.forget().into_iter().collect();
        let sessions: Vec<SessionName> = gone.iter().copied().collect();
        self.repository.forget(&sessions).await.expect("it works in this world");
        self.kept.retain(|(session, _)| !gone.contains(session));
    }

    async fn prune(&self) {
        let options = PruneOptions {
            wait: Duration::ZERO,
            max_unused: Some(Unused::Bytes(0)),
            ..PruneOptions::default()
        };
        let monitor = Arc::new(CollectMonitor::default());
        let cancel = Cancel::default();
        let mut plan =
            self.repository.plan_prune(&options, &*monitor, &cancel).await.expect("it works in this world");
        let memory = limits::MEMORY_MIN;
        repack(&self.repository, &mut plan, memory, monitor.clone(), &cancel)
            .await
            .expect("it works in this world");
        self.repository.apply_prune(&plan, &*monitor, &cancel).await.expect("it works in this world");
    }

    /// Every snapshot that must be there is there, alone, and whole.
    async fn look(&self) {
        let list = self.repository.snapshots().await.expect("it works in this world");
        assert!(list.unreadable.is_empty() && list.problems.is_empty(), "{list:?}");
        let found: BTreeSet<SessionName> = list.snapshots.iter().map(|snapshot| snapshot.session).collect();
        let wanted: BTreeSet<SessionName> = self.kept.iter().map(|(session, _)| *session).collect();
        assert_eq!(found, wanted);
        for snapshot in list.snapshots {
            let (_, tree) = self
                .kept
                .iter()
                .find(|(session, _)| *session == snapshot.session)
                .expect("it works in this world");
            let reader = SnapshotReader::of(&self.repository, snapshot.session).await;
            let reader = reader.expect("it works in this world");
            compare(&reader, &self.source.root, tree).await.expect("it works in this world");
        }
    }

    async fn check(&self) {
        let options = CheckOptions {
            level: CheckLevel::Data,
            memory_bytes: limits::MEMORY_MIN,
            threads: 1,
            only: None,
            mark: false,
        };
        let monitor = Arc::new(CollectMonitor::default());
        let report = check(&self.repository, &options, monitor, Cancel::default())
            .await
            .expect("it works in this world");
        assert_eq!((report.damages, report.damaged.len()), (0, 0), "{report:?}");
    }

    async fn count(&self, prefix: &str) -> usize {
        list_all(self.store.as_ref(), prefix).await.expect("it works in this world").len()
    }

    /// Bytes in packs.
    async fn packed(&self) -> u64 {
        let packs = list_all(self.store.as_ref(), "packs/").await.expect("it works in this world");
        assert!(packs.iter().all(|pack| parse_pack_object(&pack.name).is_some()));
        packs.iter().map(|pack| pack.size).sum()
    }
}

#[tokio::test]
async fn a_year_of_daily_backups_with_retention() {
    let mut life = Life::new(1).await;
    let policy = KeepPolicy { daily: 7, weekly: 5, monthly: 12, ..KeepPolicy::default() };
    let (mut objects, mut packed) = (Vec::new(), Vec::new());
    for day in 1..=365 {
        life.day().await;
        life.forget(&policy).await;
        if day % 7 == 0 {
            life.prune().await;
        }
        if day % 91 == 0 {
            // Sessions that one prune frees, the next one cleans up.
            life.prune().await;
            life.look().await;
            objects.push(life.count("").await);
            packed.push(life.packed().await);
        }
        life.pass(DAY - Duration::from_secs(3600));
    }
    life.prune().await;
    life.prune().await;
    life.look().await;
    life.check().await;
    // Twelve months and seven days; of the five weeks, some are among them.
    assert!((18..=24).contains(&life.kept.len()), "{} snapshots are kept", life.kept.len());
    let needed = 24;
    assert!(life.count("snapshots/").await <= 2 * needed + 40, "{}", life.count("snapshots/").await);
    assert_eq!(life.count("gc/").await + life.count("forgotten/").await, 0);
    println!(
        "a year: {} snapshots, objects by quarter {objects:?}, bytes in packs {packed:?}",
        life.kept.len()
    );
}
