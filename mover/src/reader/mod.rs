//! Opens what a snapshot refers to: pages, chunks, the tree.
//!
//! A snapshot carries the place of every frame and the keys of every session it refers to, so reading needs no
//! index. A key that it should carry and does not is learnt from the pack that has the frame. What is remembered
//! (pages, frames) is bounded in bytes. Every chunk that leaves this module has been opened by its seal and compared
//! with its id.

pub mod access;
mod cache;
pub(crate) mod contents;
pub mod frame;
pub mod runs;
pub(crate) mod sums;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod walk;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;

use crate::{
    codec::Cipher,
    error::{Error, ErrorKind, Result},
    format::{
        frame::{ChunkRef, FrameKind, FramePlace},
        page::Page,
        records::Snapshot,
        session::{SessionKeyInfo, SessionName},
    },
    id::{ChunkId, PackId},
    keys::Keys,
    limits,
    repo::Repository,
    store::ByteRange,
};
use access::{Access, RepositoryAccess};
use cache::ByteCache;
use frame::FrameOpener;

/// Pages that are kept decoded, in bytes: a few thousand directories for somebody who browses.
const PAGE_CACHE_BYTES: usize = 16 << 20;
/// Frames that are kept open, in bytes: one for each of a few dozen readers of a mounted tree.
const FRAME_CACHE_BYTES: usize = 32 << 20;
/// A decoded page takes about this many times its plain bytes.
const PAGE_EXPANSION: usize = 4;
/// Pages that lie next to each other are fetched in one request of up to this many bytes.
const PAGE_RUN_BYTES: u64 = 2 << 20;
/// Bytes between two wanted pages that are rather read than asked around.
const PAGE_GAP_BYTES: u64 = 128 << 10;

/// Reads one snapshot. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SnapshotReader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    access: Arc<dyn Access>,
    snapshot: Snapshot,
    infos: RwLock<HashMap<SessionName, SessionKeyInfo>>,
    ciphers: RwLock<HashMap<SessionName, Arc<SessionCiphers>>>,
    /// By id: a snapshot may name one place as two pages, and only one of them is there.
    pages: Mutex<ByteCache<ChunkId, Arc<Page>>>,
    frames: Mutex<ByteCache<(PackId, u32), Bytes>>,
}

/// The keys of one session, opened when first needed: a writer's keys open trees but no data.
#[derive(Debug)]
struct SessionCiphers {
    info: SessionKeyInfo,
    data: OnceLock<Arc<Cipher>>,
    metadata: OnceLock<Arc<Cipher>>,
}

impl SnapshotReader {
    /// Reads a snapshot of a repository.
    pub fn new(repository: Repository, snapshot: Snapshot) -> Self {
        Self::with_access(Arc::new(RepositoryAccess::new(repository)), snapshot)
    }

    /// Reads a visible snapshot of a repository, by its name.
    pub async fn of(repository: &Repository, session: SessionName) -> Result<Self> {
        Ok(Self::new(repository.clone(), repository.snapshot(session).await?))
    }

    /// Reads `snapshot` from the repository behind `access`.
    pub fn with_access(access: Arc<dyn Access>, snapshot: Snapshot) -> Self {
        let infos = snapshot.sessions.iter().map(|info| (info.session, info.clone())).collect();
        let inner = Inner {
            access,
            snapshot,
            infos: RwLock::new(infos),
            ciphers: RwLock::default(),
            pages: Mutex::new(ByteCache::new(PAGE_CACHE_BYTES)),
            frames: Mutex::new(ByteCache::new(FRAME_CACHE_BYTES)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The snapshot that is read.
    pub fn snapshot(&self) -> &Snapshot {
        &self.inner.snapshot
    }

    /// The keys of the repository.
    pub fn keys(&self) -> &Keys {
        self.inner.access.keys()
    }

    /// Where the packs come from.
    pub fn access(&self) -> &Arc<dyn Access> {
        &self.inner.access
    }

    /// The cipher that opens frames of this kind of a session.
    pub fn cipher(&self, session: SessionName, kind: FrameKind) -> Result<Arc<Cipher>> {
        let known = self.inner.ciphers.read().unwrap_or_else(PoisonError::into_inner).get(&session).cloned();
        let ciphers = match known {
            Some(ciphers) => ciphers,
            None => self.session_ciphers(session)?,
        };
        ciphers.get(self.keys(), kind)
    }

    fn session_ciphers(&self, session: SessionName) -> Result<Arc<SessionCiphers>> {
        let infos = self.inner.infos.read().unwrap_or_else(PoisonError::into_inner);
        let info = infos.get(&session).ok_or_else(|| {
            Error::corrupt(format!(
                "snapshot {} refers to session {session}, whose key it does not carry",
                self.inner.snapshot.session
            ))
        })?;
        let fresh =
            Arc::new(SessionCiphers { info: info.clone(), data: OnceLock::new(), metadata: OnceLock::new() });
        let mut ciphers = self.inner.ciphers.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(ciphers.entry(session).or_insert(fresh)))
    }

    /// The stored bytes of one frame, found through relocations if its pack is gone (rules Restore and R2).
    pub async fn stored_frame(&self, place: &FramePlace) -> Result<Bytes> {
        let access = &self.inner.access;
        match access.read_pack(place.pack, range(place, place.offset)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // What is too short may lie under the name of a pack that was moved and is gone.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let Some((pack, offset)) = self.moved(place).await? else { return Err(error) };
                return match access.read_pack(pack, range(place, offset)).await {
                    Err(other) if is_missing_or_spoiled(&other) => Err(error),
                    other => other,
                };
            }
            other => return other,
        }
        // RESTORE: on 404 the relocations; on another 404 visibility and relocations once more.
        for again in [false, true] {
            if again && !access.is_visible(self.inner.snapshot.session).await? {
                return Err(Error::not_found(format!(
                    "snapshot {} was forgotten while it was read",
                    self.inner.snapshot.session
                ))
                .with_hint("choose another snapshot"));
            }
            let Some((pack, offset)) = access.resolve(place.pack, place.offset, again).await? else {
                continue;
            };
            match access.read_pack(pack, range(place, offset)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Err(Error::corrupt(format!(
            "pack {} is missing, and nothing says where its frame at {} went",
            place.pack, place.offset
        ))
        .with_hint("run a full check: it names every file that this pack was part of"))
    }

    /// Where a frame went that is not where it should be. What is in doubt or damaged on the way there tells nothing; that the
    /// store does not answer is no damage.
    async fn moved(&self, place: &FramePlace) -> Result<Option<(PackId, u32)>> {
        match self.inner.access.resolve(place.pack, place.offset, false).await {
            Err(error)
                if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Denied | ErrorKind::Invalid) =>
            {
                Ok(None)
            }
            found => found,
        }
    }

    /// Opens stored bytes, or what another sending of the pack has in their place; the answer is the plain frame.
    async fn open(&self, kind: FrameKind, place: &FramePlace, stored: Bytes) -> Result<Vec<u8>> {
        match self.open_stored(kind, place, stored) {
            Err(error) if error.kind() == ErrorKind::Corrupt => self.open_elsewhere(kind, place, error).await,
            opened => opened,
        }
    }

    /// Opens a frame whose stored bytes were found to be spoiled, from whichever sending of its pack has them whole: all
    /// have equal bytes, but a name that a lost sending left free can be taken by others, and so can that of a pack that was
    /// moved and is gone. If none serves, what was found first is the error.
    pub(crate) async fn open_elsewhere(
        &self,
        kind: FrameKind,
        place: &FramePlace,
        spoiled: Error,
    ) -> Result<Vec<u8>> {
        let mut opened = self.open_any_sending(kind, place, key(place)).await;
        if opened.as_ref().is_err_and(is_missing_or_spoiled)
            && let Some(moved) = self.moved(place).await?
        {
            opened = self.open_any_sending(kind, place, moved).await;
        }
        match opened {
            Err(error) if is_missing_or_spoiled(&error) => Err(spoiled),
            opened => opened,
        }
    }

    /// `NotFound` if no sending has the frame, `Corrupt` if all that have it are spoiled.
    async fn open_any_sending(
        &self,
        kind: FrameKind,
        place: &FramePlace,
        (pack, offset): (PackId, u32),
    ) -> Result<Vec<u8>> {
        let mut failed = Error::not_found(format!("pack {pack} has arrived under none of its names"));
        for attempt in 0..limits::PACK_ATTEMPTS {
            let stored = self.inner.access.read_sending(pack, attempt, range(place, offset)).await;
            match stored.and_then(|stored| self.open_stored(kind, place, stored)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => failed = error,
                opened => return opened,
            }
        }
        Err(failed)
    }

    fn open_stored(&self, kind: FrameKind, place: &FramePlace, stored: Bytes) -> Result<Vec<u8>> {
        let cipher = self.cipher(place.session, kind)?;
        let mut opener = FrameOpener::default();
        let mut stored = frame::into_mutable(stored);
        opener.open(&cipher, kind, place, &mut stored).map(<[u8]>::to_vec)
    }

    /// A page of the tree or of a content.
    pub async fn page(&self, chunk: &ChunkRef) -> Result<Arc<Page>> {
        let place = *place_of(chunk)?;
        let known = self.inner.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&chunk.id);
        if let Some(page) = known {
            return Ok(page);
        }
        let stored = self.stored_frame(&place).await?;
        let page = Arc::new(self.decode_page(chunk, &place, stored).await?);
        let weight = place.plain as usize * PAGE_EXPANSION;
        let mut pages = self.inner.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(chunk.id, Arc::clone(&page), weight);
        Ok(page)
    }

    async fn decode_page(&self, chunk: &ChunkRef, place: &FramePlace, stored: Bytes) -> Result<Page> {
        let plain = self.open(FrameKind::Metadata, place, stored).await?;
        let page = piece(&plain, chunk.offset, chunk.length)?;
        if self.keys().chunk_id(page) != chunk.id {
            return Err(Error::corrupt(format!(
                "the page at {} of pack {} does not have the contents its id says",
                place.offset, place.pack
            )));
        }
        let (page, sessions) = Page::with_sessions(page)
            .map_err(|error| error.context(format!("page at {} of pack {}", place.offset, place.pack)))?;
        self.learn_keys(&page, &sessions).await?;
        Ok(page)
    }

    /// Learns the keys of sessions that a page refers to and the record does not carry. What cannot be learnt is an
    /// error of whoever needs it, but for a defect.
    async fn learn_keys(&self, page: &Page, sessions: &[SessionName]) -> Result<()> {
        let unknown = |session: &SessionName| {
            !self.inner.infos.read().unwrap_or_else(PoisonError::into_inner).contains_key(session)
        };
        if !sessions.iter().any(unknown) {
            return Ok(());
        }
        for place in page.named().into_iter().filter_map(|chunk| chunk.frame.place()) {
            if !unknown(&place.session) {
                continue;
            }
            match self.inner.access.keys_beside(place).await {
                Ok(found) => {
                    let mut infos = self.inner.infos.write().unwrap_or_else(PoisonError::into_inner);
                    for info in found {
                        infos.entry(info.session).or_insert(info);
                    }
                }
                Err(error) if error.is_of_the_run() => return Err(error),
                Err(error) => {
                    tracing::info!(%error, pack = %place.pack, "its keys cannot be learnt");
                    return Ok(());
                }
            }
            if unknown(&place.session) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Several pages in order, with one request for those that lie next to each other. Not kept.
    pub async fn pages(&self, chunks: &[ChunkRef]) -> Result<Vec<Page>> {
        let mut pages = Vec::with_capacity(chunks.len());
        let mut rest = chunks;
        while !rest.is_empty() {
            let count = adjacent(rest)?;
            let (run, after) = rest.split_at(count);
            self.page_run(run, &mut pages).await?;
            rest = after;
        }
        Ok(pages)
    }

    async fn page_run(&self, run: &[ChunkRef], pages: &mut Vec<Page>) -> Result<()> {
        let first = *place_of(&run[0])?;
        let last = place_of(&run[run.len() - 1])?;
        let start = u64::from(first.offset);
        let length = u64::from(last.offset) + u64::from(last.stored) - start;
        let stretch = ByteRange::Slice { offset: start, length };
        let whole = match self.inner.access.read_pack(first.pack, stretch).await {
            Ok(bytes) => Some(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => None,
            Err(error) => return Err(error),
        };
        for chunk in run {
            let place = place_of(chunk)?;
            let stored = match &whole {
                Some(bytes) => {
                    let from = (place.offset - first.offset) as usize;
                    bytes.slice(from..from + place.stored as usize)
                }
                None => self.stored_frame(place).await?,
            };
            pages.push(self.decode_page(chunk, place, stored).await?);
        }
        Ok(())
    }

    /// The bytes of one chunk, compared with its id.
    pub async fn chunk(&self, chunk: &ChunkRef) -> Result<Bytes> {
        let place = *place_of(chunk)?;
        let known = self.inner.frames.lock().unwrap_or_else(PoisonError::into_inner).get(&key(&place));
        let frame = match known {
            Some(frame) => frame,
            None => {
                let stored = self.stored_frame(&place).await?;
                let frame = Bytes::from(self.open(FrameKind::Data, &place, stored).await?);
                let mut frames = self.inner.frames.lock().unwrap_or_else(PoisonError::into_inner);
                frames.insert(key(&place), frame.clone(), frame.len());
                frame
            }
        };
        self.cut_out(&frame, &place, chunk)
    }

    /// A frame of data, from whichever sending of its pack has it whole. Opened where it holds nobody up.
    pub(crate) async fn open_data_frame(&self, place: &FramePlace) -> Result<Bytes> {
        let stored = self.stored_frame(place).await?;
        let (reader, at) = (self.clone(), *place);
        let opening = tokio::task::spawn_blocking(move || reader.open_stored(FrameKind::Data, &at, stored));
        let opened = opening
            .await
            .map_err(|error| Error::internal("opening a frame did not finish").with_source(error))?;
        let opened = match opened {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.open_elsewhere(FrameKind::Data, place, error).await
            }
            opened => opened,
        };
        opened.map(Bytes::from)
    }

    /// One chunk of an open frame, compared with its id.
    pub(crate) fn cut_out(&self, frame: &Bytes, place: &FramePlace, chunk: &ChunkRef) -> Result<Bytes> {
        let bytes = piece(frame, chunk.offset, chunk.length)?;
        if self.keys().chunk_id(bytes) != chunk.id {
            return Err(frame::wrong_id(place, chunk.offset));
        }
        Ok(frame.slice_ref(bytes))
    }
}

impl SessionCiphers {
    fn get(&self, keys: &Keys, kind: FrameKind) -> Result<Arc<Cipher>> {
        let slot = match kind {
            FrameKind::Data => &self.data,
            FrameKind::Metadata => &self.metadata,
        };
        if let Some(cipher) = slot.get() {
            return Ok(Arc::clone(cipher));
        }
        let SessionKeyInfo { session, generation, suite, sealed_data_key } = &self.info;
        let key = match kind {
            FrameKind::Data => keys.open_data_key(*generation, *session, sealed_data_key)?,
            FrameKind::Metadata => keys.session_metadata_key(*generation, *session)?,
        };
        Ok(Arc::clone(slot.get_or_init(|| Arc::new(Cipher::new(*suite, &key)))))
    }
}

/// How many of the chunks, from the first, one request fetches: same pack, ascending, little between them.
fn adjacent(chunks: &[ChunkRef]) -> Result<usize> {
    let first = place_of(&chunks[0])?;
    let mut end = u64::from(first.offset) + u64::from(first.stored);
    let mut count = 1;
    for chunk in &chunks[1..] {
        let place = place_of(chunk)?;
        let offset = u64::from(place.offset);
        let next = offset + u64::from(place.stored);
        let fits = place.pack == first.pack
            && offset >= end
            && offset - end <= PAGE_GAP_BYTES
            && next - u64::from(first.offset) <= PAGE_RUN_BYTES;
        if !fits {
            break;
        }
        (end, count) = (next, count + 1);
    }
    Ok(count)
}

fn key(place: &FramePlace) -> (PackId, u32) {
    (place.pack, place.offset)
}

/// The stored bytes of a frame, in a pack that has it at this offset.
fn range(place: &FramePlace, offset: u32) -> ByteRange {
    ByteRange::Slice { offset: u64::from(offset), length: place.stored.into() }
}

/// Where the frame of a chunk lies, checked against what a reader allocates for one.
pub(crate) fn place_of(chunk: &ChunkRef) -> Result<&FramePlace> {
    let place =
        chunk.frame.place().ok_or_else(|| Error::internal("a snapshot refers to a frame without a place"))?;
    let longest = limits::FRAME_LIMIT.max(limits::PAGE_LIMIT);
    if place.plain as usize > longest || place.stored as usize > longest + 4096 {
        return Err(Error::corrupt(format!(
            "the frame at {} of pack {} is longer than any frame",
            place.offset, place.pack
        )));
    }
    Ok(place)
}

/// A part of a plain frame.
pub(crate) fn piece(plain: &[u8], offset: u32, length: u32) -> Result<&[u8]> {
    let start = offset as usize;
    plain.get(start..start + length as usize).ok_or_else(|| {
        Error::corrupt(format!("a chunk at {offset} of {length} bytes lies outside its frame"))
    })
}

/// Whether what was asked for is not there or not whole, so that another place may have it.
fn is_missing_or_spoiled(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
}
