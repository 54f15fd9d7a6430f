//! Defects on demand, in development builds alone: a test sees what users would see of one, and what it leaves behind.
//!
//! `CARRACK_DEFECT=panic:3` is an assertion that fails at the fourth request that changes the repository,
//! `CARRACK_DEFECT=contradiction:3` an error that the engine takes for its own.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    error::{Error, Result},
    store::{Decorator, ObjectStore, Put},
};

#[derive(Debug)]
struct DefectiveStore {
    inner: Arc<dyn ObjectStore>,
    panics: bool,
    /// Changes until then.
    left: AtomicU64,
}

/// The store with the defect that is asked for; the store itself if none is.
pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let wanted = std::env::var("CARRACK_DEFECT").ok();
    let Some((kind, left)) = wanted.as_deref().and_then(|text| text.split_once(':')) else { return inner };
    let Ok(left) = left.parse() else { return inner };
    Arc::new(DefectiveStore { inner, panics: kind == "panic", left: AtomicU64::new(left) })
}

impl DefectiveStore {
    fn meet(&self) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        assert!(!self.panics, "a defect was asked for");
        Err(Error::internal("a contradiction was asked for"))
    }
}

#[async_trait]
impl Decorator for DefectiveStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.meet()?;
        self.inner.put_if_absent(name, body).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.meet()?;
        self.inner.delete(name).await
    }
}
