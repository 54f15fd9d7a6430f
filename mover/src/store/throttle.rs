//! Bytes and requests per second.
//!
//! Each direction has a pacer: whoever moves bytes books the time they cost at the wanted rate, after what was booked
//! before, and waits until that time is over. The long-run rate is exact. A download comes in pieces of a second; an
//! upload is one request, so it waits first and then goes in one burst: what sends a part of an object cannot be
//! stopped in the middle without a server that takes it for a dead client.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

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

/// Bytes of a piece of a download at least: a request has its price.
const LEAST_PIECE_BYTES: u64 = 64 << 10;

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

    /// Books `units` and says in how long their time begins, and in how long it is over.
    fn book(&self, now: Duration, units: f64) -> (Duration, Duration) {
        let Some(rate) = self.rate else { return Default::default() };
        let cost = Duration::try_from_secs_f64(units / rate).unwrap_or(Duration::from_secs(3600));
        let mut until = self.booked_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = now.max(*until);
        *until = start + cost;
        (start - now, *until - now)
    }

    /// What moves in about a second, if there is a limit.
    fn piece(&self) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive rate of bytes"
        )]
        self.rate.map(|rate| (rate as u64).max(LEAST_PIECE_BYTES))
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

    /// Waits for the turn of one request.
    async fn request(&self) {
        self.wait(self.requests.book(self.world.clock.monotonic(), 1.0).0).await;
    }

    /// Waits until bytes have had their time.
    async fn bytes(&self, pacer: &Pacer, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
        let (_, over) = pacer.book(self.world.clock.monotonic(), count as f64);
        self.wait(over).await;
    }

    async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            self.world.sleep(time).await;
        }
    }

    async fn get_piece(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        self.request().await;
        let body = self.inner.get(name, range).await?;
        self.bytes(&self.down, body.len()).await;
        Ok(body)
    }
}

#[async_trait]
impl Decorator for Throttle {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.request().await;
        self.bytes(&self.up, body.len()).await;
        self.inner.put_if_absent(name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        // Other ranges are of records and footers.
        let (ByteRange::Slice { offset, length }, Some(piece)) = (range, self.down.piece()) else {
            return self.get_piece(name, range).await;
        };
        if length <= piece {
            return self.get_piece(name, range).await;
        }
        let mut body = BytesMut::new();
        for from in (0..length).step_by(usize::try_from(piece).unwrap_or(usize::MAX)) {
            let part = ByteRange::Slice { offset: offset + from, length: piece.min(length - from) };
            body.extend_from_slice(&self.get_piece(name, part).await?);
        }
        Ok(body.freeze())
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.request().await;
        self.inner.list(prefix, token).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.request().await;
        self.inner.delete(name).await
    }
}

#[cfg(test)]
mod tests;
