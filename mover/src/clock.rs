//! Time and randomness, passed in.
//!
//! The only place of the engine that asks the operating system for the time or for random bytes, so that tests
//! can run it under a simulated world.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

/// A source of time.
#[async_trait]
pub trait Clock: Send + Sync + Debug {
    /// Wall-clock time: for records and messages, never for decisions about safety.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start, never going back: for measuring and for time limits.
    fn monotonic(&self) -> Duration;
    /// Comes back when this time has passed.
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A source of random bytes, good enough for keys.
pub trait Entropy: Send + Sync + Debug {
    /// Fills all of `buf`.
    fn fill(&self, buf: &mut [u8]);
}

/// The outside world as the engine sees it.
#[derive(Clone, Debug)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl World {
    /// The operating system's clock and random source.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock { start: Instant::now() }), entropy: Arc::new(SystemEntropy) }
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// Comes back when this time has passed.
    pub async fn sleep(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// What the future gives; none if it takes longer than this.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.clock.sleep(limit) => None,
        }
    }
}

#[derive(Debug)]
struct SystemClock {
    start: Instant,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

#[derive(Debug)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buf: &mut [u8]) {
        getrandom::fill(buf).expect("the operating system provides random bytes");
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
