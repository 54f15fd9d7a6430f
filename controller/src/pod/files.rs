//! The files that a mover pod finds: its job, its key, its credentials.

use std::collections::BTreeMap;

use carrack_controller_api::{DataMoverTypeSpec, Location};
use carrack_proto::{Job, Keys, RepositoryAccess, Resources, Task, VERSION};
use k8s_openapi::{
    ByteString, api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity,
};

use crate::access::SecretData;

/// Where the files are mounted.
pub(super) const JOB_DIRECTORY: &str = "/carrack/job";
/// Where a volume with a file system is mounted.
pub const DATA_PATH: &str = "/data";
/// Where a raw block volume appears.
pub const DEVICE_PATH: &str = "/dev/carrack";
/// The token for a metadata service.
pub const METADATA_TOKEN_PATH: &str = "/carrack/job/metadata-token";
/// The authorities of a metadata service.
pub const METADATA_CA_PATH: &str = "/carrack/job/metadata-ca.pem";
/// The key that seals what leaves the pod in secret.
pub const SEAL_KEY_PATH: &str = "/carrack/job/seal";

/// What opens the repository in one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// Everything: `password` or `key` of the repository's secret.
    Repository(SecretData),
    /// One source, to write only.
    Bundle(Vec<u8>),
}

/// What goes into the secret of a pod.
#[derive(Clone, Debug)]
pub struct JobFiles {
    /// What it is to do.
    pub job: Job,
    /// What opens the repository.
    pub key: KeyFile,
    /// What reaches its store.
    pub credentials: SecretData,
    /// PEM of the authorities to trust.
    pub certificate_authority: Option<String>,
    /// Text of a seal key.
    pub seal: Option<String>,
    /// What opens a metadata service.
    pub metadata: Option<MetadataFiles>,
}

/// What a metadata service is reached with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataFiles {
    /// A token for its audience.
    pub token: SecretText,
    /// PEM of the authorities to trust.
    pub certificate_authority: Vec<u8>,
}

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretText(…)")
    }
}

impl JobFiles {
    /// The files for a task at a repository; without a seal.
    pub fn new(
        location: &Location,
        credentials: &SecretData,
        key: KeyFile,
        mover_type: &DataMoverTypeSpec,
        task: Task,
    ) -> Self {
        Self {
            job: Job {
                version: VERSION,
                repository: access(location),
                keys: keys(&key),
                resources: resources(mover_type),
                last_seen: Vec::new(),
                task,
            },
            key,
            credentials: credentials.clone(),
            certificate_authority: location.certificate_authority.clone(),
            seal: None,
            metadata: None,
        }
    }

    /// The files by name.
    pub fn contents(&self) -> BTreeMap<String, ByteString> {
        let job = serde_json::to_vec_pretty(&self.job).unwrap_or_default();
        let mut files = BTreeMap::from([("job.json".to_owned(), ByteString(job))]);
        let mut add = |name: &str, bytes: Vec<u8>| {
            files.insert(name.to_owned(), ByteString(bytes));
        };
        match &self.key {
            KeyFile::Bundle(bundle) => add("bundle.json", bundle.clone()),
            KeyFile::Repository(secret) => match (secret.get("key"), secret.get("password")) {
                (Some(key), _) => add("key", key.clone()),
                (None, Some(password)) => add("password", password.clone()),
                (None, None) => {}
            },
        }
        if !self.credentials.is_empty() {
            add("credentials", credentials_file(&self.credentials));
        }
        if let Some(certificates) = &self.certificate_authority {
            add("ca.pem", certificates.clone().into_bytes());
        }
        if let Some(seal) = &self.seal {
            add("seal", seal.clone().into_bytes());
        }
        if let Some(MetadataFiles { token, certificate_authority }) = &self.metadata {
            add("metadata-token", token.0.clone().into_bytes());
            add("metadata-ca.pem", certificate_authority.clone());
        }
        files
    }
}

/// Credentials in the form of the AWS tools.
fn credentials_file(secret: &SecretData) -> Vec<u8> {
    if let Some(file) = secret.get("credentials") {
        return file.clone();
    }
    let mut file = b"[default]\n".to_vec();
    let names = [
        ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("aws_session_token", "AWS_SESSION_TOKEN"),
    ];
    for (name, key) in names {
        if let Some(value) = secret.get(key) {
            file.extend_from_slice(name.as_bytes());
            file.extend_from_slice(b" = ");
            file.extend_from_slice(value.trim_ascii());
            file.push(b'\n');
        }
    }
    file
}

/// What opens the repository, as the job names it.
fn keys(key: &KeyFile) -> Keys {
    let at = |name: &str| format!("{JOB_DIRECTORY}/{name}");
    match key {
        KeyFile::Bundle(_) => Keys::WriterBundle(at("bundle.json")),
        KeyFile::Repository(secret) if secret.contains_key("key") => Keys::KeyFile(at("key")),
        KeyFile::Repository(_) => Keys::PasswordFile(at("password")),
    }
}

/// Where the repository is, as the job names it.
fn access(location: &Location) -> RepositoryAccess {
    RepositoryAccess {
        url: location.url.clone(),
        endpoint: location.endpoint.clone(),
        region: location.region.clone(),
        path_style: location.path_style,
        ca_file: location.certificate_authority.as_ref().map(|_| format!("{JOB_DIRECTORY}/ca.pem")),
        storage_class: location.storage_class.clone(),
        server_side_encryption: location.server_side_encryption.as_ref().map(|encryption| match &encryption
            .key_id
        {
            Some(key) => format!("{}:{key}", encryption.algorithm),
            None => encryption.algorithm.clone(),
        }),
        upload_checksum: location.upload_checksum,
        limit_upload: location.limits.upload_bytes_per_second,
        limit_download: location.limits.download_bytes_per_second,
        max_requests: location.limits.requests,
    }
}

/// What the process may use: of memory three quarters of the pod's limit, for the rest is the allocator's and the kernel's.
fn resources(mover_type: &DataMoverTypeSpec) -> Resources {
    let template = &mover_type.pod_template;
    Resources {
        memory_bytes: memory_limit(template.resources.as_ref()).map(|limit| limit / 4 * 3),
        threads: template.threads,
        compression: mover_type.compression.clone(),
        cipher: None,
    }
}

/// A setting that is a list with commas.
pub fn list(config: &BTreeMap<String, String>, key: &str) -> Vec<String> {
    let text = config.get(key).map(String::as_str).unwrap_or_default();
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn memory_limit(resources: Option<&ResourceRequirements>) -> Option<u64> {
    resources?.limits.as_ref()?.get("memory").and_then(bytes)
}

/// A quantity of memory or storage in bytes; none if it is not one. Rounded up.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    const UNITS: [(&str, u64); 13] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("", 1),
    ];
    let text = quantity.0.trim();
    let (number, unit) = UNITS.iter().find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    if let Some(milli) = number.strip_suffix('m') {
        return Some(milli.parse::<u64>().ok()?.div_ceil(1000));
    }
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let parsed: f64 = number.parse().ok()?;
    (parsed.is_finite() && parsed >= 0.0).then(|| (parsed * unit as f64).ceil() as u64)
}
