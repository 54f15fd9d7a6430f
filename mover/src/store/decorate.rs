//! Stores that stand before other stores, and the one place that says in which order.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::limit::Limit;
use super::retry::Retry;
use super::throttle::Throttle;
use super::{ByteRange, Capabilities, ObjectStore, Page, Put, StoreOptions};
use crate::clock::World;
use crate::error::Result;

/// A store that stands before another one: it says what it does otherwise, and passes the rest on.
#[async_trait]
pub trait Decorator: Send + Sync + Debug {
    /// The store behind it.
    fn inner(&self) -> &dyn ObjectStore;

    /// [`ObjectStore::put_if_absent`].
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.inner().put_if_absent(name, body).await
    }

    /// [`ObjectStore::get`].
    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        self.inner().get(name, range).await
    }

    /// [`ObjectStore::list`].
    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.inner().list(prefix, token).await
    }

    /// [`ObjectStore::delete`].
    async fn delete(&self, name: &str) -> Result<bool> {
        self.inner().delete(name).await
    }

    /// [`ObjectStore::locked_until`].
    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>> {
        self.inner().locked_until(name).await
    }

    /// [`ObjectStore::describe`].
    fn describe(&self) -> String {
        self.inner().describe()
    }

    /// [`ObjectStore::flush`].
    async fn flush(&self) -> Result<()> {
        self.inner().flush().await
    }
}

#[async_trait]
impl<D: Decorator> ObjectStore for D {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        Decorator::put_if_absent(self, name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        Decorator::get(self, name, range).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        Decorator::list(self, prefix, token).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        Decorator::delete(self, name).await
    }

    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>> {
        Decorator::locked_until(self, name).await
    }

    fn describe(&self) -> String {
        Decorator::describe(self)
    }

    async fn flush(&self) -> Result<()> {
        Decorator::flush(self).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }
}

/// Puts the decorators on a store, from the inside out:
///
/// 1. **limit**: requests at the same time. Innermost, so that nobody holds a slot while waiting for anything
///    but the store.
/// 2. **throttle**: bytes and requests per second. Each attempt pays.
/// 3. **retry**: outermost, so that a pause holds no slot.
///
/// A second request for a late answer is no decorator: it is made inside of the S3 store, which alone sees the head of
/// an answer before its body.
pub fn decorate(store: Arc<dyn ObjectStore>, options: &StoreOptions, world: &World) -> Arc<dyn ObjectStore> {
    let mut store = store;
    if options.max_requests_in_flight.is_some() || !store.capabilities().local {
        store = Arc::new(Limit::new(store, options.max_requests_in_flight, world.clone()));
    }
    if Throttle::is_wanted(options) {
        store = Arc::new(Throttle::new(store, options, world.clone()));
    }
    Arc::new(Retry::new(store, options, world.clone()))
}
