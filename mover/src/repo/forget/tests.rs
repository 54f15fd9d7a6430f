use super::*;
use crate::{
    format::{records::Statistics, session::SessionKind},
    id::{LineageId, SessionNonce},
};

fn snapshot(number: u8, time: &str, tags: &[&str]) -> Snapshot {
    let started: Timestamp = time.parse().unwrap();
    Snapshot {
        version: 1,
        session: SessionName {
            kind: SessionKind::Backup,
            lineage: LineageId([1; 8]),
            nonce: SessionNonce([number; 16]),
        },
        source: SourceKind::Files,
        host: "h".to_owned(),
        user: String::new(),
        paths: vec!["/data".to_owned()],
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        started,
        finished: started,
        parent: None,
        grid: 0,
        change_id: None,
        root: None,
        depth: 0,
        sessions: Vec::new(),
        statistics: Statistics::default(),
        problems: Vec::new(),
        program: String::new(),
        copied_from: None,
    }
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
    assert_eq!(emptied(&[], GroupBy::default()), ["host h; paths /data"]);
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
