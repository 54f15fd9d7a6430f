//! Devices, image files and streams: one entry each, cut by a grid or by contents.

use std::{io::Read, ops::Range, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use crossbeam_channel::{Sender, bounded};

use super::{
    BackupSource,
    assemble::{Item, Large, Piece},
    changes::{Parts, changed_blocks_of, dirty, keeps_to, with_unusable},
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
    source::{block::BlockSource, reads::Reader, stored_path},
};

/// Pieces of an image that wait for the tree.
const PIECES_AHEAD: usize = 64;

/// What a device or image is like before it is read; none for files and streams. The grid is the parent's, or one
/// that fits the size.
pub(super) fn state(source: &BackupSource, parent_grid: u32, reader: &Reader) -> Result<Option<ImageState>> {
    let BackupSource::Block { path, change_id, .. } = source else { return Ok(None) };
    let _reading = reader.begin(stored_path(path));
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
        let file = Arc::new(self.reading(stored_path(path), || BlockSource::open(path))?);
        let (size, grid) = (file.size(), state.grid);
        let changed = changed.map(|list| changed_blocks_of(list, size, grid)).transpose()?;
        let entry = image_entry(stored_path(path), size);
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
                let changed = with_unusable(&parent, changed, size, grid, &self.cancel)?;
                let sizes = (size, parent.entry.metadata.size);
                let mut dirty = dirty(&changed, u64::from(grid), sizes, from);
                self.changed_blocks(&file, &parent, &mut dirty, from, grid, &pieces)?;
            }
            (parent, _) => {
                hints.extend(parent);
                self.all_blocks(&file, from, grid, &pieces, &mut Hints::of(hints, &self.shared)?)?;
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
        let mut extents = file.extents();
        while let Some(extent) = self.reading(file.path(), || extents.next()) {
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
                hints.cover(at + length as u64)?;
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
        let mut astray = None;
        let mut failed: Option<Error> = None;
        let mut parts = Parts::new(self.segment_bytes as u64, |kept: Vec<Run>, range: Range<u64>| {
            if !kept.is_empty() {
                self.piece(pieces, Piece::Runs(kept))?;
            }
            self.blocks(file, range.start.min(size)..range.end.min(size), grid, pieces, None)
        });
        let mut step = |run: Run| -> Result<bool> {
            self.cancel.check()?;
            let range = at..at + run.length();
            if !keeps_to(grid, &range, parent.entry.metadata.size) {
                astray = Some(range.start.max(from));
                return Ok(false);
            }
            at = range.end;
            parts.add(run, range.start.max(from), range.end, &mut dirty)?;
            // How far the parent goes beyond the device is decided by whoever wrote it.
            Ok(at < size)
        };
        parent.opener.runs(&parent.entry.content, &mut |run| {
            step(run).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if astray.is_none() {
            dirty.try_for_each(|range| parts.read(range))?;
        }
        parts.finish()?;
        match astray {
            // Runs that are no blocks may be of a byte each: to go through them can take longer than to read the device.
            Some(start) => {
                self.all_blocks(file, start, grid, pieces, &mut Hints::of(Vec::new(), &self.shared)?)
            }
            None => Ok(()),
        }
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
        let mut hints = Hints::of(hints, &self.shared)?;
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
            hints.cover(received)?;
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

fn image_entry(path: &[u8], size: u64) -> Entry {
    let path: Vec<u8> = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path).to_vec();
    let metadata = Metadata { mode: 0o600, size, links: 1, ..Metadata::default() };
    Entry { path, kind: Kind::Image, metadata, content: Content::default() }
}
