use std::sync::Arc;

use super::*;
use crate::{
    format::session::SessionKind,
    repo::testing::{self, Meddled, checkpoint},
    store::mem::MemStore,
};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

async fn written(repository: &Repository, lineage: LineageId) -> Vec<i64> {
    let found = repository.checkpoints(lineage).await.unwrap();
    found.iter().map(|checkpoint| checkpoint.written.as_second()).collect()
}

/// What a session committed its snapshot has. Packs of one that was shut out or gave up may still be there.
#[tokio::test]
async fn the_last_checkpoint_of_each_session_that_committed_nothing_is_read() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let mut sessions = Vec::new();
    for number in 0..4 {
        let session = testing::begin(&repository).await;
        for at in [10, 30, 20] {
            session.put_checkpoint(&checkpoint(at + number)).await.unwrap();
        }
        sessions.push(session);
    }
    let names: Vec<SessionName> = sessions.iter().map(|session| session.name()).collect();
    let lineage = names[0].lineage;
    sessions[1].commit(&testing::snapshot(names[1], second(0))).await.unwrap();
    sessions[2].abandon("somebody asked for it").await.unwrap();
    testing::put_fence(&repository, &store, names[3], &testing::fenced(names[3]));
    assert_eq!(written(&repository, lineage).await, [33, 32, 30]);
    assert!(written(&repository, LineageId([9; 8])).await.is_empty());

    for (number, name) in (0..).zip(&names) {
        assert_eq!(repository.last_checkpoint(*name).await.unwrap(), Some(second(30 + number)));
    }
    let none = testing::begin(&repository).await;
    assert_eq!(repository.last_checkpoint(none.name()).await.unwrap(), None);
    store.tamper(&checkpoint(30).object(names[0]), Some("rubbish".into()));
    assert_eq!(repository.last_checkpoint(names[0]).await.unwrap(), None);
    assert_eq!(written(&repository, lineage).await, [33, 32]);
}

#[tokio::test]
async fn what_a_store_does_not_answer_is_not_left_out() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    let (ended, open) = (testing::begin(&repository).await, testing::begin(&repository).await);
    ended.put_checkpoint(&checkpoint(10)).await.unwrap();
    ended.commit(&testing::snapshot(ended.name(), second(0))).await.unwrap();
    open.put_checkpoint(&checkpoint(20)).await.unwrap();
    let lineage = open.name().lineage;
    assert_eq!(written(&repository, lineage).await, [20]);
    // Its end was cleaned up since it was listed.
    store.fail_gets("snapshots/", ErrorKind::NotFound);
    assert_eq!(written(&repository, lineage).await, [20, 10]);
    for prefix in ["snapshots/", "index/"] {
        store.fail_gets(prefix, ErrorKind::Unavailable);
        let error = repository.checkpoints(lineage).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{prefix}");
    }
    let error = repository.last_checkpoint(open.name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// Whoever may write can put one under any name, and make one of any tree.
#[tokio::test]
async fn what_is_another_checkpoint_or_has_no_tree_is_not_believed() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    let session = testing::begin(&repository).await;
    let (lineage, tag) = (session.name().lineage, session.name().nonce.tag());
    let put = async |checkpoint: Checkpoint| {
        session.put_checkpoint(&checkpoint).await.unwrap();
        checkpoint.object(session.name())
    };
    let name = put(checkpoint(10)).await;
    assert_eq!(repository.checkpoint(&name, lineage, tag).await.unwrap(), checkpoint(10));
    for (lineage, tag) in [(LineageId([9; 8]), tag), (lineage, SessionTag([9; 8]))] {
        let error = repository.checkpoint(&name, lineage, tag).await.unwrap_err();
        assert!(error.to_string().contains("as another checkpoint"), "{error}");
    }
    let deepest = limits::TREE_DEPTH;
    for (depth, is_read) in [(0, false), (1, true), (deepest, true), (deepest + 1, false)] {
        let name = put(Checkpoint { depth, ..checkpoint(100 + i64::from(depth)) }).await;
        let read = repository.checkpoint(&name, lineage, tag).await;
        assert_eq!(read.is_ok(), is_read, "{depth}: {read:?}");
    }
    let mut long = checkpoint(200);
    long.root.place.stored = long.root.place.plain + 4097;
    let name = put(long).await;
    let error = repository.checkpoint(&name, lineage, tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn names_begin_with_the_newest_and_a_file_changed_at_the_later_of_its_times() {
    let name = testing::name(SessionKind::Backup, 1);
    let (newer, older) = (checkpoint(20).object(name), checkpoint(10).object(name));
    assert!(newer < older, "{newer} {older}");
    let prefix = format!("index/c{}-", name.lineage);
    assert_eq!(tag_of(&newer, &prefix), Some(name.nonce.tag()));
    assert_eq!(tag_of(&newer[..newer.len() - 1], &prefix), None);
    let (earlier, later) = ((5, 900), (6, 1));
    for (mtime, ctime) in [(earlier, later), (later, earlier)] {
        let state = FileState { device: 1, inode: 2, mtime, ctime };
        assert_eq!(state.changed(), FileTime { seconds: 6, nanoseconds: 1 });
    }
}
