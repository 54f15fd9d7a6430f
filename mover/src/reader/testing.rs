//! A small writer of packs and trees for tests of the reading side: the real codec and format, packs in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{SnapshotReader, access::Access};
use crate::{
    clock::World,
    codec::{self, Cipher},
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace, Suite},
        metadata::{FileTime, Kind, Metadata},
        page::{Child, PageWriter},
        records::{PageRef, Snapshot},
        session::{SessionKeyInfo, SessionKind, SessionName},
    },
    id::{LineageId, PackId, RepositoryId, SessionNonce},
    keys::Keys,
    repo,
    secret::Key,
    store::ByteRange,
};

/// Packs in memory.
#[derive(Debug)]
pub(crate) struct Packs {
    keys: Keys,
    /// First sendings.
    pub(crate) packs: Mutex<HashMap<PackId, Bytes>>,
    /// Sendings after the first.
    pub(crate) sent_again: Mutex<HashMap<(PackId, u8), Bytes>>,
    pub(crate) moved: Mutex<HashMap<(PackId, u32), (PackId, u32)>>,
    /// What is known only to those who read the relocations anew.
    pub(crate) moved_meanwhile: Mutex<HashMap<(PackId, u32), (PackId, u32)>>,
    /// Whether the snapshot was forgotten.
    pub(crate) forgotten: AtomicBool,
    pub(crate) reads: AtomicU64,
    /// What whoever is asked where a frame went has to say instead of an answer.
    pub(crate) doubt: Mutex<Option<ErrorKind>>,
    /// Sendings that the store does not answer for.
    pub(crate) silent: Mutex<HashSet<(PackId, u8)>>,
    /// Whether it does not answer the next read, whatever it is for.
    pub(crate) silent_once: AtomicBool,
}

#[async_trait]
impl Access for Packs {
    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn is_local(&self) -> bool {
        true
    }

    fn parallel_reads(&self) -> usize {
        4
    }

    async fn read_pack(&self, pack: PackId, range: ByteRange) -> Result<Bytes> {
        self.read_sending(pack, 0, range).await
    }

    async fn read_sending(&self, pack: PackId, attempt: u8, range: ByteRange) -> Result<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let is_silent = self.silent.lock().unwrap().contains(&(pack, attempt));
        if is_silent || self.silent_once.swap(false, Ordering::Relaxed) {
            return Err(Error::unavailable("nobody answers"));
        }
        let bytes = match attempt {
            0 => self.packs.lock().unwrap().get(&pack).cloned(),
            _ => self.sent_again.lock().unwrap().get(&(pack, attempt)).cloned(),
        };
        let bytes = bytes.ok_or_else(|| Error::not_found(format!("pack {pack} is not there")))?;
        let ByteRange::Slice { offset, length } = range else { return Ok(bytes) };
        let part = bytes.get(offset as usize..(offset + length) as usize);
        // A copy, as a store would give.
        part.map(Bytes::copy_from_slice).ok_or_else(|| Error::corrupt(format!("pack {pack} is shorter")))
    }

    async fn resolve(&self, pack: PackId, offset: u32, again: bool) -> Result<Option<(PackId, u32)>> {
        if let Some(kind) = *self.doubt.lock().unwrap() {
            return Err(Error::new(kind, "nobody knows where it is"));
        }
        let meanwhile = self.moved_meanwhile.lock().unwrap().get(&(pack, offset)).copied();
        Ok(meanwhile.filter(|_| again).or(self.moved.lock().unwrap().get(&(pack, offset)).copied()))
    }

    async fn is_visible(&self, _session: SessionName) -> Result<bool> {
        Ok(!self.forgotten.load(Ordering::Relaxed))
    }

    async fn keys_beside(&self, _place: &FramePlace) -> Result<Vec<SessionKeyInfo>> {
        Ok(Vec::new())
    }
}

/// Writes one session's packs.
pub(crate) struct Writer {
    pub(crate) packs: Arc<Packs>,
    world: World,
    info: SessionKeyInfo,
    data: Cipher,
    metadata: Cipher,
    counters: [u64; 2],
    pack: PackId,
    body: Vec<u8>,
    pub(crate) pack_limit: usize,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let world = World::system();
        let keys = Keys::from_roots(RepositoryId([7; 16]), &[Key::new([9; 32])]).unwrap();
        let session = SessionName {
            kind: SessionKind::Backup,
            lineage: LineageId([1; 8]),
            nonce: SessionNonce(world.random()),
        };
        let suite = Suite::Aes256Gcm;
        let key = Key::new(world.random());
        let sealed_data_key = keys.seal_data_key(0, session, &key, &world).unwrap();
        let metadata = Cipher::new(suite, &keys.session_metadata_key(0, session).unwrap());
        let packs = Packs {
            keys,
            packs: Mutex::default(),
            sent_again: Mutex::default(),
            moved: Mutex::default(),
            moved_meanwhile: Mutex::default(),
            forgotten: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            doubt: Mutex::default(),
            silent: Mutex::default(),
            silent_once: AtomicBool::new(false),
        };
        Self {
            packs: Arc::new(packs),
            info: SessionKeyInfo { session, generation: 0, suite, sealed_data_key },
            data: Cipher::new(suite, &key),
            metadata,
            counters: [0; 2],
            pack: PackId(world.random()),
            body: Vec::new(),
            pack_limit: 1 << 20,
            world,
        }
    }

    /// Seals chunks as one frame.
    pub(crate) fn frame(
        &mut self,
        kind: FrameKind,
        chunks: &[&[u8]],
        compression: Compression,
    ) -> Vec<ChunkRef> {
        let keys = self.packs.keys.clone();
        let ids: Vec<_> = chunks.iter().map(|chunk| (keys.chunk_id(chunk), chunk.len() as u32)).collect();
        let plain = chunks.concat();
        let mut buffer = match compression {
            Compression::Stored => plain.clone(),
            Compression::Zstd => codec::compress(&plain, 1).unwrap(),
        };
        let counter = &mut self.counters[usize::from(kind.code())];
        *counter += 1;
        let mut place = FramePlace {
            session: self.info.session,
            pack: self.pack,
            offset: self.body.len() as u32,
            stored: 0,
            plain: plain.len() as u32,
            compression,
            counter: *counter,
            id: codec::frame_id(&keys, &ids),
        };
        let cipher = if kind == FrameKind::Data { &self.data } else { &self.metadata };
        cipher.seal(kind.into(), *counter, &codec::frame_aad(kind, &place), &mut buffer, 0).unwrap();
        place.stored = buffer.len() as u32;
        self.body.extend_from_slice(&buffer);
        let frame = Frame::settled(place);
        let mut offset = 0;
        let refs = ids.into_iter().map(|(id, length)| {
            let chunk = ChunkRef { id, offset, length, frame: frame.clone() };
            offset += length;
            chunk
        });
        let refs = refs.collect();
        if self.body.len() >= self.pack_limit {
            self.close_pack();
        }
        refs
    }

    fn close_pack(&mut self) {
        let body = Bytes::from(std::mem::take(&mut self.body));
        self.packs.packs.lock().unwrap().insert(self.pack, body);
        self.pack = PackId(self.world.random());
    }

    pub(crate) fn page(&mut self, writer: &PageWriter) -> ChunkRef {
        let bytes = writer.to_bytes().unwrap();
        self.frame(FrameKind::Metadata, &[&bytes], Compression::Zstd).remove(0)
    }

    /// Puts runs into pages of their own, `per_page` each.
    pub(crate) fn paged(&mut self, runs: &[Run], per_page: usize) -> Content {
        let mut pages = Vec::new();
        for piece in runs.chunks(per_page) {
            let mut writer = PageWriter::runs();
            piece.iter().for_each(|run| writer.push_run(run).unwrap());
            pages.push((self.page(&writer), piece.iter().map(Run::length).sum()));
        }
        let mut inner = PageWriter::runs_inner();
        pages.iter().for_each(|(page, bytes)| inner.push_runs_page(page, *bytes).unwrap());
        let bytes = pages.iter().map(|(_, bytes)| bytes).sum();
        Content::Paged { depth: 2, pages: vec![(self.page(&inner), bytes)] }
    }

    /// A page of this run again and again, below pages of that page again and again; and the bytes that it stands for.
    pub(crate) fn tower(&mut self, run: &Run, wide: u64, levels: u8) -> (ChunkRef, u64) {
        let mut page = PageWriter::runs();
        (0..wide).for_each(|_| page.push_run(run).unwrap());
        let (mut below, mut bytes) = (self.page(&page), wide * run.length());
        for _ in 1..levels {
            let mut page = PageWriter::runs_inner();
            (0..wide).for_each(|_| page.push_runs_page(&below, bytes).unwrap());
            (below, bytes) = (self.page(&page), wide * bytes);
        }
        (below, bytes)
    }

    /// Writes a tree of leaves of `per_page` entries and says how to read it.
    pub(crate) fn finish(mut self, mut entries: Vec<Entry>, per_page: usize) -> SnapshotReader {
        use crate::format::order::compare_paths;
        entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
        let mut level: Vec<Child> = Vec::new();
        for piece in entries.chunks(per_page) {
            let mut writer = PageWriter::leaf();
            piece.iter().for_each(|entry| writer.push_entry(entry).unwrap());
            let (first, last) = (piece[0].path.clone(), piece[piece.len() - 1].path.clone());
            let page = self.page(&writer);
            level.push(Child { first, last, entries: piece.len() as u64, bytes: 0, page });
        }
        let mut depth = 1;
        while level.len() > 1 {
            let mut next = Vec::new();
            for piece in level.chunks(per_page) {
                let mut writer = PageWriter::inner();
                piece.iter().for_each(|child| writer.push_child(child).unwrap());
                let (first, last) = (piece[0].first.clone(), piece[piece.len() - 1].last.clone());
                let entries = piece.iter().map(|child| child.entries).sum();
                next.push(Child { first, last, entries, bytes: 0, page: self.page(&writer) });
            }
            (level, depth) = (next, depth + 1);
        }
        self.close_pack();
        let root = level.first().map(|child| PageRef::from_chunk(&child.page).unwrap());
        let snapshot = self.snapshot(root, depth);
        SnapshotReader::with_access(self.packs, snapshot)
    }

    fn snapshot(&self, root: Option<PageRef>, depth: u8) -> Snapshot {
        let snapshot = repo::testing::snapshot(self.info.session, self.world.clock.now());
        Snapshot { root, depth, sessions: vec![self.info.clone()], ..snapshot }
    }
}

/// An entry as root would see it, at a fixed time.
pub(crate) fn entry(path: &str, kind: Kind, content: Content, size: u64) -> Entry {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let mode = if kind == Kind::Directory { 0o755 } else { 0o640 };
    let mtime = FileTime { seconds: 1_700_000_000, nanoseconds: 123_456_789 };
    let metadata = Metadata { mode, uid, gid, mtime, links: 1, size, ..Metadata::default() };
    Entry { path: path.as_bytes().to_vec(), kind, metadata, content }
}

/// Bytes that do not repeat, from a seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
