//! What files hold: text, program code, database pages, and data that is compressed already.
//!
//! Each kind aims at the compressibility that real data of its kind shows under zstd level 3 (text about 3.5,
//! code about 2.3, database pages about 2.2). The exact ratio matters less than that it is the same for every
//! tool in a run.

use crate::rng::Rng;

/// Size of one database page, as PostgreSQL has it.
pub(super) const PAGE: usize = 8 * 1024;

/// Kinds of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Source code, logs, documentation.
    Text,
    /// Machine code and its tables.
    Code,
    /// Archives, pictures, anything encrypted.
    Packed,
}

/// Words that texts of one dataset share.
#[derive(Debug)]
pub(super) struct Words(Vec<String>);

impl Words {
    /// A vocabulary of 8192 made-up words; shorter ones come first, as frequent words are short.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "words");
        let word = |index: usize, rng: &mut Rng| -> String {
            let length = 2 + rng.below(4 + index as u64 / 1024) as usize;
            (0..length).map(|_| char::from(b"etaoinshrdlucmfwypvbgkjqxz_"[rng.below(27) as usize])).collect()
        };
        Self((0..8192).map(|index| word(index, &mut rng)).collect())
    }

    fn pick(&self, rng: &mut Rng) -> &str {
        // Squaring a uniform number prefers low indices, which is near enough to Zipf's law.
        let uniform = u64::from(rng.u32() >> 16);
        let index = (uniform * uniform * self.0.len() as u64) >> 32;
        &self.0[index as usize]
    }
}

/// Appends `length` bytes of `kind` to `out`.
pub(super) fn append(out: &mut Vec<u8>, kind: Kind, length: usize, words: &Words, rng: &mut Rng) {
    let end = out.len() + length;
    match kind {
        Kind::Text => text(out, end, words, rng),
        Kind::Code => code(out, end, words, rng),
        Kind::Packed => {
            let start = out.len();
            out.resize(end, 0);
            rng.fill(&mut out[start..]);
        }
    }
    out.truncate(end);
}

fn text(out: &mut Vec<u8>, end: usize, words: &Words, rng: &mut Rng) {
    let mut line = out.len();
    while out.len() < end {
        let word_start = out.len();
        out.extend_from_slice(words.pick(rng).as_bytes());
        // People repeat themselves: now and then a phrase from a little before comes again.
        if word_start > 600 && rng.chance(12) {
            let back = 60 + rng.below(500) as usize;
            let from = word_start.saturating_sub(back);
            let length = (20 + rng.below(40) as usize).min(word_start - from);
            out.extend_from_within(from..from + length);
        }
        if out.len() - line > 72 {
            out.push(b'\n');
            line = out.len();
        } else {
            out.push(b' ');
        }
    }
}

fn code(out: &mut Vec<u8>, end: usize, words: &Words, rng: &mut Rng) {
    const OPS: [&[u8]; 8] = [
        b"\x48\x8b",
        b"\x48\x89",
        b"\xe8",
        b"\x0f\x84",
        b"\x48\x83\xc4",
        b"\x41\x54\x55\x53",
        b"\xc3\x66\x90\x0f\x1f",
        b"\x48\x8d",
    ];
    while out.len() < end {
        let draw = rng.u32();
        out.extend_from_slice(OPS[(draw & 7) as usize]);
        match (draw >> 3) & 7 {
            0 | 1 => out.extend_from_slice(&(draw >> 8).to_le_bytes()[..3]),
            2 => out.extend_from_slice(&[(draw >> 16) as u8 & 0x3f, 0, 0, 0]),
            3 if draw >> 28 == 0 => {
                out.extend_from_slice(words.pick(rng).as_bytes());
                out.push(0);
            }
            4 if out.len() > 5000 => {
                let from = out.len() - 64 - rng.below(4000) as usize;
                out.extend_from_within(from..from + 24);
            }
            _ => out.push((draw >> 24) as u8),
        }
    }
}

/// Writes database page `number` into `page` (of [`PAGE`] bytes): header, rows that grow from the end, free
/// space between, as heap pages look.
pub(super) fn page(page: &mut [u8], number: u64, words: &Words, rng: &mut Rng) {
    page.fill(0);
    page[..8].copy_from_slice(&(number * 0x1_0023).to_le_bytes());
    page[8..12].copy_from_slice(&rng.u32().to_le_bytes());
    let (mut slot, mut end) = (24, PAGE);
    let free = 500 + rng.below(2500) as usize;
    let mut row = Vec::with_capacity(256);
    for index in 0..u64::MAX {
        row.clear();
        row.extend_from_slice(&(number * 64 + index).to_le_bytes());
        row.extend_from_slice(&(1_760_000_000_u64 + number * 90 + rng.below(90)).to_le_bytes());
        row.extend_from_slice(format!("{}.{:02}", rng.below(90_000), rng.below(100)).as_bytes());
        let mut token = [0; 8];
        rng.fill(&mut token);
        row.extend_from_slice(&token);
        for _ in 0..3 + rng.below(10) {
            row.extend_from_slice(words.pick(rng).as_bytes());
            row.push(b' ');
        }
        if slot + 4 + free + row.len() > end {
            break;
        }
        end -= row.len();
        page[end..end + row.len()].copy_from_slice(&row);
        page[slot..slot + 2].copy_from_slice(&(end as u16).to_le_bytes());
        page[slot + 2..slot + 4].copy_from_slice(&(row.len() as u16).to_le_bytes());
        slot += 4;
    }
}
