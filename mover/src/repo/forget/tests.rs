use std::sync::Arc;

use super::*;
use crate::{
    format::session::SessionKind,
    id::{LineageId, RandomId, SessionNonce},
    repo::{
        mark::testing::{Stage, backup},
        testing,
    },
    store::record::{Operation, RecordStore},
};

fn snapshot(number: u8, time: &str, tags: &[&str]) -> Snapshot {
    let session = SessionName {
        kind: SessionKind::Backup,
        lineage: LineageId([1; 8]),
        nonce: SessionNonce([number; 16]),
    };
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Snapshot { tags, ..testing::snapshot(session, time.parse().unwrap()) }
}

fn series() -> Vec<Snapshot> {
    vec![
        snapshot(1, "2025-12-31T23:00:00Z", &[]),
        snapshot(2, "2026-01-01T01:00:00Z", &["keep", "db"]),
        snapshot(3, "2026-01-01T02:10:00Z", &[]),
        snapshot(4, "2026-01-01T02:50:00Z", &[]),
        snapshot(5, "2026-01-09T00:00:00Z", &[]),
    ]
}

fn plan(snapshots: &[Snapshot], marks: &[Mark], policy: &KeepPolicy, group_by: GroupBy) -> ForgetPlan {
    plan_forget(snapshots, marks, &SnapshotFilter::default(), policy, group_by, &TimeZone::UTC)
}

fn staying(plan: &ForgetPlan) -> Vec<u8> {
    let gone = plan.forget();
    let stays = |number: &u8| !gone.iter().any(|session| session.nonce.0[0] == *number);
    (1..=5).filter(stays).collect()
}

fn kept(policy: &KeepPolicy, marks: &[Mark]) -> Vec<u8> {
    staying(&plan(&series(), marks, policy, GroupBy::default()))
}

fn mark(number: u8, word: &str) -> Mark {
    Mark {
        session: series()[usize::from(number) - 1].session,
        word: word.to_owned(),
        created: Timestamp::UNIX_EPOCH,
    }
}

/// When summer time ends, an hour comes twice: two hours with one name.
#[test]
fn an_hour_that_comes_twice_is_two_hours() {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let snapshots = [snapshot(1, "2026-10-25T00:30:00Z", &[]), snapshot(2, "2026-10-25T01:30:00Z", &[])];
    let policy = KeepPolicy { hourly: 2, ..KeepPolicy::default() };
    let of_all = SnapshotFilter::default();
    let plan = plan_forget(&snapshots, &[], &of_all, &policy, GroupBy::default(), &zone);
    assert!(plan.forget().is_empty(), "{plan:?}");
}

#[test]
fn an_hour_goes_from_its_first_second_to_its_last() {
    let times = ["02:00:00", "02:10:20", "02:10:50", "02:59:59", "03:00:00"];
    let of_day = |(number, time)| snapshot(number, &format!("2026-01-01T{time}Z"), &[]);
    let snapshots: Vec<Snapshot> = (1..=5).zip(times).map(of_day).collect();
    let policy = KeepPolicy { hourly: 9, ..KeepPolicy::default() };
    assert_eq!(staying(&plan(&snapshots, &[], &policy, GroupBy::default())), [4, 5]);
}

#[test]
fn each_rule_keeps_what_it_says() {
    let policy = KeepPolicy::default;
    for (policy, expected) in [
        (policy(), vec![1, 2, 3, 4, 5]),
        (KeepPolicy { last: 2, ..policy() }, vec![4, 5]),
        (KeepPolicy { hourly: 3, ..policy() }, vec![2, 4, 5]),
        (KeepPolicy { daily: 2, ..policy() }, vec![4, 5]),
        (KeepPolicy { weekly: 2, ..policy() }, vec![4, 5]),
        (KeepPolicy { monthly: 2, ..policy() }, vec![1, 5]),
        (KeepPolicy { yearly: 9, ..policy() }, vec![1, 5]),
        (KeepPolicy { within: Some(Span::new().days(8)), ..policy() }, vec![2, 3, 4, 5]),
        (KeepPolicy { within: Some(Span::new()), ..policy() }, vec![5]),
        (KeepPolicy { within: Some(Span::new().years(2026)), ..policy() }, vec![1, 2, 3, 4, 5]),
        (KeepPolicy { within: Some(Span::new().years(13_000)), ..policy() }, vec![1, 2, 3, 4, 5]),
        (KeepPolicy { within: Some(Span::new().days(5_000_000)), ..policy() }, vec![1, 2, 3, 4, 5]),
        (KeepPolicy { tags: vec!["keep".to_owned()], ..policy() }, vec![2]),
        (KeepPolicy { tags: vec!["keep,db".to_owned()], ..policy() }, vec![2]),
        (KeepPolicy { tags: vec!["keep,other".to_owned()], ..policy() }, vec![]),
        (KeepPolicy { last: u32::MAX, ..policy() }, vec![1, 2, 3, 4, 5]),
        (KeepPolicy { hourly: u32::MAX, ..policy() }, vec![1, 2, 4, 5]),
        (KeepPolicy { last: 1, yearly: 2, ..policy() }, vec![1, 5]),
    ] {
        assert_eq!(kept(&policy, &[]), expected, "{policy:?}");
    }
}

#[test]
fn pins_and_the_last_verified_one_stay() {
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    let marks = [mark(1, "pinned"), mark(2, "verified"), mark(3, "verified")];
    assert_eq!(kept(&policy, &marks), [1, 3, 5]);
}

const ALL_TOGETHER: GroupBy = GroupBy { host: false, paths: false, tags: false };

#[test]
fn series_are_kept_apart() {
    let mut snapshots = series();
    snapshots[0].host = "other".to_owned();
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    assert_eq!(plan(&snapshots, &[], &policy, GroupBy::default()).forget().len(), 3);
    assert_eq!(plan(&snapshots, &[], &policy, ALL_TOGETHER).forget().len(), 4);
}

/// Rules that look at all sources together, or at snapshots of one tag, do not move what is promised of each source.
#[test]
fn the_last_verified_one_of_a_source_stays_however_rules_group_and_filter() {
    let mut snapshots = series();
    for snapshot in &mut snapshots[..3] {
        snapshot.paths = vec!["/other".to_owned()];
    }
    let marks = [mark(1, "verified"), mark(2, "verified"), mark(4, "verified")];
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    let by_host = GroupBy { host: true, ..ALL_TOGETHER };
    let by_tag = GroupBy { tags: true, ..ALL_TOGETHER };
    for group_by in [ALL_TOGETHER, by_host] {
        assert_eq!(staying(&plan(&snapshots, &marks, &policy, group_by)), [2, 4, 5], "{group_by:?}");
    }
    // By tags, the second is also the last of its kind.
    assert_eq!(staying(&plan(&snapshots, &marks, &policy, by_tag)), [2, 4, 5]);
    // The first one was verified too, but a later one was: its tag does not make it the last of its source.
    snapshots[0].tags = vec!["old".to_owned()];
    let filter = SnapshotFilter { tags: vec!["old".to_owned()], ..SnapshotFilter::default() };
    let none = KeepPolicy { tags: vec!["none".to_owned()], ..KeepPolicy::default() };
    let of_tag = |marks| plan_forget(&snapshots, marks, &filter, &none, by_host, &TimeZone::UTC);
    assert_eq!(staying(&of_tag(&marks[..])), [2, 3, 4, 5]);
    assert_eq!(staying(&of_tag(&marks[..1])), [1, 2, 3, 4, 5]);
}

#[test]
fn a_series_of_which_nothing_would_stay_is_named() {
    let mut snapshots = series();
    snapshots[1].host = "other".to_owned();
    let policy = KeepPolicy { tags: vec!["keep".to_owned()], ..KeepPolicy::default() };
    let emptied = |marks: &[Mark], group_by| {
        let plan = plan(&snapshots, marks, &policy, group_by);
        plan.emptied.iter().map(Series::to_string).collect::<Vec<_>>()
    };
    assert_eq!(emptied(&[], GroupBy::default()), ["host host; paths /data"]);
    assert_eq!(emptied(&[mark(1, "pinned")], GroupBy::default()), [""; 0]);
    assert_eq!(emptied(&[], ALL_TOGETHER), [""; 0]);
    assert_eq!(emptied(&[], GroupBy { tags: true, ..ALL_TOGETHER }), ["no tags"]);
}

#[test]
fn an_image_and_a_file_of_the_same_path_are_two_series() {
    let image = Snapshot { source: SourceKind::Block, ..snapshot(1, "2026-01-01T00:00:00Z", &[]) };
    let snapshots = [image, snapshot(2, "2026-01-02T00:00:00Z", &[])];
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    let filter = SnapshotFilter::default();
    let plan = plan_forget(&snapshots, &[], &filter, &policy, GroupBy::default(), &TimeZone::UTC);
    assert_eq!(plan.forget(), []);
}

/// Whether a name is this one with a random part behind it, so that nobody can take it before.
fn is_random(name: &str, begin: &str) -> bool {
    name.strip_prefix(begin).and_then(RandomId::from_hex).is_some()
}

#[tokio::test]
async fn marks_of_one_word_are_taken_off_and_others_stay() {
    let stage = Stage::new().await;
    let repository = &stage.repository;
    let [session, other] = [backup(repository, &[]).await.session, backup(repository, &[]).await.session];
    for (session, word) in [(session, PINNED), (session, PINNED), (session, VERIFIED), (other, PINNED)] {
        repository.mark_snapshot(session, word).await.unwrap();
    }
    let marks = repository.snapshots().await.unwrap();
    assert!(marks.is_marked(session, PINNED) && marks.is_marked(session, VERIFIED));
    for count in [2, 0] {
        assert_eq!(repository.unmark_snapshot(session, PINNED).await.unwrap(), count);
    }
    let mut names = stage.names("marks/").await;
    names.sort_by_key(|name| name.contains(VERIFIED));
    assert_eq!(names.len(), 2);
    assert!(is_random(&names[0], &format!("marks/{other}.{PINNED}.")), "{names:?}");
    assert!(is_random(&names[1], &format!("marks/{session}.{VERIFIED}.")), "{names:?}");
    assert_eq!(repository.unmark_snapshot(session, VERIFIED).await.unwrap(), 1);
}

/// FORGET: a marker is put, and nothing is deleted.
#[tokio::test]
async fn what_is_forgotten_is_out_of_view_and_stays_until_a_prune() {
    let stage = Stage::new().await;
    let [gone, stays] = [backup(&stage.repository, &[]).await, backup(&stage.repository, &[]).await];
    let before = stage.names("").await;
    let calls = Arc::new(RecordStore::new(stage.store.clone()));
    let repository = stage.through(calls.clone()).await;
    repository.forget(&[gone.session]).await.unwrap();
    assert_eq!(calls.take().last().unwrap().operation, Operation::Flush, "what is said is durable");
    assert_eq!(repository.visible("b").await.unwrap(), [stays.session]);
    let markers = stage.names("forgotten/").await;
    assert!(markers.len() == 1 && is_random(&markers[0], &format!("forgotten/{}.", gone.session)));
    stage.store.tamper(&markers[0], None);
    assert_eq!(stage.names("").await, before);
}
