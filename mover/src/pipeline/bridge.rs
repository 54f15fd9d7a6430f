//! The border between threads and tasks: the only place where a thread waits for a future.
//!
//! Packs cross it one way. Bytes in flight are bounded: a thread that closes a pack waits until there is room, and
//! that wait is what tells the compressor that the store is the bottleneck.

use std::{
    future::Future,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::{
    error::{Error, Result},
    id::PackId,
    monitor::{Monitor, Progress},
    repo::Session,
};

/// Runs futures for threads, and sends packs.
#[derive(Debug)]
pub(crate) struct Bridge {
    handle: Handle,
    session: Arc<Session>,
    monitor: Arc<dyn Monitor>,
    flight: Arc<Flight>,
    limit_bytes: u64,
    waited_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<FlightState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FlightState {
    bytes: u64,
    packs: u64,
    failed: Option<Error>,
}

impl Bridge {
    /// A bridge for one session; at most `limit_bytes` of packs are under way at once (or a single larger pack).
    pub(crate) fn new(
        handle: Handle,
        session: Arc<Session>,
        monitor: Arc<dyn Monitor>,
        limit_bytes: u64,
    ) -> Self {
        let flight = Arc::new(Flight::default());
        Self { handle, session, monitor, flight, limit_bytes, waited_ns: AtomicU64::new(0) }
    }

    /// The session whose packs cross.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits for a future, on a thread that belongs to no runtime.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Sends a pack; waits for room. The error of an earlier pack comes back here or from `finish`.
    pub(crate) fn send(&self, pack: PackId, body: Bytes) -> Result<()> {
        let length = body.len() as u64;
        self.take_room(length)?;
        let (session, flight, monitor) =
            (Arc::clone(&self.session), Arc::clone(&self.flight), Arc::clone(&self.monitor));
        self.handle.spawn(async move {
            // The room is given back when the task ends in whatever way.
            let mut room =
                Room { flight, length, error: Some(Error::internal("a pack was dropped on its way")) };
            room.error = session.put_pack(pack, body).await.err();
            if room.error.is_none() {
                Progress::add(&monitor.progress().bytes_stored, length);
            }
        });
        Ok(())
    }

    fn take_room(&self, length: u64) -> Result<()> {
        let start = Instant::now();
        let mut state = self.flight.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.failed.is_none() && state.bytes > 0 && state.bytes + length > self.limit_bytes {
            state = self.flight.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.fetch_add(waited, Ordering::Relaxed);
        if let Some(error) = &state.failed {
            return Err(again(error));
        }
        state.bytes += length;
        state.packs += 1;
        Ok(())
    }

    /// How long threads waited for room so far, in nanoseconds.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.waited_ns.load(Ordering::Relaxed)
    }

    /// Waits until every pack arrived; answers how many there were.
    pub(crate) fn finish(&self) -> Result<u64> {
        let mut state = self.flight.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.failed.is_none() && state.bytes > 0 {
            state = self.flight.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.failed {
            Some(error) => Err(again(error)),
            None => Ok(state.packs),
        }
    }
}

/// The same error for one more thread that meets it.
fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint),
        None => copy,
    }
}

struct Room {
    flight: Arc<Flight>,
    length: u64,
    error: Option<Error>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes -= self.length;
        if state.failed.is_none() {
            state.failed = self.error.take();
        }
        self.flight.changed.notify_all();
    }
}
