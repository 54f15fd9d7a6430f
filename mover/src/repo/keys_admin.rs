//! Keys of people: listing, adding, removing and rotating them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Repository,
    unlock::{self, CreateOptions, Unlock},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::records::KeyDerivation,
    id::RandomId,
    secret::Key,
    store::list_all,
};

/// A key as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Names the key.
    pub id: RandomId,
    /// What people call it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// `passphrase` or `secret`.
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
            let file = unlock::read_file(self.store().as_ref(), &object.name).await?;
            if !file.is_of(self.format().repository) {
                continue;
            }
            let id = object.name.strip_prefix("keys/").and_then(RandomId::from_hex);
            let id =
                id.ok_or_else(|| Error::corrupt(format!("object {} is not named as a key", object.name)))?;
            let kind = match file.derivation {
                KeyDerivation::Argon2id { .. } => "passphrase",
                KeyDerivation::Secret { .. } => "secret",
            };
            keys.push(KeyEntry { id, label: file.label, created: file.created, kind: kind.to_owned() });
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
        if keys.len() == 1 {
            return Err(Error::conflict("this is the only key of the repository")
                .with_hint("add another first: carrack key add"));
        }
        self.check_others_open_all(id).await?;
        self.store().delete(&format!("keys/{id}")).await?;
        self.store().flush().await
    }

    /// Fails if no other key opens as many generations. Others are left over from a rotation that was broken off.
    async fn check_others_open_all(&self, id: RandomId) -> Result<()> {
        for object in list_all(self.store().as_ref(), "keys/").await? {
            if object.name != format!("keys/{id}") && !self.is_void(&object.name).await? {
                return Ok(());
            }
        }
        Err(Error::conflict("the other keys open nothing that was written since the last rotation")
            .with_hint(
                "they are left over from it, and go with the next prune; add another first: carrack key add",
            ))
    }

    /// Whether a key opens nothing here: it is of a repository that never came to be, or of before a rotation.
    async fn is_void(&self, name: &str) -> Result<bool> {
        let file = match unlock::read_file(self.store().as_ref(), name).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            // It may be the only key of somebody, damaged.
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            Err(error) => return Err(error),
        };
        let repository = self.format().repository;
        let generations = unlock::signed_generations(self.keys(), name, repository, &file);
        Ok(!file.is_of(repository) || generations.is_some_and(|count| count <= self.keys().newest()))
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

    /// Removes what a killed `init` or rotation has left: objects that tried the store, and keys that open nothing.
    pub(super) async fn drop_void_keys(&self) -> Result<()> {
        let store = self.store();
        for object in list_all(store.as_ref(), crate::store::PROBES).await? {
            store.delete(&object.name).await?;
        }
        for object in list_all(store.as_ref(), "keys/").await? {
            if self.is_void(&object.name).await? {
                store.delete(&object.name).await?;
            }
        }
        Ok(())
    }

    async fn roots(&self, current: &Unlock) -> Result<Vec<Key>> {
        unlock::open_root_keys(self.store().as_ref(), self.format(), current).await
    }

    async fn store_key(&self, new: &Unlock, options: &CreateOptions, roots: &[Key]) -> Result<RandomId> {
        let repository = self.format().repository;
        let signed = (roots, self.keys());
        unlock::add_key(self.store().as_ref(), self.world(), repository, new, options, signed).await
    }
}
