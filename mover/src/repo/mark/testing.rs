//! Repositories with trees made page by page, for tests of what is needed and what goes.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::Watch;
use crate::{
    cancel::Cancel,
    clock::{World, testing::Asleep},
    codec::{self, Domain},
    format::{
        entry::Run,
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace},
        pack::pack_object,
        page::PageWriter,
        records::{self, PageRef, RecordKind, Snapshot},
        session::{SessionKeyInfo, SessionName, SessionObject},
    },
    id::PackId,
    monitor::CollectMonitor,
    pipeline::testing::chunk_ending,
    repo::{
        Repository, Session,
        testing::{self, Fate, Meddled},
    },
    store::{ByteRange, ObjectStore, list_all, mem::MemStore, record::Operation},
};

/// A repository whose clock says 1970, and goes in sleep only.
pub(in crate::repo) struct Stage {
    pub(in crate::repo) store: Arc<MemStore>,
    pub(in crate::repo) clock: Arc<Asleep>,
    pub(in crate::repo) repository: Repository,
}

impl Stage {
    pub(in crate::repo) async fn new() -> Self {
        let store = Arc::new(MemStore::new());
        let (repository, clock) = testing::create_asleep(store.clone()).await;
        Self { store, clock, repository }
    }

    /// The same as it is now, to go on in another way.
    pub(in crate::repo) async fn fork(&self) -> Self {
        let (store, clock) = (Arc::new(self.store.fork()), Arc::new(Asleep::default()));
        let repository = open(store.clone(), &clock).await;
        Self { store, clock, repository }
    }

    /// The same repository as it is seen through another store.
    pub(in crate::repo) async fn through(&self, store: Arc<dyn ObjectStore>) -> Repository {
        open(store, &self.clock).await
    }

    /// The same, with somebody who meddles with the calls.
    pub(in crate::repo) async fn meddled(
        &self,
        meddle: impl FnMut(Operation, &str) -> Fate + Send + 'static,
    ) -> Repository {
        let store = Arc::new(Meddled::new(self.store.clone()));
        let repository = self.through(store.clone()).await;
        store.meddle(meddle);
        repository
    }

    /// Has a session begun so many seconds after 1970.
    pub(in crate::repo) async fn set_started(&self, session: SessionName, seconds: i64) {
        let object = self.repository.session_object(session).await.unwrap().unwrap();
        let object = SessionObject { started: Timestamp::from_second(seconds).unwrap(), ..object };
        let body = records::encode_record(RecordKind::Session, &records::to_json(&object).unwrap());
        self.store.tamper(&session.session_object(), Some(body.into()));
    }

    /// A sending of a pack that no session has written that is there.
    pub(in crate::repo) fn put_pack(&self, number: u8, attempt: u8, bytes: usize) {
        self.store.tamper(&pack_object(PackId([number; 16]), attempt), Some(vec![0; bytes].into()));
    }

    pub(in crate::repo) async fn names(&self, prefix: &str) -> Vec<String> {
        list_all(self.store.as_ref(), prefix).await.unwrap().into_iter().map(|listed| listed.name).collect()
    }

    pub(in crate::repo) async fn body(&self, name: &str) -> Bytes {
        self.store.get(name, ByteRange::All).await.unwrap()
    }

    /// Spoils the last byte of an object.
    pub(in crate::repo) async fn flip(&self, name: &str) {
        let mut body = self.body(name).await.to_vec();
        *body.last_mut().unwrap() ^= 1;
        self.store.tamper(name, Some(body.into()));
    }
}

async fn open(store: Arc<dyn ObjectStore>, clock: &Arc<Asleep>) -> Repository {
    let world = World { clock: clock.clone(), ..World::system() };
    Repository::open(store, world, &testing::unlock()).await.unwrap()
}

/// Nobody who watches, but keeps what is told.
#[derive(Default)]
pub(in crate::repo) struct Watcher {
    pub(in crate::repo) monitor: CollectMonitor,
    pub(in crate::repo) cancel: Cancel,
}

impl Watcher {
    pub(in crate::repo) fn watch(&self) -> Watch<'_> {
        Watch { monitor: &self.monitor, cancel: &self.cancel }
    }
}

/// A chunk in a frame at this place. Who marks does not look at it.
pub(in crate::repo) fn chunk(pack: PackId, offset: u32) -> ChunkRef {
    let model = chunk_ending(1, 1, 100);
    let place = FramePlace { pack, offset, ..*model.frame.place().unwrap() };
    ChunkRef { frame: Frame::settled(place), ..model }
}

/// A page of chunks at these places, of 100 bytes each.
pub(in crate::repo) fn runs(places: &[(PackId, u32)]) -> PageWriter {
    let mut page = PageWriter::runs();
    for (pack, offset) in places {
        page.push_run(&Run::Chunk(chunk(*pack, *offset))).unwrap();
    }
    page
}

/// A backup that seals each page into the pack where it is wanted.
pub(in crate::repo) struct Tree {
    session: Session,
    packs: Vec<(PackId, Vec<u8>)>,
    /// Of the sessions that it refers to.
    pub(in crate::repo) keys: Vec<SessionKeyInfo>,
}

impl Tree {
    pub(in crate::repo) async fn begin(repository: &Repository) -> Self {
        let session = testing::begin(repository).await;
        let (packs, keys) = (vec![(session.new_pack(), Vec::new())], vec![session.key_info().clone()]);
        Self { session, packs, keys }
    }

    /// What comes next lies in another pack.
    pub(in crate::repo) fn next_pack(&mut self) {
        self.packs.push((self.session.new_pack(), Vec::new()));
    }

    /// Something lies before what comes next.
    pub(in crate::repo) fn gap(&mut self, bytes: usize) {
        self.packs.last_mut().unwrap().1.extend(vec![0; bytes]);
    }

    pub(in crate::repo) fn page(&mut self, page: &PageWriter) -> ChunkRef {
        let plain = page.to_bytes().unwrap();
        let id = self.session.repository().keys().chunk_id(&plain);
        let (pack, body) = self.packs.last_mut().unwrap();
        let (start, length) = (body.len(), plain.len() as u32);
        let mut place = FramePlace {
            session: self.session.name(),
            pack: *pack,
            offset: start as u32,
            stored: 0,
            plain: length,
            compression: Compression::Stored,
            counter: self.session.next_counter(Domain::Metadata),
            id,
        };
        body.extend_from_slice(&plain);
        let aad = codec::frame_aad(FrameKind::Metadata, &place);
        self.session.metadata_cipher().seal(Domain::Metadata, place.counter, &aad, body, start).unwrap();
        place.stored = (body.len() - start) as u32;
        ChunkRef { id, offset: 0, length, frame: Frame::settled(place) }
    }

    /// Commits a snapshot with this root.
    pub(in crate::repo) async fn commit(self, root: &ChunkRef) -> Snapshot {
        for (pack, body) in self.packs.into_iter().filter(|(_, body)| !body.is_empty()) {
            self.session.put_pack(pack, body.into()).await.unwrap();
        }
        let empty = testing::snapshot(self.session.name(), Timestamp::UNIX_EPOCH);
        let snapshot = Snapshot { root: PageRef::from_chunk(root), depth: 1, sessions: self.keys, ..empty };
        self.session.commit(&snapshot).await.unwrap();
        snapshot
    }
}

/// A backup whose tree is one page, which names these frames.
pub(in crate::repo) async fn backup(repository: &Repository, places: &[(PackId, u32)]) -> Snapshot {
    let mut tree = Tree::begin(repository).await;
    let root = tree.page(&runs(places));
    tree.commit(&root).await
}
