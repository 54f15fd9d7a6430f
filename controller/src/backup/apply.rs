//! Does what was decided.

use carrack_controller_api::{DataMoverBackup, finalizer};
use carrack_proto::{BackupTask, Task};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
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

/// Takes the steps.
pub(super) async fn apply(context: &Context, seen: &mut Observed, decision: &Decision) -> Result<()> {
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
            Step::Stop { at_once } => pod::stop(context, &pod_name(&owner, tries(seen)), *at_once).await?,
            Step::Sweep => seen.clean = sweep(context, &owner, None).await?,
            Step::Forget => super::forget::start(context, &owner, seen).await?,
        }
    }
    Ok(())
}

/// How often a mover was lost before this try.
fn tries(seen: &Observed) -> u32 {
    seen.backup.status.as_ref().and_then(|status| status.retries).unwrap_or(0)
}

async fn hold(context: &Context, seen: &Observed, held: bool) -> Result<()> {
    let api: Api<DataMoverBackup> =
        Api::namespaced(context.client.clone(), &seen.backup.namespace().unwrap_or_default());
    objects::hold(&api, &seen.backup, finalizer::CLEAN_UP, held).await
}

async fn make_snapshot(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    let Ok(Origin { claim, snapshot_class: Some(class), .. }) = &seen.origin else { return Ok(()) };
    let api: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
    objects::ensure(&api, &snapshot::of_claim(owner, &name(owner), claim, class)).await
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
    objects::ensure(&Api::all(context.client.clone()), &lent).await?;
    let class = lent.spec.volume_snapshot_class_name.clone();
    let borrowed = snapshot::borrowed_snapshot(owner, &lent_name, namespace, class);
    objects::ensure(&Api::<VolumeSnapshot>::namespaced(context.client.clone(), namespace), &borrowed).await?;
    let mut shape = origin.shape.clone();
    shape.size = snapshot::size(snapshot, Some(shape.size).filter(|&size| size > 0));
    let names = snapshot::Names { claim: name(owner), snapshot: lent_name };
    let claim = snapshot::temporary_claim(owner, &names, namespace, &shape, &access.mover_type.spec);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    objects::ensure(&claims, &claim).await
}

async fn start(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    let (Resolution::Ready(access), Some(Bundle::Ready(bundle)), Ok(origin)) =
        (&seen.resolution, &seen.bundle, &seen.origin)
    else {
        return Ok(());
    };
    let made = MoverPod {
        name: pod_name(owner, tries(seen)),
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
    let task = BackupTask {
        source: bundle::source(&context.cluster, &owner.namespace, &origin.claim, origin.shape.mode.place()),
        tags: pod::list(config, "tags"),
        exclude: pod::list(config, "exclude"),
        cloned: true,
        force: config.get("force").is_some_and(|value| value == "true"),
    };
    let key = KeyFile::Bundle(bundle);
    JobFiles::new(&access.location, &access.credentials, key, &access.mover_type.spec, Task::Backup(task))
}
