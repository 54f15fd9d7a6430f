//! What a reader needs from a repository: packs, relocations, visibility, keys.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{error::Result, format::session::SessionName, id::PackId, keys::Keys, store::ByteRange};

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
}
