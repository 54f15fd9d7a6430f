//! `DataMoverRestore`: a snapshot out of the repository into a volume.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::VolumeResourceRequirements,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    backup::BackupProgress,
    shared::{ClaimRef, RepositoryRef},
};

/// Brings a snapshot out of the repository into a volume.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "carrack.dev",
    version = "v1alpha1",
    kind = "DataMoverRestore",
    plural = "datamoverrestores",
    shortname = "dmr",
    namespaced,
    category = "carrack",
    status = "DataMoverRestoreStatus",
    derive = "PartialEq",
    doc = "Brings a snapshot out of the repository into a volume.",
    printcolumn(name = "Destination", type_ = "string", json_path = ".spec.destinationClaimRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Done",
        type_ = "integer",
        format = "int64",
        json_path = ".status.progress.bytesDone"
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        format = "int64",
        json_path = ".status.progress.totalBytes"
    ),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".status.snapshotID", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.destinationClaimRef == oldSelf.destinationClaimRef && self.source == oldSelf.source && self.existingVolume == oldSelf.existingVolume", "a restore does not change what it restores: make another one"))]
pub struct DataMoverRestoreSpec {
    /// Type of mover; the default one if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub data_mover_type: Option<String>,
    /// The claim to fill, in the namespace of this object. One that is bound needs `existingVolume`; one that does not exist is
    /// made from `newVolume`.
    pub destination_claim_ref: ClaimRef,
    /// What to restore.
    pub source: RestoreSource,
    /// The claim to make if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_volume: Option<NewVolume>,
    /// What becomes of a claim that is bound already.
    #[serde(default)]
    pub existing_volume: ExistingVolume,
    /// Further settings: `include` and `exclude` (lists with commas), `verify` (`"true"`: read back and compare).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = ("self.all(key, key in ['include', 'exclude', 'verify'])", "the settings are include, exclude and verify"))]
    #[schemars(extend("maxProperties" = 16))]
    pub config: BTreeMap<String, String>,
    /// Stops it; once true it stays so.
    #[serde(default)]
    #[x_kube(validation = ("self || !oldSelf", "what was stopped does not go on: make another restore"))]
    pub cancel: bool,
}

/// What to restore: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.backup), has(self.snapshotID), has(self.identity)].filter(given, given).size() == 1", "give exactly one of backup, snapshotID and identity"))]
pub struct RestoreSource {
    /// Name of a `DataMoverBackup` in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backup: Option<String>,
    /// A snapshot of the repository.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f-]{8,64}$"))]
    pub snapshot_id: Option<String>,
    /// The snapshots of a volume, of which one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SourceIdentity>,
}

/// A volume as the repository knows it, and which of its snapshots is meant: the newest, if nothing more is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceIdentity {
    /// Name of the cluster that it was in; this one if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its namespace; this one if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the claim.
    #[schemars(length(min = 1, max = 253))]
    pub claim: String,
    /// The newest that was begun no later than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// How many to go back from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10000))]
    pub previous: Option<u32>,
}

/// What a restore does with a claim that has a volume already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExistingVolume {
    /// Nothing: the restore fails.
    #[default]
    Refuse,
    /// The snapshot is written into the volume while no pod uses it. Files that differ are replaced, others stay.
    Merge,
    /// The same, and what the snapshot does not have is deleted: the volume is afterwards as the snapshot is.
    Replace,
}

/// The claim to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewVolume {
    /// Its storage class; the default class if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Its access modes; `ReadWriteOnce` if nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// Its size; that of the volume that was backed up if nothing is said and the backup is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<VolumeResourceRequirements>,
    /// `Filesystem` or `Block`; that of the volume that was backed up if nothing is said and the backup is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Labels of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where a restore stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum RestorePhase {
    /// Waits for its type, its repository, its destination or a free slot.
    #[default]
    Pending,
    /// A temporary volume is made, and a pod starts.
    Preparing,
    /// The mover works.
    Running,
    /// The volume is full and goes to its claim.
    Binding,
    /// It was asked to stop.
    Canceling,
    /// The claim is bound to the full volume.
    Completed,
    /// The same, but some of the snapshot could not be restored.
    PartiallyCompleted,
    /// The claim was not bound.
    Failed,
    /// Stopped on request; the claim was not bound.
    Canceled,
}

impl RestorePhase {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::PartiallyCompleted | Self::Failed | Self::Canceled)
    }
}

/// What is known of a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataMoverRestoreStatus {
    /// Generation of the object that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(default)]
    pub phase: RestorePhase,
    /// What a person needs to know of it, with the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Name of the type of mover that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_mover_type: Option<String>,
    /// The repository that holds the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// The snapshot that was restored.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Whether it goes into the volume that the claim was bound to, and not into a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<bool>,
    /// The volume that holds what was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// How far the mover is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<BackupProgress>,
    /// Files that were restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_bytes: Option<i64>,
    /// Entries that could not be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<i64>,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_skipped: Vec<String>,
    /// Node that the mover ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was given a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_timestamp: Option<Time>,
    /// When the mover began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the end was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Whether the mover needs the users of the node: with users of its own it could not do all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// How often a mover pod was lost and started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// `Accepted`, `MoverStarted`, `Succeeded`, `CleanedUp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
