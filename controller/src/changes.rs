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
    pod::{METADATA_CA_PATH, METADATA_TOKEN_PATH, MetadataFiles, Owner, SecretText, VolumeMode},
    snapshot::kinds::{SnapshotMetadataService, VolumeSnapshot, VolumeSnapshotContent},
};

/// Who asks a metadata service. It may see snapshots in Carrack's namespace, and its tokens are for such a service only.
const ACCOUNT: &str = "carrack-changed-blocks";
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
    mode: VolumeMode,
    content: &VolumeSnapshotContent,
    lent: &str,
) -> Result<Option<Tracking>> {
    let handle = content.status.as_ref().and_then(|status| status.snapshot_handle.clone());
    // A content that somebody brought in from elsewhere does not say which volume it is of.
    let (VolumeMode::Block, Some(snapshot), Some(volume)) =
        (mode, handle, content.spec.source.volume_handle.clone())
    else {
        return Ok(None);
    };
    let driver = content.spec.driver.clone();
    let service = match mover_type.changed_blocks {
        ChangedBlocks::WhereOffered => service(&context.client, &driver).await?,
        ChangedBlocks::Never => None,
    };
    let state = VolumeState { driver, volume, snapshot };
    let Some(service) = service else {
        return Ok(Some(Tracking { job: ChangeTracking { state, list: None }, files: None }));
    };
    let namespace = &context.settings.namespace;
    let (list, files) = match token(&context.client, namespace, &service.spec.audience).await {
        Ok(token) => {
            let list = ListSource::Service(MetadataService {
                address: service.spec.address,
                ca_file: METADATA_CA_PATH.into(),
                token_file: METADATA_TOKEN_PATH.into(),
                namespace: namespace.clone(),
                snapshot: lent.to_owned(),
            });
            (list, Some(MetadataFiles { token, certificate_authority: service.spec.ca_cert.0 }))
        }
        Err(error) => (ListSource::Unavailable { because: error.to_string() }, None),
    };
    Ok(Some(Tracking { job: ChangeTracking { state, list: Some(list) }, files }))
}

/// The service of a driver, if it has one; most clusters do not know the kind.
async fn service(client: &Client, driver: &str) -> Result<Option<SnapshotMetadataService>> {
    let services: Api<SnapshotMetadataService> = Api::all(client.clone());
    match services.get_opt(driver).await {
        Ok(found) => Ok(found),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Error::api(format!("SnapshotMetadataService {driver} cannot be read"))(error)),
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
        let text = format!("{}\n{}", self.repository, self.claim);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        hex::encode(&digest.as_ref()[..10])
    }

    /// Has the snapshot of a backup stay, if it is to; true if it does. It is nobody's any more but its claim's, with which it
    /// goes.
    pub async fn settle(
        &self,
        context: &Context,
        owner: &Owner,
        snapshot: &VolumeSnapshot,
        content: Option<&VolumeSnapshotContent>,
    ) -> Result<bool> {
        let snapshots: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
        let kept = match (self.kept, content) {
            (true, Some(content)) => self.keep(context, owner, snapshot, content).await?,
            _ => false,
        };
        self.retire(&snapshots, kept.then(|| snapshot.name_any()).as_deref()).await?;
        Ok(kept)
    }

    async fn keep(
        &self,
        context: &Context,
        owner: &Owner,
        snapshot: &VolumeSnapshot,
        content: &VolumeSnapshotContent,
    ) -> Result<bool> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &owner.namespace);
        let claim = objects::find(&claims, &self.claim).await?;
        let Some(claim) = claim.filter(|claim| claim.metadata.deletion_timestamp.is_none()) else {
            return Ok(false);
        };
        delete_with_its_snapshot(context, content).await?;
        let reference = OwnerReference {
            api_version: "v1".into(),
            kind: "PersistentVolumeClaim".into(),
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

    /// Deletes those that stayed until now.
    async fn retire(&self, snapshots: &Api<VolumeSnapshot>, but: Option<&str>) -> Result<()> {
        let labels = ListParams::default().labels(&format!("{}={}", label::BASE, self.label()));
        let what = format!("snapshots that stayed of claim {} cannot be listed", self.claim);
        let stayed = snapshots.list(&labels).await.map_err(Error::api(what))?.items;
        for snapshot in stayed.iter().filter(|found| Some(found.name_any().as_str()) != but) {
            tracing::debug!(
                snapshot = snapshot.name_any(),
                claim = self.claim,
                "a newer one takes its place"
            );
            objects::delete(snapshots, snapshot, None).await?;
        }
        Ok(())
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
