use super::*;
use crate::{
    repo::testing::{self, Fate, Meddled},
    store::{
        ByteRange,
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

#[test]
fn ids_of_two_repositories_differ_in_most_bytes_and_a_damaged_one_in_a_few() {
    let one = RepositoryId([7; 16]);
    for (different, expected) in [(0, false), (1, false), (8, false), (9, true), (16, true)] {
        let mut other = one;
        other.0[..different].fill(8);
        assert_eq!(is_another(one, other), expected, "{different}");
    }
}

/// Whoever was killed before his repository was there has left its key where another one is now.
#[tokio::test]
async fn keys_are_ours_or_of_another_repository_or_not_to_be_believed() {
    let (store, elsewhere) = (Arc::new(MemStore::new()), Arc::new(MemStore::new()));
    let repository = testing::create(store.clone()).await;
    testing::create(elsewhere.clone()).await;
    let own = list_all(store.as_ref(), FOLDER).await.unwrap().remove(0).name;
    let foreign = list_all(elsewhere.as_ref(), FOLDER).await.unwrap().remove(0).name;
    store.tamper(&foreign, Some(elsewhere.get(&foreign, ByteRange::All).await.unwrap()));
    // A signature holds for one name.
    store.tamper("keys/copied", Some(store.get(&own, ByteRange::All).await.unwrap()));
    store.tamper("keys/x", Some("rubbish".into()));
    let files = KeyFiles::read(repository.store(), repository.format()).await.unwrap();
    assert_eq!(files.proven.keys().collect::<Vec<_>>(), [&own]);
    assert_eq!(files.foreign, std::slice::from_ref(&foreign));
    assert_eq!(files.unproven.keys().collect::<Vec<_>>(), ["keys/copied", "keys/x"]);

    repository.drop_void_keys().await.unwrap();
    let files = KeyFiles::read(repository.store(), repository.format()).await.unwrap();
    assert_eq!((files.proven.len(), files.foreign.len(), files.unproven.len()), (1, 0, 2));
}

/// A rotation removes all of them but the one that it put there before.
#[tokio::test]
async fn a_key_that_goes_meanwhile_is_a_reason_to_look_again() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let calls = Arc::new(RecordStore::new(store.clone()));
    let repository = testing::create(calls.clone()).await;
    let read = async || {
        calls.take();
        let files = KeyFiles::read(repository.store(), repository.format()).await;
        let looks = calls.take().iter().filter(|call| call.operation == Operation::List).count();
        (files.map(|files| files.proven.len()).map_err(|error| error.kind()), looks)
    };
    assert_eq!(read().await, (Ok(1), 1));
    let mut first = true;
    store.meddle(move |operation, _| match operation {
        Operation::Get(_) if std::mem::take(&mut first) => Fate::Fails(ErrorKind::NotFound),
        _ => Fate::Passes,
    });
    assert_eq!(read().await, (Ok(1), 2));
    store.fail_gets(FOLDER, ErrorKind::NotFound);
    assert_eq!(read().await, (Err(ErrorKind::Unavailable), LOOKS as usize));
    store.fail_gets(FOLDER, ErrorKind::Unavailable);
    assert_eq!(read().await, (Err(ErrorKind::Unavailable), 1));
}
