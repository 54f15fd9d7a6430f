//! How many requests are worked on at once.
//!
//! One controller leads, so its memory is the whole truth: requests that are under way occupy their slots again when it
//! starts, before any other may take one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use carrack_controller_api::Concurrency;

/// The requests that are under way or wait, by uid.
#[derive(Debug, Default)]
pub struct Slots(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// Those that have a slot, with their type of mover.
    taken: HashMap<String, String>,
    /// Those that asked for one in vain.
    waiting: HashSet<String>,
}

impl Slots {
    /// A request is under way already.
    pub fn occupy(&self, uid: &str, mover_type: &str) {
        self.with(|requests| {
            requests.waiting.remove(uid);
            requests.taken.insert(uid.to_owned(), mover_type.to_owned());
        });
    }

    /// Takes a slot, if the limits leave one; true also for who has one. More than all nodes together take never begin; which
    /// node takes which is settled when a pod is made.
    pub fn take(&self, uid: &str, mover_type: &str, limits: Concurrency, nodes: usize) -> bool {
        let on_nodes = (limits.per_node as usize).saturating_mul(nodes.max(1));
        let limit = on_nodes.min(limits.per_cluster as usize);
        self.with(|Requests { taken, waiting }| {
            let others = taken.iter().filter(|(other, found)| *other != uid && *found == mover_type).count();
            let free = others < limit;
            if free {
                waiting.remove(uid);
                taken.insert(uid.to_owned(), mover_type.to_owned());
            } else {
                waiting.insert(uid.to_owned());
            }
            free
        })
    }

    /// The request came to its end.
    pub fn release(&self, uid: &str) {
        self.with(|requests| {
            requests.waiting.remove(uid);
            requests.taken.remove(uid);
        });
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
    use super::*;

    #[test]
    fn slots_are_bounded_by_cluster_and_nodes_and_come_back() {
        let slots = Slots::default();
        let limits = Concurrency { per_cluster: 3, per_node: 1 };
        assert!(slots.take("a", "x", limits, 2) && slots.take("b", "x", limits, 2));
        assert!(!slots.take("c", "x", limits, 2), "one on each of two nodes");
        assert!(slots.take("a", "x", limits, 2), "who has one keeps it");
        assert!(slots.take("d", "y", limits, 2), "another type has slots of its own");
        slots.release("b");
        assert!(slots.take("c", "x", limits, 2));
        slots.occupy("e", "x");
        assert!(!slots.take("f", "x", limits, 9), "three in the cluster");
        assert_eq!((slots.taken(), slots.waiting()), (4, 1), "f waits, c came to its turn");
    }
}
