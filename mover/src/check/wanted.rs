//! What snapshots name in packs, to be compared with what is there: a sorted list of fixed size. What does not fit
//! is gathered in a later pass over the trees, so memory has a bound and nothing is left out.

use std::ops::Range;

use super::packs::Packs;
use crate::{
    format::frame::{ChunkRef, FrameKind, FramePlace},
    id::ChunkId,
};

/// Bytes of one row.
pub(super) const ROW_BYTES: usize = size_of::<Row>();

/// Marks a row that stands for a frame as a whole; no chunk begins there.
const WHOLE: u32 = u32::MAX;

/// A chunk, or a frame, as a snapshot names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub pack: u32,
    /// Offset of the frame as it lies now.
    pub frame: u32,
    /// Offset of the chunk in the frame.
    pub offset: u32,
    pub length: u32,
    /// The first half of the chunk's id, or of a hash of how the frame is described: 128 bits leave no room for
    /// chance.
    pub id: [u8; 16],
}

impl Row {
    pub(super) fn is_frame(&self) -> bool {
        self.offset == WHOLE
    }

    /// Whether it is this chunk.
    pub(super) fn is_chunk(&self, offset: u32, length: u32, id: &ChunkId) -> bool {
        (self.offset, self.length) == (offset, length) && self.id == half(id)
    }
}

/// The first half of an id.
pub(super) fn half(id: &ChunkId) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&id.0[..16]);
    half
}

/// How a frame is described, wherever it lies: everything that a reader opens it with.
pub(super) fn description(kind: FrameKind, place: &FramePlace) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.session.to_bytes());
    hasher.update(&[kind.code(), place.compression.code()]);
    hasher.update(&place.stored.to_le_bytes());
    hasher.update(&place.plain.to_le_bytes());
    hasher.update(&place.counter.to_le_bytes());
    hasher.update(&place.id.0);
    half(&ChunkId(*hasher.finalize().as_bytes()))
}

/// What is wanted of some of the packs.
#[derive(Debug)]
pub(super) struct Wanted {
    rows: Vec<Row>,
    limit: usize,
    /// Places of the packs in the list of packs.
    span: Range<u32>,
    last_frame: Option<(FramePlace, FrameKind)>,
    /// Rows that did not fit, and that were left out.
    pub left_out: u64,
}

impl Wanted {
    /// For these packs; at most `limit` rows.
    pub(super) fn new(span: Range<u32>, limit: usize) -> Self {
        // Reserved is not used: pages of memory are taken when rows come.
        Self { rows: Vec::with_capacity(limit), limit, span, last_frame: None, left_out: 0 }
    }

    /// Adds a chunk whose frame lies at `offset` of the pack.
    pub(super) fn add(&mut self, kind: FrameKind, chunk: &ChunkRef, pack: u32, frame: u32) {
        if !self.span.contains(&pack) {
            return;
        }
        let Some(place) = chunk.frame.place() else { return };
        if self.last_frame != Some((*place, kind)) {
            self.last_frame = Some((*place, kind));
            self.push(Row { pack, frame, offset: WHOLE, length: 0, id: description(kind, place) });
        }
        self.push(Row { pack, frame, offset: chunk.offset, length: chunk.length, id: half(&chunk.id) });
    }

    fn push(&mut self, row: Row) {
        if self.rows.len() == self.limit {
            self.settle();
            // With little room won, sorting again and again would cost more than another pass.
            if self.rows.len() > self.limit / 4 * 3 {
                self.left_out += 1;
                return;
            }
        }
        self.rows.push(row);
    }

    /// Sorts, and drops what was named twice.
    pub(super) fn settle(&mut self) {
        self.rows.sort_unstable();
        self.rows.dedup();
    }

    /// What is wanted of a pack, by frame; to be asked when settled.
    pub(super) fn of_pack(&self, pack: u32) -> &[Row] {
        let from = self.rows.partition_point(|row| row.pack < pack);
        let to = self.rows.partition_point(|row| row.pack <= pack);
        &self.rows[from..to]
    }
}

/// What is wanted of a frame, out of what is wanted of its pack.
pub(super) fn of_frame(rows: &[Row], frame: u32) -> &[Row] {
    let from = rows.partition_point(|row| row.frame < frame);
    let to = rows.partition_point(|row| row.frame <= frame);
    &rows[from..to]
}

/// Spans of packs, each with no more than `limit` rows, but for a single pack that has more by itself.
pub(super) fn spans(packs: &Packs, limit: usize) -> Vec<Range<u32>> {
    let mut spans = Vec::new();
    // Pages come in another order each time, and a frame that two of them name may count once or twice.
    let limit = limit - limit / 8;
    let (mut from, mut rows) = (0, 0);
    for (index, pack) in (0u32..).zip(&packs.all) {
        let own = if pack.read { pack.named } else { 0 };
        if rows + own > limit as u64 && rows > 0 {
            spans.push(from..index);
            (from, rows) = (index, 0);
        }
        rows += own;
    }
    spans.push(from..u32::try_from(packs.all.len()).unwrap_or(u32::MAX));
    spans
}
