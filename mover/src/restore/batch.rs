//! Batches of work: files, the chunks they want, and the ranges of packs to fetch for them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    codec::Cipher,
    error::Result,
    format::{
        frame::{ChunkRef, Frame, FrameKind, FramePlace},
        metadata::Metadata,
    },
    id::{ChunkId, PackId},
    monitor::Progress,
    reader::{SnapshotReader, place_of},
    target::{TargetFile, block::BlockTarget, tree::TargetTree},
};

#[cfg(test)]
mod tests;

/// Where the bytes of one content go.
#[derive(Debug)]
pub(crate) struct FileTask {
    /// The path beneath the target.
    pub path: Vec<u8>,
    /// Attributes that it gets when it is complete.
    pub metadata: Metadata,
    /// What is written to.
    pub sink: Sink,
    /// Pieces not written yet, and one for the planner while it still adds some.
    remaining: AtomicU64,
    /// Bytes of its contents that progress was told of.
    told: AtomicU64,
    /// Something of it could not be restored: it is not completed, and reported once.
    failed: AtomicBool,
}

/// What a content is written to.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A file that is one chunk: written in one go by whoever has the chunk.
    Small,
    /// A file, made when its first piece comes.
    File {
        /// The file once it is made.
        open: OnceLock<TargetFile>,
        /// It is made once.
        making: Mutex<()>,
    },
    /// A device or image.
    Block(Arc<BlockTarget>),
    /// Nothing: what is there is only compared.
    Check,
}

impl FileTask {
    /// A task that the planner still adds pieces to.
    pub(crate) fn new(path: Vec<u8>, metadata: Metadata, sink: Sink) -> Self {
        let (remaining, failed) = (AtomicU64::new(1), AtomicBool::new(false));
        Self { path, metadata, sink, remaining, told: AtomicU64::new(0), failed }
    }

    /// Tells progress of contents that are where they belong: a large file is not nothing until its end.
    pub(crate) fn tell(&self, progress: &Progress, bytes: u64) {
        self.told.fetch_add(bytes, Ordering::Relaxed);
        Progress::add(&progress.bytes, bytes);
    }

    /// Tells progress of the rest, holes for example.
    pub(crate) fn tell_rest(&self, progress: &Progress) {
        self.tell(progress, self.metadata.size.saturating_sub(self.told.load(Ordering::Relaxed)));
    }

    /// One piece is done (or the planner is); true for the last one.
    pub(crate) fn done(&self) -> bool {
        self.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Marks it as failed; true for the first time.
    pub(crate) fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }

    /// The file that its pieces go to, made now if nobody has made it; none for those that are made in one go or only checked.
    pub(crate) fn made(&self, tree: &TargetTree) -> Result<Option<&TargetFile>> {
        let Sink::File { open, making } = &self.sink else { return Ok(None) };
        if let Some(file) = open.get() {
            return Ok(Some(file));
        }
        let _one = making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get() {
            return Ok(Some(file));
        }
        let file = tree.prepare_file(&self.path, self.metadata.flags, false)?;
        Ok(Some(open.get_or_init(|| file)))
    }

    /// Whether something of it could not be restored.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

impl Sink {
    /// A file that is made later.
    pub(crate) fn file() -> Self {
        Self::File { open: OnceLock::new(), making: Mutex::new(()) }
    }

    /// A file that is open already.
    pub(crate) fn existing(file: TargetFile) -> Self {
        Self::File { open: OnceLock::from(file), making: Mutex::new(()) }
    }

    /// Whether it is a file that was there and still has its contents.
    pub(crate) fn is_reused(&self) -> bool {
        matches!(self, Self::File { open, .. } if open.get().is_some_and(TargetFile::is_reused))
    }
}

/// One chunk for one place in one file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Index in the batch's frames.
    pub frame: u32,
    /// Offset in the frame.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// Index in the batch's files.
    pub file: u32,
    /// Offset in the file.
    pub at: u64,
    /// What the bytes must be.
    pub id: ChunkId,
}

/// What is planned and executed together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub files: Vec<Arc<FileTask>>,
    pub frames: Vec<FramePlace>,
    pub pieces: Vec<Piece>,
    /// Some of its files are compared before anything is fetched.
    pub compares: bool,
    /// Files without any piece.
    pub complete: Vec<Arc<FileTask>>,
    /// About how many bytes names and attributes of the files take.
    weight: usize,
    by_place: HashMap<(PackId, u32), u32>,
    last: Option<(Frame, u32)>,
}

/// About how many bytes a path and attributes take: a snapshot may give a file a long path, and much in extended
/// attributes.
pub(crate) fn weight(path: &[u8], metadata: &Metadata) -> usize {
    let xattrs = metadata.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 64);
    path.len() + 64 + xattrs.sum::<usize>()
}

/// About how many bytes one file of a batch takes in memory, without its name and attributes.
pub(crate) const FILE_BYTES: usize = 448;
/// About how many bytes one piece takes, with its share of the tables.
pub(crate) const PIECE_BYTES: usize = 80;

impl Batch {
    /// An empty batch whose files are compared first, or not.
    pub(crate) fn comparing(compares: bool) -> Self {
        Self { compares, ..Self::default() }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let files = (self.files.len() + self.complete.len()) * FILE_BYTES + self.weight;
        files + self.pieces.len() * PIECE_BYTES + self.frames.len() * 128
    }

    /// Takes in a file that has no pieces left to wait for.
    pub(crate) fn complete(&mut self, task: Arc<FileTask>) {
        self.weight += weight(&task.path, &task.metadata);
        self.complete.push(task);
    }

    /// Takes in a file; the index is for `add`.
    pub(crate) fn file(&mut self, task: Arc<FileTask>) -> u32 {
        self.weight += weight(&task.path, &task.metadata);
        self.files.push(task);
        u32::try_from(self.files.len() - 1).expect("a batch is bounded by memory, far below 2^32 files")
    }

    /// Wants a chunk at `at` of a file.
    pub(crate) fn add(&mut self, file: u32, at: u64, chunk: &ChunkRef) -> Result<()> {
        let frame = match &self.last {
            Some((frame, index)) if frame.is_same(&chunk.frame) => *index,
            _ => {
                let place = *place_of(chunk)?;
                let next = u32::try_from(self.frames.len()).expect("a batch is bounded by memory");
                let index = *self.by_place.entry((place.pack, place.offset)).or_insert(next);
                if index == next {
                    self.frames.push(place);
                }
                self.last = Some((chunk.frame.clone(), index));
                index
            }
        };
        self.files[file as usize].remaining.fetch_add(1, Ordering::AcqRel);
        let (offset, length) = (chunk.offset, chunk.length);
        self.pieces.push(Piece { frame, offset, length, file, at, id: chunk.id });
        Ok(())
    }

    /// Puts the pieces into the order of the packs and cuts them into ranges to fetch.
    pub(crate) fn into_ranges(mut self, reader: &SnapshotReader, fetch: &Fetch) -> (Self, Vec<Range>) {
        let frames = &self.frames;
        self.pieces.sort_unstable_by_key(|piece| {
            let place = &frames[piece.frame as usize];
            (place.pack, place.offset, piece.offset, piece.file, piece.at)
        });
        (self.by_place, self.last) = (HashMap::new(), None);
        let mut ranges: Vec<Range> = Vec::new();
        let mut start = 0;
        while start < self.pieces.len() {
            let frame = self.pieces[start].frame;
            let count = self.pieces[start..].iter().take_while(|piece| piece.frame == frame).count();
            let place = self.frames[frame as usize];
            let part = FramePart {
                place,
                cipher: reader.cipher(place.session, FrameKind::Data),
                pieces: start..start + count,
            };
            match ranges.last_mut() {
                Some(range) if range.takes(&place, fetch) => range.push(part),
                _ => ranges.push(Range::of(part)),
            }
            start += count;
        }
        (self, ranges)
    }
}

/// How ranges are merged, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    /// Bytes that are rather read than asked around.
    pub gap: u64,
    /// No request is longer (but for a single frame).
    pub longest: u64,
}

impl Fetch {
    /// For a local store requests cost next to nothing, and small ones stay in the processor's cache; for a remote
    /// one a request costs as much as some 256 KiB of bytes, and long ones are the fast ones.
    pub(crate) fn suited(local: bool, in_flight_bytes: u64) -> Self {
        if local {
            Self { gap: 16 << 10, longest: (1 << 20).min(in_flight_bytes / 4) }
        } else {
            Self { gap: 256 << 10, longest: (16 << 20).min(in_flight_bytes / 8) }
        }
    }
}

/// One frame of a range and the pieces wanted of it.
#[derive(Debug)]
pub(crate) struct FramePart {
    pub place: FramePlace,
    pub cipher: Result<Arc<Cipher>>,
    pub pieces: std::ops::Range<usize>,
}

/// A part of a pack that is fetched with one request.
#[derive(Debug)]
pub(crate) struct Range {
    pub pack: PackId,
    pub start: u64,
    pub end: u64,
    pub parts: Vec<FramePart>,
}

impl Range {
    fn of(part: FramePart) -> Self {
        let start = u64::from(part.place.offset);
        let end = start + u64::from(part.place.stored);
        Self { pack: part.place.pack, start, end, parts: vec![part] }
    }

    fn takes(&self, place: &FramePlace, fetch: &Fetch) -> bool {
        let offset = u64::from(place.offset);
        place.pack == self.pack
            && offset >= self.end
            && offset - self.end <= fetch.gap
            && offset + u64::from(place.stored) - self.start <= fetch.longest
    }

    fn push(&mut self, part: FramePart) {
        self.end = u64::from(part.place.offset) + u64::from(part.place.stored);
        self.parts.push(part);
    }

    pub(crate) fn length(&self) -> u64 {
        self.end - self.start
    }
}
