use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::*;
use crate::{
    format::records::{self, Damaged, Final},
    id::{PackId, RandomId},
    repo::{
        PINNED,
        testing::{self, Meddled},
    },
    store::{ObjectStore as _, mem::MemStore},
};

/// A repository that has one true object of each kind.
async fn truthful() -> (Arc<MemStore>, Repository) {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let session = testing::commit(&repository).await;
    repository.mark_snapshot(session, PINNED).await.unwrap();
    repository.forget(&[session]).await.unwrap();
    repository.note_damage(&BTreeSet::from([PackId([1; 16])])).await.unwrap();
    testing::condemn(&repository, &store, &[PackId([2; 16])], &[]);
    let collection = RandomId([4; 16]);
    let list = Final { collection, packs: Vec::new(), relocations: Vec::new() };
    let name = format!("gc/{collection}.final");
    testing::put_signed(&repository, &store, &name, RecordKind::Final, &list);
    (store, repository)
}

async fn named(repository: &Repository) -> Vec<String> {
    repository.unproven().await.unwrap().into_iter().map(|problem| problem.what).collect()
}

async fn names(store: &MemStore) -> BTreeSet<String> {
    list_all(store, "").await.unwrap().into_iter().map(|object| object.name).collect()
}

#[tokio::test]
async fn what_nobody_proves_is_named_and_goes_where_only_maintenance_has_a_word() {
    let (store, repository) = truthful().await;
    assert_eq!(repository.unproven().await.unwrap(), []);
    assert_eq!(repository.sweep_unsigned().await.unwrap(), 0);
    let mut left = names(&store).await;
    let swept = ["damaged/x", "forgotten/x", "marks/x"];
    let named_only = ["gc/x", "keys/x", "sessions/x", "snapshots/x"];
    for name in swept.iter().chain(&named_only) {
        store.tamper(name, Some("rubbish".into()));
    }
    let all: BTreeSet<String> =
        swept.iter().chain(&named_only).map(|name| format!("object {name}")).collect();
    assert_eq!(named(&repository).await.into_iter().collect::<BTreeSet<_>>(), all);
    assert_eq!(repository.sweep_unsigned().await.unwrap(), 3);
    left.extend(named_only.map(str::to_owned));
    assert_eq!(names(&store).await, left);
}

/// Nobody here can tell what a newer program wrote.
#[tokio::test]
async fn what_is_newer_is_named_and_stays() {
    let (store, repository) = truthful().await;
    let mut newer = records::encode_record(RecordKind::Mark, b"");
    newer[4] += 1;
    store.tamper("marks/x", Some(newer.into()));
    assert_eq!(named(&repository).await, ["object marks/x"]);
    assert_eq!(repository.sweep_unsigned().await.unwrap(), 0);
    assert!(names(&store).await.contains("marks/x"));
}

/// KEYS: it may be signed with a key that came since.
#[tokio::test]
async fn who_does_not_know_all_keys_takes_nothing_for_forged() {
    let (store, repository) = truthful().await;
    testing::add_key(&repository).await;
    assert_eq!(named(&repository).await, [""; 0]);
    assert_eq!(repository.sweep_unsigned().await.unwrap(), 0);
    store.tamper("damaged/x", Some("rubbish".into()));
    assert_eq!(repository.unproven().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(repository.sweep_unsigned().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(names(&store).await.contains("damaged/x"));
    let opened = testing::open(store.clone()).await.unwrap();
    assert_eq!(named(&opened).await, ["object damaged/x"]);
    assert_eq!(opened.sweep_unsigned().await.unwrap(), 1);
}

#[tokio::test]
async fn an_object_is_looked_at_up_to_the_greatest_length_of_its_kind() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let name = format!("damaged/{}", RandomId([7; 16]));
    for (length, is_long) in [(limits::SIGNED_RECORD_LIMIT, false), (limits::SIGNED_RECORD_LIMIT + 1, true)] {
        let note = Damaged { created: Timestamp::UNIX_EPOCH, packs: Vec::new() };
        let mut json = records::to_json(&note).unwrap();
        json.resize(length - records::RECORD_HEADER - records::SIGNATURE_LENGTH, b' ');
        let mut body = repository.keys().sign_maintenance(&name, &json).unwrap();
        body.extend_from_slice(&json);
        store.tamper(&name, Some(records::encode_record(RecordKind::Damaged, &body).into()));
        assert_eq!(store.get(&name, ByteRange::All).await.unwrap().len(), length);
        let problems = repository.unproven().await.unwrap();
        let is_said = problems.iter().any(|problem| problem.message.contains("longer than any of its kind"));
        assert_eq!((problems.len(), is_said), (usize::from(is_long), is_long));
    }
}

#[tokio::test]
async fn what_is_gone_is_no_doubt_and_what_cannot_be_read_is_an_error() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let repository = testing::create(store.clone()).await;
    inner.tamper("marks/x", Some("rubbish".into()));
    store.fail_gets("marks/", ErrorKind::NotFound);
    assert_eq!(named(&repository).await, [""; 0]);
    store.fail_gets("marks/", ErrorKind::Unavailable);
    assert_eq!(repository.unproven().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(repository.sweep_unsigned().await.unwrap_err().kind(), ErrorKind::Unavailable);
}
