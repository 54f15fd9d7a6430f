//! Where contents are cut: content-defined for files, a fixed grid for devices.
//!
//! The cut is a gear hash with normalised chunking and a table of 256 values that is derived from the
//! repository's seed, so cuts of known contents cannot be recognised by their lengths. Cut points are part of the
//! repository format and pinned by golden vectors: they may never follow a library's new version.

use crate::{limits, secret::Key};

#[cfg(test)]
mod tests;

/// Lengths a cut keeps to, in bytes. Part of the repository's `format` object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CutSizes {
    /// No chunk but the last of a run of data is shorter.
    pub minimum: u32,
    /// What chunks of random data tend to; a power of two.
    pub average: u32,
    /// No chunk is longer.
    pub maximum: u32,
}

impl Default for CutSizes {
    fn default() -> Self {
        Self { minimum: limits::CHUNK_MIN, average: limits::CHUNK_AVERAGE, maximum: limits::CHUNK_MAX }
    }
}

impl CutSizes {
    /// Whether a reader may trust these sizes: ordered, a power of two, and within what a frame can hold.
    pub fn is_valid(self) -> bool {
        self.average.is_power_of_two()
            && (1 << 10..=1 << 22).contains(&self.average)
            && (64..=self.average).contains(&self.minimum)
            && (self.average..=limits::CHUNK_LIMIT).contains(&self.maximum)
    }
}

/// Finds cuts in file contents.
#[derive(Clone)]
pub struct Chunker {
    table: Box<[u64; 256]>,
    sizes: CutSizes,
    centre: usize,
    mask_before: u64,
    mask_after: u64,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl Chunker {
    /// Derives the gear table from the repository's seed.
    pub fn new(seed: &Key, sizes: CutSizes) -> Self {
        let mut bytes = [0; 2048];
        blake3::Hasher::new_keyed(seed.expose()).update(b"gear table").finalize_xof().fill(&mut bytes);
        let mut table = Box::new([0; 256]);
        for (value, piece) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *value = u64::from_le_bytes(*piece);
        }
        let bits = sizes.average.ilog2();
        let centre = (sizes.average - sizes.average / 8).max(sizes.minimum) as usize;
        Self { table, sizes, centre, mask_before: high_mask(bits + 2), mask_after: high_mask(bits - 2) }
    }

    /// The sizes it cuts to.
    pub fn sizes(&self) -> CutSizes {
        self.sizes
    }

    /// Length of the first chunk of `data`, which is all of `data` when there is no cut in it.
    ///
    /// The answer is the true cut only if `data` holds at least `maximum` bytes or ends where its run of data ends.
    pub fn cut(&self, data: &[u8]) -> usize {
        let minimum = self.sizes.minimum as usize;
        if data.len() <= minimum {
            return data.len();
        }
        let end = data.len().min(self.sizes.maximum as usize);
        let centre = end.min(self.centre);
        let mut hash = 0u64;
        if let Some(at) = self.scan(&data[minimum..centre], self.mask_before, &mut hash) {
            return minimum + at;
        }
        if let Some(at) = self.scan(&data[centre..end], self.mask_after, &mut hash) {
            return centre + at;
        }
        end
    }

    /// The first position behind a byte at which the hash has no bit of `mask`.
    ///
    /// Each step waits for the one before, so two halves of a block are hashed side by side: a hash knows only the
    /// last 64 bytes, so the second half can begin on its own. A block with a hit is gone through once more, in order.
    #[inline]
    fn scan(&self, data: &[u8], mask: u64, hash: &mut u64) -> Option<usize> {
        let mut at = 0;
        while let Some((block, _)) = data[at..].split_first_chunk::<{ 2 * LANE }>() {
            let before = &block[LANE - WINDOW..LANE];
            let mut first = *hash;
            let mut second = before.iter().fold(0, |hash, byte| self.step(hash, *byte));
            let mut is_hit = false;
            for index in 0..LANE {
                first = self.step(first, block[index]);
                second = self.step(second, block[LANE + index]);
                if (first & mask == 0) | (second & mask == 0) {
                    is_hit = true;
                    break;
                }
            }
            if is_hit {
                break;
            }
            *hash = second;
            at += 2 * LANE;
        }
        self.roll(&data[at..], mask, hash).map(|found| at + found)
    }

    /// The same, byte by byte.
    #[inline]
    fn roll(&self, data: &[u8], mask: u64, hash: &mut u64) -> Option<usize> {
        let mut value = *hash;
        for (index, byte) in data.iter().enumerate() {
            value = self.step(value, *byte);
            if value & mask == 0 {
                return Some(index + 1);
            }
        }
        *hash = value;
        None
    }

    #[inline]
    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.table[usize::from(byte)])
    }
}

/// Bytes that a hash depends on: a bit for each.
const WINDOW: usize = 64;
/// Bytes of half a block.
const LANE: usize = 1024;

/// The highest `bits` bits: those that depend on the most bytes back.
fn high_mask(bits: u32) -> u64 {
    !0u64 << (64 - bits)
}

/// The grid that a device of this size is cut by, in bytes. Fixed for a lineage at its first backup.
pub fn grid_for(device_bytes: u64) -> u32 {
    let grids = [(GRID_SMALL_LIMIT, 64 << 10), (GRID_MEDIUM_LIMIT, 128 << 10), (GRID_LARGE_LIMIT, 256 << 10)];
    grids.iter().find(|(limit, _)| device_bytes <= *limit).map_or(1 << 20, |(_, grid)| *grid)
}

/// Whether any device is cut on this grid: what one block takes in memory depends on it, and how many there are.
pub fn is_grid(bytes: u32) -> bool {
    bytes.is_power_of_two() && (grid_for(0)..=grid_for(u64::MAX)).contains(&bytes)
}

/// Up to here a block costs 64 KiB: a database that changes 2 % of its 8 KiB pages stores 15 % again, not 28 %.
const GRID_SMALL_LIMIT: u64 = 1 << 40;
/// Up to here 128 KiB: sixteen million blocks.
const GRID_MEDIUM_LIMIT: u64 = 2 << 40;
/// Up to here 256 KiB.
const GRID_LARGE_LIMIT: u64 = 16 << 40;

/// Whether every byte is zero; such blocks are written down as a run, not stored.
pub fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
