//! What changed between two snapshots of one repository.
//!
//! Both trees are walked in step. A page that both have is skipped with everything below it, and pages end where
//! their contents say, so the work follows the difference and not the size. Equal chunks have equal ids: contents
//! are compared by their references, and no data is read.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::{
    error::{Error, Result},
    format::{
        entry::Entry,
        frame::ChunkRef,
        metadata::{Kind, Metadata},
        order::compare_paths,
        page::{Child, Page},
    },
    id::ChunkId,
    reader::{SnapshotReader, contents::same_contents, walk::Part},
};

/// Leaves that are fetched at once where many follow each other that the other side does not have.
const LEAVES_AT_ONCE: usize = 8;
/// Pages of the other side that are looked through for one that is about to be fetched ahead.
const LOOK_AHEAD: usize = 64;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only in the newer one.
    Added(Entry),
    /// Only in the older one.
    Removed(Entry),
    /// Another kind of thing, in the newer one.
    Kind(Entry),
    /// Contents, link target or device numbers differ; as in the newer one.
    Modified(Entry),
    /// Only attributes differ; as in the newer one.
    Attributes(Entry),
}

/// What to compare: a snapshot and a path in it, empty for everything.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// The snapshot.
    pub reader: &'a SnapshotReader,
    /// The path; paths below it are compared as they are below it.
    pub path: &'a [u8],
}

/// What comes next on one side.
#[derive(Debug)]
enum Item {
    Page(PageItem),
    Entry(Entry),
}

#[derive(Debug)]
struct PageItem {
    level: u8,
    child: Child,
}

/// One side: what is still to come, nearest last.
struct Side<'a> {
    tree: Tree<'a>,
    part: Part,
    pending: Vec<Item>,
}

/// Hands every difference to `found`, in tree order.
pub async fn diff(
    old: Tree<'_>,
    new: Tree<'_>,
    found: &mut (dyn FnMut(Change) -> Result<()> + Send),
) -> Result<()> {
    // Pages hold whole paths: below different paths none can be equal, and their bounds cannot be compared.
    let in_step = old.path == new.path;
    let root = |tree: &Tree<'_>| tree.reader.snapshot().root.as_ref().map(|root| root.id);
    if in_step && root(&old) == root(&new) {
        return Ok(());
    }
    let (mut old, mut new) = (Side::begin(old).await?, Side::begin(new).await?);
    loop {
        match next_step(&old, &new, in_step) {
            Step::Done => return Ok(()),
            Step::Skip => {
                old.pending.pop();
                new.pending.pop();
            }
            Step::OpenOld => old.open(&new, in_step).await?,
            Step::OpenNew => new.open(&old, in_step).await?,
            Step::Removed => {
                if let Some(Item::Entry(entry)) = old.pending.pop() {
                    found(Change::Removed(entry))?;
                }
            }
            Step::Added => {
                if let Some(Item::Entry(entry)) = new.pending.pop() {
                    found(Change::Added(entry))?;
                }
            }
            Step::Both => {
                if let (Some(Item::Entry(before)), Some(Item::Entry(after))) =
                    (old.pending.pop(), new.pending.pop())
                    && let Some(change) = compare((&old.tree, before), (&new.tree, after)).await?
                {
                    found(change)?;
                }
            }
        }
    }
}

enum Step {
    Done,
    /// Equal pages.
    Skip,
    OpenOld,
    OpenNew,
    Removed,
    Added,
    /// Entries of the same path.
    Both,
}

/// What to do with what comes next on both sides. A page is opened only when something on the other side may be in
/// it, and the one that is higher in its tree first, so that equal pages below meet.
fn next_step(old: &Side<'_>, new: &Side<'_>, in_step: bool) -> Step {
    match (old.pending.last(), new.pending.last()) {
        (None, None) => Step::Done,
        (Some(Item::Entry(_)), None) => Step::Removed,
        (None, Some(Item::Entry(_))) => Step::Added,
        (Some(Item::Page(_)), None) => Step::OpenOld,
        (None, Some(Item::Page(_))) => Step::OpenNew,
        (Some(Item::Entry(a)), Some(Item::Entry(b))) => {
            match compare_paths(old.below(&a.path), new.below(&b.path)) {
                Ordering::Less => Step::Removed,
                Ordering::Greater => Step::Added,
                Ordering::Equal => Step::Both,
            }
        }
        (Some(Item::Page(a)), Some(Item::Page(b))) => {
            if in_step && a.child.page.id == b.child.page.id {
                return Step::Skip;
            }
            match a.level.cmp(&b.level).then_with(|| compare_paths(&b.child.first, &a.child.first)) {
                Ordering::Less => Step::OpenNew,
                _ => Step::OpenOld,
            }
        }
        (Some(Item::Entry(entry)), Some(Item::Page(page))) => {
            let before = in_step && compare_paths(&entry.path, &page.child.first).is_lt();
            if before { Step::Removed } else { Step::OpenNew }
        }
        (Some(Item::Page(page)), Some(Item::Entry(entry))) => {
            let before = in_step && compare_paths(&entry.path, &page.child.first).is_lt();
            if before { Step::Added } else { Step::OpenOld }
        }
    }
}

impl<'a> Side<'a> {
    /// The root is opened at once: nothing says what is in it.
    async fn begin(tree: Tree<'a>) -> Result<Self> {
        let mut side = Self { tree, part: Part::below(tree.path), pending: Vec::new() };
        let snapshot = tree.reader.snapshot();
        if let Some(root) = &snapshot.root {
            let page = tree.reader.page(&root.to_chunk()).await?;
            side.take(snapshot.depth, (*page).clone())?;
        }
        Ok(side)
    }

    fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match self.tree.path.len() {
            0 => path,
            length => path.get(length + 1..).unwrap_or_default(),
        }
    }

    /// Opens the next page, and with it leaves behind it that the other side does not have.
    async fn open(&mut self, other: &Side<'_>, in_step: bool) -> Result<()> {
        let Some(Item::Page(first)) = self.pending.pop() else { return Ok(()) };
        let level = first.level;
        let mut batch = vec![first.child];
        if level == 1 {
            let ahead = Ahead::of(other, in_step);
            while batch.len() < LEAVES_AT_ONCE
                && let Some(Item::Page(next)) =
                    self.pending.pop_if(|item| matches!(item, Item::Page(page) if ahead.lacks(page)))
            {
                batch.push(next.child);
            }
        }
        let chunks: Vec<ChunkRef> = batch.iter().map(|child| child.page.clone()).collect();
        let pages = self.tree.reader.pages(&chunks).await?;
        for (page, child) in pages.into_iter().zip(&batch).rev() {
            if !child.describes(&page) {
                return Err(Error::corrupt(format!(
                    "a page of the tree of snapshot {} is not what the page above says",
                    self.tree.reader.snapshot().session
                )));
            }
            self.take(level, page)?;
        }
        Ok(())
    }

    /// Puts what is in a page in front of what comes next.
    fn take(&mut self, level: u8, page: Page) -> Result<()> {
        match page {
            Page::Leaf(entries) if level == 1 => {
                let wanted = entries.into_iter().rev().filter(|entry| self.part.has(&entry.path));
                self.pending.extend(wanted.map(Item::Entry));
                Ok(())
            }
            Page::Inner(children) if level > 1 => {
                let wanted =
                    children.into_iter().rev().filter(|child| self.part.touches(&child.first, &child.last));
                self.pending.extend(wanted.map(|child| Item::Page(PageItem { level: level - 1, child })));
                Ok(())
            }
            _ => Err(Error::corrupt(format!(
                "a page of the tree of snapshot {} is on the wrong level",
                self.tree.reader.snapshot().session
            ))),
        }
    }
}

/// What the other side has next.
struct Ahead {
    in_step: bool,
    leaves: Vec<ChunkId>,
    /// From here on it is not known which leaves there are.
    unknown_from: Option<Vec<u8>>,
}

impl Ahead {
    fn of(side: &Side<'_>, in_step: bool) -> Self {
        let mut ahead = Self { in_step, leaves: Vec::new(), unknown_from: None };
        let pages = side.pending.iter().rev().filter_map(|item| match item {
            Item::Page(page) => Some(page),
            Item::Entry(_) => None,
        });
        for page in pages {
            if page.level > 1 || ahead.leaves.len() == LOOK_AHEAD {
                ahead.unknown_from = Some(page.child.first.clone());
                break;
            }
            ahead.leaves.push(page.child.page.id);
        }
        ahead
    }

    /// Whether the other side surely does not have this leaf.
    fn lacks(&self, page: &PageItem) -> bool {
        let known =
            self.unknown_from.as_ref().is_none_or(|from| compare_paths(&page.child.last, from).is_lt());
        page.level == 1 && (!self.in_step || (known && !self.leaves.contains(&page.child.page.id)))
    }
}

async fn compare(
    (old_tree, old): (&Tree<'_>, Entry),
    (new_tree, new): (&Tree<'_>, Entry),
) -> Result<Option<Change>> {
    if std::mem::discriminant::<Kind>(&old.kind) != std::mem::discriminant(&new.kind) {
        return Ok(Some(Change::Kind(new)));
    }
    // Of one kind, and not equal: a link's target, a device's numbers.
    let same = old.kind == new.kind
        && old.metadata.size == new.metadata.size
        && same_contents(old_tree.reader, new_tree.reader, &old.content, &new.content).await?;
    if !same {
        return Ok(Some(Change::Modified(new)));
    }
    Ok((restorable(&old.metadata) != restorable(&new.metadata)).then_some(Change::Attributes(new)))
}

/// What a restore would set: not the inode, its device, links and ctime.
fn restorable(metadata: &Metadata) -> Metadata {
    Metadata { ctime: Default::default(), inode: 0, device: 0, links: 0, ..metadata.clone() }
}
