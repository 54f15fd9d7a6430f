//! Chunks of an earlier run's contents become known shortly before they are likely to be met again.

use std::sync::Arc;

use super::{earlier::Found, parent::PageOpener, repeats::PagesMet};
use crate::{
    error::Result,
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
        page::Page,
    },
    pipeline::frames::Shared,
};

/// How far chunks are known ahead of reading, in bytes of contents: insertions do not outrun them.
const HINTS_AHEAD_BYTES: u64 = 64 << 20;

/// Makes the chunks of earlier contents known, a little ahead of reading.
pub(super) struct Hints {
    shared: Arc<Shared>,
    contents: Vec<EarlierContent>,
}

/// One earlier content, read page by page.
struct EarlierContent {
    opener: Arc<PageOpener>,
    levels: Vec<(u8, std::vec::IntoIter<(ChunkRef, u64)>)>,
    met: PagesMet,
    at: u64,
}

impl Hints {
    /// Of the contents of these entries.
    pub(super) fn of(found: Vec<Found>, shared: &Arc<Shared>) -> Result<Self> {
        let mut hints = Self { shared: Arc::clone(shared), contents: Vec::new() };
        for Found { entry, opener } in found {
            let mut content = EarlierContent { opener, levels: Vec::new(), met: PagesMet::default(), at: 0 };
            match entry.content {
                Content::Inline(runs) => content.learn(&runs, &hints.shared)?,
                Content::Paged { depth, pages } => content.levels.push((depth, pages.into_iter())),
            }
            hints.contents.push(content);
        }
        Ok(hints)
    }

    /// Reads on until the chunks up to this byte and some more are known.
    pub(super) fn cover(&mut self, end: u64) -> Result<()> {
        let end = end.saturating_add(HINTS_AHEAD_BYTES);
        self.contents.iter_mut().try_for_each(|content| content.cover(end, &self.shared))
    }
}

impl EarlierContent {
    fn cover(&mut self, end: u64, shared: &Shared) -> Result<()> {
        while self.at < end
            && let Some((depth, pages)) = self.levels.last_mut()
        {
            let depth = *depth;
            let Some((page, bytes)) = pages.next() else {
                self.levels.pop();
                continue;
            };
            // What is below a page that comes again was learnt when it came first.
            if !self.met.is_new(&page, depth, bytes) {
                self.at += bytes;
                continue;
            }
            let opened = self.opener.open(&page);
            match opened.map(|page| (page.content_bytes() == Some(bytes)).then_some(page)) {
                Ok(Some(Page::Runs(runs))) if depth == 1 => self.learn(&runs, shared)?,
                Ok(Some(Page::RunsInner(pages))) if depth > 1 => {
                    self.levels.push((depth - 1, pages.into_iter()))
                }
                Err(error) if error.is_of_the_run() => return Err(error),
                // A list that cannot be read costs reuse, not correctness; check names the damage.
                _ => self.at += bytes,
            }
        }
        Ok(())
    }

    fn learn(&mut self, runs: &[Run], shared: &Shared) -> Result<()> {
        for run in runs {
            self.at += run.length();
            let Run::Chunk(chunk) = run else { continue };
            match self.opener.is_sound(chunk) {
                Ok(true) => {
                    shared.known.insert(chunk);
                }
                Err(error) if error.is_of_the_run() => return Err(error),
                Ok(false) | Err(_) => {}
            }
        }
        Ok(())
    }
}
