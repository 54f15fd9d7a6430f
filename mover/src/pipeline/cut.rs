//! Cutting one long run of data on several threads, with the cuts that one thread would make.
//!
//! Each segment is cut by its own worker. Where the first chunk of a segment begins is known only when the segment
//! before is cut; a worker that would have to wait cuts from the segment's first byte instead and then joins: cuts
//! depend on nothing but the bytes since the last cut, so two sequences that meet once stay together.

use super::promise::{Giver, Promise};
use crate::{cancel::Cancel, chunker::Chunker};

#[cfg(test)]
mod tests;

/// The place in the run where a segment's first chunk begins, from the worker of the segment before.
pub(crate) enum Entry {
    /// Known from the start.
    At(u64),
    /// Known when the segment before is cut.
    Later(Promise<u64>),
}

/// Ends of the chunks that begin inside the segment, as offsets into `data`, and where the first begins.
///
/// `data` holds the segment of `length` bytes and, unless the run ends before, the longest chunk behind it; its
/// first byte is at `start` in the run. What comes out after all was `given_up` fits no other segment.
pub(crate) fn cut_segment(
    chunker: &Chunker,
    data: &[u8],
    start: u64,
    length: usize,
    entry: Entry,
    next: Giver<u64>,
    given_up: &Cancel,
) -> (usize, Vec<usize>) {
    let (first, guess) = match entry {
        Entry::At(at) => (at, None),
        Entry::Later(promise) => match promise.try_take() {
            Some(at) => (at, None),
            None => {
                let guess = cuts_from(chunker, data, 0, length, |_| false);
                (promise.wait(given_up), Some(guess))
            }
        },
    };
    let first = usize::try_from(first.saturating_sub(start)).unwrap_or(usize::MAX).min(data.len());
    let ends = match guess {
        None => cuts_from(chunker, data, first, length, |_| false),
        Some(guess) => join(chunker, data, first, length, &guess),
    };
    let end = ends.last().copied().unwrap_or(first);
    next.give(start + end as u64);
    (first, ends)
}

/// The cuts from `first` on: our own until they meet the guessed ones, then those.
fn join(chunker: &Chunker, data: &[u8], first: usize, length: usize, guess: &[usize]) -> Vec<usize> {
    if first == 0 {
        return guess.to_vec();
    }
    let met = |end: usize| guess.binary_search(&end).is_ok();
    if met(first) {
        return guess.iter().copied().filter(|end| *end > first).collect();
    }
    let mut ends = cuts_from(chunker, data, first, length, met);
    if let Some(last) = ends.last().copied().filter(|last| met(*last)) {
        ends.extend(guess.iter().copied().filter(|end| *end > last));
    }
    ends
}

fn cuts_from(
    chunker: &Chunker,
    data: &[u8],
    mut at: usize,
    length: usize,
    stop: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let mut ends = Vec::with_capacity(length / chunker.sizes().average as usize + 8);
    while at < length.min(data.len()) {
        at += chunker.cut(&data[at..]);
        ends.push(at);
        if stop(at) {
            break;
        }
    }
    ends
}
