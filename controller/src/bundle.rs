//! The keys of a source: enough to back up one volume, not to read anything.
//!
//! A pod that holds the repository's key makes them once for each volume. They leave that pod sealed with a key that is
//! this controller's and that pod's alone, and are kept in a secret in Carrack's namespace.

use std::collections::BTreeMap;

use carrack_controller_api::{annotation, reason};
use carrack_proto::{Output, Place, SealKey, Source, Task};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Api;
use serde_json::Value;

use crate::{
    access::Access,
    context::Context,
    error::{Obstacle, Result},
    objects,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodState, SEAL_KEY_PATH},
};

/// What they are called in that secret.
pub const FILE: &str = "bundle.json";

/// How far the keys of a source are.
#[derive(Clone, Debug, PartialEq)]
pub enum Bundle {
    /// They are there.
    Ready(Vec<u8>),
    /// A pod makes them.
    Working,
    /// They cannot be made.
    Failed(Obstacle),
}

/// Name of the secret that keeps them: one for each source in each repository.
pub fn name(repository_id: &str, source: &Source) -> String {
    let text = format!("{repository_id}\n{}\n{}", source.host, source.place.path());
    format!("bundle-{}", objects::digits(&text))
}

/// The lineage of which these keys write snapshots; none if they are no keys.
pub fn lineage(bundle: &[u8]) -> Option<String> {
    let bundle: Value = serde_json::from_slice(bundle).ok()?;
    bundle["lineage"].as_str().map(str::to_owned)
}

/// Whether this is the name of a snapshot of this lineage, in the one form that names have: `b`, the lineage, a dash, and 32
/// hexadecimal digits. Who has taken over a mover speaks for its own volume, and not for others.
pub fn is_snapshot_of(lineage: &str, name: &str) -> bool {
    let nonce = name.strip_prefix('b').and_then(|rest| rest.strip_prefix(lineage)?.strip_prefix('-'));
    nonce.is_some_and(|nonce| {
        nonce.len() == 32 && nonce.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Finds the keys of a source, or takes the next step towards them.
pub async fn ensure(context: &Context, owner: &Owner, access: &Access, source: &Source) -> Result<Bundle> {
    let namespace = &context.settings.namespace;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let kept = name(&access.repository_id, source);
    if let Some(bundle) = objects::find(&secrets, &kept).await?.and_then(|found| found.data?.remove(FILE)) {
        clean_up(context, owner).await?;
        return Ok(Bundle::Ready(bundle.0));
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let working = pod_name(owner);
    let state = PodState::of(objects::find(&pods, &working).await?.as_ref());
    match pod::or_said(&pods, &working, state).await {
        PodState::Missing => start(context, owner, access, source).await.map(|()| Bundle::Working),
        PodState::Finished { result, .. } => match &result.output {
            Some(Output::Bundle { sealed }) => {
                let Some(bundle) = open(&secrets, &working, sealed).await? else {
                    clean_up(context, owner).await?;
                    return Ok(Bundle::Working);
                };
                keep(&secrets, &kept, source, bundle.clone()).await?;
                clean_up(context, owner).await?;
                Ok(Bundle::Ready(bundle))
            }
            _ => {
                clean_up(context, owner).await?;
                Ok(Bundle::Failed(pod::failure(&result)))
            }
        },
        PodState::Lost(lost) => {
            clean_up(context, owner).await?;
            Ok(Bundle::Failed(Obstacle::passing(
                reason::POD_FAILED,
                format!("the keys of the volume: {}", lost.message),
            )))
        }
        PodState::Waiting { .. } | PodState::Running { .. } | PodState::Ending { .. } => Ok(Bundle::Working),
    }
}

fn pod_name(owner: &Owner) -> String {
    format!("bundle-{}", owner.uid)
}

/// Opens what a pod sealed, with the key in its secret; none if the secret is gone or was another pod's.
async fn open(secrets: &Api<Secret>, pod: &str, sealed: &str) -> Result<Option<Vec<u8>>> {
    let secret = objects::find(secrets, &pod::secret_name(pod)).await?;
    let seal =
        secret.and_then(|found| found.data?.remove("seal")).and_then(|bytes| String::from_utf8(bytes.0).ok());
    Ok(seal.and_then(|text| SealKey::from_text(&text).ok()).and_then(|key| key.open(sealed).ok()))
}

async fn keep(secrets: &Api<Secret>, name: &str, source: &Source, bundle: Vec<u8>) -> Result<()> {
    let labels = [(carrack_controller_api::label::MANAGED_BY, carrack_controller_api::label::MANAGER)];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some(BTreeMap::from([(annotation::OWNER.to_owned(), source.host.clone())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(FILE.to_owned(), ByteString(bundle))])),
        ..Secret::default()
    };
    objects::apply(secrets, &secret).await.map(drop)
}

async fn start(context: &Context, owner: &Owner, access: &Access, source: &Source) -> Result<()> {
    let namespace = &context.settings.namespace;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    // A seal of an earlier, half-made pod is as good as a new one, and the pod may have read it already.
    let earlier = objects::find(&secrets, &pod::secret_name(&pod_name(owner))).await?;
    let earlier = earlier
        .and_then(|found| found.data?.remove("seal"))
        .and_then(|bytes| String::from_utf8(bytes.0).ok());
    let seal = match earlier {
        Some(text) => text,
        None => {
            SealKey::generate().map_err(|error| crate::error::Error::Unexpected(error.to_string()))?.to_text()
        }
    };
    let key = KeyFile::Repository(access.key.clone());
    let task = Task::Bundle { source: source.clone(), seal_key_file: SEAL_KEY_PATH.into() };
    let mover_type = &access.mover_type.spec;
    let mut files = JobFiles::new(&access.location, &access.credentials, key, mover_type, task);
    files.seal = Some(seal);
    let made = MoverPod {
        name: pod_name(owner),
        owner,
        task: "bundle",
        mover_type,
        volume: None,
        host_users: None,
        files,
    };
    pod::apply(context, &made).await.map(drop)
}

/// Deletes the pod that made the keys, and its secret; true once the pod is gone.
async fn clean_up(context: &Context, owner: &Owner) -> Result<bool> {
    pod::clean_up(context, &pod_name(owner)).await
}

/// The volume as the repository knows it.
pub fn source(cluster: &str, namespace: &str, claim: &str, place: Place) -> Source {
    Source { host: format!("{cluster}/{namespace}/{claim}"), place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_a_lineage_has_one_form_of_name() {
        const LINEAGE: &str = "0123456789abcdef";
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(is_snapshot_of(LINEAGE, &format!("b{LINEAGE}-{digits}")));
        for odd in [
            String::new(),
            "latest".into(),
            format!("b{LINEAGE}"),
            format!("b{LINEAGE}-"),
            format!("b{LINEAGE}-{}", &digits[1..]),
            format!("b{LINEAGE}-{digits}0"),
            format!("b{LINEAGE}-{}", digits.to_uppercase()),
            format!("b{LINEAGE}-{}g", &digits[1..]),
            format!("b{LINEAGE}-{} ", &digits[1..]),
            format!("r{LINEAGE}-{digits}"),
            format!("b0123456789abcdee-{digits}"),
        ] {
            assert!(!is_snapshot_of(LINEAGE, &odd), "{odd}");
        }
    }

    #[test]
    fn keys_say_of_which_lineage_they_are() {
        assert_eq!(lineage(br#"{"lineage":"01","version":1}"#).as_deref(), Some("01"));
        for odd in ["", "{}", r#"{"lineage":1}"#] {
            assert_eq!(lineage(odd.as_bytes()), None, "{odd}");
        }
    }
}
