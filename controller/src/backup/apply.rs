//! Does what was decided.

use carrack_controller_api::{DataMoverBackup, finalizer};
use carrack_proto::{BackupTask, Job, Task, VERSION};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt as _};

use super::{
    decide::{Decision, Step},
    observe::{Observed, Origin, lent_name, name, pod_name},
};
use crate::{
    access::{Access, Resolution},
    bundle::{self, Bundle},
    context::Context,
    error::Result,
    objects,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodVolume},
    snapshot::{self, kinds::VolumeSnapshot},
    sweep::sweep,
};

/// Takes the steps; false if one of them must be waited for before the rest may follow.
pub(super) async fn apply(context: &Context, seen: &mut Observed, decision: &Decision) -> Result<bool> {
    let owner = Owner::of(&seen.backup);
    for step in &decision.steps {
        match step {
            Step::Hold => hold(context, seen, true).await?,
            Step::LetGo => {
                context.slots.release(&owner.uid);
                hold(context, seen, false).await?;
            }
            Step::MakeSnapshot => make_snapshot(context, &owner, seen).await?,
            Step::Expose => expose(context, &owner, seen).await?,
            Step::Start => start(context, &owner, seen).await?,
            Step::Stop { at_once } => stop(context, &owner, seen, *at_once).await?,
            Step::Sweep => seen.clean = sweep(context, &owner, None).await?,
            Step::Forget => {
                if !super::forget::forget(context, &owner, seen).await? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

async fn hold(context: &Context, seen: &Observed, held: bool) -> Result<()> {
    let api: Api<DataMoverBackup> =
        Api::namespaced(context.client.clone(), &seen.backup.namespace().unwrap_or_default());
    objects::hold(&api, &seen.backup, finalizer::CLEAN_UP, held).await
}

async fn make_snapshot(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    let Ok(Origin { claim, snapshot_class: Some(class), .. }) = &seen.origin else { return Ok(()) };
    let api: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
    objects::apply(&api, &snapshot::of_claim(owner, &name(owner), claim, class)).await.map(drop)
}

/// Lends the handle to Carrack's namespace and claims the temporary volume; each only if it is not there.
async fn expose(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    if seen.temporary.is_some() {
        return Ok(());
    }
    let (Some(snapshot), Some(content), Ok(origin), Resolution::Ready(access)) =
        (&seen.snapshot, &seen.content, &seen.origin, &seen.resolution)
    else {
        return Ok(());
    };
    let (lent_name, namespace) = (lent_name(owner), &context.settings.namespace);
    let Some(lent) = snapshot::borrowed_content(owner, &lent_name, namespace, content) else { return Ok(()) };
    objects::apply(&Api::all(context.client.clone()), &lent).await?;
    let class = lent.spec.volume_snapshot_class_name.clone();
    let borrowed = snapshot::borrowed_snapshot(owner, &lent_name, namespace, class);
    objects::apply(&Api::<VolumeSnapshot>::namespaced(context.client.clone(), namespace), &borrowed).await?;
    let mut shape = origin.shape.clone();
    shape.size = snapshot::size(snapshot, Some(shape.size).filter(|&size| size > 0));
    let names = snapshot::Names { claim: name(owner), snapshot: lent_name };
    let claim = snapshot::temporary_claim(owner, &names, namespace, &shape, &access.mover_type.spec);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    objects::apply(&claims, &claim).await.map(drop)
}

async fn start(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    let (Resolution::Ready(access), Some(Bundle::Ready(bundle)), Ok(origin)) =
        (&seen.resolution, &seen.bundle, &seen.origin)
    else {
        return Ok(());
    };
    let tries = seen.backup.status.as_ref().and_then(|status| status.retries).unwrap_or(0);
    let made = MoverPod {
        name: pod_name(owner, tries),
        owner,
        task: "backup",
        mover_type: &access.mover_type.spec,
        volume: Some(PodVolume { claim: name(owner), mode: origin.shape.mode, read_only: true }),
        files: files(context, owner, seen, access, origin, bundle.clone()),
    };
    pod::apply(context, &made).await.map(drop)
}

fn files(
    context: &Context,
    owner: &Owner,
    seen: &Observed,
    access: &Access,
    origin: &Origin,
    bundle: Vec<u8>,
) -> JobFiles {
    let config = &seen.backup.spec.config;
    let key = KeyFile::Bundle(bundle);
    let task = BackupTask {
        source: bundle::source(&context.cluster, &owner.namespace, &origin.claim, origin.shape.mode.place()),
        tags: pod::list(config, "tags"),
        exclude: pod::list(config, "exclude"),
        cloned: true,
        force: config.get("force").is_some_and(|value| value == "true"),
    };
    JobFiles {
        job: Job {
            version: VERSION,
            repository: pod::access(&access.location),
            keys: pod::keys(&key),
            resources: pod::resources(&access.mover_type.spec),
            task: Task::Backup(task),
        },
        key,
        credentials: access.credentials.clone(),
        certificate_authority: access.location.certificate_authority.clone(),
        seal: None,
    }
}

/// Asks the pod of this try to stop; the mover comes to a safe point by itself.
async fn stop(context: &Context, owner: &Owner, seen: &Observed, at_once: bool) -> Result<()> {
    let tries = seen.backup.status.as_ref().and_then(|status| status.retries).unwrap_or(0);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match objects::find(&pods, &pod_name(owner, tries)).await? {
        Some(pod) => objects::delete(&pods, &pod, at_once.then_some(0)).await,
        None => Ok(()),
    }
}
