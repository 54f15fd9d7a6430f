//! Writes the tree of a snapshot: entries come in order, pages go to the metadata pack, the root comes out.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    frames::{Shared, store_page},
    packer::Packer,
    runs::PageSink,
};
use crate::{
    error::{Error, Result},
    format::{
        entry::Entry,
        frame::ChunkRef,
        order,
        page::{Child, PageWriter},
        records::PageRef,
        session::SessionName,
    },
    id::ChunkId,
    limits,
};

#[cfg(test)]
mod tests;

/// Pages that trees of earlier runs have: the same page is named again, not stored again.
///
/// Two generations, as of known chunks: pages are asked for shortly after they were seen, so what falls out was not
/// wanted any more, or is stored again.
#[derive(Debug)]
pub(crate) struct EarlierPages {
    young: HashMap<ChunkId, ChunkRef>,
    old: HashMap<ChunkId, ChunkRef>,
    young_limit: usize,
    /// Sessions that contents refer to in pages which the new tree names without having read them.
    carried: HashSet<SessionName>,
}

/// What one page takes, in bytes: key, reference, its frame on the heap, and its share of empty slots.
const EARLIER_PAGE_BYTES: usize = 320;

impl EarlierPages {
    /// Remembers pages in at most about this many bytes.
    pub(crate) fn new(memory_bytes: usize) -> Self {
        let young_limit = (memory_bytes / EARLIER_PAGE_BYTES / 2).max(64);
        Self { young: HashMap::new(), old: HashMap::new(), young_limit, carried: HashSet::new() }
    }

    /// The new tree refers to these sessions too, in pages that it takes over unread.
    pub(crate) fn carry(&mut self, sessions: impl IntoIterator<Item = SessionName>) {
        self.carried.extend(sessions);
    }

    /// Adds a page that was just seen.
    pub(crate) fn insert(&mut self, page: ChunkRef) {
        if self.young.len() >= self.young_limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(page.id, page);
    }

    fn take(&mut self, id: &ChunkId) -> Option<ChunkRef> {
        self.young.remove(id).or_else(|| self.old.remove(id))
    }
}

/// Stores pages.
pub(crate) struct Pages {
    shared: Arc<Shared>,
    packer: Arc<Packer>,
    earlier: Arc<Mutex<EarlierPages>>,
    sessions: HashSet<SessionName>,
    sealed: Vec<u8>,
}

impl Pages {
    /// Stores pages into metadata packs, unless `earlier` has them.
    pub(crate) fn new(shared: Arc<Shared>, packer: Arc<Packer>, earlier: Arc<Mutex<EarlierPages>>) -> Self {
        Self { shared, packer, earlier, sessions: HashSet::new(), sealed: Vec::new() }
    }

    /// Sessions that the tree refers to: in the stored pages, and below those that were taken over.
    pub(crate) fn sessions(&self) -> HashSet<SessionName> {
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        self.sessions.union(&earlier.carried).copied().collect()
    }
}

impl PageSink for Pages {
    fn store(&mut self, page: &PageWriter) -> Result<ChunkRef> {
        let bytes = page.to_bytes()?;
        self.sessions.extend(page.sessions());
        let id = self.shared.keys.chunk_id(&bytes);
        let known = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).take(&id);
        let stored = match known {
            Some(known) => known,
            None => store_page(&self.shared, &self.packer, &bytes, id, &mut self.sealed)?,
        };
        let place = stored.frame.place().ok_or_else(|| Error::internal("a page has no place"))?;
        self.sessions.insert(place.session);
        Ok(stored)
    }
}

fn attribute_bytes(entry: &Entry) -> usize {
    entry.metadata.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum()
}

/// One level of inner pages.
#[derive(Debug, Clone, Default)]
struct Level {
    children: Vec<Child>,
}

/// The tree of one snapshot while it is written.
#[derive(Debug, Clone)]
pub(crate) struct TreeWriter {
    leaf: PageWriter,
    first: Vec<u8>,
    last: Vec<u8>,
    bytes: u64,
    levels: Vec<Level>,
}

impl TreeWriter {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self { leaf: PageWriter::leaf(), first: Vec::new(), last: Vec::new(), bytes: 0, levels: Vec::new() }
    }

    /// Bytes of contents of all entries so far.
    pub(crate) fn total(&self) -> u64 {
        let below = self.levels.iter().flat_map(|level| &level.children).map(|child| child.bytes);
        below.fold(self.bytes, u64::saturating_add)
    }

    /// Appends an entry, which must come behind all others.
    pub(crate) fn push(&mut self, entry: &Entry, pages: &mut Pages) -> Result<()> {
        let before = (!self.last.is_empty()).then_some(&self.last);
        if before.is_some_and(|before| order::compare_paths(before, &entry.path).is_ge()) {
            let [path, last] = [&entry.path, &self.last].map(|path| path.escape_ascii());
            return Err(Error::internal("entries are out of order").context(format!("{path} behind {last}")));
        }
        // One with very large attributes has a leaf of its own, which it may fill.
        if self.leaf.count() > 0 && self.leaf.size() + attribute_bytes(entry) > limits::PAGE_LIMIT / 2 {
            self.close_leaf(pages)?;
        }
        if self.leaf.count() == 0 {
            self.first.clone_from(&entry.path);
        }
        self.last.clone_from(&entry.path);
        // Of a copy, sizes are what somebody else wrote.
        self.bytes = self.bytes.saturating_add(entry.metadata.size);
        self.leaf.push_entry(entry)?;
        let ends = self.leaf.size() >= limits::PAGE_MIN && name_says_so(&entry.path);
        if ends || self.leaf.is_full() {
            self.close_leaf(pages)?;
        }
        Ok(())
    }

    /// The root page and the number of levels; nothing for an empty tree.
    pub(crate) fn finish(&mut self, pages: &mut Pages) -> Result<(Option<PageRef>, u8)> {
        self.close_leaf(pages)?;
        let mut index = 0;
        while index < self.levels.len() {
            let top = index + 1 == self.levels.len();
            match &self.levels[index].children[..] {
                [only] if top => {
                    let depth = u8::try_from(index + 1).expect("a tree has few levels");
                    return Ok((PageRef::from_chunk(&only.page), depth));
                }
                _ => self.close_inner(index, pages)?,
            }
            index += 1;
        }
        Ok((None, 0))
    }

    fn close_leaf(&mut self, pages: &mut Pages) -> Result<()> {
        let leaf = std::mem::replace(&mut self.leaf, PageWriter::leaf());
        if leaf.count() == 0 {
            return Ok(());
        }
        let child = Child {
            first: std::mem::take(&mut self.first),
            last: self.last.clone(),
            entries: leaf.count(),
            bytes: std::mem::take(&mut self.bytes),
            page: pages.store(&leaf)?,
        };
        self.add_child(0, child, pages)
    }

    fn add_child(&mut self, index: usize, child: Child, pages: &mut Pages) -> Result<()> {
        if index == self.levels.len() {
            self.levels.push(Level::default());
        }
        let says_so = child.page.id.0[31] < 2;
        let children = &mut self.levels[index].children;
        children.push(child);
        let paths = || children.iter().map(|child| child.first.len() + child.last.len()).sum::<usize>();
        // About 128 children a page, where the contents say so.
        if (says_so && children.len() >= 32)
            || children.len() >= 1024
            || (children.len() > 1 && paths() >= limits::PAGE_PATHS_TARGET)
        {
            self.close_inner(index, pages)?;
        }
        Ok(())
    }

    fn close_inner(&mut self, index: usize, pages: &mut Pages) -> Result<()> {
        let children = std::mem::take(&mut self.levels[index].children);
        let (Some(first), Some(last)) = (children.first(), children.last()) else { return Ok(()) };
        let (first, last) = (first.first.clone(), last.last.clone());
        let mut page = PageWriter::inner();
        for child in &children {
            page.push_child(child)?;
        }
        let child = Child {
            first,
            last,
            entries: children.iter().map(|child| child.entries).sum(),
            bytes: children.iter().map(|child| child.bytes).fold(0, u64::saturating_add),
            page: pages.store(&page)?,
        };
        self.add_child(index + 1, child, pages)
    }
}

/// Whether a leaf ends behind this path: about one path in 512, and always the same ones, so that a change moves no
/// page but its own.
pub(crate) fn name_says_so(path: &[u8]) -> bool {
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ hash >> 32).is_multiple_of(512)
}
