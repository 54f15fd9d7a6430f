//! Lists of changed blocks from outside: what a storage system knows to differ from an earlier snapshot.
//!
//! Whatever the list looks like, it becomes one bit per block of the grid: 1 MiB for 1 TiB at 128 KiB.

use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use serde::de::{DeserializeSeed, SeqAccess, Visitor};

use crate::error::{Error, Result};

/// Longest line of a text list, in bytes; two numbers need 41.
const LINE_MAX: u64 = 1024;

/// The most blocks a grid may have here: 128 MiB of bits.
const BLOCKS_MAX: u64 = 1 << 30;

/// Which blocks of a grid may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedBlocks {
    bits: Vec<u64>,
    size: u64,
    block: u64,
}

/// A range in a list, in bytes; the second names are those of the CSI snapshot metadata service.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Range {
    #[serde(alias = "byte_offset", alias = "byteOffset")]
    offset: u64,
    #[serde(alias = "size_bytes", alias = "sizeBytes", alias = "size")]
    length: u64,
}

impl ChangedBlocks {
    /// Nothing changed in `size` bytes cut into blocks of `block` bytes.
    pub fn none(size: u64, block: u64) -> Result<Self> {
        let blocks = size.div_ceil(block.max(1));
        if block == 0 || blocks > BLOCKS_MAX {
            return Err(Error::invalid(format!("{size} bytes cannot be cut into blocks of {block} bytes")));
        }
        Ok(Self { bits: vec![0; usize::try_from(blocks.div_ceil(64)).unwrap_or_default()], size, block })
    }

    /// Reads a list: lines of `offset length` in bytes (`#` begins a comment), or a JSON array of objects
    /// with `offset` and `length`. `origin` names the list in errors.
    pub fn read(list: impl Read, origin: &str, size: u64, block: u64) -> Result<Self> {
        let mut changed = Self::none(size, block)?;
        let mut reader = BufReader::new(list);
        let failed = |error| Error::io(error, format!("cannot read the changed blocks in {origin}"));
        let start = reader.fill_buf().map_err(failed)?.iter().find(|byte| !byte.is_ascii_whitespace());
        if start == Some(&b'[') {
            changed.read_json(reader, origin)?;
        } else {
            changed.read_lines(reader, origin)?;
        }
        Ok(changed)
    }

    fn read_lines(&mut self, mut reader: impl BufRead, origin: &str) -> Result<()> {
        let mut line = String::new();
        for number in 1_u64.. {
            line.clear();
            let read = reader.by_ref().take(LINE_MAX).read_line(&mut line);
            let failed =
                |error| Error::io(error, format!("{origin}:{number}: cannot read the changed blocks"));
            if read.map_err(failed)? == 0 {
                break;
            }
            let text = line.split('#').next().unwrap_or_default();
            let mut fields = text.split_ascii_whitespace();
            let (Some(offset), length) = (fields.next(), fields.next()) else { continue };
            let range = match (offset.parse(), length.map(str::parse), fields.next()) {
                (Ok(offset), Some(Ok(length)), None) => Range { offset, length },
                _ => {
                    return Err(Error::invalid(format!(
                        "{origin}:{number}: expected an offset and a length in bytes, found {:?}",
                        text.trim()
                    )));
                }
            };
            self.mark(range).map_err(|error| error.context(format!("{origin}:{number}")))?;
        }
        Ok(())
    }

    fn read_json(&mut self, reader: impl Read, origin: &str) -> Result<()> {
        let mut json = serde_json::Deserializer::from_reader(reader);
        let parsed = Marker(self).deserialize(&mut json).and_then(|()| json.end());
        parsed.map_err(|error| Error::invalid(format!("{origin}: not a list of changed blocks: {error}")))
    }

    /// Counts these bytes as changed, as far as the source goes.
    pub fn include(&mut self, bytes: std::ops::Range<u64>) {
        let end = bytes.end.min(self.size);
        for block in bytes.start / self.block..end.div_ceil(self.block) {
            let (word, bit) = (usize::try_from(block / 64).unwrap_or(usize::MAX), block % 64);
            self.bits[word] |= 1 << bit;
        }
    }

    fn mark(&mut self, range: Range) -> Result<()> {
        let end = range.offset.checked_add(range.length).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(Error::invalid(format!(
                "the range of {} bytes at {} lies beyond the {} bytes of the source",
                range.length, range.offset, self.size
            )));
        };
        if range.length > 0 {
            self.include(range.offset..end);
        }
        Ok(())
    }

    /// Whether the block at this index may have changed.
    pub fn contains(&self, block: u64) -> bool {
        let word = usize::try_from(block / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| (word >> (block % 64)) & 1 == 1)
    }

    /// The blocks that may have changed, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(index, word)| {
            (0..64).filter(move |bit| (word >> bit) & 1 == 1).map(move |bit| index as u64 * 64 + bit)
        })
    }

    /// How many blocks may have changed.
    pub fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Takes the ranges one by one, so that a list of any length needs no memory of its own.
struct Marker<'a>(&'a mut ChangedBlocks);

impl<'de> DeserializeSeed<'de> for Marker<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Marker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects with offset and length")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(range) = list.next_element::<Range>()? {
            self.0.mark(range).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}
