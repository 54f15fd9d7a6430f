//! Files with several names: restored under the first one, the others are linked to it when it is complete.
//!
//! What is remembered for that has its part of the memory. Further names that find no room there are met once more in a
//! second walk. A file that finds none waits, with all of its names, for a round of its own behind this one: a walk, and
//! workers, for those that waited.

use std::{collections::HashSet, mem, sync::Arc, vec};

use super::{LINK_SHARE, Planner, lock};
use crate::{
    error::{Error, Result},
    format::{
        entry::Entry,
        metadata::{Kind, Metadata},
    },
    monitor::Progress,
    reader::walk::TreeWalk,
    restore::{RestoreOptions, execute::Shared, places::Places, select::relative},
    sys::attributes::LOCKING_FLAGS,
    target::tree::{Made, TargetTree},
};

#[cfg(test)]
mod tests;

/// Device and inode in the source, which the names of one file have in common.
type Key = (u64, u64);

/// What a first name takes beside its path, in bytes: a row of two tables, of which one half may be empty.
const FIRST_BYTES: usize = 256;
/// What a further name takes beside its path, in bytes.
const FURTHER_BYTES: usize = 96;

/// What becomes of a name of a file with several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The file is restored under it.
    First,
    /// It is linked when the file is complete.
    Further,
    /// It waits for another round, as all names of its file do.
    Later,
}

/// Names of files with several, as far as this round has met them.
#[derive(Debug)]
pub(super) struct Links {
    /// Bytes for what is remembered of first names, and as many for further ones.
    share: usize,
    /// Selected names of files with several that the first walk has met.
    met: u64,
    /// The files that this round restores.
    first_names: HashSet<Key>,
    first_bytes: usize,
    /// It restores no others.
    is_full: bool,
    /// What is linked at its end; none once there is too much.
    further: Option<Vec<(Vec<u8>, Key)>>,
    further_bytes: usize,
    /// The same names by their places.
    further_places: Places,
    /// Names whose files wait for the next round.
    waiting: Places,
}

impl Links {
    pub(super) fn new(memory_bytes: u64) -> Self {
        Self::within(usize::try_from(memory_bytes / LINK_SHARE).unwrap_or(usize::MAX >> 1))
    }

    fn within(share: usize) -> Self {
        Self {
            share,
            met: 0,
            first_names: HashSet::new(),
            first_bytes: 0,
            is_full: false,
            further: Some(Vec::new()),
            further_bytes: 0,
            further_places: Places::default(),
            waiting: Places::default(),
        }
    }

    /// The place of a selected name among those of files with several; none if it is no such name.
    pub(super) fn meet(&mut self, entry: &Entry) -> Option<u64> {
        has_several_names(entry).then(|| {
            self.met += 1;
            self.met - 1
        })
    }

    /// What becomes of the name at this place. The first name that is asked for is the one that the file is restored under.
    pub(super) fn role(&mut self, place: u64, path: &[u8], metadata: &Metadata) -> Role {
        let key = key_of(metadata);
        if self.first_names.contains(&key) {
            self.link_later(place, path, key);
            return Role::Further;
        }
        let bytes = self.first_bytes.saturating_add(first_bytes(path, metadata));
        // One file has room in any case, so that each round leaves less than it found. Once one has none, a later name of it
        // that is shorter must not find some.
        self.is_full |= bytes > self.share && !self.first_names.is_empty();
        if self.is_full {
            self.waiting.add(place);
            return Role::Later;
        }
        self.first_names.insert(key);
        self.first_bytes = bytes;
        Role::First
    }

    fn link_later(&mut self, place: u64, path: &[u8], key: Key) {
        self.further_places.add(place);
        self.further_bytes = self.further_bytes.saturating_add(FURTHER_BYTES + path.len());
        if self.further_bytes > self.share {
            self.further = None;
        }
        if let Some(further) = &mut self.further {
            further.push((path.to_vec(), key));
        }
    }

    /// Begins the next round: gives the places of the names that waited for it, if there are any.
    pub(super) fn next_round(&mut self) -> Option<Places> {
        let next = Self::within(self.share);
        let ended = mem::replace(self, next);
        (!ended.waiting.is_empty()).then_some(ended.waiting)
    }
}

/// Directories are counted by the system otherwise, and images are no files.
fn has_several_names(entry: &Entry) -> bool {
    entry.metadata.links > 1 && !matches!(entry.kind, Kind::Directory | Kind::Image)
}

fn key_of(metadata: &Metadata) -> Key {
    (metadata.device, metadata.inode)
}

/// What a first name takes. One whose flags wait until it has its further names is remembered for that as well.
fn first_bytes(path: &[u8], metadata: &Metadata) -> usize {
    let times = if metadata.flags & LOCKING_FLAGS == 0 { 1 } else { 2 };
    times * (FIRST_BYTES + path.len())
}

impl Planner<'_> {
    /// Restores files that waited: in a walk that meets the same names, of which everything was counted before.
    pub(super) async fn walk_again(&mut self, waiting: &Places) -> Result<()> {
        let mut names = Names::again(self.options, &self.shared, &self.prefix)?;
        while let Some((place, path, entry)) = names.next().await? {
            if !waiting.has(place) {
                continue;
            }
            if entry.kind == Kind::File {
                let present = self.present(&path);
                self.write_file(path, entry, Some(place), present).await?;
            } else {
                self.make_node(&path, &entry, Some(place));
            }
        }
        self.flush().await
    }
}

/// Makes the further names of this round. A dry run makes none.
pub(super) async fn link(
    options: &RestoreOptions,
    shared: &Arc<Shared>,
    prefix: &[u8],
    links: &mut Links,
) -> Result<()> {
    let Some(tree) = &shared.tree else { return Ok(()) };
    let made = mem::take(&mut *lock(&shared.made));
    if let Some(further) = links.further.take() {
        for (path, key) in further {
            shared.check()?;
            link_to(shared, tree, &path, made.get(&key));
        }
    } else {
        let mut names = Names::again(options, shared, prefix)?;
        while let Some((place, path, entry)) = names.next().await? {
            if links.further_places.has(place) {
                shared.check()?;
                link_to(shared, tree, &path, made.get(&key_of(&entry.metadata)));
            }
        }
    }
    tree.lock_linked();
    Ok(())
}

fn link_to(shared: &Shared, tree: &TargetTree, path: &[u8], first: Option<&Made>) {
    let linked = match first {
        Some(first) => tree.hard_link(path, first),
        None => Err(Error::corrupt("the file that it is another name of was not restored")),
    };
    match linked {
        Ok(()) => Progress::add(&shared.monitor.progress().entries, 1),
        Err(error) => shared.report(path, &error),
    }
}

/// The selected names of files with several in another walk, each with the place that it had in the first one.
#[derive(Debug)]
struct Names<'o> {
    options: &'o RestoreOptions,
    shared: Arc<Shared>,
    prefix: Vec<u8>,
    walk: TreeWalk,
    leaf: vec::IntoIter<Entry>,
    met: u64,
}

impl<'o> Names<'o> {
    fn again(options: &'o RestoreOptions, shared: &Arc<Shared>, prefix: &[u8]) -> Result<Self> {
        let walk = shared.reader.entries(options.selection.part())?;
        let (shared, leaf) = (Arc::clone(shared), Vec::new().into_iter());
        Ok(Self { options, shared, prefix: prefix.to_vec(), walk, leaf, met: 0 })
    }

    async fn next(&mut self) -> Result<Option<(u64, Vec<u8>, Entry)>> {
        loop {
            for entry in self.leaf.by_ref().filter(has_several_names) {
                let Some(path) = relative(&entry.path, &self.prefix).map(<[u8]>::to_vec) else { continue };
                if self.options.selection.wants(&path) {
                    self.met += 1;
                    return Ok(Some((self.met - 1, path, entry)));
                }
            }
            self.shared.check()?;
            let Some(leaf) = self.walk.next_leaf().await? else { return Ok(None) };
            self.leaf = leaf.into_iter();
        }
    }
}
