use std::sync::Arc;

use super::*;
use crate::{
    repo::testing,
    store::{
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

fn backup(number: u8) -> SessionName {
    testing::name(SessionKind::Backup, number)
}

#[test]
fn in_view_is_what_has_an_end_and_a_session_and_no_marker() {
    let repack = testing::name(SessionKind::Repack, 1);
    let survey = Survey {
        ends: [backup(1), backup(2), backup(3), backup(4), repack].into(),
        forgotten: [backup(2), backup(4), backup(6)].into(),
        sessions: [backup(1), backup(2), backup(5), backup(6), repack].into(),
    };
    assert_eq!(survey.in_view(), [backup(1), repack]);
    assert_eq!(survey.visible(SessionKind::Backup), [backup(1)]);
    assert_eq!(survey.visible(SessionKind::Repack), [repack]);
    // Of the fourth a marker speaks: it is being cleaned up.
    assert_eq!(survey.orphans().collect::<Vec<_>>(), [backup(3)]);
    assert_eq!(survey.open().collect::<Vec<_>>(), [backup(5), backup(6)]);
    assert_eq!(survey.forgotten().collect::<Vec<_>>(), [backup(2), backup(4), backup(6)]);
}

/// V: in another order a snapshot that is being cleaned up can be taken for visible.
#[tokio::test]
async fn ends_are_listed_before_markers_and_those_before_sessions() {
    let calls = Arc::new(RecordStore::new(Arc::new(MemStore::new())));
    let repository = testing::create(calls.clone()).await;
    let kept = testing::commit(&repository).await;
    let forgotten = testing::commit(&repository).await;
    repository.forget(&[forgotten]).await.unwrap();
    let open = testing::begin(&repository).await.name();
    calls.take();
    let survey = repository.survey().await.unwrap();
    let listed = || -> Vec<String> {
        let lists = calls.take().into_iter().filter(|call| call.operation == Operation::List);
        lists.map(|call| call.name).collect()
    };
    assert_eq!(listed(), ["snapshots/", "forgotten/", "sessions/"]);
    assert_eq!(survey.in_view(), [kept]);
    assert_eq!(survey.open().collect::<Vec<_>>(), [open]);
    assert_eq!(survey.forgotten().collect::<Vec<_>>(), [forgotten]);
    let survey = repository.survey_of("b").await.unwrap();
    assert_eq!(listed(), ["snapshots/b", "forgotten/b", "sessions/b"]);
    assert_eq!(survey.in_view(), [kept]);
    // Where nothing has ended, nothing is in view.
    assert!(repository.survey_of("r").await.unwrap().in_view().is_empty());
    assert_eq!(listed(), ["snapshots/r"]);
}
