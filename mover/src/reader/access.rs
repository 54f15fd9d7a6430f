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
        pack::is_newer,
        session::{SessionKeyInfo, SessionName},
    },
    id::PackId,
    keys::Keys,
    repo::{Relocations, Repository},
    store::ByteRange,
};

#[cfg(test)]
mod tests;

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

    /// Part of one sending of a pack; `NotFound` if that did not arrive.
    async fn read_sending(&self, pack: PackId, attempt: u8, range: ByteRange) -> Result<Bytes>;

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
    relocations: Mutex<Option<Arc<Known>>>,
}

/// Relocations as they were read, and what is wrong with the first that could not be.
#[derive(Debug)]
struct Known {
    relocations: Relocations,
    doubtful: Option<(ErrorKind, String)>,
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

    async fn read_sending(&self, pack: PackId, attempt: u8, range: ByteRange) -> Result<Bytes> {
        self.repository.read_sending(pack, attempt, range).await
    }

    async fn resolve(&self, pack: PackId, offset: u32, again: bool) -> Result<Option<(PackId, u32)>> {
        let known = self.relocations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let relocations = match known {
            Some(known) if !again => known,
            _ => {
                let (relocations, doubtful) = self.repository.relocations().await?;
                // Where the `format` is known nothing is newer: what claims to be was changed.
                let kind = |error: &Error| if is_newer(error) { ErrorKind::Corrupt } else { error.kind() };
                let doubtful = doubtful.first().map(|(_, error)| (kind(error), error.in_one_line()));
                let fresh = Arc::new(Known { relocations, doubtful });
                *self.relocations.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&fresh));
                fresh
            }
        };
        match (relocations.relocations.lookup(pack, offset), &relocations.doubtful) {
            // Perhaps that one knew the way.
            (None, Some((kind, problem))) => Err(Error::new(*kind, problem.clone())),
            (found, _) => Ok(found),
        }
    }

    async fn is_visible(&self, session: SessionName) -> Result<bool> {
        Ok(self.repository.visible(&session.to_string()).await?.contains(&session))
    }

    async fn keys_beside(&self, place: &FramePlace) -> Result<Vec<SessionKeyInfo>> {
        // The name of what a prune has moved is free, and every writer can seal a footer there that names other keys.
        match self.resolve(place.pack, place.offset, false).await {
            Ok(Some((pack, _))) => return Ok(self.repository.footer(pack).await?.footer.sessions),
            Ok(None) => {}
            // What is in doubt on the way tells nothing; that the store does not answer is no doubt.
            Err(error) if tells_nothing(&error) => {}
            Err(error) => return Err(error),
        }
        let footer = match self.repository.footer(place.pack).await {
            // It may have been moved since the relocations were read. A trailer is not sealed: it may claim any keys and any
            // version.
            Err(error) if error.kind() == ErrorKind::NotFound || tells_nothing(&error) => {
                let moved = self.resolve(place.pack, place.offset, true).await?;
                let (pack, _) = moved.ok_or(error)?;
                self.repository.footer(pack).await?
            }
            footer => footer?,
        };
        Ok(footer.footer.sessions)
    }
}

/// Whether what is there cannot be used: damaged, of keys that are not held, newer, or on a disk that cannot read it.
fn tells_nothing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Denied | ErrorKind::Invalid)
        || error.is_of_broken_disk()
}
