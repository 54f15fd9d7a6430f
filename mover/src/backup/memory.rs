//! How the memory of one backup is divided.

use std::thread;

use crate::limits;

/// How the memory is divided. Fixed parts (program, runtime, zstd contexts, the walk's window) take about 48 MiB.
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
}

/// Bytes of one row of the index in memory.
const INDEX_ROW_BYTES: u64 = 24;
/// Bytes of one row that is still to be written: as it is kept, and twice while a segment is made of it.
const OWN_ROW_BYTES: u64 = 48 + 32 + 18;
/// Bytes of one entry that is read ahead: name, attributes, and its share of the queue.
const WINDOW_ENTRY_BYTES: u64 = 320;

impl Memory {
    /// Divides this many bytes.
    pub(super) fn divide(memory_bytes: u64, threads: usize) -> Self {
        let count = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let wanted = if threads == 0 { cores } else { threads };
        // A worker takes a segment, a frame before and after compression and a compressor: about 12 MiB.
        let affordable = usize::try_from(memory_bytes / 4 / (12 << 20)).unwrap_or(1).max(1);
        let pack_bytes = (memory_bytes / 8).clamp(8 << 20, limits::PACK_TARGET as u64) as usize;
        Self {
            threads: wanted.min(affordable),
            segment_bytes: if memory_bytes >= 192 << 20 { 4 << 20 } else { 2 << 20 },
            pack_bytes,
            flight_bytes: 2 * pack_bytes as u64 + (1 << 20),
            known_bytes: count(memory_bytes / 8),
            index_rows: count(memory_bytes / 8 / INDEX_ROW_BYTES),
            own_rows: count(memory_bytes / 32 / OWN_ROW_BYTES),
            pages_bytes: count(memory_bytes / 32),
            window_entries: count(memory_bytes / 16 / WINDOW_ENTRY_BYTES),
        }
    }
}
