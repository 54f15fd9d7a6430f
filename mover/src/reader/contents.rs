//! Whether two contents are the same, by their references.

use std::collections::VecDeque;

use super::{
    SnapshotReader,
    sums::{Listed, Parts, Sum, Sums},
};
use crate::{
    error::{Error, Result},
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
        page::Page,
    },
    id::ChunkId,
    limits,
};

#[cfg(test)]
mod tests;

/// Pages of one content that are compared one by one: those of a hundred gigabytes, if none of them is a page of the other
/// content, too. A list may name few pages so often that nobody waits for its end; what is left is summed up.
const PAGES_OPENED: usize = 1024;

/// The runs of one content, as far as they had to be opened.
struct Runs<'a> {
    reader: &'a SnapshotReader,
    opened: usize,
    /// Pages still to open, nearest last, with their levels and the bytes of contents below each.
    pending: Vec<(u8, ChunkRef, u64)>,
    ready: VecDeque<Run>,
}

/// Compares chunk by chunk; pages that both have at the same place are not opened. Where chunks lie does not count. Takes
/// the time that reading all pages takes, once each, whatever they stand for.
pub(crate) async fn same_contents(
    old_reader: &SnapshotReader,
    new_reader: &SnapshotReader,
    old: &Content,
    new: &Content,
) -> Result<bool> {
    same_runs(Runs::new(old_reader, old), Runs::new(new_reader, new), PAGES_OPENED).await
}

async fn same_runs(mut old: Runs<'_>, mut new: Runs<'_>, pages_opened: usize) -> Result<bool> {
    loop {
        if old.opened.max(new.opened) > pages_opened {
            let mut sums = Sums::new();
            return Ok(old.sum(&mut sums).await? == new.sum(&mut sums).await?);
        }
        if old.ready.is_empty() && new.ready.is_empty() {
            // All before was equal, so both stand at the same byte.
            match (old.pending.last(), new.pending.last()) {
                (None, None) => return Ok(true),
                (Some((x, a, _)), Some((y, b, _))) if (x, a.id) == (y, b.id) => {
                    old.pending.pop();
                    new.pending.pop();
                    continue;
                }
                (Some((x, ..)), Some((y, ..))) if x > y => old.open().await?,
                (Some(_), Some(_)) => new.open().await?,
                (Some(_), None) => old.open().await?,
                (None, Some(_)) => new.open().await?,
            }
            continue;
        }
        if old.ready.is_empty() && !old.pending.is_empty() {
            old.open().await?;
            continue;
        }
        if new.ready.is_empty() && !new.pending.is_empty() {
            new.open().await?;
            continue;
        }
        match (old.ready.pop_front(), new.ready.pop_front()) {
            (Some(a), Some(b)) if what(&a) == what(&b) => {}
            _ => return Ok(false),
        }
    }
}

impl<'a> Runs<'a> {
    fn new(reader: &'a SnapshotReader, content: &Content) -> Self {
        let (mut pending, mut ready) = (Vec::new(), VecDeque::new());
        match content {
            Content::Inline(runs) => ready.extend(runs.iter().cloned()),
            Content::Paged { depth, pages } => {
                pending
                    .extend(pages.iter().rev().map(|(page, bytes)| ((*depth).max(1), page.clone(), *bytes)));
            }
        }
        Self { reader, opened: 0, pending, ready }
    }

    async fn open(&mut self) -> Result<()> {
        let Some((level, page, bytes)) = self.pending.pop() else { return Ok(()) };
        self.opened += 1;
        let is_last = self.pending.is_empty();
        for page in self.reader.pages(&[page]).await? {
            if !page.stands_for(bytes, is_last) {
                return Err(Error::corrupt("a page of a list of chunks is not what the page above says"));
            }
            match page {
                Page::Runs(runs) if level == 1 => self.ready.extend(runs),
                Page::RunsInner(below) if (2..=limits::TREE_DEPTH).contains(&level) => {
                    self.pending
                        .extend(below.into_iter().rev().map(|(page, bytes)| (level - 1, page, bytes)));
                }
                _ => return Err(Error::corrupt("a page of a list of chunks is on the wrong level")),
            }
        }
        Ok(())
    }

    /// What all that was not compared comes to.
    async fn sum(self, sums: &mut Sums) -> Result<Sum> {
        let mut sum = sums.of_runs(&self.ready);
        let pages = Listed::to_end(self.pending.into_iter().rev());
        let mut parts = Parts::of(self.reader, sums, pages);
        while let Some(part) = parts.next().await? {
            sum = sum.then(part);
        }
        Ok(sum)
    }
}

/// What a run holds, wherever it is stored.
fn what(run: &Run) -> (Option<ChunkId>, u64) {
    match run {
        Run::Chunk(chunk) => (Some(chunk.id), chunk.length.into()),
        Run::Hole(length) => (None, *length),
    }
}
