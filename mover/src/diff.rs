//! What changed between two snapshots of one repository. Equal chunks have equal ids, so contents are compared by
//! their references and no data is read.

use std::{cmp::Ordering, collections::VecDeque};

use crate::{
    error::Result,
    format::{
        entry::{Content, Entry, Run},
        order::compare_paths,
    },
    id::ChunkId,
    reader::{
        SnapshotReader,
        walk::{Part, TreeWalk},
    },
};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only in the newer one.
    Added(Entry),
    /// Only in the older one.
    Removed(Entry),
    /// Contents, kind, or link target differ.
    Modified {
        /// In the older one.
        old: Entry,
        /// In the newer one.
        new: Entry,
    },
    /// Only attributes differ.
    Attributes {
        /// In the older one.
        old: Entry,
        /// In the newer one.
        new: Entry,
    },
}

/// One side: a walk and what it gave that was not used yet.
struct Side {
    reader: SnapshotReader,
    walk: TreeWalk,
    ready: VecDeque<Entry>,
}

impl Side {
    fn new(reader: &SnapshotReader, part: Part) -> Result<Self> {
        Ok(Self { reader: reader.clone(), walk: reader.entries(part)?, ready: VecDeque::new() })
    }

    async fn fill(&mut self) -> Result<()> {
        while self.ready.is_empty() {
            match self.walk.next_leaf().await? {
                Some(leaf) => self.ready.extend(leaf),
                None => break,
            }
        }
        Ok(())
    }
}

/// Hands every difference to `found`, in tree order.
pub async fn diff(
    old: &SnapshotReader,
    new: &SnapshotReader,
    part: &Part,
    found: &mut (dyn FnMut(Change) + Send),
) -> Result<()> {
    let root = |reader: &SnapshotReader| reader.snapshot().root.as_ref().map(|root| root.id);
    if root(old) == root(new) {
        return Ok(());
    }
    let (mut old, mut new) = (Side::new(old, part.clone())?, Side::new(new, part.clone())?);
    loop {
        old.fill().await?;
        new.fill().await?;
        let order = match (old.ready.front(), new.ready.front()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => compare_paths(&a.path, &b.path),
        };
        let before = if order.is_le() { old.ready.pop_front() } else { None };
        let after = if order.is_ge() { new.ready.pop_front() } else { None };
        match (before, after) {
            (Some(entry), None) => found(Change::Removed(entry)),
            (None, Some(entry)) => found(Change::Added(entry)),
            (Some(before), Some(after)) => {
                if let Some(change) = compare(&old.reader, &new.reader, before, after).await? {
                    found(change);
                }
            }
            (None, None) => {}
        }
    }
}

async fn compare(
    old_reader: &SnapshotReader,
    new_reader: &SnapshotReader,
    old: Entry,
    new: Entry,
) -> Result<Option<Change>> {
    let same_kind = old.kind == new.kind && old.metadata.size == new.metadata.size;
    if !same_kind || !same_contents(old_reader, new_reader, &old.content, &new.content).await? {
        return Ok(Some(Change::Modified { old, new }));
    }
    let (a, b) = (&old.metadata, &new.metadata);
    let same = (a.mode, a.uid, a.gid, a.mtime, a.flags) == (b.mode, b.uid, b.gid, b.mtime, b.flags)
        && a.xattrs == b.xattrs;
    Ok((!same).then_some(Change::Attributes { old, new }))
}

async fn same_contents(
    old_reader: &SnapshotReader,
    new_reader: &SnapshotReader,
    old: &Content,
    new: &Content,
) -> Result<bool> {
    if let (Content::Paged { pages: a, depth: x }, Content::Paged { pages: b, depth: y }) = (old, new)
        && x == y
        && a.iter().map(|(page, _)| page.id).eq(b.iter().map(|(page, _)| page.id))
    {
        return Ok(true);
    }
    let (mut old, mut new) = (old_reader.runs(old), new_reader.runs(new));
    let (mut left, mut right) = (VecDeque::new(), VecDeque::new());
    loop {
        if left.is_empty() {
            left.extend(old.next_piece().await?.into_iter().flat_map(|(_, runs)| runs));
        }
        if right.is_empty() {
            right.extend(new.next_piece().await?.into_iter().flat_map(|(_, runs)| runs));
        }
        match (left.pop_front(), right.pop_front()) {
            (None, None) => return Ok(true),
            (Some(a), Some(b)) if what(&a) == what(&b) => {}
            _ => return Ok(false),
        }
    }
}

/// What a run holds, wherever it is stored.
fn what(run: &Run) -> (Option<ChunkId>, u64) {
    match run {
        Run::Chunk(chunk) => (Some(chunk.id), chunk.length.into()),
        Run::Hole(length) => (None, *length),
    }
}
