//! Mover pods: what they are made from, and what became of them.

mod build;
mod files;
mod state;

pub use build::{MoverPod, PodVolume, VolumeMode, apply, clean_up, secret_name, stop};
pub use files::{
    DATA_PATH, DEVICE_PATH, JobFiles, KeyFile, METADATA_CA_PATH, METADATA_TOKEN_PATH, MetadataFiles,
    SEAL_KEY_PATH, SecretText, bytes, list,
};
pub use state::{Lost, PodState, avoided_nodes, failure, needs_host_users, or_said, progress};

use std::collections::BTreeMap;

use carrack_controller_api::{annotation, label};
use kube::{Resource, ResourceExt as _};

/// The request that something is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty if it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Owner {
    /// The request.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
        }
    }

    /// Labels of what is made for it.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (label::MANAGED_BY, label::MANAGER.to_owned()),
            (label::OWNER_UID, self.uid.clone()),
            (label::OWNER_KIND, self.kind.to_lowercase()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Annotations of what is made for it. An owner reference cannot cross namespaces.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        [(annotation::OWNER.to_owned(), format!("{}/{}", self.namespace, self.name))].into()
    }
}
