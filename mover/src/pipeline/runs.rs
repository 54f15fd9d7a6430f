//! Writing the contents of one entry: a few runs stay in the entry, many go to pages.

use crate::{
    error::{Error, Result},
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
        page::PageWriter,
    },
    limits,
};

#[cfg(test)]
mod tests;

/// Runs that an entry holds itself; more are written to pages.
const INLINE_RUNS: usize = 128;
/// Pages that an entry names itself; more are written to pages of pages.
const INLINE_PAGES: usize = 64;

/// Stores one page and says where.
pub(crate) trait PageSink {
    /// Stores the page, or finds it where an earlier run has it.
    fn store(&mut self, page: &PageWriter) -> Result<ChunkRef>;
}

/// Collects the runs of one content.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunsWriter {
    runs: Vec<Run>,
    levels: Vec<Level>,
    page: Option<(PageWriter, u64)>,
    total: u64,
}

#[derive(Debug, Clone, Default)]
struct Level {
    pages: Vec<(ChunkRef, u64)>,
}

impl RunsWriter {
    /// Appends a run. Neighbouring holes become one.
    pub(crate) fn push(&mut self, run: Run, sink: &mut dyn PageSink) -> Result<()> {
        self.total += run.length();
        if let (Run::Hole(more), Some(Run::Hole(length))) = (&run, self.runs.last_mut()) {
            *length += more;
            return Ok(());
        }
        self.runs.push(run);
        // The last run stays back: the next may be a hole that joins it.
        if self.page.is_some() && self.runs.len() > 1 {
            let run = self.runs.remove(0);
            self.push_paged(&run, sink)?;
        } else if self.runs.len() > INLINE_RUNS {
            self.page = Some((PageWriter::runs(), 0));
            let last = self.runs.pop();
            for run in std::mem::take(&mut self.runs) {
                self.push_paged(&run, sink)?;
            }
            self.runs.extend(last);
        }
        Ok(())
    }

    /// Bytes of contents so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The content, all pages stored.
    pub(crate) fn finish(mut self, sink: &mut dyn PageSink) -> Result<Content> {
        if self.page.is_none() {
            return Ok(Content::Inline(self.runs));
        }
        for run in std::mem::take(&mut self.runs) {
            self.push_paged(&run, sink)?;
        }
        self.close_page(sink)?;
        for index in 0..usize::from(limits::TREE_DEPTH) {
            let pages = std::mem::take(&mut self.levels[index].pages);
            if index + 1 == self.levels.len() && pages.len() <= INLINE_PAGES {
                return Ok(Content::Paged { depth: index as u8 + 1, pages });
            }
            self.close_inner(index, pages, sink)?;
        }
        Err(Error::internal("a list of chunks has more levels than any can have"))
    }

    fn push_paged(&mut self, run: &Run, sink: &mut dyn PageSink) -> Result<()> {
        let (page, bytes) = self.page.get_or_insert_with(|| (PageWriter::runs(), 0));
        page.push_run(run)?;
        *bytes += run.length();
        // Where the contents say so, so that a change moves few pages.
        let says_so = match run {
            Run::Chunk(chunk) => {
                chunk.id.0[31] == 0 || (chunk.id.0[31] < 4 && page.size() > limits::PAGE_AVERAGE)
            }
            Run::Hole(_) => false,
        };
        if (says_so && page.size() >= limits::PAGE_MIN) || page.size() >= limits::PAGE_TARGET_MAX {
            self.close_page(sink)?;
        }
        Ok(())
    }

    fn close_page(&mut self, sink: &mut dyn PageSink) -> Result<()> {
        match self.page.replace((PageWriter::runs(), 0)) {
            Some((page, bytes)) if page.count() > 0 => {
                let stored = sink.store(&page)?;
                self.add_page(0, stored, bytes, sink)
            }
            _ => Ok(()),
        }
    }

    fn add_page(&mut self, level: usize, page: ChunkRef, bytes: u64, sink: &mut dyn PageSink) -> Result<()> {
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        let says_so = page.id.0[31] < 2;
        let pages = &mut self.levels[level].pages;
        pages.push((page, bytes));
        // A full level goes up; half a thousand references make a page of about 64 KiB.
        if (says_so && pages.len() >= 2 * INLINE_PAGES) || pages.len() >= 1024 {
            let pages = std::mem::take(pages);
            self.close_inner(level, pages, sink)?;
        }
        Ok(())
    }

    fn close_inner(
        &mut self,
        level: usize,
        pages: Vec<(ChunkRef, u64)>,
        sink: &mut dyn PageSink,
    ) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let mut writer = PageWriter::runs_inner();
        let mut total = 0;
        for (page, bytes) in &pages {
            writer.push_runs_page(page, *bytes)?;
            total += bytes;
        }
        let stored = sink.store(&writer)?;
        self.add_page(level + 1, stored, total, sink)
    }
}
