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
    BackupPhase, BackupProgress, BackupType, ChangedBlocksStatus, Consistency, DataMoverBackup,
    DataMoverBackupSpec, DataMoverBackupStatus, DeletionPolicy,
};
pub use mover_type::{
    ChangedBlocks, Concurrency, DataMoverType, DataMoverTypeSpec, DataMoverTypeStatus, PodTemplate,
    StorageClassSettings, Timeouts, WithoutSnapshots,
};
pub use names::{GROUP, MOVER_PROVISIONER, VERSION, annotation, condition, finalizer, label, reason};
pub use repository::{
    ClusterRepository, ClusterRepositorySpec, Encryption, KeepRules, Limits, Location, Maintenance,
    Repository, RepositorySpec, RepositoryStatus,
};
pub use restore::{
    DataMoverRestore, DataMoverRestoreSpec, DataMoverRestoreStatus, ExistingVolume, NewVolume, RestorePhase,
    RestoreSource, SourceIdentity,
};
pub use shared::{ClaimRef, NamespacedSecret, RepositoryKind, RepositoryRef, SecretRef};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

/// All kinds, as the API server is given them.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        ClusterRepository::crd(),
        Repository::crd(),
        DataMoverType::crd(),
        DataMoverBackup::crd(),
        DataMoverRestore::crd(),
    ];
    let schemas = definitions.iter_mut().flat_map(|definition| &mut definition.spec.versions);
    for schema in schemas.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()) {
        sign(schema);
    }
    definitions
}

/// The API server knows no format without a sign, and warns of each at every install. That a number is not negative is a
/// rule of its own.
fn sign(schema: &mut JSONSchemaProps) {
    if let Some(format) = &mut schema.format
        && format.starts_with("uint")
    {
        *format = if format == "uint64" || format == "uint32" { "int64".into() } else { "int32".into() };
    }
    schema.properties.iter_mut().flatten().for_each(|(_, below)| sign(below));
    if let Some(JSONSchemaPropsOrBool::Schema(below)) = &mut schema.additional_properties {
        sign(below);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(below)) = &mut schema.items {
        sign(below);
    }
}

#[cfg(test)]
mod tests;
