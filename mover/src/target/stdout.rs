//! Restores one file or image to a stream.

use std::io::{self, BufWriter, Write};

use crate::error::{Error, Result};

/// Buffer before the stream, in bytes: as much as a pipe holds.
const BUFFER: usize = 64 * 1024;

/// A stream that is written once from front to back.
pub struct StreamTarget {
    writer: BufWriter<Box<dyn Write + Send>>,
    position: u64,
}

impl std::fmt::Debug for StreamTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTarget").field("position", &self.position).finish_non_exhaustive()
    }
}

impl StreamTarget {
    /// Standard output of the process.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// Any writer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self { writer: BufWriter::with_capacity(BUFFER, Box::new(writer)), position: 0 }
    }

    /// Writes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|error| failed(error, self.position))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes the next `length` zeros, a hole of the source.
    pub fn write_zeros(&mut self, length: u64) -> Result<()> {
        let copied = io::copy(&mut io::Read::take(io::repeat(0), length), &mut self.writer);
        self.position += copied.map_err(|error| failed(error, self.position))?;
        Ok(())
    }

    /// Hands over what is left and returns how many bytes were written.
    pub fn finish(mut self) -> Result<u64> {
        self.writer.flush().map_err(|error| failed(error, self.position))?;
        Ok(self.position)
    }
}

fn failed(error: io::Error, position: u64) -> Error {
    let hint = (error.kind() == io::ErrorKind::BrokenPipe).then_some("the reader of the output went away");
    let error = Error::io(error, format!("cannot write to standard output at byte {position}"));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
