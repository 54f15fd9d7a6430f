//! Walking a tree in its order, from any path, with few requests: the leaves below one inner page lie next to
//! each other and are fetched together.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::SnapshotReader;
use crate::{
    error::{Error, Result},
    format::{
        entry::Entry,
        frame::ChunkRef,
        metadata::Kind,
        order::{compare_paths, split_path},
        page::{Child, Page},
    },
    limits,
};

#[cfg(test)]
mod tests;

/// Pages that are fetched at once at most: bounds what lies decoded in memory to some MiB.
const PAGES_AT_ONCE: usize = 8;
/// Plain bytes of pages that are fetched at once, or one page: what a writer's largest take together.
const BYTES_AT_ONCE: usize = PAGES_AT_ONCE * limits::PAGE_TARGET_MAX;

/// Which part of a tree to walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The entry at this path and everything below it; empty for all.
    pub path: Vec<u8>,
    /// Not below sub-directories of the path: only itself and its names.
    pub shallow: bool,
}

impl Part {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// A path and what is below it.
    pub fn below(path: &[u8]) -> Self {
        Self { path: path.to_vec(), shallow: false }
    }

    /// A directory and its names.
    pub fn directory(path: &[u8]) -> Self {
        Self { path: path.to_vec(), shallow: true }
    }

    /// Whether the entry belongs to the part.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        path == self.path || self.position(path) == Ordering::Equal
    }

    /// Where a path stands to what is below the part's path: before it, in it, or behind it.
    fn position(&self, path: &[u8]) -> Ordering {
        let below = if self.path.is_empty() {
            Some(path)
        } else {
            path.strip_prefix(self.path.as_slice()).and_then(|rest| rest.strip_prefix(b"/"))
        };
        match below {
            Some(rest) if self.shallow && rest.contains(&b'/') => Ordering::Greater,
            Some(_) => Ordering::Equal,
            None => {
                // What is below a path is contiguous, so any path of it tells where another one stands.
                let mut within = self.path.clone();
                within.extend_from_slice(b"/x");
                compare_paths(path, &within)
            }
        }
    }

    /// Whether a page from `first` to `last` can hold something of the part.
    pub(crate) fn touches(&self, first: &[u8], last: &[u8]) -> bool {
        let holds_itself = !self.path.is_empty()
            && compare_paths(first, &self.path).is_le()
            && compare_paths(&self.path, last).is_le();
        holds_itself || (self.position(last) != Ordering::Less && self.position(first) != Ordering::Greater)
    }
}

/// A page still to open.
#[derive(Debug)]
struct Pending {
    /// 1 for leaves.
    level: u8,
    page: ChunkRef,
    /// What the page above says of it; nothing of the root.
    above: Option<Child>,
}

/// A walk under way.
#[derive(Debug)]
pub struct TreeWalk {
    reader: SnapshotReader,
    part: Part,
    backwards: bool,
    /// Pages still to open, nearest last.
    pending: Vec<Pending>,
    leaves: VecDeque<Vec<Entry>>,
}

impl TreeWalk {
    /// Walks a part of the snapshot's tree in tree order.
    pub fn new(reader: &SnapshotReader, part: Part) -> Result<Self> {
        Self::start(reader, part, false)
    }

    /// The same in the opposite order: what is in a directory comes before the directory.
    pub fn backwards(reader: &SnapshotReader, part: Part) -> Result<Self> {
        Self::start(reader, part, true)
    }

    fn start(reader: &SnapshotReader, part: Part, backwards: bool) -> Result<Self> {
        let snapshot = reader.snapshot();
        let mut pending = Vec::new();
        if let Some(root) = &snapshot.root {
            if snapshot.depth == 0 || snapshot.depth > limits::TREE_DEPTH {
                return Err(Error::corrupt(format!(
                    "the tree of snapshot {} has {} levels",
                    snapshot.session, snapshot.depth
                )));
            }
            pending.push(Pending { level: snapshot.depth, page: root.to_chunk(), above: None });
        }
        Ok(Self { reader: reader.clone(), part, backwards, pending, leaves: VecDeque::new() })
    }

    /// The entries of the next leaf that belong to the part; `None` at the end.
    pub async fn next_leaf(&mut self) -> Result<Option<Vec<Entry>>> {
        loop {
            if let Some(leaf) = self.leaves.pop_front() {
                return Ok(Some(leaf));
            }
            let Some((level, mut batch, above)) = self.next_batch() else { return Ok(None) };
            // Requests are merged for ascending places only.
            let turn = self.backwards && batch.len() > 1;
            if turn {
                batch.reverse();
            }
            let mut pages = self.reader.pages(&batch).await?;
            if turn {
                pages.reverse();
            }
            for (page, above) in pages.into_iter().zip(above) {
                if above.is_some_and(|above| !above.describes(&page)) {
                    return Err(Error::corrupt(format!(
                        "a page of the tree of snapshot {} is not what the page above says",
                        self.reader.snapshot().session
                    )));
                }
                self.take_page(level, page)?;
            }
        }
    }

    /// Pages of one level that are fetched together, the nearest first.
    fn next_batch(&mut self) -> Option<(u8, Vec<ChunkRef>, Vec<Option<Child>>)> {
        let level = self.pending.last()?.level;
        let many = if level == 1 { PAGES_AT_ONCE } else { 1 };
        let (mut batch, mut above, mut bytes) = (Vec::with_capacity(many), Vec::with_capacity(many), 0);
        while batch.len() < many
            && let Some(next) = self.pending.pop_if(|next| {
                next.level == level && (batch.is_empty() || bytes + plain_bytes(&next.page) <= BYTES_AT_ONCE)
            })
        {
            bytes += plain_bytes(&next.page);
            batch.push(next.page);
            above.push(next.above);
        }
        Some((level, batch, above))
    }

    fn take_page(&mut self, level: u8, page: Page) -> Result<()> {
        match page {
            Page::Leaf(mut entries) if level == 1 => {
                entries.retain(|entry| self.part.has(&entry.path));
                if self.backwards {
                    entries.reverse();
                }
                if !entries.is_empty() {
                    self.leaves.push_back(entries);
                }
                Ok(())
            }
            Page::Inner(children) if level > 1 => {
                let wanted = |child: &Child| self.part.touches(&child.first, &child.last);
                let pending = |child: Child| {
                    let page = child.page.clone();
                    Pending { level: level - 1, page, above: Some(child) }
                };
                let mut chosen: Vec<_> = children.into_iter().filter(wanted).map(pending).collect();
                if !self.backwards {
                    chosen.reverse();
                }
                self.pending.append(&mut chosen);
                Ok(())
            }
            _ => Err(Error::corrupt(format!(
                "a page of the tree of snapshot {} is on the wrong level",
                self.reader.snapshot().session
            ))),
        }
    }
}

/// Bytes of the frame that a page is in.
pub(super) fn plain_bytes(page: &ChunkRef) -> usize {
    page.frame.place().map_or(0, |place| place.plain as usize)
}

impl SnapshotReader {
    /// Walks a part of the tree in order.
    pub fn entries(&self, part: Part) -> Result<TreeWalk> {
        TreeWalk::new(self, part)
    }

    /// The entry at a path, through the page cache.
    pub async fn lookup(&self, path: &[u8]) -> Result<Option<Entry>> {
        let snapshot = self.snapshot();
        let Some(root) = &snapshot.root else { return Ok(None) };
        let mut chunk = root.to_chunk();
        for _ in 0..limits::TREE_DEPTH {
            match &*self.page(&chunk).await? {
                Page::Leaf(entries) => {
                    let found = entries.binary_search_by(|entry| compare_paths(&entry.path, path));
                    return Ok(found.ok().map(|index| entries[index].clone()));
                }
                Page::Inner(children) => {
                    let index = children.partition_point(|child| compare_paths(&child.last, path).is_lt());
                    match children.get(index) {
                        Some(child) if compare_paths(&child.first, path).is_le() => {
                            chunk = child.page.clone();
                        }
                        _ => return Ok(None),
                    }
                }
                Page::Runs(_) | Page::RunsInner(_) => break,
            }
        }
        Err(Error::corrupt(format!("the tree of snapshot {} is malformed", snapshot.session)))
    }

    /// Whether a directory holds anything, through the page cache: whether what follows the place of an empty name
    /// in it is still below it.
    pub async fn has_names(&self, directory: &[u8]) -> Result<bool> {
        let snapshot = self.snapshot();
        let Some(root) = &snapshot.root else { return Ok(false) };
        let below = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let mut chunk = root.to_chunk();
        for _ in 0..limits::TREE_DEPTH {
            match &*self.page(&chunk).await? {
                Page::Leaf(entries) => {
                    let index = entries.partition_point(|entry| compare_paths(&entry.path, &below).is_lt());
                    return Ok(entries.get(index).is_some_and(|entry| entry.path.starts_with(&below)));
                }
                Page::Inner(children) => {
                    let index = children.partition_point(|child| compare_paths(&child.last, &below).is_lt());
                    let Some(child) = children.get(index) else { return Ok(false) };
                    chunk = child.page.clone();
                }
                Page::Runs(_) | Page::RunsInner(_) => break,
            }
        }
        Err(Error::corrupt(format!("the tree of snapshot {} is malformed", snapshot.session)))
    }

    /// The names of a directory in order; empty for a path that has none below it.
    pub async fn list(&self, directory: &[u8]) -> Result<Vec<Entry>> {
        let mut walk = self.entries(Part::directory(directory))?;
        let mut names = Vec::new();
        while let Some(leaf) = walk.next_leaf().await? {
            names.extend(leaf.into_iter().filter(|entry| entry.path != directory));
        }
        Ok(names)
    }

    /// Like [`lookup`](Self::lookup), for a path that people gave: it must exist.
    pub async fn find(&self, path: &[u8]) -> Result<Entry> {
        self.lookup(path).await?.ok_or_else(|| {
            let shown = crate::monitor::escape_path(path);
            let parent = crate::monitor::escape_path(split_path(path).0);
            Error::not_found(format!("snapshot {} has no /{shown}", self.snapshot().session.nonce.short()))
                .with_hint(format!("list what it has with: carrack ls SNAPSHOT:/{parent}"))
        })
    }
}

/// Whether an entry has contents.
pub fn has_contents(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File | Kind::Image)
}
