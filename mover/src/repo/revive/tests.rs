use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::{
    backup::{BackupOptions, BackupSource, backup},
    cancel::Cancel,
    format::pack::pack_object,
    id::LineageId,
    keys::SigningKey,
    monitor::CollectMonitor,
    reader::testing::noise,
    repo::{
        VERIFIED,
        testing::{self, Meddled},
    },
    secret::Key,
    source::walk::WalkOptions,
    store::{list_all, mem::MemStore},
};

async fn revive(repository: &Repository, old: SessionName) -> Result<Revived> {
    let (monitor, cancel) = (CollectMonitor::default(), Cancel::default());
    repository.revive(old, Watch { monitor: &monitor, cancel: &cancel }).await
}

async fn kind(repository: &Repository, session: SessionName) -> ErrorKind {
    repository.record_of(session).await.map(drop).unwrap_err().kind()
}

#[tokio::test]
async fn what_is_out_of_view_and_has_a_record_can_be_brought_back() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(testing::commit(&repository).await);
    }
    let [visible, forgotten, lost, damaged] = sessions[..] else { panic!("{sessions:?}") };
    let repack = testing::repack(&repository, &[testing::moved(1, 2)]).await;
    // Nothing is left of one that was forgotten, and nothing can be read of another.
    let [gone, rubbish] = [1, 2].map(|number| testing::name(SessionKind::Backup, number));
    store.tamper(&rubbish.end_object(), Some("rubbish".into()));
    repository.forget(&[forgotten, gone, rubbish]).await.unwrap();
    store.tamper(&damaged.session_object(), Some("rubbish".into()));
    for session in [lost, repack] {
        store.tamper(&session.session_object(), None);
    }
    let hidden = repository.hidden().await.unwrap();
    let found: BTreeSet<_> = hidden
        .iter()
        .map(|hidden| (hidden.session, hidden.is_forgotten, hidden.snapshot.is_some()))
        .collect();
    let expected =
        [(forgotten, true, true), (lost, false, true), (damaged, false, true), (repack, false, false)];
    assert_eq!(found, expected.into());
    assert_eq!(repository.visible("b").await.unwrap().len(), 2, "{visible} and the damaged one");
}

#[tokio::test]
async fn a_snapshot_comes_back_under_a_new_name_with_its_pin() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let (pinned, other) = (testing::commit(&repository).await, testing::commit(&repository).await);
    repository.mark_snapshot(pinned, PINNED).await.unwrap();
    for session in [pinned, other] {
        repository.mark_snapshot(session, VERIFIED).await.unwrap();
        let before = repository.snapshot(session).await.unwrap();
        store.tamper(&session.session_object(), None);
        let revived = revive(&repository, session).await.unwrap();
        assert_eq!(revived.missing, []);
        let after = repository.snapshot(revived.session).await.unwrap();
        assert_eq!(after, Snapshot { session: revived.session, ..before });
        assert_ne!(revived.session, session);
        assert!(repository.is_forgotten(session).await.unwrap(), "the next prune cleans it up");
        let list = repository.snapshots().await.unwrap();
        assert_eq!(list.is_marked(revived.session, PINNED), session == pinned);
        assert!(!list.is_marked(revived.session, VERIFIED), "that has to be found out again");
    }
}

#[tokio::test]
async fn relocations_come_back_and_name_nothing_that_is_condemned() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let moved = [testing::moved(1, 2), testing::moved(3, 4)];
    let old = testing::repack(&repository, &moved).await;
    store.tamper(&old.session_object(), None);
    store.tamper(&pack_object(PackId([2; 16]), 0), Some("a pack".into()));
    let list = testing::condemn(&repository, &store, &[PackId([4; 16])], &[]);
    let error = revive(&repository, old).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(!repository.is_forgotten(old).await.unwrap());
    // The session that began for it has given up, so that no prune waits for it.
    let begun = repository.session_names("sessions/", "r").await.unwrap();
    let ended = repository.session_names("snapshots/", "r").await.unwrap();
    assert!(begun.len() == 1 && begun.is_subset(&ended), "{begun:?} {ended:?}");

    store.tamper(&list, None);
    let revived = revive(&repository, old).await.unwrap();
    assert_eq!(revived.missing, [PackId([4; 16])]);
    let (relocations, doubtful) = repository.relocations().await.unwrap();
    assert!(doubtful.is_empty(), "{doubtful:?}");
    assert_eq!(relocations.sessions(), [revived.session]);
    assert_eq!(relocations.lookup(PackId([3; 16]), 1), Some((PackId([4; 16]), 1)));
    let mover = testing::open_as_mover(&repository, LineageId([1; 8])).await;
    assert_eq!(revive(&mover, old).await.unwrap_err().kind(), ErrorKind::Denied);
}

/// Where the session object is lost, the seal alone says who wrote it. A repack moves for everybody.
#[tokio::test]
async fn a_record_is_believed_if_it_opens_and_was_signed_by_whom_it_takes() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let lost = testing::commit(&repository).await;
    store.tamper(&lost.session_object(), None);
    assert!(matches!(repository.record_of(lost).await.unwrap(), Record::Snapshot(_)));
    let mover = testing::open_as_mover(&repository, LineageId([9; 8])).await;
    assert_eq!(kind(&mover, lost).await, ErrorKind::Denied);

    let newer = testing::begin(&repository).await;
    let snapshot = testing::snapshot(newer.name(), Timestamp::UNIX_EPOCH);
    newer.commit(&Snapshot { version: 2, ..snapshot }).await.unwrap();
    store.tamper(&newer.name().session_object(), None);
    assert_eq!(kind(&repository, newer.name()).await, ErrorKind::Invalid, "nothing is wrong with it");

    let forged = testing::name(SessionKind::Repack, 1);
    let key = repository.keys().session_index_key(0, forged).unwrap();
    let plain = records::to_json(&[testing::moved(1, 2)]).unwrap();
    let cipher = Cipher::new(Suite::Aes256Gcm, &key);
    let sealed = codec::seal_object(&cipher, Domain::Record, forged, 0, &plain).unwrap();
    let own = SigningKey::new(&Key::new([8; 32])).unwrap().sign(&forged.end_object(), &sealed);
    let by_maintenance = repository.keys().sign_maintenance(&forged.end_object(), &sealed).unwrap();
    for (signature, is_believed) in [(own, false), (by_maintenance, true)] {
        let body = records::encode_record(RecordKind::Relocation, &[signature, sealed.clone()].concat());
        store.tamper(&forged.end_object(), Some(body.into()));
        assert_eq!(repository.record_of(forged).await.is_ok(), is_believed);
    }
    let short = records::encode_record(RecordKind::Snapshot, &[0; SIGNATURE_LENGTH - 1]);
    store.tamper(&lost.end_object(), Some(short.into()));
    assert_eq!(kind(&repository, lost).await, ErrorKind::Corrupt);
    testing::put_fence(&repository, &store, lost, &testing::fenced(lost));
    assert_eq!(kind(&repository, lost).await, ErrorKind::NotFound);
    assert_eq!(kind(&repository, testing::name(SessionKind::Backup, 1)).await, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_session_object_that_a_store_does_not_answer_for_is_not_lost() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    let session = testing::commit(&repository).await;
    store.fail_gets("sessions/", ErrorKind::Unavailable);
    assert_eq!(kind(&repository, session).await, ErrorKind::Unavailable);
    assert_eq!(repository.hidden().await.unwrap_err().kind(), ErrorKind::Unavailable);
    // One that is damaged is another thing.
    store.fail_gets("sessions/", ErrorKind::Corrupt);
    assert_eq!(repository.hidden().await.unwrap()[0].session, session);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_says_which_packs_it_misses_and_needs_none_that_is_condemned() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), noise(1, 100_000)).unwrap();
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let source = WalkOptions { roots: vec![folder.path().to_owned()], ..WalkOptions::default() };
    let usual = BackupOptions::new(BackupSource::Files(source));
    let options = BackupOptions { memory_bytes: 64 << 20, threads: 2, ..usual };
    let monitor = Arc::new(CollectMonitor::default());
    let report = backup(&repository, options, monitor, Cancel::default()).await.unwrap();
    let old = report.snapshot.unwrap().session;
    repository.forget(&[old]).await.unwrap();
    let packs = list_all(store.as_ref(), "packs/").await.unwrap();
    let contents = packs.into_iter().max_by_key(|object| object.size).unwrap().name;
    let (pack, _) = parse_pack_object(&contents).unwrap();
    let list = testing::condemn(&repository, &store, &[pack], &[]);
    assert_eq!(revive(&repository, old).await.unwrap_err().kind(), ErrorKind::Conflict);
    store.tamper(&list, None);
    store.tamper(&contents, None);
    let revived = revive(&repository, old).await.unwrap();
    assert_eq!(revived.missing, [pack]);
    assert!(repository.snapshot(revived.session).await.unwrap().root.is_some());
}
