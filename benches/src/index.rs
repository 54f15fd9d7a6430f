//! Rows of an index and repositories made to hold them, for measuring what only size shows.

use std::sync::Arc;

use anyhow::Result;
use carrack_mover::clock::World;
use carrack_mover::id::{ChunkId, PackId};
use carrack_mover::repo::{CreateOptions, Repository, Unlock};
use carrack_mover::secret::Passphrase;
use carrack_mover::store::ObjectStore;

use crate::rng::Rng;
use crate::tools::PASSWORD;

/// Chunks of 64 KiB in a pack of 32 MiB.
const CHUNKS_PER_PACK: usize = 512;

/// Rows as backups write them: random ids, neighbours in one pack.
#[derive(Debug)]
pub struct Rows(Rng);

impl Rows {
    /// The rows that `seed` gives.
    pub fn new(seed: u64) -> Self {
        Self(Rng::new(seed, "index rows"))
    }

    /// The next `count` rows.
    pub fn take(&mut self, count: usize) -> Vec<(ChunkId, PackId)> {
        let mut pack = PackId::default();
        (0..count)
            .map(|number| {
                if number % CHUNKS_PER_PACK == 0 {
                    self.0.fill(&mut pack.0);
                }
                let mut id = ChunkId::default();
                self.0.fill(&mut id.0);
                (id, pack)
            })
            .collect()
    }
}

/// Makes a repository in `store` that the password of the benchmark opens.
pub async fn create(store: Arc<dyn ObjectStore>) -> Result<Repository> {
    let unlock = Unlock::Passphrase(Passphrase::new(PASSWORD.into()));
    Ok(Repository::create(store, World::system(), &unlock, &CreateOptions::default()).await?)
}
