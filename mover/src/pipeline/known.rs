//! Which chunks are known, and where: a table with a fixed size.
//!
//! Two generations: new entries go to the young one; when that is full the old one is dropped and the young one
//! becomes old; what is found in the old one moves to the young one. What falls out is stored again at worst: a
//! duplicate is always safe. The key is the first half of the id, 128 bits of a keyed hash.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    mem::size_of,
    sync::{Mutex, PoisonError},
};

use crate::{
    format::{
        frame::{ChunkRef, Frame},
        session::SessionName,
    },
    id::ChunkId,
};

#[cfg(test)]
mod tests;

/// Part of the table with a lock of its own.
#[derive(Default)]
struct Shard {
    young: Map,
    old: Map,
}

type Map = HashMap<u128, Place, BuildHasherDefault<PrefixHasher>>;

#[derive(Clone)]
struct Place {
    frame: Frame,
    offset: u32,
    length: u32,
}

/// Ids are uniform already: their first bytes are the hash.
#[derive(Default)]
struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u128");
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = (value >> 64) as u64;
    }
}

const SHARDS: usize = 16;
/// An entry with its share of empty slots, in bytes: hash tables are between 44 % and 87 % full.
const ENTRY_BYTES: usize = (size_of::<u128>() + size_of::<Place>() + 1) * 3 / 2;

/// The table.
pub(crate) struct KnownChunks {
    shards: Vec<Mutex<Shard>>,
    young_limit: usize,
}

impl std::fmt::Debug for KnownChunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownChunks").field("young_limit", &self.young_limit).finish_non_exhaustive()
    }
}

impl KnownChunks {
    /// A table that takes at most about this many bytes.
    pub(crate) fn new(memory_bytes: usize) -> Self {
        let young_limit = (memory_bytes / ENTRY_BYTES / 2 / SHARDS).max(64);
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), young_limit }
    }

    /// Where the chunk is, if it is known.
    pub(crate) fn get(&self, id: &ChunkId) -> Option<ChunkRef> {
        self.with_shard(id, |shard, key, limit| {
            let place = match shard.young.get(&key) {
                Some(place) => place.clone(),
                None => {
                    let place = shard.old.remove(&key)?;
                    shard.insert(key, place.clone(), limit);
                    place
                }
            };
            Some(place.chunk(id))
        })
    }

    /// Where the chunk is, or a claim on it: from now on everybody else finds it where the caller says.
    pub(crate) fn get_or_claim(
        &self,
        id: &ChunkId,
        frame: &Frame,
        offset: u32,
        length: u32,
    ) -> Option<ChunkRef> {
        self.with_shard(id, |shard, key, limit| {
            if let Some(place) = shard.young.get(&key).or_else(|| shard.old.get(&key)) {
                return Some(place.chunk(id));
            }
            shard.insert(key, Place { frame: frame.clone(), offset, length }, limit);
            None
        })
    }

    /// Adds a chunk that is stored already.
    pub(crate) fn insert(&self, chunk: &ChunkRef) {
        self.with_shard(&chunk.id, |shard, key, limit| {
            if !shard.young.contains_key(&key) {
                let place = Place { frame: chunk.frame.clone(), offset: chunk.offset, length: chunk.length };
                shard.insert(key, place, limit);
            }
        });
    }

    /// Forgets all chunks. What was claimed and not packed counts as lost, so that nobody waits for it.
    pub(crate) fn abandon(&self, session: SessionName) {
        for shard in &self.shards {
            let Shard { young, old } =
                std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            young.into_values().chain(old.into_values()).for_each(|place| place.frame.lose(session));
        }
    }

    fn with_shard<R>(&self, id: &ChunkId, action: impl FnOnce(&mut Shard, u128, usize) -> R) -> R {
        let mut key = [0; 16];
        key.copy_from_slice(&id.0[..16]);
        let shard = &self.shards[usize::from(key[0]) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        action(&mut shard, u128::from_le_bytes(key), self.young_limit)
    }
}

impl Shard {
    fn insert(&mut self, key: u128, place: Place, limit: usize) {
        if self.young.len() >= limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, place);
    }
}

impl Place {
    fn chunk(&self, id: &ChunkId) -> ChunkRef {
        ChunkRef { id: *id, offset: self.offset, length: self.length, frame: self.frame.clone() }
    }
}
