//! Keys of people: listing, adding, removing and rotating them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Repository,
    ends::untrue,
    key_files::{self, KeyFiles},
    unlock::{self, CreateOptions, Unlock},
};
use crate::{
    error::{Error, Result},
    format::records::{KeyDerivation, KeyFile},
    id::RandomId,
    monitor::Problem,
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
    /// All keys that open the repository, and what lies beside them without its signature.
    pub async fn list_keys(&self) -> Result<(Vec<KeyEntry>, Vec<Problem>)> {
        let files = KeyFiles::read(self.store(), self.format()).await?;
        let mut keys = Vec::new();
        for (name, file) in files.proven {
            let id = name.strip_prefix(key_files::FOLDER).and_then(RandomId::from_hex);
            let id = id.ok_or_else(|| Error::corrupt(format!("object {name} is not named as a key")))?;
            let kind = match file.derivation {
                KeyDerivation::Argon2id { .. } => "passphrase",
                KeyDerivation::Secret { .. } => "secret",
            };
            keys.push(KeyEntry { id, label: file.label, created: file.created, kind: kind.to_owned() });
        }
        keys.sort_by_key(|key| (key.created, key.id));
        let untrue = |(name, error): (&String, &Error)| untrue(name, &error.to_string());
        Ok((keys, files.unproven.iter().map(untrue).collect()))
    }

    /// Adds a key that opens what `current` opens.
    pub async fn add_key(&self, current: &Unlock, new: &Unlock, options: &CreateOptions) -> Result<RandomId> {
        self.check_maintenance_known()?;
        let roots = self.roots(current).await?;
        let id = self.store_key(new, options, &roots).await?;
        self.store().flush().await?;
        Ok(id)
    }

    /// Removes a key. The last one stays: without it nobody could open the repository.
    pub async fn remove_key(&self, id: RandomId) -> Result<()> {
        self.check_maintenance_known()?;
        let (keys, _) = self.list_keys().await?;
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

    /// Removes what lies beside the keys without this repository's signature; answers how much that was.
    pub async fn remove_unproven_keys(&self) -> Result<usize> {
        self.check_maintainable()?;
        let files = KeyFiles::read(self.store(), self.format()).await?;
        for name in files.unproven.keys() {
            self.store().delete(name).await?;
        }
        self.store().flush().await?;
        Ok(files.unproven.len())
    }

    /// Fails if no other key opens as many generations. Others are left over from a rotation that was broken off.
    async fn check_others_open_all(&self, id: RandomId) -> Result<()> {
        let files = KeyFiles::read(self.store(), self.format()).await?;
        let name = format!("{}{id}", key_files::FOLDER);
        if files.proven.iter().any(|(other, file)| *other != name && !self.is_void(other, file)) {
            return Ok(());
        }
        Err(Error::conflict("the other keys open nothing that was written since the last rotation")
            .with_hint(
                "they are left over from it, and go with the next prune; add another first: carrack key add",
            ))
    }

    /// Whether a key is of before a rotation, so that it opens nothing that was written since.
    fn is_void(&self, name: &str, file: &KeyFile) -> bool {
        let generations = unlock::signed_generations(self.keys(), name, self.format().repository, file);
        generations.is_some_and(|count| count <= self.keys().newest())
    }

    /// What a rotation would remove.
    pub async fn plan_rotate(&self) -> Result<RotatePlan> {
        Ok(RotatePlan { remove: self.list_keys().await?.0 })
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
        self.check_maintenance_known()?;
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
        let files = KeyFiles::read(store, self.format()).await?;
        let void = files.proven.iter().filter(|(name, file)| self.is_void(name, file)).map(|(name, _)| name);
        for name in void.chain(&files.foreign) {
            store.delete(name).await?;
        }
        Ok(())
    }

    async fn roots(&self, current: &Unlock) -> Result<Vec<Key>> {
        let files = KeyFiles::read(self.store(), self.format()).await?;
        unlock::open_root_keys(self.store().as_ref(), self.format(), &files, current)
    }

    async fn store_key(&self, new: &Unlock, options: &CreateOptions, roots: &[Key]) -> Result<RandomId> {
        let repository = self.format().repository;
        let signed = (roots, self.keys());
        unlock::add_key(self.store().as_ref(), self.world(), repository, new, options, signed).await
    }
}
