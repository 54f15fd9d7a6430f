//! Marking: which frames the visible snapshots need. Anything that cannot be read stops it: what is not known to be
//! dead stays.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Repository,
    ends::{End, is_doubt, parent_of},
    packs::Relocations,
    survey::Survey,
};
use crate::{
    cancel::Cancel,
    codec::{self, Cipher},
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Run},
        frame::{ChunkRef, FrameKind, FramePlace},
        pack::pack_object,
        page::Page,
        records::Snapshot,
        session::{SessionKeyInfo, SessionKind, SessionName},
    },
    id::PackId,
    limits,
    monitor::{Monitor, Progress},
    store::ByteRange,
};

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

/// Whoever wants to know what is needed.
pub(crate) trait Needs: Send {
    /// A frame of `stored` bytes is needed. May be told more than once.
    fn frame(&mut self, pack: PackId, offset: u32, stored: u32);
}

/// Who watches a mark, and may stop it.
#[derive(Debug, Clone, Copy)]
pub struct Watch<'w> {
    /// Who is told.
    pub monitor: &'w dyn Monitor,
    /// Who may stop it.
    pub cancel: &'w Cancel,
}

/// What a mark found besides the frames.
#[derive(Debug)]
pub(crate) struct Marked {
    /// What it was made from.
    pub(crate) survey: Survey,
    /// Sessions that were shut out or gave up.
    pub(crate) fenced: Vec<SessionName>,
    /// Repacks that somebody's frame is found through.
    pub(crate) relocations_needed: HashSet<SessionName>,
    /// All visible relocations.
    pub(crate) relocations: Relocations,
}

/// Ranges of pages that are read at once.
const PARALLEL_RANGES: usize = 16;
/// Pages that wait for one round of ranges: neighbours among them share a request.
const PAGES_PER_ROUND: usize = 256;
/// Bytes of one range of pages at most, and bytes between two pages that are rather read than asked around.
const RANGE_BYTES: u64 = 2 << 20;
const RANGE_GAP_BYTES: u64 = 64 << 10;
/// Bytes that the pages of one range unpack to at most, or one page; and those of all ranges that are read at once:
/// what a short range unpacks to is decided by whoever wrote it.
const RANGE_PLAIN_BYTES: u64 = 8 << 20;
const PLAIN_BYTES_AT_ONCE: u64 = 32 << 20;
/// Pages that are remembered as walked, 16 bytes each; when there are more, shared ones are walked again, which
/// costs time and no safety.
const PAGES_SEEN: usize = 1 << 20;
/// Ciphers that are kept from one snapshot to the next, about 500 bytes each.
const CIPHERS_KEPT: usize = 4096;
/// Ends that are read before their trees are walked, some kilobytes each.
pub(super) const ENDS_PER_ROUND: usize = 256;

/// How often a mark begins anew: an object that a store loses again and again is a store to look at.
const MARKS: u32 = 4;

struct Marker<'n> {
    repository: Repository,
    relocations: Relocations,
    relocations_needed: HashSet<SessionName>,
    ciphers: HashMap<SessionName, Arc<Cipher>>,
    seen: HashSet<u128>,
    waiting: Vec<ChunkRef>,
    last: Option<(PackId, u32)>,
    needs: &'n mut dyn Needs,
}

impl Repository {
    /// Marks everything that visible snapshots need, in order V (C1, C5).
    pub(crate) async fn mark(&self, needs: &mut dyn Needs, watch: Watch<'_>) -> Result<Marked> {
        for _ in 0..MARKS {
            if let Some(marked) = self.mark_once(needs, watch).await? {
                return Ok(marked);
            }
        }
        Err(Error::unavailable(format!("in {MARKS} looks, what was listed was gone, or the other way round"))
            .with_hint("run the same command again when nothing else deletes or restores objects"))
    }

    /// Relocations are read after the ends (R3). None: what was listed is not of one moment (AGAIN). What was needed by
    /// then may be named although it is no more.
    async fn mark_once(&self, needs: &mut dyn Needs, watch: Watch<'_>) -> Result<Option<Marked>> {
        let survey = self.survey().await?;
        let (relocations, mut doubtful) = self.relocations().await?;
        // What was lost is not what was to go.
        let lost = self.lost_sessions(&survey).await?;
        if lost.has_unknown {
            self.check_keys_unchanged().await?;
        }
        if lost.has_changed {
            return Ok(None);
        }
        let known: BTreeSet<SessionName> = doubtful.iter().map(|(session, _)| *session).collect();
        // A repack without its session is among the doubts of the relocations already.
        doubtful.extend(lost.found.into_iter().filter(|(session, _)| !known.contains(session)));
        let mut has_changed = false;
        let (mut fenced, mut shut_out, mut parents) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut marker = Marker::new(self, relocations, needs);
        for names in survey.visible(SessionKind::Backup).chunks(ENDS_PER_ROUND) {
            for (name, end) in self.ends_of(names).await? {
                match end {
                    Ok(Some(End::Committed(snapshot))) => {
                        parents.extend(parent_of(&snapshot));
                        if doubtful.is_empty()
                            && let Err(error) = marker.snapshot(&snapshot, watch).await
                            && !(error.kind() == ErrorKind::Corrupt && self.is_gone(name).await?)
                        {
                            return Err(error);
                        }
                    }
                    Ok(Some(End::Void(problem))) => doubtful.push((name, not_believed(name, &problem))),
                    Ok(Some(End::Fenced { cleaned_up })) => {
                        fenced.push(name);
                        shut_out.extend((!cleaned_up).then_some(name));
                    }
                    Ok(Some(End::Gone) | None) => has_changed |= self.vanished(name).await?,
                    Ok(Some(End::Relocated(_))) => {}
                    Err(error) if is_doubt(&error) => doubtful.push((name, error)),
                    Err(error) => return Err(error),
                }
            }
        }
        let (marks, _) = self.marks("marks/", "").await?;
        let lost = self.lost_ends(&survey, parents, &marks, &shut_out).await?;
        if has_changed || lost.has_changed {
            return Ok(None);
        }
        doubtful.extend(lost.found);
        self.refuse_doubts(doubtful).await?;
        let Marker { relocations_needed, relocations, .. } = marker;
        for names in survey.visible(SessionKind::Repack).chunks(ENDS_PER_ROUND) {
            let ends = self.ends_of(names).await?;
            fenced.extend(
                ends.into_iter()
                    .filter(|(_, end)| matches!(end, Ok(Some(End::Fenced { .. }))))
                    .map(|(name, _)| name),
            );
        }
        Ok(Some(Marked { survey, fenced, relocations_needed, relocations }))
    }
}

impl Repository {
    /// Nothing may be in doubt. What does not verify may only be signed with a key newer than these (KEYS).
    async fn refuse_doubts(&self, doubtful: Vec<(SessionName, Error)>) -> Result<()> {
        if !doubtful.is_empty() {
            self.check_keys_unchanged().await?;
        }
        undoubted(doubtful)
    }

    /// Whether a snapshot that was visible is no more: somebody else may have forgotten it, and freed what it needed,
    /// since it was listed.
    async fn is_gone(&self, session: SessionName) -> Result<bool> {
        match self.snapshot(session).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if is_doubt(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What is doubtful may be forged or damaged, and nobody can tell: a person decides before anything goes.
fn undoubted(doubtful: Vec<(SessionName, Error)>) -> Result<()> {
    let others = doubtful.len().saturating_sub(1);
    let mut kinds = doubtful.iter().map(|(_, error)| error.kind());
    let kind = kinds.next().filter(|first| kinds.all(|kind| kind == *first)).unwrap_or(ErrorKind::Corrupt);
    match doubtful.into_iter().next() {
        None => Ok(()),
        Some((_, first)) if others == 0 => Err(first),
        Some((_, first)) => {
            let words = format!("{}, and {others} others are in doubt", first.in_one_line());
            Err(Error::new(kind, words).with_hint(
                "see who may write to the store, and what it is: carrack snapshots; bring back from a copy what was \
                 damaged, and give up all the others: carrack forget --unreadable",
            ))
        }
    }
}

/// Nothing goes while something is missing that is needed.
pub(super) fn missing(pack: PackId) -> Error {
    Error::corrupt(format!("object {} is missing, and snapshots need it", pack_object(pack, 0))).with_hint(
        "bring it back from a copy, or forget the snapshots that carrack check names; if another prune was at work, \
         run this one again",
    )
}

impl Repository {
    /// Marks what one snapshot needs; answers with the repacks that it needs too.
    pub(super) async fn needs_of(
        &self,
        snapshot: &Snapshot,
        needs: &mut dyn Needs,
        watch: Watch<'_>,
    ) -> Result<HashSet<SessionName>> {
        let (relocations, doubtful) = self.relocations().await?;
        self.refuse_doubts(doubtful).await?;
        let mut marker = Marker::new(self, relocations, needs);
        marker.snapshot(snapshot, watch).await?;
        Ok(marker.relocations_needed)
    }
}

fn not_believed(name: SessionName, problem: &str) -> Error {
    Error::corrupt(format!("snapshot {name} cannot be believed: {problem}"))
        .with_hint(format!("bring it back from a copy, or give it up: carrack forget {name}"))
}

impl<'n> Marker<'n> {
    fn new(repository: &Repository, relocations: Relocations, needs: &'n mut dyn Needs) -> Self {
        Self {
            repository: repository.clone(),
            relocations,
            relocations_needed: HashSet::new(),
            ciphers: HashMap::new(),
            seen: HashSet::new(),
            waiting: Vec::new(),
            last: None,
            needs,
        }
    }

    async fn snapshot(&mut self, snapshot: &Snapshot, watch: Watch<'_>) -> Result<()> {
        self.learn(&snapshot.sessions)?;
        if let Some(root) = &snapshot.root {
            self.want(&root.to_chunk());
        }
        self.walk(watch).await.map_err(|error| error.context(format!("snapshot {}", snapshot.session)))
    }

    fn learn(&mut self, infos: &[SessionKeyInfo]) -> Result<()> {
        if self.ciphers.len() > CIPHERS_KEPT {
            self.ciphers.clear();
        }
        for info in infos {
            if !self.ciphers.contains_key(&info.session) {
                let key = self.repository.keys().session_metadata_key(info.generation, info.session)?;
                self.ciphers.insert(info.session, Arc::new(Cipher::new(info.suite, &key)));
            }
        }
        Ok(())
    }

    fn want(&mut self, page: &ChunkRef) {
        self.need(page);
        if self.seen.len() >= PAGES_SEEN {
            self.seen.clear();
        }
        // Equal pages of two snapshots are one page: it is walked once.
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&page.id.0[..16]);
        if self.seen.insert(u128::from_le_bytes(prefix)) {
            self.waiting.push(page.clone());
        }
    }

    fn need(&mut self, chunk: &ChunkRef) {
        let Some(place) = chunk.frame.place() else { return };
        // Neighbouring chunks are in one frame.
        if self.last.replace((place.pack, place.offset)) == Some((place.pack, place.offset)) {
            return;
        }
        // R3: a frame that was moved is needed where it is now, and only there.
        let used = &mut self.relocations_needed;
        let moved = self.relocations.lookup_through(place.pack, place.offset, |session| {
            used.insert(session);
        });
        let (pack, offset) = moved.unwrap_or((place.pack, place.offset));
        self.needs.frame(pack, offset, place.stored);
    }

    async fn walk(&mut self, watch: Watch<'_>) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        let mut ready: Vec<Vec<WantedPage>> = Vec::new();
        let mut in_memory = 0;
        loop {
            watch.cancel.check()?;
            if ready.is_empty() && running.len() < PARALLEL_RANGES && !self.waiting.is_empty() {
                ready = self.next_ranges()?;
            }
            while let Some(range) = ready.pop_if(|range| {
                running.is_empty()
                    || (running.len() < PARALLEL_RANGES
                        && in_memory + plain_bytes(range) <= PLAIN_BYTES_AT_ONCE)
            }) {
                in_memory += plain_bytes(&range);
                let repository = self.repository.clone();
                running.spawn(async move { (plain_bytes(&range), repository.open_pages(range).await) });
            }
            let Some(joined) = running.join_next().await else { return Ok(()) };
            let (bytes, pages) =
                joined.map_err(|error| Error::internal("reading a page broke").with_source(error))?;
            in_memory -= bytes;
            let pages = pages?;
            Progress::add(&watch.monitor.progress().entries, pages.len() as u64);
            for page in pages {
                self.take(&page);
            }
        }
    }

    /// Some of the waiting pages, those next to each other together.
    fn next_ranges(&mut self) -> Result<Vec<Vec<WantedPage>>> {
        let from = self.waiting.len().saturating_sub(PAGES_PER_ROUND);
        let mut wanted = Vec::new();
        for page in self.waiting.split_off(from) {
            let place = *page.frame.place().ok_or_else(|| Error::internal("a stored page has no place"))?;
            let cipher = self.ciphers.get(&place.session).cloned().ok_or_else(|| {
                Error::corrupt(format!("the key of session {} is missing from its record", place.session))
            })?;
            if place.plain as usize > limits::PAGE_LIMIT || place.stored as usize > limits::PAGE_LIMIT + 4096
            {
                return Err(Error::corrupt(format!("a page in pack {} is longer than any page", place.pack)));
            }
            let at = self.relocations.lookup(place.pack, place.offset).unwrap_or((place.pack, place.offset));
            wanted.push(WantedPage { page, place, at, cipher });
        }
        wanted.sort_unstable_by_key(|page| page.at);
        let mut ranges: Vec<Vec<WantedPage>> = Vec::new();
        for page in wanted {
            match ranges.last_mut() {
                Some(range)
                    if page.joins(&range[0], &range[range.len() - 1])
                        && plain_bytes(range) + u64::from(page.place.plain) <= RANGE_PLAIN_BYTES =>
                {
                    range.push(page);
                }
                _ => ranges.push(vec![page]),
            }
        }
        Ok(ranges)
    }

    fn take(&mut self, page: &Page) {
        match page {
            Page::Inner(children) => children.iter().for_each(|child| self.want(&child.page)),
            Page::RunsInner(pages) => pages.iter().for_each(|(page, _)| self.want(page)),
            Page::Runs(runs) => self.take_runs(runs),
            Page::Leaf(entries) => {
                for entry in entries {
                    match &entry.content {
                        Content::Inline(runs) => self.take_runs(runs),
                        Content::Paged { pages, .. } => pages.iter().for_each(|(page, _)| self.want(page)),
                    }
                }
            }
        }
    }

    fn take_runs(&mut self, runs: &[Run]) {
        for run in runs {
            if let Run::Chunk(chunk) = run {
                self.need(chunk);
            }
        }
    }
}

/// A page to read: what it must be, where it was written, and where it is now.
struct WantedPage {
    page: ChunkRef,
    place: FramePlace,
    at: (PackId, u32),
    cipher: Arc<Cipher>,
}

impl WantedPage {
    fn end(&self) -> u64 {
        u64::from(self.at.1) + u64::from(self.place.stored)
    }

    fn joins(&self, first: &Self, last: &Self) -> bool {
        self.at.0 == first.at.0
            && u64::from(self.at.1) <= last.end() + RANGE_GAP_BYTES
            && self.end() - u64::from(first.at.1) <= RANGE_BYTES
    }
}

fn plain_bytes(range: &[WantedPage]) -> u64 {
    range.iter().map(|page| u64::from(page.place.plain)).sum()
}

impl Repository {
    async fn open_pages(&self, wanted: Vec<WantedPage>) -> Result<Vec<Page>> {
        match self.open_together(&wanted).await {
            // Of two sendings, one may have one page whole and the other another.
            Err(error) if error.kind() == ErrorKind::Corrupt && wanted.len() > 1 => {
                let mut pages = Vec::with_capacity(wanted.len());
                for page in wanted.chunks(1) {
                    pages.extend(self.open_together(page).await?);
                }
                Ok(pages)
            }
            opened => opened,
        }
    }

    /// Pages that are read at once, from a sending that has all of them whole.
    async fn open_together(&self, wanted: &[WantedPage]) -> Result<Vec<Page>> {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(Vec::new()) };
        let start = first.at.1;
        let end = wanted.iter().map(WantedPage::end).max().unwrap_or_else(|| last.end());
        let range = ByteRange::Slice { offset: start.into(), length: end - u64::from(start) };
        let open = |bytes| wanted.iter().map(|page| self.open_page(page, start, &bytes)).collect();
        self.open_part(first.at.0, range, open).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing(first.at.0),
            _ => error,
        })
    }

    fn open_page(&self, wanted: &WantedPage, start: u32, bytes: &Bytes) -> Result<Page> {
        let (pack, offset) = wanted.at;
        let from = (offset - start) as usize;
        let mut stored = bytes[from..from + wanted.place.stored as usize].to_vec();
        let mut plain = Vec::new();
        codec::open_frame(&wanted.cipher, FrameKind::Metadata, &wanted.place, &mut stored, &mut plain)
            .map_err(|error| error.context(format!("the page at {offset} of pack {pack}")))?;
        if self.keys().chunk_id(&plain) != wanted.page.id {
            return Err(Error::corrupt(format!("the page at {offset} of pack {pack} is another")));
        }
        Page::from_bytes(&plain)
    }
}
