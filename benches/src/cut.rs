//! Content-defined cuts for the limit: a plain FastCDC loop with normalised chunking.
//!
//! It does the work that any Gear-based chunker does per byte and nothing else. Cuts need not agree with the
//! engine's; only the cost and the chunk sizes have to be the same.

/// Smallest chunk.
pub const MIN: usize = 16 << 10;
/// Aimed-at average.
pub const AVERAGE: usize = 64 << 10;
/// Largest chunk.
pub const MAX: usize = 256 << 10;

/// Normalisation level 2: two bits harder before the average, two bits easier after.
const MASK_HARD: u64 = spread(16 + 2);
const MASK_EASY: u64 = spread(16 - 2);

/// The `bits` highest bits, where the Gear hash mixes best.
const fn spread(bits: u32) -> u64 {
    !0 << (64 - bits)
}

/// A Gear table.
#[derive(Debug)]
pub struct Gear([u64; 256]);

impl Gear {
    /// The table that `key` gives.
    pub fn new(key: &[u8; 32]) -> Self {
        let mut reader = blake3::Hasher::new_keyed(key).finalize_xof();
        Self(std::array::from_fn(|_| {
            let mut bytes = [0; 8];
            reader.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        }))
    }

    /// Length of the first chunk of `data`; all of it when it ends before a cut.
    pub fn cut(&self, data: &[u8]) -> usize {
        if data.len() <= MIN {
            return data.len();
        }
        let (middle, end) = (data.len().min(AVERAGE), data.len().min(MAX));
        let mut hash = 0_u64;
        for (range, mask) in [(MIN..middle, MASK_HARD), (middle..end, MASK_EASY)] {
            let start = range.start;
            for (index, &byte) in data[range].iter().enumerate() {
                hash = (hash << 1).wrapping_add(self.0[usize::from(byte)]);
                if hash & mask == 0 {
                    return start + index + 1;
                }
            }
        }
        end
    }
}

#[cfg(test)]
mod tests;
