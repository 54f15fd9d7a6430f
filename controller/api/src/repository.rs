//! `Repository` and `ClusterRepository`: where snapshots are kept.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{NamespacedSecret, SecretRef};

/// Where snapshots are kept: a bucket, with the secrets that reach and open it. For the namespace it is in.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "carrack.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    namespaced,
    category = "carrack",
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "Where snapshots are kept: a bucket, with the secrets that reach and open it. For the namespace it is in.",
    printcolumn(name = "Url", type_ = "string", json_path = ".spec.location.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Maintained", type_ = "date", json_path = ".status.lastMaintenance"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RepositorySpec {
    /// Where it is and how it is reached.
    pub location: Location,
    /// Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`), or with `credentials`, a
    /// file in the form of the AWS tools. None where the pods have an identity of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretRef>,
    /// Secret with `password`, or with `key`, a 256-bit secret in hexadecimal digits. It opens everything; pods that
    /// back up never get it.
    pub key_secret: SecretRef,
    /// How it is looked after.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Whether to make the repository where there is none yet.
    #[serde(default = "yes")]
    pub initialise: bool,
}

/// Where snapshots are kept, for every namespace of the cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "carrack.dev",
    version = "v1alpha1",
    kind = "ClusterRepository",
    plural = "clusterrepositories",
    category = "carrack",
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "Where snapshots are kept: a bucket, with the secrets that reach and open it. For every namespace of the cluster.",
    printcolumn(name = "Url", type_ = "string", json_path = ".spec.location.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Maintained", type_ = "date", json_path = ".status.lastMaintenance"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRepositorySpec {
    /// Where it is and how it is reached.
    pub location: Location,
    /// Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`), or with `credentials`, a
    /// file in the form of the AWS tools. None where the pods have an identity of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<NamespacedSecret>,
    /// Secret with `password`, or with `key`, a 256-bit secret in hexadecimal digits. It opens everything; pods that
    /// back up never get it.
    pub key_secret: NamespacedSecret,
    /// How it is looked after.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Whether to make the repository where there is none yet.
    #[serde(default = "yes")]
    pub initialise: bool,
}

fn yes() -> bool {
    true
}

/// Where a repository is and how its store is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// `s3://bucket/prefix`.
    #[x_kube(validation = ("self.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$')", "use s3://bucket or s3://bucket/prefix"))]
    #[x_kube(validation = ("self == oldSelf", "a repository does not move: make another one"))]
    #[schemars(length(max = 1024))]
    pub url: String,
    /// Base URL of a service that is not AWS: `https://minio.example:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self.matches('^https?://[^/ ]+/?$')", "use http://host:port or https://host:port"))]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket stands in the path of requests; with an endpoint yes if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// PEM certificates of the authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self.contains('-----BEGIN CERTIFICATE-----')", "give certificates in PEM form"))]
    pub certificate_authority: Option<String>,
    /// Storage class of packs, such as `STANDARD_IA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// What the server encrypts with, beside our own encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<Encryption>,
    /// Whether a checksum goes with each object; buckets with object lock demand it.
    #[serde(default)]
    pub upload_checksum: bool,
    /// Bounds for each mover pod.
    #[serde(default)]
    pub limits: Limits,
}

/// What the server encrypts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.algorithm == 'aws:kms' || !has(self.keyId)", "keyId needs algorithm aws:kms"))]
pub struct Encryption {
    /// `AES256` or `aws:kms`.
    #[x_kube(validation = ("self in ['AES256', 'aws:kms']", "use AES256 or aws:kms"))]
    pub algorithm: String,
    /// Key of `aws:kms`; the bucket's own if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// Bounds for each mover pod that uses a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most bytes a second to the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024))]
    pub upload_bytes_per_second: Option<u64>,
    /// Most bytes a second from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024))]
    pub download_bytes_per_second: Option<u64>,
    /// Most requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub requests: Option<u32>,
}

/// How a repository is looked after, by a pod that runs now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// When, as five fields of cron in UTC: `0 3 * * *`. Never if nothing is said; then somebody else must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self.matches('^([^ ]+ ){4}[^ ]+$')", "use five fields of cron: minute hour day month weekday"))]
    pub schedule: Option<String>,
    /// Which snapshots of each volume stay. All stay if there are no rules.
    #[serde(default)]
    pub keep: KeepRules,
    /// Which share of the packs each check reads and compares, in percent. 0 looks at structure and sizes only.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub check_percent: u8,
    /// Stops maintenance for the time being.
    #[serde(default)]
    pub suspend: bool,
}

/// Which snapshots of each volume stay; one that any rule names stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeepRules {
    /// This many of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub last: Option<u32>,
    /// The newest of each of this many hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub hourly: Option<u32>,
    /// The newest of each of this many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub daily: Option<u32>,
    /// The newest of each of this many weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub weekly: Option<u32>,
    /// The newest of each of this many months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub monthly: Option<u32>,
    /// The newest of each of this many years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub yearly: Option<u32>,
    /// All that are younger than this: `30d`, `1y6m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

impl KeepRules {
    /// The rules by the names of the command line; empty if all stays.
    pub fn to_options(&self) -> BTreeMap<String, String> {
        let counted = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        counted
            .into_iter()
            .filter_map(|(name, count)| Some((name.to_owned(), count?.to_string())))
            .chain(self.within.iter().map(|span| ("within".to_owned(), span.clone())))
            .collect()
    }
}

/// What is known of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// Generation of the object that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Id of the repository. Another one behind the same address is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Bytes that it holds, as of the last maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// When it was last opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected: Option<Time>,
    /// The pod that maintains it, from before it is made until its result is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_pod: Option<String>,
    /// When maintenance last ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_maintenance: Option<Time>,
    /// When a check last ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check: Option<Time>,
    /// Hash of the settings and secrets that it was last opened with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_hash: Option<String>,
    /// `Ready` and `Maintained`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
