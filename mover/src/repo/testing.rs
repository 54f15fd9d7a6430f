//! What tests of the repository begin with.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::{Checkpoint, CreateOptions, Repository, Session, Unlock};
use crate::{
    clock::{World, testing::Asleep},
    error::{Error, ErrorKind, Result},
    format::{
        frame::Suite,
        pack::PackSending,
        records::{self, Condemned, Fenced, Moved, PageRef, RecordKind, Snapshot, SourceKind, Statistics},
        session::{SessionKeyInfo, SessionKind, SessionName, SessionObject},
    },
    id::{LineageId, PackId, RandomId, SessionNonce},
    keys::{SEALED_KEY_LENGTH, SigningKey},
    pipeline::{
        frames::Framer,
        testing::{Stage, chunk_ending},
    },
    reader::testing::noise,
    secret::Key,
    store::{ByteRange, Decorator, ObjectStore, Page, Put, mem::MemStore, record::Operation},
};

/// What opens the repositories of tests.
pub(crate) fn unlock() -> Unlock {
    Unlock::Secret(Key::new([5; 32]))
}

/// An empty repository in this store.
pub(crate) async fn create(store: Arc<dyn ObjectStore>) -> Repository {
    Repository::create(store, World::system(), &unlock(), &CreateOptions::default()).await.unwrap()
}

/// The same in a world where time passes in sleep only.
pub(crate) async fn create_asleep(store: Arc<dyn ObjectStore>) -> (Repository, Arc<Asleep>) {
    let clock = Arc::new(Asleep::default());
    let world = World { clock: clock.clone(), ..World::system() };
    let created = Repository::create(store, world, &unlock(), &CreateOptions::default()).await;
    (created.unwrap(), clock)
}

/// Opens it once more: the keys that there are now are known to this handle.
pub(crate) async fn open(store: Arc<dyn ObjectStore>) -> Result<Repository> {
    Repository::open(store, World::system(), &unlock()).await
}

/// The same with the keys of a mover.
pub(crate) async fn open_as_mover(repository: &Repository, lineage: LineageId) -> Repository {
    let bundle = repository.keys().writer_bundle(repository.format().repository, lineage).unwrap();
    let unlock = Unlock::Bundle(Box::new(bundle));
    Repository::open(Arc::clone(repository.store()), World::system(), &unlock).await.unwrap()
}

/// Adds a key: whoever has opened the repository before does not know of it.
pub(crate) async fn add_key(repository: &Repository) {
    let new = Unlock::Secret(Key::new([6; 32]));
    repository.add_key(&unlock(), &new, &CreateOptions::default()).await.unwrap();
}

/// The name of a session that was never begun.
pub(crate) fn name(kind: SessionKind, number: u8) -> SessionName {
    SessionName { kind, lineage: LineageId([1; 8]), nonce: SessionNonce([number; 16]) }
}

/// A session for backups of what [`snapshot`] is of.
pub(crate) async fn begin(repository: &Repository) -> Session {
    let lineage = repository.lineage("host", &[b"/data".to_vec()]);
    repository.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await.unwrap()
}

/// A snapshot that is in view.
pub(crate) async fn commit(repository: &Repository) -> SessionName {
    let session = begin(repository).await;
    session.commit(&snapshot(session.name(), Timestamp::UNIX_EPOCH)).await.unwrap();
    session.name()
}

/// A repack that is in view.
pub(crate) async fn repack(repository: &Repository, moved: &[Moved]) -> SessionName {
    let (lineage, suite) = (LineageId::default(), Suite::ChaCha20Poly1305);
    let session = repository.begin(SessionKind::Repack, lineage, suite).await.unwrap();
    session.commit_relocations(moved).await.unwrap();
    session.name()
}

/// A frame that was moved from one pack to another.
pub(crate) fn moved(old: u8, new: u8) -> Moved {
    Moved { old_pack: PackId([old; 16]), old_offset: 1, new_pack: PackId([new; 16]), new_offset: 1 }
}

/// Puts what the maintenance key has signed, whatever is there.
pub(crate) fn put_signed<T: Serialize>(
    repository: &Repository,
    store: &MemStore,
    name: &str,
    kind: RecordKind,
    value: &T,
) {
    let body = repository.seal_signed(name, kind, value).unwrap();
    store.tamper(name, Some(body.into()));
}

/// Puts a fence where the end of a session belongs: of that one, or of another.
pub(crate) fn put_fence(repository: &Repository, store: &MemStore, at: SessionName, fenced: &Fenced) {
    put_signed(repository, store, &at.end_object(), RecordKind::Fenced, fenced);
}

/// A fence that nobody's clean-up has put there.
pub(crate) fn fenced(session: SessionName) -> Fenced {
    let (created, reason) = (Timestamp::UNIX_EPOCH, "it was overdue".to_owned());
    Fenced { session, created, reason, cleaned_up: false }
}

/// A list of what is to go, as a collector leaves it for all to see; gives its name.
pub(crate) fn condemn(
    repository: &Repository,
    store: &MemStore,
    packs: &[PackId],
    relocations: &[SessionName],
) -> String {
    let collection = RandomId([3; 16]);
    let (name, created) = (format!("gc/{collection}.condemned"), Timestamp::UNIX_EPOCH);
    let packs = packs.iter().map(|pack| PackSending { pack: *pack, attempt: 0 }).collect();
    let list = Condemned { collection, created, packs, relocations: relocations.to_vec() };
    put_signed(repository, store, &name, RecordKind::Condemned, &list);
    name
}

/// Puts the object of a session whose signature is in the hands of the test.
pub(crate) fn put_session(store: &MemStore, session: SessionName, signing: &SigningKey, started: Timestamp) {
    let (suite, sealed_data_key) = (Suite::Aes256Gcm, vec![0; SEALED_KEY_LENGTH]);
    let key = SessionKeyInfo { session, generation: 0, suite, sealed_data_key };
    let object = SessionObject { version: 1, key, signing_public: signing.public(), started };
    let body = records::encode_record(RecordKind::Session, &records::to_json(&object).unwrap());
    store.tamper(&session.session_object(), Some(body.into()));
}

/// A checkpoint of a tree that is nowhere.
pub(crate) fn checkpoint(written: i64) -> Checkpoint {
    Checkpoint {
        source: SourceKind::Files,
        root: PageRef::from_chunk(&chunk_ending(1, 1, 10)).unwrap(),
        depth: 1,
        sessions: Vec::new(),
        started: Timestamp::UNIX_EPOCH,
        written: Timestamp::from_second(written).unwrap(),
        bytes: 0,
        unfinished: None,
        image: None,
        copied_from: None,
    }
}

/// So many packs of one chunk each. Needs a runtime of several threads.
pub(crate) async fn packs_of_one(stage: &Stage, count: usize) -> Vec<PackId> {
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    let slab = noise(1, count * 10_000);
    for start in (0..slab.len()).step_by(10_000) {
        framer.chunk(&slab, start, start + 10_000).unwrap();
        framer.flush(&slab).unwrap();
        stage.shared.packer.flush().unwrap();
    }
    stage.shared.bridge.settle().unwrap();
    let packs: Vec<PackId> = stage.packs().await.into_iter().map(|(pack, _)| pack).collect();
    assert_eq!(packs.len(), count);
    packs
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is as it should be.
    Passes,
    /// It fails, and has no effect.
    Fails(ErrorKind),
    /// The disk cannot read what it holds.
    IsBroken,
    /// It has its effect, and the answer is lost.
    IsUnclear,
    /// It is never answered.
    Hangs,
}

type Meddle = Box<dyn FnMut(Operation, &str) -> Fate + Send>;

/// A store that somebody meddles with: he hears of each call before it is made, and says what becomes of it.
pub(crate) struct Meddled {
    inner: Arc<MemStore>,
    meddle: Mutex<Meddle>,
    gets: AtomicUsize,
    most_gets: AtomicUsize,
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddled").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Meddled {
    pub(crate) fn new(inner: Arc<MemStore>) -> Self {
        let meddle: Meddle = Box::new(|_: Operation, _: &str| Fate::Passes);
        let (gets, most_gets) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { inner, meddle: Mutex::new(meddle), gets, most_gets }
    }

    /// Whom to ask from now on.
    pub(crate) fn meddle(&self, meddle: impl FnMut(Operation, &str) -> Fate + Send + 'static) {
        *self.meddle.lock().unwrap() = Box::new(meddle);
    }

    /// From now on gets fail of names that begin so, and nothing else.
    pub(crate) fn fail_gets(&self, prefix: &'static str, kind: ErrorKind) {
        self.meddle(move |operation, name| match operation {
            Operation::Get(_) if name.starts_with(prefix) => Fate::Fails(kind),
            _ => Fate::Passes,
        });
    }

    /// The same of listings.
    pub(crate) fn fail_lists(&self, prefix: &'static str, kind: ErrorKind) {
        self.meddle(move |operation, name| match operation {
            Operation::List if name.starts_with(prefix) => Fate::Fails(kind),
            _ => Fate::Passes,
        });
    }

    /// The same of puts.
    pub(crate) fn fail_puts(&self, prefix: &'static str, kind: ErrorKind) {
        self.meddle(move |operation, name| match operation {
            Operation::Put if name.starts_with(prefix) => Fate::Fails(kind),
            _ => Fate::Passes,
        });
    }

    /// How many gets were under way at once at most, since this was asked.
    pub(crate) fn take_most_gets(&self) -> usize {
        self.most_gets.swap(0, Ordering::SeqCst)
    }

    async fn call<T>(
        &self,
        operation: Operation,
        name: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let fate = {
            let mut meddle = self.meddle.lock().unwrap();
            (*meddle)(operation, name)
        };
        match fate {
            Fate::Passes => call.await,
            Fate::Fails(kind) => Err(Error::new(kind, format!("{name}: somebody meddles"))),
            Fate::IsBroken => {
                let errno = rustix::io::Errno::IO.raw_os_error();
                Err(Error::io(std::io::Error::from_raw_os_error(errno), format!("cannot read {name}")))
            }
            Fate::IsUnclear => {
                call.await?;
                Err(Error::unavailable(format!("{name}: the answer is lost")))
            }
            Fate::Hangs => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Decorator for Meddled {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.call(Operation::Put, name, self.inner.put_if_absent(name, body)).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let gets = self.gets.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_gets.fetch_max(gets, Ordering::SeqCst);
        // Whoever else is ready comes to his own before this one goes on.
        tokio::task::yield_now().await;
        self.gets.fetch_sub(1, Ordering::SeqCst);
        self.call(Operation::Get(range), name, self.inner.get(name, range)).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.call(Operation::List, prefix, self.inner.list(prefix, token)).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.call(Operation::Delete, name, self.inner.delete(name)).await
    }
}

/// A snapshot of nothing.
pub(crate) fn snapshot(session: SessionName, started: Timestamp) -> Snapshot {
    Snapshot {
        version: 1,
        session,
        source: SourceKind::Files,
        host: "host".to_owned(),
        user: String::new(),
        paths: vec!["/data".to_owned()],
        tags: Vec::new(),
        started,
        finished: started,
        parent: None,
        grid: 0,
        change_id: None,
        root: None,
        depth: 0,
        sessions: Vec::new(),
        statistics: Statistics::default(),
        problems: Vec::new(),
        program: String::new(),
        copied_from: None,
    }
}
