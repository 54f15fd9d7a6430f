//! Open files and directories by the numbers that the kernel holds for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Open at once at most, of files and of directories: each holds some KiB, up to a few MiB while it is read.
const LIMIT: usize = 1024;

#[derive(Debug)]
pub(super) struct Handles<T> {
    inner: Mutex<(u64, HashMap<u64, Arc<T>>)>,
}

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new((1, HashMap::new())) }
    }

    /// Keeps `value`; `None` if too many are open.
    pub(super) fn open(&self, value: T) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.1.len() >= LIMIT {
            return None;
        }
        let number = inner.0;
        inner.0 += 1;
        inner.1.insert(number, Arc::new(value));
        Some(number)
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.get(&number).cloned()
    }

    pub(super) fn close(&self, number: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
    }
}
