//! Frames: what is compressed and sealed as one piece, and how the parts of it are named.
//!
//! A frame holds several neighbouring chunks, so that small chunks deduplicate and large pieces compress. In a
//! pack it is nothing but ciphertext and tag: lengths and ids stand in the footer and in the trees, so that nobody
//! without keys sees where one frame ends.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::session::SessionName;
use crate::id::{ChunkId, PackId};

/// The AEAD that a session seals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suite {
    /// AES with 256 bits in Galois counter mode: the fastest where the processor has instructions for it.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20 with Poly1305: fast everywhere.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Suite {
    /// The byte that stands for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite of a byte, if it is a registered one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// How the plain bytes became the sealed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// As they are.
    #[serde(rename = "stored")]
    Stored,
    /// One zstd frame.
    #[serde(rename = "zstd")]
    Zstd,
}

impl Compression {
    /// The byte that stands for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec of a byte, if it is a registered one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Stored),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What a frame holds, which decides the key it is sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Contents of files and devices: sealed with the session's data key.
    Data,
    /// Pages of trees and chunk lists: sealed with the session's metadata key.
    Metadata,
}

impl FrameKind {
    /// The byte that stands for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Metadata => 1,
        }
    }

    /// The kind of a byte, if it is a registered one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Data),
            1 => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// Where a frame lies and what is needed to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FramePlace {
    /// The session whose key sealed it; for a frame that was moved this is not the pack's own session.
    pub session: SessionName,
    /// The pack it was written to. Relocations say where it went since.
    pub pack: PackId,
    /// Offset in the pack, in bytes.
    pub offset: u32,
    /// Bytes in the pack, tag included.
    pub stored: u32,
    /// Bytes before compression.
    pub plain: u32,
    /// How it was compressed.
    pub compression: Compression,
    /// The nonce counter of the session's key.
    pub counter: u64,
    /// Keyed hash over the ids and lengths of its chunks; bound by the seal.
    pub id: ChunkId,
}

/// A frame that chunks refer to. While a backup runs its place may not be settled yet: the chunk is known, and
/// compressed and packed a moment later.
#[derive(Debug, Clone, Default)]
pub struct Frame(Arc<OnceLock<FramePlace>>);

impl Frame {
    /// A frame that will be settled later, by whoever made it.
    pub fn pending() -> Self {
        Self::default()
    }

    /// A frame whose place is known.
    pub fn settled(place: FramePlace) -> Self {
        Self(Arc::new(OnceLock::from(place)))
    }

    /// Says where it lies. The first answer stays.
    pub fn settle(&self, place: FramePlace) {
        self.0.get_or_init(|| place);
    }

    /// Waits until somebody says where it lies. A frame that was lost on its way answers with a place of no bytes.
    pub fn wait(&self) -> &FramePlace {
        self.0.wait()
    }

    /// Says that the frame will never be packed, so that nobody waits for it.
    pub fn lose(&self, session: SessionName) {
        self.settle(FramePlace {
            session,
            pack: PackId::default(),
            offset: 0,
            stored: 0,
            plain: 0,
            compression: Compression::Stored,
            counter: 0,
            id: ChunkId::default(),
        });
    }

    /// Where it lies, if that is settled.
    pub fn place(&self) -> Option<&FramePlace> {
        self.0.get()
    }

    /// Whether both are one and the same value (not merely equal).
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Frame {}

/// A piece of a frame: one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// Keyed hash of the contents.
    pub id: ChunkId,
    /// Offset in the frame's plain bytes.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// The frame.
    pub frame: Frame,
}
