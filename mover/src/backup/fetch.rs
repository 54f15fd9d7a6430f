//! Contents of a snapshot in another repository: frames are fetched and opened several at once, as many as their
//! bytes allow.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::task::{JoinHandle, JoinSet};

use super::{
    BackupSource,
    allowance::{Allowance, cost_of},
    extents::Extent,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, FramePlace},
    },
    id::PackId,
    limits,
    reader::{SnapshotReader, place_of, runs::RunWalk},
};

#[cfg(test)]
mod tests;

/// Opened frames that are kept for the next small files, in bytes: neighbours share frames.
const KEPT_BYTES: usize = 4 << 20;
/// Holes and frames of one content that wait to be asked for.
const WAITING: usize = 64;

/// Fetches frames of one snapshot.
pub(super) struct Fetch {
    reader: SnapshotReader,
    /// Bytes that frames under way may take.
    budget: u64,
    kept: VecDeque<(FrameKey, Bytes)>,
    allowance: Allowance,
}

/// Pack and offset.
type FrameKey = (PackId, u32);

/// An open frame, and each chunk that was asked for.
type Opened = Result<(Bytes, Vec<Result<Bytes>>)>;

/// What a small file holds, holes as zeros; or why it cannot be read.
pub(super) type Small = Result<(Vec<u8>, Vec<Extent>), Arc<Error>>;

/// Whether the error is of the contents that were asked for, and not of the way to them.
pub(super) fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt
}

/// What an error of one frame says of each file that it touches.
fn fatal_or<T>(result: Result<T>) -> Result<Result<T, Arc<Error>>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if is_damage(&error) => Ok(Err(Arc::new(error))),
        Err(error) => Err(error),
    }
}

impl Fetch {
    /// For a source that is a snapshot.
    pub(super) fn of(source: &BackupSource, budget: u64) -> Option<Self> {
        let BackupSource::Snapshot { from, reader, .. } = source else { return None };
        let allowance = Allowance::of(from);
        Some(Self { reader: reader.clone(), budget, kept: VecDeque::new(), allowance })
    }

    /// The contents of small files. Fails only where none of them is at fault.
    pub(super) async fn small(&mut self, entries: &[&Entry], cancel: &Cancel) -> Result<Vec<Small>> {
        let mut files: Vec<Small> = Vec::with_capacity(entries.len());
        let mut frames = Frames::default();
        for (index, entry) in entries.iter().enumerate() {
            let laid_out = match self.admit(&entry.content, cancel).await {
                Ok(()) => self.lay_out(entry, index, &mut frames).await,
                Err(error) => Err(error),
            };
            files.push(fatal_or(laid_out)?);
        }
        let mut running: JoinSet<(usize, Opened)> = JoinSet::new();
        let (mut next, mut under_way) = (0, 0);
        while next < frames.wanted.len() || !running.is_empty() {
            if let Some(wanted) = frames.wanted.get(next)
                && (running.is_empty() || under_way + cost(&wanted.place) <= self.budget)
            {
                under_way += cost(&wanted.place);
                let chunks = wanted.parts.iter().map(|part| part.chunk.clone()).collect();
                let (reader, place, kept) = (self.reader.clone(), wanted.place, self.kept(&wanted.place));
                let number = next;
                running.spawn(async move { (number, open(reader, place, kept, chunks).await) });
                next += 1;
                continue;
            }
            let Some(joined) = running.join_next().await else { break };
            let (number, opened) = joined.map_err(broke)?;
            let wanted = &frames.wanted[number];
            under_way -= cost(&wanted.place);
            let opened = fatal_or(opened)?;
            if let Ok((frame, _)) = &opened {
                self.keep(&wanted.place, frame.clone());
            }
            fill(&mut files, &wanted.parts, opened)?;
        }
        Ok(files)
    }

    /// Room for the contents of one file, and which frames they come from.
    async fn lay_out(
        &self,
        entry: &Entry,
        file: usize,
        frames: &mut Frames,
    ) -> Result<(Vec<u8>, Vec<Extent>)> {
        let size = usize::try_from(entry.metadata.size).unwrap_or(usize::MAX);
        let (mut extents, mut at): (Vec<Extent>, usize) = (Vec::new(), 0);
        let mut runs = self.reader.runs(&entry.content);
        while let Some((_, piece)) = runs.next_piece().await? {
            for run in piece {
                let length = usize::try_from(run.length()).unwrap_or(usize::MAX);
                if length > size - at {
                    return Err(wrong_size(entry));
                }
                let hole = matches!(run, Run::Hole(_));
                match extents.last_mut() {
                    Some((_, longer, same)) if *same == hole => *longer += length,
                    _ => extents.push((at, length, hole)),
                }
                if let Run::Chunk(chunk) = run {
                    frames.want(Part { file, at, chunk })?;
                }
                at += length;
            }
        }
        if at < size {
            return Err(wrong_size(entry));
        }
        Ok((vec![0; size], extents))
    }

    fn kept(&self, place: &FramePlace) -> Option<Bytes> {
        self.kept.iter().find(|(known, _)| *known == key(place)).map(|(_, frame)| frame.clone())
    }

    fn keep(&mut self, place: &FramePlace, frame: Bytes) {
        self.kept.retain(|(known, _)| *known != key(place));
        self.kept.push_back((key(place), frame));
        while self.kept.iter().map(|(_, frame)| frame.len()).sum::<usize>() > KEPT_BYTES {
            self.kept.pop_front();
        }
    }

    /// A large content from this byte on, in order.
    pub(super) async fn large(&self, content: &Content, from: u64, cancel: &Cancel) -> Result<Contents> {
        self.admit(content, cancel).await?;
        let mut walk = self.reader.runs(content);
        walk.skip_to(from).await?;
        Ok(Contents {
            reader: self.reader.clone(),
            walk,
            from,
            at: 0,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            under_way: 0,
            budget: self.budget,
        })
    }

    /// Uses what a content takes, before any of it is fetched. Fails, as for damage, if it is too much.
    async fn admit(&self, content: &Content, cancel: &Cancel) -> Result<()> {
        let least = self.allowance.left_of_least();
        let mut cost = self.cost_until(content, least, cancel).await?;
        if cost > least {
            let left = self.allowance.left().await?;
            if left > least {
                cost = self.cost_until(content, left, cancel).await?;
            }
        }
        self.allowance.take(cost).await
    }

    /// What it costs to copy a content. Ends once that is more than `enough`: there may be more pages than anybody waits for.
    async fn cost_until(&self, content: &Content, enough: u64, cancel: &Cancel) -> Result<u64> {
        if let Content::Inline(runs) = content {
            let bytes = runs.iter().filter_map(Run::chunk).map(|chunk| u64::from(chunk.length)).sum();
            return Ok(cost_of(runs.len() as u64, bytes, 0));
        }
        let (looks, cost) = (AtomicU64::new(0), AtomicU64::new(0));
        let runs = self.reader.runs(content);
        runs.sum_until(
            |sum| {
                let so_far = cost_of(sum.runs, sum.chunk_bytes, looks.fetch_add(1, Ordering::Relaxed));
                cost.store(so_far, Ordering::Relaxed);
                so_far > enough
            },
            cancel,
        )
        .await?;
        Ok(cost.into_inner())
    }
}

/// Frames that small files need, in the order in which they are first needed.
#[derive(Default)]
struct Frames {
    wanted: Vec<WantedFrame>,
    by_key: HashMap<FrameKey, usize>,
}

struct WantedFrame {
    place: FramePlace,
    parts: Vec<Part>,
}

/// Where in which file a chunk belongs.
struct Part {
    file: usize,
    at: usize,
    chunk: ChunkRef,
}

impl Frames {
    fn want(&mut self, part: Part) -> Result<()> {
        let place = *place_of(&part.chunk)?;
        let index = *self.by_key.entry(key(&place)).or_insert(self.wanted.len());
        if index == self.wanted.len() {
            self.wanted.push(WantedFrame { place, parts: Vec::new() });
        }
        self.wanted[index].parts.push(part);
        Ok(())
    }
}

/// Puts the chunks of one frame where they belong. A file that lacks one is given up.
fn fill(
    files: &mut [Small],
    parts: &[Part],
    opened: Result<(Bytes, Vec<Result<Bytes>>), Arc<Error>>,
) -> Result<()> {
    let (frame_error, chunks) = match opened {
        Ok((_, chunks)) => (None, chunks),
        Err(error) => (Some(error), Vec::new()),
    };
    let mut chunks = chunks.into_iter();
    for part in parts {
        let chunk = match (&frame_error, chunks.next()) {
            (Some(error), _) => Err(Arc::clone(error)),
            (None, Some(chunk)) => fatal_or(chunk)?,
            (None, None) => {
                return Err(Error::internal("a frame was opened for fewer chunks than were asked for"));
            }
        };
        // Parts of a file that was laid out in vain have nowhere to go.
        let Ok((data, _)) = &mut files[part.file] else { continue };
        match chunk {
            Ok(bytes) => data[part.at..part.at + bytes.len()].copy_from_slice(&bytes),
            Err(error) => files[part.file] = Err(error),
        }
    }
    Ok(())
}

/// A stretch of a large content.
pub(super) enum Stretch {
    Data(Vec<Bytes>),
    Hole(u64),
}

/// One large content in order, fetched ahead.
pub(super) struct Contents {
    reader: SnapshotReader,
    walk: RunWalk,
    /// The first byte that is wanted.
    from: u64,
    /// Where the next run begins that was not looked at.
    at: u64,
    ready: VecDeque<Run>,
    waiting: VecDeque<Waiting>,
    under_way: u64,
    budget: u64,
}

enum Waiting {
    Hole(u64),
    /// Chunks of one frame; of the first so many bytes are not wanted.
    Frame {
        cost: u64,
        unwanted: usize,
        task: JoinHandle<Opened>,
    },
}

impl Contents {
    /// What comes next; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Stretch>> {
        self.read_ahead().await?;
        match self.waiting.pop_front() {
            None => Ok(None),
            Some(Waiting::Hole(length)) => Ok(Some(Stretch::Hole(length))),
            Some(Waiting::Frame { cost, mut unwanted, task }) => {
                let (_, chunks) = task.await.map_err(broke)??;
                self.under_way -= cost;
                let mut data = Vec::with_capacity(chunks.len());
                for chunk in chunks {
                    let chunk = chunk?;
                    let skipped = unwanted.min(chunk.len());
                    unwanted -= skipped;
                    data.push(chunk.slice(skipped..));
                }
                Ok(Some(Stretch::Data(data)))
            }
        }
    }

    async fn read_ahead(&mut self) -> Result<()> {
        while self.waiting.len() < WAITING && self.fill_ready().await? {
            let Some(run) = self.ready.front() else { return Ok(()) };
            let end = self.at.saturating_add(run.length());
            let unwanted = self.from.saturating_sub(self.at);
            if end <= self.from {
                self.ready.pop_front();
                self.at = end;
                continue;
            }
            match run {
                Run::Hole(length) => {
                    self.waiting.push_back(Waiting::Hole(length - unwanted));
                    self.ready.pop_front();
                    self.at = end;
                }
                Run::Chunk(chunk) => {
                    let place = *place_of(chunk)?;
                    let cost = cost(&place);
                    if self.under_way > 0 && self.under_way + cost > self.budget {
                        return Ok(());
                    }
                    let chunks = self.take_of(&place);
                    let task = tokio::spawn(open(self.reader.clone(), place, None, chunks));
                    let unwanted = usize::try_from(unwanted).unwrap_or(usize::MAX);
                    self.under_way += cost;
                    self.waiting.push_back(Waiting::Frame { cost, unwanted, task });
                }
            }
        }
        Ok(())
    }

    /// Whether there is a run that was not looked at.
    async fn fill_ready(&mut self) -> Result<bool> {
        while self.ready.is_empty() {
            let Some((at, piece)) = self.walk.next_piece().await? else { return Ok(false) };
            self.at = at;
            self.ready = piece.into();
        }
        Ok(true)
    }

    /// The chunks that come next and lie in this frame. A content may name them any number of times: no more of them are
    /// taken at once than fill a frame.
    fn take_of(&mut self, place: &FramePlace) -> Vec<ChunkRef> {
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        while bytes < limits::FRAME_LIMIT as u64
            && let Some(Run::Chunk(chunk)) = self.ready.front()
            && chunk.frame.place().is_some_and(|next| key(next) == key(place))
            && let Some(Run::Chunk(chunk)) = self.ready.pop_front()
        {
            self.at += u64::from(chunk.length);
            bytes += u64::from(chunk.length);
            chunks.push(chunk);
        }
        chunks
    }
}

/// Fetches and opens one frame, unless it is open already, and cuts chunks out of it.
async fn open(
    reader: SnapshotReader,
    place: FramePlace,
    kept: Option<Bytes>,
    chunks: Vec<ChunkRef>,
) -> Opened {
    let frame = match kept {
        Some(frame) => frame,
        None => reader.open_data_frame(&place).await?,
    };
    let cutting = tokio::task::spawn_blocking(move || {
        let cut = chunks.iter().map(|chunk| reader.cut_out(&frame, &place, chunk)).collect();
        (frame, cut)
    });
    cutting.await.map_err(broke)
}

/// What a frame takes while it is opened: as it is stored, decompressed, and as it is handed on.
fn cost(place: &FramePlace) -> u64 {
    u64::from(place.stored) + 2 * u64::from(place.plain)
}

fn key(place: &FramePlace) -> FrameKey {
    (place.pack, place.offset)
}

fn broke(error: tokio::task::JoinError) -> Error {
    Error::internal("opening a frame broke").with_source(error)
}

/// The lengths of the runs of an entry do not add up to its size.
pub(super) fn wrong_size(entry: &Entry) -> Error {
    Error::corrupt(format!("its contents are not the {} bytes that its entry says", entry.metadata.size))
}

/// An error that several files share, for one of them.
pub(super) fn of_one_file(error: &Error) -> Error {
    Error::corrupt(error.in_one_line())
}
