//! A store that takes everything and keeps nothing: what a dry run writes to.
//!
//! What a session must read again (its own small objects) is kept in memory; packs and index segments, which are
//! large and not read back, are dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    error::{Error, Result},
    repo::Repository,
    store::{ByteRange, Decorator, ObjectStore, Put},
};

use super::{context::Context, engine};

#[cfg(test)]
mod tests;

/// Opens the repository that the options name; for a dry run over such a store, so that everything is tried as it
/// would be done.
pub(crate) async fn open(context: &Context, dry_run: bool) -> Result<Repository> {
    if !dry_run {
        return engine::open(context).await;
    }
    let config = context.config()?;
    let store = DryRunStore::over(engine::store(&config).await?);
    engine::open_place(context, store, &config.place).await
}

#[derive(Debug)]
pub(crate) struct DryRunStore {
    inner: Arc<dyn ObjectStore>,
    kept: Mutex<BTreeMap<String, Bytes>>,
}

impl DryRunStore {
    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner, kept: Mutex::default() })
    }

    fn find(&self, name: &str) -> Option<Bytes> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[async_trait]
impl Decorator for DryRunStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        if !name.starts_with("packs/") && !name.starts_with("index/") {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), body);
        }
        Ok(Put::Created)
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let Some(body) = self.find(name) else { return self.inner.get(name, range).await };
        let length = body.len() as u64;
        let (from, to) = match range {
            ByteRange::All => (0, length),
            ByteRange::Last(count) => (length.saturating_sub(count), length),
            ByteRange::Slice { offset, length: count } => (offset, offset.saturating_add(count)),
        };
        if to > length {
            return Err(Error::corrupt(format!("object {name} ends before byte {to}")));
        }
        Ok(body.slice(from as usize..to as usize))
    }

    async fn delete(&self, _name: &str) -> Result<bool> {
        Ok(true)
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}
