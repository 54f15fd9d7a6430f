//! The repository: opening it, sessions that write to it, and what is visible in it.
//!
//! Who is safe against whom is the repository protocol (`docs/design/0002-protocol.md`); each step here names the
//! rule that it follows. Nothing locks, nothing looks at a clock for safety, and no object is ever overwritten.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::key_files::KeyFiles;
use crate::{
    chunker::Chunker,
    clock::World,
    error::{Error, Result},
    format::records::{self, RecordKind, RepositoryFormat},
    id::{LineageId, RepositoryId},
    keys::{Keys, verify_signature},
    limits,
    store::{ByteRange, ObjectStore, Put},
};

mod checkpoint;
mod collector;
mod damage;
mod doubts;
mod ends;
mod forget;
mod hints;
mod index;
mod key_files;
mod keys_admin;
mod lost;
mod mark;
mod newest;
mod packs;
mod revive;
mod segments;
mod session;
mod snapshots;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unlock;
mod upkeep;

pub use checkpoint::{Checkpoint, FileState, ImageState, Unfinished};
pub use collector::{PruneOptions, PrunePlan, PruneReport, Unused};
pub use damage::DamageNote;
pub(crate) use ends::untrue;
pub use forget::{Decision, ForgetPlan, GroupBy, KeepPolicy, PINNED, Series, VERIFIED, plan_forget};
pub use index::DedupIndex;
#[cfg(feature = "testing")]
pub(crate) use index::{fuzz_joined, fuzz_segment};
pub use keys_admin::{KeyEntry, RotatePlan};
pub(crate) use mark::Needs;
pub use mark::Watch;
pub use packs::{PackFooter, Relocations};
pub use revive::{Hidden, Revived};
#[cfg(feature = "testing")]
pub(crate) use segments::fuzz_hint;
pub use segments::{Join, LoadedIndex};
pub use session::Session;
pub use snapshots::{SnapshotFilter, SnapshotList};
pub use unlock::{CreateOptions, Unlock};
pub use upkeep::{IndexPlan, IndexReport};

/// Name of the object that says what the repository is.
const FORMAT_OBJECT: &str = "format";
/// Version of the format that this program writes.
const FORMAT_VERSION: u32 = 1;

/// An open repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    world: World,
    keys: Keys,
    format: RepositoryFormat,
    /// Names of the key files that it had signed when it was opened.
    key_files: BTreeSet<String>,
    /// Held by whoever reads a long record.
    long_record: Semaphore,
}

impl Repository {
    /// Makes a repository in an empty place. The format object comes last: until it is there, nothing is.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        world: World,
        unlock: &Unlock,
        options: &CreateOptions,
    ) -> Result<Self> {
        let exists = || {
            Error::conflict(format!("{} holds a repository already", store.describe()))
                .with_hint("use it as it is, or choose another place")
        };
        match store.get(FORMAT_OBJECT, ByteRange::All).await {
            Ok(bytes) => {
                // Whoever made it may have been killed before it was durable, and others rely on what is said here.
                store.put_if_absent(FORMAT_OBJECT, bytes).await?;
                return Err(exists());
            }
            Err(error) if error.kind() == crate::error::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if has_data(store.as_ref()).await? {
            return Err(without_format(store.as_ref()));
        }
        crate::store::probe(store.as_ref(), &world).await?;
        let repository = RepositoryId(world.random());
        let root = crate::secret::Key::new(world.random());
        let roots = std::slice::from_ref(&root);
        let keys = Keys::from_roots(repository, roots)?;
        let key =
            unlock::add_key(store.as_ref(), &world, repository, unlock, options, (roots, &keys)).await?;
        let maintenance_public = *keys
            .foundation_public()
            .ok_or_else(|| Error::internal("a new repository has no maintenance key"))?;
        let format = RepositoryFormat {
            version: FORMAT_VERSION,
            repository,
            maintenance_public,
            cut: options.cut,
            read_features: Vec::new(),
            write_features: Vec::new(),
            maintain_features: Vec::new(),
            created: world.clock.now(),
        };
        let json = records::to_json(&format)?;
        let mut body = keys.sign_foundation(FORMAT_OBJECT, &json)?;
        body.extend_from_slice(&json);
        let body = records::encode_record(RecordKind::Format, &body);
        if store.put_if_absent(FORMAT_OBJECT, body.into()).await? == Put::Exists {
            if let Err(error) = store.delete(&format!("keys/{key}")).await {
                tracing::warn!(%error, %key, "a key that opens nothing stays until the next prune");
            }
            return Err(exists());
        }
        store.flush().await?;
        let files = KeyFiles::read(&store, &format).await?;
        Ok(Self::of(store, world, keys, format, files))
    }

    /// Opens a repository with a password, a secret or a mover's keys.
    pub async fn open(store: Arc<dyn ObjectStore>, world: World, unlock: &Unlock) -> Result<Self> {
        let format = read_format(store.as_ref()).await?;
        let files = KeyFiles::read(&store, &format).await?;
        let keys = unlock::open_keys(store.as_ref(), &format, &files, unlock)?;
        Ok(Self::of(store, world, keys, format, files))
    }

    fn of(
        store: Arc<dyn ObjectStore>,
        world: World,
        keys: Keys,
        format: RepositoryFormat,
        files: KeyFiles,
    ) -> Self {
        let (key_files, long_record) = (files.into_signed_names(), Semaphore::new(1));
        Self { inner: Arc::new(Inner { store, world, keys, format, key_files, long_record }) }
    }

    /// Where the objects lie.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// Clock and randomness.
    pub fn world(&self) -> &World {
        &self.inner.world
    }

    /// The keys that it was opened with.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// What the repository says of itself.
    pub fn format(&self) -> &RepositoryFormat {
        &self.inner.format
    }

    /// Fails if writing must know something that this program does not. The repository is then one to read.
    pub(crate) fn check_writable(&self) -> Result<()> {
        known("write", &self.format().write_features)
    }

    /// Fails if maintenance, which writes too, must know something that this program does not.
    pub(crate) fn check_maintenance_known(&self) -> Result<()> {
        self.check_writable()?;
        known("maintain", &self.format().maintain_features)
    }

    /// The same, and fails if these keys may not maintain.
    pub(crate) fn check_maintainable(&self) -> Result<()> {
        self.keys().check_can_maintain()?;
        self.check_maintenance_known()
    }

    /// KEYS: fails if somebody added or removed a key since this repository was opened. What does not verify may then be
    /// signed by a key that this process does not hold, and must not be taken for forged.
    pub(crate) async fn check_keys_unchanged(&self) -> Result<()> {
        if self.are_keys_unchanged().await? {
            return Ok(());
        }
        Err(Error::conflict("the keys of the repository were changed meanwhile")
            .with_hint("run the same command again"))
    }

    /// The same as a question.
    pub(crate) async fn are_keys_unchanged(&self) -> Result<bool> {
        let files = KeyFiles::read(self.store(), self.format()).await?;
        Ok(files.into_signed_names() == self.inner.key_files)
    }

    /// Cuts file contents as this repository does.
    pub fn chunker(&self) -> Chunker {
        Chunker::new(self.keys().chunk_seed(), self.format().cut)
    }

    /// The name of a source over time: host and paths, under a keyed hash, so that neither shows.
    pub fn lineage(&self, host: &str, paths: &[Vec<u8>]) -> LineageId {
        let mut material: Vec<&[u8]> = vec![host.as_bytes()];
        material.extend(paths.iter().map(Vec::as_slice));
        let hash = self.keys().keyed_hash("lineage", &material);
        let mut id = LineageId::default();
        id.0.copy_from_slice(&hash[..LineageId::LENGTH]);
        id
    }
}

/// Whether anybody has written sessions here, as they do to a repository only.
async fn has_data(store: &dyn ObjectStore) -> Result<bool> {
    for folder in ["sessions/", "snapshots/", "packs/"] {
        match store.list(folder, None).await {
            Ok(page) if page.objects.is_empty() => {}
            Ok(_) => return Ok(true),
            // A directory that does not exist yet.
            Err(error) if error.kind() == crate::error::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// A new repository in its place would make everything in it unreadable, and garbage.
fn without_format(store: &dyn ObjectStore) -> Error {
    Error::corrupt(format!("the repository at {} has lost its object `{FORMAT_OBJECT}`", store.describe()))
        .with_hint("bring that object back from a copy; for a new repository choose another place")
}

/// Fails if the format object names a feature: version 1 has none.
fn known(right: &str, features: &[String]) -> Result<()> {
    match features.first() {
        None => Ok(()),
        Some(unknown) => {
            Err(Error::invalid(format!("to {right} this repository a program must know `{unknown}`"))
                .with_hint("use a newer carrack; nothing is wrong with the repository"))
        }
    }
}

/// Reads and checks the format object.
async fn read_format(store: &dyn ObjectStore) -> Result<RepositoryFormat> {
    let bytes = match store.get(FORMAT_OBJECT, ByteRange::All).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == crate::error::ErrorKind::NotFound => {
            return Err(match has_data(store).await? {
                true => without_format(store),
                false => Error::not_found(format!("there is no repository at {}", store.describe()))
                    .with_hint("check the place, or make a repository there: carrack init"),
            });
        }
        Err(error) => return Err(error),
    };
    let format = decode_format(&bytes).map_err(|error| match error.kind() {
        crate::error::ErrorKind::Corrupt => error
            .context(store.describe())
            .with_hint("check the place; if it is a repository, bring that object back from a copy"),
        _ => error,
    })?;
    if format.version > FORMAT_VERSION {
        return Err(Error::invalid(format!(
            "the repository at {} has format version {}, this program knows {FORMAT_VERSION}",
            store.describe(),
            format.version
        ))
        .with_hint("use a newer carrack; nothing is wrong with the repository"));
    }
    if format.version == 0 {
        return Err(Error::corrupt("the format object has version 0, which cannot be"));
    }
    known("read", &format.read_features)?;
    if !format.cut.is_valid() {
        return Err(Error::corrupt("the format object has chunk sizes that cannot be"));
    }
    Ok(format)
}

/// Reads a record of a kind that is never long. Somebody else's may be as long as he likes: it takes no memory.
async fn read_short(store: &dyn ObjectStore, name: &str) -> Result<Bytes> {
    let limit = limits::SHORT_RECORD_LIMIT;
    let bytes = store.get(name, ByteRange::Last(limit + 1)).await?;
    if bytes.len() as u64 <= limit {
        return Ok(bytes);
    }
    Err(Error::corrupt(format!("object {name}: it is longer than any record of its kind")))
}

/// What nobody vouches for counts as damage, but for a newer version, which may be signed in another way.
fn decode_format(bytes: &[u8]) -> Result<RepositoryFormat> {
    let body = records::decode_kind(FORMAT_OBJECT, bytes, RecordKind::Format)?;
    let (signature, json) = records::split_signature(FORMAT_OBJECT, body)?;
    let format: RepositoryFormat = records::from_json(FORMAT_OBJECT, json)?;
    let is_signed = verify_signature(&format.maintenance_public, FORMAT_OBJECT, json, signature);
    if is_signed || format.version > FORMAT_VERSION {
        return Ok(format);
    }
    Err(Error::corrupt(format!("object {FORMAT_OBJECT}: its signature does not fit, it was changed")))
}
