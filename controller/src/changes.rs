//! What the storage of a raw block volume tells of changes: which service a mover asks, and the snapshot that stays for the
//! storage to compare the next one with.
//!
//! All of it only saves work. Without a service, a token or the snapshot that stayed, a mover reads all of the volume, and
//! the status says why.

use carrack_controller_api::{ChangedBlocks, DataMoverTypeSpec, annotation, label};
use carrack_proto::{ChangeTracking, ListSource, MetadataService, VolumeState};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{PersistentVolumeClaim, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use serde_json::json;

use crate::{
    context::Context,
    error::{Error, Result},
    objects,
    pod::{METADATA_CA_PATH, METADATA_TOKEN_PATH, MetadataFiles, Owner, SecretText},
    snapshot::{
        self,
        kinds::{
            SnapshotMetadataService, SnapshotMetadataServiceSpec, VolumeSnapshot, VolumeSnapshotContent,
        },
    },
};

/// Who asks a metadata service. It may see snapshots in Carrack's namespace, and its tokens are for such a service only.
const ACCOUNT: &str = "carrack-changed-blocks";
/// Kind of what a snapshot that stays belongs to.
const CLAIM: &str = "PersistentVolumeClaim";
/// How long its tokens are good: a pod may wait some time for its node.
const TOKEN_SECONDS: i64 = 3600;

/// What a mover is told of changes.
#[derive(Debug)]
pub struct Tracking {
    /// For its job.
    pub job: ChangeTracking,
    /// For its secret.
    pub files: Option<MetadataFiles>,
}

/// What the mover that reads a snapshot is told; nothing of a volume with a file system, where times tell enough.
pub async fn tracking(
    context: &Context,
    mover_type: &DataMoverTypeSpec,
    base: &Base,
    read: Read<'_>,
) -> Result<Option<Tracking>> {
    let Some(state) = state(read.snapshot, read.content) else { return Ok(None) };
    let service = match mover_type.changed_blocks {
        ChangedBlocks::WhereOffered => service(&context.client, &state.driver).await?,
        ChangedBlocks::Never => None,
    };
    let Some(service) = service else {
        return Ok(Some(Tracking { job: ChangeTracking { state, list: None }, files: None }));
    };
    let namespace = &context.settings.namespace;
    let asked = match service {
        Ok(service) => {
            token(&context.client, namespace, &service.audience).await.map(|token| (service, token))
        }
        Err(error) => Err(error),
    };
    let (list, files) = match asked {
        Ok((service, token)) => {
            let bases = base.stayed(context, &read.snapshot.namespace().unwrap_or_default()).await?;
            let list = ListSource::Service(MetadataService {
                address: service.address,
                ca_file: METADATA_CA_PATH.into(),
                token_file: METADATA_TOKEN_PATH.into(),
                namespace: namespace.clone(),
                snapshot: read.lent.to_owned(),
                bases: bases.iter().filter_map(kube::ResourceExt::uid).collect(),
            });
            (list, Some(MetadataFiles { token, certificate_authority: service.ca_cert.0 }))
        }
        Err(error) => (ListSource::Unavailable { because: error.to_string() }, None),
    };
    Ok(Some(Tracking { job: ChangeTracking { state, list: Some(list) }, files }))
}

/// The snapshot that is read.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// Beside the claim.
    pub snapshot: &'a VolumeSnapshot,
    /// What it stands for.
    pub content: &'a VolumeSnapshotContent,
    /// Name of the one that is lent to Carrack's namespace.
    pub lent: &'a str,
}

/// As the storage knows it; nothing if that does not tell it from all others, as of a content that somebody brought in from
/// elsewhere, which does not say which volume it is of.
fn state(snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent) -> Option<VolumeState> {
    let status = content.status.as_ref()?;
    Some(VolumeState {
        driver: content.spec.driver.clone(),
        volume: content.spec.source.volume_handle.clone()?,
        snapshot: status.snapshot_handle.clone()?,
        object: snapshot.uid()?,
        taken: status.creation_time?,
    })
}

/// The service of a driver, if it has one, or why it cannot be known. Most clusters do not know the kind, and where rights are
/// older than the program, the answer is that nothing may be known of it.
async fn service(client: &Client, driver: &str) -> Result<Option<Result<SnapshotMetadataServiceSpec>>> {
    let services: Api<SnapshotMetadataService> = Api::all(client.clone());
    let unreadable = || Error::api(format!("SnapshotMetadataService {driver} cannot be read"));
    match services.get_opt(driver).await {
        Ok(found) => Ok(found.map(|found| Ok(found.spec))),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            tracing::debug!(driver, status.message, "no driver is asked for changed blocks");
            Ok(None)
        }
        Err(error @ kube::Error::SerdeError(_)) => Ok(Some(Err(unreadable()(error)))),
        Err(error) => Err(unreadable()(error)),
    }
}

async fn token(client: &Client, namespace: &str, audience: &str) -> Result<SecretText> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        }),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(ACCOUNT, &PostParams::default(), &request)
        .await
        .map_err(Error::api(format!("no token can be had for service account {namespace}/{ACCOUNT}")))?;
    made.status.and_then(|status| status.token).map(SecretText).ok_or_else(|| {
        Error::Unexpected(format!("the token of service account {namespace}/{ACCOUNT} is not there"))
    })
}

/// The snapshots that stay of one volume in one repository: the newest, once a backup went by it, and none otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The claim of the volume.
    pub claim: String,
    /// Id of the repository.
    pub repository: String,
    /// Whether the snapshot of this backup is to stay.
    pub kept: bool,
}

impl Base {
    /// Their label.
    fn label(&self) -> String {
        objects::digits(&format!("{}\n{}", self.repository, self.claim))
    }

    /// Has the snapshot of a backup stay, if it is to; true if it does. It is nobody's any more but its claim's, with which it
    /// goes.
    pub async fn keep(
        &self,
        context: &Context,
        owner: &Owner,
        snapshot: &VolumeSnapshot,
        content: Option<&VolumeSnapshotContent>,
    ) -> Result<bool> {
        let (true, Some(content)) = (self.kept, content) else { return Ok(false) };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &owner.namespace);
        let claim = objects::find(&claims, &self.claim).await?;
        let Some(claim) = claim.filter(|claim| claim.metadata.deletion_timestamp.is_none()) else {
            return Ok(false);
        };
        delete_with_its_snapshot(context, content).await?;
        let reference = OwnerReference {
            api_version: "v1".into(),
            kind: CLAIM.into(),
            name: claim.name_any(),
            uid: claim.uid().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let words = format!(
            "the next backup of claim {} into repository {} reads only what has changed since; it may be deleted at any time",
            self.claim, self.repository
        );
        let patch = json!({ "metadata": {
            "labels": { label::OWNER_UID: null, label::OWNER_KIND: null, label::BASE: self.label() },
            "annotations": { annotation::BASE_OF: words },
            "ownerReferences": [reference],
        }});
        let snapshots: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
        objects::change(&snapshots, &snapshot.name_any(), patch).await.map(|_| true)
    }

    /// Deletes all that stayed but the newest, or all if none is to.
    pub async fn retire(&self, context: &Context, namespace: &str) -> Result<()> {
        let snapshots: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), namespace);
        let mut stayed = self.stayed(context, namespace).await?;
        stayed.sort_by_key(|found| found.creation_timestamp().map(|made| made.0));
        if self.kept {
            stayed.pop();
        }
        for snapshot in &stayed {
            tracing::debug!(snapshot = snapshot.name_any(), claim = self.claim, "it stays no longer");
            objects::delete(&snapshots, snapshot, None).await?;
        }
        Ok(())
    }

    /// Those that stay. A label can be put onto anything, a name cannot, and so it is with what is owned.
    async fn stayed(&self, context: &Context, namespace: &str) -> Result<Vec<VolumeSnapshot>> {
        let snapshots: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), namespace);
        let labels = ListParams::default().labels(&format!(
            "{}={},{}={}",
            label::BASE,
            self.label(),
            label::MANAGED_BY,
            label::MANAGER
        ));
        let what = format!("snapshots that stayed of claim {namespace}/{} cannot be listed", self.claim);
        let mut stayed = snapshots.list(&labels).await.map_err(Error::api(what))?.items;
        stayed.retain(|found| {
            let owned = found.owner_references().iter().any(|of| of.kind == CLAIM && of.name == self.claim);
            owned && found.name_any().starts_with(snapshot::NAME_BEGINS)
        });
        Ok(stayed)
    }
}

/// A class that retains would leave at the storage what nobody knows of.
pub async fn delete_with_its_snapshot(context: &Context, content: &VolumeSnapshotContent) -> Result<()> {
    if content.spec.deletion_policy == "Delete" {
        return Ok(());
    }
    let contents: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let patch = json!({ "spec": { "deletionPolicy": "Delete" } });
    objects::change(&contents, &content.name_any(), patch).await.map(drop)
}
