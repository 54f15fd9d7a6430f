//! Every snapshot, every page, and that every frame lies inside a pack that exists.

use std::collections::{HashMap, HashSet};

use super::{Bad, CheckReport};
use crate::{
    cancel::Cancel,
    error::Result,
    format::{
        entry::{Content, Run},
        frame::{ChunkRef, FramePlace},
        pack::parse_pack_object,
        page::Page,
        session::SessionName,
    },
    id::{ChunkId, PackId},
    limits,
    monitor::Monitor,
    reader::{SnapshotReader, place_of},
    repo::{Relocations, Repository},
    store::list_all,
};

/// Small chunks that are remembered, to be compared when their frame is opened: 48 bytes each.
const SMALL_KEPT: u64 = 500_000;

/// What the structure says, for the checks of data.
#[derive(Debug, Default)]
pub(super) struct Structure {
    pub readers: Vec<SnapshotReader>,
    /// Sizes of packs, in bytes.
    pub packs: HashMap<PackId, u64>,
    /// Frames that snapshots refer to and that cannot be read.
    pub bad: Bad,
    /// Snapshots with unreadable pages.
    pub broken_trees: HashSet<SessionName>,
    /// Chunks that footers do not list, by the frame as it lies now: offset, length, id.
    pub small: HashMap<(PackId, u32), Vec<(u32, u32, ChunkId)>>,
    /// Where frames were moved to, back to where snapshots say they are.
    pub moved_from: HashMap<(PackId, u32), (PackId, u32)>,
    relocations: Relocations,
    seen_pages: HashSet<ChunkId>,
    seen_frames: HashSet<(PackId, u32)>,
    small_count: u64,
}

pub(super) async fn check(
    repository: &Repository,
    report: &mut CheckReport,
    monitor: &dyn Monitor,
    cancel: &Cancel,
) -> Result<Structure> {
    let mut structure = Structure { relocations: repository.relocations().await?, ..Structure::default() };
    for object in list_all(repository.store().as_ref(), "packs/").await? {
        match parse_pack_object(&object.name) {
            Some((pack, _)) => {
                structure.packs.insert(pack, object.size);
            }
            None => report.add_damage(monitor, object.name, "it is not the name of a pack".into()),
        }
    }
    report.packs = structure.packs.len() as u64;
    let list = repository.snapshots().await?;
    for (session, error) in list.unreadable {
        report.add_damage(monitor, session.end_object(), error.to_string());
    }
    for snapshot in list.snapshots {
        cancel.check()?;
        report.snapshots += 1;
        let reader = SnapshotReader::new(repository.clone(), snapshot);
        structure.snapshot(&reader, report, monitor, cancel).await?;
        structure.readers.push(reader);
    }
    structure.seen_pages = HashSet::new();
    structure.seen_frames = HashSet::new();
    Ok(structure)
}

impl Structure {
    async fn snapshot(
        &mut self,
        reader: &SnapshotReader,
        report: &mut CheckReport,
        monitor: &dyn Monitor,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut pending: Vec<ChunkRef> = reader.snapshot().root.iter().map(|root| root.to_chunk()).collect();
        while let Some(chunk) = pending.pop() {
            cancel.check()?;
            if !self.seen_pages.insert(chunk.id) {
                continue;
            }
            report.pages += 1;
            match reader.page(&chunk).await {
                Ok(page) => self.page(&page, &mut pending, report, monitor),
                Err(error) => {
                    // Seen again in another snapshot, it shall be reported for that one as well.
                    self.seen_pages.remove(&chunk.id);
                    self.broken_trees.insert(reader.snapshot().session);
                    let object = place_of(&chunk).map_or_else(|_| "a page".into(), |place| name(place.pack));
                    report.add_damage(monitor, object, error.to_string());
                }
            }
        }
        Ok(())
    }

    fn page(
        &mut self,
        page: &Page,
        pending: &mut Vec<ChunkRef>,
        report: &mut CheckReport,
        monitor: &dyn Monitor,
    ) {
        let mut runs = |list: &[Run], report: &mut CheckReport| {
            for run in list {
                if let Run::Chunk(chunk) = run {
                    self.chunk(chunk, report, monitor);
                }
            }
        };
        match page {
            Page::Leaf(entries) => {
                for entry in entries {
                    match &entry.content {
                        Content::Inline(list) => runs(list, report),
                        Content::Paged { pages, .. } => pending.extend(pages.iter().map(|(page, _)| page.clone())),
                    }
                }
            }
            Page::Inner(children) => pending.extend(children.iter().map(|child| child.page.clone())),
            Page::Runs(list) => runs(list, report),
            Page::RunsInner(pages) => pending.extend(pages.iter().map(|(page, _)| page.clone())),
        }
    }

    fn chunk(&mut self, chunk: &ChunkRef, report: &mut CheckReport, monitor: &dyn Monitor) {
        let Some(place) = chunk.frame.place() else { return };
        let key = (place.pack, place.offset);
        let now = self.locate(place);
        if chunk.length < limits::INDEXED_CHUNK_MIN {
            if self.small_count < SMALL_KEPT {
                self.small_count += 1;
                self.small.entry(now).or_default().push((chunk.offset, chunk.length, chunk.id));
            } else {
                report.chunks_by_seal += 1;
            }
        }
        if !self.seen_frames.insert(key) {
            return;
        }
        if now != key {
            self.moved_from.insert(now, key);
        }
        let end = u64::from(now.1) + u64::from(place.stored);
        let problem = match self.packs.get(&now.0) {
            None => "it is missing, and snapshots need it".to_owned(),
            Some(size) if *size < end => format!("it has {size} bytes, snapshots need {end}"),
            Some(_) => return,
        };
        // One report a pack, not one a frame.
        if !self.bad.iter().any(|(pack, _)| *pack == place.pack) {
            report.add_damage(monitor, name(place.pack), problem);
        }
        self.bad.insert(key);
    }

    /// Where a frame lies now: at its place, or where a repack moved it.
    fn locate(&self, place: &FramePlace) -> (PackId, u32) {
        let key = (place.pack, place.offset);
        if self.packs.contains_key(&place.pack) {
            return key;
        }
        self.relocations.lookup(place.pack, place.offset).unwrap_or(key)
    }
}

pub(super) fn name(pack: PackId) -> String {
    crate::format::pack::pack_object(pack, 0)
}
