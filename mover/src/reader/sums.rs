//! What a list of runs comes to, in time that follows the pages that it has and not how often it names them: few pages
//! can stand for more runs than anybody waits for.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
};

use super::{SnapshotReader, walk::plain_bytes};
use crate::{
    error::{Error, Result},
    format::{entry::Run, frame::ChunkRef, page::Page},
    id::ChunkId,
    limits,
};

#[cfg(test)]
mod tests;

/// Pages that are fetched at once at most.
const PAGES_AT_ONCE: usize = 4;
/// Plain bytes of pages that are fetched at once, or one page.
const BYTES_AT_ONCE: usize = PAGES_AT_ONCE * limits::PAGE_TARGET_MAX;
/// Pages of one level that are remembered, in about 2 MB: those of a device of a terabyte. Others are looked at again,
/// which costs time only.
const PAGES_KNOWN: usize = 1 << 14;
/// 2^127 - 1, a prime: prints are numbers below it.
const PRIME: u128 = (1 << 127) - 1;
/// The lower half of a number.
const HALF: u128 = (1 << 64) - 1;

/// What runs that follow each other come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Bytes of those that are not holes.
    pub(crate) chunk_bytes: u64,
    /// How many they are.
    pub(crate) runs: u64,
    /// A polynomial of what they are, at a place that nobody knows beforehand: two lists of fewer than 2^64 runs that are
    /// not the same have the same print with a chance of 2^-61.
    print: u128,
    /// By what the print of runs before these is multiplied.
    shift: u128,
}

impl Default for Sum {
    fn default() -> Self {
        Self { chunk_bytes: 0, runs: 0, print: 0, shift: 1 }
    }
}

impl Sum {
    /// These runs, and those behind them.
    pub(crate) fn then(self, behind: Self) -> Self {
        Self {
            chunk_bytes: self.chunk_bytes.saturating_add(behind.chunk_bytes),
            runs: self.runs.saturating_add(behind.runs),
            print: add(multiply(self.print, behind.shift), behind.print),
            shift: multiply(self.shift, behind.shift),
        }
    }
}

/// A page of a list, and what the page or entry above says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// 1 for pages of runs.
    pub(crate) level: u8,
    pub(crate) page: ChunkRef,
    /// Bytes of contents below it.
    pub(crate) bytes: u64,
    /// Whether nothing of the list comes behind it.
    pub(crate) is_last: bool,
}

impl Listed {
    /// Pages in order, with their levels and the bytes below each; the last one ends the list.
    pub(crate) fn to_end(pages: impl Iterator<Item = (u8, ChunkRef, u64)>) -> VecDeque<Self> {
        let listed = |(level, page, bytes)| Self { level, page, bytes, is_last: false };
        let mut pages: VecDeque<Self> = pages.map(listed).collect();
        if let Some(last) = pages.back_mut() {
            last.is_last = true;
        }
        pages
    }

    fn key(&self) -> Key {
        (self.page.id, self.bytes, self.is_last)
    }
}

/// Two pages of one level with the same key come to the same.
type Key = (ChunkId, u64, bool);

/// What pages came to that were looked at. Sums that were made with different ones of these cannot be compared.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Where the polynomials are looked at.
    place: u128,
    known: HashMap<u8, HashMap<Key, Sum>>,
}

impl Sums {
    pub(crate) fn new() -> Self {
        let seed = RandomState::new();
        let [low, high] = [0_u8, 1].map(|half| u128::from(seed.hash_one(half)));
        Self { place: fold((high << 64) | low), known: HashMap::new() }
    }

    /// What these runs come to.
    pub(crate) fn of_runs<'r>(&self, runs: impl IntoIterator<Item = &'r Run>) -> Sum {
        let mut sum = Sum::default();
        for run in runs {
            for number in numbers(run) {
                sum.print = add(multiply(sum.print, self.place), number);
                sum.shift = multiply(sum.shift, self.place);
            }
            sum.runs = sum.runs.saturating_add(1);
            if run.chunk().is_some() {
                sum.chunk_bytes = sum.chunk_bytes.saturating_add(run.length());
            }
        }
        sum
    }

    fn get(&self, listed: &Listed) -> Option<Sum> {
        self.known.get(&listed.level)?.get(&listed.key()).copied()
    }

    fn remember(&mut self, listed: &Listed, sum: Sum) {
        let known = self.known.entry(listed.level).or_default();
        if known.len() < PAGES_KNOWN {
            known.insert(listed.key(), sum);
        }
    }
}

/// What a run is, wherever it is stored, in numbers below the prime.
fn numbers(run: &Run) -> [u128; 3] {
    match run {
        Run::Hole(length) => [0, 0, u128::from(*length)],
        Run::Chunk(chunk) => {
            let number =
                |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u128::from(*byte));
            let (id, length) = (&chunk.id.0, u128::from(chunk.length));
            [number(&id[..15]), number(&id[15..30]), (1 << 80) | (number(&id[30..]) << 64) | length]
        }
    }
}

/// A page whose list is being gone through, or the list as a whole.
#[derive(Debug)]
struct Open {
    page: Option<Listed>,
    rest: VecDeque<Listed>,
    sum: Sum,
}

/// Goes through a list: what it comes to, part by part. A part is some of its pages of runs, or a page that was gone
/// through before.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    reader: &'a SnapshotReader,
    sums: &'a mut Sums,
    open: Vec<Open>,
}

impl<'a> Parts<'a> {
    /// Of these pages, in order.
    pub(crate) fn of(reader: &'a SnapshotReader, sums: &'a mut Sums, pages: VecDeque<Listed>) -> Self {
        Self { reader, sums, open: vec![Open { page: None, rest: pages, sum: Sum::default() }] }
    }

    /// What the next part comes to; none at the end. All of them together are the list.
    pub(crate) async fn next(&mut self) -> Result<Option<Sum>> {
        while let Some(mut top) = self.open.pop() {
            let Some(listed) = top.rest.pop_front() else {
                if let Some(page) = &top.page {
                    self.sums.remember(page, top.sum);
                }
                if let Some(above) = self.open.last_mut() {
                    above.sum = above.sum.then(top.sum);
                }
                continue;
            };
            let part = match self.sums.get(&listed) {
                Some(known) => known,
                None if listed.level > 1 => {
                    let below = self.below(listed).await?;
                    self.open.extend([top, below]);
                    continue;
                }
                None => self.lowest(listed, &mut top.rest).await?,
            };
            top.sum = top.sum.then(part);
            self.open.push(top);
            return Ok(Some(part));
        }
        Ok(None)
    }

    async fn below(&self, listed: Listed) -> Result<Open> {
        let page = self.reader.page(&listed.page).await?;
        let Page::RunsInner(below) = &*page else { return Err(misplaced()) };
        if listed.level > limits::TREE_DEPTH || !page.stands_for(listed.bytes, listed.is_last) {
            return Err(misplaced());
        }
        let level = listed.level - 1;
        let mut rest = Listed::to_end(below.iter().map(|(page, bytes)| (level, page.clone(), *bytes)));
        if let Some(last) = rest.back_mut() {
            last.is_last = listed.is_last;
        }
        Ok(Open { page: Some(listed), rest, sum: Sum::default() })
    }

    /// What this page of runs comes to, together with some of those behind it.
    async fn lowest(&mut self, first: Listed, rest: &mut VecDeque<Listed>) -> Result<Sum> {
        let mut at_once = plain_bytes(&first.page);
        let mut batch = vec![first];
        while batch.len() < PAGES_AT_ONCE
            && let Some(next) = rest.front()
            && next.level <= 1
            && self.sums.get(next).is_none()
            && at_once + plain_bytes(&next.page) <= BYTES_AT_ONCE
            && let Some(next) = rest.pop_front()
        {
            at_once += plain_bytes(&next.page);
            batch.push(next);
        }
        let chunks: Vec<ChunkRef> = batch.iter().map(|listed| listed.page.clone()).collect();
        let mut all = Sum::default();
        for (page, listed) in self.reader.pages(&chunks).await?.into_iter().zip(batch) {
            let is_right = page.stands_for(listed.bytes, listed.is_last);
            let Page::Runs(runs) = page else { return Err(misplaced()) };
            if !is_right {
                return Err(misplaced());
            }
            let sum = self.sums.of_runs(&runs);
            self.sums.remember(&listed, sum);
            all = all.then(sum);
        }
        Ok(all)
    }
}

fn misplaced() -> Error {
    Error::corrupt("a page of a list of chunks is not what the page above says")
}

/// The rest that the prime leaves.
fn fold(number: u128) -> u128 {
    let folded = (number & PRIME) + (number >> 127);
    if folded >= PRIME { folded - PRIME } else { folded }
}

/// Of two numbers below the prime.
fn add(a: u128, b: u128) -> u128 {
    fold(a + b)
}

/// Of two numbers below the prime; 2^128 leaves a rest of two.
fn multiply(a: u128, b: u128) -> u128 {
    let ((a_high, a_low), (b_high, b_low)) = ((a >> 64, a & HALF), (b >> 64, b & HALF));
    let middle = a_high * b_low + a_low * b_high;
    let low = add(fold(a_low * b_low), fold((middle & HALF) << 64));
    add(low, fold(2 * (middle >> 64) + 2 * (a_high * b_high)))
}
