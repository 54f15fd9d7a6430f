//! Contents of a file: pages that are shared between copies, and holes.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = 64 << 10;

/// Bytes of which a copy costs little, and holes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    length: u64,
    pages: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl Contents {
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many bytes take room.
    pub fn allocated(&self) -> u64 {
        (self.pages.len() as u64 * PAGE).min(self.length)
    }

    /// Up to so many bytes from a place.
    pub fn read(&self, offset: u64, count: u64) -> Vec<u8> {
        let end = offset.saturating_add(count).min(self.length);
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let (page, from, to) = part(at, end);
            match self.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[from..to]),
                None => bytes.resize(bytes.len() + to - from, 0),
            }
            at += (to - from) as u64;
        }
        bytes
    }

    /// Writes bytes at a place.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let (page, from, to) = part(at, end);
            let page = self.pages.entry(page).or_insert_with(|| Arc::new(vec![0; PAGE as usize]));
            let (now, rest) = bytes.split_at(to - from);
            Arc::make_mut(page)[from..to].copy_from_slice(now);
            bytes = rest;
            at += now.len() as u64;
        }
        self.length = self.length.max(end);
    }

    /// Makes a range read as zeros.
    pub fn punch(&mut self, offset: u64, count: u64) {
        let end = offset.saturating_add(count).min(self.length);
        let mut at = offset;
        while at < end {
            let (page, from, to) = part(at, end);
            if to - from == PAGE as usize {
                self.pages.remove(&page);
            } else if let Some(page) = self.pages.get_mut(&page) {
                Arc::make_mut(page)[from..to].fill(0);
            }
            at += (to - from) as u64;
        }
    }

    /// Cuts them off, or lets a hole follow.
    pub fn set_length(&mut self, length: u64) {
        self.punch(length, self.length.saturating_sub(length));
        self.pages.split_off(&length.div_ceil(PAGE));
        self.length = length;
    }
}

/// The page of a place, and which of its bytes lie before `end`.
fn part(at: u64, end: u64) -> (u64, usize, usize) {
    let (page, from) = (at / PAGE, at % PAGE);
    (page, from as usize, (end - page * PAGE).min(PAGE) as usize)
}
