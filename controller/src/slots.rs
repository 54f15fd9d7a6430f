//! How many requests are worked on at once.
//!
//! One controller leads, so its memory is the whole truth: requests that are under way occupy their slots again when it
//! starts, before any other may take one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use carrack_controller_api::Concurrency;
use kube::{
    Resource,
    core::DynamicObject,
    runtime::{controller, reflector::ObjectRef},
};

/// A request by kind, namespace and name: of one that vanished nothing else may be known.
pub type Request = ObjectRef<DynamicObject>;

/// What a request is called here.
pub fn request<K: Resource<DynamicType = ()>>(object: &K) -> Request {
    ObjectRef::from_obj(object).erase()
}

/// The requests that are under way or wait.
#[derive(Debug, Default)]
pub struct Slots(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// Those that have a slot, with their type of mover.
    taken: HashMap<Request, String>,
    /// Those that asked for one in vain.
    waiting: HashSet<Request>,
}

impl Slots {
    /// A request is under way already.
    pub fn occupy(&self, request: &Request, mover_type: &str) {
        self.with(|requests| {
            requests.waiting.remove(request);
            requests.taken.insert(request.clone(), mover_type.to_owned());
        });
    }

    /// Takes a slot, if the limits leave one; true also for who has one. More than all nodes together take never begin; which
    /// node takes which is settled when a pod is made.
    pub fn take(&self, request: &Request, mover_type: &str, limits: Concurrency, nodes: usize) -> bool {
        let on_nodes = (limits.per_node as usize).saturating_mul(nodes.max(1));
        let limit = on_nodes.min(limits.per_cluster as usize);
        self.with(|Requests { taken, waiting }| {
            let others =
                taken.iter().filter(|(other, found)| *other != request && *found == mover_type).count();
            let free = others < limit;
            if free {
                waiting.remove(request);
                taken.insert(request.clone(), mover_type.to_owned());
            } else {
                waiting.insert(request.clone());
            }
            free
        })
    }

    /// The request came to its end.
    pub fn release(&self, request: &Request) {
        self.with(|requests| {
            requests.waiting.remove(request);
            requests.taken.remove(request);
        });
    }

    /// What a controller was to look at and did not find has vanished: somebody took its finalizer off, so there was no look at
    /// its end. Who has a slot is looked at every few seconds, and so is missed soon.
    pub fn miss<T, E, Q>(&self, looked: Result<T, controller::Error<E, Q>>)
    where
        E: std::error::Error + 'static,
        Q: std::error::Error + 'static,
    {
        if let Err(controller::Error::ObjectNotFound(request)) = looked {
            self.release(&request);
        }
    }

    /// Nobody is under way, as far as is known.
    pub fn forget_all(&self) {
        self.with(|requests| *requests = Requests::default());
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.with(|requests| requests.taken.len())
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.with(|requests| requests.waiting.len())
    }

    fn with<R>(&self, change: impl FnOnce(&mut Requests) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use carrack_controller_api::{DataMoverBackup, DataMoverRestore};

    use super::*;
    use crate::error::Error;

    fn backup(name: &str) -> Request {
        ObjectRef::<DataMoverBackup>::new(name).within("shop").erase()
    }

    #[test]
    fn slots_are_bounded_by_cluster_and_nodes_and_come_back() {
        let slots = Slots::default();
        let limits = Concurrency { per_cluster: 3, per_node: 1 };
        let take = |name: &str, mover_type: &str, nodes| slots.take(&backup(name), mover_type, limits, nodes);
        assert!(take("a", "x", 2) && take("b", "x", 2));
        assert!(!take("c", "x", 2), "one on each of two nodes");
        assert!(take("a", "x", 2), "who has one keeps it");
        assert!(take("d", "y", 2), "another type has slots of its own");
        slots.release(&backup("b"));
        assert!(take("c", "x", 2));
        slots.occupy(&backup("e"), "x");
        assert!(!take("f", "x", 9), "three in the cluster");
        assert_eq!((slots.taken(), slots.waiting()), (4, 1), "f waits, c came to its turn");
    }

    #[test]
    fn who_vanished_without_a_look_at_its_end_has_no_slot_any_more() {
        let slots = Slots::default();
        let restore = ObjectRef::<DataMoverRestore>::new("a").within("shop");
        slots.occupy(&backup("a"), "x");
        slots.occupy(&restore.clone().erase(), "x");
        slots.miss::<(), Error, Error>(Err(controller::Error::ObjectNotFound(Box::new(restore.erase()))));
        assert_eq!(slots.taken(), 1, "the backup of the same name has its own");
        slots.miss::<(), Error, Error>(Ok(()));
        let ill = controller::Error::ReconcilerFailed(Error::Unexpected("ill".into()), Box::new(backup("a")));
        slots.miss::<(), Error, Error>(Err(ill));
        assert_eq!(slots.taken(), 1, "what could not be looked after is there");
    }
}
