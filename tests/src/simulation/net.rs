//! The simulated world: one store, one clock, and a gate through which every request of every client passes, one at
//! a time, in an order that the seed decides. What can go wrong between a client and a store goes wrong here.

mod serve;

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use carrack_mover::{
    error::{Error, Result},
    store::{ByteRange, Page, Put, mem::MemStore},
};
use tokio::sync::oneshot;

use self::serve::some_time;
use super::{
    faults::{Broken, Faults, Figures, Part},
    rng::Rng,
};

/// One process: a client, and which of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The machine.
    pub client: usize,
    /// Its how manieth process.
    pub run: u64,
}

/// Where a run ends for ever: after so many calls, or after so many that change the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// How many it lives to see.
    pub after: u64,
    /// Only puts and deletes count.
    pub writing: bool,
}

/// What a client asks of the store.
#[derive(Debug, Clone)]
pub enum Request {
    /// Create if absent.
    Put(String, Bytes),
    /// Read.
    Get(String, ByteRange),
    /// One page of a listing.
    List(String, Option<String>),
    /// Delete.
    Delete(String),
}

/// What the store answers.
#[derive(Debug)]
pub enum Reply {
    /// To a put.
    Put(Put),
    /// To a get.
    Get(Bytes),
    /// To a listing.
    List(Page),
    /// To a delete.
    Delete(bool),
}

/// What became different in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This object is there now.
    Created(String),
    /// This object is gone.
    Deleted(String),
}

/// What one turn of the world was.
#[derive(Debug)]
pub enum Turn {
    /// Something happened, with these effects.
    Went(Vec<Change>),
    /// Nobody wants anything any more.
    Idle,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    who: Who,
    request: Request,
    reply: oneshot::Sender<Result<Reply>>,
    slept: bool,
}

#[derive(Debug)]
struct Timer {
    client: usize,
    due: Duration,
    ring: oneshot::Sender<()>,
}

/// A request that was sent, and lands whatever its sender believes.
#[derive(Debug)]
struct Flight {
    id: u64,
    due: Duration,
    request: Request,
}

#[derive(Debug, Default)]
struct Client {
    run: u64,
    is_dead: bool,
    /// Where this run ends for ever.
    death: Option<Death>,
    /// Calls that count for that.
    calls: u64,
    /// Calls of each kind over all runs: what the faults hang on.
    of_kind: [u64; 4],
    asleep_until: Duration,
    /// It has just told others something that they go by: a list, a final, an end.
    has_told: bool,
    /// It has just put a final, or listed what is to go before it writes.
    has_decided: bool,
    /// It has put a list of what is to go, and has not looked at ends since: what it lists next is to show who is at work.
    has_condemned: bool,
    part: Part,
}

#[derive(Debug)]
struct State {
    seed: u64,
    rng: Rng,
    now: Duration,
    objects: Arc<MemStore>,
    /// The store as it was some time ago, and what has happened since: when that is to be seen there, and the object's name
    /// and contents.
    older: MemStore,
    since: VecDeque<(Duration, String, Option<Bytes>)>,
    pending: Vec<Pending>,
    timers: Vec<Timer>,
    flights: Vec<Flight>,
    clients: Vec<Client>,
    faults: Faults,
    broken: Broken,
    storm_until: Duration,
    last: usize,
    next_id: u64,
    stopping: bool,
    figures: Figures,
    trace: u64,
    log: Vec<String>,
}

/// The world.
#[derive(Debug)]
pub struct Net {
    state: Mutex<State>,
}

/// Who is served next.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Call(usize),
    Timer(usize),
    Flight(usize),
}

impl Request {
    fn kind(&self) -> usize {
        match self {
            Self::Put(..) => 0,
            Self::Get(..) => 1,
            Self::List(..) => 2,
            Self::Delete(_) => 3,
        }
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_))
    }

    /// What it does to which folder.
    fn sort(&self) -> String {
        let verb = ["put", "get", "list", "delete"][self.kind()];
        format!("{verb} {}", self.name().split('/').next().unwrap_or_default())
    }

    fn words(&self) -> String {
        match self {
            Self::Put(name, body) => format!("put {name} ({} bytes)", body.len()),
            Self::Get(name, range) => format!("get {name} {range:?}"),
            Self::List(prefix, token) => format!("list {prefix} {}", token.as_deref().unwrap_or_default()),
            Self::Delete(name) => format!("delete {name}"),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Put(name, _) | Self::Delete(name) | Self::Get(name, _) | Self::List(name, _) => name,
        }
    }

    /// The same for an order that does not hang on sizes.
    fn key(&self) -> (usize, String) {
        let name = match self {
            Self::Put(name, _) | Self::Delete(name) => name.clone(),
            Self::Get(name, range) => format!("{name} {range:?}"),
            Self::List(prefix, token) => format!("{prefix} {}", token.as_deref().unwrap_or_default()),
        };
        (self.kind(), name)
    }
}

impl Net {
    /// A world with so many clients and an empty store.
    pub fn new(seed: u64, parts: &[Part], page: usize) -> Self {
        let clients = parts.iter().map(|part| Client { part: *part, ..Client::default() }).collect();
        let state = State {
            seed,
            rng: Rng::new(&[seed, 1]),
            now: Duration::ZERO,
            objects: Arc::new(MemStore::with_page_size(page)),
            older: MemStore::with_page_size(page),
            since: VecDeque::new(),
            pending: Vec::new(),
            timers: Vec::new(),
            flights: Vec::new(),
            clients,
            faults: Faults::default(),
            broken: Broken::Nothing,
            storm_until: Duration::ZERO,
            last: 0,
            next_id: 0,
            stopping: false,
            figures: Figures::default(),
            trace: seed,
            log: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong from now on, and which promise the store breaks.
    pub fn set(&self, faults: Faults, broken: Broken) {
        let mut state = self.state();
        (state.faults, state.broken) = (faults, broken);
        state.storm_until = Duration::ZERO;
    }

    /// Everything in flight is due now, and nobody is asleep any more.
    pub fn settle(&self) {
        let mut state = self.state();
        let now = state.now;
        state.flights.iter_mut().for_each(|flight| flight.due = now);
        state.clients.iter_mut().for_each(|client| client.asleep_until = now);
    }

    /// The store as it is.
    pub fn objects(&self) -> Arc<MemStore> {
        Arc::clone(&self.state().objects)
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// What was counted so far, and a number that two runs have in common if they went alike.
    pub fn figures(&self) -> (Figures, u64) {
        let state = self.state();
        (Figures { seconds: state.now.as_secs(), ..state.figures.clone() }, state.trace)
    }

    /// The last so many things that happened.
    pub fn log(&self, lines: usize) -> Vec<String> {
        let state = self.state();
        state.log[state.log.len().saturating_sub(lines)..].to_vec()
    }

    /// Writes a line into the log.
    pub fn note(&self, line: String) {
        let mut state = self.state();
        let at = state.now.as_secs();
        state.log.push(format!("{:>4}:{:02}:{:02} {line}", at / 3600, at / 60 % 60, at % 60));
    }

    /// Everything ends: whoever waits is told so.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        state.pending.clear();
        state.timers.clear();
        state.flights.clear();
    }

    /// Whether everything ends.
    pub fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// A new process of a client, which may die at one of its calls.
    pub fn begin(&self, client: usize, death: Option<Death>) -> Who {
        let mut state = self.state();
        let found = &mut state.clients[client];
        found.run += 1;
        (found.is_dead, found.death, found.calls) = (false, death, 0);
        Who { client, run: found.run }
    }

    /// The process ends; answers whether it had died before.
    pub fn end(&self, who: Who) -> bool {
        let mut state = self.state();
        let client = &mut state.clients[who.client];
        std::mem::replace(&mut client.is_dead, true)
    }

    /// Sends a request.
    pub(super) async fn call(&self, who: Who, request: Request) -> Result<Reply> {
        let answer = {
            let mut state = self.state();
            let client = &state.clients[who.client];
            if state.stopping || client.is_dead || client.run != who.run {
                return Err(died());
            }
            let (reply, answer) = oneshot::channel();
            let id = state.id();
            state.pending.push(Pending { id, who, request, reply, slept: false });
            answer
        };
        answer.await.unwrap_or_else(|_| Err(died()))
    }

    /// Comes back when so much time has passed for this client.
    pub async fn sleep(&self, client: usize, time: Duration) {
        let bell = {
            let mut state = self.state();
            if state.stopping {
                return;
            }
            let (ring, bell) = oneshot::channel();
            let due = state.now + time;
            state.timers.push(Timer { client, due, ring });
            bell
        };
        // A bell that was thrown away has rung.
        drop(bell.await);
    }

    /// Lets one thing happen. To be called when nobody is at work.
    pub fn turn(&self) -> Turn {
        self.state().turn()
    }
}

/// What a process hears that is no more.
fn died() -> Error {
    Error::cancelled("this process died")
}

/// Calls of the store in memory never wait.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the store in memory answers at once"),
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn turn(&mut self) -> Turn {
        loop {
            self.timers.retain(|timer| !timer.ring.is_closed());
            let groups = self.choices();
            if groups.is_empty() {
                let Some(next) = self.next_moment() else { return Turn::Idle };
                self.now = next.max(self.now);
                continue;
            }
            // Now and then one client gets far while the others are slow.
            let sticks = self.faults.stickiness;
            let group = match groups.get(&self.last) {
                Some(group) if self.rng.happens(sticks) => group,
                _ => {
                    let at = self.rng.index(groups.len());
                    let Some((client, group)) = groups.iter().nth(at) else { return Turn::Idle };
                    self.last = *client;
                    group
                }
            };
            let choice = group[self.rng.index(group.len())];
            self.now += Duration::from_millis(self.rng.between(1, 40));
            if self.rng.happens(self.faults.storm) {
                self.storm_until = self.now + some_time(&mut self.rng);
                self.figures.storms += 1;
            }
            return Turn::Went(self.go(choice));
        }
    }

    /// What can happen now, by whom; what is in flight stands behind the clients.
    fn choices(&self) -> BTreeMap<usize, Vec<Choice>> {
        let mut calls: Vec<_> =
            (0..self.pending.len()).filter(|at| self.is_awake(self.pending[*at].who.client)).collect();
        calls.sort_by_cached_key(|at| (self.pending[*at].request.key(), self.pending[*at].id));
        let mut groups: BTreeMap<usize, Vec<Choice>> = BTreeMap::new();
        for at in calls {
            groups.entry(self.pending[at].who.client).or_default().push(Choice::Call(at));
        }
        for (at, timer) in self.timers.iter().enumerate() {
            if timer.due <= self.now && self.is_awake(timer.client) {
                groups.entry(timer.client).or_default().push(Choice::Timer(at));
            }
        }
        for (at, flight) in self.flights.iter().enumerate() {
            if flight.due <= self.now {
                groups.entry(self.clients.len()).or_default().push(Choice::Flight(at));
            }
        }
        groups
    }

    fn is_awake(&self, client: usize) -> bool {
        self.clients[client].asleep_until <= self.now
    }

    /// When something can happen again.
    fn next_moment(&self) -> Option<Duration> {
        let calls = self.pending.iter().map(|call| self.clients[call.who.client].asleep_until);
        let timers = self.timers.iter().map(|timer| timer.due.max(self.clients[timer.client].asleep_until));
        // What is in flight lands while there is somebody to be surprised, or when everything is settled.
        let flights = self.flights.iter().map(|flight| flight.due);
        calls.chain(timers).chain(flights).min()
    }

    fn go(&mut self, choice: Choice) -> Vec<Change> {
        match choice {
            Choice::Timer(at) => {
                let timer = self.timers.remove(at);
                self.mark(&format!("{} wakes up", timer.client));
                // Nobody waits for it any more if this fails.
                let _unheard = timer.ring.send(());
                Vec::new()
            }
            Choice::Flight(at) => {
                let flight = self.flights.remove(at);
                self.log_line(&format!("     late: {}", flight.request.words()));
                self.mark(&format!("late {} {}", flight.request.kind(), flight.request.name()));
                self.figures.landed += 1;
                self.apply(flight.request, None).1
            }
            Choice::Call(at) => self.serve(at),
        }
    }

    fn mark(&mut self, what: &str) {
        for byte in what.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn log_line(&mut self, line: &str) {
        let at = self.now.as_secs();
        self.log.push(format!("{:>4}:{:02}:{:02} {line}", at / 3600, at / 60 % 60, at % 60));
    }
}
