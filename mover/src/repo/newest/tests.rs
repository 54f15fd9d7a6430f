use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::{
    error::ErrorKind,
    format::{
        frame::Suite,
        records::{Snapshot, SourceKind},
        session::{SessionKind, SessionName},
    },
    repo::{
        Repository,
        testing::{self, Fate, Meddled},
    },
    store::{
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

/// Snapshots of one source, in a store that tells what was asked of it.
struct Series {
    store: Arc<MemStore>,
    calls: Arc<RecordStore>,
    repository: Repository,
}

fn minute(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

impl Series {
    async fn new() -> Self {
        let store = Arc::new(MemStore::new());
        let calls = Arc::new(RecordStore::new(store.clone()));
        Self { repository: testing::create(calls.clone()).await, store, calls }
    }

    /// A snapshot that was begun in one minute, and that the store took in another.
    async fn add(&self, begun: i64, taken: i64, source: SourceKind) -> SessionName {
        let lineage = self.repository.lineage("host", &[b"/data".to_vec()]);
        let begin = self.repository.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm);
        let session = begin.await.unwrap();
        self.store.set_time(minute(taken));
        let snapshot = Snapshot { source, ..testing::snapshot(session.name(), minute(begun)) };
        session.commit(&snapshot).await.unwrap();
        session.name()
    }

    /// Backups that each take a minute and a half, one after the other.
    async fn of(count: i64) -> (Self, Vec<SessionName>) {
        let (series, mut names) = (Self::new().await, Vec::new());
        for number in 0..count {
            names.push(series.add(number * 2, number * 2 + 1, SourceKind::Files).await);
        }
        (series, names)
    }

    /// The newest of this kind, and how many records were read for that before it was read once more.
    async fn newest(&self, source: SourceKind) -> (Option<SessionName>, usize) {
        let (found, read, _) = self.newest_and_problems(source).await;
        (found, read)
    }

    async fn newest_and_problems(
        &self,
        source: SourceKind,
    ) -> (Option<SessionName>, usize, Vec<SessionName>) {
        self.calls.take();
        let told = RefCell::new(Vec::new());
        let is_wanted = |snapshot: &Snapshot| snapshot.source == source;
        let found = self.repository.newest("b", is_wanted, |name, _| told.borrow_mut().push(name)).await;
        let found = found.unwrap().map(|snapshot| snapshot.session);
        let calls = self.calls.take().into_iter();
        let is_record =
            |operation, name: &str| matches!(operation, Operation::Get(_)) && name.starts_with("snapshots/");
        let read = calls.filter(|call| is_record(call.operation, &call.name)).count();
        (found, read - usize::from(found.is_some()), told.into_inner())
    }
}

#[tokio::test]
async fn of_many_snapshots_the_records_of_a_few_are_read() {
    let (series, names) = Series::of(50).await;
    assert_eq!(series.newest(SourceKind::Files).await, (names.last().copied(), 2));
    assert_eq!(series.newest(SourceKind::Block).await, (None, 50), "whoever finds none has read all");
    let image = series.add(-100, -99, SourceKind::Block).await;
    assert_eq!(series.newest(SourceKind::Block).await, (Some(image), 51), "it is the oldest of all");
    let none = Series::new().await;
    assert_eq!(none.newest(SourceKind::Files).await, (None, 0));
}

/// The backup that was begun last need not be the one that ended last, nor among the few that did.
#[tokio::test]
async fn what_took_long_does_not_pass_for_the_newest() {
    let (series, names) = Series::of(10).await;
    for end in 100..104 {
        series.add(1, end, SourceKind::Files).await;
    }
    assert_eq!(series.newest(SourceKind::Files).await, (Some(names[9]), 10));
}

/// As one does whose clock is wrong, and as a thief may.
#[tokio::test]
async fn who_claims_to_begin_in_the_future_is_the_newest_until_the_next_one() {
    let (series, _) = Series::of(3).await;
    let ahead = series.add(1_000_000, 10, SourceKind::Files).await;
    assert_eq!(series.newest(SourceKind::Files).await.0, Some(ahead));
    let next = series.add(11, 12, SourceKind::Files).await;
    assert_eq!(series.newest(SourceKind::Files).await, (Some(next), 2));
}

/// A copy of a repository has the times of the copying.
#[tokio::test]
async fn where_times_tell_nothing_all_are_read() {
    let series = Series::new().await;
    let mut newest = None;
    for number in 0..30 {
        let begun = number * 7 % 30;
        let name = series.add(begun, 1000, SourceKind::Files).await;
        newest = if begun == 29 { Some(name) } else { newest };
    }
    assert_eq!(series.newest(SourceKind::Files).await, (newest, 30));
}

/// As many more are read as were taken in the time by which a clock is wrong.
#[tokio::test]
async fn a_writer_whose_clock_is_behind_reads_some_more() {
    let series = Series::new().await;
    let mut newest = None;
    for number in 0..50 {
        newest = Some(series.add(number * 2 - 10, number * 2, SourceKind::Files).await);
    }
    assert_eq!(series.newest(SourceKind::Files).await, (newest, 10));
}

/// Between the first look and the second anything may happen.
#[tokio::test]
async fn what_changes_before_it_is_read_once_more_is_passed_over_or_stops_it() {
    let (series, names) = Series::of(20).await;
    let meddled = Arc::new(Meddled::new(series.store.clone()));
    let repository = testing::open(meddled.clone()).await.unwrap();
    let newest = async |turn: usize, fate: Fate| {
        let (end, mut gets) = (names[19].end_object(), 0);
        meddled.meddle(move |operation, name| {
            gets += usize::from(matches!(operation, Operation::Get(_)) && name == end);
            if name == end && gets == turn { fate } else { Fate::Passes }
        });
        let told = RefCell::new(Vec::new());
        let found = repository.newest("b", |_| true, |name, _| told.borrow_mut().push(name)).await;
        let found = found.map(|snapshot| snapshot.map(|snapshot| snapshot.session));
        (found.map_err(|error| error.kind()), told.into_inner())
    };
    for turn in [1, 2] {
        let unavailable = ErrorKind::Unavailable;
        assert_eq!(newest(turn, Fate::Fails(unavailable)).await, (Err(unavailable), vec![]), "{turn}");
        let gone = Fate::Fails(ErrorKind::NotFound);
        assert_eq!(newest(turn, gone).await, (Ok(Some(names[18])), vec![]), "{turn}");
        let damaged = Fate::Fails(ErrorKind::Corrupt);
        assert_eq!(newest(turn, damaged).await, (Ok(Some(names[18])), vec![names[19]]), "{turn}");
    }
    assert_eq!(newest(3, Fate::Passes).await, (Ok(Some(names[19])), vec![]));
}

#[tokio::test]
async fn what_is_gone_or_damaged_is_passed_over_and_told() {
    let (series, names) = Series::of(20).await;
    series.store.tamper(&names[19].end_object(), Some(Bytes::from_static(b"damaged")));
    series.store.tamper(&names[18].session_object(), None);
    let (found, _, told) = series.newest_and_problems(SourceKind::Files).await;
    assert_eq!((found, told), (Some(names[17]), vec![names[19]]));
}
