//! Keys of people: listing, adding, removing and rotating them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Repository,
    unlock::{self, CreateOptions, Unlock},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::records::{self, KeyDerivation, KeyFile, RecordKind},
    id::RandomId,
    secret::Key,
    store::{ByteRange, list_all},
};

/// The kind of a key that is damaged: it opens nothing.
const UNREADABLE: &str = "unreadable";

/// A key as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Names the key.
    pub id: RandomId,
    /// What people call it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// `passphrase`, `secret` or `unreadable`.
    pub kind: String,
}

/// What a rotation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatePlan {
    /// Keys that will no longer open the repository: their holders need a new one.
    pub remove: Vec<KeyEntry>,
}

impl Repository {
    /// All keys that open the repository.
    pub async fn list_keys(&self) -> Result<Vec<KeyEntry>> {
        let mut keys = Vec::new();
        for object in list_all(self.store().as_ref(), "keys/").await? {
            let bytes = self.store().get(&object.name, ByteRange::All).await?;
            let id = object.name.strip_prefix("keys/").and_then(RandomId::from_hex);
            let id =
                id.ok_or_else(|| Error::corrupt(format!("object {} is not named as a key", object.name)))?;
            let file = records::decode_kind(&object.name, &bytes, RecordKind::Key)
                .and_then(|body| records::from_json::<KeyFile>(&object.name, body));
            let entry = |label, created, kind: &str| KeyEntry { id, label, created, kind: kind.to_owned() };
            keys.push(match file {
                Ok(KeyFile { label, created, derivation: KeyDerivation::Argon2id { .. }, .. }) => {
                    entry(label, created, "passphrase")
                }
                Ok(KeyFile { label, created, derivation: KeyDerivation::Secret { .. }, .. }) => {
                    entry(label, created, "secret")
                }
                // Listed, so that it can be taken away.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    entry(String::new(), Timestamp::UNIX_EPOCH, UNREADABLE)
                }
                Err(error) => return Err(error),
            });
        }
        keys.sort_by_key(|key| (key.created, key.id));
        Ok(keys)
    }

    /// Adds a key that opens what `current` opens.
    pub async fn add_key(&self, current: &Unlock, new: &Unlock, options: &CreateOptions) -> Result<RandomId> {
        let roots = self.roots(current).await?;
        let id = self.store_key(new, options, &roots).await?;
        self.store().flush().await?;
        Ok(id)
    }

    /// Removes a key. The last one stays: without it nobody could open the repository.
    pub async fn remove_key(&self, id: RandomId) -> Result<()> {
        let keys = self.list_keys().await?;
        if !keys.iter().any(|key| key.id == id) {
            return Err(Error::not_found(format!("there is no key {id}")).with_hint("see: carrack key list"));
        }
        if !keys.iter().any(|key| key.id != id && key.kind != UNREADABLE) {
            return Err(Error::conflict("this is the only key of the repository")
                .with_hint("add another first: carrack key add"));
        }
        self.store().delete(&format!("keys/{id}")).await?;
        self.store().flush().await
    }

    /// What a rotation would remove.
    pub async fn plan_rotate(&self) -> Result<RotatePlan> {
        Ok(RotatePlan { remove: self.list_keys().await? })
    }

    /// Begins a new generation: new sessions take their keys from a new root, and only the new key opens it. The
    /// new key is there before the old ones go, so that a crash in between loses nothing.
    pub async fn apply_rotate(
        &self,
        plan: &RotatePlan,
        current: &Unlock,
        new: &Unlock,
        options: &CreateOptions,
    ) -> Result<RandomId> {
        let mut roots = self.roots(current).await?;
        roots.push(Key::new(self.world().random()));
        let id = self.store_key(new, options, &roots).await?;
        self.store().flush().await?;
        for key in &plan.remove {
            self.store().delete(&format!("keys/{}", key.id)).await?;
        }
        self.store().flush().await?;
        Ok(id)
    }

    async fn roots(&self, current: &Unlock) -> Result<Vec<Key>> {
        unlock::open_root_keys(self.store().as_ref(), self.format(), current).await
    }

    async fn store_key(&self, new: &Unlock, options: &CreateOptions, roots: &[Key]) -> Result<RandomId> {
        let repository = self.format().repository;
        unlock::add_key(self.store().as_ref(), self.world(), repository, new, options, roots).await
    }
}
