//! Clocks for tests.

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::Clock;

/// Time that passes in sleep only.
#[derive(Debug, Default)]
pub(crate) struct Asleep(Mutex<Duration>);

#[async_trait]
impl Clock for Asleep {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}
