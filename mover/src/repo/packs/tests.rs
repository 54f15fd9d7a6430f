use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    clock::{Clock as _, World, testing::Asleep},
    format::{
        frame::{Compression, FrameKind, FramePlace, Suite},
        pack::FooterFrame,
        session::SessionKind,
    },
    id::{ChunkId, LineageId},
    repo::{
        CreateOptions, Session, Unlock,
        mark::testing::Stage,
        testing::{Fate, Meddled, begin},
    },
    secret::Key,
    store::{
        ObjectStore as _,
        faulty::{Faults, FaultyStore},
        mem::MemStore,
        record::Operation,
    },
};

async fn repository(store: &Arc<MemStore>) -> Repository {
    let unlock = Unlock::Secret(Key::new([5; 32]));
    Repository::create(store.clone(), World::system(), &unlock, &CreateOptions::default()).await.unwrap()
}

/// A pack without frames, as its writer closes it.
fn closed(session: &Session, pack: PackId) -> Vec<u8> {
    closed_with(session, pack, Vec::new())
}

/// A pack whose footer lists these frames, behind a thousand bytes that are none of them.
fn closed_with(session: &Session, pack: PackId, frames: Vec<FooterFrame>) -> Vec<u8> {
    let info = session.key_info();
    let footer = Footer { sessions: vec![info.clone()], frames };
    let counter = session.next_counter(Domain::Footer);
    let binding = codec::footer_aad(session.name(), pack);
    let plain = footer.to_bytes();
    let sealed =
        codec::seal_bound(session.index_cipher(), Domain::Footer, &binding, counter, &plain).unwrap();
    let trailer = Trailer {
        footer_length: sealed.len() as u32,
        counter,
        generation: info.generation,
        suite: info.suite,
        session: session.name(),
    };
    [&[0; 1000][..], &sealed, &trailer.to_bytes()].concat()
}

#[tokio::test]
async fn where_a_footer_is_spoiled_that_of_another_sending_serves() {
    let store = Arc::new(MemStore::new());
    let repository = repository(&store).await;
    let lineage = LineageId([1; 8]);
    let session = repository.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await.unwrap();
    let pack = session.new_pack();
    let whole = closed(&session, pack);
    let put = |attempt, bytes: &[u8]| {
        store.tamper(&pack_object(pack, attempt), Some(Bytes::copy_from_slice(bytes)));
    };
    let changed = |from_end: usize| {
        let mut bytes = whole.clone();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        bytes
    };
    // Rubbish, nothing, a footer, its counter, a generation of keys and a version of the format that never were.
    let (footer, counter, generation, version) = (changed(80), changed(60), changed(52), changed(7));
    for spoiled in [&b"rubbish"[..], b"", &footer, &counter, &generation, &version] {
        put(0, spoiled);
        put(2, &whole);
        assert_eq!(repository.footer(pack).await.unwrap().attempt, 2);
        let first = repository.footer_of_sending(pack, 0).await.unwrap_err();
        // None serves: the error is that of the first.
        put(2, &whole[..500]);
        let error = repository.footer(pack).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (first.kind(), first.to_string()));
    }
    store.tamper(&pack_object(pack, 0), None);
    assert!(repository.footer(pack).await.unwrap_err().to_string().contains(&pack_object(pack, 2)));

    // A mover without the keys of that generation cannot tell it from a pack that a newer one wrote.
    put(0, &generation);
    put(2, &whole);
    let bundle = repository.keys().writer_bundle(repository.format().repository, lineage).unwrap();
    let unlock = Unlock::Bundle(Box::new(bundle));
    let mover = Repository::open(store.clone(), World::system(), &unlock).await.unwrap();
    assert_eq!(mover.footer(pack).await.unwrap_err().kind(), ErrorKind::Denied);
    put(0, &footer);
    assert_eq!(mover.footer(pack).await.unwrap().attempt, 2);
}

#[tokio::test]
async fn sendings_that_are_damaged_in_different_places_serve_together() {
    let store = Arc::new(MemStore::new());
    let repository = repository(&store).await;
    let session = repository.begin(SessionKind::Backup, LineageId([1; 8]), Suite::Aes256Gcm).await.unwrap();
    let pack = session.new_pack();
    let whole = closed(&session, pack);
    let (mut first, mut second) = (whole.clone(), whole.clone());
    first[whole.len() - 80] ^= 1;
    second[10] ^= 1;
    store.tamper(&pack_object(pack, 0), Some(first.into()));
    store.tamper(&pack_object(pack, 1), Some(second.into()));
    assert_eq!(repository.footer(pack).await.unwrap().attempt, 1);
    let open = |bytes: Bytes| match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(bytes.len()),
        false => Err(Error::corrupt("not what was written")),
    };
    let range = ByteRange::Slice { offset: 0, length: 1000 };
    assert_eq!(repository.open_part(pack, range, open).await.unwrap(), 1000);
    // Where all are, the first one's error is told.
    store.tamper(&pack_object(pack, 0), Some(Bytes::from(vec![1; 2000])));
    let error = repository.open_part(pack, range, open).await.unwrap_err();
    assert_eq!(error.to_string(), Error::corrupt("not what was written").to_string());
}

#[tokio::test]
async fn a_name_that_is_unclear_or_taken_is_left_for_the_next() {
    let (store, clock) = (Arc::new(MemStore::new()), Arc::new(Asleep::default()));
    let world = World { clock: clock.clone(), ..World::system() };
    let faulty = Arc::new(FaultyStore::new(store.clone(), Faults::default()));
    let unlock = Unlock::Secret(Key::new([5; 32]));
    let created = Repository::create(faulty.clone(), world, &unlock, &CreateOptions::default()).await;
    let (repository, pack, body) = (created.unwrap(), PackId([7; 16]), Bytes::from_static(b"contents"));
    let there = |attempt| {
        let store = store.clone();
        async move { store.get(&pack_object(pack, attempt), ByteRange::All).await.ok() }
    };
    put_pack(&repository, pack, body.clone()).await.unwrap();
    assert_eq!((there(0).await, there(1).await), (Some(body.clone()), None));
    assert_eq!(clock.monotonic(), Duration::ZERO, "the first one waits for nothing");
    // It is taken now.
    store.tamper(&pack_object(pack, 0), Some("somebody else's".into()));
    put_pack(&repository, pack, body.clone()).await.unwrap();
    assert_eq!((there(1).await, clock.monotonic()), (Some(body.clone()), Duration::from_millis(200)));
    for attempt in 2..limits::PACK_ATTEMPTS {
        store.tamper(&pack_object(pack, attempt), Some("somebody else's".into()));
    }
    let error = put_pack(&repository, pack, body.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("in 8 attempts"), "{error}");

    // A lost reply is no reply, and each name is tried once.
    let fresh = PackId([8; 16]);
    faulty.set(Faults { lost_reply: 1.0, ..Faults::default() });
    let error = put_pack(&repository, fresh, body.clone()).await.unwrap_err();
    assert_eq!((error.kind(), faulty.injected()), (ErrorKind::Unavailable, u64::from(limits::PACK_ATTEMPTS)));
    faulty.set(Faults::default());
    assert_eq!(repository.read_pack(fresh, ByteRange::All).await.unwrap(), body);
    let last = repository.read_sending(fresh, limits::PACK_ATTEMPTS - 1, ByteRange::All).await;
    assert_eq!(last.unwrap(), body);
}

#[test]
fn the_wait_between_two_names_doubles_up_to_a_bound() {
    let waits: Vec<u128> = [1, 2, 3, 7, 8, 200].map(|attempt| backoff(attempt).as_millis()).into();
    assert_eq!(waits, [200, 400, 800, 12_800, 12_800, 12_800]);
}

#[tokio::test]
async fn a_pack_is_there_under_any_of_its_names_and_a_short_one_is_said_first() {
    let store = Arc::new(MemStore::new());
    let (repository, pack) = (repository(&store).await, PackId([7; 16]));
    let part = ByteRange::Slice { offset: 4, length: 4 };
    let error = repository.read_pack(pack, part).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&pack_object(pack, 0)), "{error}");
    assert!(!repository.has_pack(pack).await.unwrap());
    for attempt in [3, 5] {
        store.tamper(&pack_object(pack, attempt), Some("short".into()));
    }
    let error = repository.read_pack(pack, part).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&pack_object(pack, 3)), "{error}");
    assert!(repository.has_pack(pack).await.unwrap());
    store.tamper(&pack_object(pack, limits::PACK_ATTEMPTS - 1), Some("long enough".into()));
    assert_eq!(repository.read_pack(pack, part).await.unwrap(), " eno");
}

/// Whoever does not answer for one sending may have it, so no other one is asked for.
#[tokio::test]
async fn only_what_is_missing_or_spoiled_is_looked_for_elsewhere() {
    let stage = Stage::new().await;
    let session = begin(&stage.repository).await;
    let pack = session.new_pack();
    let whole = Bytes::from(closed(&session, pack));
    for attempt in [1, 2] {
        stage.store.tamper(&pack_object(pack, attempt), Some(whole.clone()));
    }
    let silent = async |attempt| {
        let name = pack_object(pack, attempt);
        let meddled = stage.meddled(move |_, object| match object == name {
            true => Fate::Fails(ErrorKind::Unavailable),
            false => Fate::Passes,
        });
        meddled.await
    };
    let range = ByteRange::Last(4);
    let repository = silent(0).await;
    assert_eq!(repository.read_pack(pack, range).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(repository.footer(pack).await.unwrap_err().kind(), ErrorKind::Unavailable);

    stage.store.tamper(&pack_object(pack, 0), Some(Bytes::from_static(b"rubbish")));
    let repository = silent(1).await;
    assert_eq!(repository.footer(pack).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let spoiled = |_: Bytes| Err::<(), _>(Error::corrupt("not what was written"));
    let error = repository.open_part(pack, range, spoiled).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let mut opened = 0;
    let denied = |_: Bytes| {
        opened += 1;
        Err::<(), _>(Error::denied("not with these keys"))
    };
    let error = stage.repository.open_part(pack, range, denied).await.unwrap_err();
    assert_eq!((error.kind(), opened), (ErrorKind::Denied, 1));
}

#[tokio::test]
async fn a_pack_that_is_refused_is_not_sent_again() {
    let (stage, sent) = (Stage::new().await, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&sent);
    let meddled = stage.meddled(move |operation, _| {
        counted.fetch_add(usize::from(operation == Operation::Put), Ordering::Relaxed);
        Fate::Fails(ErrorKind::Denied)
    });
    let body = Bytes::from_static(b"contents");
    let error = put_pack(&meddled.await, PackId([7; 16]), body).await.unwrap_err();
    assert_eq!((error.kind(), sent.load(Ordering::Relaxed)), (ErrorKind::Denied, 1));
    assert!(error.to_string().contains("could not be stored"), "{error}");
}

/// Where no pack was ever put, a store may have no place for any.
#[tokio::test]
async fn a_listing_that_fails_does_not_say_that_a_pack_is_missing() {
    let (stage, pack) = (Stage::new().await, PackId([7; 16]));
    for (kind, expected) in
        [(ErrorKind::NotFound, Ok(false)), (ErrorKind::Unavailable, Err(ErrorKind::Unavailable))]
    {
        let store = Arc::new(Meddled::new(stage.store.clone()));
        let repository = stage.through(store.clone()).await;
        store.fail_lists("packs/", kind);
        let found = repository.has_pack(pack).await;
        assert_eq!(found.map_err(|error| error.kind()), expected);
    }
}

#[tokio::test]
async fn a_footer_may_be_all_of_a_pack_or_longer_than_what_is_fetched_first() {
    let stage = Stage::new().await;
    let session = begin(&stage.repository).await;
    let pack = session.new_pack();
    let put = |bytes: &[u8]| {
        stage.store.tamper(&pack_object(pack, 0), Some(Bytes::copy_from_slice(bytes)));
    };
    let whole = closed(&session, pack);
    put(&whole[1000..]);
    let found = stage.repository.footer(pack).await.unwrap();
    assert_eq!((found.tail_bytes as usize, found.footer.frames.len()), (whole.len() - 1000, 0));

    let frame = |number: u32| FooterFrame {
        kind: FrameKind::Data,
        place: FramePlace {
            session: session.name(),
            pack,
            offset: number * 10,
            stored: 10,
            plain: 10,
            compression: Compression::Stored,
            counter: number.into(),
            id: ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes()),
        },
        chunks: Vec::new(),
    };
    let long = closed_with(&session, pack, (0..3000).map(frame).collect());
    put(&long);
    let found = stage.repository.footer(pack).await.unwrap();
    assert_eq!((found.tail_bytes as usize, found.footer.frames.len()), (long.len() - 1000, 3000));
    assert!(found.tail_bytes > limits::FOOTER_GUESS);

    let info = session.key_info();
    let (generation, suite) = (info.generation, info.suite);
    let trailer = Trailer { footer_length: 1 << 20, counter: 0, generation, suite, session: session.name() };
    for length in [1000, 70_000] {
        put(&[&vec![0; length][..], &trailer.to_bytes()].concat());
        let error = stage.repository.footer(pack).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("shorter than its own footer"), "{error}");
    }
}

fn repack(number: u8) -> SessionName {
    let nonce = crate::id::SessionNonce([number; 16]);
    SessionName { kind: SessionKind::Repack, lineage: LineageId::default(), nonce }
}

fn moved(old: u8, new: u8) -> Moved {
    Moved { old_pack: PackId([old; 16]), old_offset: 1, new_pack: PackId([new; 16]), new_offset: 1 }
}

#[test]
fn of_several_relocations_the_lowest_counts_and_chains_are_followed() {
    let at = |pack: u8| (PackId([pack; 16]), 1);
    for order in [[1, 2], [2, 1]] {
        let mut relocations = Relocations::default();
        assert!(relocations.is_empty());
        for number in order {
            relocations.add(repack(number), &[moved(10, 20 + number), moved(30 + number, 40)]);
        }
        relocations.add(repack(9), &[moved(21, 50), moved(50, 51)]);
        assert!(!relocations.is_empty() && relocations.len() == 5 && relocations.sessions().len() == 3);
        let mut through = Vec::new();
        let found = relocations.lookup_through(at(10).0, 1, |session| through.push(session));
        assert_eq!((found, through), (Some(at(51)), vec![repack(1), repack(9), repack(9)]));
        assert_eq!(relocations.lookup(at(10).0, 2), None);
        assert_eq!(relocations.lookup(at(32).0, 1), Some(at(40)));
    }
    // What nobody writes who keeps to the rules ends all the same.
    let mut twice = Relocations::default();
    twice.add(repack(1), &[moved(1, 2), moved(1, 3)]);
    assert_eq!(twice.lookup(at(1).0, 1), Some(at(2)));
    let mut circle = Relocations::default();
    circle.add(repack(1), &[moved(1, 2), moved(2, 1)]);
    assert!(circle.lookup(at(1).0, 1).is_some());
}
