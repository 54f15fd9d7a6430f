//! Who is at work: each a client with a life of its own, of one run of the engine after the other.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use carrack_mover::{
    backup::{BackupOptions, BackupSource, CompressionChoice, backup},
    cancel::Cancel,
    check::{CheckLevel, CheckOptions, check},
    chunker::CutSizes,
    clock::World,
    error::{Error, ErrorKind, Result},
    format::records::Snapshot,
    keys::WriterBundle,
    limits,
    monitor::{CollectMonitor, Monitor as _, Progress},
    reader::SnapshotReader,
    repack::repack,
    repo::{
        CreateOptions, GroupBy, KeepPolicy, PruneOptions, Repository, SnapshotFilter, Unlock, Unused,
        plan_forget,
    },
    secret::Key,
    source::walk::WalkOptions,
    store::{ObjectStore, StoreOptions, decorate},
};
use jiff::tz::TimeZone;

use super::{
    faults::Faults,
    model::{Model, compare},
    net::{Death, Net, Who},
    restored::{excuse, look_at_restored, restore_whole},
    rng::Rng,
    source::Source,
    world::{BEGINNING, SimStore, world},
};

/// Memory of each run.
pub(super) const MEMORY_BYTES: u64 = limits::MEMORY_MIN;
const HOUR: u64 = 3600;

/// What the people who own the repository know.
#[derive(Debug, Default)]
pub struct People {
    secrets: Mutex<Vec<Key>>,
    /// Somebody has begun to change the secret: the old one may open nothing any more.
    is_rotating: AtomicBool,
}

impl People {
    /// A secret that opens the repository, and is handed out from now on.
    pub fn learn(&self, secret: Key) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret);
    }

    /// The secret of this generation, or the newest.
    fn secret(&self, number: usize) -> (usize, Key) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let number = number.min(secrets.len() - 1);
        (number, secrets[number].clone())
    }

    fn newest(&self) -> usize {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).len() - 1
    }
}

/// One client.
#[derive(Debug)]
pub struct Actor {
    net: Arc<Net>,
    pub(super) model: Arc<Model>,
    people: Arc<People>,
    client: usize,
    world: World,
    rng: Rng,
    secret: usize,
    bundle: Option<WriterBundle>,
    faults: Faults,
    /// Where its files are.
    place: PathBuf,
    operations: u64,
    successes: u64,
}

/// How a run ended, if its process lived on.
type Ended<T> = Option<Result<T>>;

impl Actor {
    /// A client of a simulation.
    pub fn new(
        (net, model, people): (&Arc<Net>, &Arc<Model>, &Arc<People>),
        seed: u64,
        client: usize,
        place: PathBuf,
        faults: Faults,
    ) -> Self {
        Self {
            net: Arc::clone(net),
            model: Arc::clone(model),
            people: Arc::clone(people),
            client,
            world: world(net, seed, client),
            rng: Rng::new(&[seed, 6, client as u64]),
            secret: 0,
            bundle: None,
            faults,
            place,
            operations: 0,
            successes: 0,
        }
    }

    fn store(&self, who: Who) -> Arc<dyn ObjectStore> {
        let store = SimStore { net: Arc::clone(&self.net), model: Arc::clone(&self.model), who };
        let max_retries = [0, 2, 8][who.client % 3];
        decorate(Arc::new(store), &StoreOptions { max_retries, ..StoreOptions::default() }, &self.world)
    }

    /// One process: opens the repository and does one thing. None if it died of it.
    async fn run<T>(&mut self, what: &str, work: impl AsyncFnOnce(&Repository) -> Result<T>) -> Ended<T> {
        let death = self.rng.happens(self.faults.crash).then(|| self.death());
        let (net, client) = (Arc::clone(&self.net), self.client);
        let who = net.begin(client, death);
        net.note(format!("{client:>4} begins: {what}"));
        self.operations += 1;
        let store = self.store(who);
        let unlock = match self.bundle.clone() {
            Some(bundle) => Unlock::Bundle(Box::new(bundle)),
            None => Unlock::Secret(self.people.secret(self.secret).1),
        };
        let done = async {
            let repository = Repository::open(store, self.world.clone(), &unlock).await?;
            work(&repository).await
        };
        let done = done.await;
        if net.end(who) || net.is_stopping() {
            return None;
        }
        match &done {
            Ok(_) => {
                self.successes += 1;
                net.note(format!("{client:>4} ends: {what}"));
            }
            Err(error) => {
                net.note(format!("{client:>4} ends: {what}: {:?} {}", error.kind(), error.in_one_line()));
                self.judge(what, error);
                // Somebody tells them the new secret.
                if error.kind() == ErrorKind::Denied {
                    self.secret = self.people.newest();
                    self.bundle = None;
                }
            }
        }
        Some(done)
    }

    /// Of the few calls that change the store, the first ones oftener: some runs have no others.
    fn death(&mut self) -> Death {
        let writing = self.faults.crash_writing > 0 && self.rng.happens(self.faults.crash_writing);
        let most = if writing { 1 << self.rng.below(6) } else { 60 };
        Death { after: self.rng.below(most), writing }
    }

    /// A store that keeps its promises damages nothing, and nobody contradicts himself.
    fn judge(&self, what: &str, error: &Error) {
        let may_be = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Cancelled => true,
            ErrorKind::NotFound => what != "backup",
            ErrorKind::Denied => self.people.is_rotating.load(Ordering::Relaxed),
            _ => false,
        };
        if !may_be {
            self.model.blame(format!("{} fails: {}", what, error.in_one_line()));
        }
    }

    /// Runs of the engine so far, and those that succeeded.
    pub fn counted(&self) -> (u64, u64) {
        (self.operations, self.successes)
    }

    /// Somebody tells it the newest secret.
    pub fn become_newest(&mut self) {
        self.secret = self.people.newest();
    }

    /// Dies no more.
    pub fn heal(&mut self) {
        self.faults = Faults::default();
    }

    async fn rest(&mut self, hours: u64) {
        let seconds = self.rng.between(1, hours * HOUR);
        self.net.sleep(self.client, Duration::from_secs(seconds)).await;
    }

    /// Makes the repository.
    pub async fn create(&mut self, secret: Key) -> Result<()> {
        let who = self.net.begin(self.client, None);
        let options = CreateOptions {
            cut: CutSizes { minimum: 4 << 10, average: 16 << 10, maximum: 64 << 10 },
            ..CreateOptions::default()
        };
        let made =
            Repository::create(self.store(who), self.world.clone(), &Unlock::Secret(secret), &options).await;
        self.net.end(who);
        made.map(drop)
    }

    /// Becomes a mover: it gets keys to write its own source, and no more.
    pub async fn become_mover(&mut self, admin: &mut Self) {
        let paths = [self.place.to_string_lossy().into_owned().into_bytes()];
        let host = self.host();
        let bundle = admin
            .run("handing out keys", async |repository| {
                let lineage = repository.lineage(&host, &paths);
                repository.keys().writer_bundle(repository.format().repository, lineage)
            })
            .await;
        if let Some(Ok(bundle)) = bundle {
            self.bundle = Some(bundle);
        }
    }

    fn host(&self) -> String {
        format!("host-{}", self.client)
    }

    /// Backs its source up, again and again, while it changes; if there is news, with something that nobody has stored yet.
    pub async fn write(&mut self, rounds: u64, news: bool) -> Result<()> {
        let place = self.place.clone();
        let failed = |error| Error::io(error, "the source cannot be changed");
        let mut source = Source::new(&place).map_err(failed)?;
        for round in 0..rounds {
            self.rest(8).await;
            if self.net.is_stopping() {
                break;
            }
            let at = Duration::from_secs(BEGINNING.unsigned_abs()) + self.net.now();
            source.change(&mut self.rng, at).map_err(failed)?;
            if news {
                source.add_news(self.client as u64 * rounds + round, at).map_err(failed)?;
            }
            self.model.source(self.client, &source.root, &source.tree);
            self.back_up(&source).await;
        }
        Ok(())
    }

    async fn back_up(&mut self, source: &Source) {
        let walk = WalkOptions { roots: vec![source.root.clone()], threads: 1, ..WalkOptions::default() };
        // Not at every turn: how far a worker is at that moment is no matter of the seed.
        let checkpoint_interval = Duration::from_secs([10, 3600][self.rng.index(2)]);
        let options = BackupOptions {
            host: self.host(),
            compression: CompressionChoice::Off,
            memory_bytes: MEMORY_BYTES,
            ignore_ctime: true,
            ignore_inode: true,
            threads: 1,
            skip_if_unchanged: self.rng.happens(3000),
            force: self.rng.happens(1000),
            checkpoint_interval,
            ..BackupOptions::new(BackupSource::Files(walk))
        };
        let before = self.model.sessions();
        let done = self
            .run("backup", async |repository| {
                backup(repository, options, Arc::new(CollectMonitor::default()), Cancel::default()).await
            })
            .await;
        match done {
            // It may have named a problem: a parent that could not be read. The contents are compared whatever it says.
            Some(Ok(report)) => {
                if let Some(snapshot) = report.snapshot {
                    let session = snapshot.session.to_string();
                    self.model.reported(&session);
                    let store = self.net.objects();
                    self.model.after_report(&store, &session).await;
                }
            }
            Some(Err(error)) if error.kind() == ErrorKind::Conflict => {
                self.model.failed(self.client, &before)
            }
            _ => {}
        }
    }

    /// Prunes, again and again.
    pub async fn collect(&mut self, rounds: u64, hours: u64) {
        for _ in 0..rounds {
            self.rest(hours).await;
            if self.net.is_stopping() {
                return;
            }
            let max_unused = match self.rng.below(4) {
                0 => None,
                1 => Some(Unused::Percent(5.0)),
                _ => Some(Unused::Bytes(0)),
            };
            let options = PruneOptions {
                fence_after: Duration::from_secs(self.rng.between(1, 30) * HOUR),
                wait: Duration::from_secs([0, 60, 600][self.rng.index(3)]),
                max_unused,
                max_repack_bytes: None,
            };
            self.prune(&options).await;
        }
    }

    /// One prune as the program does it.
    pub async fn prune(&mut self, options: &PruneOptions) -> bool {
        let done = self
            .run("prune", async |repository| {
                let monitor = Arc::new(CollectMonitor::default());
                let cancel = Cancel::default();
                let mut plan = repository.plan_prune(options, &*monitor, &cancel).await?;
                repack(repository, &mut plan, MEMORY_BYTES, Arc::clone(&monitor) as _, &cancel).await?;
                let report = repository.apply_prune(&plan, &*monitor, &cancel).await?;
                match report.problems.first().or(plan.problems.first()) {
                    // It may be signed with a key that this process does not hold yet.
                    Some(problem) => {
                        Err(Error::denied(format!("prune says of {}: {}", problem.path, problem.message)))
                    }
                    None => Ok(()),
                }
            })
            .await;
        matches!(done, Some(Ok(())))
    }

    /// Forgets all but some of the newest of each source, again and again.
    pub async fn forget(&mut self, rounds: u64, hours: u64) {
        for _ in 0..rounds {
            self.rest(hours).await;
            if self.net.is_stopping() {
                return;
            }
            let policy = KeepPolicy {
                last: u32::try_from(self.rng.between(1, 3)).unwrap_or(1),
                ..KeepPolicy::default()
            };
            let model = Arc::clone(&self.model);
            let done = self.run("forget", async |repository| {
                let list = repository.snapshots().await?;
                let filter = SnapshotFilter::default();
                let plan = plan_forget(
                    &list.snapshots,
                    &list.marks,
                    &filter,
                    &policy,
                    GroupBy::default(),
                    &TimeZone::UTC,
                );
                let sessions = plan.forget();
                let names: Vec<String> = sessions.iter().map(ToString::to_string).collect();
                model.forgetting(&names);
                repository.forget(&sessions).await?;
                Ok(names)
            });
            if let Some(Ok(names)) = done.await {
                self.model.forgotten(&names);
            }
        }
    }

    /// Restores what is there, or checks all of it, again and again.
    pub async fn look(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.rest(16).await;
            if self.net.is_stopping() {
                return;
            }
            match self.rng.below(4) {
                0 => self.check().await,
                1 => self.restore(round).await,
                _ => self.read().await,
            }
        }
    }

    /// A snapshot that can be seen, drawn by the dice.
    async fn choose(repository: &Repository, number: u64) -> Result<Option<Snapshot>> {
        let mut list = repository.snapshots().await?;
        if let Some((session, error)) = list.unreadable.pop() {
            if error.kind() == ErrorKind::Denied {
                return Err(error);
            }
            return Err(Error::corrupt(format!("{session} cannot be read: {}", error.in_one_line())));
        }
        if let Some(problem) = list.problems.first() {
            return Err(Error::denied(format!("{} is not believed: {}", problem.what, problem.message)));
        }
        let count = list.snapshots.len();
        Ok((count > 0).then(|| list.snapshots.swap_remove(usize::try_from(number).unwrap_or(0) % count)))
    }

    async fn read(&mut self) {
        let (model, number) = (Arc::clone(&self.model), self.rng.below(1000));
        self.run("read", async |repository| {
            let Some(snapshot) = Self::choose(repository, number).await? else { return Ok(()) };
            let session = snapshot.session.to_string();
            let Some((root, tree)) = model.expected(&session) else {
                return Err(Error::new(ErrorKind::Internal, format!("nobody wrote {session}")));
            };
            let looked = match SnapshotReader::of(repository, snapshot.session).await {
                Ok(reader) => compare(&reader, &root, &tree).await,
                Err(error) => Err(error),
            };
            excuse(&model, &session, looked)
        })
        .await;
    }

    async fn restore(&mut self, round: u64) {
        let (model, number) = (Arc::clone(&self.model), self.rng.below(1000));
        let target = self.place.join(format!("restored-{round}"));
        self.run("restore", async |repository| {
            let Some(snapshot) = Self::choose(repository, number).await? else { return Ok(()) };
            let session = snapshot.session.to_string();
            let Some((root, tree)) = model.expected(&session) else {
                return Err(Error::new(ErrorKind::Internal, format!("nobody wrote {session}")));
            };
            let restored = match SnapshotReader::of(repository, snapshot.session).await {
                Ok(reader) => restore_whole(&reader, &target).await,
                Err(error) => Err(error),
            };
            excuse(&model, &session, restored)?;
            look_at_restored(&target, &root, &tree)
        })
        .await;
        // What was restored is of no more use.
        drop(std::fs::remove_dir_all(&target));
    }

    async fn check(&mut self) {
        let level = if self.rng.happens(5000) { CheckLevel::Data } else { CheckLevel::Sizes };
        let mark = self.rng.happens(5000);
        let options = CheckOptions { level, memory_bytes: MEMORY_BYTES, threads: 1, only: None, mark };
        self.check_with(&options).await;
    }

    /// One check, which must find nothing.
    pub async fn check_with(&mut self, options: &CheckOptions) -> bool {
        let done = self
            .run("check", async |repository| {
                let monitor = Arc::new(CollectMonitor::default());
                let report = check(repository, options, Arc::clone(&monitor) as _, Cancel::default()).await?;
                // Hints are torn here, as packs are; a check says so, and they cost nobody anything.
                match report.damage.iter().find(|damage| !damage.object.starts_with("index/")) {
                    Some(damage) => {
                        Err(Error::corrupt(format!("check says of {}: {}", damage.object, damage.problem)))
                    }
                    None => Ok(Progress::get(&monitor.progress().problems)),
                }
            })
            .await;
        matches!(done, Some(Ok(_)))
    }

    /// Changes the repository's secret, once; as often as it takes.
    pub async fn rotate(&mut self) {
        self.rest(60).await;
        let secret = Key::new(self.world.random());
        // From now on it may open the repository, whatever its owner hears.
        self.model.learn_secret(secret.clone());
        self.people.is_rotating.store(true, Ordering::Relaxed);
        while !self.net.is_stopping() {
            let current = Unlock::Secret(self.people.secret(self.secret).1);
            let new = Unlock::Secret(secret.clone());
            let done = self
                .run("rotate", async |repository| {
                    let plan = repository.plan_rotate().await?;
                    repository.apply_rotate(&plan, &current, &new, &CreateOptions::default()).await
                })
                .await;
            let old_is_gone = matches!(&done, Some(Err(error)) if error.kind() == ErrorKind::Denied);
            if matches!(done, Some(Ok(_))) || old_is_gone {
                self.people.learn(secret);
                self.secret = self.people.newest();
                return;
            }
            self.rest(4).await;
        }
    }
}
