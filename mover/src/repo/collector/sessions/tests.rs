use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::{
    clock::Clock as _,
    format::session::SessionKind,
    repo::{
        PINNED, PruneOptions, VERIFIED,
        mark::testing::{Stage, Watcher, backup},
        testing::{self, Fate, Meddled, begin, checkpoint, fenced, put_fence},
    },
    store::record::{Operation, RecordStore},
};

const DAY: u64 = 24 * 3600;

/// Whether all sessions have ended that are to be waited for a minute, and how many were shut out for that.
async fn all_ended(repository: &Repository) -> (bool, u64) {
    let (watcher, mut report) = (Watcher::default(), PruneReport::default());
    let plan = PrunePlan::new(&PruneOptions::default());
    let ended = repository.all_ended(&plan, watcher.watch(), &mut report).await.unwrap();
    (ended, report.fenced)
}

#[tokio::test]
async fn sessions_are_waited_for_as_long_as_the_plan_says() {
    let stage = Stage::new().await;
    backup(&stage.repository, &[]).await;
    assert_eq!(all_ended(&stage.repository).await, (true, 0));
    assert_eq!(stage.clock.monotonic(), Duration::ZERO);
    let open = begin(&stage.repository).await;
    assert_eq!(all_ended(&stage.repository).await, (false, 0));
    assert_eq!(stage.clock.monotonic(), Duration::from_secs(60));

    // It ends while it is waited for, before the third look.
    let (store, end, mut looks) = (stage.store.clone(), open.name().end_object(), 0);
    let meddled = stage.meddled(move |_, name| {
        looks += u32::from(name == end);
        if looks == 3 {
            store.tamper(&end, Some(Bytes::from_static(b"whatever it is")));
        }
        Fate::Passes
    });
    assert_eq!(all_ended(&meddled.await).await, (true, 0));
    assert_eq!(stage.clock.monotonic(), Duration::from_millis(60_300));

    // One that gives no sign of life is shut out at once, and one that is away is none.
    let (silent, gone) = (begin(&stage.repository).await.name(), begin(&stage.repository).await.name());
    stage.set_started(silent, -86_400).await;
    stage.store.tamper(&gone.session_object(), None);
    assert_eq!(all_ended(&stage.repository).await, (true, 1));
    assert_eq!(stage.clock.monotonic(), Duration::from_millis(60_300));
    let watcher = Watcher::default();
    watcher.cancel.cancel();
    let (plan, mut report) = (PrunePlan::new(&PruneOptions::default()), PruneReport::default());
    let error = stage.repository.all_ended(&plan, watcher.watch(), &mut report).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_session_has_ended_if_its_end_is_there_or_its_object_is_not() {
    let stage = Stage::new().await;
    let session = begin(&stage.repository).await.name();
    let object = stage.body(&session.session_object()).await;
    let ended = async |stage: &Stage| stage.repository.clone().has_ended(session, DAY).await.unwrap();
    for (has_end, has_object, expected) in [
        (true, true, Some(false)),
        (true, false, Some(false)),
        (false, false, Some(false)),
        (false, true, None),
    ] {
        stage.store.tamper(&session.end_object(), has_end.then(|| Bytes::from_static(b"an end")));
        stage.store.tamper(&session.session_object(), has_object.then(|| object.clone()));
        assert_eq!(ended(&stage).await, expected, "{has_end} {has_object}");
    }
    stage.set_started(session, -86_400).await;
    let late = stage.fork().await;
    assert_eq!(ended(&stage).await, Some(true), "it is shut out");
    assert!(stage.repository.has_tombstone(session).await.unwrap());
    // Its own end comes first.
    let (store, end) = (late.store.clone(), session.end_object());
    let meddled = late.meddled(move |operation, name| {
        if operation == Operation::Put && name == end {
            store.tamper(name, Some(Bytes::from_static(b"its own end")));
        }
        Fate::Passes
    });
    assert_eq!(meddled.await.has_ended(session, DAY).await.unwrap(), Some(false));
    assert_eq!(late.body(&session.end_object()).await, "its own end");
    assert!(!late.repository.fence(session, "it was overdue").await.unwrap(), "it stays");
}

/// Seconds from its beginning or its last checkpoint to now, in either direction: a clock may be wrong.
#[tokio::test]
async fn a_session_is_overdue_that_gave_no_sign_of_life_for_so_long() {
    let stage = Stage::new().await;
    let (open, began) = (begin(&stage.repository).await, 3600);
    let session = open.name();
    for (started, after, expected) in [
        (-began, 3600, true),
        (-began, 3601, false),
        (began, 3600, true),
        (began, 3601, false),
        (0, 0, true),
        (0, 1, false),
    ] {
        stage.set_started(session, started).await;
        let overdue = stage.repository.is_overdue(session, after).await.unwrap();
        assert_eq!(overdue, expected, "{started} {after}");
    }
    stage.set_started(session, began).await;
    let young = stage.fork().await;
    open.put_checkpoint(&checkpoint(3600)).await.unwrap();
    assert!(stage.repository.is_overdue(session, 3600).await.unwrap(), "it says nothing new");
    for name in stage.names("index/").await {
        stage.store.tamper(&name, None);
    }
    open.put_checkpoint(&checkpoint(3599)).await.unwrap();
    assert!(!stage.repository.is_overdue(session, 3600).await.unwrap());

    // What nobody can read, or only a newer version, commits nothing.
    let whole = young.body(&session.session_object()).await;
    let mut newer = whole.to_vec();
    newer[4] = 2;
    let newer_json = String::from_utf8(whole.to_vec()).unwrap().replace("\"version\":1", "\"version\":2");
    for body in [Bytes::from_static(b"rubbish"), newer.into(), newer_json.into()] {
        young.store.tamper(&session.session_object(), Some(body));
        assert!(young.repository.is_overdue(session, u64::MAX).await.unwrap());
    }
    young.store.tamper(&session.session_object(), None);
    assert!(!young.repository.is_overdue(session, 0).await.unwrap(), "it is gone");
    let meddled = Arc::new(Meddled::new(young.store.clone()));
    let silent = young.through(meddled.clone()).await;
    meddled.fail_gets("sessions/", ErrorKind::Unavailable);
    assert_eq!(silent.is_overdue(session, 0).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(silent.exists(&session.session_object()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn of_many_sessions_some_are_asked_for_at_once() {
    let (stage, watcher) = (Stage::new().await, Watcher::default());
    let names: Vec<SessionName> = (0..40).map(|number| testing::name(SessionKind::Backup, number)).collect();
    let store = Arc::new(Meddled::new(stage.store.clone()));
    let repository = stage.through(store.clone()).await;
    store.take_most_gets();
    let ask = |repository: Repository, name: SessionName| async move {
        repository.exists(&name.end_object()).await
    };
    let answers = repository.each_of(names.iter().rev(), ask).await.unwrap();
    let expected: BTreeMap<_, _> = names.iter().map(|name| (*name, false)).collect();
    assert_eq!(answers, expected);
    assert_eq!(store.take_most_gets(), PARALLEL_SESSIONS);
    // Of none there is anything to clean up.
    assert_eq!(repository.clean_up(&names, watcher.watch()).await.unwrap(), 0);
    assert_eq!(store.take_most_gets(), PARALLEL_SESSIONS);
    let refuse = |_: Repository, name: SessionName| async move {
        if name.nonce.0[0] == 7 { Err(Error::denied("not this one")) } else { Ok(()) }
    };
    assert_eq!(repository.each_of(&names, refuse).await.unwrap_err().kind(), ErrorKind::Denied);
    watcher.cancel.cancel();
    let error = repository.clean_up(&names, watcher.watch()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

async fn pinned(stage: &Stage) -> SessionName {
    let session = backup(&stage.repository, &[]).await.session;
    stage.repository.mark_snapshot(session, PINNED).await.unwrap();
    session
}

#[tokio::test]
async fn only_what_was_forgotten_or_shut_out_is_cleaned_up() {
    let (stage, watcher) = (Stage::new().await, Watcher::default());
    let repository = &stage.repository;
    let [forgotten, standing] = [pinned(&stage).await, pinned(&stage).await];
    repository.forget(&[forgotten]).await.unwrap();
    assert!(repository.was_forgotten(forgotten).await.unwrap(), "its marker says so");
    let (shut_out, open) = (begin(repository).await.name(), begin(repository).await.name());
    assert!(repository.fence(shut_out, "it was overdue").await.unwrap());
    let fence = stage.body(&shut_out.end_object()).await;
    let all = [forgotten, standing, shut_out, open];
    assert_eq!(repository.clean_up(&all, watcher.watch()).await.unwrap(), 2);
    let mut left = [standing.session_object(), open.session_object()];
    left.sort();
    assert_eq!(stage.names("sessions/").await, left);
    let end = repository.end(forgotten).await.unwrap();
    assert!(matches!(end, Some(End::Fenced { cleaned_up: true })), "{end:?}");
    assert_eq!(stage.body(&shut_out.end_object()).await, fence, "it is a tombstone already");
    // Who saw them before asks what became of them: to be shut out is another end than to be forgotten.
    assert!(repository.was_forgotten(forgotten).await.unwrap());
    for other in [standing, shut_out, open] {
        assert!(!repository.was_forgotten(other).await.unwrap(), "{other}");
    }
    assert!(matches!(repository.end(standing).await.unwrap(), Some(End::Committed(_))));
    assert!(repository.end(open).await.unwrap().is_none());
    let marks = stage.names("marks/").await;
    assert!(marks.len() == 1 && marks[0].contains(&standing.to_string()), "{marks:?}");
    assert_eq!(stage.names("forgotten/").await.len(), 0);
    assert_eq!(repository.clean_up(&all, watcher.watch()).await.unwrap(), 0, "there is nothing left of them");
}

/// CLEANUP and FENCE: a clean-up that is killed leaves its marker until the fence is there.
#[tokio::test]
async fn a_session_goes_first_and_its_marker_last() {
    let (stage, watcher) = (Stage::new().await, Watcher::default());
    let session = backup(&stage.repository, &[]).await.session;
    stage.repository.mark_snapshot(session, VERIFIED).await.unwrap();
    stage.repository.forget(&[session]).await.unwrap();
    let [mark, marker] = [stage.names("marks/").await.remove(0), stage.names("forgotten/").await.remove(0)];
    let calls = Arc::new(RecordStore::new(stage.store.clone()));
    let repository = stage.through(calls.clone()).await;
    calls.take();
    repository.clean_up(&[session], watcher.watch()).await.unwrap();
    let changes = calls.take().into_iter();
    let changes = changes.filter(|call| matches!(call.operation, Operation::Put | Operation::Delete));
    let changes: Vec<_> = changes.map(|call| (call.operation, call.name)).collect();
    let (object, end) = (session.session_object(), session.end_object());
    let expected = [
        (Operation::Delete, object),
        (Operation::Delete, end.clone()),
        (Operation::Put, end),
        (Operation::Delete, mark),
        (Operation::Delete, marker),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn an_end_that_comes_back_is_deleted_again_but_not_for_ever() {
    for (times, is_buried) in [(0, true), (3, true), (4, false)] {
        let stage = Stage::new().await;
        let session = backup(&stage.repository, &[]).await.session;
        let (store, mut puts) = (stage.store.clone(), 0);
        let body = stage.body(&session.end_object()).await;
        let meddled = stage.meddled(move |operation, name| {
            puts += u32::from(operation == Operation::Put);
            if operation == Operation::Put && puts <= times {
                store.tamper(name, Some(body.clone()));
            }
            Fate::Passes
        });
        let buried = meddled.await.bury(session).await.map_err(|error| error.kind());
        assert_eq!(buried, if is_buried { Ok(()) } else { Err(ErrorKind::Unavailable) }, "{times}");
        assert_eq!(stage.repository.has_tombstone(session).await.unwrap(), is_buried);
    }
}

#[tokio::test]
async fn marks_go_with_what_they_speak_of_and_not_before() {
    let stage = Stage::new().await;
    let [standing, lost] = [pinned(&stage).await, pinned(&stage).await];
    let [gone, buried] = [pinned(&stage).await, pinned(&stage).await];
    for session in [lost, gone, buried] {
        stage.store.tamper(&session.session_object(), None);
    }
    stage.store.tamper(&gone.end_object(), None);
    stage.repository.bury(buried).await.unwrap();
    stage.store.tamper("marks/rubbish", Some(Bytes::from_static(b"rubbish")));
    stage.repository.drop_orphan_marks().await.unwrap();
    let left = stage.names("marks/").await;
    let is_left = |session: SessionName| left.iter().any(|name| name.contains(&session.to_string()));
    assert_eq!([standing, lost, gone, buried].map(is_left), [true, true, false, false]);
    assert_eq!(left.len(), 3);
}

/// A tombstone is for a late PUT of the end, which nobody waits for as long.
#[tokio::test]
async fn old_tombstones_go_and_young_ones_stay() {
    let stage = Stage::new().await;
    let mut all = Vec::new();
    for (days, is_open) in [(-31, false), (-31, true), (0, false)] {
        let session = begin(&stage.repository).await.name();
        let created = Timestamp::from_second(days * 86_400).unwrap();
        let fence = Fenced { created, ..fenced(session) };
        put_fence(&stage.repository, &stage.store, session, &fence);
        if !is_open {
            stage.store.tamper(&session.session_object(), None);
        }
        all.push(session);
    }
    stage.repository.drop_orphan_ends().await.unwrap();
    let left = stage.names("snapshots/").await;
    let is_left = |session: &SessionName| left.contains(&session.end_object());
    assert_eq!(all.iter().map(is_left).collect::<Vec<_>>(), [false, true, true]);
}
