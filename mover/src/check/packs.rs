//! Which packs exist, under which names, and where frames lie now.

use std::collections::BTreeMap;

use super::CheckReport;
use crate::{
    error::Result,
    format::{
        frame::FramePlace,
        pack::{pack_object, parse_pack_object},
    },
    id::PackId,
    monitor::Monitor,
    repo::{Relocations, Repository},
    store::list_all,
};

/// One pack: 48 bytes, so the 330 000 packs of 10 TiB take 16 MB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pack {
    pub id: PackId,
    /// Bytes of its longest sending: all have equal bytes, so a shorter one was cut.
    pub size: u64,
    /// Whether a snapshot that is checked refers to it.
    pub needed: bool,
    /// Whether its data is to be read.
    pub read: bool,
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
    pub(super) async fn list(
        repository: &Repository,
        report: &mut CheckReport,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        // A repack that cannot be read is named with the snapshots.
        let (relocations, _) = repository.readable_relocations().await?;
        let mut packs = Self { relocations, ..Self::default() };
        let mut sendings: Vec<(PackId, u8, u64)> = Vec::new();
        for object in list_all(repository.store().as_ref(), "packs/").await? {
            match parse_pack_object(&object.name) {
                Some((pack, attempt)) => sendings.push((pack, attempt, object.size)),
                None => report.add_damage(monitor, object.name, "it is not the name of a pack".into()),
            }
        }
        sendings.sort_unstable();
        for same in sendings.chunk_by(|a, b| a.0 == b.0) {
            let (id, size) = (same[0].0, same.iter().map(|sending| sending.2).max().unwrap_or_default());
            packs.all.push(Pack { id, size, needed: false, read: false, named: 0 });
            if same.len() > 1 {
                packs.several.insert(id, same.iter().map(|sending| (sending.1, sending.2)).collect());
            }
        }
        report.packs = packs.all.len() as u64;
        Ok(packs)
    }

    /// Attempts and sizes of a pack that arrived more than once; empty for others.
    pub(super) fn sendings(&self, pack: PackId) -> &[(u8, u64)] {
        self.several.get(&pack).map_or(&[], Vec::as_slice)
    }

    fn index_of(&self, pack: PackId) -> Option<u32> {
        let found = self.all.binary_search_by_key(&pack, |known| known.id).ok()?;
        u32::try_from(found).ok()
    }

    /// Where a frame lies: at its place, or where a repack moved it. As a reader looks for it.
    pub(super) fn locate(&self, place: &FramePlace) -> Located {
        if let Some(index) = self.index_of(place.pack) {
            return Located { pack: place.pack, index: Some(index), offset: place.offset };
        }
        let (pack, offset) =
            self.relocations.lookup(place.pack, place.offset).unwrap_or((place.pack, place.offset));
        Located { pack, index: self.index_of(pack), offset }
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
