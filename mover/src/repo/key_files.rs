//! Key files as they lie in the store. Each is signed by the repository, which is judged before any work is done on
//! one: whoever may put objects could else shut everybody out, with more files than are tried.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinSet;

use super::read_short;
use crate::{
    error::{Error, ErrorKind, Result},
    format::records::{self, KeyFile, RecordKind, RepositoryFormat},
    keys::{Keys, verify_signature},
    store::{ObjectStore, list_all},
};

/// The folder of key files.
pub(super) const FOLDER: &str = "keys/";
/// Key files that are read at once.
const PARALLEL_READS: usize = 16;

/// What lies below `keys/`, by name.
#[derive(Debug, Default)]
pub(super) struct KeyFiles {
    /// Signed by this repository.
    pub(super) proven: BTreeMap<String, KeyFile>,
    /// Damaged, or put there by somebody else.
    pub(super) unproven: BTreeMap<String, Error>,
}

impl KeyFiles {
    pub(super) async fn read(store: &Arc<dyn ObjectStore>, format: &RepositoryFormat) -> Result<Self> {
        let mut files = Self::default();
        let mut running = JoinSet::new();
        let mut names = list_all(store.as_ref(), FOLDER).await?.into_iter().map(|object| object.name);
        loop {
            while running.len() < PARALLEL_READS
                && let Some(name) = names.next()
            {
                let (store, public) = (Arc::clone(store), format.maintenance_public);
                running.spawn(async move { (read_short(store.as_ref(), &name).await, name, public) });
            }
            let Some(joined) = running.join_next().await else { return Ok(files) };
            let (bytes, name, public) =
                joined.map_err(|error| Error::internal("reading a key file broke").with_source(error))?;
            match bytes.and_then(|bytes| decode(&name, &bytes, &public)) {
                Ok(file) => drop(files.proven.insert(name, file)),
                // Removed since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                    files.unproven.insert(name, error);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn decode(name: &str, bytes: &[u8], public: &[u8; 32]) -> Result<KeyFile> {
    let body = records::decode_kind(name, bytes, RecordKind::Key)?;
    let (signature, json) = records::split_signature(name, body)?;
    if verify_signature(public, name, json, signature) {
        records::from_json(name, json)
    } else {
        Err(Error::corrupt(format!("object {name} is not signed by this repository")))
    }
}

/// The object of a key file.
pub(super) fn encode(name: &str, file: &KeyFile, keys: &Keys) -> Result<Vec<u8>> {
    let json = records::to_json(file)?;
    let mut body = keys.sign_foundation(name, &json)?;
    body.extend_from_slice(&json);
    Ok(records::encode_record(RecordKind::Key, &body))
}
