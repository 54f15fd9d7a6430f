//! Defects on demand, in development builds alone: a test sees what users would see of one, and what it leaves behind.
//!
//! `CARRACK_DEFECT=panic:change:3` is an assertion that fails at the fourth request that changes the repository,
//! `words:read:0` one at the first that reads it, whose message names the place of the repository, and
//! `contradiction:…` an error that the engine takes for its own, in a context that does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    error::{Error, Result},
    store::{ByteRange, Decorator, ObjectStore, Page, Put},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Panic,
    Words,
    Contradiction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Change,
    Read,
}

#[derive(Debug)]
struct DefectiveStore {
    inner: Arc<dyn ObjectStore>,
    kind: Kind,
    side: Side,
    /// Requests of that side until then.
    left: AtomicU64,
}

/// The store with the defect that is asked for; the store itself if none is.
pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    match wanted() {
        Some((kind, side, left)) => {
            Arc::new(DefectiveStore { inner, kind, side, left: AtomicU64::new(left) })
        }
        None => inner,
    }
}

fn wanted() -> Option<(Kind, Side, u64)> {
    let text = std::env::var("CARRACK_DEFECT").ok()?;
    let mut parts = text.split(':');
    let kind = match parts.next()? {
        "panic" => Kind::Panic,
        "words" => Kind::Words,
        "contradiction" => Kind::Contradiction,
        _ => return None,
    };
    let side = match parts.next()? {
        "change" => Side::Change,
        "read" => Side::Read,
        _ => return None,
    };
    Some((kind, side, parts.next()?.parse().ok()?))
}

impl DefectiveStore {
    fn meet(&self, side: Side) -> Result<()> {
        if side != self.side || self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        assert!(self.kind != Kind::Panic, "a defect was asked for");
        let place = self.inner.describe();
        assert!(self.kind != Kind::Words, "a defect was asked for at {place}");
        Err(Error::internal("a contradiction was asked for").context(place))
    }
}

#[async_trait]
impl Decorator for DefectiveStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.meet(Side::Change)?;
        self.inner.put_if_absent(name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        self.meet(Side::Read)?;
        self.inner.get(name, range).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.meet(Side::Read)?;
        self.inner.list(prefix, token).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.meet(Side::Change)?;
        self.inner.delete(name).await
    }
}
