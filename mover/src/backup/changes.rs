//! A device with a list of changes: what is kept of the parent, and what must be read.

use std::{iter::Peekable, ops::Range, path::Path};

use super::earlier::Found;
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::entry::Run,
    source::changed::ChangedBlocks,
};

/// Runs that are sent to the tree in one piece.
const KEPT_RUNS: usize = 4096;

/// Ranges to be read.
type Dirty<'d> = Peekable<&'d mut dyn Iterator<Item = Range<u64>>>;

/// What an image is put together of, in order: runs of the parent, and behind them a range to be read. That is one
/// range however many runs of the parent it replaces: it is cut from where it begins, and the runs are as whoever wrote
/// the parent wants them.
pub(super) struct Parts<S> {
    kept: Vec<Run>,
    unread: Range<u64>,
    segment_bytes: u64,
    send: S,
}

impl<S: FnMut(Vec<Run>, Range<u64>) -> Result<()>> Parts<S> {
    /// Has `send` take runs, and have a range read behind them; of a long range whole segments as soon as they are
    /// known.
    pub(super) fn new(segment_bytes: u64, send: S) -> Self {
        Self { kept: Vec::new(), unread: 0..0, segment_bytes, send }
    }

    /// Keeps what of a run of the parent is clean, and has the rest read. Holes are split; a chunk is clean only as a
    /// whole. Dirty ranges are aligned to blocks, and so is a chunk of whoever keeps to the grid; the last one is
    /// shorter where the device is.
    pub(super) fn add(&mut self, run: Run, mut start: u64, end: u64, dirty: &mut Dirty<'_>) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        if let Run::Chunk(chunk) = &run {
            let is_clean = dirty.peek().is_none_or(|range| range.start >= end);
            if is_clean && end - start == u64::from(chunk.length) {
                return self.keep(run);
            }
            self.read(start..end)?;
            pass(dirty, end);
            return Ok(());
        }
        while start < end {
            let Some(range) = dirty.peek().filter(|range| range.start < end) else {
                return self.keep(Run::Hole(end - start));
            };
            let piece = range.start.max(start)..range.end.min(end);
            if piece.start > start {
                self.keep(Run::Hole(piece.start - start))?;
            }
            start = piece.end;
            self.read(piece)?;
            pass(dirty, start);
        }
        Ok(())
    }

    fn keep(&mut self, run: Run) -> Result<()> {
        if !self.unread.is_empty() || self.kept.len() >= KEPT_RUNS {
            self.flush()?;
        }
        self.kept.push(run);
        Ok(())
    }

    /// Has a range read, which adjoins what was added last.
    pub(super) fn read(&mut self, range: Range<u64>) -> Result<()> {
        match self.unread.is_empty() {
            true => self.unread = range,
            false => self.unread.end = range.end,
        }
        let whole = (self.unread.end - self.unread.start) / self.segment_bytes * self.segment_bytes;
        if whole > 0 {
            let start = self.unread.start;
            self.unread.start += whole;
            (self.send)(std::mem::take(&mut self.kept), start..start + whole)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        (self.send)(std::mem::take(&mut self.kept), std::mem::take(&mut self.unread))
    }

    /// Sends the rest.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

/// What is dirty before this byte has been read.
fn pass(dirty: &mut Dirty<'_>, end: u64) {
    while let Some(range) = dirty.peek_mut().filter(|range| range.start < end) {
        if range.end > end {
            range.start = end;
        } else {
            dirty.next();
        }
    }
}

/// A list of changes: one bit for each block, whatever the list looks like.
pub(super) fn changed_blocks_of(list: &Path, size: u64, grid: u32) -> Result<ChangedBlocks> {
    let origin = list.display().to_string();
    let file = std::fs::File::open(list)
        .map_err(|error| Error::io(error, format!("cannot open the list of changed blocks {origin}")))?;
    ChangedBlocks::read(file, &origin, size, u64::from(grid))
}

/// Whether a run of an image lies as one of a device's backup does: it begins and ends with a block, or with the image.
pub(super) fn keeps_to(grid: u32, run: &Range<u64>, image_size: u64) -> bool {
    let grid = u64::from(grid);
    run.start.is_multiple_of(grid) && (run.end.is_multiple_of(grid) || run.end == image_size)
}

/// Adds the blocks of a device of this size whose chunks the parent has, but nobody may name again, to those that must be
/// read (W2).
pub(super) fn with_unusable(
    parent: &Found,
    mut changed: ChangedBlocks,
    size: u64,
    grid: u32,
    cancel: &Cancel,
) -> Result<ChangedBlocks> {
    if !parent.opener.may_be_absent() {
        return Ok(changed);
    }
    let mut at = 0;
    let mut failed = None;
    parent.opener.runs(&parent.entry.content, &mut |run| {
        let range = at..at + run.length();
        // From there on all of the device is read.
        if !keeps_to(grid, &range, parent.entry.metadata.size) {
            return false;
        }
        at = range.end;
        let is_sound = cancel.check().and_then(|()| match &run {
            Run::Chunk(chunk) => parent.opener.is_sound(chunk),
            Run::Hole(_) => Ok(true),
        });
        match is_sound {
            Ok(true) => {}
            Ok(false) => changed.include(range),
            Err(error) => failed = Some(error),
        }
        failed.is_none() && at < size
    })?;
    failed.map_or(Ok(changed), Err)
}

/// What must be read, in order and from this byte on: changed blocks, neighbours as one range. What the device has
/// beyond the parent, and the parent's last block if it was short, count as changed. Made as it is asked for: a list
/// of ranges would take hundreds of megabytes where many blocks changed.
pub(super) fn dirty(
    changed: &ChangedBlocks,
    grid: u64,
    (size, parent_size): (u64, u64),
    from: u64,
) -> impl Iterator<Item = Range<u64>> {
    let tail = match parent_size == size {
        true => None,
        false => Some(parent_size.min(size) / grid * grid..size.max(parent_size)),
    };
    let end = tail.as_ref().map_or(size, |tail| tail.start);
    let mut blocks = changed
        .iter()
        .map(move |block| block * grid..(block + 1) * grid)
        .take_while(move |range| range.start < end)
        .map(move |range| range.start..range.end.min(size))
        .chain(tail)
        .filter(move |range| range.end > from)
        .map(move |range| range.start.max(from)..range.end)
        .peekable();
    std::iter::from_fn(move || {
        let mut range = blocks.next()?;
        while let Some(next) = blocks.next_if(|next| next.start <= range.end) {
            range.end = range.end.max(next.end);
        }
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::chunk_ending;

    /// Lengths of what is kept of these runs, and what is read.
    type Taken = (Vec<u64>, Vec<(u64, u64)>);

    fn taken_of(runs: &[Run], ranges: &[(u64, u64)]) -> Taken {
        let mut ranges = ranges.iter().map(|(start, end)| *start..*end);
        let ranges: &mut dyn Iterator<Item = Range<u64>> = &mut ranges;
        let mut dirty = ranges.peekable();
        let (mut at, mut kept, mut read) = (0, Vec::new(), Vec::new());
        let mut parts = Parts::new(40, |runs: Vec<Run>, range: Range<u64>| {
            kept.extend(runs.iter().map(Run::length));
            if !range.is_empty() {
                read.push((range.start, range.end));
            }
            Ok(())
        });
        for run in runs {
            let (start, end) = (at, at + run.length());
            at = end;
            parts.add(run.clone(), start, end, &mut dirty).unwrap();
        }
        for range in dirty {
            parts.read(range).unwrap();
        }
        parts.finish().unwrap();
        (kept, read)
    }

    fn chunk(length: u32) -> Run {
        Run::Chunk(chunk_ending(1, length, length))
    }

    #[test]
    fn a_chunk_is_clean_as_a_whole_and_a_hole_in_parts() {
        let blocks = [chunk(10), chunk(10), chunk(10)];
        assert_eq!(taken_of(&blocks, &[(10, 20)]), (vec![10, 10], vec![(10, 20)]));
        assert_eq!(taken_of(&blocks, &[(0, 10), (20, 30)]), (vec![10], vec![(0, 10), (20, 30)]));
        let hole = [Run::Hole(50)];
        assert_eq!(taken_of(&hole, &[(10, 20), (40, 50)]), (vec![10, 20], vec![(10, 20), (40, 50)]));
        // Chunks that are no blocks: of what is changed in part all is read.
        let others = [chunk(15), chunk(15), chunk(5), Run::Hole(5)];
        assert_eq!(taken_of(&others, &[(10, 20)]), (vec![5, 5], vec![(0, 30)]));
        assert_eq!(taken_of(&others, &[(0, 3), (5, 9), (30, 40)]), (vec![15], vec![(0, 15), (30, 40)]));
    }

    #[test]
    fn what_adjoins_is_read_as_one_range_whatever_the_runs_of_the_parent_are() {
        assert_eq!(taken_of(&[chunk(10), chunk(10), chunk(10)], &[(10, 30)]), (vec![10], vec![(10, 30)]));
        // The device has grown behind a short last block, or a hole.
        assert_eq!(taken_of(&[chunk(10), chunk(5)], &[(10, 45)]), (vec![10], vec![(10, 45)]));
        assert_eq!(taken_of(&[Run::Hole(15)], &[(10, 45)]), (vec![10], vec![(10, 45)]));
        let bytes: Vec<Run> = (0..100).map(|_| chunk(1)).collect();
        assert_eq!(taken_of(&bytes, &[(0, 100)]).1, [(0, 40), (40, 80), (80, 100)]);
        assert_eq!(taken_of(&[Run::Hole(100)], &[(10, 100)]), (vec![10], vec![(10, 90), (90, 100)]));
    }

    #[test]
    fn a_run_of_a_device_begins_and_ends_with_a_block_or_with_the_device() {
        for (run, holds) in [
            (0..10, true),
            (20..50, true),
            (90..95, true),
            (0..95, true),
            (0..5, false),
            (5..10, false),
            (5..95, false),
            (90..94, false),
        ] {
            assert_eq!(keeps_to(10, &run, 95), holds, "{run:?}");
        }
    }

    #[test]
    fn what_is_dirty_is_merged_clipped_and_cut_off() {
        let ranges = |list: &str, sizes: (u64, u64), from: u64| -> Vec<Range<u64>> {
            let changed = ChangedBlocks::read(list.as_bytes(), "list", sizes.0, 10).unwrap();
            dirty(&changed, 10, sizes, from).collect()
        };
        assert_eq!(ranges("1 5\n12 10\n50 1", (95, 95), 0), [0..30, 50..60]);
        assert_eq!(ranges("91 1", (95, 95), 0).first(), Some(&(90..95)));
        assert_eq!(ranges("1 5\n12 10\n50 1", (95, 95), 20), [20..30, 50..60]);
        // Grown: the parent's short last block, and what is behind it.
        assert_eq!(ranges("0 1\n40 1", (95, 45), 0), [0..10, 40..95]);
        // Shrunk.
        assert_eq!(ranges("0 1", (45, 95), 0), [0..10, 40..95]);
        assert_eq!(ranges("", (95, 95), 0), Vec::<Range<u64>>::new());
    }
}
