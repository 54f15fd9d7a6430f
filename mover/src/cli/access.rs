//! A repository as the reader of snapshots sees it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    error::Result,
    format::session::SessionName,
    id::PackId,
    keys::Keys,
    reader::access::Access,
    repo::{Relocations, Repository},
    store::ByteRange,
};
use tokio::sync::Mutex;

/// The repository, and where repacks moved things as far as that was asked for.
#[derive(Debug)]
pub(crate) struct RepositoryAccess {
    repository: Repository,
    relocations: Mutex<Option<Arc<Relocations>>>,
}

impl RepositoryAccess {
    pub(crate) fn new(repository: Repository) -> Arc<Self> {
        Arc::new(Self { repository, relocations: Mutex::default() })
    }
}

#[async_trait]
impl Access for RepositoryAccess {
    fn keys(&self) -> &Keys {
        self.repository.keys()
    }

    fn is_local(&self) -> bool {
        self.repository.store().capabilities().local
    }

    fn parallel_reads(&self) -> usize {
        self.repository.store().capabilities().preferred_parallel_gets
    }

    async fn read_pack(&self, pack: PackId, range: ByteRange) -> Result<Bytes> {
        self.repository.read_pack(pack, range).await
    }

    async fn resolve(&self, pack: PackId, offset: u32, again: bool) -> Result<Option<(PackId, u32)>> {
        let mut kept = self.relocations.lock().await;
        let relocations = match kept.as_ref().filter(|_| !again) {
            Some(relocations) => Arc::clone(relocations),
            None => Arc::clone(kept.insert(Arc::new(self.repository.relocations().await?))),
        };
        Ok(relocations.lookup(pack, offset))
    }

    async fn is_visible(&self, session: SessionName) -> Result<bool> {
        Ok(self.repository.visible(&session.to_string()).await?.contains(&session))
    }
}
