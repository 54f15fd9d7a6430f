//! `DataMoverBackup`: one volume, once, into the repository.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{ClaimRef, RepositoryRef};

/// Moves what a volume holds into the repository, once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "carrack.dev",
    version = "v1alpha1",
    kind = "DataMoverBackup",
    plural = "datamoverbackups",
    shortname = "dmb",
    namespaced,
    category = "carrack",
    status = "DataMoverBackupStatus",
    derive = "PartialEq",
    doc = "Moves what a volume holds into the repository, once.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.sourceClaimRef.name"),
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
    printcolumn(name = "Added", type_ = "integer", format = "int64", json_path = ".status.storedBytes"),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".status.snapshotID", priority = 1),
    printcolumn(name = "Consistency", type_ = "string", json_path = ".status.consistency", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.sourceClaimRef == oldSelf.sourceClaimRef && self.type == oldSelf.type && has(self.dataMoverType) == has(oldSelf.dataMoverType) && (!has(self.dataMoverType) || self.dataMoverType == oldSelf.dataMoverType)", "a backup does not change what it is of: make another one"))]
pub struct DataMoverBackupSpec {
    /// Type of mover; the default one if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub data_mover_type: Option<String>,
    /// What `sourceClaimRef` names: a claim, of which a snapshot is made, or a snapshot that exists.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The claim or the volume snapshot, in the namespace of this object.
    pub source_claim_ref: ClaimRef,
    /// Further settings: `tags` and `exclude` (lists with commas), `force` (`"true"`: read everything).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = ("self.all(key, key in ['tags', 'exclude', 'force'])", "the settings are tags, exclude and force"))]
    #[schemars(extend("maxProperties" = 16))]
    pub config: BTreeMap<String, String>,
    /// Stops it; once true it stays so.
    #[serde(default)]
    #[x_kube(validation = ("self || !oldSelf", "what was stopped does not go on: make another backup"))]
    pub cancel: bool,
    /// What becomes of the snapshot in the repository when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What a backup reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupType {
    /// A `PersistentVolumeClaim`, of which a snapshot is made.
    #[default]
    #[serde(rename = "PVC")]
    Claim,
    /// A `VolumeSnapshot` that exists, and stays.
    VolumeSnapshot,
}

/// Of which moment is what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Consistency {
    /// All of it is of one moment, as after a loss of power.
    #[default]
    Snapshot,
    /// Each file is of the moment in which it was read: no snapshot of the volume could be made.
    Live,
}

/// What becomes of a snapshot in the repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays until the rules of the repository forget it.
    #[default]
    Retain,
    /// It is forgotten; maintenance frees what only it needed.
    Delete,
}

/// Where a backup stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum BackupPhase {
    /// Waits for its type, its repository or a free slot.
    #[default]
    Pending,
    /// A snapshot of the volume is made.
    Snapshotting,
    /// The snapshot becomes a temporary volume, and a pod starts.
    Preparing,
    /// The mover works.
    Running,
    /// It was asked to stop.
    Canceling,
    /// All of the volume is in the repository.
    Completed,
    /// A snapshot was written, but some of the volume could not be read.
    PartiallyCompleted,
    /// No snapshot was written.
    Failed,
    /// Stopped on request; no snapshot was written.
    Canceled,
}

impl BackupPhase {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::PartiallyCompleted | Self::Failed | Self::Canceled)
    }
}

/// How far the mover is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupProgress {
    /// Bytes of the volume that are done.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes of the volume, as far as known.
    #[serde(default)]
    pub total_bytes: i64,
}

/// What a driver said has changed in a volume since the snapshot before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedBlocksStatus {
    /// Bytes in blocks that have changed; only those were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Why there was no list to go by, so that all of the volume was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// What is known of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataMoverBackupStatus {
    /// Generation of the object that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(default)]
    pub phase: BackupPhase,
    /// What a person needs to know of it, with the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Name of the type of mover that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_mover_type: Option<String>,
    /// The repository that holds the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// Id of that repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_id: Option<String>,
    /// The snapshot in the repository.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// What the volume is called in the repository: `CLUSTER/NAMESPACE/CLAIM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// `Filesystem` or `Block`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Storage class of the volume; what its snapshot becomes meanwhile has it too, unless the type names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Of which moment is what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// Size of the volume, which a restore needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_bytes: Option<i64>,
    /// How far the mover is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<BackupProgress>,
    /// Bytes of the volume's files, or of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_bytes: Option<i64>,
    /// Bytes that were read from the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<i64>,
    /// What the driver said has changed, if it was to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_blocks: Option<ChangedBlocksStatus>,
    /// Bytes that the repository did not have yet, before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_bytes: Option<i64>,
    /// Bytes that went to the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// Files and directories that could not be read.
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
    /// `Accepted`, `SnapshotReady`, `Consistent`, `MoverStarted`, `Succeeded`, `CleanedUp`, `Forgotten`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
