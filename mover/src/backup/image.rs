//! Devices, image files and streams: one entry each, cut by a grid or by contents.

use std::{io::Read, ops::Range, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupSource,
    assemble::{Item, Large, Piece},
    dispatch::{Dispatched, Dispatcher, stopped},
    earlier::Found,
    hints::Hints,
    resume::Begun,
    worker::{Cutting, Failure, Input, Segment, Task},
};
use crate::{
    chunker,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::{FileTime, Kind, Metadata},
    },
    monitor::Progress,
    pipeline::promise::promise,
    repo::{FileState, ImageState},
    source::{block::BlockSource, changed::ChangedBlocks},
};

/// Pieces of an image that wait for the tree.
const PIECES_AHEAD: usize = 64;

/// What a device or image is like before it is read; none for files and streams. The grid is the parent's, or one
/// that fits the size.
pub(super) fn state(source: &BackupSource, parent_grid: u32) -> Result<Option<ImageState>> {
    let BackupSource::Block { path, change_id, .. } = source else { return Ok(None) };
    let file = file_state(path)?;
    let size = BlockSource::open(path)?.size();
    let grid = if parent_grid > 0 { parent_grid } else { chunker::grid_for(size) };
    Ok(Some(ImageState { size, grid, change_id: change_id.clone(), file }))
}

/// Times say nothing of the contents of a device.
fn file_state(path: &Path) -> Result<Option<FileState>> {
    let stat = std::fs::metadata(path)
        .map_err(|error| Error::io(error, format!("cannot examine {}", path.display())))?;
    let nanoseconds = |value: i64| u32::try_from(value).unwrap_or(0);
    Ok(stat.is_file().then(|| FileState {
        device: stat.dev(),
        inode: stat.ino(),
        mtime: (stat.mtime(), nanoseconds(stat.mtime_nsec())),
        ctime: (stat.ctime(), nanoseconds(stat.ctime_nsec())),
    }))
}

/// Whether the contents are proven to be what they were: by the name of the state, or as of any file.
fn is_same(then: &ImageState, now: &ImageState, racy_from: FileTime) -> bool {
    let same_id = then.change_id.is_some() && then.change_id == now.change_id;
    let same_file = then.file.is_some_and(|file| file.changed() < racy_from) && then.file == now.file;
    (then.size, then.grid) == (now.size, now.grid) && (same_id || same_file)
}

impl Dispatcher<'_> {
    /// Reads a device or image file; with a list of changes only those.
    pub(super) fn block(
        mut self,
        path: &Path,
        changed: Option<&Path>,
        state: &ImageState,
    ) -> Result<Dispatched> {
        let file = Arc::new(BlockSource::open(path)?);
        let (size, grid) = (file.size(), state.grid);
        let changed = changed.map(|list| changed_blocks_of(list, size, grid)).transpose()?;
        let entry = image_entry(path.as_os_str().as_encoded_bytes(), size);
        self.met += 1;
        let parent = self.earlier.parent.find(&entry.path);
        self.note_lost_parent()?;
        match parent {
            Some(_) => self.statistics.files_changed += 1,
            None => self.statistics.files_new += 1,
        }
        let now = ImageState { size, ..state.clone() };
        let (mut hints, begun) = self.unfinished_images(&entry.path, Some(&now));
        Progress::add(&self.monitor.progress().bytes_expected, size);
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        let input = Input::Block(Arc::clone(&file));
        self.item(Item::Large(Box::new(Large {
            entry,
            pieces: receiver,
            input: Some(input),
            before: None,
        })))?;
        let from = self.go_on(begun, &pieces)?;
        // Somebody may have named a stream as the parent, whose chunks are no blocks.
        let is_on_grid = self.earlier.parent.grid == grid;
        match (parent, changed.filter(|_| is_on_grid)) {
            (Some(parent), Some(changed)) => {
                let changed = with_unusable(&parent, changed, size)?;
                let sizes = (size, parent.entry.metadata.size);
                let mut dirty = dirty(&changed, u64::from(grid), sizes, from);
                self.changed_blocks(&file, &parent, &mut dirty, from, grid, &pieces)?;
            }
            (parent, _) => {
                hints.extend(parent);
                self.all_blocks(&file, from, grid, &pieces, &mut Hints::of(hints, &self.shared))?;
            }
        }
        drop(pieces);
        Ok(self.done())
    }

    /// What unfinished runs have of an image: contents that may serve, and one to go on from.
    fn unfinished_images(&mut self, path: &[u8], now: Option<&ImageState>) -> (Vec<Found>, Option<Begun>) {
        let (mut hints, mut begun) = (Vec::new(), None);
        for tree in &mut self.earlier.checkpoints {
            let Some(found) = tree.find(path) else { continue };
            let covered = found.entry.metadata.size;
            let then = tree.checkpoint.as_ref().and_then(|checkpoint| checkpoint.image.as_ref());
            let same = then.zip(now).is_some_and(|(then, now)| {
                let whole_blocks = covered.is_multiple_of(u64::from(now.grid).max(1)) || covered == now.size;
                whole_blocks && covered <= now.size && is_same(then, now, tree.racy_from)
            });
            if same && begun.is_none() {
                begun = Some(Begun { found, covered });
            } else {
                hints.push(found);
            }
        }
        (hints, begun)
    }

    fn all_blocks(
        &self,
        file: &Arc<BlockSource>,
        from: u64,
        grid: u32,
        pieces: &Sender<Piece>,
        hints: &mut Hints,
    ) -> Result<()> {
        let mut at = from;
        for extent in file.extents() {
            // Blocks are read whole: a hole counts only where it covers all of one.
            let start = (extent.offset / u64::from(grid) * u64::from(grid)).max(at);
            let end = (extent.offset + extent.length).next_multiple_of(u64::from(grid)).min(file.size());
            if end <= at {
                continue;
            }
            self.hole(at, start, pieces)?;
            self.blocks(file, start..end, grid, pieces, Some(hints))?;
            at = end;
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
        mut hints: Option<&mut Hints>,
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

    /// Takes from the parent what did not change, and reads the rest; all from this byte on.
    fn changed_blocks(
        &self,
        file: &Arc<BlockSource>,
        parent: &Found,
        dirty: &mut dyn Iterator<Item = Range<u64>>,
        from: u64,
        grid: u32,
        pieces: &Sender<Piece>,
    ) -> Result<()> {
        let size = file.size();
        let mut dirty = dirty.peekable();
        let mut at = 0u64;
        let mut kept: Vec<Run> = Vec::new();
        let mut failed: Option<Error> = None;
        let mut step = |run: Run, dirty: &mut Dirty<'_>| -> Result<bool> {
            let (start, end) = (at.max(from), at + run.length());
            at = end;
            keep_clean(run, start, end, dirty, &mut kept, |kept, range| {
                let range = range.start.min(size)..range.end.min(size);
                self.piece(pieces, Piece::Runs(std::mem::take(kept)))?;
                self.blocks(file, range, grid, pieces, None)
            })?;
            if kept.len() >= KEPT_RUNS {
                self.cancel.check()?;
                self.piece(pieces, Piece::Runs(std::mem::take(&mut kept)))?;
            }
            // How far the parent goes beyond the device is decided by whoever wrote it.
            Ok(at < size)
        };
        parent.opener.runs(&parent.entry.content, &mut |run| {
            step(run, &mut dirty).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
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
    pub(super) fn stream(mut self, input: &mut dyn Read, name: &str) -> Result<Dispatched> {
        let entry = image_entry(name.as_bytes(), 0);
        self.met += 1;
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        self.statistics.files_new += 1;
        let (mut hints, _) = self.unfinished_images(&entry.path, None);
        hints.extend(self.earlier.parent.find(&entry.path));
        self.note_lost_parent()?;
        let mut hints = Hints::of(hints, &self.shared);
        self.item(Item::Large(Box::new(Large { entry, pieces: receiver, input: None, before: None })))?;
        let mut received = 0;
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
            received += read as u64;
            hints.cover(received);
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
                return Ok(self.done());
            }
        }
    }
}

/// Runs that are sent to the tree in one piece.
const KEPT_RUNS: usize = 4096;

/// Ranges to be read.
type Dirty<'d> = std::iter::Peekable<&'d mut dyn Iterator<Item = Range<u64>>>;

/// Sends what of a run of the parent is clean, and has each dirty range that begins in it read. Holes are split; a chunk
/// is clean only as a whole. Dirty ranges are aligned to blocks, and so is a chunk of whoever keeps to the grid.
fn keep_clean(
    run: Run,
    mut start: u64,
    end: u64,
    dirty: &mut Dirty<'_>,
    kept: &mut Vec<Run>,
    mut read: impl FnMut(&mut Vec<Run>, Range<u64>) -> Result<()>,
) -> Result<()> {
    if start >= end {
        return Ok(());
    }
    if let Run::Chunk(chunk) = &run {
        let is_clean = dirty.peek().is_none_or(|range| range.start >= end);
        if is_clean && end - start == u64::from(chunk.length) {
            kept.push(run);
            return Ok(());
        }
        read(kept, start..end)?;
        pass(dirty, end);
        return Ok(());
    }
    while start < end {
        let Some(range) = dirty.peek().filter(|range| range.start < end) else {
            kept.push(Run::Hole(end - start));
            return Ok(());
        };
        if range.start > start {
            kept.push(Run::Hole(range.start - start));
        }
        let piece = range.start.max(start)..range.end.min(end);
        start = piece.end;
        read(kept, piece)?;
        pass(dirty, start);
    }
    Ok(())
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
fn changed_blocks_of(list: &Path, size: u64, grid: u32) -> Result<ChangedBlocks> {
    let origin = list.display().to_string();
    let file = std::fs::File::open(list)
        .map_err(|error| Error::io(error, format!("cannot open the list of changed blocks {origin}")))?;
    ChangedBlocks::read(file, &origin, size, u64::from(grid))
}

/// Adds the blocks of a device of this size whose chunks the parent has, but nobody may name again, to those that must be
/// read (W2).
fn with_unusable(parent: &Found, mut changed: ChangedBlocks, size: u64) -> Result<ChangedBlocks> {
    if !parent.opener.may_be_absent() {
        return Ok(changed);
    }
    let mut at = 0;
    let mut failed = None;
    parent.opener.runs(&parent.entry.content, &mut |run| {
        let length = run.length();
        if let Run::Chunk(chunk) = &run {
            match parent.opener.is_sound(chunk) {
                Ok(true) => {}
                Ok(false) => changed.include(at..at + length),
                Err(error) => failed = Some(error),
            }
        }
        at += length;
        failed.is_none() && at < size
    })?;
    failed.map_or(Ok(changed), Err)
}

/// What must be read, in order and from this byte on: changed blocks, neighbours as one range. What the device has
/// beyond the parent, and the parent's last block if it was short, count as changed. Made as it is asked for: a list
/// of ranges would take hundreds of megabytes where many blocks changed.
fn dirty(
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

fn image_entry(path: &[u8], size: u64) -> Entry {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path: Vec<u8> = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path).to_vec();
    let metadata = Metadata { mode: 0o600, size, links: 1, ..Metadata::default() };
    Entry { path, kind: Kind::Image, metadata, content: Content::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::chunk_ending;

    /// Lengths of what is kept of these runs, and what is read.
    type Kept = (Vec<u64>, Vec<(u64, u64)>);

    fn kept_of(runs: &[Run], ranges: &[(u64, u64)]) -> Kept {
        let mut ranges = ranges.iter().map(|(start, end)| *start..*end);
        let ranges: &mut dyn Iterator<Item = Range<u64>> = &mut ranges;
        let mut dirty = ranges.peekable();
        let (mut at, mut kept, mut read) = (0, Vec::new(), Vec::new());
        for run in runs {
            let (start, end) = (at, at + run.length());
            at = end;
            let note = |_: &mut Vec<Run>, range: Range<u64>| {
                read.push((range.start, range.end));
                Ok(())
            };
            keep_clean(run.clone(), start, end, &mut dirty, &mut kept, note).unwrap();
        }
        (kept.iter().map(Run::length).collect(), read)
    }

    #[test]
    fn a_chunk_is_clean_as_a_whole_and_a_hole_in_parts() {
        let chunk = |length| Run::Chunk(chunk_ending(1, length, length));
        let blocks = [chunk(10), chunk(10), chunk(10)];
        assert_eq!(kept_of(&blocks, &[(10, 20)]), (vec![10, 10], vec![(10, 20)]));
        assert_eq!(kept_of(&blocks, &[(10, 30)]), (vec![10], vec![(10, 20), (20, 30)]));
        assert_eq!(kept_of(&blocks, &[(30, 40)]), (vec![10, 10, 10], vec![]));
        let hole = [Run::Hole(50)];
        assert_eq!(kept_of(&hole, &[(10, 20), (40, 90)]), (vec![10, 20], vec![(10, 20), (40, 50)]));
        // Chunks that are no blocks, as no honest parent has them: of what is changed in part all is read.
        let others = [chunk(25), chunk(25), chunk(5), Run::Hole(5)];
        assert_eq!(kept_of(&others, &[(20, 30)]), (vec![5, 5], vec![(0, 25), (25, 50)]));
        assert_eq!(kept_of(&others, &[(0, 10), (15, 20), (50, 60)]).1, [(0, 25), (50, 55), (55, 60)]);
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
