//! What is on the disk: as programs see it, and what of it would outlive a loss of power.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

use rustix::fs::FileType;

use super::contents::Contents;

/// The number of the top directory.
pub const ROOT: u64 = 1;

/// What an inode holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Contents of a file.
    File(Contents),
    /// Names of a directory, and the inodes that they lead to.
    Directory(BTreeMap<OsString, u64>),
    /// Where a symbolic link leads.
    Link(OsString),
    /// A device, pipe or socket.
    Node(u32),
}

/// An inode: contents and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Contents.
    pub body: Body,
    /// Type and mode.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Time of the last access.
    pub atime: SystemTime,
    /// Time of the last modification.
    pub mtime: SystemTime,
    /// Extended attributes.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Inode {
    /// One that was made just now.
    pub fn new(body: Body, mode: u32, owner: (u32, u32)) -> Self {
        let now = SystemTime::now();
        Self { body, mode, owner, atime: now, mtime: now, xattrs: BTreeMap::new() }
    }

    /// The same before anything was put into it: what a crash leaves of an inode that was never synced. A link and
    /// a device are whole, as what they are lies in the inode itself.
    fn emptied(&self) -> Self {
        let body = match &self.body {
            Body::File(_) => Body::File(Contents::default()),
            Body::Directory(_) => Body::Directory(BTreeMap::new()),
            other => other.clone(),
        };
        Self { body, ..self.clone() }
    }
}

#[derive(Debug, Clone)]
struct Slot {
    now: Inode,
    /// As it was when it was synced last.
    kept: Option<Inode>,
    links: u32,
}

/// All of a disk. A copy is cheap: contents are shared.
#[derive(Debug, Clone)]
pub struct State {
    slots: BTreeMap<u64, Slot>,
    next: u64,
}

impl Default for State {
    fn default() -> Self {
        let root =
            Inode::new(Body::Directory(BTreeMap::new()), FileType::Directory.as_raw_mode() | 0o755, (0, 0));
        let slot = Slot { now: root.clone(), kept: Some(root), links: 2 };
        Self { slots: BTreeMap::from([(ROOT, slot)]), next: ROOT + 1 }
    }
}

impl State {
    /// An inode as programs see it.
    pub fn get(&self, number: u64) -> Option<&Inode> {
        Some(&self.slots.get(&number)?.now)
    }

    /// The same, to be changed; what was synced before stays as it is.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Inode> {
        Some(&mut self.slots.get_mut(&number)?.now)
    }

    /// How many names an inode has.
    pub fn links(&self, number: u64) -> u32 {
        self.slots.get(&number).map_or(0, |slot| slot.links)
    }

    /// The inode behind a name.
    pub fn look_up(&self, directory: u64, name: &OsStr) -> Option<u64> {
        self.names(directory)?.get(name).copied()
    }

    /// The names of a directory.
    pub fn names(&self, directory: u64) -> Option<&BTreeMap<OsString, u64>> {
        match &self.get(directory)?.body {
            Body::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// Makes an inode that has no name yet.
    pub fn make(&mut self, inode: Inode) -> u64 {
        let number = self.next;
        self.next += 1;
        self.slots.insert(number, Slot { now: inode, kept: None, links: 0 });
        number
    }

    /// Gives an inode a name; whatever had that name before loses it.
    pub fn link(&mut self, directory: u64, name: &OsStr, number: u64) {
        self.unlink(directory, name);
        self.change_names(directory, |names| names.insert(name.to_owned(), number));
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.links += 1;
        }
    }

    /// Takes a name away. Whoever has the inode open keeps it.
    pub fn unlink(&mut self, directory: u64, name: &OsStr) {
        if let Some(number) = self.change_names(directory, |names| names.remove(name))
            && let Some(slot) = self.slots.get_mut(&number)
        {
            slot.links -= 1;
        }
    }

    fn change_names(
        &mut self,
        directory: u64,
        change: impl FnOnce(&mut BTreeMap<OsString, u64>) -> Option<u64>,
    ) -> Option<u64> {
        let inode = self.get_mut(directory)?;
        inode.mtime = SystemTime::now();
        match &mut inode.body {
            Body::Directory(names) => change(names),
            _ => None,
        }
    }

    /// What is in this inode now outlives a loss of power. Of a directory these are its names, and not what is
    /// behind them.
    pub fn sync(&mut self, number: u64) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.kept = Some(slot.now.clone());
        }
    }

    /// The disk when power comes back: with nothing that was not synced, or with `torn`, which names one way among
    /// many, with some of it: single names of a directory, and the first half of what was written to a file.
    pub fn after_power_loss(&self, torn: Option<u64>) -> Self {
        let mut coin = torn.map(Coin);
        let slots = self.slots.iter().map(|(number, slot)| {
            let kept = slot.kept.clone().unwrap_or_else(|| slot.now.emptied());
            let left = match &mut coin {
                Some(coin) if kept != slot.now => coin.mix(kept, &slot.now),
                _ => kept,
            };
            (*number, Slot { kept: Some(left.clone()), now: left, links: 0 })
        });
        Self { slots: slots.collect(), next: self.next }.swept()
    }

    /// The same with everything synced.
    pub fn settled(mut self) -> Self {
        self.slots.values_mut().for_each(|slot| slot.kept = Some(slot.now.clone()));
        self.swept()
    }

    /// The same so many seconds later: everything is older.
    pub fn aged(mut self, by: Duration) -> Self {
        for slot in self.slots.values_mut() {
            for inode in std::iter::once(&mut slot.now).chain(&mut slot.kept) {
                inode.mtime -= by;
                inode.atime -= by;
            }
        }
        self
    }

    /// Without inodes that no name leads to, and with the true number of names of all others.
    fn swept(mut self) -> Self {
        let mut links: BTreeMap<u64, u32> = BTreeMap::from([(ROOT, 2)]);
        let (mut found, mut waiting) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(directory) = waiting.pop() {
            for number in self.names(directory).into_iter().flat_map(BTreeMap::values) {
                let names = links.entry(*number).or_default();
                *names += 1;
                if found.insert(*number) {
                    waiting.push(*number);
                }
            }
        }
        self.slots.retain(|number, _| found.contains(number));
        for (number, slot) in &mut self.slots {
            slot.links = links.get(number).copied().unwrap_or_default();
        }
        self
    }

    /// The paths of everything below a path, directories with a slash behind them.
    pub fn paths(&self, below: &str) -> Vec<String> {
        let mut at = ROOT;
        for component in below.split('/').filter(|component| !component.is_empty()) {
            match self.look_up(at, OsStr::new(component)) {
                Some(number) => at = number,
                None => return Vec::new(),
            }
        }
        let mut paths = Vec::new();
        self.collect(at, "", &mut paths);
        paths
    }

    fn collect(&self, directory: u64, path: &str, paths: &mut Vec<String>) {
        for (name, number) in self.names(directory).into_iter().flatten() {
            let path = format!("{path}{}", name.to_string_lossy());
            if self.names(*number).is_some() {
                paths.push(format!("{path}/"));
                self.collect(*number, &format!("{path}/"), paths);
            } else {
                paths.push(path);
            }
        }
    }
}

/// What chance decides: the same for the same seed.
#[derive(Debug)]
struct Coin(u64);

impl Coin {
    fn throw(&mut self, sides: u64) -> u64 {
        // SplitMix64: neighbouring seeds have nothing in common.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// Something between what was synced and what was not.
    fn mix(&mut self, kept: Inode, now: &Inode) -> Inode {
        let body = match (&kept.body, &now.body) {
            (Body::Directory(old), Body::Directory(new)) => {
                let mut names = old.clone();
                for name in old.keys().chain(new.keys()) {
                    if old.get(name) != new.get(name) && self.throw(2) == 0 {
                        match new.get(name) {
                            Some(number) => names.insert(name.clone(), *number),
                            None => names.remove(name),
                        };
                    }
                }
                Body::Directory(names)
            }
            (_, Body::File(new)) => {
                let (length, mut torn) = (new.length(), new.clone());
                match self.throw(4) {
                    0 => return kept,
                    1 => torn.set_length(length / 2),
                    // The length arrived, and the second half did not: zeros, as after a delayed allocation.
                    2 => torn.punch(length / 2, length),
                    _ => {}
                }
                Body::File(torn)
            }
            _ => return now.clone(),
        };
        Inode { body, ..now.clone() }
    }
}
