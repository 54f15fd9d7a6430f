//! Turns chunks into references: known ones are found, new ones are gathered into frames, compressed, sealed and
//! packed. One instance belongs to one worker.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard,
    atomic::{AtomicI32, AtomicU64, Ordering},
};

use super::{
    bridge::Bridge,
    compression::{Lightness, compress_page},
    known::KnownChunks,
    packer::{Packer, is_indexed},
};
use crate::{
    codec::{self, Domain},
    error::Result,
    format::{
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace},
        pack::{FooterChunk, FooterFrame},
    },
    id::{ChunkId, PackId},
    keys::Keys,
    limits,
    repo::DedupIndex,
};

#[cfg(test)]
mod tests;

/// What all workers of one backup share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Ids and cuts.
    pub(crate) keys: Keys,
    /// Chunks whose place is known.
    pub(crate) known: KnownChunks,
    /// Chunks of other sessions: hints.
    pub(crate) index: RwLock<DedupIndex>,
    /// Data packs.
    pub(crate) packer: Packer,
    /// The way to the store.
    pub(crate) bridge: Arc<Bridge>,
    /// The zstd level for the next frame; 0 stores everything as it is.
    pub(crate) level: AtomicI32,
    /// Whether the level follows what the bottleneck is.
    pub(crate) adapts: bool,
    /// Counts.
    pub(crate) counts: Counts,
}

impl Shared {
    fn index(&self) -> RwLockReadGuard<'_, DedupIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the memory back and keeps nobody waiting: of a run that was given up, a thread may hold this for ever.
    pub(crate) fn abandon(&self) {
        self.bridge.abandon();
        self.packer.abandon();
        self.known.abandon(self.bridge.session().name());
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = DedupIndex::default();
    }
}

/// Numbers for the report.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) bytes_new: AtomicU64,
    pub(crate) chunks_new: AtomicU64,
    pub(crate) chunks_known: AtomicU64,
}

/// A chunk of the frame that is being gathered, as a range of the worker's slab.
struct Part {
    id: ChunkId,
    start: usize,
    end: usize,
}

/// Gathers new chunks of one slab into frames.
pub(crate) struct Framer {
    shared: Arc<Shared>,
    frame: Frame,
    parts: Vec<Part>,
    length: usize,
    gathered: Vec<u8>,
    sealed: Vec<u8>,
    lightness: Lightness,
}

impl Framer {
    /// A framer for one worker.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            frame: Frame::pending(),
            parts: Vec::new(),
            length: 0,
            gathered: Vec::new(),
            sealed: Vec::new(),
            lightness: Lightness::default(),
        }
    }

    /// The reference for the chunk at `start..end` of the slab. If it is new it is part of the current frame, which
    /// must be flushed before the slab changes.
    pub(crate) fn chunk(&mut self, slab: &[u8], start: usize, end: usize) -> Result<ChunkRef> {
        let id = self.shared.keys.chunk_id(&slab[start..end]);
        self.chunk_with_id(slab, id, start, end)
    }

    /// The same for a chunk whose id is known already.
    pub(crate) fn chunk_with_id(
        &mut self,
        slab: &[u8],
        id: ChunkId,
        start: usize,
        end: usize,
    ) -> Result<ChunkRef> {
        let length = u32::try_from(end - start).expect("no chunk is longer than 4 MiB");
        if self.length + (end - start) > limits::FRAME_TARGET && !self.parts.is_empty()
            || self.parts.len() >= limits::FRAME_CHUNKS
        {
            self.flush(slab)?;
        }
        let counts = &self.shared.counts;
        let mut found = self.shared.known.get(&id);
        if found.is_none() && is_indexed(length) && !self.shared.index().is_empty() {
            found = self.find_in_index(&id)?;
        }
        let offset = u32::try_from(self.length).expect("a frame is at most 8 MiB");
        let found = found.or_else(|| self.shared.known.get_or_claim(&id, &self.frame, offset, length));
        if let Some(known) = found {
            counts.chunks_known.fetch_add(1, Ordering::Relaxed);
            return Ok(known);
        }
        counts.chunks_new.fetch_add(1, Ordering::Relaxed);
        counts.bytes_new.fetch_add(u64::from(length), Ordering::Relaxed);
        self.parts.push(Part { id, start, end });
        self.length += end - start;
        Ok(ChunkRef { id, offset, length, frame: self.frame.clone() })
    }

    /// W4: a pack that the index names is used only after its footer was fetched within this session. With the
    /// footer come its neighbours, which are likely to be asked for next.
    fn find_in_index(&self, id: &ChunkId) -> Result<Option<ChunkRef>> {
        let packs: Vec<PackId> = self.shared.index().lookup(id).collect();
        let session = self.shared.bridge.session();
        for pack in packs {
            let Some(found) = self.shared.bridge.wait(session.reusable(pack))? else { continue };
            for frame in found.footer.frames.iter().filter(|frame| frame.kind == FrameKind::Data) {
                session.learn_keys(&found.footer.sessions);
                // W5: a new record never names the old side of a relocation.
                let mut place = frame.place;
                let Some(at) = session.usable(place.pack, place.offset) else { continue };
                (place.pack, place.offset) = at;
                let place = Frame::settled(place);
                for chunk in &frame.chunks {
                    let (id, offset, length) = (chunk.id, chunk.offset, chunk.length);
                    self.shared.known.insert(&ChunkRef { id, offset, length, frame: place.clone() });
                }
            }
            if let Some(found) = self.shared.known.get(id) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Compresses, seals and packs the current frame.
    pub(crate) fn flush(&mut self, slab: &[u8]) -> Result<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let parts = std::mem::take(&mut self.parts);
        let frame = std::mem::take(&mut self.frame);
        self.length = 0;
        let contiguous = parts.windows(2).all(|pair| pair[0].end == pair[1].start);
        let plain = if contiguous {
            &slab[parts[0].start..parts[parts.len() - 1].end]
        } else {
            self.gathered.clear();
            for part in &parts {
                self.gathered.extend_from_slice(&slab[part.start..part.end]);
            }
            &self.gathered[..]
        };
        match seal_data_frame(&self.shared, plain, &parts, &mut self.lightness, &mut self.sealed) {
            Ok(place) => frame.settle(place),
            Err(error) => {
                frame.lose(self.shared.bridge.session().name());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives up what was gathered, after an error.
    pub(crate) fn abandon(&mut self) {
        self.parts.clear();
        self.length = 0;
        std::mem::take(&mut self.frame).lose(self.shared.bridge.session().name());
    }
}

impl Drop for Framer {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn seal_data_frame(
    shared: &Shared,
    plain: &[u8],
    parts: &[Part],
    lightness: &mut Lightness,
    sealed: &mut Vec<u8>,
) -> Result<FramePlace> {
    let ids: Vec<(ChunkId, u32)> =
        parts.iter().map(|part| (part.id, (part.end - part.start) as u32)).collect();
    let session = shared.bridge.session();
    let mut place = new_place(shared, FrameKind::Data, plain, codec::frame_id(&shared.keys, &ids));
    sealed.clear();
    let level = shared.level.load(Ordering::Relaxed);
    place.compression = lightness.compress_or_store(plain, level, shared.adapts, sealed)?;
    let aad = codec::frame_aad(FrameKind::Data, &place);
    session.data_cipher().seal(Domain::Data, place.counter, &aad, sealed, 0)?;
    place.stored = sealed.len() as u32;
    let mut chunks = Vec::with_capacity(parts.len());
    let mut offset = 0;
    for (id, length) in ids {
        if is_indexed(length) {
            chunks.push(FooterChunk { id, offset, length });
        }
        offset += length;
    }
    shared.packer.append(FooterFrame { kind: FrameKind::Data, place, chunks }, sealed)
}

fn new_place(shared: &Shared, kind: FrameKind, plain: &[u8], id: ChunkId) -> FramePlace {
    let session = shared.bridge.session();
    FramePlace {
        session: session.name(),
        pack: PackId::default(),
        offset: 0,
        stored: 0,
        plain: plain.len() as u32,
        compression: Compression::Stored,
        counter: session.next_counter(kind.into()),
        id,
    }
}

/// Compresses one page and packs it as a frame of its own.
pub(crate) fn store_page(
    shared: &Shared,
    packer: &Packer,
    plain: &[u8],
    id: ChunkId,
    sealed: &mut Vec<u8>,
) -> Result<ChunkRef> {
    let length = plain.len() as u32;
    let mut place =
        new_place(shared, FrameKind::Metadata, plain, codec::frame_id(&shared.keys, &[(id, length)]));
    sealed.clear();
    place.compression = compress_page(plain, sealed)?;
    let aad = codec::frame_aad(FrameKind::Metadata, &place);
    shared.bridge.session().metadata_cipher().seal(Domain::Metadata, place.counter, &aad, sealed, 0)?;
    place.stored = sealed.len() as u32;
    let frame = FooterFrame { kind: FrameKind::Metadata, place, chunks: Vec::new() };
    let place = packer.append(frame, sealed)?;
    Ok(ChunkRef { id, offset: 0, length, frame: Frame::settled(place) })
}
