//! A second request where the first is late.
//!
//! A service answers most reads quickly and a few of them late, and a restore waits for each. So a read of a part of
//! a pack that has no answer yet when nearly all others had one is asked for once more, and the first answer serves.
//! Nothing else is: puts and deletes are never sent for this, and what the protocol decides by is read once.
//!
//! The race is about the head of the answer. The body of the winner alone is read, so no second one takes memory, and
//! times can be compared whatever the lengths. A body that stalls is a matter of the time limits.
//!
//! What it adds is bounded: by a share of the requests, by a few at a time, and it stops when the service complains.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ServiceReply;
use crate::error::{Error, ErrorKind, Result};

/// How many of the last answers say what is usual.
const WINDOW: usize = 128;
/// Fewest answers that say anything.
const LEAST: usize = 32;
/// An answer is late when so many of a hundred were faster.
const PERCENTILE: usize = 95;
/// Waiting less than this costs less than a request does.
const SHORTEST: Duration = Duration::from_millis(25);
/// Further requests for each request.
const SHARE: f64 = 0.05;
/// Most further requests that can be saved up, and so be under way at once.
const SAVED: f64 = 4.0;

/// How long answers take, and how many further requests may be made.
#[derive(Debug)]
pub(super) struct Hedge {
    wanted: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last answers, as a ring.
    recent: Vec<Duration>,
    next: usize,
    tokens: f64,
}

impl State {
    /// When an answer is late; none while too little is known.
    fn patience(&self) -> Option<Duration> {
        if self.recent.len() < LEAST {
            return None;
        }
        let mut sorted = self.recent.clone();
        let (_, late, _) = sorted.select_nth_unstable(self.recent.len() * PERCENTILE / 100);
        Some((*late).max(SHORTEST))
    }

    fn note(&mut self, time: Duration) {
        if self.recent.len() < WINDOW {
            self.recent.push(time);
        } else {
            self.recent[self.next] = time;
            self.next = (self.next + 1) % WINDOW;
        }
        self.tokens = (self.tokens + SHARE).min(SAVED);
    }

    fn take(&mut self) -> bool {
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

impl Hedge {
    /// Without `wanted` every request is sent once.
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, state: Mutex::default() }
    }

    /// The answer to `send`, which is called once more if that takes unusually long.
    pub(super) async fn first_answer<T, F>(&self, send: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let start = Instant::now();
        let patience = if self.wanted { self.state().patience() } else { None };
        let answer = match patience {
            None => send().await,
            Some(patience) => race(&send, tokio::time::sleep(patience), || self.state().take()).await,
        };
        match &answer {
            Ok(_) => self.state().note(start.elapsed()),
            Err(err) if ServiceReply::of(err).is_some_and(ServiceReply::is_overload) => {
                self.state().tokens = 0.0;
            }
            Err(_) => {}
        }
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends once, and once more when it is `late` and `may` agrees. The first clear answer counts; a lost one leaves it to
/// the other.
async fn race<T, F>(
    send: impl Fn() -> F,
    late: impl Future<Output = ()>,
    may: impl FnOnce() -> bool,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut first = pin!(send());
    tokio::select! {
        biased;
        answer = &mut first => return answer,
        () = late => {}
    }
    if !may() {
        return first.await;
    }
    tracing::debug!("an answer is late, the request is sent a second time");
    let mut second = pin!(send());
    let (answer, other) = tokio::select! {
        biased;
        answer = &mut first => (answer, second),
        answer = &mut second => (answer, first),
    };
    if answer.as_ref().is_err_and(is_lost) { other.await } else { answer }
}

fn is_lost(err: &Error) -> bool {
    err.kind() == ErrorKind::Unavailable
}

#[cfg(test)]
mod tests;
