//! The list of changed blocks on its way from a service into a file.

use std::{
    io::{self, BufWriter, Write as _},
    ops::Range,
};

use tempfile::{NamedTempFile, TempPath};

/// Extents grow to multiples of it: no grid is finer, so no more is read, and the list stays short whatever comes.
const UNIT: u64 = 64 << 10;

/// Extents in ascending order, written as they come.
#[derive(Debug)]
pub(super) struct Extents {
    file: BufWriter<NamedTempFile>,
    size: u64,
    /// Bytes of the volume, as the storage says.
    capacity: Option<i64>,
    /// Everything before it was told.
    reached: u64,
    /// What was told last, and may still grow.
    last: Range<u64>,
    bytes: u64,
}

/// Why an extent cannot be taken.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It makes no sense.
    List(String),
    /// It cannot be written down.
    File(io::Error),
}

impl Extents {
    /// None yet, of a device of so many bytes.
    pub(super) fn create(size: u64) -> io::Result<Self> {
        let file = BufWriter::new(NamedTempFile::new()?);
        Ok(Self { file, size, capacity: None, reached: 0, last: 0..0, bytes: 0 })
    }

    /// Where a list that broke off goes on.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// Takes the next one. It may begin in what was told already, but not end there.
    pub(super) fn add(&mut self, offset: i64, length: i64) -> Result<(), Unusable> {
        let refused = |what: &str| Unusable::List(format!("its list has {length} bytes at {offset}: {what}"));
        let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Err(refused("that is no place"));
        };
        // Both are below 2^63.
        let end = offset + length;
        if length == 0 || end <= self.reached {
            return Err(refused("that is not in order"));
        }
        if end > self.size {
            return Err(refused(&format!("the device has {} bytes", self.size)));
        }
        let start = offset.max(self.reached) / UNIT * UNIT;
        self.reached = end;
        let end = end.next_multiple_of(UNIT).min(self.size);
        if start <= self.last.end && !self.last.is_empty() {
            self.last.end = end;
            return Ok(());
        }
        self.write_last().map_err(Unusable::File)?;
        self.last = start..end;
        Ok(())
    }

    /// Takes the size of the volume that the storage speaks of. Where it is larger than the device, something lies between
    /// them, and offsets need not mean the same.
    pub(super) fn of_volume(&mut self, capacity: i64) -> Result<(), Unusable> {
        let before = *self.capacity.get_or_insert(capacity);
        if before != capacity || !u64::try_from(capacity).is_ok_and(|bytes| (1..=self.size).contains(&bytes))
        {
            let size = self.size;
            return Err(Unusable::List(format!(
                "it speaks of a volume of {capacity} bytes (and of {before} before), the device has {size}"
            )));
        }
        Ok(())
    }

    /// Whether all was told.
    pub(super) fn is_complete(&self) -> bool {
        self.reached == self.size
    }

    /// Beyond what the storage spoke of, nothing is known. A storage that has nothing to tell need not say how large the volume
    /// is.
    pub(super) fn end(&mut self) -> Result<(), Unusable> {
        let capacity = self.capacity.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(self.size);
        let known = capacity.max(self.reached);
        if known >= self.size {
            return Ok(());
        }
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.add(signed(known), signed(self.size - known))
    }

    fn write_last(&mut self) -> io::Result<()> {
        let length = self.last.end - self.last.start;
        self.bytes += length;
        if length > 0 {
            writeln!(self.file, "{} {length}", self.last.start)?;
        }
        Ok(())
    }

    /// The file, and how many bytes lie in its extents.
    pub(super) fn finish(mut self) -> io::Result<(TempPath, u64)> {
        self.write_last()?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file.into_temp_path(), self.bytes))
    }
}
