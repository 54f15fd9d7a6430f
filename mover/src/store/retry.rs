//! The one layer that sends a request again.
//!
//! Only errors of kind `Unavailable`, and only calls that may be repeated: get, list, delete, and the put of a
//! decision object. The put of a primary object is sent once; its caller takes a new name. A failed flush is not
//! repeated either: the kernel reports lost pages once, and a second sync would succeed.
//!
//! Half of each pause is drawn, so that those who failed together do not come again together; the other half is sure, so
//! that a store which is away for seconds is outlasted however the dice fall. A budget shared by all requests bounds what
//! retries add to a store that is in trouble: each costs a token, tokens come back with successes and, slowly, with time.
//!
//! Whoever watches hears once that a store does not answer, when that has lasted so long that silence would look like
//! a program that hangs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::s3::ServiceReply;
use super::{ByteRange, Decorator, ObjectStore, Page, Put, StoreOptions, is_decision};
use crate::clock::World;
use crate::error::{Error, ErrorKind, Result};
use crate::monitor::{Wait, WaitMonitor};

/// Upper bound of the first pause; each further one is twice as long, up to the option's limit.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest pause a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// Tokens when full: what a short outage costs at 64 requests at the same time and four attempts each.
const BUDGET: f64 = 256.0;
/// Tokens back per success: in the long run at most every fifth request is a repeated one.
const TOKENS_PER_SUCCESS: f64 = 0.2;
/// Tokens back per second, so that a store that was away long is found again.
const TOKENS_PER_SECOND: f64 = 2.0;

/// A store may be away for so long before it is told.
const WAIT_IN_SILENCE: Duration = Duration::from_secs(2);

/// A store whose repeatable requests are repeated.
#[derive(Debug)]
pub(super) struct Retry {
    inner: Arc<dyn ObjectStore>,
    world: World,
    max_retries: u32,
    max_delay: Duration,
    budget: Mutex<Budget>,
    waits: Option<Arc<dyn WaitMonitor>>,
    outage: Mutex<Option<Outage>>,
}

/// One sending of a request.
struct Attempt<'a> {
    action: &'static str,
    name: &'a str,
    /// From 0.
    number: u32,
    begun: Duration,
}

/// The time in which no request was answered.
#[derive(Debug)]
struct Outage {
    since: Duration,
    told: bool,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    refilled: Duration,
}

impl Budget {
    fn add(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(BUDGET);
    }

    fn take(&mut self, now: Duration) -> bool {
        self.add(now.saturating_sub(self.refilled).as_secs_f64() * TOKENS_PER_SECOND);
        self.refilled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

impl Retry {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, options: &StoreOptions, world: World) -> Self {
        let budget = Mutex::new(Budget { tokens: BUDGET, refilled: world.clock.monotonic() });
        let (max_retries, max_delay) = (options.max_retries, options.max_retry_delay);
        let (waits, outage) = (options.waits.clone(), Mutex::default());
        Self { inner, world, max_retries, max_delay, budget, waits, outage }
    }

    /// The pause before attempt number `attempt + 1`; none: give up.
    fn pause(&self, err: &Error, attempt: u32) -> Option<Duration> {
        if err.kind() != ErrorKind::Unavailable || attempt >= self.max_retries {
            return None;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if !budget.take(self.world.clock.monotonic()) {
            return None;
        }
        drop(budget);
        let bound = FIRST_DELAY.saturating_mul(1 << attempt.min(20)).min(self.max_delay);
        let jitter = f64::from(u32::from_le_bytes(self.world.random())) / f64::from(u32::MAX);
        let asked = ServiceReply::of(err).and_then(|reply| reply.retry_after).unwrap_or_default();
        Some(bound.mul_f64(0.5 + jitter / 2.0).max(asked.min(MAX_RETRY_AFTER)))
    }

    /// Keeps for how long nothing was answered. `begun`: when this request was sent.
    fn note<T>(&self, begun: Duration, result: &Result<T>) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(err) if err.kind() == ErrorKind::Unavailable => {
                outage.get_or_insert(Outage { since: begun, told: false });
            }
            _ => *outage = None,
        }
    }

    /// How long whoever watches need not hear of it yet; none: there is nothing (more) to tell.
    fn silence_left(&self) -> Option<Duration> {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let since = outage.as_ref().filter(|outage| !outage.told)?.since;
        Some(WAIT_IN_SILENCE.saturating_sub(self.world.clock.monotonic().saturating_sub(since)))
    }

    /// Tells, once in an outage, that the store is waited for.
    fn tell(&self, err: &Error, tries_left: Option<u32>) {
        let Some(waits) = &self.waits else { return };
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have told it, or had an answer.
        let Some(outage) = outage.as_mut().filter(|outage| !outage.told) else { return };
        outage.told = true;
        let innermost = std::iter::successors(std::error::Error::source(err), |cause| cause.source()).last();
        let cause = innermost.map_or_else(|| err.to_string(), ToString::to_string);
        waits.waiting(&Wait { place: self.inner.describe(), cause, tries_left });
    }

    /// The pause between two attempts.
    async fn sleep(&self, pause: Duration, err: &Error, tries_left: u32) {
        match self.silence_left().filter(|silence| *silence < pause) {
            Some(silence) => {
                self.world.sleep(silence).await;
                self.tell(err, Some(tries_left));
                self.world.sleep(pause - silence).await;
            }
            None => self.world.sleep(pause).await,
        }
    }

    /// After an attempt: its result is final, or a pause was made.
    async fn again<T>(&self, attempt: Attempt<'_>, result: Result<T>) -> Option<Result<T>> {
        let Attempt { action, name, number, begun } = attempt;
        self.note(begun, &result);
        match result {
            Ok(value) => {
                self.budget.lock().unwrap_or_else(PoisonError::into_inner).add(TOKENS_PER_SUCCESS);
                Some(Ok(value))
            }
            Err(err) => {
                let Some(pause) = self.pause(&err, number) else {
                    return Some(Err(match number {
                        0 => err,
                        _ => err.context(format!("gave up ({} tries)", number + 1)),
                    }));
                };
                tracing::debug!(action, name, number, ?pause, %err, "a request is sent again");
                self.sleep(pause, &err, self.max_retries.saturating_sub(number)).await;
                None
            }
        }
    }
}

/// Runs `$call` until its result is final.
macro_rules! repeat {
    ($self:ident, $action:literal, $name:expr, $call:expr) => {{
        let mut number = 0;
        loop {
            let begun = $self.world.clock.monotonic();
            let result = $call.await;
            let attempt = Attempt { action: $action, name: $name, number, begun };
            if let Some(result) = $self.again(attempt, result).await {
                return result;
            }
            number += 1;
        }
    }};
}

#[async_trait]
impl Decorator for Retry {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        if !is_decision(name) {
            let begun = self.world.clock.monotonic();
            let result = self.inner.put_if_absent(name, body).await;
            self.note(begun, &result);
            // Its caller takes a new name and tries again.
            if let Err(err) = &result
                && self.silence_left().is_some_and(|silence| silence.is_zero())
            {
                self.tell(err, None);
            }
            return result;
        }
        repeat!(self, "put", name, self.inner.put_if_absent(name, body.clone()))
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        repeat!(self, "get", name, self.inner.get(name, range))
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        repeat!(self, "list", prefix, self.inner.list(prefix, token.clone()))
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        repeat!(self, "delete", name, self.inner.delete(name))
    }

    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>> {
        repeat!(self, "look at", name, self.inner.locked_until(name))
    }
}

#[cfg(test)]
mod tests;
