//! Asking running work to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::error::{Error, Result};

/// How often a thread that waits for another one looks whether it is to wait no longer.
pub const TICK: Duration = Duration::from_millis(500);

/// One request to stop, shared by everybody it concerns. Looked at per chunk and per store call.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    /// Requests that count as this one.
    others: Vec<Arc<AtomicBool>>,
}

impl Cancel {
    /// Asks to stop.
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// A request that is made as soon as this one or the other one is.
    pub fn or(&self, other: &Self) -> Self {
        let others = self.others.iter().chain([&other.asked]).chain(&other.others);
        Self { asked: Arc::clone(&self.asked), others: others.cloned().collect() }
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        std::iter::once(&self.asked).chain(&self.others).any(|asked| asked.load(Ordering::Relaxed))
    }

    /// Fails with kind `Cancelled` once somebody asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled("stopped on request")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_requests_counts_and_none_makes_another() {
        let made = |which: usize| {
            let requests: [Cancel; 3] = Default::default();
            let [one, other, third] = &requests;
            let any = one.or(other).or(third);
            assert!(any.check().is_ok());
            requests[which].cancel();
            assert!(any.is_cancelled() && any.clone().check().is_err());
            requests.each_ref().map(Cancel::is_cancelled)
        };
        for which in 0..3 {
            let mut expected = [false; 3];
            expected[which] = true;
            assert_eq!(made(which), expected);
        }
    }
}
