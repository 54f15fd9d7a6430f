//! Opening frames on worker threads without allocating: one scratch buffer and one zstd context a thread.

use bytes::{Bytes, BytesMut};

use crate::{
    codec::{Cipher, frame_aad},
    error::{Error, Result},
    format::frame::{Compression, FrameKind, FramePlace},
};

/// Opens frames one after the other, reusing its buffer.
#[derive(Default)]
pub struct FrameOpener {
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for FrameOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameOpener").field("scratch", &self.scratch.len()).finish_non_exhaustive()
    }
}

impl FrameOpener {
    /// Opens `stored` in place; the answer lies in it or in the scratch buffer.
    pub fn open<'b>(
        &'b mut self,
        cipher: &Cipher,
        kind: FrameKind,
        place: &FramePlace,
        stored: &'b mut [u8],
    ) -> Result<&'b [u8]> {
        let named = |error: Error| error.context(format!("frame at {} of pack {}", place.offset, place.pack));
        let opened =
            cipher.open(kind.into(), place.counter, &frame_aad(kind, place), stored).map_err(named)?;
        let length = place.plain as usize;
        match place.compression {
            Compression::Stored if opened.len() == length => Ok(opened),
            Compression::Stored => Err(named(Error::corrupt("its length is not the one that was promised"))),
            Compression::Zstd => self.decompress(opened, length).map_err(named),
        }
    }

    fn decompress(&mut self, compressed: &[u8], length: usize) -> Result<&[u8]> {
        let broken = |error: std::io::Error| Error::corrupt("compressed bytes are damaged").with_source(error);
        if self.scratch.len() < length {
            self.scratch.resize(length, 0);
        }
        if self.decompressor.is_none() {
            self.decompressor = Some(zstd::bulk::Decompressor::new().map_err(broken)?);
        }
        let decompressor = self.decompressor.as_mut().expect("it was just put there");
        let written =
            decompressor.decompress_to_buffer(compressed, &mut self.scratch[..length]).map_err(broken)?;
        if written != length {
            return Err(Error::corrupt(format!(
                "{written} bytes came out of compression, {length} were promised"
            )));
        }
        Ok(&self.scratch[..length])
    }
}

/// The bytes for opening in place: without a copy if nobody else holds them.
pub fn into_mutable(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

/// The error for a chunk whose contents are not what its id says.
pub(crate) fn wrong_id(place: &FramePlace, offset: u32) -> Error {
    Error::corrupt(format!(
        "the chunk at {offset} of the frame at {} of pack {} does not have the contents its id says",
        place.offset, place.pack
    ))
}
