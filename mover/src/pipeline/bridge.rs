//! The border between threads and tasks: the only place where a thread waits for a future.
//!
//! Packs cross it one way. Bytes in flight are bounded: a thread that closes a pack waits until there is room, and
//! that wait is what tells the compressor that the store is the bottleneck.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    error::{Error, Result},
    id::PackId,
    monitor::{Monitor, Progress},
    repo::Session,
};

#[cfg(test)]
mod tests;

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
    /// Packs that were closed and did not arrive yet, by number: who sends them, as soon as somebody does.
    outstanding: BTreeMap<u64, Option<AbortHandle>>,
    /// The number of the next pack that is closed.
    next: u64,
    failed: Option<Error>,
    is_abandoned: bool,
    deadline: Option<Instant>,
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

    /// Waits for room for a pack of at most this many bytes. To be called by whoever closes a pack, before anybody
    /// else can see that it is no longer open: from then on it counts as under way.
    ///
    /// The error of an earlier pack comes back here or from `settle`.
    pub(crate) fn reserve(&self, length: u64) -> Result<Room> {
        let mut state = self.take_room(length)?;
        let number = state.next;
        state.next += 1;
        state.bytes += length;
        state.packs += 1;
        state.outstanding.insert(number, None);
        let error = Some(Error::internal("a pack was dropped on its way"));
        Ok(Room { flight: Arc::clone(&self.flight), number, length, error })
    }

    /// Sends a pack.
    pub(crate) fn send(&self, mut room: Room, pack: PackId, body: Bytes) {
        let (session, monitor) = (Arc::clone(&self.session), Arc::clone(&self.monitor));
        let number = room.number;
        // The room is given back when the task ends in whatever way.
        let sending = self.handle.spawn(async move {
            let length = body.len() as u64;
            room.error = session.put_pack(pack, body).await.err();
            if room.error.is_none() {
                Progress::add(&monitor.progress().bytes_stored, length);
            }
        });
        self.flight.keep(number, sending.abort_handle());
    }

    fn take_room(&self, length: u64) -> Result<MutexGuard<'_, FlightState>> {
        let start = Instant::now();
        let mut state = self.flight.lock();
        while state.failed.is_none() && state.bytes > 0 && state.bytes + length > self.limit_bytes {
            state = self.flight.wait(state)?;
        }
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.fetch_add(waited, Ordering::Relaxed);
        if let Some(error) = &state.failed {
            return Err(error.again());
        }
        Ok(state)
    }

    /// How long threads waited for room so far, in nanoseconds.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.waited_ns.load(Ordering::Relaxed)
    }

    /// Waits until every pack that was closed before this call arrived; answers how many were sent so far. Packs
    /// that are closed meanwhile are not waited for: there may always be another one.
    pub(crate) fn settle(&self) -> Result<u64> {
        let mut state = self.flight.lock();
        let upto = state.next;
        while state.failed.is_none()
            && state.outstanding.first_key_value().is_some_and(|(number, _)| *number < upto)
        {
            state = self.flight.wait(state)?;
        }
        match &state.failed {
            Some(error) => Err(error.again()),
            None => Ok(state.packs),
        }
    }

    /// From now on no pack crosses, and nobody waits here for one. What is under way is dropped where it is, as in a crash: no
    /// record names it.
    pub(crate) fn abandon(&self) {
        let mut state = self.flight.lock();
        state.is_abandoned = true;
        if state.failed.is_none() {
            state.failed = Some(Error::cancelled("what was to be sent is given up"));
        }
        let sendings: Vec<AbortHandle> = state.outstanding.values_mut().filter_map(Option::take).collect();
        drop(state);
        sendings.iter().for_each(AbortHandle::abort);
        self.flight.changed.notify_all();
    }

    /// From now on nobody waits here for longer than this.
    pub(crate) fn hurry(&self, patience: Duration) {
        self.flight.lock().deadline = Some(Instant::now() + patience);
        self.flight.changed.notify_all();
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who sends a pack, which may have arrived already.
    fn keep(&self, number: u64, sending: AbortHandle) {
        let mut state = self.lock();
        if state.is_abandoned {
            drop(state);
            sending.abort();
        } else if let Some(kept) = state.outstanding.get_mut(&number) {
            *kept = Some(sending);
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, FlightState>) -> Result<MutexGuard<'s, FlightState>> {
        let Some(deadline) = state.deadline else {
            return Ok(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::cancelled("the store did not take the last packs in time"));
        }
        Ok(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// The place of one pack under way; dropping it says that the pack arrived, or why it did not.
#[derive(Debug)]
pub(crate) struct Room {
    flight: Arc<Flight>,
    number: u64,
    length: u64,
    error: Option<Error>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        state.bytes -= self.length;
        state.outstanding.remove(&self.number);
        if state.failed.is_none() {
            state.failed = self.error.take();
        }
        self.flight.changed.notify_all();
    }
}
