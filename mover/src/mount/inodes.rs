//! Inode numbers: given out when a name is looked up, taken back when the kernel forgets it.
//!
//! Numbers are never used twice. The kernel decides how long it remembers names, so this table grows with what
//! it remembers; above a limit it is asked to forget (`surplus`), and above another one lookups fail.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::format::order::split_path;

/// The top directory.
pub(super) const ROOT: u64 = 1;
/// The link `latest`.
pub(super) const LATEST: u64 = 2;
/// Directories of snapshots begin here, in their order.
pub(super) const FIRST_SNAPSHOT: u64 = 16;
/// Everything within snapshots begins here.
const FIRST_NAME: u64 = 1 << 32;
/// What a listing says for names that nobody looked up; no inode has it.
pub(super) const UNKNOWN: u64 = FIRST_NAME - 1;
/// Names above which the kernel is asked to forget: at some 300 bytes each about 60 MiB.
const TRIM_ABOVE: usize = 200_000;
/// Names above which lookups fail; the kernel holds some kilobytes for each of them.
const LIMIT: usize = 1_000_000;
/// Names that are asked back at once at most.
const TRIM_BATCH: usize = 20_000;

/// What an inode number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Root,
    Latest,
    /// A path in the snapshot of this index; empty for its directory.
    Path(usize, Arc<[u8]>),
}

#[derive(Debug)]
struct Known {
    snapshot: usize,
    path: Arc<[u8]>,
    directory: bool,
    lookups: u64,
}

#[derive(Debug)]
struct Table {
    next: u64,
    /// Up to where names were asked back.
    trimmed: u64,
    by_number: BTreeMap<u64, Known>,
    by_path: HashMap<(usize, Arc<[u8]>), u64>,
}

#[derive(Debug)]
pub(super) struct Inodes {
    snapshots: usize,
    table: Mutex<Table>,
}

impl Inodes {
    pub(super) fn new(snapshots: usize) -> Self {
        let table = Table {
            next: FIRST_NAME,
            trimmed: FIRST_NAME,
            by_number: BTreeMap::new(),
            by_path: HashMap::new(),
        };
        Self { snapshots, table: Mutex::new(table) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the number stands for.
    pub(super) fn get(&self, number: u64) -> Option<Node> {
        match number {
            ROOT => Some(Node::Root),
            LATEST => Some(Node::Latest),
            FIRST_NAME.. => {
                let table = self.table();
                let known = table.by_number.get(&number)?;
                Some(Node::Path(known.snapshot, Arc::clone(&known.path)))
            }
            _ => {
                let index = usize::try_from(number.checked_sub(FIRST_SNAPSHOT)?).ok()?;
                (index < self.snapshots).then(|| Node::Path(index, Arc::from([])))
            }
        }
    }

    /// The number of a path that was looked up, counted once more; `None` if there are too many.
    pub(super) fn look_up(&self, snapshot: usize, path: &[u8], directory: bool) -> Option<u64> {
        let mut table = self.table();
        let path: Arc<[u8]> = Arc::from(path);
        let key = (snapshot, Arc::clone(&path));
        if let Some(number) = table.by_path.get(&key).copied() {
            let known = table.by_number.get_mut(&number)?;
            known.lookups += 1;
            return Some(number);
        }
        if table.by_number.len() >= LIMIT {
            return None;
        }
        let number = table.next;
        table.next += 1;
        table.by_number.insert(number, Known { snapshot, path, directory, lookups: 1 });
        table.by_path.insert(key, number);
        Some(number)
    }

    /// The number of a path, if it has one.
    pub(super) fn number(&self, snapshot: usize, path: &[u8]) -> Option<u64> {
        if path.is_empty() {
            return Some(FIRST_SNAPSHOT + snapshot as u64);
        }
        self.table().number(snapshot, path)
    }

    /// The kernel gives back this many lookups.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut table = self.table();
        let Some(known) = table.by_number.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups > 0 {
            return;
        }
        if let Some(gone) = table.by_number.remove(&number) {
            table.by_path.remove(&(gone.snapshot, gone.path));
        }
    }

    /// Names to ask back, oldest first, each with its directory's number. Never directories: somebody's current
    /// directory must not lose its name.
    pub(super) fn surplus(&self) -> Vec<(u64, Vec<u8>)> {
        let mut table = self.table();
        if table.by_number.len() <= TRIM_ABOVE {
            return Vec::new();
        }
        let from = table.trimmed;
        let mut last = FIRST_NAME;
        let mut names = Vec::new();
        for (number, known) in table.by_number.range(from..).take(TRIM_BATCH) {
            last = number + 1;
            let (directory, name) = split_path(&known.path);
            let parent = match directory {
                [] => Some(FIRST_SNAPSHOT + known.snapshot as u64),
                _ => table.number(known.snapshot, directory),
            };
            if let (false, Some(parent)) = (known.directory, parent) {
                names.push((parent, name.to_vec()));
            }
        }
        // At the end of the table it begins anew: what was in use may be free by then.
        table.trimmed = if last >= table.next { FIRST_NAME } else { last };
        names
    }
}

impl Table {
    fn number(&self, snapshot: usize, path: &[u8]) -> Option<u64> {
        self.by_path.get(&(snapshot, Arc::from(path))).copied()
    }
}
