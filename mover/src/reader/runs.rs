//! The runs of one content in order, however many there are.

use super::{
    SnapshotReader,
    sums::{Listed, Parts, Sum, Sums},
    walk::plain_bytes,
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
        page::Page,
    },
    limits,
};

#[cfg(test)]
mod tests;

/// Pages of runs that are fetched at once at most.
const PAGES_AT_ONCE: usize = 4;
/// Plain bytes of pages that are fetched at once, or one page.
const BYTES_AT_ONCE: usize = PAGES_AT_ONCE * limits::PAGE_TARGET_MAX;

/// Hands out the runs of a content in pieces of one page each.
#[derive(Debug)]
pub struct RunWalk {
    reader: SnapshotReader,
    inline: Option<Vec<Run>>,
    /// Pages still to open, nearest last, with level and the bytes of contents below each.
    pending: Vec<(u8, ChunkRef, u64)>,
    ready: std::collections::VecDeque<Vec<Run>>,
    /// Where the next piece begins in the contents.
    position: u64,
}

impl RunWalk {
    /// The runs of a content, from its first byte on.
    pub fn new(reader: &SnapshotReader, content: &Content) -> Self {
        let mut walk = Self {
            reader: reader.clone(),
            inline: None,
            pending: Vec::new(),
            ready: std::collections::VecDeque::new(),
            position: 0,
        };
        match content {
            Content::Inline(runs) => walk.inline = Some(runs.clone()),
            Content::Paged { depth, pages } => {
                walk.pending.extend(
                    pages.iter().rev().map(|(chunk, bytes)| ((*depth).max(1), chunk.clone(), *bytes)),
                );
            }
        }
        walk
    }

    /// Skips pages that end at or before `from`; to be called before the first piece is taken.
    pub async fn skip_to(&mut self, from: u64) -> Result<()> {
        while let Some((level, chunk, bytes)) = self.pending.pop() {
            if self.position + bytes <= from {
                self.position += bytes;
            } else if level == 1 {
                self.pending.push((level, chunk, bytes));
                break;
            } else {
                let page = self.reader.page(&chunk).await?;
                self.descend(level, bytes, &page)?;
            }
        }
        Ok(())
    }

    fn descend(&mut self, level: u8, bytes: u64, page: &Page) -> Result<()> {
        let Page::RunsInner(below) = page else { return Err(misplaced()) };
        if !(2..=limits::TREE_DEPTH).contains(&level) || page.content_bytes() != Some(bytes) {
            return Err(misplaced());
        }
        self.pending.extend(below.iter().rev().map(|(chunk, length)| (level - 1, chunk.clone(), *length)));
        Ok(())
    }

    /// The next piece and the position in the contents at which it begins.
    pub async fn next_piece(&mut self) -> Result<Option<(u64, Vec<Run>)>> {
        if let Some(runs) = self.inline.take() {
            return Ok(self.hand_out(runs));
        }
        loop {
            if let Some(runs) = self.ready.pop_front() {
                return Ok(self.hand_out(runs));
            }
            let Some((level, chunk, bytes)) = self.pending.pop() else { return Ok(None) };
            if level > 1 {
                let page = self.reader.page(&chunk).await?;
                self.descend(level, bytes, &page)?;
                continue;
            }
            let mut at_once = plain_bytes(&chunk);
            let (mut chunks, mut lengths) = (vec![chunk], vec![bytes]);
            while chunks.len() < PAGES_AT_ONCE
                && let Some((_, chunk, bytes)) = self
                    .pending
                    .pop_if(|(next, page, _)| *next == 1 && at_once + plain_bytes(page) <= BYTES_AT_ONCE)
            {
                at_once += plain_bytes(&chunk);
                chunks.push(chunk);
                lengths.push(bytes);
            }
            let mut left = chunks.len() + self.pending.len();
            for (page, bytes) in self.reader.pages(&chunks).await?.into_iter().zip(lengths) {
                left -= 1;
                // Positions of what follows depend on it, so it is checked, not believed.
                let is_right = page.stands_for(bytes, left == 0);
                let Page::Runs(runs) = page else { return Err(misplaced()) };
                if !is_right {
                    return Err(misplaced());
                }
                self.ready.push_back(runs);
            }
        }
    }

    /// Bytes of all runs that are not holes; for a walk that nothing was taken of.
    pub async fn chunk_bytes(self, cancel: &Cancel) -> Result<u64> {
        self.chunk_bytes_beyond(u64::MAX, cancel).await
    }

    /// The same, but nothing is counted any more once there are more than `enough`.
    pub async fn chunk_bytes_beyond(self, enough: u64, cancel: &Cancel) -> Result<u64> {
        Ok(self.sum_until(|sum| sum.chunk_bytes > enough, cancel).await?.chunk_bytes)
    }

    /// What all runs come to, or so many of them as are enough; for a walk that nothing was taken of. A page is opened
    /// once, however often it is named.
    pub(crate) async fn sum_until(self, is_enough: impl Fn(&Sum) -> bool, cancel: &Cancel) -> Result<Sum> {
        let mut sums = Sums::new();
        let mut sum = sums.of_runs(self.inline.iter().flatten());
        let pages = Listed::to_end(self.pending.into_iter().rev());
        let mut parts = Parts::of(&self.reader, &mut sums, pages);
        while !is_enough(&sum)
            && let Some(part) = parts.next().await?
        {
            cancel.check()?;
            sum = sum.then(part);
        }
        Ok(sum)
    }

    fn hand_out(&mut self, runs: Vec<Run>) -> Option<(u64, Vec<Run>)> {
        let start = self.position;
        self.position += runs.iter().map(Run::length).sum::<u64>();
        Some((start, runs))
    }
}

fn misplaced() -> Error {
    Error::corrupt("a page of a list of chunks is not what the page above says")
}

impl SnapshotReader {
    /// The runs of a content.
    pub fn runs(&self, content: &Content) -> RunWalk {
        RunWalk::new(self, content)
    }
}
