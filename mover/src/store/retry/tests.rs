use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{BUDGET, FIRST_DELAY, MAX_RETRY_AFTER, Retry, ServiceReply};
use crate::clock::{Clock, Entropy, World, testing::Asleep};
use crate::error::{Error, ErrorKind};
use crate::monitor::{Wait, WaitMonitor};
use crate::store::faulty::{Faults, FaultyStore};
use crate::store::mem::MemStore;
use crate::store::record::{Operation, RecordStore};
use crate::store::{ByteRange, ObjectStore, Put, StoreOptions};

struct Bench {
    calls: Arc<RecordStore>,
    faulty: Arc<FaultyStore>,
    retry: Retry,
}

fn bench(faults: Faults) -> Bench {
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemStore::new()), faults));
    let calls = Arc::new(RecordStore::new(faulty.clone()));
    let options =
        StoreOptions { max_retries: 5, max_retry_delay: Duration::from_millis(1), ..StoreOptions::default() };
    let world = World { clock: Arc::new(Asleep::default()), ..World::system() };
    Bench { retry: Retry::new(calls.clone(), &options, world), calls, faulty }
}

#[tokio::test]
async fn a_primary_is_sent_once() {
    let bench = bench(Faults { lost_reply: 1.0, ..Faults::default() });
    for name in ["packs/aa/x", "sessions/x", "gc/x.condemned", "index/x"] {
        let err = bench.retry.put_if_absent(name, "x".into()).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unavailable);
        assert_eq!(bench.calls.take().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_decision_is_sent_again_until_it_is_clear() {
    let bench = bench(Faults { error_before: 1.0, ..Faults::default() });
    for name in ["snapshots/x", "gc/x.final"] {
        let err = bench.retry.put_if_absent(name, "x".into()).await.unwrap_err();
        assert!(err.to_string().contains("6 tries"), "{err}");
        assert_eq!(bench.calls.take().len(), 6, "{name}");
    }
    bench.faulty.set(Faults::default());
    assert_eq!(bench.retry.put_if_absent("snapshots/x", "x".into()).await.unwrap(), Put::Created);
}

#[tokio::test]
async fn repeatable_calls_survive_an_unreliable_store() {
    let bench = bench(Faults { seed: 3, error_before: 0.2, lost_reply: 0.2, ..Faults::default() });
    bench.retry.put_if_absent("snapshots/x", "end".into()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(bench.retry.get("snapshots/x", ByteRange::All).await.unwrap(), "end");
        assert_eq!(bench.retry.list("", None).await.unwrap().objects.len(), 1);
    }
    bench.retry.delete("snapshots/x").await.unwrap();
    assert!(bench.faulty.injected() > 20);
}

#[tokio::test]
async fn a_clear_answer_is_final() {
    let bench = bench(Faults::default());
    assert_eq!(bench.retry.get("none", ByteRange::All).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.calls.take().len(), 1);
}

#[tokio::test]
async fn the_budget_bounds_what_a_brown_out_gets() {
    let bench = bench(Faults { error_before: 1.0, ..Faults::default() });
    for _ in 0..200 {
        bench.retry.get("x", ByteRange::All).await.unwrap_err();
    }
    let sent = bench.calls.take().iter().filter(|call| matches!(call.operation, Operation::Get(_))).count();
    // No time passes but in the pauses, and all of them together are too short for a token to come back.
    assert_eq!(sent, 200 + BUDGET as usize);
}

/// A clock on which every look takes a second.
#[derive(Debug, Default)]
struct Slow(AtomicU64);

impl Clock for Slow {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Wait>>);

impl WaitMonitor for Heard {
    fn waiting(&self, wait: &Wait) {
        self.0.lock().unwrap().push(wait.clone());
    }
}

#[tokio::test]
async fn a_store_that_stays_away_is_told_of_once() {
    let away = Faults { error_before: 1.0, ..Faults::default() };
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemStore::new()), away));
    let heard = Arc::new(Heard::default());
    let waits: Arc<dyn WaitMonitor> = heard.clone();
    let max_retry_delay = Duration::from_millis(1);
    let options = StoreOptions { max_retry_delay, waits: Some(waits), ..StoreOptions::default() };
    let world = World { clock: Arc::new(Slow::default()), ..World::system() };
    let retry = Retry::new(faulty.clone(), &options, world);
    for _ in 0..2 {
        retry.get("x", ByteRange::All).await.unwrap_err();
        retry.put_if_absent("packs/aa/x", "x".into()).await.unwrap_err();
    }
    let waits = std::mem::take(&mut *heard.0.lock().unwrap());
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!(waits[0].place, faulty.describe());
    assert!(!waits[0].cause.is_empty() && waits[0].tries_left.is_some_and(|left| left >= 5), "{waits:?}");

    // An answer ends it, even one that says no; the next time is told again, also where no request is repeated here.
    faulty.set(Faults::default());
    assert_eq!(retry.get("x", ByteRange::All).await.unwrap_err().kind(), ErrorKind::NotFound);
    faulty.set(away);
    for _ in 0..3 {
        retry.put_if_absent("packs/aa/x", "x".into()).await.unwrap_err();
    }
    let waits = heard.0.lock().unwrap().clone();
    assert_eq!(waits.iter().map(|wait| wait.tries_left).collect::<Vec<_>>(), [None]);
}

/// Dice that fall as they are told, over and over.
#[derive(Debug)]
struct Dice(Mutex<std::iter::Cycle<std::vec::IntoIter<u32>>>);

impl Entropy for Dice {
    fn fill(&self, buf: &mut [u8]) {
        buf.copy_from_slice(&self.0.lock().unwrap().next().unwrap().to_le_bytes());
    }
}

/// Over a store that never answers.
fn with_dice(dice: &[u32]) -> (Retry, Arc<Asleep>) {
    let away = Faults { error_before: 1.0, ..Faults::default() };
    let store = Arc::new(FaultyStore::new(Arc::new(MemStore::new()), away));
    let clock = Arc::new(Asleep::default());
    let dice: Vec<u32> = dice.to_vec();
    let entropy = Arc::new(Dice(Mutex::new(dice.into_iter().cycle())));
    let options =
        StoreOptions { max_retries: 9, max_retry_delay: Duration::from_secs(5), ..StoreOptions::default() };
    (Retry::new(store, &options, World { clock: clock.clone(), entropy }), clock)
}

/// The pauses of one request that gets no answer; `asked`: what the service says of how long to wait.
fn pauses(dice: &[u32], asked: Option<Duration>) -> Vec<Duration> {
    let (retry, _) = with_dice(dice);
    let reply = ServiceReply { status: 503, retry_after: asked, ..ServiceReply::default() };
    let err = Error::unavailable("away").with_source(reply);
    let pauses: Vec<Duration> = (0..9).map(|attempt| retry.pause(&err, attempt).unwrap()).collect();
    assert_eq!(retry.pause(&err, 9), None, "more tries than were allowed");
    pauses
}

/// What no pause is longer than.
fn bounds() -> Vec<Duration> {
    let longest = Duration::from_secs(5);
    (0..9).map(|attempt| (FIRST_DELAY * (1 << attempt)).min(longest)).collect()
}

#[test]
fn pauses_are_anywhere_between_half_and_all_of_a_bound_that_doubles() {
    let bounds = bounds();
    assert_eq!(bounds[..3], [100, 200, 400].map(Duration::from_millis));
    assert_eq!(bounds[7..], [5, 5].map(Duration::from_secs));
    assert_eq!(pauses(&[u32::MAX], None), bounds);
    assert_eq!(pauses(&[0], None), bounds.iter().map(|bound| *bound / 2).collect::<Vec<_>>());
    let mut seen = std::collections::BTreeSet::new();
    let mut dice = 1_u32;
    for _ in 0..200 {
        dice = dice.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let pauses = pauses(&[dice], None);
        let fits = |(pause, bound): (&Duration, &Duration)| (*bound / 2..=*bound).contains(pause);
        assert!(pauses.iter().zip(&bounds).all(fits), "{pauses:?}");
        seen.insert(pauses[0]);
    }
    assert!(seen.len() > 190, "clients that fail together come again together: {seen:?}");
    assert!(seen.first().unwrap() < &Duration::from_millis(55), "{seen:?}");
    assert!(seen.last().unwrap() > &Duration::from_millis(95), "{seen:?}");
}

#[test]
fn a_store_that_is_away_for_seconds_is_outlasted_however_the_dice_fall() {
    let options = StoreOptions::default();
    let entropy = Arc::new(Dice(Mutex::new(vec![0].into_iter().cycle())));
    let world = World { clock: Arc::new(Asleep::default()), entropy };
    let retry = Retry::new(Arc::new(MemStore::new()), &options, world);
    let err = Error::unavailable("away");
    let pauses = (0..options.max_retries).map(|attempt| retry.pause(&err, attempt).unwrap());
    assert!(pauses.sum::<Duration>() > Duration::from_secs(12));
}

#[test]
fn two_pauses_differ_where_the_dice_do_and_only_there() {
    let pauses = |dice: &[u32]| pauses(dice, None);
    assert_eq!(pauses(&[1 << 30]), pauses(&[1 << 30]));
    assert_ne!(pauses(&[1 << 30]), pauses(&[3 << 30]));
    // Of one client, one after the other.
    let turned = pauses(&[1 << 30, 3 << 30]);
    assert!(turned[7] < Duration::from_millis(4400) && turned[7] > Duration::from_millis(4300), "{turned:?}");
    assert!(turned[8] < Duration::from_millis(3200) && turned[8] > Duration::from_millis(3100), "{turned:?}");
    // And with the dice of the system.
    let retry = Retry::new(Arc::new(MemStore::new()), &StoreOptions::default(), World::system());
    let err = Error::unavailable("away");
    assert_ne!(
        [7; 4].map(|attempt| retry.pause(&err, attempt)),
        [7; 4].map(|attempt| retry.pause(&err, attempt))
    );
}

#[test]
fn a_service_that_asks_for_a_pause_gets_it() {
    let seven = Duration::from_secs(7);
    assert_eq!(pauses(&[0], Some(seven)), [seven; 9]);
    assert_eq!(
        pauses(&[u32::MAX], Some(Duration::from_millis(300)))[..3],
        [300, 300, 400].map(Duration::from_millis)
    );
    assert_eq!(pauses(&[0], Some(Duration::from_secs(86_400))), [MAX_RETRY_AFTER; 9]);
}

#[tokio::test]
async fn the_pauses_are_slept() {
    let (retry, clock) = with_dice(&[u32::MAX]);
    retry.get("x", ByteRange::All).await.unwrap_err();
    assert_eq!(clock.monotonic(), bounds().iter().sum::<Duration>());
}
