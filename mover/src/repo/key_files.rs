//! Key files as they lie in the store. Each is signed by the repository, which is judged before any work is done on
//! one: whoever may put objects could else shut everybody out, with more files than anybody can try.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::task::JoinSet;

use super::read_short;
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        pack::newer,
        records::{self, KeyFile, RecordKind, RepositoryFormat},
    },
    id::RepositoryId,
    keys::{Keys, verify_signature},
    store::{ObjectStore, list_all},
};

#[cfg(test)]
mod tests;

/// The folder of key files.
pub(super) const FOLDER: &str = "keys/";
/// Key files that are read at once.
const PARALLEL_READS: usize = 16;
/// How often they are listed anew because one went meanwhile; a rotation removes all of them but once.
const LOOKS: u32 = 8;

/// What lies below `keys/`, by name.
#[derive(Debug, Default)]
pub(super) struct KeyFiles {
    /// Signed by this repository.
    pub(super) proven: BTreeMap<String, KeyFile>,
    /// Signed by this repository, and of these versions, which only a later program knows.
    pub(super) newer: BTreeMap<String, u32>,
    /// Of a repository that never came to be in this place, because whoever made it was killed.
    pub(super) foreign: Vec<String>,
    /// Damaged, or put there by somebody else.
    pub(super) unproven: BTreeMap<String, Error>,
}

impl KeyFiles {
    pub(super) async fn read(store: &Arc<dyn ObjectStore>, format: &RepositoryFormat) -> Result<Self> {
        for _ in 0..LOOKS {
            if let Some(files) = Self::look(store, format).await? {
                return Ok(files);
            }
        }
        Err(Error::unavailable(format!("the keys of {} change all the time", store.describe())))
    }

    /// Names of those that this repository has signed, whatever their version.
    pub(super) fn into_signed_names(self) -> BTreeSet<String> {
        self.proven.into_keys().chain(self.newer.into_keys()).collect()
    }

    /// None if a file went between listing and reading: a rotation may have put another one there before.
    async fn look(store: &Arc<dyn ObjectStore>, format: &RepositoryFormat) -> Result<Option<Self>> {
        let mut files = Self::default();
        let mut running = JoinSet::new();
        let mut names = list_all(store.as_ref(), FOLDER).await?.into_iter().map(|object| object.name);
        loop {
            while running.len() < PARALLEL_READS
                && let Some(name) = names.next()
            {
                let store = Arc::clone(store);
                running.spawn(async move { (read_short(store.as_ref(), &name).await, name) });
            }
            let Some(joined) = running.join_next().await else { return Ok(Some(files)) };
            let (bytes, name) =
                joined.map_err(|error| Error::internal("reading a key file broke").with_source(error))?;
            match bytes.and_then(|bytes| decode(&name, &bytes, format)) {
                Ok(Found::Proven(file)) => drop(files.proven.insert(name, *file)),
                Ok(Found::Newer(version)) => {
                    files.newer.insert(name, version);
                }
                Ok(Found::Foreign) => files.foreign.push(name),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                    files.unproven.insert(name, error);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a key file is, unless nobody can believe it.
enum Found {
    Proven(Box<KeyFile>),
    Newer(u32),
    /// A key of another repository.
    Foreign,
}

fn decode(name: &str, bytes: &[u8], format: &RepositoryFormat) -> Result<Found> {
    let body = records::decode_kind(name, bytes, RecordKind::Key)?;
    let (signature, json) = records::split_signature(name, body)?;
    if verify_signature(&format.maintenance_public, name, json, signature) {
        return match records::json_version(name, json)? {
            1 => records::from_json(name, json).map(Box::new).map(Found::Proven),
            0 => Err(unknown_version(name, 0)),
            version => Ok(Found::Newer(version)),
        };
    }
    let file: Option<KeyFile> = records::from_json(name, json).ok();
    match file.and_then(|file| file.repository) {
        Some(of) if is_another(of, format.repository) => Ok(Found::Foreign),
        _ => Err(Error::corrupt(format!("object {name} is not signed by this repository"))),
    }
}

/// The error for a key file of a version that this program does not know.
pub(super) fn unknown_version(name: &str, version: u32) -> Error {
    newer("key file", version).context(format!("object {name}"))
}

/// Whether these are two repositories, and not one whose id is damaged: random ids differ nearly everywhere.
fn is_another(one: RepositoryId, other: RepositoryId) -> bool {
    one.0.iter().zip(other.0).filter(|(one, other)| **one != *other).count() > one.0.len() / 2
}

/// The object of a key file.
pub(super) fn encode(name: &str, file: &KeyFile, keys: &Keys) -> Result<Vec<u8>> {
    let json = records::to_json(file)?;
    let mut body = keys.sign_foundation(name, &json)?;
    body.extend_from_slice(&json);
    Ok(records::encode_record(RecordKind::Key, &body))
}
