//! How much is copied of a repository: a snapshot may say that few stored bytes are repeated until they are more than
//! anybody waits for, and a copy cuts and hashes all of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::OnceCell;

use crate::{
    error::{Error, Result},
    limits,
    repo::Repository,
    store::{self, ObjectStore},
};

/// How often all that its repository stores may be copied: contents that are of use are stored in less than a thousandth of
/// their size where they are few, and the least has room for those.
const TIMES_STORED: u64 = 1000;
/// What a run counts at least, in bytes: to look at one takes about as long as to copy so many.
const RUN_BYTES: u64 = 4 << 10;
/// What pages of runs that are looked at together count beside their runs, in bytes: as long as to copy so many takes it to
/// open them, and each may hold one run.
const LOOK_BYTES: u64 = 64 << 10;

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
        Self::with_least(Arc::clone(from.store()), limits::COPIED_LEAST)
    }

    pub(super) fn with_least(store: Arc<dyn ObjectStore>, least: u64) -> Self {
        Self { store, least, used: AtomicU64::new(0), all: OnceCell::new() }
    }

    /// What is left of that which may be copied whatever is stored.
    pub(super) fn left_of_least(&self) -> u64 {
        self.least.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// What is left of all.
    pub(super) async fn left(&self) -> Result<u64> {
        let all = *self.all.get_or_try_init(|| self.learn()).await?;
        Ok(all.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    /// Uses what a content costs. Fails, as for damage, where that is not allowed: nothing is used then, so that others still
    /// fit.
    pub(super) async fn take(&self, cost: u64) -> Result<()> {
        if cost <= self.left_of_least() || cost <= self.left().await? {
            self.used.fetch_add(cost, Ordering::Relaxed);
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "its contents repeat what is stored until they are, together with those before them, more than {} TiB and more \
             than {TIMES_STORED} times all that the repository holds: nobody backs up such a thing",
            limits::COPIED_LEAST >> 40
        )))
    }

    async fn learn(&self) -> Result<u64> {
        let mut stored = 0_u64;
        store::for_each(self.store.as_ref(), "packs/", |pack| stored = stored.saturating_add(pack.size))
            .await?;
        Ok(stored.saturating_mul(TIMES_STORED).max(self.least))
    }
}

/// What it costs to copy so many runs of so many bytes, whose pages take so many looks.
pub(super) fn cost_of(runs: u64, bytes: u64, looks: u64) -> u64 {
    runs.saturating_mul(RUN_BYTES).max(bytes).saturating_add(looks.saturating_mul(LOOK_BYTES))
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
            assert_eq!((allowance.left_of_least(), allowance.left().await.unwrap()), (least, allowed));
            let error = allowance.take(allowed + 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            allowance.take(allowed).await.unwrap();
            assert_eq!((allowance.left_of_least(), allowance.left().await.unwrap()), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_is_taken_counts_and_what_is_refused_does_not() {
        let allowance = Allowance::with_least(Arc::new(MemStore::new()), 10);
        allowance.take(4).await.unwrap();
        for refused in [7, u64::MAX] {
            allowance.take(refused).await.unwrap_err();
        }
        allowance.take(6).await.unwrap();
        allowance.take(1).await.unwrap_err();
    }

    #[test]
    fn runs_and_looks_cost_as_well_as_bytes() {
        assert_eq!(cost_of(2, 1, 0), 2 * RUN_BYTES);
        assert_eq!(cost_of(2, 3 * RUN_BYTES, 1), 3 * RUN_BYTES + LOOK_BYTES);
        assert_eq!(cost_of(u64::MAX, 0, u64::MAX), u64::MAX);
    }
}
