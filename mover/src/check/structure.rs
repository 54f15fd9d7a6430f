//! Every page of every snapshot, and that every frame lies inside a pack that exists.

use super::{
    CheckReport,
    packs::Packs,
    walk::{self, Level, Seen, Visitor},
    wanted::Wanted,
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        frame::{ChunkRef, FrameKind},
        records::Snapshot,
    },
    id::PackId,
    monitor::Monitor,
    reader::SnapshotReader,
    repo::Repository,
};

/// Walks the trees of all snapshots, each shared page once. What `wanted` is for is gathered on the way.
pub(super) async fn check(
    repository: &Repository,
    snapshots: &[Snapshot],
    memory_bytes: u64,
    mut visit: Structure<'_>,
    cancel: &Cancel,
) -> Result<()> {
    for snapshot in snapshots {
        let reader = SnapshotReader::of(repository, snapshot.session).await?;
        walk::walk(&reader, memory_bytes / 8, &mut visit, cancel).await?;
    }
    visit.wanted.settle();
    Ok(())
}

/// Looks at pages and at where frames lie.
pub(super) struct Structure<'a> {
    pub packs: &'a mut Packs,
    pub seen: Seen,
    pub wanted: &'a mut Wanted,
    /// Not in a later pass, which would count everything again.
    pub report: Option<(&'a mut CheckReport, &'a dyn Monitor)>,
    pub last_misfit: Option<PackId>,
    /// The frame that was named last: chunks of one frame follow each other.
    pub last_frame: Option<(u32, u32)>,
}

impl Structure<'_> {
    fn frame(&mut self, kind: FrameKind, chunk: &ChunkRef) {
        let Some(place) = chunk.frame.place() else { return };
        let at = self.packs.locate(place);
        if let Some((report, monitor)) = &mut self.report {
            // Chunks of one frame follow each other; each further pack is looked up in the report.
            if let Some(problem) = self.packs.misfit(at, place.stored)
                && self.last_misfit != Some(at.pack)
            {
                self.last_misfit = Some(at.pack);
                report.add_damaged_pack(*monitor, at.pack, problem);
            }
        }
        let Some(index) = at.index else { return };
        let pack = &mut self.packs.all[index as usize];
        if self.report.is_some() {
            pack.needed = true;
            let again = self.last_frame.replace((index, at.offset)) == Some((index, at.offset));
            pack.named += if again { 1 } else { 2 };
        }
        if pack.read {
            self.wanted.add(kind, chunk, index, at.offset);
        }
    }
}

impl Visitor for Structure<'_> {
    fn named(&mut self, level: &Level, page: &ChunkRef) -> bool {
        let new = self.seen.insert_named(level, page);
        if new {
            self.frame(FrameKind::Metadata, page);
        }
        new
    }

    fn chunk(&mut self, chunk: &ChunkRef) {
        self.frame(FrameKind::Data, chunk);
    }

    fn opened(&mut self) {
        if let Some((report, _)) = &mut self.report {
            report.pages += 1;
        }
    }

    fn broken(&mut self, page: &ChunkRef, error: &Error) {
        let Some(place) = page.frame.place() else { return };
        if let Some((report, monitor)) = &mut self.report {
            report.add_damaged_pack(*monitor, self.packs.locate(place).pack, error.to_string());
        }
    }
}
