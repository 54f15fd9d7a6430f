//! What a mover pod is asked to do.

use serde::{Deserialize, Serialize};

/// One run of a mover pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Job {
    /// [`crate::VERSION`] of who wrote it.
    pub version: u32,
    /// Where the repository is.
    pub repository: RepositoryAccess,
    /// What opens it.
    pub keys: Keys,
    /// What the process may use.
    #[serde(default)]
    pub resources: Resources,
    /// The newest snapshots that whoever wrote this has seen, of the sources that the task has to do with. A backup or
    /// restore names those that are gone without a trace, and maintenance deletes nothing then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_seen: Vec<SeenSnapshot>,
    /// What to do.
    pub task: Task,
}

/// A snapshot that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeenSnapshot {
    /// Its session.
    pub snapshot: String,
    /// When it was begun.
    pub started: jiff::Timestamp,
}

/// Where the repository is and how its store is reached. Credentials come through the environment of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositoryAccess {
    /// `s3://bucket/prefix`, or the path of a directory.
    pub url: String,
    /// Base URL of a service that is not AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket stands in the path of the URL; the program decides if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// PEM file with the authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Storage class of packs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// What the server encrypts with: `AES256`, `aws:kms` or `aws:kms:KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<String>,
    /// Whether a checksum is sent with each object, as buckets with object lock demand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upload_checksum: bool,
    /// Most bytes a second to the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_upload: Option<u64>,
    /// Most bytes a second from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_download: Option<u64>,
    /// Most requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
}

/// What opens the repository: the path of a file in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Keys {
    /// A file whose first line is a password: opens everything.
    PasswordFile(String),
    /// A file with a 256-bit secret in hexadecimal digits: opens everything.
    KeyFile(String),
    /// A file with a writer bundle: may back up one source, and opens nothing that others wrote.
    WriterBundle(String),
}

/// What the process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory to keep to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Threads for cutting, compressing and encrypting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// `auto`, `off`, a level or bounds, as on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// `auto` or a cipher, as on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Task {
    /// Open the repository and say which one it is.
    #[serde(rename_all = "camelCase")]
    Connect {
        /// Whether to make one where there is none.
        initialise: bool,
    },
    /// Make the writer bundle of one source; it leaves the pod sealed with the key in this file.
    #[serde(rename_all = "camelCase")]
    Bundle {
        /// The source.
        source: Source,
        /// Path of the file with the [`crate::SealKey`].
        seal_key_file: String,
    },
    /// Write a snapshot.
    Backup(BackupTask),
    /// Bring one back.
    Restore(RestoreTask),
    /// Forget by rules, free what nobody needs, check.
    Maintain(MaintainTask),
    /// Take one snapshot out of view; maintenance frees what only it needed.
    Forget {
        /// Its session.
        snapshot: String,
    },
}

/// A source over time: what the snapshots of one volume have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// What tells it from all others in the repository: `CLUSTER/NAMESPACE/CLAIM`.
    pub host: String,
    /// Where it is seen in the pod.
    pub place: Place,
}

/// A volume in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Place {
    /// The directory where a file system is mounted.
    Directory(String),
    /// The device of a raw block volume.
    Device(String),
}

impl Place {
    /// The path of either.
    pub fn path(&self) -> &str {
        match self {
            Self::Directory(path) | Self::Device(path) => path,
        }
    }
}

/// Write a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupTask {
    /// Of what.
    pub source: Source,
    /// Tags of the snapshot.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Patterns of what is left out, as on the command line; a slash in front means the root of the volume.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether inode numbers and change times tell nothing, as on a volume made from a snapshot.
    #[serde(default)]
    pub cloned: bool,
    /// Whether to read everything, as if there were no earlier snapshot.
    #[serde(default)]
    pub force: bool,
    /// Whether nothing is written if anything could not be read.
    #[serde(default)]
    pub strict: bool,
    /// Of a device: how its storage tells what has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<ChangeTracking>,
}

/// How the storage of a device tells what has changed since an earlier snapshot of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeTracking {
    /// What is read. The snapshot in the repository keeps it, for the next backup to ask by, and for a retry to go on by.
    pub state: VolumeState,
    /// Who tells what has changed; nobody if nothing is said, and then nothing is said of it in the result either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListSource>,
}

/// Who tells what has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ListSource {
    /// The service of the storage.
    Service(MetadataService),
    /// There is a service that cannot be asked.
    #[serde(rename_all = "camelCase")]
    Unavailable {
        /// Why not.
        because: String,
    },
}

/// A snapshot of a volume, as its storage knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeState {
    /// The CSI driver.
    pub driver: String,
    /// Its handle of the volume.
    pub volume: String,
    /// Its handle of the snapshot.
    pub snapshot: String,
    /// Uid of the `VolumeSnapshot`: a storage may give a handle twice.
    pub object: String,
    /// When the storage made it, in nanoseconds since 1970.
    pub taken: i64,
}

impl VolumeState {
    /// In one text, for the change identifier of a snapshot in the repository.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads such a text; none if it is another one.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether both are of the same volume of the same storage.
    pub fn is_of_volume_of(&self, other: &Self) -> bool {
        (&self.driver, &self.volume) == (&other.driver, &other.volume)
    }
}

/// The `SnapshotMetadata` service that stands beside a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetadataService {
    /// Host and port.
    pub address: String,
    /// PEM file with the authorities to trust.
    pub ca_file: String,
    /// File with the token that it asks for.
    pub token_file: String,
    /// Namespace of the `VolumeSnapshot` that is read.
    pub namespace: String,
    /// Its name.
    pub snapshot: String,
    /// Uids of those that the storage still has to compare with.
    pub bases: Vec<String>,
}

/// Bring a snapshot back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreTask {
    /// Its session or the beginning of it; `latest` takes the newest of `host`.
    pub snapshot: String,
    /// Whose snapshot it is; `latest` needs it, and with it a snapshot of another host is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// With `latest`: the newest that was begun no later than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<jiff::Timestamp>,
    /// With `latest`: how many to go back from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u32>,
    /// Where to.
    pub target: Target,
    /// Whether what was written is read back and compared.
    #[serde(default)]
    pub verify: bool,
    /// Patterns of what is brought back; everything if there is none. A slash in front means the root of the volume.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of what is not.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether it has failed if anything could not be restored.
    #[serde(default)]
    pub strict: bool,
}

/// Where a restore writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The volume.
    pub place: Place,
    /// Whether entries that the snapshot does not have are deleted; for a volume that held something before.
    #[serde(default)]
    pub delete: bool,
}

/// Forget by rules, free what nobody needs, check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintainTask {
    /// How many of the newest snapshots of each source stay, by span: `last`, `hourly`, `daily`, `weekly`, `monthly`,
    /// `yearly`, and `within` with a duration. Nothing is forgotten if there is none.
    #[serde(default)]
    pub keep: std::collections::BTreeMap<String, String>,
    /// Whether packs that nobody needs are deleted.
    #[serde(default)]
    pub prune: bool,
    /// Which share of the packs is read and compared: 0 looks at structure and sizes only, 100 reads all; none: no check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_percent: Option<u8>,
}
