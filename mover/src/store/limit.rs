//! How many requests are under way at the same time.
//!
//! For a remote store the bound for packs adapts: one more after a window of successes, half after the store
//! says it is too much, or answers too slowly. Everything small (sessions, ends, listings, deletes) has slots of
//! its own, so that a bulk upload cannot starve it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::s3::{ServiceReply, Slow};
use super::{ByteRange, Decorator, ObjectStore, Page, Put};
use crate::clock::World;
use crate::error::{Error, Result};

/// Most pack requests at the same time if the options do not say.
const MAX_BULK: usize = 64;
/// Pack requests at the start.
const START_BULK: usize = 8;
/// Fewest pack requests after any number of complaints.
const MIN_BULK: usize = 2;
/// Slots for everything else.
const SMALL: usize = 16;
/// One burst of complaints counts once.
const HALVE_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// A store with a bound of requests under way.
#[derive(Debug)]
pub(super) struct Limit {
    inner: Arc<dyn ObjectStore>,
    world: World,
    bulk: Arc<Semaphore>,
    small: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allowed: usize,
    max: usize,
    min: usize,
    /// Slots to take away when they become free.
    debt: usize,
    successes: usize,
    halved: Option<Duration>,
}

enum Change {
    Nothing,
    More,
    Fewer(usize),
}

impl State {
    fn success(&mut self) -> Change {
        self.successes += 1;
        if self.successes < self.allowed || self.allowed >= self.max {
            return Change::Nothing;
        }
        self.successes = 0;
        self.allowed += 1;
        if self.debt > 0 {
            self.debt -= 1;
            return Change::Nothing;
        }
        Change::More
    }

    fn overload(&mut self, now: Duration) -> Change {
        let recent = self.halved.is_some_and(|at| now.saturating_sub(at) < HALVE_AT_MOST_EVERY);
        if recent || self.allowed <= self.min {
            return Change::Nothing;
        }
        self.halved = Some(now);
        self.successes = 0;
        let target = (self.allowed / 2).max(self.min);
        let fewer = self.allowed - target;
        self.allowed = target;
        Change::Fewer(fewer)
    }
}

impl Limit {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, max: Option<usize>, world: World) -> Self {
        let max = max.unwrap_or(MAX_BULK).max(1);
        // A local store never complains: it starts with all it may use.
        let allowed = if inner.capabilities().local { max } else { START_BULK.min(max) };
        let state = State { allowed, max, min: MIN_BULK.min(max), debt: 0, successes: 0, halved: None };
        let (bulk, small) = (Semaphore::new(allowed), Semaphore::new(SMALL.min(max)));
        Self { inner, world, bulk: Arc::new(bulk), small: Arc::new(small), state: Mutex::new(state) }
    }

    async fn slot(&self, name: &str) -> (bool, OwnedSemaphorePermit) {
        let bulk = name.starts_with("packs/");
        let slots = if bulk { &self.bulk } else { &self.small };
        (bulk, slots.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    fn done<T>(&self, (bulk, permit): (bool, OwnedSemaphorePermit), result: Result<T>) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match &result {
            Ok(_) if bulk => state.success(),
            Err(err) if is_overload(err) => state.overload(self.world.clock.monotonic()),
            _ => Change::Nothing,
        };
        match change {
            Change::Nothing => {}
            Change::More => self.bulk.add_permits(1),
            Change::Fewer(fewer) => state.debt += fewer - self.bulk.forget_permits(fewer),
        }
        if bulk && state.debt > 0 {
            state.debt -= 1;
            permit.forget();
        }
        result
    }
}

fn is_overload(err: &Error) -> bool {
    ServiceReply::of(err).is_some_and(ServiceReply::is_overload) || Slow::is_behind(err)
}

#[async_trait]
impl Decorator for Limit {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        let slot = self.slot(name).await;
        self.done(slot, self.inner.put_if_absent(name, body).await)
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let slot = self.slot(name).await;
        self.done(slot, self.inner.get(name, range).await)
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let slot = self.slot("").await;
        self.done(slot, self.inner.list(prefix, token).await)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let slot = self.slot("").await;
        self.done(slot, self.inner.delete(name).await)
    }
}

#[cfg(test)]
mod tests;
