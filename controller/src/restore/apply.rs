//! Does what was decided.

use std::collections::BTreeMap;

use carrack_controller_api::{DataMoverRestore, ExistingVolume, finalizer};
use carrack_proto::{RestoreTask, Target, Task};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Api, ResourceExt as _};

use super::{
    decide::{Decision, Step},
    handover,
    observe::{Observed, Source, name, pod_name},
};
use crate::{
    access::{Access, Resolution},
    context::Context,
    error::{Obstacle, Result},
    memory, objects, placement,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodVolume, VolumeMode},
    slots,
    sweep::sweep,
};

/// On a claim: the node that its pod was given, for which its volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Takes the steps.
pub(super) async fn apply(context: &Context, seen: &mut Observed, decision: &Decision) -> Result<()> {
    let owner = Owner::of(&seen.restore);
    for step in &decision.steps {
        match step {
            Step::Hold => hold(context, seen, true).await?,
            Step::LetGo => {
                context.slots.release(&slots::request(&seen.restore));
                hold(context, seen, false).await?;
            }
            Step::Claim => seen.contested = claim(context, &owner, seen).await?,
            Step::Start if seen.contested.is_some() => {}
            Step::Start => start(context, &owner, seen).await?,
            Step::Stop { at_once } => pod::stop(context, &pod_name(&owner, tries(seen)), *at_once).await?,
            Step::HandOver(step) => handover::take(context, &owner, seen, *step).await?,
            Step::Sweep => {
                let spared = decision.status.volume_name.as_deref();
                seen.clean = sweep(context, &owner, spared, None).await?;
            }
        }
    }
    Ok(())
}

/// How often a mover was lost before this try.
fn tries(seen: &Observed) -> u32 {
    seen.restore.status.as_ref().and_then(|status| status.retries).unwrap_or(0)
}

async fn hold(context: &Context, seen: &mut Observed, held: bool) -> Result<()> {
    let api: Api<DataMoverRestore> =
        Api::namespaced(context.client.clone(), &seen.restore.namespace().unwrap_or_default());
    seen.restore.metadata = objects::hold(&api, &seen.restore, finalizer::CLEAN_UP, held).await?.metadata;
    Ok(())
}

/// With a file system or without: as the destination says, as was asked for, as it was.
fn mode(seen: &Observed) -> VolumeMode {
    let destination = seen.destination.as_ref().and_then(|claim| claim.spec.as_ref()?.volume_mode.as_deref());
    let asked = seen.restore.spec.new_volume.as_ref().and_then(|new| new.volume_mode.as_deref());
    let was = seen.source.as_ref().ok().and_then(|source| source.mode);
    destination.or(asked).map_or_else(|| was.unwrap_or_default(), |text| VolumeMode::of(Some(text)))
}

/// Whether what the snapshot does not have goes. In a volume of our own it can only be what an earlier try left, for which
/// another snapshot may have been the latest.
fn removes_others(seen: &Observed) -> bool {
    seen.existing.is_none() || seen.restore.spec.existing_volume == ExistingVolume::Replace
}

/// Claims the volume that is filled: a new one, or that of the destination by a second name, unless another mover has it.
async fn claim(context: &Context, owner: &Owner, seen: &Observed) -> Result<Option<Obstacle>> {
    if let Some(Ok(live)) = &seen.existing {
        return live.lend(context, owner, &name(owner)).await.map(Result::err);
    }
    let namespace = &context.settings.namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    objects::ensure(&claims, &temporary_claim(owner, namespace, seen)).await.map(|()| None)
}

/// Like the destination, but nobody waits for it.
pub(super) fn temporary_claim(owner: &Owner, namespace: &str, seen: &Observed) -> PersistentVolumeClaim {
    let mut metadata = ObjectMeta {
        name: Some(name(owner)),
        namespace: Some(namespace.to_owned()),
        labels: Some(owner.labels()),
        annotations: Some(owner.annotations()),
        ..ObjectMeta::default()
    };
    let mut spec = PersistentVolumeClaimSpec {
        volume_mode: Some(mode(seen).name().into()),
        ..PersistentVolumeClaimSpec::default()
    };
    match &seen.destination {
        Some(destination) => {
            let wanted = destination.spec.clone().unwrap_or_default();
            spec.access_modes = wanted.access_modes;
            spec.storage_class_name = wanted.storage_class_name;
            // A claim binds only to a volume whose attributes are of its own class.
            spec.volume_attributes_class_name = wanted.volume_attributes_class_name;
            spec.resources = wanted.resources;
            if let (Some(node), Some(annotations)) =
                (destination.annotations().get(SELECTED_NODE), &mut metadata.annotations)
            {
                annotations.insert(SELECTED_NODE.to_owned(), node.clone());
            }
        }
        None => {
            let new = seen.restore.spec.new_volume.clone().unwrap_or_default();
            spec.access_modes = Some(new.access_modes)
                .filter(|modes| !modes.is_empty())
                .or_else(|| Some(vec!["ReadWriteOnce".into()]));
            spec.storage_class_name = new.storage_class_name;
            let known = seen.source.as_ref().ok().and_then(|source| source.volume_bytes).unwrap_or(0);
            spec.resources = new.resources.or_else(|| {
                let requests = BTreeMap::from([("storage".to_owned(), Quantity(known.to_string()))]);
                Some(VolumeResourceRequirements { requests: Some(requests), limits: None })
            });
        }
    }
    PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
}

async fn start(context: &Context, owner: &Owner, seen: &mut Observed) -> Result<()> {
    let (Resolution::Ready(access), Ok(source)) = (&seen.resolution, &seen.source) else { return Ok(()) };
    let found_out = seen.restore.status.as_ref().and_then(|status| status.host_users);
    let users = placement::users(context, &access.mover_type, found_out, mode(seen)).await?;
    let mut files = files(seen, access, source, users.strict);
    // Whoever wants an earlier state does not miss a later one.
    if let Some(host) = source.host.clone().filter(|_| source.as_of.is_none()) {
        let wanted = carrack_proto::Source { host, place: mode(seen).place() };
        files.job.last_seen = memory::of_source(context, &access.repository_id, &wanted).await?;
    }
    let made = MoverPod {
        name: pod_name(owner, tries(seen)),
        owner,
        task: "restore",
        mover_type: &access.mover_type.spec,
        volume: Some(PodVolume {
            claim: name(owner),
            mode: mode(seen),
            read_only: false,
            mover_type: access.mover_type.name_any(),
            only_on: Vec::new(),
            avoided: Vec::new(),
        }),
        host_users: users.host,
        files,
    };
    seen.crowded = !placement::start(context, made, &access.mover_type).await?;
    Ok(())
}

fn files(seen: &Observed, access: &Access, source: &Source, strict: bool) -> JobFiles {
    let config = &seen.restore.spec.config;
    let task = RestoreTask {
        snapshot: source.snapshot.clone(),
        host: source.host.clone(),
        as_of: source.as_of,
        previous: source.previous,
        target: Target { place: mode(seen).place(), delete: removes_others(seen) },
        verify: access.mover_type.spec.verify_restores
            || config.get("verify").is_some_and(|value| value == "true"),
        include: pod::list(config, "include"),
        exclude: pod::list(config, "exclude"),
        strict,
    };
    let key = KeyFile::Repository(access.key.clone());
    JobFiles::new(&access.location, &access.credentials, key, &access.mover_type.spec, Task::Restore(task))
}
