use std::sync::Arc;

use super::*;
use crate::{
    id::LineageId,
    repo::testing::{self, Meddled},
    store::mem::MemStore,
};

fn pack(number: u32) -> PackId {
    let mut pack = PackId::default();
    pack.0[..4].copy_from_slice(&number.to_le_bytes());
    pack
}

#[tokio::test]
async fn much_damage_makes_several_notes_and_each_is_taken_back_alone() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    repository.note_damage(&BTreeSet::new()).await.unwrap();
    assert_eq!(repository.damage_notes().await.unwrap(), []);
    let count = u32::try_from(limits::CONDEMNED_PACKS).unwrap() + 1;
    let packs: BTreeSet<PackId> = (0..count).map(pack).collect();
    repository.note_damage(&packs).await.unwrap();
    let notes = repository.damage_notes().await.unwrap();
    let mut lengths: Vec<usize> = notes.iter().map(|note| note.packs.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, limits::CONDEMNED_PACKS]);
    let noted: BTreeSet<PackId> = notes.iter().flat_map(|note| note.packs.iter().copied()).collect();
    assert!(noted == packs, "{} packs", noted.len());
    repository.drop_note(&notes[0]).await.unwrap();
    assert!(repository.damage_notes().await.unwrap() == notes[1..]);
}

#[tokio::test]
async fn a_note_that_is_gone_says_nothing_and_one_that_cannot_be_read_is_an_error() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    let mover = testing::open_as_mover(&repository, LineageId([1; 8])).await;
    let error = mover.note_damage(&BTreeSet::from([pack(1)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    repository.note_damage(&BTreeSet::from([pack(1)])).await.unwrap();
    assert_eq!(mover.damage_notes().await.unwrap().len(), 1);
    store.fail_gets(FOLDER, ErrorKind::NotFound);
    assert_eq!(repository.damage_notes().await.unwrap(), []);
    store.fail_gets(FOLDER, ErrorKind::Unavailable);
    assert_eq!(repository.damage_notes().await.unwrap_err().kind(), ErrorKind::Unavailable);
}
