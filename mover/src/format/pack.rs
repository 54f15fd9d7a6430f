//! Packs: frames, padding, a sealed footer and a plain trailer of 64 bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    bytes::{Reader, put_varint},
    frame::{Compression, FrameKind, FramePlace, Suite},
    session::{SessionKeyInfo, SessionName},
};
use crate::{
    error::{Error, Result},
    id::{ChunkId, PackId},
    limits,
};

/// The last bytes of a pack: all that can be read without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Length of the sealed footer before the trailer, in bytes.
    pub footer_length: u32,
    /// Nonce counter of the footer under the session's index key.
    pub counter: u64,
    /// Key generation of the session that wrote the pack.
    pub generation: u32,
    /// Cipher of the footer.
    pub suite: Suite,
    /// The session that wrote the pack.
    pub session: SessionName,
}

const MAGIC: &[u8; 4] = b"CRKP";
const VERSION: u32 = 1;

impl Trailer {
    /// Bytes of a trailer.
    pub const LENGTH: usize = 64;

    /// The 64 bytes.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0..4].copy_from_slice(&self.footer_length.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.counter.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16] = self.suite.code();
        bytes[17..42].copy_from_slice(&self.session.to_bytes());
        bytes[56..60].copy_from_slice(&VERSION.to_le_bytes());
        bytes[60..64].copy_from_slice(MAGIC);
        bytes
    }

    /// Reads the last 64 bytes of a pack.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("pack trailer", bytes);
        let footer_length = u32::from_le_bytes(reader.array()?);
        let counter = u64::from_le_bytes(reader.array()?);
        let generation = u32::from_le_bytes(reader.array()?);
        let suite = reader.byte()?;
        let session_at = reader.clone();
        reader.take(SessionName::LENGTH + 14)?;
        let version = u32::from_le_bytes(reader.array()?);
        if reader.array::<4>()? != *MAGIC {
            return Err(reader.malformed("it does not end in CRKP"));
        }
        if version != VERSION {
            return Err(newer("pack", version));
        }
        reader.finish()?;
        let mut session_at = session_at;
        let session = SessionName::read(&mut session_at)?;
        let suite = Suite::from_code(suite).ok_or_else(|| session_at.malformed("an unknown cipher"))?;
        if footer_length as usize > limits::FOOTER_LIMIT {
            return Err(session_at.malformed("the footer is longer than allowed"));
        }
        Ok(Self { footer_length, counter, generation, suite, session })
    }
}

const NEWER: &str = "use a newer carrack; nothing is wrong with the repository";

/// The error for something that a later program wrote: never called damage, unless no program can have.
pub(crate) fn newer(what: &str, version: u32) -> Error {
    if version == 0 {
        return Error::corrupt(format!("a {what} has format version 0, which there never was"));
    }
    Error::invalid(format!("a {what} has format version {version}, which this program does not know"))
        .with_hint(NEWER)
}

/// Whether an error says that something is of a later version.
pub(crate) fn is_newer(error: &Error) -> bool {
    error.hint() == Some(NEWER)
}

/// A chunk as the footer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterChunk {
    /// Keyed hash of the contents.
    pub id: ChunkId,
    /// Offset in the frame's plain bytes.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// A frame as the footer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterFrame {
    /// Data or metadata.
    pub kind: FrameKind,
    /// Where it is and how to open it.
    pub place: FramePlace,
    /// Its chunks of at least `INDEXED_CHUNK_MIN` bytes, in order.
    pub chunks: Vec<FooterChunk>,
}

impl FooterFrame {
    /// What it takes in a footer, at most: numbers of ten bytes, of five, and ids.
    pub(crate) fn bytes_at_most(&self) -> usize {
        72 + self.chunks.len() * (5 + 5 + 32)
    }
}

/// What a pack holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footer {
    /// Keys of the sessions whose frames are in it; the first is the pack's own session.
    pub sessions: Vec<SessionKeyInfo>,
    /// Frames in the order of their offsets.
    pub frames: Vec<FooterFrame>,
}

impl Footer {
    /// The plain bytes, before compression and sealing.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.frames.len() * 64);
        put_varint(&mut out, self.sessions.len() as u64);
        for session in &self.sessions {
            session.write(&mut out);
        }
        put_varint(&mut out, self.frames.len() as u64);
        for frame in &self.frames {
            let session = self.sessions.iter().position(|known| known.session == frame.place.session);
            put_varint(&mut out, session.expect("the writer lists every session it uses") as u64);
            out.push(frame.kind.code() | frame.place.compression.code() << 4);
            put_varint(&mut out, u64::from(frame.place.offset));
            put_varint(&mut out, u64::from(frame.place.stored));
            put_varint(&mut out, u64::from(frame.place.plain));
            put_varint(&mut out, frame.place.counter);
            out.extend_from_slice(&frame.place.id.0);
            put_varint(&mut out, frame.chunks.len() as u64);
            let mut end = 0;
            for chunk in &frame.chunks {
                put_varint(&mut out, u64::from(chunk.offset - end));
                put_varint(&mut out, u64::from(chunk.length));
                out.extend_from_slice(&chunk.id.0);
                end = chunk.offset + chunk.length;
            }
        }
        out
    }

    /// Reads the plain bytes of the footer of `pack`, which is `pack_length` bytes long.
    pub fn from_bytes(bytes: &[u8], pack: PackId, pack_length: u64) -> Result<Self> {
        let mut reader = Reader::new("pack footer", bytes);
        let count = reader.count(SessionName::LENGTH)?;
        let sessions: Vec<_> =
            (0..count).map(|_| SessionKeyInfo::read(&mut reader)).collect::<Result<_>>()?;
        let count = reader.count(38)?;
        let mut frames = Vec::with_capacity(count);
        let mut end = 0u64;
        for _ in 0..count {
            let frame = read_frame(&mut reader, &sessions, pack)?;
            let place = &frame.place;
            if u64::from(place.offset) < end {
                return Err(reader.malformed("frames overlap"));
            }
            end = u64::from(place.offset) + u64::from(place.stored);
            if end > pack_length {
                return Err(reader.malformed("a frame lies outside the pack"));
            }
            frames.push(frame);
        }
        reader.finish()?;
        Ok(Self { sessions, frames })
    }
}

fn read_frame(reader: &mut Reader<'_>, sessions: &[SessionKeyInfo], pack: PackId) -> Result<FooterFrame> {
    let session = reader.varint()?;
    let session = usize::try_from(session).ok().and_then(|index| sessions.get(index));
    let session = session.ok_or_else(|| reader.malformed("a frame of a session that is not listed"))?.session;
    let codes = reader.byte()?;
    let kind =
        FrameKind::from_code(codes & 0xf).ok_or_else(|| reader.malformed("an unknown kind of frame"))?;
    let compression =
        Compression::from_code(codes >> 4).ok_or_else(|| reader.malformed("an unknown compression"))?;
    let place = FramePlace {
        session,
        pack,
        offset: reader.varint32()?,
        stored: reader.varint32()?,
        plain: reader.varint32()?,
        compression,
        counter: reader.varint()?,
        id: ChunkId(reader.array()?),
    };
    let longest = limits::FRAME_LIMIT.max(limits::PAGE_LIMIT);
    if place.plain as usize > longest || place.stored as usize > longest + 4096 {
        return Err(reader.malformed("a frame is longer than allowed"));
    }
    let count = reader.count(34)?;
    let mut chunks = Vec::with_capacity(count);
    let mut end = 0u32;
    for _ in 0..count {
        let gap = reader.varint32()?;
        let length = reader.varint32()?;
        let offset = end.checked_add(gap);
        let next = offset.and_then(|offset| offset.checked_add(length)).filter(|next| *next <= place.plain);
        let (Some(offset), Some(next)) = (offset, next) else {
            return Err(reader.malformed("a chunk lies outside its frame"));
        };
        end = next;
        chunks.push(FooterChunk { id: ChunkId(reader.array()?), offset, length });
    }
    Ok(FooterFrame { kind, place, chunks })
}

/// One sending of a pack: what a collector condemns and deletes. Its object is sent in one PUT ever, so what was seen,
/// condemned and deleted does not come back; another sending of the same pack that lands later is another thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackSending {
    /// The pack.
    pub pack: PackId,
    /// Which sending of it, from 0.
    pub attempt: u8,
}

impl PackSending {
    /// The object.
    pub fn object(self) -> String {
        pack_object(self.pack, self.attempt)
    }
}

impl fmt::Display for PackSending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempt {
            0 => write!(f, "{}", self.pack),
            attempt => write!(f, "{}.{attempt}", self.pack),
        }
    }
}

impl FromStr for PackSending {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_sending(text)
            .map(|(pack, attempt)| Self { pack, attempt })
            .ok_or_else(|| Error::corrupt(format!("{text:?} does not name a pack")))
    }
}

impl Serialize for PackSending {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackSending {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse_sending(text: &str) -> Option<(PackId, u8)> {
    let (hex, attempt) = match text.split_once('.') {
        Some((hex, attempt)) => {
            let number = attempt.parse().ok().filter(|number| (1..limits::PACK_ATTEMPTS).contains(number))?;
            // One form only: others would be further names of the same object.
            (hex, (number.to_string() == attempt).then_some(number)?)
        }
        None => (text, 0),
    };
    Some((PackId::from_hex(hex)?, attempt))
}

/// The object of a pack at its `attempt`-th sending: an unclear answer abandons a name for the next one, and every
/// copy that did arrive has the same bytes.
pub fn pack_object(pack: PackId, attempt: u8) -> String {
    let hex = pack.to_hex();
    // Two digits of the random half spread packs over prefixes.
    let shard = &hex[16..18];
    if attempt == 0 { format!("packs/{shard}/{hex}") } else { format!("packs/{shard}/{hex}.{attempt}") }
}

/// The pack and attempt of an object's name.
pub fn parse_pack_object(name: &str) -> Option<(PackId, u8)> {
    let (pack, attempt) = parse_sending(name.strip_prefix("packs/")?.split_once('/')?.1)?;
    (pack_object(pack, attempt) == name).then_some((pack, attempt))
}
