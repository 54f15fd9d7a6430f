//! How the memory of one backup is divided.

use std::thread;

use crate::{
    limits,
    pipeline::packer::TAIL_ROOM,
    repo::{DedupIndex, Join},
};

/// How the memory is divided. The program itself takes about 20 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Worker threads.
    pub(super) threads: usize,
    /// Bytes of a large file that a worker reads at once.
    pub(super) segment_bytes: usize,
    /// Bytes of a full pack.
    pub(super) pack_bytes: usize,
    /// Bytes of packs under way.
    pub(super) flight_bytes: u64,
    /// Bytes of the table of known chunks.
    pub(super) known_bytes: usize,
    /// Rows of the index of chunks that other runs stored.
    pub(super) index_rows: usize,
    /// Rows that this run adds to the index before it writes them.
    pub(super) own_rows: usize,
    /// Bytes of the table of pages that earlier runs have.
    pub(super) pages_bytes: usize,
    /// Entries that are read ahead.
    pub(super) window_entries: usize,
    /// Bytes of names of the directories that are being walked.
    pub(super) names_bytes: usize,
    /// Bytes of frames that are read ahead of a copy, which reads no entries ahead.
    pub(super) fetch_bytes: u64,
}

/// Bytes of one row of the index in memory, with its share of what is joined.
const INDEX_ROW_BYTES: u64 = (DedupIndex::ROW_BYTES + Join::SHARE_BYTES) as u64;
/// Bytes of one row that is still to be written: as it is kept, and twice while a segment is made of it.
const OWN_ROW_BYTES: u64 = 48 + 32 + 18;
/// Bytes of one entry that is read ahead: name, attributes, and its share of the queue.
const WINDOW_ENTRY_BYTES: u64 = 320;

/// What one worker takes beside its segment, in bytes: a frame before and after compression (now and then in two ways),
/// two compressors, and a part of a segment that waits for it.
const WORKER_BYTES: u64 = 6 << 20;
/// Bytes of a segment, and from how much memory on it is the large one. With less it is better that all cores work.
const SEGMENT_BYTES: u64 = 2 << 20;
const LARGE_SEGMENT_BYTES: u64 = 4 << 20;
const LARGE_SEGMENTS_FROM: u64 = 192 << 20;
/// Packs stay small below this much memory, in bytes: three data packs are in memory at once, two of them under way.
const SMALL_PACKS_BELOW: u64 = 128 << 20;
/// The smallest full pack, in bytes.
const SMALLEST_PACK: u64 = 8 << 20;

impl Memory {
    /// Divides this many bytes.
    pub(super) fn divide(memory_bytes: u64, threads: usize) -> Self {
        let count = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let wanted = if threads == 0 { cores } else { threads };
        let segment = segment_bytes(memory_bytes);
        let affordable = count(memory_bytes / 5 / (WORKER_BYTES + segment)).max(1);
        let pack_bytes = (memory_bytes.saturating_sub(SMALL_PACKS_BELOW) / 4)
            .clamp(SMALLEST_PACK, limits::PACK_TARGET as u64);
        Self {
            threads: wanted.min(affordable),
            segment_bytes: count(segment),
            pack_bytes: count(pack_bytes),
            flight_bytes: 2 * (pack_bytes + TAIL_ROOM as u64),
            known_bytes: count(memory_bytes / 10),
            index_rows: count(memory_bytes / 10 / INDEX_ROW_BYTES),
            own_rows: count(memory_bytes / 32 / OWN_ROW_BYTES),
            pages_bytes: count(memory_bytes / 32),
            window_entries: count(memory_bytes / 48 / WINDOW_ENTRY_BYTES),
            names_bytes: count(memory_bytes / 48),
            fetch_bytes: memory_bytes / 24,
        }
    }
}

fn segment_bytes(memory_bytes: u64) -> u64 {
    if memory_bytes >= LARGE_SEGMENTS_FROM { LARGE_SEGMENT_BYTES } else { SEGMENT_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What everything takes when all of it is full, with the program itself.
    fn worst(memory_bytes: u64) -> u64 {
        let memory = Memory::divide(memory_bytes, 64);
        let tails = 2 * TAIL_ROOM as u64;
        let packs = memory.flight_bytes + memory.pack_bytes as u64 * 5 / 4 + tails;
        let tables = memory.known_bytes + memory.pages_bytes;
        let rows = memory.index_rows as u64 * INDEX_ROW_BYTES + memory.own_rows as u64 * OWN_ROW_BYTES;
        let window = memory.window_entries as u64 * WINDOW_ENTRY_BYTES;
        (20 << 20)
            + packs
            + memory.threads as u64 * (WORKER_BYTES + memory.segment_bytes as u64)
            + tables as u64
            + rows
            + window
            + memory.names_bytes as u64
    }

    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        for memory in [96 << 20, 128 << 20, 160 << 20, limits::MEMORY_DEFAULT, 1 << 30, 64 << 30] {
            assert!(worst(memory) <= memory, "{} MiB of {}", worst(memory) >> 20, memory >> 20);
        }
    }

    #[test]
    fn little_memory_still_keeps_two_cores_at_work() {
        assert_eq!(Memory::divide(96 << 20, 2).threads, 2);
    }

    #[test]
    fn full_packs_are_what_the_default_gives() {
        assert_eq!(Memory::divide(limits::MEMORY_DEFAULT, 2).pack_bytes, limits::PACK_TARGET);
        assert_eq!(Memory::divide(limits::MEMORY_MIN, 2).threads, 1);
    }
}
