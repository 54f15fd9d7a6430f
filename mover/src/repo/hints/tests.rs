use std::sync::Arc;

use super::*;
use crate::{
    format::{
        records::{self, RecordKind},
        session::{SessionKeyInfo, SessionKind},
    },
    id::{ChunkId, PackId, RandomId},
    repo::{
        Session,
        segments::{encode_hint, segment_name},
        testing::{self, Meddled, checkpoint},
    },
    store::{ObjectStore, mem::MemStore},
};

/// A repository with a segment and a checkpoint.
async fn hinted(store: Arc<dyn ObjectStore>) -> (Repository, Session) {
    let repository = testing::create(store).await;
    let session = testing::begin(&repository).await;
    session.put_segment(&[(ChunkId([1; 32]), PackId([2; 16]))]).await.unwrap();
    session.put_checkpoint(&checkpoint(10)).await.unwrap();
    (repository, session)
}

async fn unreadable(repository: &Repository) -> Vec<(String, ErrorKind)> {
    let unreadable = repository.unreadable_hints().await.unwrap();
    unreadable.into_iter().map(|(name, error)| (name, error.kind())).collect()
}

/// A segment of a generation of keys that there is not.
fn put_of_other_keys(store: &MemStore, session: &Session) -> String {
    let name = segment_name(RandomId([7; 16]));
    let info = SessionKeyInfo { generation: 7, ..session.key_info().clone() };
    let body = records::encode_record(RecordKind::Segment, &encode_hint(&info, b"sealed"));
    store.tamper(&name, Some(body.into()));
    name
}

#[tokio::test]
async fn hints_that_do_not_open_are_named_in_order() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let (repository, session) = hinted(store.clone()).await;
    assert!(unreadable(&repository).await.is_empty());
    let segment = segment_name(RandomId([8; 16]));
    let checkpoint = checkpoint(20).object(session.name());
    for name in [&segment, &checkpoint] {
        inner.tamper(name, Some("rubbish".into()));
    }
    let expected = [(checkpoint, ErrorKind::Corrupt), (segment, ErrorKind::Corrupt)];
    assert_eq!(unreadable(&repository).await, expected);
    store.fail_gets("index/", ErrorKind::NotFound);
    assert!(unreadable(&repository).await.is_empty());
    store.fail_gets("index/", ErrorKind::Unavailable);
    assert_eq!(repository.unreadable_hints().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// Who holds all keys there are holds those of every hint that is true; a mover holds those of one source.
#[tokio::test]
async fn a_hint_of_keys_that_nobody_holds_is_named_by_those_who_hold_all() {
    let store = Arc::new(MemStore::new());
    let (repository, session) = hinted(store.clone()).await;
    let mover = testing::open_as_mover(&repository, LineageId([9; 8])).await;
    let name = put_of_other_keys(&store, &session);
    assert_eq!(unreadable(&repository).await, [(name.clone(), ErrorKind::Denied)]);
    assert!(unreadable(&mover).await.is_empty());

    // Somebody may have added a key since, and a generation with it.
    testing::add_key(&repository).await;
    assert_eq!(repository.unreadable_hints().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(unreadable(&mover).await.is_empty());
    assert_eq!(unreadable(&testing::open(store.clone()).await.unwrap()).await.len(), 1);
    // What is damaged opens with no key.
    store.tamper(&name, Some("rubbish".into()));
    for handle in [&repository, &mover] {
        assert_eq!(unreadable(handle).await, [(name.clone(), ErrorKind::Corrupt)]);
    }
}

#[test]
fn a_checkpoint_is_told_from_a_segment_by_its_name() {
    let session = testing::name(SessionKind::Backup, 1);
    let name = checkpoint(10).object(session);
    assert_eq!(checkpoint_of(&name), Some((session.lineage, session.nonce.tag())));
    assert_eq!(checkpoint_of(&segment_name(RandomId([1; 16]))), None);
}

#[tokio::test]
async fn what_a_store_does_not_tell_is_not_absent() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let (repository, session) = hinted(store.clone()).await;
    let name = session.name().session_object();
    assert!(repository.there(&name).await.unwrap().is_some());
    assert_eq!(repository.there("sessions/none").await.unwrap(), None);
    store.fail_gets("sessions/", ErrorKind::Unavailable);
    assert_eq!(repository.there(&name).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
