//! A store that misbehaves as real ones do, from a seed, for tests.
//!
//! The fault of the n-th call is a function of seed and n, so a run with one caller at a time repeats exactly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{ByteRange, Decorator, ObjectStore, Page, Put};
use crate::error::{Error, Result};

/// How often each fault happens, as a share of calls from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Start of the sequence of faults.
    pub seed: u64,
    /// The call fails and has no effect.
    pub error_before: f64,
    /// The call has its effect, and its reply is lost.
    pub lost_reply: f64,
    /// The put or delete fails now and has its effect later: after [`FaultyStore::settle_late`].
    pub late: f64,
    /// A page of a listing fails.
    pub failed_page: f64,
    /// A get gives one bit wrong.
    pub flipped_bit: f64,
    /// A put stores only a part of the object and reports success, as a disk cache that loses power does.
    pub torn_put: f64,
    /// The call is delayed by up to `max_delay`.
    pub delayed: f64,
    /// Longest delay.
    pub max_delay: Duration,
    /// The first calls that work without faults.
    pub healthy_calls: u64,
}

/// A store with faults.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<Faults>,
    calls: AtomicU64,
    injected: AtomicU64,
    late: Mutex<Vec<Late>>,
}

#[derive(Debug)]
enum Late {
    Put(String, Bytes),
    Delete(String),
}

/// The dice of one call.
struct Dice(u64);

impl Dice {
    /// SplitMix64: each state gives 64 well-mixed bits.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).expect("32 bits")) / (f64::from(u32::MAX) + 1.0)
    }

    /// A number below `bound`, which must not be zero.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

impl FaultyStore {
    /// `inner` with faults.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults) -> Self {
        let (calls, injected) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { inner, faults: Mutex::new(faults), calls, injected, late: Mutex::default() }
    }

    /// Other faults from now on; `Faults::default()` heals the store.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// How many faults there were, delays not counted. A test that wanted faults checks that it had some.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// Lets the late puts and deletes happen, and says how many there were.
    pub async fn settle_late(&self) -> Result<usize> {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        let count = late.len();
        for call in late {
            match call {
                Late::Put(name, body) => drop(self.inner.put_if_absent(&name, body).await?),
                Late::Delete(name) => drop(self.inner.delete(&name).await?),
            }
        }
        Ok(count)
    }

    /// Starts a call: its dice and faults; fails if it must fail before it has an effect.
    async fn start(&self, what: &str, name: &str) -> Result<(Dice, Faults)> {
        let mut faults = *self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call < faults.healthy_calls {
            faults = Faults::default();
        }
        let mut dice = Dice(faults.seed ^ call.wrapping_mul(0xd6e8_feb8_6659_fd93));
        if dice.unit() < faults.delayed {
            tokio::time::sleep(faults.max_delay.mul_f64(dice.unit())).await;
        }
        if dice.unit() < faults.error_before {
            return Err(self.injected_error(what, name, "failed"));
        }
        Ok((dice, faults))
    }

    fn injected_error(&self, what: &str, name: &str, how: &str) -> Error {
        self.injected.fetch_add(1, Ordering::Relaxed);
        Error::unavailable(format!("{what} {name}: {how} by fault injection"))
    }

    fn delay(&self, what: &str, call: Late, name: &str) -> Error {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.injected_error(what, name, "put off")
    }

    fn reply<T>(&self, what: &str, name: &str, dice: &mut Dice, faults: &Faults, value: T) -> Result<T> {
        if dice.unit() < faults.lost_reply {
            return Err(self.injected_error(what, name, "reply lost"));
        }
        Ok(value)
    }
}

#[async_trait]
impl Decorator for FaultyStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        let (mut dice, faults) = self.start("put", name).await?;
        if dice.unit() < faults.late {
            return Err(self.delay("put", Late::Put(name.to_owned(), body), name));
        }
        let body = if dice.unit() < faults.torn_put && !body.is_empty() {
            self.injected.fetch_add(1, Ordering::Relaxed);
            body.slice(..dice.below(body.len()))
        } else {
            body
        };
        let put = self.inner.put_if_absent(name, body).await?;
        self.reply("put", name, &mut dice, &faults, put)
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let (mut dice, faults) = self.start("get", name).await?;
        let mut body = self.inner.get(name, range).await?;
        if dice.unit() < faults.flipped_bit && !body.is_empty() {
            self.injected.fetch_add(1, Ordering::Relaxed);
            let mut flipped = BytesMut::from(&body[..]);
            flipped[dice.below(body.len())] ^= 1 << dice.below(8);
            body = flipped.freeze();
        }
        self.reply("get", name, &mut dice, &faults, body)
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let (mut dice, faults) = self.start("list", prefix).await?;
        let page = self.inner.list(prefix, token).await?;
        if dice.unit() < faults.failed_page {
            return Err(self.injected_error("list", prefix, "page lost"));
        }
        self.reply("list", prefix, &mut dice, &faults, page)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let (mut dice, faults) = self.start("delete", name).await?;
        if dice.unit() < faults.late {
            return Err(self.delay("delete", Late::Delete(name.to_owned()), name));
        }
        let existed = self.inner.delete(name).await?;
        self.reply("delete", name, &mut dice, &faults, existed)
    }

    fn describe(&self) -> String {
        format!("{} with faults", self.inner.describe())
    }
}
