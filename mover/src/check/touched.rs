//! Which files of which snapshots damage touches. Walked only when something is damaged: first and only then is it
//! worth looking at every entry.

use std::collections::{HashMap, HashSet};

use super::{
    CheckReport,
    packs::{Packs, name},
    report::Verdict,
    walk::{self, Level, Opened, Seen},
};
use crate::{
    cancel::Cancel,
    error::Result,
    format::{
        entry::{Content, Entry, Run},
        frame::ChunkRef,
        page::{Child, Page},
    },
    id::PackId,
    monitor::Monitor,
    reader::SnapshotReader,
};

/// Damaged frames of one pack that are told apart; a pack with more counts as damaged as a whole.
const FRAMES_KEPT: usize = 4096;
/// What remembering the pages of one list takes: those of a device of a terabyte. Others are opened again.
const LIST_BYTES: u64 = 1 << 20;
/// Leaves that are fetched at once.
const LEAVES_AT_ONCE: usize = 8;

/// What cannot be read, besides what is missing or too short.
#[derive(Debug, Default)]
pub(super) struct Bad {
    /// Offsets of damaged frames; none means all of them.
    frames: HashMap<PackId, Option<HashSet<u32>>>,
    /// Packs without a readable footer: their frames were not looked at.
    doubtful: HashSet<PackId>,
    /// Pages that could not be read when the trees were walked: what is below them was not looked at, whatever a further
    /// look says.
    pages: HashSet<[u8; 16]>,
}

impl Bad {
    pub(super) fn add_frame(&mut self, pack: PackId, offset: u32) {
        let known = self.frames.entry(pack).or_insert_with(|| Some(HashSet::new()));
        if let Some(frames) = known {
            frames.insert(offset);
            if frames.len() > FRAMES_KEPT {
                *known = None;
            }
        }
    }

    /// Nothing of this pack can be read.
    pub(super) fn lose(&mut self, pack: PackId) {
        self.frames.insert(pack, None);
    }

    pub(super) fn add_page(&mut self, page: &ChunkRef) {
        self.pages.insert(walk::key(page));
    }

    fn has_page(&self, page: &ChunkRef) -> bool {
        !self.pages.is_empty() && self.pages.contains(&walk::key(page))
    }

    pub(super) fn doubt(&mut self, pack: PackId) {
        self.doubtful.insert(pack);
    }
}

/// Looks at the entries of snapshots, one snapshot after the other.
pub(super) struct Look<'a> {
    pub packs: &'a Packs,
    pub bad: &'a Bad,
    /// Whether frames of packs without a footer are read, one by one.
    pub read_doubtful: bool,
    /// Leaves and pages of runs with nothing wrong in them or below them.
    pub clean: Seen,
    pub monitor: &'a dyn Monitor,
    pub cancel: &'a Cancel,
}

/// A page still to open, and what the page above says of it.
struct Pending {
    level: u8,
    page: ChunkRef,
    /// Nothing of the root.
    above: Option<Box<Child>>,
}

impl Pending {
    fn below(level: u8, child: Child) -> Self {
        Self { level, page: child.page.clone(), above: Some(Box::new(child)) }
    }

    fn entries(&self) -> u64 {
        self.above.as_ref().map_or(0, |above| above.entries)
    }
}

impl Look<'_> {
    /// Names what does not restore.
    pub(super) async fn snapshot(
        &mut self,
        reader: &SnapshotReader,
        report: &mut CheckReport,
    ) -> Result<Verdict> {
        let mut verdict = Verdict::new(reader.snapshot());
        let mut pending = Vec::new();
        if let Some(root) = &reader.snapshot().root {
            pending.push(Pending { level: reader.snapshot().depth, page: root.to_chunk(), above: None });
        }
        while let Some(next) = pending.pop() {
            self.cancel.check()?;
            if next.level == 1 && self.clean.has(&next.page) {
                verdict.entries += next.entries();
                continue;
            }
            let mut batch = vec![next];
            while batch[0].level == 1
                && batch.len() < LEAVES_AT_ONCE
                && let Some(next) = pending.pop_if(|next| next.level == 1 && !self.clean.has(&next.page))
            {
                batch.push(next);
            }
            let level = |next: &Pending| Level::Tree(next.level, next.above.clone());
            let wanted = batch.iter().map(|next| (level(next), next.page.clone())).collect();
            for (next, (_, _, page)) in batch.iter().zip(walk::open(reader, wanted).await?) {
                match page {
                    Ok(_) if self.bad.has_page(&next.page) => self.lost(next, report, &mut verdict),
                    Ok(Page::Leaf(entries)) => {
                        self.leaf(reader, &next.page, &entries, report, &mut verdict).await?
                    }
                    Ok(Page::Inner(children)) => {
                        let below = children.into_iter().rev();
                        pending.extend(below.map(|child| Pending::below(next.level - 1, child)));
                    }
                    Ok(_) | Err(_) => self.lost(next, report, &mut verdict),
                }
            }
        }
        verdict.whole = verdict.whole && verdict.entries_damaged == 0;
        Ok(verdict)
    }

    /// A page of the tree cannot be read, and with it everything below.
    fn lost(&self, page: &Pending, report: &mut CheckReport, verdict: &mut Verdict) {
        verdict.whole = false;
        let entries = page.entries();
        verdict.entries += entries;
        verdict.entries_damaged += entries;
        report.affected_files += entries;
        if let Some(place) = page.page.frame.place() {
            let object = name(self.packs.locate(place).pack);
            let paths = page.above.as_ref().map(|above| (above.first.as_slice(), above.last.as_slice()));
            let (first, last) = paths.unwrap_or_default();
            report.touch(self.monitor, &object, &verdict.snapshot, (first, Some(last)), entries);
        }
    }

    async fn leaf(
        &mut self,
        reader: &SnapshotReader,
        page: &ChunkRef,
        entries: &[Entry],
        report: &mut CheckReport,
        verdict: &mut Verdict,
    ) -> Result<()> {
        verdict.entries += entries.len() as u64;
        let mut clean = true;
        for entry in entries {
            let mut objects = match &entry.content {
                Content::Inline(runs) => self.runs(reader, runs).await?,
                Content::Paged { depth, pages } => self.paged(reader, *depth, pages).await?,
            };
            if objects.is_empty() {
                continue;
            }
            objects.sort_unstable();
            objects.dedup();
            clean = false;
            verdict.entries_damaged += 1;
            report.affected_files += 1;
            for object in objects {
                let paths = (entry.path.as_slice(), None);
                report.touch(self.monitor, &name(object), &verdict.snapshot, paths, 1);
            }
        }
        if clean {
            self.clean.insert(page);
        }
        Ok(())
    }

    /// Damaged packs that a list of chunks in pages needs.
    async fn paged(
        &mut self,
        reader: &SnapshotReader,
        depth: u8,
        pages: &[(ChunkRef, u64)],
    ) -> Result<Vec<PackId>> {
        let mut objects = Vec::new();
        // A page with damage below it is not clean, and is opened once all the same.
        let mut met = Seen::within(LIST_BYTES);
        let listed = walk::runs_below(depth.max(1), pages, true);
        let mut pending: Vec<(Level, ChunkRef)> = listed.map(|(level, page)| (level, page.clone())).collect();
        while let Some((level, page)) = pending.pop() {
            self.cancel.check()?;
            if self.clean.has(&page) || !met.insert_named(&level, &page) {
                continue;
            }
            for (level, page, opened) in walk::open(reader, vec![(level, page)]).await? {
                self.runs_page(reader, (level, page, opened), &mut pending, &mut objects).await?;
            }
        }
        Ok(objects)
    }

    async fn runs_page(
        &mut self,
        reader: &SnapshotReader,
        (level, page, opened): Opened,
        pending: &mut Vec<(Level, ChunkRef)>,
        objects: &mut Vec<PackId>,
    ) -> Result<()> {
        match (level, opened) {
            _ if self.bad.has_page(&page) => {
                objects.extend(page.frame.place().map(|place| self.packs.locate(place).pack));
            }
            (_, Ok(Page::Runs(runs))) => {
                let found = self.runs(reader, &runs).await?;
                if found.is_empty() {
                    self.clean.insert(&page);
                }
                objects.extend(found);
                // One file may have millions of chunks in a few damaged packs.
                objects.sort_unstable();
                objects.dedup();
            }
            (Level::Runs(level @ 2.., _, is_end), Ok(Page::RunsInner(pages))) => {
                let below = walk::runs_below(level - 1, &pages, is_end);
                pending.extend(below.map(|(level, page)| (level, page.clone())));
            }
            _ => objects.extend(page.frame.place().map(|place| self.packs.locate(place).pack)),
        }
        Ok(())
    }

    /// Damaged packs that these runs need.
    async fn runs(&self, reader: &SnapshotReader, runs: &[Run]) -> Result<Vec<PackId>> {
        let mut objects: Vec<PackId> = Vec::new();
        for run in runs {
            let Run::Chunk(chunk) = run else { continue };
            let Some(place) = chunk.frame.place() else { continue };
            let at = self.packs.locate(place);
            if objects.last() == Some(&at.pack) {
                continue;
            }
            if self.packs.misfit(at, place.stored).is_some() || self.is_bad(reader, chunk, at).await? {
                objects.push(at.pack);
            }
        }
        Ok(objects)
    }

    async fn is_bad(
        &self,
        reader: &SnapshotReader,
        chunk: &ChunkRef,
        at: super::packs::Located,
    ) -> Result<bool> {
        if at.index.is_none() {
            return Ok(true);
        }
        match self.bad.frames.get(&at.pack) {
            Some(None) => return Ok(true),
            Some(Some(frames)) if frames.contains(&at.offset) => return Ok(true),
            _ => {}
        }
        if !self.read_doubtful || !self.bad.doubtful.contains(&at.pack) {
            return Ok(false);
        }
        match reader.chunk(chunk).await {
            Ok(_) => Ok(false),
            Err(error) => walk::damage(error).map(|_| true),
        }
    }
}
