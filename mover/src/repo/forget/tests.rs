use super::*;
use crate::{
    format::{
        records::{SourceKind, Statistics},
        session::SessionKind,
    },
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

fn kept(policy: &KeepPolicy, marks: &[Mark]) -> Vec<u8> {
    let plan = plan_forget(&series(), marks, policy, GroupBy::default(), &TimeZone::UTC);
    let gone = plan.forget();
    let stays = |number: &u8| !gone.iter().any(|session| session.nonce.0[0] == *number);
    (1..=5).filter(stays).collect()
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

#[test]
fn series_are_kept_apart() {
    let mut snapshots = series();
    snapshots[0].host = "other".to_owned();
    let policy = KeepPolicy { last: 1, ..KeepPolicy::default() };
    let plan = plan_forget(&snapshots, &[], &policy, GroupBy::default(), &TimeZone::UTC);
    assert_eq!(plan.forget().len(), 3);
    let all = GroupBy { host: false, paths: false, tags: false };
    assert_eq!(plan_forget(&snapshots, &[], &policy, all, &TimeZone::UTC).forget().len(), 4);
}
