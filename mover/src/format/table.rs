//! References to chunks inside a page: frames and packs are named once, in tables before the rows.

use std::collections::HashMap;

use super::{
    bytes::{Reader, put_varint},
    frame::{ChunkRef, Compression, Frame, FramePlace},
    session::SessionName,
};
use crate::{
    error::{Error, Result},
    id::{ChunkId, PackId},
    limits,
};

/// Collects the frames that a page refers to while its rows are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefWriter {
    frames: Vec<FramePlace>,
    by_place: HashMap<(PackId, u32), u32>,
    last: Option<(Frame, u32)>,
    next_offset: u32,
}

impl RefWriter {
    /// Appends a reference: frame, then offset (as its distance from the end of the previous chunk when that was
    /// in the same frame), length and id.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, chunk: &ChunkRef) -> Result<()> {
        let (index, same) = match &self.last {
            Some((frame, index)) if frame.is_same(&chunk.frame) => (*index, true),
            previous => {
                let before = previous.as_ref().map(|(_, index)| *index);
                let index = self.index(&chunk.frame)?;
                self.last = Some((chunk.frame.clone(), index));
                (index, before == Some(index))
            }
        };
        put_varint(out, u64::from(index));
        let base = if same { self.next_offset } else { 0 };
        super::bytes::put_signed(out, i64::from(chunk.offset) - i64::from(base));
        put_varint(out, u64::from(chunk.length));
        out.extend_from_slice(&chunk.id.0);
        self.next_offset = chunk.offset + chunk.length;
        Ok(())
    }

    fn index(&mut self, frame: &Frame) -> Result<u32> {
        // Another worker may be about to pack it; a chunk is never empty, so neither is a frame.
        let place = frame.wait();
        if place.stored == 0 && place.plain == 0 {
            return Err(Error::cancelled("a frame was lost on its way to the store"));
        }
        let next = self.frames.len() as u32;
        let index = *self.by_place.entry((place.pack, place.offset)).or_insert(next);
        if index == next {
            self.frames.push(*place);
        }
        Ok(index)
    }

    /// About how many bytes the tables will take.
    pub(crate) fn size(&self) -> usize {
        self.frames.len() * 56
    }

    /// Which sessions' keys a reader of the page's chunks needs.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionName> {
        self.frames.iter().map(|place| place.session)
    }

    /// The tables: sessions, packs, frames.
    pub(crate) fn tables(&self) -> Vec<u8> {
        let mut sessions: Vec<SessionName> = Vec::new();
        let mut packs: Vec<PackId> = Vec::new();
        let mut rows = Vec::with_capacity(self.frames.len() * 48);
        put_varint(&mut rows, self.frames.len() as u64);
        for place in &self.frames {
            put_varint(&mut rows, position(&mut sessions, place.session));
            put_varint(&mut rows, position(&mut packs, place.pack));
            rows.push(place.compression.code());
            put_varint(&mut rows, u64::from(place.offset));
            put_varint(&mut rows, u64::from(place.stored));
            put_varint(&mut rows, u64::from(place.plain));
            put_varint(&mut rows, place.counter);
            rows.extend_from_slice(&place.id.0);
        }
        let mut out = Vec::with_capacity(rows.len() + sessions.len() * 25 + packs.len() * 16 + 8);
        put_varint(&mut out, sessions.len() as u64);
        for session in &sessions {
            out.extend_from_slice(&session.to_bytes());
        }
        put_varint(&mut out, packs.len() as u64);
        for pack in &packs {
            out.extend_from_slice(&pack.0);
        }
        out.extend_from_slice(&rows);
        out
    }
}

/// Where `value` stands in the short list, appended if it is new. Neighbours share, so search from the end.
fn position<T: PartialEq>(list: &mut Vec<T>, value: T) -> u64 {
    let found = list.iter().rposition(|known| *known == value);
    found.unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    }) as u64
}

/// The tables of a page, for its rows.
#[derive(Debug)]
pub(crate) struct RefReader {
    frames: Vec<Frame>,
    last: Option<usize>,
    next_offset: u32,
}

impl RefReader {
    /// Reads the tables that stand before the rows.
    pub(crate) fn read_tables(reader: &mut Reader<'_>) -> Result<Self> {
        let count = reader.count(SessionName::LENGTH)?;
        let sessions: Vec<_> = (0..count).map(|_| SessionName::read(reader)).collect::<Result<_>>()?;
        let count = reader.count(PackId::LENGTH)?;
        let packs: Vec<_> = (0..count).map(|_| reader.array().map(PackId)).collect::<Result<_>>()?;
        let count = reader.count(39)?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let session = *pick(reader, &sessions)?;
            let pack = *pick(reader, &packs)?;
            let compression = Compression::from_code(reader.byte()?)
                .ok_or_else(|| reader.malformed("an unknown compression"))?;
            let (offset, stored, plain) = (reader.varint32()?, reader.varint32()?, reader.varint32()?);
            let (counter, id) = (reader.varint()?, ChunkId(reader.array()?));
            let longest = limits::FRAME_LIMIT.max(limits::PAGE_LIMIT);
            if plain as usize > longest || stored as usize > longest + 4096 {
                return Err(reader.malformed("a frame is longer than allowed"));
            }
            let place = FramePlace { session, pack, offset, stored, plain, compression, counter, id };
            frames.push(Frame::settled(place));
        }
        Ok(Self { frames, last: None, next_offset: 0 })
    }

    /// Reads one reference.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>) -> Result<ChunkRef> {
        let index = reader.varint()? as usize;
        let frame = self.frames.get(index).ok_or_else(|| reader.malformed("a frame that is not listed"))?;
        let base = if self.last == Some(index) { self.next_offset } else { 0 };
        let offset = i64::from(base).checked_add(reader.signed()?);
        let length = reader.varint32()?;
        let plain = frame.place().map_or(0, |place| place.plain);
        let offset = offset.and_then(|offset| u32::try_from(offset).ok());
        let end = offset.and_then(|offset| offset.checked_add(length)).filter(|end| *end <= plain);
        let (Some(offset), Some(end)) = (offset, end) else {
            return Err(reader.malformed("a chunk lies outside its frame"));
        };
        self.last = Some(index);
        self.next_offset = end;
        Ok(ChunkRef { id: ChunkId(reader.array()?), offset, length, frame: frame.clone() })
    }

    /// Which sessions' keys a reader of the page's chunks needs.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionName> {
        self.frames.iter().filter_map(|frame| Some(frame.place()?.session))
    }
}

fn pick<'t, T>(reader: &mut Reader<'_>, table: &'t [T]) -> Result<&'t T> {
    let index = reader.varint()?;
    usize::try_from(index)
        .ok()
        .and_then(|index| table.get(index))
        .ok_or_else(|| reader.malformed("a reference to a row that is not there"))
}
