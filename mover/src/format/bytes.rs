//! Reading and writing of plain bytes: little-endian, varints, lengths checked before anything is allocated.

use crate::error::{Error, Result};

/// Appends one varint: seven bits a byte, lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed varint (zig-zag).
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A cursor over untrusted bytes. Every error says what was read and where.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
    /// How many things may still be counted.
    rows: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte; `what` names the structure in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self::within(what, bytes, usize::MAX)
    }

    /// The same for a structure whose counts may come to no more than `rows` in all: what a few bytes each say takes
    /// many more in memory.
    pub(crate) fn within(what: &'static str, bytes: &'a [u8], rows: usize) -> Self {
        Self { what, bytes, at: 0, rows }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The error for a structure that contradicts the format.
    pub(crate) fn malformed(&self, problem: &str) -> Error {
        Error::corrupt(format!("{}: {problem} at byte {} of {}", self.what, self.at, self.bytes.len()))
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.left() {
            return Err(self.malformed("it ends too early"));
        }
        let piece = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(piece)
    }

    /// A fixed number of bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gave N bytes"))
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A varint of at most 64 bits, in its shortest form.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.malformed("a number is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.malformed("a number is too long"))
    }

    /// A varint that fits 32 bits.
    pub(crate) fn varint32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| self.malformed("a number is too large"))
    }

    /// A signed varint.
    pub(crate) fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of things that each take at least `least` bytes: never more than can follow.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.varint()?;
        if count > (self.left() / least.max(1)) as u64 {
            return Err(self.malformed("a count is larger than what follows"));
        }
        let count = count as usize;
        match self.rows.checked_sub(count) {
            Some(rest) => self.rows = rest,
            None => return Err(self.malformed("it counts more than it may")),
        }
        Ok(count)
    }

    /// A length and that many bytes, at most `limit`.
    pub(crate) fn bytes(&mut self, limit: usize) -> Result<&'a [u8]> {
        let length = self.varint()?;
        if length > limit as u64 {
            return Err(self.malformed("a field is longer than allowed"));
        }
        self.take(length as usize)
    }

    /// Fails if anything is left.
    pub(crate) fn finish(self) -> Result<()> {
        if self.left() > 0 { Err(self.malformed("something follows its end")) } else { Ok(()) }
    }
}
