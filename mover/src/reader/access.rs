//! What a reader needs from a repository: packs, relocations, visibility, keys.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        frame::FramePlace,
        session::{SessionKeyInfo, SessionName},
    },
    id::PackId,
    keys::Keys,
    repo::{Relocations, Repository},
    store::ByteRange,
};

/// The reading side of a repository.
#[async_trait]
pub trait Access: Send + Sync + Debug {
    /// The repository's keys.
    fn keys(&self) -> &Keys;

    /// Whether packs lie in a local file system: requests are cheap, so they may be small.
    fn is_local(&self) -> bool;

    /// How many reads at once use the store well.
    fn parallel_reads(&self) -> usize;

    /// Part of a pack, under whichever of its names it exists; `NotFound` if there is none.
    async fn read_pack(&self, pack: PackId, range: ByteRange) -> Result<Bytes>;

    /// Where a repack moved a frame (rule R2); `again` reads the relocations anew.
    async fn resolve(&self, pack: PackId, offset: u32, again: bool) -> Result<Option<(PackId, u32)>>;

    /// Whether a snapshot is visible now (rule V).
    async fn is_visible(&self, session: SessionName) -> Result<bool>;

    /// Keys of the sessions whose frames lie in one pack with this frame.
    async fn keys_beside(&self, place: &FramePlace) -> Result<Vec<SessionKeyInfo>>;
}

/// A repository with the relocations that were read last.
#[derive(Debug)]
pub struct RepositoryAccess {
    repository: Repository,
    relocations: Mutex<Option<Arc<Relocations>>>,
}

impl RepositoryAccess {
    /// Reads from this repository.
    pub fn new(repository: Repository) -> Self {
        Self { repository, relocations: Mutex::default() }
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
        let known = self.relocations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let relocations = match known {
            Some(known) if !again => known,
            _ => {
                let (fresh, unreadable) = self.repository.readable_relocations().await?;
                let fresh = Arc::new(fresh);
                // What cannot be read may be what would say it; what others say is as good as ever.
                if let Some(error) = unreadable.filter(|_| fresh.lookup(pack, offset).is_none()) {
                    return Err(Error::corrupt(format!(
                        "pack {pack} is gone, and where it went cannot be read"
                    ))
                    .with_source(error));
                }
                *self.relocations.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&fresh));
                fresh
            }
        };
        Ok(relocations.lookup(pack, offset))
    }

    async fn is_visible(&self, session: SessionName) -> Result<bool> {
        Ok(self.repository.visible(&session.to_string()).await?.contains(&session))
    }

    async fn keys_beside(&self, place: &FramePlace) -> Result<Vec<SessionKeyInfo>> {
        let footer = match self.repository.footer(place.pack).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let moved = self.resolve(place.pack, place.offset, false).await?;
                let (pack, _) = moved.ok_or(error)?;
                self.repository.footer(pack).await?
            }
            footer => footer?,
        };
        Ok(footer.footer.sessions)
    }
}
