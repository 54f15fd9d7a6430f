//! A stream of bytes and numbers fixed by a seed and a label.
//!
//! BLAKE3's extendable output is fast, is the same on every machine, and lets every file of a dataset have a
//! stream of its own, so files can be made in parallel and still be the same bytes each time.

use std::fmt;

/// Bytes fetched from the hash at a time: large enough for its wide kernels, small enough for the L1 cache.
const BUFFER: usize = 8 * 1024;

/// Deterministic generator; two with the same seed and label give the same stream for ever.
pub struct Rng {
    xof: blake3::OutputReader,
    buffer: Box<[u8; BUFFER]>,
    used: usize,
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").field("position", &self.xof.position()).finish_non_exhaustive()
    }
}

impl Rng {
    /// The stream of `label` (which file, which purpose) under `seed`.
    pub fn new(seed: u64, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("carrack benches 2026-11-21 dataset stream");
        hasher.update(&seed.to_le_bytes()).update(label.as_bytes());
        Self { xof: hasher.finalize_xof(), buffer: Box::new([0; BUFFER]), used: BUFFER }
    }

    /// Fills `out` with bytes that no codec can shorten.
    pub fn fill(&mut self, out: &mut [u8]) {
        let buffered = out.len().min(BUFFER - self.used);
        let (head, tail) = out.split_at_mut(buffered);
        head.copy_from_slice(&self.buffer[self.used..self.used + buffered]);
        self.used += buffered;
        self.xof.fill(tail);
    }

    /// The next 32 random bits.
    pub fn u32(&mut self) -> u32 {
        if self.used + 4 > BUFFER {
            self.xof.fill(&mut self.buffer[..]);
            self.used = 0;
        }
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.buffer[self.used..self.used + 4]);
        self.used += 4;
        u32::from_le_bytes(bytes)
    }

    /// A number below `bound`, which must not be zero; the bias is below 2^-32 × bound, far under what a
    /// dataset could show.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = (u64::from(self.u32()) << 32) | u64::from(self.u32());
        ((u128::from(wide) * u128::from(bound)) >> 64) as u64
    }

    /// True with a probability of `percent` in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }
}
