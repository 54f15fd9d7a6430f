//! The threads that read directories ahead of a walk.
//!
//! Work is kept in the order of the walk by keys: the positions of the sub-directories on the way, and a
//! batch number for the parts of a large directory. Whoever takes work takes the first there is.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::directory::OpenDirectory;
use super::exclude::Exclude;
use super::reads::{Reader, Reads, UnderWay};
use super::roots::RootNode;
use super::silent::SilentPaths;
use super::walk::{ExcludedCounts, WalkEvent, WalkOptions, Walked};
use super::{Problem, show_path};
use crate::cancel::TICK;
use crate::error::{Error, Result};
use crate::format::metadata::Kind;
use crate::limits;
use crate::sys::directory::{Names, to_c_string};
use crate::sys::fds::lock;
use crate::sys::names::{BATCH, Listed, Room};
use crate::sys::stat::{kind_of, metadata_of, stat_at};

mod plan;
mod problems;

pub(super) use plan::Plan;
use plan::only;
use problems::{broken_outcome, directory_problem, given_up_outcome, path_problem, way_problem};

/// So much of the window may be directories that wait to be read: they take about as much as entries.
const WINDOW_SHARE: usize = 8;

/// In a key, batches come before sub-directories.
pub(super) const CHILDREN: u64 = 1 << 32;

/// The place of a piece of work in the order of the walk.
pub(super) type Key = Vec<u64>;

#[derive(Debug, Clone)]
struct Node {
    directory: Arc<OpenDirectory>,
    plan: Plan,
}

#[derive(Debug)]
struct Listing {
    node: Node,
    names: Listed,
    key: Key,
}

#[derive(Debug)]
enum Task {
    Read(Node),
    Stat(Arc<Listing>, usize),
}

/// The result of one piece of work.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) events: Vec<WalkEvent>,
    /// The sub-directories to walk into, in order.
    pub(super) directories: Vec<Below>,
    /// How many batches the directory has, this one included.
    pub(super) batches: u64,
}

/// Sub-directories to walk into.
#[derive(Debug)]
pub(super) enum Below {
    /// The one at this position, which is among the work.
    Ready(u64),
    /// Those of a batch, which become work when their turn comes: see [`ReadAhead::resume`].
    Later(Box<Later>),
}

/// The sub-directories of a batch, a bit for each name, instead of some hundred bytes for each of them.
#[derive(Debug)]
pub(super) struct Later {
    listing: Arc<Listing>,
    batch: usize,
    bits: [u64; BATCH / 64],
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<Key, Task>,
    done: HashMap<Key, Outcome>,
    /// Entries in `done`, and one for each outcome, so that empty directories count too.
    outstanding: usize,
    wanted: Option<Key>,
    stop: bool,
}

impl State {
    /// Of a walk that is given up nobody fetches this any more, and whoever is stuck holds the rest for as long.
    fn forget(&mut self) {
        self.pending.clear();
        self.done.clear();
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    ready: Condvar,
    exclude: Exclude,
    silent: Arc<SilentPaths>,
    reads: Arc<Reads>,
    one_file_system: bool,
    window: usize,
    room: Arc<Room>,
    excluded: [AtomicU64; 4],
}

const PATTERN: usize = 0;
const TAG: usize = 1;
const SIZE: usize = 2;
const FILE_SYSTEM: usize = 3;

/// The threads and what they have ready.
#[derive(Debug)]
pub(super) struct ReadAhead {
    shared: Arc<Shared>,
    /// Of the thread that walks.
    reader: Reader,
    threads: Vec<JoinHandle<()>>,
}

impl ReadAhead {
    pub(super) fn start(options: &WalkOptions, top: Arc<OpenDirectory>, plan: Plan) -> Result<Self> {
        let mut state = State::default();
        state.pending.insert(Key::new(), Task::Read(Node { directory: top, plan }));
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
            exclude: options.exclude.clone(),
            silent: Arc::clone(&options.silent),
            reads: Arc::clone(&options.reads),
            one_file_system: options.one_file_system,
            window: options.window_entries,
            room: Room::new(options.names_bytes, options.temporary.clone()),
            excluded: Default::default(),
        });
        let mut ahead = Self { shared, reader: options.reads.reader(), threads: Vec::new() };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..if options.threads == 0 { cores() } else { options.threads } {
            let (shared, reader) = (Arc::clone(&ahead.shared), options.reads.reader());
            let thread = std::thread::Builder::new().name("walk".into()).spawn(move || shared.work(&reader));
            ahead
                .threads
                .push(thread.map_err(|error| Error::io(error, "cannot start a thread for the walk"))?);
        }
        Ok(ahead)
    }

    /// The result of the work at `key`: ready, or done now, or waited for while another thread is at it. A walk that is
    /// given up has no more results.
    pub(super) fn fetch(&mut self, key: &Key) -> Outcome {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        loop {
            if shared.is_given_up() {
                return given_up_outcome();
            }
            if let Some(outcome) = state.done.remove(key) {
                state.outstanding -= outcome.events.len() + 1;
                drop(state);
                shared.work.notify_one();
                return outcome;
            }
            if let Some(task) = state.pending.remove(key) {
                drop(state);
                return shared.run(key, task, &self.reader);
            }
            state.wanted = Some(key.clone());
            state = shared.ready.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes work of sub-directories that were put off.
    pub(super) fn resume(&self, later: &Later) -> Outcome {
        let reading = self.reader.begin(later.listing.node.directory.path());
        self.shared.resume(later, &reading)
    }

    pub(super) fn excluded(&self) -> ExcludedCounts {
        let count = |index: usize| self.shared.excluded[index].load(Ordering::Relaxed);
        ExcludedCounts {
            pattern: count(PATTERN),
            tag: count(TAG),
            size: count(SIZE),
            file_system: count(FILE_SYSTEM),
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        let is_given_up = self.shared.is_given_up();
        let mut state = lock(&self.shared.state);
        state.stop = true;
        if is_given_up {
            state.forget();
        }
        drop(state);
        self.shared.work.notify_all();
        // One of them may never end. They have all that they need for themselves.
        if is_given_up {
            return;
        }
        for thread in self.threads.drain(..) {
            // A panic in a thread was already turned into a problem of the walk.
            thread.join().unwrap_or_default();
        }
    }
}

impl Shared {
    fn is_given_up(&self) -> bool {
        self.reads.given_up().is_cancelled()
    }

    fn work(&self, reader: &Reader) {
        let mut state = lock(&self.state);
        while !state.stop && !self.is_given_up() {
            let room = state.outstanding < self.window;
            let Some((key, task)) = room.then(|| state.pending.pop_first()).flatten() else {
                state = self.work.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            drop(state);
            let run = catch_unwind(AssertUnwindSafe(|| self.run(&key, task, reader)));
            let outcome = run.unwrap_or_else(|_| broken_outcome());
            state = lock(&self.state);
            state.outstanding += outcome.events.len() + 1;
            let wanted = state.wanted.as_ref() == Some(&key);
            state.done.insert(key, outcome);
            if wanted {
                state.wanted = None;
                self.ready.notify_one();
            }
        }
        if self.is_given_up() {
            state.forget();
        }
    }

    fn run(&self, key: &Key, task: Task, reader: &Reader) -> Outcome {
        match task {
            Task::Stat(listing, batch) => {
                let reading = reader.begin(listing.node.directory.path());
                self.stat_batch(&listing, batch, Outcome::default(), &reading)
            }
            Task::Read(node) => {
                let directory = Arc::clone(&node.directory);
                let reading = reader.begin(directory.path());
                self.read(key, node, &reading)
            }
        }
    }

    fn read(&self, key: &Key, node: Node, reading: &UnderWay<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let names = match self.list(&node, &mut outcome, reading) {
            Ok(names) => names,
            Err(error) => {
                outcome.events.push(directory_problem(&node, error));
                Listed::of(Names::default())
            }
        };
        let batches = names.len().div_ceil(BATCH).max(1);
        outcome.batches = batches as u64;
        let listing = Arc::new(Listing { node, names, key: key.clone() });
        if batches > 1 {
            let mut state = lock(&self.state);
            for batch in 1..batches {
                let mut key = key.clone();
                key.push(batch as u64);
                state.pending.insert(key, Task::Stat(Arc::clone(&listing), batch));
            }
            drop(state);
            self.work.notify_all();
        }
        self.stat_batch(&listing, 0, outcome, reading)
    }

    fn list(&self, node: &Node, outcome: &mut Outcome, reading: &UnderWay<'_>) -> io::Result<Listed> {
        if let Plan::Only(roots) = &node.plan {
            return only(roots.children.keys().map(|name| name.as_c_str()));
        }
        let fd = node.directory.fd()?;
        let (names, failure) = Listed::read_telling(&*fd, &self.room, &|| reading.still());
        if let Some(error) = failure {
            outcome.events.push(directory_problem(node, error));
        }
        let Some(tag) = self.exclude.tag_of(&*fd) else { return Ok(names) };
        self.excluded[TAG].fetch_add(names.len().saturating_sub(1) as u64, Ordering::Relaxed);
        only([to_c_string(tag)?.as_c_str()])
    }

    fn stat_batch(
        &self,
        listing: &Arc<Listing>,
        batch: usize,
        mut outcome: Outcome,
        reading: &UnderWay<'_>,
    ) -> Outcome {
        let (names, range) = match listing.names.batch(batch) {
            Ok(part) => part,
            Err(error) => {
                outcome.events.push(directory_problem(&listing.node, error));
                return outcome;
            }
        };
        if range.is_empty() {
            return outcome;
        }
        let fd = match listing.node.directory.fd() {
            Ok(fd) => fd,
            Err(error) => {
                outcome.events.push(directory_problem(&listing.node, error));
                return outcome;
            }
        };
        let mut children = Vec::new();
        outcome.events.reserve(range.len());
        for (index, position) in range.zip(batch * BATCH..) {
            let name = names.get(index);
            if let Some(problem) = self.left_alone(&listing.node, name) {
                outcome.events.push(problem);
                continue;
            }
            reading.at(name.to_bytes());
            match self.examine(&listing.node, &fd, name) {
                Ok(None) => {}
                Ok(Some((walked, below))) => {
                    let missed =
                        below.is_none() && listing.node.plan.named(name).is_some_and(|root| !root.whole);
                    if missed {
                        outcome.events.push(way_problem(walked.path()));
                    }
                    children.extend(below.map(|node| (position as u64, node)));
                    outcome.events.push(WalkEvent::Entry(walked));
                }
                Err(error) => {
                    let path = listing.node.directory.join(name.to_bytes());
                    let error = Error::io(error, format!("cannot examine /{}", show_path(&path)));
                    outcome.events.push(WalkEvent::Problem(Problem::new(path, "entry", error)));
                }
            }
        }
        // Roots are few, and links may lead to them.
        let few = matches!(listing.node.plan, Plan::Only(_)) || self.has_room_for(children.len());
        if few {
            self.add_children(listing, children, &mut outcome);
        } else {
            let mut bits = [0; BATCH / 64];
            for (position, _) in children {
                let index = position as usize % BATCH;
                bits[index / 64] |= 1_u64 << (index % 64);
            }
            let later = Later { listing: Arc::clone(listing), batch, bits };
            outcome.directories.push(Below::Later(Box::new(later)));
        }
        outcome
    }

    /// Whether so many directories more may be remembered one by one.
    fn has_room_for(&self, children: usize) -> bool {
        children == 0 || lock(&self.state).pending.len() + children <= self.window / WINDOW_SHARE
    }

    fn add_children(&self, listing: &Listing, children: Vec<(u64, Node)>, outcome: &mut Outcome) {
        if children.is_empty() {
            return;
        }
        outcome.directories.extend(children.iter().map(|(position, _)| Below::Ready(*position)));
        let task = |(position, node)| {
            let mut key = listing.key.clone();
            key.push(CHILDREN + position);
            (key, Task::Read(node))
        };
        lock(&self.state).pending.extend(children.into_iter().map(task));
        self.work.notify_all();
    }

    fn resume(&self, later: &Later, reading: &UnderWay<'_>) -> Outcome {
        let (mut outcome, mut children) = (Outcome::default(), Vec::new());
        let node = &later.listing.node;
        let opened = node.directory.fd().and_then(|fd| Ok((fd, later.listing.names.batch(later.batch)?)));
        let (fd, (names, range)) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                outcome.events.push(directory_problem(node, error));
                return outcome;
            }
        };
        for (index, position) in range.zip(0..).filter(|(_, at)| later.bits[at / 64] >> (at % 64) & 1 == 1) {
            let name = names.get(index);
            reading.at(name.to_bytes());
            match self.node_again(node, &fd, name) {
                Ok(below) => children.push(((later.batch * BATCH + position) as u64, below)),
                Err(error) => {
                    let gone = Node { directory: node.directory.child(name, None), plan: node.plan.clone() };
                    outcome.events.push(directory_problem(&gone, error));
                }
            }
        }
        self.add_children(&later.listing, children, &mut outcome);
        outcome
    }

    /// What is told of a name that is not touched.
    fn left_alone(&self, node: &Node, name: &CStr) -> Option<WalkEvent> {
        let path = || node.directory.join(name.to_bytes());
        if node.directory.path().len() + name.count_bytes() >= limits::SOURCE_PATH_LIMIT {
            return Some(path_problem(path()));
        }
        if self.silent.is_empty() {
            return None;
        }
        self.silent.problem(&path()).map(WalkEvent::Problem)
    }

    /// The node of what was a directory to walk into when its entry was made.
    fn node_again(&self, node: &Node, fd: &OwnedFd, name: &CStr) -> io::Result<Node> {
        let stat = stat_at(fd, name)?;
        let metadata = metadata_of(&stat);
        if kind_of(&stat) != Some(Kind::Directory) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let directory = node.directory.child(name, Some((metadata.device, metadata.inode)));
        Ok(Node { directory, plan: self.plan_below(node, node.plan.named(name), metadata.device) })
    }

    /// One entry, and the node to walk into if it is a directory that belongs to the walk.
    fn examine(&self, node: &Node, fd: &OwnedFd, name: &CStr) -> io::Result<Option<(Walked, Option<Node>)>> {
        if self.exclude.has_patterns() && self.exclude.matches(&node.directory.join(name.to_bytes())) {
            self.excluded[PATTERN].fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        let root = node.plan.named(name);
        let passed = matches!(node.plan, Plan::Only(_)) && root.is_some_and(|root| !root.whole);
        let stat = if passed {
            rustix::fs::statat(fd, name, rustix::fs::AtFlags::empty())?
        } else {
            stat_at(fd, name)?
        };
        let metadata = metadata_of(&stat);
        let Some(mut kind) = kind_of(&stat) else {
            return Err(io::Error::other("it is of a type that Linux does not know"));
        };
        if kind == Kind::File && self.exclude.is_too_large(metadata.size) {
            self.excluded[SIZE].fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        if let Kind::Symlink { target } = &mut kind {
            *target = rustix::fs::readlinkat(fd, name, Vec::new())?.into_bytes();
        }
        let elsewhere = matches!(node.plan, Plan::Whole { device: Some(own), .. } if own != metadata.device);
        let foreign = elsewhere && root.is_none();
        if foreign {
            self.excluded[FILE_SYSTEM].fetch_add(1, Ordering::Relaxed);
            if kind != Kind::Directory {
                return Ok(None);
            }
        }
        let below = (kind == Kind::Directory && !foreign).then(|| {
            let identity = (!passed).then_some((metadata.device, metadata.inode));
            Node {
                directory: node.directory.child(name, identity),
                plan: self.plan_below(node, root, metadata.device),
            }
        });
        let directory = Arc::clone(&node.directory);
        Ok(Some((Walked { directory, name: name.to_bytes().to_vec(), kind, metadata, passed }, below)))
    }

    fn plan_below(&self, node: &Node, root: Option<&Arc<RootNode>>, device: u64) -> Plan {
        let on_the_way = root.filter(|root| !root.whole);
        match (&node.plan, root, on_the_way) {
            (Plan::Only(_), _, Some(way)) => Plan::Only(Arc::clone(way)),
            // A mount point that nobody asked for, with a root in it.
            (Plan::Whole { device: Some(own), .. }, _, Some(way)) if *own != device => {
                Plan::Only(Arc::clone(way))
            }
            (Plan::Whole { device, .. }, _, Some(way)) => {
                Plan::Whole { device: *device, within: Some(Arc::clone(way)) }
            }
            (Plan::Whole { device, .. }, None, None) => Plan::Whole { device: *device, within: None },
            (_, Some(root), None) => Plan::of_root(root, self.one_file_system.then_some(device)),
            (Plan::Only(_), None, None) => Plan::Only(Arc::default()),
        }
    }
}
