//! A stream as a source: standard input, or any reader.

use std::io::{self, Read};

use crate::error::{Error, Result};

/// A stream that is read once from front to back.
pub struct StreamSource {
    reader: Box<dyn Read + Send>,
    position: u64,
}

impl std::fmt::Debug for StreamSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSource").field("position", &self.position).finish_non_exhaustive()
    }
}

impl StreamSource {
    /// Standard input of the process.
    pub fn stdin() -> Self {
        Self::new(io::stdin())
    }

    /// Any reader.
    pub fn new(reader: impl Read + Send + 'static) -> Self {
        Self { reader: Box::new(reader), position: 0 }
    }

    /// Fills `buffer`; less only at the end of the stream.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = self.position + filled as u64;
                    return Err(Error::io(error, format!("cannot read standard input at byte {at}")));
                }
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// How many bytes have been read.
    pub fn position(&self) -> u64 {
        self.position
    }
}
