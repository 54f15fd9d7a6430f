use super::*;
use crate::{
    clock::World,
    format::{
        frame::Suite,
        pack::{Trailer, pack_object},
        records::Moved,
        session::SessionKind,
    },
    id::{LineageId, SessionNonce},
    pipeline::{frames::Framer, testing::Stage},
    reader::testing::noise,
    repo::{
        CreateOptions, Unlock,
        testing::{Fate, Meddled},
    },
    secret::Key,
    store::{Capabilities, ObjectStore, Page, Put, mem::MemStore, record::Operation},
};

fn moved(old: u8, new: u8) -> Moved {
    Moved { old_pack: PackId([old; 16]), old_offset: 1, new_pack: PackId([new; 16]), new_offset: 2 }
}

/// A repack that says so; its name.
async fn relocate(repository: &Repository, rows: &[Moved]) -> SessionName {
    let (kind, suite) = (SessionKind::Repack, Suite::ChaCha20Poly1305);
    let session = repository.begin(kind, LineageId::default(), suite).await.unwrap();
    session.commit_relocations(rows).await.unwrap();
    session.name()
}

#[tokio::test(flavor = "multi_thread")]
async fn relocations_are_read_once_and_anew_when_somebody_asks() {
    let stage = Stage::new().await;
    let access = RepositoryAccess::new(stage.repository.clone());
    let (first, second) = ((PackId([1; 16]), 1), (PackId([3; 16]), 1));
    let repack = relocate(&stage.repository, &[moved(1, 2)]).await;
    let ask = async |(pack, offset), again| access.resolve(pack, offset, again).await.unwrap();
    assert_eq!(ask(first, false).await, Some((PackId([2; 16]), 2)));
    assert_eq!(ask((first.0, 7), false).await, None);
    relocate(&stage.repository, &[moved(3, 4)]).await;
    assert_eq!(ask(second, false).await, None, "what was read is remembered");
    assert_eq!(ask(second, true).await, Some((PackId([4; 16]), 2)));
    assert_eq!(ask(second, false).await, Some((PackId([4; 16]), 2)), "and so is what was read then");

    assert!(access.is_visible(repack).await.unwrap());
    assert!(!access.is_visible(stage.shared.bridge.session().name()).await.unwrap(), "it has not ended");
    // One that cannot be read may be the one that knew the way.
    let object = repack.end_object();
    let mut bytes = stage.store.get(&object, ByteRange::All).await.unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    stage.store.tamper(&object, Some(bytes.into()));
    assert_eq!(access.resolve(first.0, 1, true).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(ask(second, false).await, Some((PackId([4; 16]), 2)), "what is known is known");
}

/// Has a session store a pack: where the frame in it is.
async fn stored(stage: &Stage, seed: u64) -> FramePlace {
    let slab = noise(seed, 10_000);
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    framer.chunk(&slab, 0, 10_000).unwrap();
    framer.flush(&slab).unwrap();
    stage.shared.packer.flush().unwrap();
    stage.shared.bridge.settle().unwrap();
    let own = stage.shared.bridge.session().name();
    stage.frames().await.into_iter().find(|frame| frame.place.session == own).unwrap().place
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_read_under_each_of_their_names_with_the_keys_beside() {
    let stage = Stage::new().await;
    let access = RepositoryAccess::new(stage.repository.clone());
    let place = stored(&stage, 1).await;
    let range = ByteRange::Slice { offset: 0, length: place.stored.into() };
    let bytes = access.read_pack(place.pack, range).await.unwrap();
    assert_eq!(bytes.len(), place.stored as usize);
    assert_eq!(access.read_sending(place.pack, 0, range).await.unwrap(), bytes);
    assert_eq!(access.read_sending(place.pack, 1, range).await.unwrap_err().kind(), ErrorKind::NotFound);
    let beside = access.keys_beside(&place).await.unwrap();
    assert_eq!(beside, [stage.shared.bridge.session().key_info().clone()]);

    // It was moved meanwhile: the keys lie beside it there.
    let here = Moved { new_pack: place.pack, new_offset: place.offset, ..moved(9, 0) };
    relocate(&stage.repository, &[here]).await;
    let before = FramePlace { pack: PackId([9; 16]), offset: 1, ..place };
    assert_eq!(access.keys_beside(&before).await.unwrap(), beside);
    let nowhere = FramePlace { pack: PackId([8; 16]), ..place };
    assert_eq!(access.keys_beside(&nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);

    // What somebody puts under the old name may claim keys that nobody holds, and a version that there is not.
    let session = SessionName { nonce: SessionNonce([9; 16]), ..place.session };
    let (footer_length, generation, suite) = (8, 7, Suite::Aes256Gcm);
    let trailer = Trailer { footer_length, counter: 0, generation, suite, session }.to_bytes();
    let mut newer = trailer;
    newer[56] = 2;
    for (trailer, kind) in [(trailer, ErrorKind::Denied), (newer, ErrorKind::Invalid)] {
        let squat = [&[0_u8; 8][..], &trailer[..]].concat();
        stage.store.tamper(&pack_object(before.pack, 0), Some(squat.into()));
        assert_eq!(stage.repository.footer(before.pack).await.unwrap_err().kind(), kind);
        assert_eq!(access.keys_beside(&before).await.unwrap(), beside);
    }
}

/// Every writer can seal a footer under the name of a pack that was moved.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_those_beside_what_was_moved_whatever_lies_under_the_old_name() {
    let stage = Stage::new().await;
    let (place, taken) = (stored(&stage, 1).await, stored(&stage.again().await, 2).await);
    let access = RepositoryAccess::new(stage.repository.clone());
    let beside = access.keys_beside(&place).await.unwrap();
    assert_ne!(access.keys_beside(&taken).await.unwrap(), beside);
    let (new_pack, new_offset) = (place.pack, place.offset);
    relocate(
        &stage.repository,
        &[Moved { old_pack: taken.pack, old_offset: taken.offset, new_pack, new_offset }],
    )
    .await;
    let access = RepositoryAccess::new(stage.repository.clone());
    assert_eq!(access.keys_beside(&taken).await.unwrap(), beside);
}

/// What cannot be read on the way to where a pack was moved tells nothing. A defect does, and a store that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn only_damage_is_passed_over_on_the_way_to_the_keys() {
    let stage = Stage::new().await;
    let place = stored(&stage, 1).await;
    let meddled = Arc::new(Meddled::new(Arc::clone(&stage.store)));
    let unlock = Unlock::Secret(Key::new([5; 32]));
    let repository = Repository::open(meddled.clone(), World::system(), &unlock).await.unwrap();
    let access = RepositoryAccess::new(repository);
    for kind in [ErrorKind::Internal, ErrorKind::Cancelled, ErrorKind::Unavailable] {
        meddled.fail_lists("snapshots/", kind);
        assert_eq!(access.keys_beside(&place).await.unwrap_err().kind(), kind);
    }
    for fate in [Fate::Fails(ErrorKind::Corrupt), Fate::Fails(ErrorKind::Denied), Fate::IsBroken] {
        meddled.meddle(move |operation, name| match operation {
            Operation::List if name.starts_with("snapshots/") => fate,
            _ => Fate::Passes,
        });
        let beside = access.keys_beside(&place).await.unwrap();
        assert_eq!(beside, [stage.shared.bridge.session().key_info().clone()]);
    }
    // So it is with what lies under the old name of a pack that was moved.
    let here = Moved { new_pack: place.pack, new_offset: place.offset, ..moved(9, 0) };
    let before = FramePlace { pack: PackId([9; 16]), offset: 1, ..place };
    meddled.meddle(|_, _| Fate::Passes);
    assert_eq!(access.resolve(before.pack, 1, true).await.unwrap(), None);
    relocate(&stage.repository, &[here]).await;
    let old = pack_object(before.pack, 0);
    meddled.meddle(move |operation, name| match operation {
        Operation::Get(_) if name == old => Fate::IsBroken,
        _ => Fate::Passes,
    });
    assert_eq!(
        access.keys_beside(&before).await.unwrap(),
        [stage.shared.bridge.session().key_info().clone()]
    );
}

/// Objects in memory, as if they were far away.
#[derive(Debug)]
struct FarAway(MemStore);

#[async_trait]
impl ObjectStore for FarAway {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.0.put_if_absent(name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        self.0.get(name, range).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.0.list(prefix, token).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.0.delete(name).await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { local: false, preferred_parallel_puts: 8, preferred_parallel_gets: 12 }
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[tokio::test]
async fn a_store_says_how_it_is_read_best() {
    let here = RepositoryAccess::new(Stage::new().await.repository.clone());
    assert!(here.is_local() && here.parallel_reads() == 4);
    let (store, unlock) = (Arc::new(FarAway(MemStore::new())), Unlock::Secret(Key::new([5; 32])));
    let there = Repository::create(store, World::system(), &unlock, &CreateOptions::default()).await.unwrap();
    let there = RepositoryAccess::new(there);
    assert!(!there.is_local() && there.parallel_reads() == 12);
}
