//! Bytes and requests per second.
//!
//! Each direction has a pacer: whoever moves bytes books the time they cost at the wanted rate and waits until
//! what was booked before has passed. The long-run rate is exact; a burst is at most one object.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ByteRange, Decorator, ObjectStore, Page, Put, StoreOptions};
use crate::clock::World;
use crate::error::Result;

/// A store within limits of bytes and requests per second.
#[derive(Debug)]
pub(super) struct Throttle {
    inner: Arc<dyn ObjectStore>,
    world: World,
    up: Pacer,
    down: Pacer,
    requests: Pacer,
}

#[derive(Debug)]
struct Pacer {
    /// Units per second; none: no limit.
    rate: Option<f64>,
    booked_until: Mutex<Duration>,
}

impl Pacer {
    fn new(rate: Option<f64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0.0), booked_until: Mutex::default() }
    }

    /// Books `units` and says how long to wait before they may move.
    fn book(&self, now: Duration, units: f64) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let cost = Duration::try_from_secs_f64(units / rate).unwrap_or(Duration::from_secs(3600));
        let mut until = self.booked_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = now.max(*until);
        *until = start + cost;
        start - now
    }
}

impl Throttle {
    pub(super) fn is_wanted(options: &StoreOptions) -> bool {
        options.limit_upload_bytes_per_second.is_some()
            || options.limit_download_bytes_per_second.is_some()
            || options.requests_per_second.is_some()
    }

    pub(super) fn new(inner: Arc<dyn ObjectStore>, options: &StoreOptions, world: World) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
        let bytes = |limit: Option<u64>| Pacer::new(limit.map(|limit| limit as f64));
        Self {
            inner,
            world,
            up: bytes(options.limit_upload_bytes_per_second),
            down: bytes(options.limit_download_bytes_per_second),
            requests: Pacer::new(options.requests_per_second),
        }
    }

    async fn pace(&self, pacer: &Pacer, units: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
        let wait = pacer.book(self.world.clock.monotonic(), units as f64);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[async_trait]
impl Decorator for Throttle {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.pace(&self.requests, 1).await;
        self.pace(&self.up, body.len()).await;
        self.inner.put_if_absent(name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        self.pace(&self.requests, 1).await;
        let body = self.inner.get(name, range).await?;
        // The length of an object is known only now, so it delays those who come after.
        self.pace(&self.down, body.len()).await;
        Ok(body)
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.pace(&self.requests, 1).await;
        self.inner.list(prefix, token).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.pace(&self.requests, 1).await;
        self.inner.delete(name).await
    }
}

#[cfg(test)]
mod tests;
