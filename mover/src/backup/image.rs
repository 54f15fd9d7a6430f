//! Devices, image files and streams: one entry each, cut by a grid or by contents.

use std::{io::Read, ops::Range, path::Path, sync::Arc};

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupSource,
    assemble::{Item, Large, Piece},
    dispatch::{Dispatcher, stopped},
    parent::PageOpener,
    worker::{Cutting, Failure, Input, Segment, Task},
};
use crate::{
    chunker,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::{Kind, Metadata},
        records::Statistics,
    },
    monitor::Progress,
    pipeline::promise::promise,
    source::{block::BlockSource, changed::ChangedBlocks},
};

/// Pieces of an image that wait for the tree.
const PIECES_AHEAD: usize = 64;

/// The grid of a device: the parent's, or one that fits its size. 0 for everything that is cut by contents.
pub(super) fn grid(source: &BackupSource, parent_grid: u32) -> Result<u32> {
    match source {
        BackupSource::Block { .. } if parent_grid > 0 => Ok(parent_grid),
        BackupSource::Block { path, .. } => Ok(chunker::grid_for(BlockSource::open(path)?.size())),
        _ => Ok(0),
    }
}

impl Dispatcher<'_> {
    /// Reads a device or image file; with a list of changes only those.
    pub(super) fn block(mut self, path: &Path, changed: Option<&Path>, grid: u32) -> Result<Statistics> {
        let file = Arc::new(BlockSource::open(path)?);
        let size = file.size();
        let changed = changed.map(|list| changed_ranges(list, size, grid)).transpose()?;
        let entry = image_entry(path.as_os_str().as_encoded_bytes(), size);
        let parent = self.parent.find(&entry.path);
        Progress::add(&self.monitor.progress().bytes_expected, size);
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        self.item(Item::Large(Box::new(Large { entry, pieces: receiver, file: None })))?;
        match (parent, changed, self.opener.clone()) {
            (Some(parent), Some(changed), Some(opener)) => {
                self.statistics.files_changed += 1;
                self.changed_blocks(&file, &parent, &changed, &opener, grid, &pieces)?;
            }
            (parent, _, opener) => {
                match parent {
                    Some(_) => self.statistics.files_changed += 1,
                    None => self.statistics.files_new += 1,
                }
                let mut hints = parent.zip(opener).map(|(parent, opener)| {
                    super::dispatch::Hints::new(opener, Arc::clone(&self.shared), parent.content)
                });
                self.all_blocks(&file, grid, &pieces, hints.as_mut())?;
            }
        }
        drop(pieces);
        Ok(self.statistics)
    }

    fn all_blocks(
        &self,
        file: &Arc<BlockSource>,
        grid: u32,
        pieces: &Sender<Piece>,
        mut hints: Option<&mut super::dispatch::Hints>,
    ) -> Result<()> {
        let mut at = 0;
        for extent in file.extents() {
            // Blocks are read whole: a hole counts only where it covers all of one.
            let start = (extent.offset / u64::from(grid) * u64::from(grid)).max(at);
            let end = (extent.offset + extent.length).next_multiple_of(u64::from(grid)).min(file.size());
            self.hole(at, start, pieces)?;
            self.blocks(file, start..end, grid, pieces, hints.as_deref_mut())?;
            at = end.max(start);
        }
        self.hole(at, file.size(), pieces)
    }

    fn hole(&self, start: u64, end: u64, pieces: &Sender<Piece>) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        Progress::add(&self.monitor.progress().bytes, end - start);
        self.piece(pieces, Piece::Runs(vec![Run::Hole(end - start)]))
    }

    fn blocks(
        &self,
        file: &Arc<BlockSource>,
        range: Range<u64>,
        grid: u32,
        pieces: &Sender<Piece>,
        mut hints: Option<&mut super::dispatch::Hints>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            self.cancel.check()?;
            let length =
                usize::try_from((range.end - at).min(self.segment_bytes as u64)).expect("it is small");
            if let Some(hints) = hints.as_deref_mut() {
                hints.cover(at + length as u64);
            }
            let (answer, result) = promise(|| Err(Failure::Store(stopped())));
            let (input, cutting) = (Input::Block(Arc::clone(file)), Cutting::Grid(grid));
            self.task(Task::Segment(Segment {
                input,
                start: at,
                run: 0,
                length,
                behind: 0,
                cutting,
                answer,
            }))?;
            self.piece(pieces, Piece::Later(result))?;
            at += length as u64;
        }
        Ok(())
    }

    /// Takes from the parent what did not change, and reads the rest.
    fn changed_blocks(
        &self,
        file: &Arc<BlockSource>,
        parent: &Entry,
        changed: &[Range<u64>],
        opener: &PageOpener,
        grid: u32,
        pieces: &Sender<Piece>,
    ) -> Result<()> {
        let size = file.size();
        let dirty = align(changed, u64::from(grid), size, parent.metadata.size);
        let mut dirty = dirty.into_iter().peekable();
        let mut at = 0u64;
        let mut kept: Vec<Run> = Vec::new();
        let mut failed: Option<Error> = None;
        let mut step =
            |run: Run, dirty: &mut std::iter::Peekable<std::vec::IntoIter<Range<u64>>>| -> Result<()> {
                let (start, end) = (at, at + run.length());
                at = end;
                keep_clean(run, start, end, dirty, &mut kept, |kept, range| {
                    let range = range.start.min(size)..range.end.min(size);
                    self.piece(pieces, Piece::Runs(std::mem::take(kept)))?;
                    self.blocks(file, range, grid, pieces, None)
                })?;
                if kept.len() >= KEPT_RUNS {
                    self.piece(pieces, Piece::Runs(std::mem::take(&mut kept)))?;
                }
                Ok(())
            };
        opener.runs(&parent.content, &mut |run| {
            step(run, &mut dirty).map_err(|error| failed = Some(error)).is_ok()
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.piece(pieces, Piece::Runs(kept))?;
        for range in dirty {
            self.blocks(file, range.start.min(size)..range.end.min(size), grid, pieces, None)?;
        }
        Ok(())
    }

    /// Reads a stream to its end; it is cut here, because what comes cannot be asked for again.
    pub(super) fn stream(mut self, input: &mut dyn Read, name: &str) -> Result<Statistics> {
        let entry = image_entry(name.as_bytes(), 0);
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        self.statistics.files_new += 1;
        self.item(Item::Large(Box::new(Large { entry, pieces: receiver, file: None })))?;
        let chunker = crate::chunker::Chunker::new(self.shared.keys.chunk_seed(), self.cut);
        let mut carried: Vec<u8> = Vec::new();
        loop {
            self.cancel.check()?;
            let mut buffer = std::mem::take(&mut carried);
            buffer.reserve_exact(self.segment_bytes);
            let before = buffer.len();
            let read = input
                .take(self.segment_bytes as u64)
                .read_to_end(&mut buffer)
                .map_err(|error| Error::io(error, "cannot read standard input"))?;
            Progress::add(&self.monitor.progress().bytes, read as u64);
            Progress::add(&self.monitor.progress().bytes_moved, read as u64);
            let ended = buffer.len() - before < self.segment_bytes;
            let mut ends = Vec::new();
            let mut at = 0;
            while at < buffer.len() && (ended || buffer.len() - at >= self.cut.maximum as usize) {
                at += chunker.cut(&buffer[at..]);
                ends.push(at);
            }
            carried = buffer.split_off(at);
            let (answer, result) = promise(|| Err(Failure::Store(stopped())));
            self.task(Task::Buffer(buffer, ends, answer))?;
            self.piece(&pieces, Piece::Later(result))?;
            if ended {
                drop(pieces);
                return Ok(self.statistics);
            }
        }
    }
}

/// Runs that are sent to the tree in one piece.
const KEPT_RUNS: usize = 4096;

/// Sends what of a run of the parent is clean, and has each dirty range that begins in it read. Dirty ranges are
/// aligned to blocks and a chunk is a block, so only holes are ever split.
fn keep_clean(
    run: Run,
    mut start: u64,
    end: u64,
    dirty: &mut std::iter::Peekable<std::vec::IntoIter<Range<u64>>>,
    kept: &mut Vec<Run>,
    mut read: impl FnMut(&mut Vec<Run>, Range<u64>) -> Result<()>,
) -> Result<()> {
    while start < end {
        match dirty.peek_mut() {
            Some(range) if range.start < end => {
                if range.start > start {
                    kept.push(Run::Hole(range.start - start));
                }
                let upto = range.end.min(end);
                let piece = range.start.max(start)..upto;
                if range.end <= end {
                    dirty.next();
                } else {
                    range.start = end;
                }
                read(kept, piece)?;
                start = upto;
            }
            _ => {
                match run {
                    Run::Hole(_) => kept.push(Run::Hole(end - start)),
                    Run::Chunk(chunk) => kept.push(Run::Chunk(chunk)),
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The ranges of a list of changes, in order.
fn changed_ranges(list: &Path, size: u64, grid: u32) -> Result<Vec<Range<u64>>> {
    let origin = list.display().to_string();
    let file = std::fs::File::open(list)
        .map_err(|error| Error::io(error, format!("cannot open the list of changed blocks {origin}")))?;
    let grid = u64::from(grid);
    let changed = ChangedBlocks::read(file, &origin, size, grid)?;
    Ok(changed.iter().map(|block| block * grid..(block + 1) * grid).collect())
}

/// Changed ranges, widened to blocks and merged; what the device has beyond the parent, and the parent's last block
/// if it was short, count as changed.
fn align(changed: &[Range<u64>], grid: u64, size: u64, parent_size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = changed
        .iter()
        .filter(|range| range.start < range.end && range.start < size)
        .map(|range| range.start / grid * grid..range.end.next_multiple_of(grid).min(size))
        .collect();
    if parent_size != size {
        ranges.push(parent_size.min(size) / grid * grid..size.max(parent_size));
    }
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn image_entry(path: &[u8], size: u64) -> Entry {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path: Vec<u8> = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path).to_vec();
    let metadata = Metadata { mode: 0o600, size, links: 1, ..Metadata::default() };
    Entry { path, kind: Kind::Image, metadata, content: Content::default() }
}
