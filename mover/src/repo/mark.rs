//! Marking: which frames the visible snapshots need. Anything that cannot be read stops it: what is not known to be
//! dead stays.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{Repository, ends::End, packs::Relocations};
use crate::{
    codec::{self, Cipher},
    error::{Error, Result},
    format::{
        entry::{Content, Run},
        frame::{ChunkRef, FrameKind, FramePlace},
        page::Page,
        session::{SessionKeyInfo, SessionName},
    },
    id::{ChunkId, PackId},
    monitor::{Monitor, Progress},
    store::ByteRange,
};

/// Frames that somebody needs, by pack: offset and stored bytes.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    packs: HashMap<PackId, BTreeMap<u32, u32>>,
}

impl Needed {
    /// Whether any frame of the pack is needed.
    pub(crate) fn has(&self, pack: PackId) -> bool {
        self.packs.contains_key(&pack)
    }

    /// Bytes of the pack that are needed.
    pub(crate) fn live_bytes(&self, pack: PackId) -> u64 {
        self.packs.get(&pack).map_or(0, |frames| frames.values().map(|stored| u64::from(*stored)).sum())
    }

    fn add(&mut self, relocations: &Relocations, place: &FramePlace) {
        // R3: a frame that was moved is needed where it is now, and only there.
        let (pack, offset) =
            relocations.lookup(place.pack, place.offset).unwrap_or((place.pack, place.offset));
        self.packs.entry(pack).or_default().insert(offset, place.stored);
    }
}

/// Pages that are read at once.
const PARALLEL_PAGES: usize = 16;

struct Marker {
    repository: Repository,
    relocations: Relocations,
    ciphers: HashMap<SessionName, Arc<Cipher>>,
    seen: HashSet<ChunkId>,
    waiting: Vec<ChunkRef>,
    needed: Needed,
}

impl Repository {
    /// Marks everything that visible snapshots need, in order V (C1, C5). Relocations are read after the ends.
    pub(crate) async fn mark(&self, monitor: &dyn Monitor) -> Result<Needed> {
        let names = self.visible("b").await?;
        let ends = self.ends_of(&names).await?;
        let mut marker = Marker {
            repository: self.clone(),
            relocations: self.relocations().await?,
            ciphers: HashMap::new(),
            seen: HashSet::new(),
            waiting: Vec::new(),
            needed: Needed::default(),
        };
        for (name, end) in ends {
            match end? {
                Some(End::Committed(snapshot)) => {
                    marker.learn(&snapshot.sessions)?;
                    if let Some(root) = &snapshot.root {
                        marker.want(&root.to_chunk());
                    }
                    marker.walk(monitor).await.map_err(|error| error.context(format!("snapshot {name}")))?;
                }
                // It may be forged or damaged, and nobody can tell: a person decides before anything goes.
                Some(End::Void(problem)) => {
                    return Err(Error::corrupt(format!("snapshot {name} cannot be believed: {problem}"))
                        .with_hint(format!(
                            "bring it back from a copy, or give it up: carrack forget {name}"
                        )));
                }
                Some(End::Fenced | End::Relocated(_)) | None => {}
            }
        }
        Ok(marker.needed)
    }
}

impl Marker {
    fn learn(&mut self, infos: &[SessionKeyInfo]) -> Result<()> {
        for info in infos {
            if !self.ciphers.contains_key(&info.session) {
                let key = self.repository.keys().session_metadata_key(info.generation, info.session)?;
                self.ciphers.insert(info.session, Arc::new(Cipher::new(info.suite, &key)));
            }
        }
        Ok(())
    }

    fn want(&mut self, page: &ChunkRef) {
        if let Some(place) = page.frame.place() {
            self.needed.add(&self.relocations, place);
        }
        // Equal pages of two snapshots are one page: it is walked once.
        if self.seen.insert(page.id) {
            self.waiting.push(page.clone());
        }
    }

    fn need(&mut self, chunk: &ChunkRef) {
        if let Some(place) = chunk.frame.place() {
            self.needed.add(&self.relocations, place);
        }
    }

    async fn walk(&mut self, monitor: &dyn Monitor) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        loop {
            while running.len() < PARALLEL_PAGES
                && let Some(page) = self.waiting.pop()
            {
                let place =
                    *page.frame.place().ok_or_else(|| Error::internal("a stored page has no place"))?;
                let cipher = self.ciphers.get(&place.session).cloned().ok_or_else(|| {
                    Error::corrupt(format!("the key of session {} is missing from its record", place.session))
                })?;
                let (repository, moved) =
                    (self.repository.clone(), self.relocations.lookup(place.pack, place.offset));
                running.spawn(async move { repository.open_page(&page, place, moved, &cipher).await });
            }
            let Some(joined) = running.join_next().await else { return Ok(()) };
            let page =
                joined.map_err(|error| Error::internal("reading a page broke").with_source(error))??;
            self.take(&page);
            Progress::add(&monitor.progress().entries, 1);
        }
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

impl Repository {
    async fn open_page(
        &self,
        page: &ChunkRef,
        place: FramePlace,
        moved: Option<(PackId, u32)>,
        cipher: &Cipher,
    ) -> Result<Page> {
        let (pack, offset) = moved.unwrap_or((place.pack, place.offset));
        let range = ByteRange::Slice { offset: offset.into(), length: place.stored.into() };
        let mut stored = self.read_pack(pack, range).await?.to_vec();
        let mut plain = Vec::new();
        codec::open_frame(cipher, FrameKind::Metadata, &place, &mut stored, &mut plain)?;
        if self.keys().chunk_id(&plain) != page.id {
            return Err(Error::corrupt(format!("the page at {offset} of pack {pack} is another")));
        }
        Page::from_bytes(&plain)
    }
}
