//! A full volume goes from the temporary claim to the claim that was asked for.
//!
//! Each step is seen in the cluster before the next is taken, so the hand-over goes on wherever it was left: the volume is
//! kept, its pod goes, its temporary claim goes, the destination is made, the volume is given to it, they bind, and the
//! volume's policy is what it was. The claim never sees a volume that is not full.

use std::collections::BTreeMap;

use carrack_controller_api::{NewVolume, annotation, reason};
use k8s_openapi::{
    api::core::v1::{
        PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::{
    decide::volume_of,
    observe::{Observed, name, pod_name},
};
use crate::{
    context::Context,
    error::{Obstacle, Result},
    objects,
    pod::{self, Owner, PodState},
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The volume outlives its claim.
    Keep,
    /// The mover pod goes.
    DropPod,
    /// The temporary claim goes.
    DropClaim,
    /// The destination is made.
    MakeDestination,
    /// The volume is given to the destination.
    Give,
    /// The volume's policy is what it was.
    Release,
    /// The volume is nobody's any more, for the restore is to stop.
    TakeBack,
}

/// What comes next in the hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This.
    Step(Step),
    /// Somebody else's turn.
    Wait,
    /// It cannot go on.
    Broken(Obstacle),
    /// The claim has its volume.
    Done,
}

/// What comes next.
pub(super) fn next(seen: &Observed, status: &carrack_controller_api::DataMoverRestoreStatus) -> Next {
    let claim = &seen.restore.spec.destination_claim_ref.name;
    let Some(volume) = &seen.volume else {
        let name = status.volume_name.clone().unwrap_or_default();
        return Next::Broken(Obstacle::lasting(
            reason::MOVER_FAILED,
            format!("the restored PersistentVolume {name} is gone"),
        ));
    };
    if let Some(bound) =
        seen.destination.as_ref().and_then(volume_of).filter(|bound| *bound != volume.name_any())
    {
        let message = format!(
            "PersistentVolumeClaim {claim} was bound to another volume ({bound}) while this one was filled"
        );
        return Next::Broken(Obstacle::lasting(reason::DESTINATION_IN_USE, message));
    }
    if !volume.annotations().contains_key(annotation::RECLAIM_POLICY) && !is_bound(seen, volume) {
        return Next::Step(Step::Keep);
    }
    if seen.pod != PodState::Missing {
        return Next::Step(Step::DropPod);
    }
    if let Some(temporary) = &seen.temporary {
        let goes = temporary.metadata.deletion_timestamp.is_some();
        return if goes { Next::Wait } else { Next::Step(Step::DropClaim) };
    }
    let given = is_given(seen, volume);
    if seen.destination.is_none() {
        return if seen.restore.spec.new_volume.is_some() {
            // Given by name first: the claim finds its volume in the moment in which it is made.
            Next::Step(if given { Step::MakeDestination } else { Step::Give })
        } else {
            let message = format!("PersistentVolumeClaim {claim} was deleted while its volume was filled");
            Next::Broken(Obstacle::lasting(reason::CLAIM_NOT_FOUND, message))
        };
    }
    if !given {
        return Next::Step(Step::Give);
    }
    match (is_bound(seen, volume), volume.annotations().contains_key(annotation::RECLAIM_POLICY)) {
        (false, _) => Next::Wait,
        (true, true) => Next::Step(Step::Release),
        (true, false) => Next::Done,
    }
}

/// What comes next if the restore is to stop: `Done` once no claim can get the volume, and `Wait` if one is about to.
pub(super) fn withdraw(seen: &Observed) -> Next {
    let Some(volume) = seen.volume.as_ref().filter(|volume| is_given(seen, volume)) else {
        return Next::Done;
    };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Bound") { Next::Wait } else { Next::Step(Step::TakeBack) }
}

/// Whether the volume is the destination's: of this very claim, or of the one of its name that is still to be made.
fn is_given(seen: &Observed, volume: &PersistentVolume) -> bool {
    let Some(found) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let named = found.name.as_deref() == Some(&seen.restore.spec.destination_claim_ref.name)
        && found.namespace == seen.restore.metadata.namespace;
    let uid = seen.destination.as_ref().and_then(|claim| claim.metadata.uid.as_ref());
    named && (found.uid.is_none() || found.uid.as_ref() == uid)
}

fn is_bound(seen: &Observed, volume: &PersistentVolume) -> bool {
    seen.destination.as_ref().is_some_and(|claim| {
        volume_of(claim) == Some(&volume.name_any())
            && claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    })
}

/// Takes one step.
pub(super) async fn take(context: &Context, owner: &Owner, seen: &Observed, step: Step) -> Result<()> {
    let namespace = &context.settings.namespace;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let Some(volume) = &seen.volume else { return Ok(()) };
    let volume_name = volume.name_any();
    match step {
        Step::Keep => {
            let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
            let patch = json!({
                "metadata": {
                    "labels": owner.labels(),
                    "annotations": { annotation::RECLAIM_POLICY: policy.unwrap_or_else(|| "Delete".into()) },
                },
                "spec": { "persistentVolumeReclaimPolicy": "Retain" },
            });
            objects::change(&volumes, &volume_name, patch).await.map(drop)
        }
        Step::DropPod => {
            let tries = seen.restore.status.as_ref().and_then(|status| status.retries).unwrap_or(0);
            // Its mover has ended, and its secret goes with the rest.
            pod::stop(context, &pod_name(owner, tries), true).await
        }
        Step::DropClaim => {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
            match objects::find(&claims, &name(owner)).await? {
                Some(claim) => objects::delete(&claims, &claim, None).await,
                None => Ok(()),
            }
        }
        Step::MakeDestination => {
            let claims: Api<PersistentVolumeClaim> =
                Api::namespaced(context.client.clone(), &owner.namespace);
            let new = seen.restore.spec.new_volume.clone().unwrap_or_default();
            let made =
                destination(&seen.restore.spec.destination_claim_ref.name, &owner.namespace, &new, volume);
            objects::ensure(&claims, &made).await
        }
        Step::Give => give(&volumes, &volume_name, seen).await,
        Step::Release => release(&volumes, volume).await,
        Step::TakeBack => {
            objects::change(&volumes, &volume_name, taken_back(owner, namespace, volume)).await.map(drop)
        }
    }
}

async fn give(volumes: &Api<PersistentVolume>, volume: &str, seen: &Observed) -> Result<()> {
    let uid = seen.destination.as_ref().and_then(|claim| claim.metadata.uid.clone());
    let patch = json!({
        "metadata": { "annotations": { "pv.kubernetes.io/bound-by-controller": null } },
        "spec": { "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": seen.restore.spec.destination_claim_ref.name,
            "namespace": seen.restore.metadata.namespace, "uid": uid, "resourceVersion": null,
        } },
    });
    objects::change(volumes, volume, patch).await.map(drop)
}

/// Given to a claim that will never be, for which the uid stands: so the volume counts as released. With the version that was
/// seen, for a claim that gets the volume at this moment keeps it.
pub(super) fn taken_back(owner: &Owner, namespace: &str, volume: &PersistentVolume) -> serde_json::Value {
    json!({
        "metadata": { "resourceVersion": volume.metadata.resource_version },
        "spec": { "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name(owner), "namespace": namespace,
            "uid": owner.uid, "resourceVersion": null,
        } },
    })
}

async fn release(volumes: &Api<PersistentVolume>, volume: &PersistentVolume) -> Result<()> {
    let policy =
        volume.annotations().get(annotation::RECLAIM_POLICY).cloned().unwrap_or_else(|| "Delete".into());
    let patch = json!({
        "metadata": {
            "labels": { carrack_controller_api::label::OWNER_UID: null, carrack_controller_api::label::OWNER_KIND: null,
                carrack_controller_api::label::MANAGED_BY: null },
            "annotations": { annotation::RECLAIM_POLICY: null },
        },
        "spec": { "persistentVolumeReclaimPolicy": policy },
    });
    objects::change(volumes, &volume.name_any(), patch).await.map(drop)
}

/// The claim that is made for a volume that is full already.
fn destination(
    name: &str,
    namespace: &str,
    new: &NewVolume,
    volume: &PersistentVolume,
) -> PersistentVolumeClaim {
    let spec = volume.spec.clone().unwrap_or_default();
    let size = spec.capacity.and_then(|capacity| capacity.get("storage").cloned());
    let asked = new
        .resources
        .clone()
        .and_then(|resources| resources.requests)
        .and_then(|requests| requests.get("storage").cloned());
    let requests = BTreeMap::from([("storage".to_owned(), asked.or(size).unwrap_or(Quantity("1".into())))]);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(new.labels.clone()),
            annotations: Some(new.annotations.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: spec.access_modes,
            storage_class_name: spec.storage_class_name,
            volume_mode: spec.volume_mode,
            volume_name: Some(volume.name_any()),
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
