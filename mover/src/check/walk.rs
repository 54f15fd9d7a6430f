//! Opening every page of a snapshot, many at once, and each only once.

use std::collections::HashSet;

use tokio::task::JoinSet;

use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
        pack::is_newer,
        page::{Child, Page},
    },
    limits,
    reader::SnapshotReader,
};

/// Pages that one request fetches at most, if they lie next to each other.
const BATCH: usize = 8;
/// Plain bytes of pages that one request fetches, or one page: what a writer's largest take together.
const BATCH_BYTES: u64 = (BATCH * limits::PAGE_TARGET_MAX) as u64;
/// What a decoded page takes, in bytes, about.
const PAGE_BYTES: u64 = 4 * limits::PAGE_AVERAGE as u64;
/// What a remembered page takes, in bytes: its key, and the room that a hash table leaves free.
const KEY_BYTES: u64 = 40;

/// Pages that were seen before. When it is full, further pages count as new: they are walked again, and cost time.
#[derive(Debug)]
pub(super) struct Seen {
    keys: HashSet<[u8; 16]>,
    limit: usize,
}

impl Seen {
    /// In this many bytes.
    pub(super) fn within(memory_bytes: u64) -> Self {
        Self { keys: HashSet::new(), limit: usize::try_from(memory_bytes / KEY_BYTES).unwrap_or(usize::MAX) }
    }

    pub(super) fn has(&self, page: &ChunkRef) -> bool {
        self.keys.contains(&key(page))
    }

    /// Whether it is new.
    pub(super) fn insert(&mut self, page: &ChunkRef) -> bool {
        self.insert_key(key(page))
    }

    /// Whether it is new, or something else is said of it than before.
    pub(super) fn insert_named(&mut self, level: &Level, page: &ChunkRef) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key(page));
        match level {
            Level::Tree(_, None) => {}
            Level::Tree(_, Some(above)) => {
                hasher.update(&(above.first.len() as u64).to_le_bytes());
                hasher.update(&above.first).update(&above.last).update(&above.entries.to_le_bytes());
            }
            Level::Runs(_, bytes, is_last) => {
                hasher.update(&bytes.to_le_bytes()).update(&[u8::from(*is_last)]);
            }
        }
        self.insert_key(half(&hasher))
    }

    fn insert_key(&mut self, key: [u8; 16]) -> bool {
        if self.keys.len() >= self.limit { !self.keys.contains(&key) } else { self.keys.insert(key) }
    }
}

/// A page is known by its id and by its place: a second copy may be damaged where the first is whole.
pub(super) fn key(page: &ChunkRef) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&page.id.0);
    if let Some(place) = page.frame.place() {
        hasher.update(&place.pack.0);
        hasher.update(&place.offset.to_le_bytes());
    }
    half(&hasher)
}

fn half(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// Where a page stands: levels above its leaves (1 for them), in a tree or in a list of runs; and what the page above
/// says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    /// Nothing is said of a root.
    Tree(u8, Option<Box<Child>>),
    /// Bytes of contents below it, and whether nothing of the list comes behind it.
    Runs(u8, u64, bool),
}

impl Level {
    fn judge(&self, page: &Page) -> Result<()> {
        let (fits, described) = match (self, page) {
            (Self::Tree(level, above), Page::Leaf(_) | Page::Inner(_)) => (
                (*level == 1) == matches!(page, Page::Leaf(_)) && *level > 0,
                above.as_ref().is_none_or(|above| above.describes(page)),
            ),
            (Self::Runs(level, bytes, is_last), Page::Runs(_) | Page::RunsInner(_)) => (
                (*level == 1) == matches!(page, Page::Runs(_)) && *level > 0,
                page.stands_for(*bytes, *is_last),
            ),
            _ => (false, true),
        };
        match (fits, described) {
            (false, _) => Err(Error::corrupt("a page is on the wrong level")),
            (true, false) => Err(Error::corrupt("a page is not what the page above says")),
            (true, true) => Ok(()),
        }
    }
}

/// Who looks at the pages.
pub(super) trait Visitor {
    /// A page is named: whether to open it.
    fn named(&mut self, level: &Level, page: &ChunkRef) -> bool;
    /// A chunk of contents is named.
    fn chunk(&mut self, chunk: &ChunkRef);
    /// A page was opened.
    fn opened(&mut self);
    /// A page is damaged.
    fn broken(&mut self, page: &ChunkRef, error: &Error);
}

/// A page, or why it cannot be read.
pub(super) type Opened = (Level, ChunkRef, Result<Page>);

/// Opens pages; if one of them cannot be read, each is opened by itself.
pub(super) async fn open(reader: &SnapshotReader, batch: Vec<(Level, ChunkRef)>) -> Result<Vec<Opened>> {
    let chunks: Vec<ChunkRef> = batch.iter().map(|(_, chunk)| chunk.clone()).collect();
    let together = match reader.pages(&chunks).await {
        Ok(pages) => pages.into_iter().map(Ok).collect(),
        Err(error) if batch.len() == 1 => vec![Err(damage(error)?)],
        Err(error) => {
            damage(error)?;
            let mut pages = Vec::with_capacity(chunks.len());
            for chunk in chunks.chunks(1) {
                match reader.pages(chunk).await {
                    Ok(page) => pages.extend(page.into_iter().map(Ok)),
                    Err(error) => pages.push(Err(damage(error)?)),
                }
            }
            pages
        }
    };
    let judge = |((level, chunk), page): ((Level, ChunkRef), Result<Page>)| {
        let page = match page {
            Ok(page) => level.judge(&page).map(|()| page),
            damaged => damaged,
        };
        (level, chunk, page)
    };
    Ok(batch.into_iter().zip(together).map(judge).collect())
}

/// An error that speaks of damage; others (no answer, no permission) end the check, because they say nothing of what is
/// stored. In a repository whose `format` is known there is nothing newer: what claims to be was changed.
pub(super) fn damage(error: Error) -> Result<Error> {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Corrupt => Ok(error),
        _ if error.is_of_broken_disk() || is_newer(&error) => Ok(error),
        _ => Err(error),
    }
}

/// Walks everything below the root of a snapshot.
pub(super) async fn walk(
    reader: &SnapshotReader,
    memory_bytes: u64,
    visitor: &mut (dyn Visitor + Send),
    cancel: &Cancel,
) -> Result<()> {
    let snapshot = reader.snapshot();
    let parallel = usize::try_from(memory_bytes / PAGE_BYTES / BATCH as u64).unwrap_or(usize::MAX);
    let parallel = parallel.clamp(1, reader.access().parallel_reads());
    let mut pending: Vec<(Level, ChunkRef)> = Vec::new();
    if let Some(root) = &snapshot.root {
        push(&mut pending, visitor, Level::Tree(snapshot.depth, None), &root.to_chunk());
    }
    let mut running: JoinSet<(u64, Result<Vec<Opened>>)> = JoinSet::new();
    let mut in_memory = 0;
    loop {
        cancel.check()?;
        // How much a page unpacks to is decided by whoever wrote it.
        while running.is_empty() || (running.len() < parallel && in_memory + BATCH_BYTES <= memory_bytes) {
            let Some((bytes, batch)) = next_batch(&mut pending) else { break };
            in_memory += bytes;
            let reader = reader.clone();
            running.spawn(async move { (bytes, open(&reader, batch).await) });
        }
        let Some(joined) = running.join_next().await else { return Ok(()) };
        let (bytes, opened) =
            joined.map_err(|error| Error::internal("reading pages broke").with_source(error))?;
        in_memory -= bytes;
        for (level, chunk, page) in opened? {
            match page {
                Ok(page) => {
                    visitor.opened();
                    below(&level, &page, &mut pending, visitor);
                }
                Err(error) => visitor.broken(&chunk, &error),
            }
        }
    }
}

/// The nearest pages, which lie last, in ascending order, so that neighbours are fetched together; with their bytes.
fn next_batch(pending: &mut Vec<(Level, ChunkRef)>) -> Option<(u64, Vec<(Level, ChunkRef)>)> {
    let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
    while batch.len() < BATCH
        && let Some(next) =
            pending.pop_if(|(_, page)| batch.is_empty() || bytes + plain_bytes(page) <= BATCH_BYTES)
    {
        bytes += plain_bytes(&next.1);
        batch.push(next);
    }
    (!batch.is_empty()).then_some((bytes, batch))
}

fn plain_bytes(page: &ChunkRef) -> u64 {
    page.frame.place().map_or(0, |place| place.plain.into())
}

fn push(
    pending: &mut Vec<(Level, ChunkRef)>,
    visitor: &mut (dyn Visitor + Send),
    level: Level,
    page: &ChunkRef,
) {
    if visitor.named(&level, page) {
        pending.push((level, page.clone()));
    }
}

/// Pages of a list of runs on this level, and where they stand; of its end if nothing of the list comes behind them.
pub(super) fn runs_below(
    level: u8,
    pages: &[(ChunkRef, u64)],
    is_end: bool,
) -> impl DoubleEndedIterator<Item = (Level, &ChunkRef)> {
    let last = pages.len().saturating_sub(1);
    let placed = pages.iter().enumerate();
    placed.map(move |(at, (page, bytes))| (Level::Runs(level, *bytes, is_end && at == last), page))
}

/// Hands out what a page names.
fn below(
    level: &Level,
    page: &Page,
    pending: &mut Vec<(Level, ChunkRef)>,
    visitor: &mut (dyn Visitor + Send),
) {
    let is_end = matches!(level, Level::Runs(_, _, true));
    let (Level::Tree(level, _) | Level::Runs(level, ..)) = level;
    let under = level.saturating_sub(1);
    let chunks = |runs: &[Run], visitor: &mut (dyn Visitor + Send)| {
        runs.iter().for_each(|run| match run {
            Run::Chunk(chunk) => visitor.chunk(chunk),
            Run::Hole(_) => {}
        });
    };
    match page {
        Page::Inner(children) => {
            for child in children.iter().rev() {
                push(pending, visitor, Level::Tree(under, Some(Box::new(child.clone()))), &child.page);
            }
        }
        Page::RunsInner(pages) => {
            for (level, page) in runs_below(under, pages, is_end).rev() {
                push(pending, visitor, level, page);
            }
        }
        Page::Runs(runs) => chunks(runs, visitor),
        Page::Leaf(entries) => {
            for entry in entries.iter().rev() {
                match &entry.content {
                    Content::Inline(runs) => chunks(runs, visitor),
                    Content::Paged { depth, pages } => {
                        for (level, page) in runs_below((*depth).max(1), pages, true).rev() {
                            push(pending, visitor, level, page);
                        }
                    }
                }
            }
        }
    }
}
