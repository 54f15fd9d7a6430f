//! How much is copied of a repository: a snapshot may say that few stored bytes are repeated until they are more than
//! anybody waits for, and a copy cuts and hashes all of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::OnceCell;

use crate::{
    error::{Error, Result},
    format::entry::Run,
    repo::Repository,
    store::{self, ObjectStore},
};

/// What may be copied of one snapshot whatever its repository stores, in bytes: what a disk gives in an hour.
const LEAST: u64 = 1 << 40;
/// How often all that its repository stores may be copied: contents that are of use are stored in less than a thousandth of
/// their size where they are small, and `LEAST` has room for those.
const TIMES_STORED: u64 = 1000;
/// What a run counts at least, in bytes: to look at one takes about as long as to copy so many.
const RUN_BYTES: u64 = 4 << 10;

/// What may be copied of one snapshot, and what of that was used.
#[derive(Debug)]
pub(super) struct Allowance {
    store: Arc<dyn ObjectStore>,
    least: u64,
    used: AtomicU64,
    /// Learnt when more than the least is wanted.
    all: OnceCell<u64>,
}

impl Allowance {
    pub(super) fn of(from: &Repository) -> Self {
        Self::with_least(Arc::clone(from.store()), LEAST)
    }

    pub(super) fn with_least(store: Arc<dyn ObjectStore>, least: u64) -> Self {
        Self { store, least, used: AtomicU64::new(0), all: OnceCell::new() }
    }

    /// Whether contents of this size may be so much that it is worth to add up what they are before any of it is copied.
    pub(super) fn is_tight_for(&self, content_bytes: u64) -> bool {
        content_bytes > self.least
    }

    /// Uses what these runs take. Fails, as for damage, where that is not allowed.
    pub(super) async fn take<'r>(&self, runs: impl IntoIterator<Item = &'r Run>) -> Result<()> {
        let (mut count, mut bytes) = (0, 0_u64);
        for run in runs {
            count += 1;
            bytes = bytes.saturating_add(run.chunk().map_or(0, |chunk| chunk.length.into()));
        }
        let cost = cost(count, bytes);
        let used = self.used.fetch_add(cost, Ordering::Relaxed).saturating_add(cost);
        self.check(used).await
    }

    /// Fails if so many runs of so many bytes, beside what was used, are not allowed.
    pub(super) async fn check_more(&self, runs: u64, bytes: u64) -> Result<()> {
        self.check(self.used.load(Ordering::Relaxed).saturating_add(cost(runs, bytes))).await
    }

    async fn check(&self, used: u64) -> Result<()> {
        if used <= self.least || used <= *self.all.get_or_try_init(|| self.learn()).await? {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "its contents repeat what is stored until they are more than {TIMES_STORED} times all that the repository \
             holds: nobody backs up such a thing"
        )))
    }

    async fn learn(&self) -> Result<u64> {
        let mut stored = 0_u64;
        store::for_each(self.store.as_ref(), "packs/", |pack| stored = stored.saturating_add(pack.size))
            .await?;
        Ok(stored.saturating_mul(TIMES_STORED).max(self.least))
    }
}

fn cost(runs: u64, bytes: u64) -> u64 {
    runs.saturating_mul(RUN_BYTES).max(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, store::mem::MemStore};

    #[tokio::test]
    async fn what_is_stored_says_how_much_may_be_copied() {
        let store = MemStore::new();
        for (name, length) in [("packs/00/a", 70), ("packs/01/b", 30), ("index/s-c", 1000)] {
            store.put_if_absent(name, vec![7_u8; length].into()).await.unwrap();
        }
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        for (least, allowed) in [(10, 100_000), (200_000, 200_000)] {
            let allowance = Allowance::with_least(Arc::clone(&store), least);
            allowance.check_more(0, allowed).await.unwrap();
            let error = allowance.check_more(0, allowed + 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }

    #[tokio::test]
    async fn every_run_counts_and_nothing_is_given_back() {
        let allowance = Allowance::with_least(Arc::new(MemStore::new()), 10 * RUN_BYTES);
        let holes = vec![Run::Hole(1 << 60); 4];
        allowance.take(&holes).await.unwrap();
        allowance.take(&holes).await.unwrap();
        allowance.check_more(2, 0).await.unwrap();
        assert!(allowance.check_more(3, 0).await.is_err());
        assert!(allowance.take(&holes).await.is_err());
        assert!(allowance.take(&holes[..1]).await.is_err());
    }
}
