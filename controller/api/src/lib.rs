//! Carrack's Kubernetes kinds.
//!
//! Group `carrack.dev`, version `v1alpha1`. What is written here is what `kubectl explain` shows, and the rules are those
//! that the API server holds an object to. No client, no runtime: the types are for whoever speaks of these objects.

#![expect(clippy::duplicated_attributes, reason = "each column of a kind has a name, a type and a path")]
#![expect(unreachable_pub, reason = "the macros that make schemas write public items into private modules")]

mod backup;
mod mover_type;
mod names;
mod repository;
mod restore;
mod shared;

pub use backup::{
    BackupPhase, BackupProgress, BackupType, DataMoverBackup, DataMoverBackupSpec, DataMoverBackupStatus,
    DeletionPolicy,
};
pub use mover_type::{
    Concurrency, DataMoverType, DataMoverTypeSpec, DataMoverTypeStatus, PodTemplate, StorageClassSettings,
    Timeouts,
};
pub use names::{GROUP, MOVER_PROVISIONER, VERSION, annotation, condition, finalizer, label, reason};
pub use repository::{
    ClusterRepository, ClusterRepositorySpec, Encryption, KeepRules, Limits, Location, Maintenance,
    Repository, RepositorySpec, RepositoryStatus,
};
pub use restore::{
    DataMoverRestore, DataMoverRestoreSpec, DataMoverRestoreStatus, NewVolume, RestorePhase, RestoreSource,
    SourceIdentity,
};
pub use shared::{ClaimRef, NamespacedSecret, RepositoryKind, RepositoryRef, SecretRef};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// All kinds, as the API server is given them.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![
        ClusterRepository::crd(),
        Repository::crd(),
        DataMoverType::crd(),
        DataMoverBackup::crd(),
        DataMoverRestore::crd(),
    ]
}

#[cfg(test)]
mod tests;
