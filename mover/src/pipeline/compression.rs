//! How hard each frame is compressed, and whether at all.

use crate::{
    codec::{self, Effort},
    error::Result,
    format::frame::Compression,
};

/// The level that stands for the usual effort, or for less where that costs next to nothing.
const LIGHT_LEVEL: i32 = 2;
/// The usual effort.
const USUAL: Effort = Effort::Level(3);
/// More bytes that less effort may cost: with it, a repository stays as small as those of others.
const LOSS_MAX: f32 = 0.015;
/// One frame in so many is compressed both ways, to see what less effort costs: 3 % of the time of compressing.
const LOOK_EVERY: u32 = 24;

/// What one worker knows of the data that it sees.
#[derive(Debug, Default)]
pub(crate) struct Lightness {
    frames: u32,
    /// By how much less effort made the last frames larger, that were compressed both ways.
    loss: f32,
    spare: Vec<u8>,
}

impl Lightness {
    /// Appends the compressed or the plain bytes to `out`. `level` 0 compresses nothing; if the level `adapts`, the
    /// lightest is what the data makes of it.
    pub(crate) fn compress_or_store(
        &mut self,
        plain: &[u8],
        level: i32,
        adapts: bool,
        out: &mut Vec<u8>,
    ) -> Result<Compression> {
        if level == 0 {
            out.extend_from_slice(plain);
            return Ok(Compression::Stored);
        }
        compress_or_store(plain, out, |out| match adapts && level == LIGHT_LEVEL {
            true => self.compress_lightly(plain, out),
            false => codec::compress_into(plain, Effort::Level(level), out),
        })
    }

    fn compress_lightly(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let looks = self.frames.is_multiple_of(LOOK_EVERY);
        self.frames = self.frames.wrapping_add(1);
        if !looks {
            let effort = if self.loss <= LOSS_MAX { Effort::Quick } else { USUAL };
            return codec::compress_into(plain, effort, out);
        }
        let before = out.len();
        codec::compress_into(plain, USUAL, out)?;
        self.spare.clear();
        codec::compress_into(plain, Effort::Quick, &mut self.spare)?;
        let loss = self.spare.len() as f32 / (out.len() - before).max(1) as f32 - 1.0;
        self.loss = if self.frames == 1 { loss } else { (self.loss + loss) / 2.0 };
        Ok(())
    }
}

/// Appends the bytes of a page, compressed if that is worth it: pages are few and read often.
pub(crate) fn compress_page(plain: &[u8], out: &mut Vec<u8>) -> Result<Compression> {
    compress_or_store(plain, out, |out| codec::compress_into(plain, USUAL, out))
}

/// Appends the compressed bytes, or the plain ones where compression gains less than one part in fifty.
fn compress_or_store(
    plain: &[u8],
    out: &mut Vec<u8>,
    compress: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<Compression> {
    let before = out.len();
    if !looks_random(plain) {
        compress(out)?;
        if out.len() - before < plain.len() - plain.len() / 50 {
            return Ok(Compression::Zstd);
        }
        out.truncate(before);
    }
    out.extend_from_slice(plain);
    Ok(Compression::Stored)
}

/// Whether a sample has as good as eight bits of entropy a byte: encrypted or compressed already. Saves running zstd
/// over what it cannot make smaller.
fn looks_random(plain: &[u8]) -> bool {
    const SAMPLES: usize = 8;
    const SAMPLE: usize = 2048;
    if plain.len() < 2 * SAMPLES * SAMPLE {
        return false;
    }
    let mut counts = [0u32; 256];
    let step = plain.len() / SAMPLES;
    for index in 0..SAMPLES {
        for byte in &plain[index * step..index * step + SAMPLE] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total = (SAMPLES * SAMPLE) as f32;
    let entropy: f32 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = *count as f32 / total;
            -share * share.log2()
        })
        .sum();
    // 16 384 uniform bytes measure 7.989 bits with a spread of 0.001.
    entropy > 7.98
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::testing::noise;

    /// Words in no order, as texts have them: less effort costs much.
    fn words() -> Vec<u8> {
        let list: Vec<String> =
            (0..3000).map(|word| hex::encode(noise(word, 3 + word as usize % 5))).collect();
        let order = noise(7, 400_000);
        let pick = |pair: &[u8]| &list[usize::from(pair[0]) * 11 + usize::from(pair[1]) % 11];
        order.chunks_exact(2).flat_map(|pair| format!("{} ", pick(pair)).into_bytes()).take(1 << 20).collect()
    }

    #[test]
    fn less_effort_is_made_only_where_it_costs_little() {
        let mut lightness = Lightness::default();
        for (loss, effort) in [(0.01, Effort::Quick), (LOSS_MAX, Effort::Quick), (0.05, USUAL)] {
            (lightness.frames, lightness.loss) = (1, loss);
            let (plain, mut out, mut expected) = (words(), Vec::new(), Vec::new());
            lightness.compress_or_store(&plain, LIGHT_LEVEL, true, &mut out).unwrap();
            codec::compress_into(&plain, effort, &mut expected).unwrap();
            assert!(out == expected, "{loss}");
        }
    }

    #[test]
    fn what_it_costs_is_looked_at_again_and_again() {
        let (mut lightness, plain) = (Lightness::default(), words());
        let bytes = |effort| {
            let mut out = Vec::new();
            codec::compress_into(&plain, effort, &mut out).unwrap();
            out.len() as f32
        };
        // Behind what another frame has left there.
        let mut out = vec![0; 1000];
        lightness.compress_or_store(&plain, LIGHT_LEVEL, true, &mut out).unwrap();
        let first = lightness.loss;
        let expected = bytes(Effort::Quick) / bytes(USUAL) - 1.0;
        assert!((first - expected).abs() < 1e-6 && expected.abs() > 0.001, "{first} {expected}");
        lightness.loss = 1.0;
        for _ in 0..LOOK_EVERY {
            out.clear();
            lightness.compress_or_store(&plain, LIGHT_LEVEL, true, &mut out).unwrap();
        }
        assert!((lightness.loss - f32::midpoint(1.0, first)).abs() < 0.001, "{}", lightness.loss);
    }

    #[test]
    fn a_level_that_was_chosen_is_obeyed() {
        let (mut lightness, plain) = (Lightness::default(), words());
        for (level, adapts) in [(2, false), (3, true), (9, false)] {
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            lightness.compress_or_store(&plain, level, adapts, &mut out).unwrap();
            codec::compress_into(&plain, Effort::Level(level), &mut expected).unwrap();
            assert!(out == expected, "{level}");
        }
        let mut out = Vec::new();
        assert_eq!(lightness.compress_or_store(&plain, 0, true, &mut out).unwrap(), Compression::Stored);
        let random = noise(1, 100_000);
        assert_eq!(lightness.compress_or_store(&random, 3, true, &mut out).unwrap(), Compression::Stored);
    }

    #[test]
    fn what_gains_less_than_a_fiftieth_is_stored() {
        let plain = vec![7; 1000];
        for (length, expected) in
            [(979, Compression::Zstd), (980, Compression::Stored), (1010, Compression::Stored)]
        {
            let mut out = vec![1; 30];
            let found = compress_or_store(&plain, &mut out, |out| {
                out.extend(std::iter::repeat_n(2, length));
                Ok(())
            });
            assert_eq!(found.unwrap(), expected, "{length}");
            let behind = if expected == Compression::Zstd { vec![2; length] } else { plain.clone() };
            assert_eq!(out, [vec![1; 30], behind].concat(), "{length}");
        }
        let random = noise(1, 100_000);
        compress_or_store(&random, &mut Vec::new(), |_| panic!("nobody can make that smaller")).unwrap();
    }

    #[test]
    fn what_looks_random_has_all_bytes_equally_often_wherever_one_looks() {
        assert!(looks_random(&noise(1, 32 << 10)) && !looks_random(&noise(1, (32 << 10) - 1)));
        let large = noise(2, 1 << 20);
        assert!(looks_random(&large));
        // The samples: what lies between them is not looked at.
        let step = large.len() / 8;
        for index in 0..8 {
            for (at, expected) in [(index * step, false), (index * step + 2048, true)] {
                let mut holed = large.clone();
                holed[at..at + 2048].fill(0);
                assert_eq!(looks_random(&holed), expected, "{at}");
            }
        }
        // A byte that is nowhere takes little away.
        let without: Vec<u8> = large.iter().map(|byte| if *byte == 9 { 10 } else { *byte }).collect();
        assert!(!looks_random(&without), "one byte twice as often");
        let fewer: Vec<u8> = noise(3, 2 << 20).into_iter().filter(|byte| *byte != 9).collect();
        assert!(looks_random(&fewer));
    }
}
