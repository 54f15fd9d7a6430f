//! What the workers of a backup share, without a backup.

use std::sync::{Arc, RwLock, atomic::AtomicI32};

use tokio::runtime::Handle;

use super::{
    bridge::Bridge,
    frames::{Counts, Shared},
    known::KnownChunks,
    packer::Packer,
};
use crate::{
    clock::World,
    format::{
        frame::{ChunkRef, Compression, Frame, FramePlace, Suite},
        pack::{FooterFrame, parse_pack_object},
        session::{SessionKind, SessionName},
    },
    id::{ChunkId, LineageId, PackId, SessionNonce},
    limits,
    monitor::CollectMonitor,
    repo::{CreateOptions, Repository, Session, Unlock},
    secret::Key,
    store::{list_all, mem::MemStore},
};

/// A repository in memory, and a session that stores into it.
pub(crate) struct Stage {
    pub(crate) repository: Repository,
    pub(crate) store: Arc<MemStore>,
    pub(crate) shared: Arc<Shared>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let (store, unlock) = (Arc::new(MemStore::new()), Unlock::Secret(Key::new([5; 32])));
        let options = CreateOptions::default();
        let repository = Repository::create(store.clone(), World::system(), &unlock, &options).await.unwrap();
        Self::of(repository, store).await
    }

    /// Another session in the same repository, which knows of all chunks that the index has.
    pub(crate) async fn again(&self) -> Self {
        Self::of(self.repository.clone(), Arc::clone(&self.store)).await
    }

    async fn of(repository: Repository, store: Arc<MemStore>) -> Self {
        let bridge = Arc::new(bridge(session(&repository).await, 256 << 20));
        let shared = Shared {
            keys: repository.keys().clone(),
            known: KnownChunks::new(1 << 20),
            index: RwLock::new(repository.load_index(1000).await.unwrap().index),
            packer: Packer::new(Arc::clone(&bridge), limits::PACK_TARGET, 0),
            bridge,
            level: AtomicI32::new(0),
            adapts: false,
            counts: Counts::default(),
        };
        Self { repository, store, shared: Arc::new(shared) }
    }

    /// Lengths of all objects that hold packs, in the order of their names.
    pub(crate) async fn packs(&self) -> Vec<(PackId, u64)> {
        let listed = list_all(self.store.as_ref(), "packs/").await.unwrap();
        let pack = |name: &str| parse_pack_object(name).unwrap().0;
        listed.into_iter().map(|object| (pack(&object.name), object.size)).collect()
    }

    /// What the footers of all packs tell, in the order in which frames were sealed.
    pub(crate) async fn frames(&self) -> Vec<FooterFrame> {
        let mut frames = Vec::new();
        for (pack, _) in self.packs().await {
            frames.extend(self.repository.footer(pack).await.unwrap().footer.frames);
        }
        frames.sort_by_key(|frame| frame.place.counter);
        frames
    }
}

pub(crate) async fn session(repository: &Repository) -> Session {
    repository.begin(SessionKind::Backup, LineageId([1; 8]), Suite::Aes256Gcm).await.unwrap()
}

pub(crate) fn bridge(session: Session, limit_bytes: u64) -> Bridge {
    let monitor = Arc::new(CollectMonitor::default());
    Bridge::new(Handle::current(), Arc::new(session), monitor, limit_bytes)
}

/// A chunk that lies nowhere in particular; its id ends with this byte.
pub(crate) fn chunk_ending(last: u8, number: u32, length: u32) -> ChunkRef {
    let mut id = ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    id.0[31] = last;
    let session =
        SessionName { kind: SessionKind::Backup, lineage: LineageId([1; 8]), nonce: SessionNonce([2; 16]) };
    let place = FramePlace {
        session,
        pack: PackId([3; 16]),
        offset: 0,
        stored: 4,
        plain: length,
        compression: Compression::Stored,
        counter: 5,
        id,
    };
    ChunkRef { id, offset: 0, length, frame: Frame::settled(place) }
}
