//! `DataMoverType`: who moves data, with what and into which repository.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::RepositoryRef;

/// Who moves data, with what and into which repository.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "carrack.dev", version = "v1alpha1", kind = "DataMoverType", plural = "datamovertypes", shortname = "dmt",
    category = "carrack", status = "DataMoverTypeStatus", derive = "PartialEq",
    doc = "Who moves data, with what and into which repository. The annotation carrack.dev/is-default-type: \"true\" makes one the default.",
    printcolumn(name = "Provisioner", type_ = "string", json_path = ".spec.provisioner"),
    printcolumn(name = "Repository", type_ = "string", json_path = ".spec.repository.name"),
    printcolumn(name = "Default", type_ = "string", json_path = ".metadata.annotations.carrack\\.dev/is-default-type"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("self.spec.provisioner != 'carrack.dev/mover' || has(self.spec.repository)", "provisioner carrack.dev/mover needs a repository")
)]
#[serde(rename_all = "camelCase")]
pub struct DataMoverTypeSpec {
    /// Whose it is. Carrack serves `carrack.dev/mover` and leaves all others alone.
    #[x_kube(validation = ("self == oldSelf", "the provisioner of a type does not change: make another type"))]
    #[x_kube(validation = ("self.size() > 0", "name the provisioner"))]
    #[schemars(length(max = 253))]
    pub provisioner: String,
    /// Where snapshots go to and come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryRef>,
    /// How mover pods look.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// Settings by the storage class of the volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_classes: BTreeMap<String, StorageClassSettings>,
    /// Class for snapshots of volumes; the default class of the volume's driver, or its only one, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_class: Option<String>,
    /// What becomes of volumes of which no snapshot can be made.
    #[serde(default)]
    pub without_snapshots: WithoutSnapshots,
    /// Whether drivers are asked which blocks of a raw block volume have changed since the last backup.
    #[serde(default)]
    pub changed_blocks: ChangedBlocks,
    /// How many run at once.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Compression: `auto`, `off`, a level from 1 to 19, or bounds such as `1..6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Whether restores read back what they wrote and compare.
    #[serde(default)]
    pub verify_restores: bool,
}

/// What becomes of volumes of which no snapshot can be made: their driver makes none, or they have no driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WithoutSnapshots {
    /// Their backups fail.
    #[default]
    Fail,
    /// The volume itself is read, on the node where it is used. What changes meanwhile is backed up as it is when it is read,
    /// so the files are not all of one moment; the backup says so.
    Live,
}

/// Whether drivers are asked which blocks have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChangedBlocks {
    /// Where the driver has a `SnapshotMetadataService`. For the driver to compare with, the snapshot of the last backup of each
    /// raw block volume stays at the storage until a later one into the same repository is done.
    #[default]
    WhereOffered,
    /// Never: all of a volume is read, and no snapshot stays.
    Never,
}

/// How mover pods look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Requests and limits. The mover keeps to three quarters of the limit of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels of the nodes that may run it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it bears.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Where it would rather run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Its priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Service account, for an identity at the store's provider. Its token is not mounted unless the provider does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Further labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Secrets that the image is pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Whether the pod's users are the node's. If nothing is said, a pod that mounts a volume has users of its own where all nodes
    /// can do that, and those of the node once the volume turns out not to bear it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// Threads for cutting, compressing and encrypting; one for each processor if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u32>,
}

/// Settings for volumes of one storage class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageClassSettings {
    /// Class of the temporary volume that a snapshot is read from; that of the volume if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_storage_class: Option<String>,
    /// Class for its snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_class: Option<String>,
    /// Whether the temporary volume is claimed read-only for many nodes, where the driver can do that at once.
    #[serde(default)]
    pub read_only: bool,
}

/// How many mover pods run at once. A request that waits for its turn does not time out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// In the cluster.
    #[serde(default = "Concurrency::default_cluster")]
    #[schemars(range(min = 1, max = 1000))]
    pub per_cluster: u32,
    /// On one node.
    #[serde(default = "Concurrency::default_node")]
    #[schemars(range(min = 1, max = 100))]
    pub per_node: u32,
}

impl Concurrency {
    fn default_cluster() -> u32 {
        10
    }

    fn default_node() -> u32 {
        4
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { per_cluster: Self::default_cluster(), per_node: Self::default_node() }
    }
}

/// How long things may take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the free slot until the mover runs: snapshot, temporary volume, pod.
    #[serde(default = "Timeouts::default_prepare")]
    #[schemars(range(min = 10, max = 86400))]
    pub prepare_seconds: u32,
    /// How long a mover that is asked to stop may take.
    #[serde(default = "Timeouts::default_stop")]
    #[schemars(range(min = 1, max = 3600))]
    pub stop_seconds: u32,
}

impl Timeouts {
    fn default_prepare() -> u32 {
        1800
    }

    fn default_stop() -> u32 {
        60
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { prepare_seconds: Self::default_prepare(), stop_seconds: Self::default_stop() }
    }
}

/// What is known of a type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataMoverTypeStatus {
    /// Generation of the object that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
