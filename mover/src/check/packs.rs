//! Which packs exist, under which names, and where frames lie now.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::Result,
    format::{
        frame::FramePlace,
        pack::{pack_object, parse_pack_object},
    },
    id::PackId,
    monitor::Problem,
    repo::{Relocations, Repository, untrue},
    store::{Listed, for_each},
};

/// One pack: 40 bytes, so the 330 000 packs of 10 TiB take 13 MB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pack {
    pub id: PackId,
    /// Bytes of its longest sending.
    pub size: u64,
    /// Whether a snapshot that is checked refers to it.
    pub needed: bool,
    /// Whether its data is to be read.
    pub read: bool,
    /// Whether it was looked at after an earlier listing, and nothing has moved into it since.
    pub looked_at: bool,
    /// Chunks and frames that snapshots name in it, counted once for each page that names them.
    pub named: u64,
}

/// All packs, by id.
#[derive(Debug, Default)]
pub(super) struct Packs {
    pub all: Vec<Pack>,
    /// Attempts and sizes of packs that arrived more than once: rare.
    several: BTreeMap<PackId, Vec<(u8, u64)>>,
    relocations: Relocations,
    /// Snapshots need them, and they were not there when they were looked for.
    gone: BTreeSet<PackId>,
    /// The same of earlier listings.
    gone_before: BTreeSet<PackId>,
}

/// Where a frame lies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    /// The pack it should be in.
    pub pack: PackId,
    /// That pack's place in the list, if it exists.
    pub index: Option<u32>,
    pub offset: u32,
}

impl Packs {
    /// Also answers what lies there and is no pack.
    pub(super) async fn list(repository: &Repository) -> Result<(Self, Vec<Problem>)> {
        let (mut sendings, mut others): (Vec<(PackId, u8, u64)>, _) = (Vec::new(), Vec::new());
        let tell = |object: Listed| match parse_pack_object(&object.name) {
            Some((pack, attempt)) => sendings.push((pack, attempt, object.size)),
            None => others.push(untrue(&object.name, "it is not the name of a pack")),
        };
        for_each(repository.store().as_ref(), "packs/", tell).await?;
        // Read after the listing: where a pack that is not listed was moved to was known before it was deleted.
        // Those that are in doubt are named with the snapshots.
        let (relocations, _doubtful) = repository.relocations().await?;
        let mut packs = Self { relocations, ..Self::default() };
        sendings.sort_unstable();
        for same in sendings.chunk_by(|a, b| a.0 == b.0) {
            let (id, size) = (same[0].0, same.iter().map(|sending| sending.2).max().unwrap_or_default());
            packs.all.push(Pack { id, size, needed: false, read: false, looked_at: false, named: 0 });
            if same.len() > 1 {
                packs.several.insert(id, same.iter().map(|sending| (sending.1, sending.2)).collect());
            }
        }
        Ok((packs, others))
    }

    /// Takes the place of an earlier listing: what was looked at then need not be looked at again.
    pub(super) fn follow(&mut self, earlier: Self) {
        let moved = self.relocations.froms().filter(|from| self.at(*from) != earlier.at(*from));
        let moved_to: BTreeSet<PackId> = moved.map(|from| self.at(from).0).collect();
        for pack in &mut self.all {
            let was_looked_at =
                earlier.index_of(pack.id).is_some_and(|index| earlier.all[index as usize].looked_at);
            pack.looked_at = was_looked_at && !moved_to.contains(&pack.id);
        }
        self.gone_before = earlier.gone_before;
        self.gone_before.extend(earlier.gone);
    }

    /// Whether this is not the first listing.
    pub(super) fn is_later(&self) -> bool {
        !self.gone_before.is_empty()
    }

    /// Whether something has gone since this listing that may have been moved.
    pub(super) fn have_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// A pack is not there; answers whether it is lost. If not, it may have been moved since it was listed.
    pub(super) fn miss(&mut self, pack: PackId) -> bool {
        let is_lost = self.gone_before.contains(&pack);
        if !is_lost {
            self.gone.insert(pack);
        }
        is_lost
    }

    /// The same of a frame: what was not listed and was not moved is lost.
    pub(super) fn is_lost(&mut self, place: &FramePlace, at: Located) -> bool {
        (at.index.is_none() && at.pack == place.pack) || self.miss(at.pack)
    }

    /// Attempts and sizes of a pack that arrived more than once; empty for others.
    pub(super) fn sendings(&self, pack: PackId) -> &[(u8, u64)] {
        self.several.get(&pack).map_or(&[], Vec::as_slice)
    }

    fn index_of(&self, pack: PackId) -> Option<u32> {
        let found = self.all.binary_search_by_key(&pack, |known| known.id).ok()?;
        u32::try_from(found).ok()
    }

    /// Where a frame lies: where a repack moved it, or at its place. Where it was, a prune deletes it, and somebody else may
    /// take the name.
    pub(super) fn locate(&self, place: &FramePlace) -> Located {
        let (pack, offset) = self.at((place.pack, place.offset));
        Located { pack, index: self.index_of(pack), offset }
    }

    fn at(&self, from: (PackId, u32)) -> (PackId, u32) {
        let moved = self.relocations.lookup(from.0, from.1);
        let is_listed = |pack: PackId| self.index_of(pack).is_some();
        // What it was moved to may be newer than the listing.
        moved.filter(|(pack, _)| is_listed(*pack) || !is_listed(from.0)).unwrap_or(from)
    }

    /// Why a frame cannot be where it should, if it cannot.
    pub(super) fn misfit(&self, at: Located, stored: u32) -> Option<String> {
        let end = u64::from(at.offset) + u64::from(stored);
        match at.index.and_then(|index| self.all.get(index as usize)) {
            None => Some("it is missing, and snapshots need it".to_owned()),
            Some(pack) if pack.size < end => {
                Some(format!("it has {} bytes, snapshots need {end}", pack.size))
            }
            Some(_) => None,
        }
    }
}

/// The name of a pack's first sending, for people.
pub(super) fn name(pack: PackId) -> String {
    pack_object(pack, 0)
}
