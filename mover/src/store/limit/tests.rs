use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Limit, START_BULK, is_overload};
use crate::clock::{World, testing::Asleep};
use crate::error::{Error, Result};
use crate::store::s3::{ServiceReply, Slow};
use crate::store::{ByteRange, Capabilities, ObjectStore, Page, Put};

/// Counts who is inside, and complains above `bearable`.
#[derive(Debug)]
struct Busy {
    inside: AtomicUsize,
    peak: AtomicUsize,
    bearable: usize,
}

#[async_trait]
impl ObjectStore for Busy {
    async fn put_if_absent(&self, _: &str, _: Bytes) -> Result<Put> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(inside, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if inside > self.bearable {
            let reply = ServiceReply { status: 503, ..ServiceReply::default() };
            return Err(Error::unavailable("too much").with_source(reply));
        }
        Ok(Put::Created)
    }

    async fn get(&self, _: &str, _: ByteRange) -> Result<Bytes> {
        Ok(Bytes::new())
    }

    async fn list(&self, _: &str, _: Option<String>) -> Result<Page> {
        Ok(Page { objects: Vec::new(), next: None })
    }

    async fn delete(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn describe(&self) -> String {
        "busy".into()
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { local: false, preferred_parallel_puts: 1, preferred_parallel_gets: 1 }
    }
}

async fn load(bearable: usize, max: usize, requests: usize) -> (Arc<Busy>, Arc<Limit>) {
    let busy = Arc::new(Busy { inside: AtomicUsize::new(0), peak: AtomicUsize::new(0), bearable });
    // However long it takes, all is one burst.
    let world = World { clock: Arc::new(Asleep::default()), ..World::system() };
    let limit = Arc::new(Limit::new(busy.clone(), Some(max), world));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..requests {
        let limit = limit.clone();
        tasks.spawn(async move { limit.put_if_absent("packs/aa/x", Bytes::new()).await.is_ok() });
    }
    while tasks.join_next().await.is_some() {}
    (busy, limit)
}

#[tokio::test]
async fn success_opens_up_to_the_bound_and_no_further() {
    let (busy, limit) = load(usize::MAX, 12, 500).await;
    assert_eq!(busy.peak.load(Ordering::SeqCst), 12);
    assert_eq!(limit.state.lock().unwrap().allowed, 12);
    assert_eq!(limit.bulk.available_permits(), 12);
}

#[tokio::test]
async fn complaints_halve_it() {
    let (_, limit) = load(0, 64, 100).await;
    let state = limit.state.lock().unwrap();
    assert_eq!(state.allowed, START_BULK / 2, "one burst counts once");
    assert_eq!(limit.bulk.available_permits(), state.allowed);
    assert_eq!(state.debt, 0);
}

#[test]
fn an_answer_that_is_too_slow_is_a_complaint_and_none_at_all_is_not() {
    let lost = || Error::unavailable("it was not there in time");
    assert!(is_overload(&lost().with_source(Slow)) && !is_overload(&lost()));
}

#[tokio::test]
async fn small_requests_pass_a_stuck_bulk() {
    let busy =
        Arc::new(Busy { inside: AtomicUsize::new(0), peak: AtomicUsize::new(0), bearable: usize::MAX });
    let limit = Limit::new(busy, Some(1), World::system());
    let stuck = limit.slot("packs/aa/x").await;
    let small = limit.put_if_absent("sessions/x", Bytes::new());
    tokio::time::timeout(Duration::from_secs(5), small).await.expect("not starved").unwrap();
    drop(stuck);
}
