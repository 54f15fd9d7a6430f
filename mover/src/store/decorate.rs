//! The one place that says which decorators a store wears, and in which order.

use std::sync::Arc;

use super::limit::Limit;
use super::retry::Retry;
use super::throttle::Throttle;
use super::{ObjectStore, StoreOptions};
use crate::clock::World;

/// Puts the decorators on a store, from the inside out:
///
/// 1. **limit**: requests at the same time. Innermost, so that nobody holds a slot while waiting for anything
///    but the store.
/// 2. **throttle**: bytes and requests per second. Each attempt pays.
/// 3. **retry**: outermost, so that a pause holds no slot.
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
