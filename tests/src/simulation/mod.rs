//! The real engine in a simulated world, from a seed: one store, many clients, and everything that can go wrong
//! between them. Every request passes a gate, and the seed decides who goes next, what fails, who sleeps and who dies.
//!
//! What is simulated: the store, time, randomness. What is real: the engine with its threads, and the files that it
//! backs up and restores. The gate opens only while every thread of the process waits, so a seed gives the same run
//! again, call by call; what can differ is in which order two threads of one backup draw names for packs, and how many bytes
//! an inode's number and times take in a page.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use carrack_mover::{
    check::{CheckLevel, CheckOptions},
    limits,
    repo::{PruneOptions, Unused},
    secret::Key,
    store::{list_all, mem::MemStore},
};

pub mod actors;
pub mod faults;
mod left;
pub mod model;
pub mod net;
pub mod quiet;
mod restored;
pub mod rng;
pub mod source;
pub mod world;

use actors::{Actor, People};
use faults::{Broken, Faults, Figures, Part};
use left::left_over;
use model::Model;
use net::{Net, Turn};
use quiet::Quiet;
use rng::Rng;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Where everything comes from.
    pub seed: u64,
    /// What goes wrong; by the seed if absent.
    pub faults: Option<Faults>,
    /// Which promise the store breaks.
    pub broken: Broken,
    /// Hours at most from one prune to the next of the same collector, and from one forget to the next.
    pub hours: u64,
    /// Each backup has something that nobody stored before, so each leaves a segment of the index.
    pub news: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was counted.
    pub figures: Figures,
    /// Two runs that went alike have it in common.
    pub trace: u64,
    /// What did not hold, with what happened before.
    pub violation: Option<String>,
}

/// Things that happened before a violation that are told.
const LINES_TOLD: usize = 80;
/// Looks at a world in which nothing happens before it counts as hanging.
const IDLE_LOOKS: u32 = 200;

const ADMIN: usize = 0;
const WRITERS: [usize; 3] = [1, 2, 3];
const COLLECTORS: [usize; 2] = [4, 5];
const FORGETTER: usize = 6;
const LOOKERS: [usize; 2] = [7, 8];
const CLIENTS: usize = 9;

impl Setting {
    /// An honest store, and faults by the seed.
    pub fn of_seed(seed: u64) -> Self {
        Self { seed, faults: None, broken: Broken::Nothing, hours: 20, news: false }
    }

    /// The same, and there is news, and prunes are so rare that small segments of the index become many: writers join them.
    pub fn of_news(seed: u64) -> Self {
        Self { hours: 60, news: true, ..Self::of_seed(seed) }
    }

    /// Lives through it.
    pub fn run(self) -> io::Result<Outcome> {
        // Threads of another simulation in this process would never be quiet.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::new(self)?;
        let parts: Vec<Part> = (0..CLIENTS).map(part).collect();
        let page = [3, 7, 50, 1000][Rng::new(&[self.seed, 8]).index(4)];
        let net = Arc::new(Net::new(self.seed, &parts, page));
        let model = Arc::new(Model::default());
        let life = {
            let (net, model, place) = (Arc::clone(&net), Arc::clone(&model), place.path.clone());
            thread::Builder::new().name("clients".into()).spawn(move || live(self, &net, &model, &place))?
        };
        watch(&net, &model, &life)?;
        if model.violation().is_some() {
            net.stop();
        }
        let counted = life.join().unwrap_or_else(|_| Err(io::Error::other("a client broke")));
        let (operations, successes) = match counted {
            Ok(counted) => counted,
            Err(error) => {
                model.blame(format!("the clients could not live: {error}"));
                (0, 0)
            }
        };
        let (figures, trace) = net.figures();
        let figures = Figures { seeds: 1, operations, successes, compared: model.compared(), ..figures };
        let violation = model.violation().map(|what| {
            let log = net.log(LINES_TOLD);
            format!("{what}\n\nbefore:\n{}", log.join("\n"))
        });
        if let Some(path) = std::env::var_os("CARRACK_SIMULATION_LOG") {
            fs::write(path, net.log(usize::MAX).join("\n"))?;
        }
        Ok(Outcome { figures, trace, violation })
    }
}

fn part(client: usize) -> Part {
    if WRITERS.contains(&client) {
        Part::Writer
    } else if COLLECTORS.contains(&client) {
        Part::Collector
    } else if LOOKERS.contains(&client) {
        Part::Looker
    } else if client == FORGETTER {
        Part::Forgetter
    } else {
        Part::Owner
    }
}

/// The place of the sources, the same in every run of a seed because paths name lineages; one process at a time.
struct Place {
    path: PathBuf,
    _lock: fs::File,
}

impl Place {
    fn new(setting: Setting) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let base = base.join("carrack-simulation");
        fs::create_dir_all(&base)?;
        let name = format!("{:016x}-{:?}", setting.seed, setting.broken).to_lowercase();
        let lock = fs::File::create(base.join(format!("{name}.lock")))?;
        lock.lock()?;
        let path = base.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A directory in memory that is left behind costs the next run of this seed a moment.
        drop(fs::remove_dir_all(&self.path));
        drop(fs::remove_file(self.path.with_extension("lock")));
    }
}

/// Lets one thing happen after the other until all lives have ended, and looks at what each did to the store.
fn watch(net: &Net, model: &Model, life: &thread::JoinHandle<io::Result<(u64, u64)>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut quiet = Quiet::new()?;
    let mut idle = 0;
    while !life.is_finished() && model.violation().is_none() {
        quiet.wait()?;
        match net.turn() {
            Turn::Went(changes) => {
                idle = 0;
                if !changes.is_empty() {
                    runtime.block_on(model.after(&net.objects(), &changes));
                }
            }
            Turn::Idle if idle < IDLE_LOOKS => {
                idle += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Turn::Idle => model.blame("everybody waits for ever".to_owned()),
        }
    }
    Ok(())
}

/// All lives, on one thread but for those that the engine starts.
fn live(setting: Setting, net: &Arc<Net>, model: &Arc<Model>, place: &Path) -> io::Result<(u64, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let local = tokio::task::LocalSet::new();
    let counted = local.block_on(&runtime, lives(setting, net, model, place));
    drop(local);
    runtime.shutdown_timeout(Duration::from_secs(10));
    counted.map_err(|error| io::Error::other(error.in_one_line()))
}

async fn lives(
    setting: Setting,
    net: &Arc<Net>,
    model: &Arc<Model>,
    place: &Path,
) -> carrack_mover::error::Result<(u64, u64)> {
    let people = Arc::new(People::default());
    let faults = setting.faults.unwrap_or_else(|| Faults::of_seed(setting.seed));
    let actor = |client: usize| {
        let place = place.join(format!("client-{client}"));
        Actor::new((net, model, &people), setting.seed, client, place, faults)
    };
    let mut rng = Rng::new(&[setting.seed, 9]);
    let secret = Key::new([7; 32]);
    let mut admin = actor(ADMIN);
    admin.create(secret.clone()).await?;
    people.learn(secret.clone());
    model.learn_secret(secret);
    let mut writers: Vec<Actor> = WRITERS.into_iter().map(actor).collect();
    writers[0].become_mover(&mut admin).await;
    net.set(faults, setting.broken);

    let (rounds, hours) = (rng.between(6, 14), setting.hours);
    let mut lives = tokio::task::JoinSet::new();
    for mut writer in writers {
        lives.spawn_local(async move {
            let done = writer.write(rounds, setting.news).await;
            if let Err(error) = done {
                writer.model.blame(error.in_one_line());
            }
            writer.counted()
        });
    }
    for mut collector in COLLECTORS.into_iter().map(actor) {
        lives.spawn_local(async move {
            collector.collect(rounds * 10 / hours, hours).await;
            collector.counted()
        });
    }
    let mut forgetter = actor(FORGETTER);
    lives.spawn_local(async move {
        forgetter.forget(rounds * 10 / hours, hours).await;
        forgetter.counted()
    });
    for mut looker in LOOKERS.into_iter().map(actor) {
        lives.spawn_local(async move {
            looker.look(rounds / 2).await;
            looker.counted()
        });
    }
    let rotates = rng.happens(5000);
    lives.spawn_local(async move {
        if rotates {
            admin.rotate().await;
        }
        admin.counted()
    });
    let (mut operations, mut successes) = (0, 0);
    while let Some(counted) = lives.join_next().await {
        let counted = counted.unwrap_or_else(|error| {
            model.blame(format!("a client broke: {error}"));
            (0, 0)
        });
        (operations, successes) = (operations + counted.0, successes + counted.1);
    }
    if !net.is_stopping() {
        let mut last = actor(ADMIN);
        end(setting, net, model, &mut last).await;
        (operations, successes) = (operations + last.counted().0, successes + last.counted().1);
    }
    Ok((operations, successes))
}

/// Everybody but one collector has gone, the store is well, and what was under way lands: then exactly what is needed
/// is left, and all of it is whole.
async fn end(setting: Setting, net: &Arc<Net>, model: &Arc<Model>, last: &mut Actor) {
    net.note("everybody has gone".to_owned());
    net.set(Faults::default(), setting.broken);
    net.settle();
    last.become_newest();
    last.heal();
    net.sleep(ADMIN, Duration::from_secs(3600)).await;
    model.look_at_all(&net.objects()).await;
    let options = PruneOptions {
        fence_after: Duration::ZERO,
        wait: Duration::ZERO,
        max_unused: Some(Unused::Bytes(0)),
        max_repack_bytes: None,
    };
    let mut before = BTreeSet::new();
    for _ in 0..ROUNDS_TO_THE_END {
        // A fence looks at clocks, and those of others may be ahead; tombstones stay for 30 days.
        net.sleep(ADMIN, Duration::from_secs(31 * 24 * 3600)).await;
        if !last.prune(&options).await {
            model.blame("a prune that is alone fails".to_owned());
            return;
        }
        let now = names(&net.objects(), "").await;
        if now == before {
            break;
        }
        before = now;
    }
    model.look_at_all(&net.objects()).await;
    if let Some(what) = left_over(&net.objects(), model).await {
        model.blame(what);
    }
    let options = CheckOptions {
        level: CheckLevel::Data,
        memory_bytes: limits::MEMORY_MIN,
        threads: 1,
        only: None,
        mark: false,
    };
    if !last.check_with(&options).await {
        model.blame("the last check fails".to_owned());
    }
}

/// Prunes after which nothing may change any more: sessions are shut out by one and cleaned up by the next, packs that
/// were moved, the moves themselves.
const ROUNDS_TO_THE_END: usize = 6;

async fn names(store: &Arc<MemStore>, prefix: &str) -> BTreeSet<String> {
    let listed = list_all(store.as_ref(), prefix).await.unwrap_or_default();
    listed.into_iter().map(|object| object.name).collect()
}
