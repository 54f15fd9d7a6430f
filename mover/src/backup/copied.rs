//! A snapshot of another repository as the source: its entries keep their attributes, their contents are cut, sealed
//! and stored as if they had been read here.

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use jiff::Timestamp;

use super::{
    BackupSource, PROBLEMS_RECORDED,
    assemble::{Item, Large, Piece},
    compare::Met,
    dispatch::{Dispatched, Dispatcher, Gathered, SMALL_FILE_BYTES, stopped},
    earlier::Found,
    fetch::{Fetch, Small, Stretch, is_damage, of_one_file, wrong_size},
    hints::Hints,
    resume::Begun,
    worker::{BatchItem, Failure, Loaded, Task},
};
use crate::{
    chunker::{Chunker, CutSizes},
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::Kind,
        records::{CopiedFrom, Snapshot},
    },
    monitor::Progress,
    pipeline::{bridge::Bridge, promise::promise},
    reader::{SnapshotReader, contents::same_contents, walk::Part},
    repo::Repository,
    source,
};

/// Pieces of a large content that wait for the tree.
const PIECES_AHEAD: usize = 64;

/// A small file whose contents are still in the other repository.
pub(super) struct Wanted {
    pub(super) entry: Entry,
    parent: Option<Entry>,
}

/// What is known of the snapshot that is copied. Its times do not tell whether its contents are those of an earlier copy:
/// the backup may have read everything because they were doubted.
pub(super) struct Original {
    origin: CopiedFrom,
    reader: SnapshotReader,
    /// The snapshot that the parent is a copy of, as far as it is still there.
    of_parent: Option<SnapshotReader>,
}

impl Original {
    /// What is known where a snapshot is copied; `to` is where the parent is.
    pub(super) async fn find(
        source: &BackupSource,
        to: &Repository,
        parent: Option<&Snapshot>,
    ) -> Result<Option<Self>> {
        let BackupSource::Snapshot { from, reader, origin } = source else { return Ok(None) };
        let mut of_parent = None;
        if let Some(parent) = parent {
            let own = CopiedFrom { repository: to.format().repository, session: parent.session };
            match find_copied(from, parent.copied_from.unwrap_or(own)).await {
                Ok(found) => of_parent = found.map(|found| SnapshotReader::new(from.clone(), found)),
                Err(error) if error.is_of_the_run() => return Err(error),
                Err(error) => tracing::info!(%error, "all contents of the snapshot are fetched"),
            }
        }
        Ok(Some(Self { origin: *origin, reader: reader.clone(), of_parent }))
    }

    /// Whether an entry has the contents of the entry of its path in the snapshot that the parent is a copy of.
    async fn is_as_in_parent(&self, entry: &Entry) -> Result<bool> {
        let Some(earlier) = &self.of_parent else { return Ok(false) };
        match earlier.lookup(&entry.path).await? {
            Some(old) => same_contents(earlier, &self.reader, &old.content, &entry.content).await,
            None => Ok(false),
        }
    }
}

/// The snapshot of a repository that was made there, or is a copy of it.
async fn find_copied(from: &Repository, wanted: CopiedFrom) -> Result<Option<Snapshot>> {
    if wanted.repository != from.format().repository {
        let all = from.snapshots().await?.snapshots;
        return Ok(all.into_iter().find(|snapshot| snapshot.copied_from == Some(wanted)));
    }
    match from.snapshot(wanted.session).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Which snapshot is copied.
pub(super) fn origin(source: &BackupSource) -> Option<CopiedFrom> {
    match source {
        BackupSource::Snapshot { origin, .. } => Some(*origin),
        BackupSource::Files(_) | BackupSource::Block { .. } | BackupSource::Stdin { .. } => None,
    }
}

/// When the snapshot that is copied was begun.
pub(super) fn started(source: &BackupSource) -> Option<Timestamp> {
    match source {
        BackupSource::Snapshot { reader, .. } => Some(reader.snapshot().started),
        BackupSource::Files(_) | BackupSource::Block { .. } | BackupSource::Stdin { .. } => None,
    }
}

/// The grid of the snapshot that is copied.
pub(super) fn grid(source: &BackupSource) -> Option<u32> {
    match source {
        BackupSource::Snapshot { reader, .. } => Some(reader.snapshot().grid),
        BackupSource::Files(_) | BackupSource::Block { .. } | BackupSource::Stdin { .. } => None,
    }
}

/// Puts into the record of a copy what that of the original says of how it was made.
pub(super) fn keep_record(snapshot: &mut Snapshot, source: &BackupSource) {
    let BackupSource::Snapshot { reader, origin, .. } = source else { return };
    let original = reader.snapshot();
    snapshot.finished = original.finished;
    snapshot.change_id.clone_from(&original.change_id);
    snapshot.statistics.excluded = original.statistics.excluded;
    // The numbers of a snapshot may be any.
    let problems = &mut snapshot.statistics.problems;
    *problems = problems.saturating_add(original.statistics.problems);
    let own = std::mem::take(&mut snapshot.problems);
    snapshot.problems = original.problems.iter().cloned().chain(own).take(PROBLEMS_RECORDED).collect();
    snapshot.copied_from = Some(*origin);
}

impl Dispatcher<'_> {
    /// Whether what an earlier copy has of an entry with the same times has its contents, too. `of`: what that is a copy of.
    pub(super) fn has_contents_of(
        &self,
        entry: &Entry,
        of: Option<CopiedFrom>,
        is_parent: bool,
    ) -> Result<bool> {
        let Some(original) = &self.original else { return Ok(false) };
        if of == Some(original.origin) {
            return Ok(true);
        }
        let same = match is_parent {
            true => self.shared.bridge.wait(original.is_as_in_parent(entry)),
            false => Ok(false),
        };
        match same {
            Err(error) if !error.is_of_the_run() => {
                tracing::info!(%error, "contents that cannot be compared are fetched");
                Ok(false)
            }
            same => same,
        }
    }

    /// Takes the entries of a snapshot of another repository.
    pub(super) fn snapshot(mut self, reader: &SnapshotReader) -> Result<Dispatched> {
        let snapshot = reader.snapshot();
        self.earlier.compare_as_of(snapshot.started);
        Progress::add(&self.monitor.progress().bytes_expected, snapshot.statistics.bytes_total);
        let mut walk = reader.entries(Part::all())?;
        while let Some(leaf) = self.shared.bridge.wait(walk.next_leaf())? {
            for entry in leaf {
                self.cancel.check()?;
                self.meet(Met::Stored(entry))?;
                self.note_lost_parent()?;
            }
        }
        self.flush_batch()?;
        Ok(self.done())
    }

    /// Copies an entry that no earlier run has. Of earlier runs' contents (`hints`) chunks may be found again.
    pub(super) fn stored(&mut self, entry: Entry, hints: Vec<Found>, begun: Option<Begun>) -> Result<()> {
        let size = entry.metadata.size;
        if entry.kind == Kind::Image || size > SMALL_FILE_BYTES {
            self.flush_batch()?;
            return self.stored_large(entry, hints, begun);
        }
        if matches!(&entry.content, Content::Inline(runs) if runs.iter().all(is_hole)) {
            Progress::add(&self.monitor.progress().bytes, size);
            return self.push(Gathered::Ready(BatchItem::Done(entry)), 0);
        }
        let parent = Found::first_inline(hints)?;
        self.push(Gathered::Wanted(Box::new(Wanted { entry, parent })), size)
    }

    /// Fetches what is wanted of a batch. A file that cannot be read is left out and reported.
    pub(super) fn fetch(&mut self, batch: Vec<Gathered>) -> Result<Vec<BatchItem>> {
        let entries: Vec<&Entry> = batch
            .iter()
            .filter_map(|item| match item {
                Gathered::Wanted(wanted) => Some(&wanted.entry),
                Gathered::Ready(_) => None,
            })
            .collect();
        let mut fetched = match (&mut self.fetch, entries.is_empty()) {
            (_, true) => Vec::new(),
            (Some(fetch), false) => self.shared.bridge.wait(fetch.small(&entries, &self.cancel))?,
            (None, false) => return Err(no_snapshot()),
        }
        .into_iter();
        let mut items = Vec::with_capacity(batch.len());
        for item in batch {
            match item {
                Gathered::Ready(item) => items.push(item),
                Gathered::Wanted(wanted) => {
                    let small = fetched.next().ok_or_else(|| Error::internal("a file was not fetched"))?;
                    items.extend(self.load(*wanted, small));
                }
            }
        }
        Ok(items)
    }

    fn load(&mut self, wanted: Wanted, small: Small) -> Option<BatchItem> {
        let Wanted { entry, parent } = wanted;
        match small {
            Ok((data, extents)) => {
                self.note_bytes(data.len() as u64);
                Some(BatchItem::Loaded(Box::new(Loaded { entry, data, extents, parent })))
            }
            Err(error) => {
                self.left_out += 1;
                self.report(source::Problem::new(entry.path, "contents", of_one_file(&error)));
                None
            }
        }
    }

    fn note_bytes(&self, read: u64) {
        Progress::add(&self.monitor.progress().bytes, read);
        Progress::add(&self.monitor.progress().bytes_moved, read);
    }

    fn stored_large(&mut self, mut entry: Entry, hints: Vec<Found>, begun: Option<Begun>) -> Result<()> {
        let (size, content) = (entry.metadata.size, std::mem::take(&mut entry.content));
        let mismatch = wrong_size(&entry);
        let grid = match entry.kind {
            Kind::Image => grid(&self.options.source).unwrap_or(0),
            _ => 0,
        };
        let (pieces, receiver) = bounded(PIECES_AHEAD);
        let mut hints = Hints::of(hints, &self.shared)?;
        self.item(Item::Large(Box::new(Large { entry, pieces: receiver, input: None, before: None })))?;
        let from = self.go_on(begun, &pieces)?;
        let mut cutter = Cutter {
            cut: Cut::new(grid, self.shared.keys.chunk_seed(), self.cut),
            at: from,
            buffer: Vec::new(),
        };
        let result = self.cut_large(&content, &mut cutter, &pieces, &mut hints);
        let result = result.and_then(|()| if cutter.at == size { Ok(()) } else { Err(mismatch) });
        match result {
            Err(error) if is_damage(&error) => {
                let (answer, lost) = promise(|| Err(Failure::Store(stopped())));
                answer.give(Err(Failure::Source(error)));
                self.piece(&pieces, Piece::Later(lost))
            }
            result => result,
        }
    }

    /// Cuts a large content from where the cutter stands, stretch by stretch.
    fn cut_large(
        &self,
        content: &Content,
        cutter: &mut Cutter,
        pieces: &Sender<Piece>,
        hints: &mut Hints,
    ) -> Result<()> {
        let fetch: &Fetch = self.fetch.as_ref().ok_or_else(no_snapshot)?;
        let bridge: &Bridge = &self.shared.bridge;
        let mut contents = bridge.wait(fetch.large(content, cutter.at, &self.cancel))?;
        loop {
            self.cancel.check()?;
            match bridge.wait(contents.next())? {
                Some(Stretch::Data(chunks)) => {
                    for chunk in chunks {
                        self.note_bytes(chunk.len() as u64);
                        self.gather(&chunk, cutter, pieces, hints)?;
                    }
                }
                Some(Stretch::Hole(length)) => {
                    self.send(cutter, true, pieces, hints)?;
                    Progress::add(&self.monitor.progress().bytes, length);
                    self.piece(pieces, Piece::Runs(vec![Run::Hole(length)]))?;
                    cutter.at += length;
                }
                None => return self.send(cutter, true, pieces, hints),
            }
        }
    }

    fn gather(
        &self,
        chunk: &Bytes,
        cutter: &mut Cutter,
        pieces: &Sender<Piece>,
        hints: &mut Hints,
    ) -> Result<()> {
        if cutter.buffer.capacity() < self.segment_bytes {
            cutter.buffer.reserve_exact(self.segment_bytes);
        }
        cutter.buffer.extend_from_slice(chunk);
        if cutter.buffer.len() >= self.segment_bytes {
            self.send(cutter, false, pieces, hints)
        } else {
            Ok(())
        }
    }

    /// Has a worker store what is gathered, up to the last cut that is certain.
    fn send(
        &self,
        cutter: &mut Cutter,
        ended: bool,
        pieces: &Sender<Piece>,
        hints: &mut Hints,
    ) -> Result<()> {
        let ends = cutter.cut.ends(&cutter.buffer, cutter.at, ended);
        let Some(length) = ends.last().copied() else { return Ok(()) };
        let rest = cutter.buffer.split_off(length);
        let buffer = std::mem::replace(&mut cutter.buffer, rest);
        cutter.at += length as u64;
        hints.cover(cutter.at)?;
        let (answer, result) = promise(|| Err(Failure::Store(stopped())));
        self.task(Task::Buffer(buffer, ends, answer))?;
        self.piece(pieces, Piece::Later(result))
    }
}

/// Where one large content stands.
struct Cutter {
    cut: Cut,
    /// Where the buffer begins in the content.
    at: u64,
    buffer: Vec<u8>,
}

/// How a large content is cut: as a backup of the same thing into this repository would be.
enum Cut {
    Content(Chunker, CutSizes),
    Grid(u32),
}

impl Cut {
    fn new(grid: u32, seed: &crate::secret::Key, sizes: CutSizes) -> Self {
        match grid {
            0 => Self::Content(Chunker::new(seed, sizes), sizes),
            grid => Self::Grid(grid),
        }
    }

    /// Ends of chunks in data that begins at a place of the content; only those that what follows cannot move,
    /// unless nothing follows.
    fn ends(&self, data: &[u8], start: u64, ended: bool) -> Vec<usize> {
        let (mut at, mut ends) = (0, Vec::new());
        while at < data.len() {
            let left = data.len() - at;
            let length = match self {
                Self::Content(_, sizes) if !ended && left < sizes.maximum as usize => break,
                Self::Content(chunker, _) => chunker.cut(&data[at..]),
                Self::Grid(grid) => {
                    let into = (start + at as u64) % u64::from(*grid);
                    let length = usize::try_from(u64::from(*grid) - into).unwrap_or(usize::MAX);
                    if !ended && left < length {
                        break;
                    }
                    length.min(left)
                }
            };
            at += length;
            ends.push(at);
        }
        ends
    }
}

fn is_hole(run: &Run) -> bool {
    matches!(run, Run::Hole(_))
}

fn no_snapshot() -> Error {
    Error::internal("contents of a snapshot are wanted where none is copied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_that_of_the_content_not_of_the_piece() {
        let cut = Cut::Grid(10);
        assert_eq!(cut.ends(&[1; 25], 5, false), [5, 15, 25]);
        assert_eq!(cut.ends(&[1; 27], 0, false), [10, 20]);
        assert_eq!(cut.ends(&[1; 27], 0, true), [10, 20, 27]);
        assert!(cut.ends(&[], 0, true).is_empty());
    }
}
