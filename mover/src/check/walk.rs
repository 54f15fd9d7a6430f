//! Opening every page of a snapshot, many at once, and each only once.

use std::collections::HashSet;

use tokio::task::JoinSet;

use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
        page::Page,
    },
    limits,
    reader::SnapshotReader,
};

/// Pages that one request fetches at most, if they lie next to each other.
const BATCH: usize = 8;
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
        if self.keys.len() >= self.limit { !self.has(page) } else { self.keys.insert(key(page)) }
    }
}

/// A page is known by its id and by its place: a second copy may be damaged where the first is whole.
fn key(page: &ChunkRef) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&page.id.0);
    if let Some(place) = page.frame.place() {
        hasher.update(&place.pack.0);
        hasher.update(&place.offset.to_le_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// Where a page stands: levels above its leaves (1 for them), in a tree or in a list of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Tree(u8),
    Runs(u8),
}

impl Level {
    fn fits(self, page: &Page) -> bool {
        matches!(
            (self, page),
            (Self::Tree(1), Page::Leaf(_))
                | (Self::Tree(2..), Page::Inner(_))
                | (Self::Runs(1), Page::Runs(_))
                | (Self::Runs(2..), Page::RunsInner(_))
        )
    }
}

/// Who looks at the pages.
pub(super) trait Visitor {
    /// A page is named: whether to open it.
    fn named(&mut self, page: &ChunkRef) -> bool;
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
            Ok(page) if !level.fits(&page) => Err(Error::corrupt("a page is on the wrong level")),
            other => other,
        };
        (level, chunk, page)
    };
    Ok(batch.into_iter().zip(together).map(judge).collect())
}

/// An error that speaks of damage; others (no answer, no permission, a newer format) end the check, because they
/// say nothing of what is stored.
pub(super) fn damage(error: Error) -> Result<Error> {
    let broken_disk = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error)
        == Some(rustix::io::Errno::IO.raw_os_error());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Corrupt => Ok(error),
        _ if broken_disk => Ok(error),
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
        push(&mut pending, visitor, Level::Tree(snapshot.depth), &root.to_chunk());
    }
    let mut running: JoinSet<Result<Vec<Opened>>> = JoinSet::new();
    loop {
        cancel.check()?;
        while running.len() < parallel && !pending.is_empty() {
            // Nearest last: turned round, neighbours ascend and are fetched together.
            let mut batch = pending.split_off(pending.len().saturating_sub(BATCH));
            batch.reverse();
            let reader = reader.clone();
            running.spawn(async move { open(&reader, batch).await });
        }
        let Some(joined) = running.join_next().await else { return Ok(()) };
        let opened = joined.map_err(|error| Error::internal("reading pages broke").with_source(error))??;
        for (level, chunk, page) in opened {
            match page {
                Ok(page) => {
                    visitor.opened();
                    below(level, &page, &mut pending, visitor);
                }
                Err(error) => visitor.broken(&chunk, &error),
            }
        }
    }
}

fn push(
    pending: &mut Vec<(Level, ChunkRef)>,
    visitor: &mut (dyn Visitor + Send),
    level: Level,
    page: &ChunkRef,
) {
    if visitor.named(page) {
        pending.push((level, page.clone()));
    }
}

/// Hands out what a page names.
fn below(
    level: Level,
    page: &Page,
    pending: &mut Vec<(Level, ChunkRef)>,
    visitor: &mut (dyn Visitor + Send),
) {
    let under = match level {
        Level::Tree(level) => Level::Tree(level.saturating_sub(1)),
        Level::Runs(level) => Level::Runs(level.saturating_sub(1)),
    };
    let chunks = |runs: &[Run], visitor: &mut (dyn Visitor + Send)| {
        runs.iter().for_each(|run| match run {
            Run::Chunk(chunk) => visitor.chunk(chunk),
            Run::Hole(_) => {}
        });
    };
    match page {
        Page::Inner(children) => {
            children.iter().rev().for_each(|child| push(pending, visitor, under, &child.page));
        }
        Page::RunsInner(pages) => {
            pages.iter().rev().for_each(|(page, _)| push(pending, visitor, under, page));
        }
        Page::Runs(runs) => chunks(runs, visitor),
        Page::Leaf(entries) => {
            for entry in entries.iter().rev() {
                match &entry.content {
                    Content::Inline(runs) => chunks(runs, visitor),
                    Content::Paged { depth, pages } => {
                        let level = Level::Runs((*depth).max(1));
                        pages.iter().rev().for_each(|(page, _)| push(pending, visitor, level, page));
                    }
                }
            }
        }
    }
}
