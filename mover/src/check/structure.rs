//! Every page of every snapshot, and that every frame lies inside a pack that exists.

use super::{
    CheckReport,
    packs::Packs,
    touched::Bad,
    walk::{self, Level, Seen, Visitor},
    wanted::Wanted,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{
        frame::{ChunkRef, FrameKind},
        records::Snapshot,
        session::SessionName,
    },
    id::PackId,
    monitor::Monitor,
    reader::SnapshotReader,
    repo::Repository,
};

/// Opens a snapshot that was listed.
pub(super) async fn open(repository: &Repository, session: SessionName) -> Result<SnapshotReader> {
    match SnapshotReader::of(repository, session).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(forgotten(session)),
        opened => opened,
    }
}

pub(super) fn forgotten(session: SessionName) -> Error {
    Error::conflict(format!("snapshot {} was forgotten while it was checked", session.nonce.short()))
        .with_hint("run the check again")
}

/// Walks the trees of all snapshots, each shared page once. What `wanted` is for is gathered on the way.
pub(super) async fn check(
    repository: &Repository,
    snapshots: &[Snapshot],
    memory_bytes: u64,
    mut visit: Structure<'_>,
    cancel: &Cancel,
) -> Result<()> {
    for snapshot in snapshots {
        let reader = open(repository, snapshot.session).await?;
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
    pub report: &'a mut CheckReport,
    pub bad: &'a mut Bad,
    pub monitor: &'a dyn Monitor,
    /// In a later pass everything is counted already.
    pub is_first: bool,
    pub last_misfit: Option<PackId>,
    /// The frame that was named last: chunks of one frame follow each other.
    pub last_frame: Option<(u32, u32)>,
}

impl Structure<'_> {
    fn frame(&mut self, kind: FrameKind, chunk: &ChunkRef) {
        let Some(place) = chunk.frame.place() else { return };
        let at = self.packs.locate(place);
        // Chunks of one frame follow each other; each further pack is looked up in the report.
        if self.is_first
            && let Some(problem) = self.packs.misfit(at, place.stored)
            && self.last_misfit != Some(at.pack)
        {
            self.last_misfit = Some(at.pack);
            if at.index.is_some() || self.packs.is_lost(place, at) {
                self.report.add_damaged_pack(self.monitor, at.pack, problem);
            }
        }
        let Some(index) = at.index else { return };
        let pack = &mut self.packs.all[index as usize];
        if self.is_first {
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
        self.report.pages += u64::from(self.is_first);
    }

    fn broken(&mut self, page: &ChunkRef, error: &Error) {
        let Some(place) = page.frame.place() else { return };
        let at = self.packs.locate(place);
        if error.kind() != ErrorKind::NotFound || self.packs.is_lost(place, at) {
            self.bad.add_page(page);
            self.report.add_damaged_pack(self.monitor, at.pack, error.to_string());
        }
    }
}
