use std::sync::Arc;
use std::time::Duration;

use super::{BUDGET, Retry};
use crate::clock::World;
use crate::error::ErrorKind;
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
    Bench { retry: Retry::new(calls.clone(), &options, World::system()), calls, faulty }
}

#[tokio::test]
async fn a_primary_is_sent_once() {
    let bench = bench(Faults { lost_reply: 1.0, ..Faults::default() });
    for name in ["packs/aa/x", "sessions/x", "gc/x/condemned", "index/x"] {
        let err = bench.retry.put_if_absent(name, "x".into()).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unavailable);
        assert_eq!(bench.calls.take().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_decision_is_sent_again_until_it_is_clear() {
    let bench = bench(Faults { error_before: 1.0, ..Faults::default() });
    for name in ["snapshots/x", "gc/x/final"] {
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
    // What comes back with time while the test runs is a few tokens.
    assert!(f64::from(u32::try_from(sent).unwrap()) < 200.0 + BUDGET + 40.0, "{sent} requests");
    assert!(sent > 400, "{sent} requests");
}
