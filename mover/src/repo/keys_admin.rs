//! Keys of people: listing, adding, removing and rotating them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Repository,
    ends::untrue,
    key_files::{self, KeyFiles},
    read_short,
    unlock::{self, CreateOptions, KEYS_LIMIT, Unlock},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::records::{KeyDerivation, KeyFile},
    id::RandomId,
    monitor::Problem,
    secret::Key,
    store::{Put, list_all},
};

#[cfg(test)]
mod tests;

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
        let files = KeyFiles::read(self.store(), self.format()).await?;
        if files.proven.len() + files.newer.len() >= KEYS_LIMIT {
            return Err(Error::conflict(format!(
                "the repository has {KEYS_LIMIT} keys, and may have no more"
            ))
            .with_hint("remove one that nobody needs: carrack key list, carrack key remove KEY"));
        }
        let roots = unlock::open_root_keys(self.store().as_ref(), self.format(), &files, current)?;
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
        let name = format!("{}{id}", key_files::FOLDER);
        let removed = read_short(self.store().as_ref(), &name).await?;
        self.store().delete(&name).await?;
        self.store().flush().await?;
        // Of several who remove each other's key at the same moment one at least sees here that none is left.
        let Err(error) = self.check_others_open_all(id).await else { return Ok(()) };
        self.store().put_if_absent(&name, removed).await?;
        self.store().flush().await?;
        if error.kind() != ErrorKind::Conflict {
            return Err(error);
        }
        Err(Error::conflict("the other keys were removed at the same moment, so this one stays")
            .with_hint("see which are left: carrack key list"))
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
        let newest = roots.last().ok_or_else(|| Error::internal("a key file holds no key"))?;
        let id = unlock::rotation_id(newest);
        roots.push(Key::new(self.world().random()));
        if self.put_key(id, new, options, &roots).await? == Put::Exists {
            self.obey_rotation(id, new, roots.len()).await?;
        }
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
        let probes = list_all(store.as_ref(), crate::store::PROBES);
        let (probes, files) = tokio::try_join!(probes, KeyFiles::read(store, self.format()))?;
        for object in probes {
            store.delete(&object.name).await?;
        }
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

    async fn put_key(
        &self,
        id: RandomId,
        new: &Unlock,
        options: &CreateOptions,
        roots: &[Key],
    ) -> Result<Put> {
        let repository = self.format().repository;
        let signed = (roots, self.keys());
        unlock::put_key(self.store().as_ref(), self.world(), (repository, id), new, options, signed).await
    }

    /// N2: of two rotations of the same keys the one counts whose key came first. Ours, if what was lost is only the answer.
    async fn obey_rotation(&self, id: RandomId, new: &Unlock, generations: usize) -> Result<()> {
        let files = KeyFiles::read(self.store(), self.format()).await?;
        let name = format!("{}{id}", key_files::FOLDER);
        let opened = match files.proven.get(&name) {
            Some(file) => unlock::open_file(&name, file, self.format().repository, new)?,
            None => None,
        };
        if opened.is_some_and(|roots| roots.len() == generations) {
            return Ok(());
        }
        Err(Error::conflict(format!("another rotation of these keys came first: object {name}"))
            .with_hint("open the repository with the password or secret of that one, and rotate again"))
    }
}
