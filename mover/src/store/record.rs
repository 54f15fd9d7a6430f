//! A log of calls, for tests that ask what was requested, how often and in which order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ByteRange, Decorator, ObjectStore, Page, Put};
use crate::error::{ErrorKind, Result};

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `put_if_absent`.
    Put,
    /// `get`, with its range.
    Get(ByteRange),
    /// `list`.
    List,
    /// `delete`.
    Delete,
    /// `flush`.
    Flush,
}

/// One call and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// The object, or the prefix of a listing.
    pub name: String,
    /// Bytes moved.
    pub bytes: u64,
    /// The kind of error it gave.
    pub error: Option<ErrorKind>,
}

/// A store that remembers every call.
#[derive(Debug)]
pub struct RecordStore {
    inner: Arc<dyn ObjectStore>,
    calls: Mutex<Vec<Call>>,
}

impl RecordStore {
    /// Records what goes to `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, calls: Mutex::default() }
    }

    /// All calls so far, in the order in which they ended.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// All calls so far; the log starts anew.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log<T>(&self, operation: Operation, name: &str, bytes: u64, result: Result<T>) -> Result<T> {
        let error = result.as_ref().err().map(crate::error::Error::kind);
        self.lock().push(Call { operation, name: name.to_owned(), bytes, error });
        result
    }
}

#[async_trait]
impl Decorator for RecordStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        let bytes = body.len() as u64;
        let result = self.inner.put_if_absent(name, body).await;
        self.log(Operation::Put, name, bytes, result)
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let result = self.inner.get(name, range).await;
        let bytes = result.as_ref().map_or(0, |body| body.len() as u64);
        self.log(Operation::Get(range), name, bytes, result)
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let result = self.inner.list(prefix, token).await;
        self.log(Operation::List, prefix, 0, result)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let result = self.inner.delete(name).await;
        self.log(Operation::Delete, name, 0, result)
    }

    async fn flush(&self) -> Result<()> {
        let result = self.inner.flush().await;
        self.log(Operation::Flush, "", 0, result)
    }
}
