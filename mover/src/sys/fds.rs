//! A bound on how many descriptors stay open for things that may be needed again.
//!
//! A [`Slot`] keeps a descriptor until the cache needs the place for another one; its owner can open it
//! again. A descriptor in use lives on through its `Arc` even when its slot has lost it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::{Resource, getrlimit};

/// Where a descriptor is kept while there is room for it.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Option<Arc<OwnedFd>>>);

impl Slot {
    /// The descriptor, if it is still open.
    pub fn get(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.0).clone()
    }

    /// Gives the descriptor up at once.
    pub fn clear(&self) {
        lock(&self.0).take();
    }
}

/// At most `limit` slots hold a descriptor; the one that was filled first gives way.
#[derive(Debug)]
pub struct FdCache {
    limit: usize,
    filled: Mutex<VecDeque<Weak<Slot>>>,
}

impl FdCache {
    /// A cache of `limit` descriptors, at least one.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), filled: Mutex::new(VecDeque::new()) }
    }

    /// A cache that leaves three quarters of the process's descriptors to others: sockets, packs, the store.
    pub fn with_default_limit() -> Self {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(4096);
        Self::new(usize::try_from(allowed / 4).unwrap_or(usize::MAX).clamp(8, 512))
    }

    /// Fills `slot` and returns the descriptor for use now.
    pub fn fill(&self, slot: &Arc<Slot>, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        *lock(&slot.0) = Some(Arc::clone(&fd));
        let mut filled = lock(&self.filled);
        filled.push_back(Arc::downgrade(slot));
        let evicted = if filled.len() > self.limit { filled.pop_front() } else { None };
        drop(filled);
        if let Some(old) = evicted.and_then(|weak| weak.upgrade())
            && !Arc::ptr_eq(&old, slot)
        {
            old.clear();
        }
        fd
    }
}

/// Nothing panics while one of these locks is held, so a poisoned one guards whole data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
