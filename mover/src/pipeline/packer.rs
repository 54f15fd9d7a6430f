//! Fills packs with sealed frames and sends them when they are full.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use super::bridge::{Bridge, Room};
use crate::{
    codec::{self, Domain},
    error::Result,
    format::{
        frame::FramePlace,
        pack::{Footer, FooterFrame, Trailer},
        session::SessionKeyInfo,
    },
    id::{ChunkId, PackId},
    limits,
    sys::direct::AlignedBytes,
};

#[cfg(test)]
mod tests;

/// A pack that is being filled.
#[derive(Debug)]
struct OpenPack {
    id: PackId,
    bytes: AlignedBytes,
    footer: Footer,
    /// What the footer takes, at most.
    footer_bytes: usize,
}

impl OpenPack {
    /// Whether so many bytes more are for the next pack.
    fn is_full(&self, more: usize, target: usize) -> bool {
        self.bytes.len() + more > target || self.footer_bytes >= limits::FOOTER_TARGET
    }
}

/// Packs of one kind, shared by all workers.
#[derive(Debug)]
pub(crate) struct Packer {
    bridge: Arc<Bridge>,
    open: Mutex<Option<OpenPack>>,
    target: usize,
    buffers: Arc<Buffers>,
    indexed: Mutex<Vec<(ChunkId, PackId)>>,
    stored: AtomicU64,
}

/// Pack buffers that came back: fresh memory for every pack would cost a page fault per 4 KiB.
#[derive(Debug)]
struct Buffers {
    free: Mutex<Vec<AlignedBytes>>,
    kept: AtomicUsize,
}

/// A buffer on its way to the store; it returns when the last reference is gone.
struct Lent {
    bytes: AlignedBytes,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.home.kept.load(Ordering::Relaxed) {
            free.push(bytes);
        }
    }
}

/// Buffers of data packs that are kept: two under way and one being filled is what keeps a local store busy.
pub(crate) const DATA_BUFFERS: usize = 2;
/// Full packs are padded to a multiple of this many bytes: at most 0.8 % of a pack, and no frame's size shows.
const PADDING_STEP: usize = 256 << 10;
/// Room for padding and footer behind the frames, in bytes.
pub(crate) const TAIL_ROOM: usize = 1 << 20;

impl Packer {
    /// Packs that are closed at about `target` bytes; so many buffers are kept for the next ones.
    pub(crate) fn new(bridge: Arc<Bridge>, target: usize, kept: usize) -> Self {
        Self {
            bridge,
            open: Mutex::default(),
            target,
            buffers: Arc::new(Buffers { free: Mutex::default(), kept: AtomicUsize::new(kept) }),
            indexed: Mutex::default(),
            stored: AtomicU64::new(0),
        }
    }

    /// Puts a frame that this session sealed into the open pack; `frame.place` has everything but pack and offset,
    /// which are filled in and returned.
    pub(crate) fn append(&self, frame: FooterFrame, sealed: &[u8]) -> Result<FramePlace> {
        self.append_of(self.bridge.session().key_info(), frame, sealed)
    }

    /// The same for a frame that another session sealed.
    pub(crate) fn append_of(
        &self,
        owner: &SessionKeyInfo,
        mut frame: FooterFrame,
        sealed: &[u8],
    ) -> Result<FramePlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = match &*open {
            Some(pack) if pack.is_full(sealed.len(), self.target) => self.take(&mut open)?,
            _ => None,
        };
        let pack = open.get_or_insert_with(|| self.new_pack());
        frame.place.pack = pack.id;
        frame.place.offset =
            u32::try_from(pack.bytes.len()).expect("a pack is closed long before four gigabytes");
        pack.bytes.extend_from_slice(sealed);
        let place = frame.place;
        pack.footer_bytes += frame.bytes_at_most();
        pack.footer.frames.push(frame);
        if !pack.footer.sessions.iter().any(|known| known.session == owner.session) {
            pack.footer_bytes += SessionKeyInfo::LENGTH;
            pack.footer.sessions.push(owner.clone());
        }
        drop(open);
        if let Some((pack, room)) = full {
            self.close(pack, room, true)?;
        }
        Ok(place)
    }

    /// Sends the open pack, full or not.
    pub(crate) fn flush(&self) -> Result<()> {
        let taken = self.take(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))?;
        taken.map_or(Ok(()), |(pack, room)| self.close(pack, room, false))
    }

    /// Takes the open pack out. There is room for it under way before another is begun: so there are never more
    /// packs in memory than one that is filled and those under way, however many threads fill it.
    fn take(&self, open: &mut Option<OpenPack>) -> Result<Option<(OpenPack, Room)>> {
        let Some(pack) = open.as_ref() else { return Ok(None) };
        let room = self.bridge.reserve((pack.bytes.len() + TAIL_ROOM) as u64)?;
        Ok(open.take().map(|pack| (pack, room)))
    }

    /// Bytes of all packs closed so far.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Which chunk is in which pack, of all packs closed since the last call: the rows of an index segment.
    pub(crate) fn take_indexed(&self) -> Vec<(ChunkId, PackId)> {
        mem::take(&mut *self.indexed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many rows the next [`take_indexed`](Self::take_indexed) gives.
    pub(crate) fn indexed(&self) -> usize {
        self.indexed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Gives its memory back; what was not sent is lost.
    pub(crate) fn abandon(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.buffers.kept.store(0, Ordering::Relaxed);
        self.buffers.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(self.take_indexed());
    }

    fn new_pack(&self) -> OpenPack {
        let kept = self.buffers.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let session = self.bridge.session();
        OpenPack {
            id: session.new_pack(),
            bytes: kept.unwrap_or_else(|| AlignedBytes::with_capacity(self.target + TAIL_ROOM)),
            footer: Footer { sessions: vec![session.key_info().clone()], frames: Vec::new() },
            footer_bytes: SessionKeyInfo::LENGTH,
        }
    }

    fn close(&self, mut pack: OpenPack, room: Room, full: bool) -> Result<()> {
        let session = self.bridge.session();
        let counter = session.next_counter(Domain::Footer);
        let footer = codec::seal_bound(
            session.index_cipher(),
            Domain::Footer,
            &codec::footer_aad(session.name(), pack.id),
            counter,
            &pack.footer.to_bytes(),
        )?;
        let length = pack.bytes.len() + footer.len() + Trailer::LENGTH;
        let padded = if full { length.next_multiple_of(PADDING_STEP) } else { codec::padme(length) };
        // A pack that is not full may need more than its tail room: exactly that, not twice the pack.
        pack.bytes.reserve_exact(padded - pack.bytes.len());
        pad(&mut pack.bytes, padded - length, session.world_random());
        pack.bytes.extend_from_slice(&footer);
        let trailer = Trailer {
            footer_length: u32::try_from(footer.len()).expect("a footer is far shorter than its pack"),
            counter,
            generation: session.key_info().generation,
            suite: session.key_info().suite,
            session: session.name(),
        };
        pack.bytes.extend_from_slice(&trailer.to_bytes());
        self.stored.fetch_add(pack.bytes.len() as u64, Ordering::Relaxed);
        self.remember(&pack);
        let body = Bytes::from_owner(Lent { bytes: pack.bytes, home: Arc::clone(&self.buffers) });
        self.bridge.send(room, pack.id, body);
        Ok(())
    }

    fn remember(&self, pack: &OpenPack) {
        let chunks = pack.footer.frames.iter().flat_map(|frame| &frame.chunks);
        let rows = chunks.map(|chunk| (chunk.id, pack.id));
        self.indexed.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
    }
}

/// Whether a chunk of this length is listed in footers and index.
pub(crate) fn is_indexed(length: u32) -> bool {
    length >= limits::INDEXED_CHUNK_MIN
}

/// Appends bytes that look like ciphertext.
fn pad(bytes: &mut AlignedBytes, count: usize, seed: [u8; 32]) {
    blake3::Hasher::new_keyed(&seed).finalize_xof().fill(bytes.extend_zeroed(count));
}
