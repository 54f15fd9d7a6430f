//! Nothing stays behind: everything that was made for a request is found by its label, and deleted in an order in which
//! nothing is left without an owner.

use carrack_controller_api::label;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;

use crate::{
    changes::{self, Base},
    context::Context,
    error::{Error, Result},
    live,
    objects::{self, Object},
    pod::Owner,
    snapshot::{
        self,
        kinds::{VolumeSnapshot, VolumeSnapshotContent},
    },
};

/// How long a storage may be at work on a snapshot before that is deleted all the same.
const CUT_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// Deletes what there is, as far as it can go now; true if nothing is left.
///
/// Pods go first, for they use the rest; volumes before the snapshots that they were made from; what was borrowed before its
/// owner. A volume that is to be handed over is spared, and a snapshot stays that the next backup goes by.
pub async fn sweep(
    context: &Context,
    owner: &Owner,
    spared: Option<&str>,
    base: Option<&Base>,
) -> Result<bool> {
    let own = &context.settings.namespace;
    let client = || context.client.clone();
    if !gone(&Api::<Pod>::namespaced(client(), own), owner).await? {
        return Ok(false);
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client(), own);
    for claim in chosen(&claims, owner).await? {
        let volume = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref())
            .filter(|name| Some(*name) != spared);
        if let Some(name) = volume {
            let_go(context, owner, name).await?;
        }
        end(&claims, &claim).await?;
    }
    let secrets = gone(&Api::<Secret>::namespaced(client(), own), owner).await?;
    if !chosen(&claims, owner).await?.is_empty() {
        return Ok(false);
    }
    let volumes = volumes(context, owner, spared).await?;
    let snapshots = snapshots(context, owner, base).await?;
    Ok(secrets && volumes && snapshots)
}

/// Temporary volumes go with their claims; aliases are deleted here, and what they stand for stays. True if none is left. An
/// alias that is being deleted counts as gone: the attacher may keep it for as long as the volume is attached.
async fn volumes(context: &Context, owner: &Owner, spared: Option<&str>) -> Result<bool> {
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    let mut clean = true;
    for volume in chosen(&api, owner).await?.iter().filter(|found| Some(found.name_any().as_str()) != spared)
    {
        let alias = live::is_alias(volume);
        clean &= alias && volume.metadata.deletion_timestamp.is_some();
        if alias {
            end(&api, volume).await?;
        } else if let Some(patch) = discarded(volume) {
            objects::change(&api, &volume.name_any(), patch).await?;
        }
    }
    Ok(clean)
}

/// A volume whose hand-over was stopped half-way was told to outlive its claim, and has none by now that it could go with.
fn discarded(volume: &PersistentVolume) -> Option<serde_json::Value> {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    (phase == Some("Released") && policy != Some("Delete")).then(|| {
        json!({
            "metadata": { "resourceVersion": volume.metadata.resource_version },
            "spec": { "persistentVolumeReclaimPolicy": "Delete" },
        })
    })
}

/// A temporary volume goes with its claim, whatever its storage class says. An alias must not: its storage is somebody's.
async fn let_go(context: &Context, owner: &Owner, name: &str) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    if objects::find(&volumes, name).await?.is_none_or(|volume| live::is_alias(&volume)) {
        return Ok(());
    }
    let patch = json!({
        "metadata": { "labels": owner.labels() }, "spec": { "persistentVolumeReclaimPolicy": "Delete" }
    });
    objects::change(&volumes, name, patch).await.map(drop)
}

/// Snapshots and contents: the borrowed ones, then the one that owns what is at the storage.
async fn snapshots(context: &Context, owner: &Owner, base: Option<&Base>) -> Result<bool> {
    let contents: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let borrowed: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    if !kind_is_served(&contents).await? {
        return Ok(true);
    }
    let lent = |snapshot: &VolumeSnapshot| snapshot.spec.source.persistent_volume_claim_name.is_none();
    let mut clean = true;
    for snapshot in chosen(&borrowed, owner).await?.iter().filter(|snapshot| lent(snapshot)) {
        end(&borrowed, snapshot).await?;
        clean = false;
    }
    for content in chosen(&contents, owner).await? {
        release(&contents, &content).await?;
        end(&contents, &content).await?;
        clean = false;
    }
    if !clean || owner.namespace.is_empty() {
        return Ok(clean);
    }
    let beside: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
    // People can put our labels onto snapshots of theirs, but not our names.
    let own = |snapshot: &&VolumeSnapshot| snapshot.name_any() == snapshot::name_of(owner);
    for snapshot in chosen(&beside, owner).await?.iter().filter(own) {
        clean = false;
        own_snapshot(context, owner, snapshot, base).await?;
    }
    if let Some(base) = base.filter(|_| clean) {
        base.retire(context, &owner.namespace).await?;
    }
    Ok(clean)
}

/// The snapshot that was made beside the claim goes, unless the next backup goes by it.
async fn own_snapshot(
    context: &Context,
    owner: &Owner,
    snapshot: &VolumeSnapshot,
    base: Option<&Base>,
) -> Result<()> {
    let contents: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let bound =
        snapshot.status.as_ref().and_then(|status| status.bound_volume_snapshot_content_name.as_deref());
    let content = match bound {
        Some(name) => objects::find(&contents, name).await?,
        None => None,
    };
    // A status that somebody wrote may name the content of another one.
    let content = content.filter(|content| {
        let of = &content.spec.volume_snapshot_ref;
        (of.namespace.as_str(), of.name.as_str()) == (owner.namespace.as_str(), &snapshot.name_any())
    });
    if is_being_cut(context, snapshot, content.as_ref()) {
        return Ok(());
    }
    if let Some(base) = base
        && base.keep(context, owner, snapshot, content.as_ref()).await?
    {
        return Ok(());
    }
    if let Some(content) = &content {
        changes::delete_with_its_snapshot(context, content).await?;
    }
    let beside: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
    end(&beside, snapshot).await
}

/// A borrowed content may go: the snapshotter holds it until it is told that its snapshot goes. The snapshot controller says so
/// only if it was quick enough to hold the snapshot too.
async fn release(contents: &Api<VolumeSnapshotContent>, content: &VolumeSnapshotContent) -> Result<()> {
    const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
    if content.annotations().contains_key(BEING_DELETED) {
        return Ok(());
    }
    let patch = json!({ "metadata": { "annotations": { BEING_DELETED: "yes" } } });
    match objects::change(contents, &content.name_any(), patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_absence() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the storage is at work on a snapshot. To delete it meanwhile is what leaks: the snapshotter may forget one or the
/// other. It has its time.
fn is_being_cut(
    context: &Context,
    snapshot: &VolumeSnapshot,
    content: Option<&VolumeSnapshotContent>,
) -> bool {
    let failed = snapshot.status.as_ref().is_some_and(|status| status.error.is_some());
    let cut = content
        .and_then(|content| content.status.as_ref())
        .is_some_and(|status| status.snapshot_handle.is_some());
    let age = snapshot.creation_timestamp().map(|made| context.now().duration_since(made.0));
    !failed && !cut && age.is_some_and(|age| age < CUT_LIMIT)
}

async fn kind_is_served(contents: &Api<VolumeSnapshotContent>) -> Result<bool> {
    match contents.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(Error::api("VolumeSnapshotContents cannot be listed")(error)),
    }
}

/// Deletes all of a kind that were made for the owner; true if there are none.
async fn gone<K: Object>(api: &Api<K>, owner: &Owner) -> Result<bool> {
    let found = chosen(api, owner).await?;
    for object in &found {
        end(api, object).await?;
    }
    Ok(found.is_empty())
}

async fn end<K: Object>(api: &Api<K>, object: &K) -> Result<()> {
    if object.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    objects::delete(api, object, None).await
}

/// All of a kind that were made for the owner.
pub async fn chosen<K: Object>(api: &Api<K>, owner: &Owner) -> Result<Vec<K>> {
    let labels = ListParams::default().labels(&format!("{}={}", label::OWNER_UID, owner.uid));
    let what =
        format!("{} of {} {}/{} cannot be listed", K::kind(&()), owner.kind, owner.namespace, owner.name);
    Ok(api.list(&labels).await.map_err(Error::api(what))?.items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[tokio::test]
    async fn what_a_hand_over_left_is_told_to_go_and_waited_for() {
        const VOLUME: &str = "/api/v1/persistentvolumes/volume";
        let fake = Fake::default();
        let labels = json!({ label::OWNER_UID: "uid" });
        let metadata = json!({ "name": "volume", "labels": labels });
        let (spec, status) =
            (json!({ "persistentVolumeReclaimPolicy": "Retain" }), json!({ "phase": "Released" }));
        fake.put(VOLUME, json!({ "metadata": metadata, "spec": spec, "status": status }));
        let owner = Owner { uid: "uid".into(), ..Owner::of(&PersistentVolume::default()) };
        let context = fake.context().await;
        assert!(
            sweep(&context, &owner, Some("volume"), None).await.unwrap(),
            "what is spared is not waited for"
        );
        assert_eq!(fake.get(VOLUME)["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert!(!sweep(&context, &owner, None, None).await.unwrap(), "it is still there");
        assert_eq!(fake.get(VOLUME)["spec"]["persistentVolumeReclaimPolicy"], "Delete");
        fake.lose(VOLUME);
        assert!(sweep(&context, &owner, None, None).await.unwrap());
    }

    #[test]
    fn a_kept_volume_goes_only_once_it_is_no_claims() {
        let volume = |policy: &str, phase: &str| -> PersistentVolume {
            let spec = json!({ "persistentVolumeReclaimPolicy": policy });
            let metadata = json!({ "name": "volume", "resourceVersion": "7" });
            serde_json::from_value(
                json!({ "metadata": metadata, "spec": spec, "status": { "phase": phase } }),
            )
            .unwrap()
        };
        let patch = discarded(&volume("Retain", "Released")).expect("it goes");
        assert_eq!(patch["spec"]["persistentVolumeReclaimPolicy"], "Delete");
        assert_eq!(
            patch["metadata"]["resourceVersion"], "7",
            "and not if it was given to somebody meanwhile"
        );
        assert_eq!(discarded(&volume("Retain", "Bound")), None);
        assert_eq!(discarded(&volume("Retain", "Available")), None);
        assert_eq!(discarded(&volume("Delete", "Released")), None, "it is on its way");
    }
}
