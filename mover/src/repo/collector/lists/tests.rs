use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    clock::Clock as _,
    format::session::SessionKind,
    id::PackId,
    repo::{
        PruneOptions,
        collector::tests::Crowd,
        mark::testing::{Stage, Watcher, backup},
        testing::{self, Fate, add_key, moved, put_signed, repack},
    },
    store::record::{Operation, RecordStore},
};

fn pack(number: u8) -> PackId {
    PackId([number; 16])
}

fn doomed(numbers: &[u8]) -> Doomed {
    let sending = |number: &u8| PackSending { pack: pack(*number), attempt: 0 };
    Doomed { packs: numbers.iter().map(sending).collect(), relocations: Vec::new() }
}

/// Packs of ten bytes that nobody needs.
async fn stage_of(packs: u8) -> Stage {
    let stage = Stage::new().await;
    (1..=packs).for_each(|number| stage.put_pack(number, 0, 10));
    stage
}

/// Which of the packs are left.
async fn left(stage: &Stage) -> Vec<u8> {
    let mut left = Vec::new();
    for number in 1..=9 {
        left.extend(stage.repository.has_pack(pack(number)).await.unwrap().then_some(number));
    }
    left
}

/// A list with its final, as a collector leaves it that is killed before it has deleted anything.
async fn decided(stage: &Stage, doomed: &Doomed) -> RandomId {
    let collection = stage.repository.condemn(doomed).await.unwrap();
    let finals = stage.repository.create_final(collection, doomed.clone(), &mut Vec::new()).await;
    assert_eq!(finals.unwrap(), *doomed);
    collection
}

async fn finish(repository: &Repository) -> Result<Vec<Problem>> {
    let (plan, watcher) = (PrunePlan::new(&PruneOptions::default()), Watcher::default());
    repository.finish_abandoned(&plan, watcher.watch()).await
}

#[test]
fn packs_and_relocations_count_alike() {
    let session = testing::name(SessionKind::Repack, 1);
    let both = Doomed { relocations: vec![session], ..doomed(&[1, 2]) };
    for (list, count) in [
        (Doomed::default(), 0),
        (doomed(&[1]), 1),
        (Doomed { relocations: vec![session], ..Doomed::default() }, 1),
        (both, 3),
    ] {
        assert_eq!((list.len(), list.is_empty()), (count, count == 0), "{list:?}");
    }
    let id = RandomId([0xab; 16]);
    assert_eq!((final_id(&final_object(id)), condemned_id(&condemned_object(id))), (Some(id), Some(id)));
    assert_eq!((final_id(&condemned_object(id)), condemned_id(&final_object(id))), (None, None));
}

#[tokio::test]
async fn the_first_final_of_a_list_counts() {
    let stage = stage_of(0).await;
    let list = doomed(&[1, 2]);
    let collection = stage.repository.condemn(&list).await.unwrap();
    assert_ne!(stage.repository.condemn(&list).await.unwrap(), collection, "each has a name of its own");
    let name = condemned_object(collection);
    let body = stage.body(&name).await;
    let read: Condemned = stage.repository.open_signed(&name, RecordKind::Condemned, &body).unwrap();
    assert_eq!((read.collection, read.packs), (collection, list.packs.clone()));
    assert!(stage.repository.is_condemned(collection).await.unwrap());
    let mut problems = Vec::new();
    for numbers in [&[2][..], &[1], &[]] {
        let found = stage.repository.create_final(collection, doomed(numbers), &mut problems).await;
        assert_eq!(found.unwrap(), doomed(&[2]));
    }
    assert_eq!(problems, []);
    stage.repository.drop_list(collection).await.unwrap();
    assert!(!stage.repository.is_condemned(collection).await.unwrap());
}

/// Where an object goes in the moment in which it is read.
async fn gone_when_read(stage: &Stage, name: &str) -> Repository {
    let (store, name) = (stage.store.clone(), name.to_owned());
    let meddled = stage.meddled(move |operation, object| {
        if object == name && matches!(operation, Operation::Get(_)) {
            store.tamper(object, None);
        }
        Fate::Passes
    });
    meddled.await
}

/// What an answer of `create_final` is where there is this final already, and how many problems it tells of.
async fn answer(repository: &Repository, collection: RandomId) -> Result<(Doomed, usize)> {
    let mut problems = Vec::new();
    let found = repository.create_final(collection, doomed(&[1]), &mut problems).await?;
    Ok((found, problems.len()))
}

#[tokio::test]
async fn a_final_that_is_not_this_lists_makes_it_void() {
    let stage = stage_of(0).await;
    let collection = decided(&stage, &doomed(&[1])).await;
    let name = final_object(collection);
    let void = Doomed::default();

    // The store does not answer, and another time somebody else is done with the list (C9).
    let fork = stage.fork().await;
    let silent = fork.meddled(|operation, _| match operation {
        Operation::Get(_) => Fate::Fails(ErrorKind::Unavailable),
        _ => Fate::Passes,
    });
    let error = answer(&silent.await, collection).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let found = answer(&gone_when_read(&stage, &name).await, collection).await;
    assert_eq!(found.unwrap(), (void.clone(), 0));

    let other = Final { collection: RandomId([1; 16]), packs: doomed(&[1]).packs, relocations: Vec::new() };
    put_signed(&fork.repository, &fork.store, &name, RecordKind::Final, &other);
    assert_eq!(answer(&fork.repository, collection).await.unwrap(), (void.clone(), 0));
    fork.store.tamper(&name, Some(Bytes::from_static(b"rubbish")));
    assert_eq!(answer(&fork.repository, collection).await.unwrap(), (void, 1));
    add_key(&fork.repository).await;
    let error = answer(&fork.repository, collection).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "newer keys may have signed it");
}

#[tokio::test]
async fn some_packs_are_deleted_at_once_and_all_are_waited_for() {
    let (stage, watcher) = (stage_of(40).await, Watcher::default());
    let list = doomed(&(1..=40).collect::<Vec<_>>());
    let refusing = stage.meddled(|operation, _| match operation {
        Operation::Delete => Fate::Fails(ErrorKind::Denied),
        _ => Fate::Passes,
    });
    let refused = refusing.await.carry_out(&list, watcher.watch()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    let (crowd, watcher) = (Crowd::on(&stage.store), Watcher::default());
    let repository = stage.through(crowd.clone()).await;
    crowd.most();
    repository.carry_out(&list, watcher.watch()).await.unwrap();
    assert_eq!((crowd.most(), stage.names("packs/").await.len()), (PARALLEL_DELETES, 0));
    assert_eq!(Progress::get(&watcher.watch().monitor.progress().entries), 40);

    stage.put_pack(1, 0, 10);
    watcher.cancel.cancel();
    let error = repository.carry_out(&list, watcher.watch()).await.unwrap_err();
    assert_eq!((error.kind(), left(&stage).await), (ErrorKind::Cancelled, vec![1]));
}

/// C8 and C9: a session goes before its end, and a list before its final.
#[tokio::test]
async fn what_others_judge_by_goes_first() {
    let (stage, watcher) = (stage_of(0).await, Watcher::default());
    let repack = repack(&stage.repository, &[moved(1, 2)]).await;
    let list = Doomed { relocations: vec![repack], ..Doomed::default() };
    let collection = decided(&stage, &list).await;
    let calls = Arc::new(RecordStore::new(stage.store.clone()));
    let repository = stage.through(calls.clone()).await;
    calls.take();
    repository.carry_out(&list, watcher.watch()).await.unwrap();
    repository.drop_list(collection).await.unwrap();
    let changes = calls.take().into_iter();
    let changes = changes.filter(|call| matches!(call.operation, Operation::Put | Operation::Delete));
    let changes: Vec<_> = changes.map(|call| (call.operation, call.name)).collect();
    let (session, end) = (repack.session_object(), repack.end_object());
    let expected = [
        (Operation::Delete, session),
        (Operation::Delete, end.clone()),
        (Operation::Put, end),
        (Operation::Delete, condemned_object(collection)),
        (Operation::Delete, final_object(collection)),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn what_others_have_left_is_finished_if_it_is_decided_and_else_made_void() {
    let stage = stage_of(4).await;
    stage.repository.condemn(&doomed(&[1])).await.unwrap();
    decided(&stage, &doomed(&[2])).await;
    let dropped = decided(&stage, &doomed(&[3])).await;
    stage.store.tamper(&condemned_object(dropped), None);
    stage.store.tamper("gc/rubbish", Some(Bytes::from_static(b"rubbish")));
    let problems = finish(&stage.repository).await.unwrap();
    assert_eq!(problems, [untrue("gc/rubbish", "it has no name that maintenance gives")]);
    assert_eq!(
        (left(&stage).await, stage.names("gc/").await),
        (vec![1, 3, 4], vec!["gc/rubbish".to_owned()])
    );
    assert_eq!(stage.clock.monotonic(), Duration::ZERO);
}

#[tokio::test]
async fn what_is_decided_waits_for_sessions_at_work_and_what_is_void_does_not() {
    let stage = stage_of(2).await;
    let open = testing::begin(&stage.repository).await;
    stage.repository.condemn(&doomed(&[1])).await.unwrap();
    let kept = decided(&stage, &doomed(&[2])).await;
    assert_eq!(finish(&stage.repository).await.unwrap(), []);
    let both = vec![condemned_object(kept), final_object(kept)];
    assert_eq!((left(&stage).await, stage.names("gc/").await), (vec![1, 2], both));
    assert_eq!(stage.clock.monotonic(), PruneOptions::default().wait, "waited for once");
    open.abandon("it gives up").await.unwrap();
    assert_eq!(finish(&stage.repository).await.unwrap(), []);
    assert_eq!((left(&stage).await, stage.names("gc/").await), (vec![1], Vec::new()));
}

/// C7: somebody has carried it out, and who stalled since must not.
#[tokio::test]
async fn without_its_list_no_final_counts() {
    let stage = stage_of(1).await;
    let collection = decided(&stage, &doomed(&[1])).await;
    let store = stage.store.clone();
    let meddled = stage.meddled(move |operation, name| {
        if matches!(operation, Operation::Get(_)) && name == final_object(collection) {
            store.tamper(&condemned_object(collection), None);
        }
        Fate::Passes
    });
    assert_eq!(finish(&meddled.await).await.unwrap(), []);
    assert_eq!((left(&stage).await, stage.names("gc/").await.len()), (vec![1], 0));
}

/// REPLAY: what a true list names is needed by nobody, unless somebody has put an old one back.
#[tokio::test]
async fn a_list_that_would_delete_what_is_needed_stops_everything() {
    let stage = stage_of(3).await;
    let repack = repack(&stage.repository, &[moved(1, 2)]).await;
    backup(&stage.repository, &[(pack(1), 1)]).await;
    let relocations = Doomed { relocations: vec![repack], ..doomed(&[3]) };
    for (list, words) in
        [(doomed(&[2, 3]), format!("pack {}", pack(2))), (relocations, format!("repack {repack}"))]
    {
        let fork = stage.fork().await;
        decided(&fork, &list).await;
        let error = finish(&fork.repository).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let words = format!("would delete {words}, which a snapshot needs");
        assert!(error.to_string().contains(&words) && error.hint().is_some(), "{error}");
        assert_eq!((left(&fork).await, fork.names("gc/").await.len()), (vec![1, 2, 3], 2));
        assert!(fork.repository.exists(&repack.session_object()).await.unwrap());
    }
}

#[tokio::test]
async fn a_list_that_nobody_proves_is_told_of_and_deletes_nothing() {
    let stage = stage_of(1).await;
    let name = condemned_object(stage.repository.condemn(&doomed(&[1])).await.unwrap());
    let forged = stage.fork().await;
    forged.store.tamper(&name, Some(Bytes::from_static(b"rubbish")));
    let changed = forged.fork().await;
    let problems = finish(&forged.repository).await.unwrap();
    assert_eq!(
        problems.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>(),
        [format!("object {name}")]
    );
    assert_eq!((left(&forged).await, forged.names("gc/").await.len()), (vec![1], 0));
    add_key(&changed.repository).await;
    let error = finish(&changed.repository).await.unwrap_err();
    assert_eq!((error.kind(), changed.names("gc/").await.len()), (ErrorKind::Conflict, 1));

    // A store that does not answer says nothing of it, and one that is gone by then needs no word.
    let silent = name.clone();
    let meddled = stage.meddled(move |operation, object| match operation {
        Operation::Get(_) if object == silent => Fate::Fails(ErrorKind::Unavailable),
        _ => Fate::Passes,
    });
    let error = finish(&meddled.await).await.unwrap_err();
    assert_eq!((error.kind(), stage.names("gc/").await.len()), (ErrorKind::Unavailable, 1));
    assert_eq!(finish(&gone_when_read(&stage, &name).await).await.unwrap(), []);
    assert_eq!((left(&stage).await, stage.names("gc/").await.len()), (vec![1], 0));
}
