use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::{
    clock::World,
    error::ErrorKind,
    id::LineageId,
    repo::testing::{self, Fate, Meddled},
    secret::Passphrase,
    store::{Decorator, ObjectStore, mem::MemStore, record::Operation},
};

fn unlock(number: usize) -> Unlock {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&number.to_le_bytes());
    Unlock::Secret(Key::new(secret))
}

#[tokio::test]
async fn nobody_is_shut_out_by_too_many_keys() {
    let (store, options) = (Arc::new(MemStore::new()), CreateOptions::default());
    let repository = Repository::create(store.clone(), World::system(), &unlock(0), &options).await.unwrap();
    for number in 1..KEYS_LIMIT {
        repository.add_key(&unlock(0), &unlock(number), &options).await.unwrap();
    }
    let error = repository.add_key(&unlock(0), &unlock(KEYS_LIMIT), &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("100") && error.hint().unwrap().contains("key remove"), "{error}");
    // Two that looked at the same moment may add more than that.
    let roots = repository.roots(&unlock(0)).await.unwrap();
    for number in KEYS_LIMIT..KEYS_LIMIT + 5 {
        repository.store_key(&unlock(number), &options, &roots).await.unwrap();
    }
    for number in 0..KEYS_LIMIT + 5 {
        Repository::open(store.clone(), World::system(), &unlock(number)).await.unwrap();
    }
    let (keys, _) = repository.list_keys().await.unwrap();
    for key in &keys[..6] {
        repository.remove_key(key.id).await.unwrap();
    }
    let current = unlock(KEYS_LIMIT + 4);
    repository.add_key(&current, &unlock(KEYS_LIMIT + 5), &options).await.unwrap();
}

/// Somebody else removes a key in the moment before each delete.
#[derive(Debug)]
struct RemovedMeanwhile {
    inner: Arc<MemStore>,
    other: RandomId,
}

#[async_trait]
impl Decorator for RemovedMeanwhile {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.inner.delete(&format!("keys/{}", self.other)).await?;
        self.inner.delete(name).await
    }
}

/// The last look of both sees what the other one has done, so one of them at least puts its key back.
#[tokio::test]
async fn two_who_remove_each_others_key_leave_one() {
    let (store, options) = (Arc::new(MemStore::new()), CreateOptions::default());
    let first = Repository::create(store.clone(), World::system(), &unlock(0), &options).await.unwrap();
    let key = first.list_keys().await.unwrap().0.remove(0).id;
    let other = first.add_key(&unlock(0), &unlock(1), &options).await.unwrap();
    let meanwhile = Arc::new(RemovedMeanwhile { inner: store.clone(), other });
    let second = Repository::open(meanwhile, World::system(), &unlock(1)).await.unwrap();
    let error = second.remove_key(key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let opened = Repository::open(store, World::system(), &unlock(0)).await.unwrap();
    assert_eq!(opened.list_keys().await.unwrap().0.len(), 1);
}

async fn keys(repository: &Repository) -> Vec<RandomId> {
    repository.list_keys().await.unwrap().0.into_iter().map(|key| key.id).collect()
}

#[tokio::test]
async fn one_key_goes_and_the_others_and_the_last_one_stay() {
    let (store, options) = (Arc::new(MemStore::new()), CreateOptions::default());
    let repository = Repository::create(store.clone(), World::system(), &unlock(0), &options).await.unwrap();
    let first = keys(&repository).await[0];
    let error = repository.remove_key(first).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("the only key"), "{error}");
    let people = CreateOptions { kdf_memory_kib: 64, kdf_lanes: 1, label: "people".into(), ..options };
    let word = Unlock::Passphrase(Passphrase::new(b"a word".to_vec()));
    let second = repository.add_key(&unlock(0), &word, &people).await.unwrap();
    let third = repository.add_key(&word, &unlock(2), &people).await.unwrap();
    let listed = repository.list_keys().await.unwrap().0;
    let kinds: Vec<(&str, &str)> = listed.iter().map(|key| (key.kind.as_str(), key.label.as_str())).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == ("passphrase", "people")).count(), 1, "{kinds:?}");

    let error = repository.remove_key(RandomId([9; 16])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    repository.remove_key(second).await.unwrap();
    let mut left = keys(&repository).await;
    left.sort_unstable();
    let mut expected = [first, third];
    expected.sort_unstable();
    assert_eq!(left, expected);
    let shut_out = Repository::open(store.clone(), World::system(), &word).await.unwrap_err();
    assert_eq!(shut_out.kind(), ErrorKind::Denied);
    Repository::open(store, World::system(), &unlock(2)).await.unwrap();
}

/// Whether any key is left is not known then, so this one is put back.
#[tokio::test]
async fn a_key_stays_where_nobody_can_look_whether_another_does() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let repository = testing::create(store.clone()).await;
    let key = keys(&repository).await[0];
    testing::add_key(&repository).await;
    let before = list_all(inner.as_ref(), "").await.unwrap().len();
    let mut is_deleted = false;
    store.meddle(move |operation, _| {
        is_deleted |= operation == Operation::Delete;
        match operation {
            Operation::List if is_deleted => Fate::Fails(ErrorKind::Unavailable),
            _ => Fate::Passes,
        }
    });
    assert_eq!(repository.remove_key(key).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(list_all(inner.as_ref(), "").await.unwrap().len(), before);
    testing::open(inner).await.unwrap();
}

#[tokio::test]
async fn a_rotation_that_was_broken_off_counts_and_its_leftovers_go() {
    let (store, options) = (Arc::new(MemStore::new()), CreateOptions::default());
    let before = Repository::create(store.clone(), World::system(), &unlock(0), &options).await.unwrap();
    let old = keys(&before).await[0];
    let open = async |number| Repository::open(store.clone(), World::system(), &unlock(number)).await;
    // Killed before it came to removing the other keys.
    let killed = RotatePlan { remove: Vec::new() };
    let new = before.apply_rotate(&killed, &unlock(0), &unlock(1), &options).await.unwrap();
    let error = open(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.hint().unwrap().contains(&format!("keys/{new}")), "{error}");
    let after = open(1).await.unwrap();
    assert_eq!((before.keys().newest(), after.keys().newest()), (0, 1));
    assert!(!before.are_keys_unchanged().await.unwrap() && after.are_keys_unchanged().await.unwrap());
    assert_eq!(before.check_keys_unchanged().await.unwrap_err().kind(), ErrorKind::Conflict);
    after.check_keys_unchanged().await.unwrap();
    // N2: the same once more is the same; another one comes too late, and removes nothing.
    assert_eq!(before.apply_rotate(&killed, &unlock(0), &unlock(1), &options).await.unwrap(), new);
    let plan = before.plan_rotate().await.unwrap();
    assert_eq!(plan.remove.len(), 2);
    let error = before.apply_rotate(&plan, &unlock(0), &unlock(2), &options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("came first"), "{error}");
    assert_eq!(keys(&after).await.len(), 2);

    // What is left of before opens nothing that is written from now on.
    let error = after.remove_key(new).await.unwrap_err();
    assert!(error.to_string().contains("open nothing that was written since"), "{error}");
    store.tamper("probe/x", Some("left by somebody who was killed".into()));
    after.drop_void_keys().await.unwrap();
    assert_eq!(keys(&after).await, [new]);
    assert_eq!(list_all(store.as_ref(), "probe/").await.unwrap(), []);
    assert_ne!(old, new);

    let after = open(1).await.unwrap();
    let plan = after.plan_rotate().await.unwrap();
    let newest = after.apply_rotate(&plan, &unlock(1), &unlock(3), &options).await.unwrap();
    let last = open(3).await.unwrap();
    assert_eq!((keys(&last).await, last.keys().newest()), (vec![newest], 2));
    assert_eq!(open(1).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn what_lies_beside_the_keys_goes_on_request_of_those_who_may() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    store.tamper("keys/x", Some("rubbish".into()));
    store.tamper("keys/y", Some("rubbish".into()));
    let mover = testing::open_as_mover(&repository, LineageId([1; 8])).await;
    assert_eq!(mover.remove_unproven_keys().await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(repository.list_keys().await.unwrap().1.len(), 2);
    assert_eq!(repository.remove_unproven_keys().await.unwrap(), 2);
    assert_eq!(repository.remove_unproven_keys().await.unwrap(), 0);
    let (keys, problems) = repository.list_keys().await.unwrap();
    assert_eq!((keys.len(), problems.len()), (1, 0));
}
