//! A small least-recently-used cache that is bounded by bytes.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

#[derive(Debug)]
pub(crate) struct ByteCache<K, V> {
    limit: usize,
    used: usize,
    clock: u64,
    entries: HashMap<K, Slot<V>>,
    by_age: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    weight: usize,
    age: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> ByteCache<K, V> {
    /// Keeps values of at most `limit` bytes together.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() }
    }

    /// The value, which becomes the youngest.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let slot = self.entries.get_mut(key)?;
        self.by_age.remove(&slot.age);
        self.clock += 1;
        slot.age = self.clock;
        self.by_age.insert(slot.age, key.clone());
        Some(slot.value.clone())
    }

    /// Keeps a value of `weight` bytes and lets the oldest go; one larger than everything is not kept.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        if weight > self.limit || self.entries.contains_key(&key) {
            return;
        }
        self.clock += 1;
        self.used += weight;
        self.by_age.insert(self.clock, key.clone());
        self.entries.insert(key, Slot { value, weight, age: self.clock });
        while self.used > self.limit {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            if let Some(slot) = self.entries.remove(&oldest) {
                self.used -= slot.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ByteCache;

    #[test]
    fn the_oldest_goes_first() {
        let mut cache = ByteCache::new(10);
        cache.insert(1, 'a', 4);
        cache.insert(2, 'b', 4);
        assert_eq!(cache.get(&1), Some('a'));
        cache.insert(3, 'c', 4);
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some('a'), None, Some('c')));
        cache.insert(4, 'd', 11);
        assert_eq!(cache.get(&4), None);
    }

    #[test]
    fn it_may_be_full_to_the_last_byte() {
        let mut cache = ByteCache::new(10);
        cache.insert(1, 'a', 4);
        cache.insert(1, 'b', 4);
        cache.insert(2, 'c', 6);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some('a'), Some('c')));
        cache.insert(3, 'd', 10);
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (None, None, Some('d')));
    }
}
