//! Walks one or many roots and hands out their entries in the order of the snapshot tree (see [`order`]).
//!
//! Threads read directories ahead of the caller, in that order, within a window of entries. A directory that
//! nobody has begun when its turn comes is read by the caller itself, so no thread is ever waited for that
//! waits itself. One `fstatat` per entry is all that an unchanged file costs.
//!
//! Entries stand under the absolute path of their root, and the directories on the way carry their own
//! attributes. `/` itself is no entry.
//!
//! [`order`]: crate::format::order

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::OpenDirectory;
use super::exclude::Exclude;
use super::read_ahead::{Below, CHILDREN, Key, Plan, ReadAhead};
use super::reads::Reads;
use super::roots::{RootNode, merge_roots};
use super::silent::SilentPaths;
use super::{Problem, stored_path};
use crate::error::{Error, Result};
use crate::format::metadata::{Kind, Metadata};
use crate::sys::fds::FdCache;
use crate::sys::names::temporary;
use crate::sys::stat::{metadata_of, stat_of};

/// How far threads may be ahead by default, in entries; at some 300 bytes each, 20 MB.
pub const WINDOW_ENTRIES: usize = 65_536;

/// How many bytes of names a walk holds by default.
pub const NAMES_BYTES: usize = 16 << 20;

/// What to walk and how.
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// Files and directories, in whatever way they are written: see [`absolute`](super::roots::absolute).
    pub roots: Vec<PathBuf>,
    /// Stay on the file system of each root: a mount point that is no root is kept as a directory and not looked into.
    pub one_file_system: bool,
    /// What to leave out.
    pub exclude: Exclude,
    /// What to leave out and to name as a problem: an earlier attempt waited for it in vain.
    pub silent: Arc<SilentPaths>,
    /// Threads that read ahead; 0 for one per core.
    pub threads: usize,
    /// How many entries may be read ahead.
    pub window_entries: usize,
    /// Memory for the names of directories that are under way, in bytes; names of a larger one are sorted in a file.
    pub names_bytes: usize,
    /// Where such a file is made; it never has a name.
    pub temporary: PathBuf,
    /// Who hears what is read just now.
    pub reads: Arc<Reads>,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            one_file_system: false,
            exclude: Exclude::default(),
            silent: Arc::default(),
            threads: 0,
            window_entries: WINDOW_ENTRIES,
            names_bytes: NAMES_BYTES,
            temporary: temporary(),
            reads: Arc::default(),
        }
    }
}

/// An entry as it was found; extended attributes and flags are still to be read.
#[derive(Debug, Clone)]
pub struct Walked {
    /// The directory that holds it.
    pub directory: Arc<OpenDirectory>,
    /// Its name there.
    pub name: Vec<u8>,
    /// What it is; the target of a symbolic link is read.
    pub kind: Kind,
    /// What `lstat` says.
    pub metadata: Metadata,
    /// Whether it is only on the way to a root; then a link was followed to it.
    pub passed: bool,
}

impl Walked {
    /// The slash-joined path from `/`, without the leading slash.
    pub fn path(&self) -> Vec<u8> {
        self.directory.join(&self.name)
    }
}

/// What a walk meets.
#[derive(Debug)]
pub enum WalkEvent {
    /// An entry.
    Entry(Walked),
    /// Something that could not be read.
    Problem(Problem),
}

/// How many entries were left out on request, by the reason; what lies below them is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExcludedCounts {
    /// By a pattern.
    pub pattern: u64,
    /// Beside a tag file.
    pub tag: u64,
    /// By the size of the file.
    pub size: u64,
    /// On another file system: files left out, and mount points not looked into.
    pub file_system: u64,
}

/// A walk under way: an iterator of [`WalkEvent`].
#[derive(Debug)]
pub struct Walk {
    ahead: ReadAhead,
    frames: Vec<Frame>,
    events: std::vec::IntoIter<WalkEvent>,
}

#[derive(Debug)]
struct Frame {
    key: Key,
    next_batch: u64,
    batches: u64,
    directories: VecDeque<Below>,
}

/// Begins a walk. Roots that do not exist are problems; none that exists is an error.
pub fn walk(options: WalkOptions) -> Result<Walk> {
    let tree = merge_roots(&options.roots)?;
    let reader = options.reads.reader();
    let is_there = |root: &Path| {
        let _reading = reader.begin(stored_path(root));
        root.symlink_metadata().is_ok()
    };
    if !options.roots.iter().any(|root| is_there(root)) {
        let shown: Vec<String> = options.roots.iter().map(|root| root.display().to_string()).collect();
        return Err(Error::not_found(format!("nothing to back up: cannot reach {}", shown.join(", "))));
    }
    let top = OpenDirectory::top(Arc::new(FdCache::with_default_limit()));
    let plan = first_plan(tree, options.one_file_system, &top)?;
    let mut ahead = ReadAhead::start(&options, top, plan)?;
    let outcome = ahead.fetch(&Key::new());
    let mut walk = Walk { ahead, frames: Vec::new(), events: Vec::new().into_iter() };
    walk.enter(Key::new(), outcome);
    Ok(walk)
}

/// What of `/` belongs to the walk.
fn first_plan(tree: Arc<RootNode>, one_file_system: bool, top: &OpenDirectory) -> Result<Plan> {
    if !tree.whole {
        return Ok(Plan::Only(tree));
    }
    let device = || stat_of(&*top.fd()?).map(|stat| metadata_of(&stat).device);
    let device = one_file_system.then(device).transpose();
    Ok(Plan::of_root(&tree, device.map_err(|error| Error::io(error, "cannot examine the directory /"))?))
}

impl Walk {
    /// What was left out so far.
    pub fn excluded(&self) -> ExcludedCounts {
        self.ahead.excluded()
    }

    fn enter(&mut self, key: Key, outcome: super::read_ahead::Outcome) {
        let directories = outcome.directories.into();
        self.frames.push(Frame { key, next_batch: 1, batches: outcome.batches, directories });
        self.events = outcome.events.into_iter();
    }
}

impl Iterator for Walk {
    type Item = WalkEvent;

    fn next(&mut self) -> Option<WalkEvent> {
        loop {
            if let Some(event) = self.events.next() {
                return Some(event);
            }
            let frame = self.frames.last_mut()?;
            let mut key = frame.key.clone();
            if frame.next_batch < frame.batches {
                key.push(frame.next_batch);
                frame.next_batch += 1;
                let outcome = self.ahead.fetch(&key);
                frame.directories.extend(outcome.directories);
                self.events = outcome.events.into_iter();
                continue;
            }
            match frame.directories.pop_front() {
                Some(Below::Ready(position)) => {
                    key.push(CHILDREN + position);
                    let outcome = self.ahead.fetch(&key);
                    self.enter(key, outcome);
                }
                Some(Below::Later(later)) => {
                    let outcome = self.ahead.resume(&later);
                    for below in outcome.directories.into_iter().rev() {
                        frame.directories.push_front(below);
                    }
                    self.events = outcome.events.into_iter();
                }
                None => drop(self.frames.pop()),
            }
        }
    }
}
