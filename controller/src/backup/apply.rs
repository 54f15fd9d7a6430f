//! Does what was decided.

use carrack_controller_api::{DataMoverBackup, DataMoverBackupStatus, finalizer};
use carrack_proto::{BackupTask, SeenSnapshot, Source, Task};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt as _};

use super::{
    decide::{Decision, Step},
    observe::{Observed, Origin, lent_name, name, pod_name},
};
use crate::{
    access::{Access, Resolution},
    bundle::{self, Bundle},
    changes::{self, Base, Tracking},
    context::Context,
    error::Result,
    memory, objects, placement,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodVolume, VolumeMode},
    slots,
    snapshot::{self, kinds::VolumeSnapshot},
    sweep::sweep,
};

/// Tag of a snapshot in the repository that was read from a volume in use.
const LIVE_TAG: &str = "live";

/// What the API server says when a namespace may have no more of something.
const EXCEEDED_QUOTA: &str = "exceeded quota";

/// Takes the steps.
pub(super) async fn apply(context: &Context, seen: &mut Observed, decision: &Decision) -> Result<()> {
    let owner = Owner::of(&seen.backup);
    for step in &decision.steps {
        match step {
            Step::Hold => hold(context, seen, true).await?,
            Step::LetGo => {
                context.slots.release(&slots::request(&seen.backup));
                hold(context, seen, false).await?;
            }
            Step::MakeSnapshot => make_snapshot(context, &owner, seen).await?,
            Step::Expose => seen.exposed = expose(context, &owner, seen).await?,
            Step::Start => start(context, &owner, seen).await?,
            Step::Stop { at_once } => pod::stop(context, &pod_name(&owner, tries(seen)), *at_once).await?,
            Step::Sweep { base } => seen.clean = sweep(context, &owner, None, base.as_ref()).await?,
            Step::Remember(written) => {
                if let Some((repository, source)) = known_as(seen, &decision.status) {
                    memory::see(context, &repository, &source, written).await?;
                }
            }
            Step::Forget => super::forget::start(context, &owner, seen).await?,
            Step::Disregard(snapshot) => {
                if let Some((repository, source)) = known_as(seen, &decision.status) {
                    memory::forget(context, &repository, &source, snapshot).await?;
                }
            }
        }
    }
    Ok(())
}

/// The repository's id, and the volume as that knows it.
fn known_as(seen: &Observed, status: &DataMoverBackupStatus) -> Option<(String, Source)> {
    let repository = status.repository_id.clone()?;
    // The type was changed meanwhile: nobody may look for a snapshot of one repository in another.
    if let Resolution::Ready(access) = &seen.resolution
        && access.repository_id != repository
    {
        return None;
    }
    let place = VolumeMode::of(status.volume_mode.as_deref()).place();
    Some((repository, Source { host: status.identity.clone()?, place }))
}

/// How often a mover was lost before this try.
fn tries(seen: &Observed) -> u32 {
    seen.backup.status.as_ref().and_then(|status| status.retries).unwrap_or(0)
}

async fn hold(context: &Context, seen: &mut Observed, held: bool) -> Result<()> {
    let api: Api<DataMoverBackup> =
        Api::namespaced(context.client.clone(), &seen.backup.namespace().unwrap_or_default());
    seen.backup.metadata = objects::hold(&api, &seen.backup, finalizer::CLEAN_UP, held).await?.metadata;
    Ok(())
}

async fn make_snapshot(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    let Ok(Origin { claim, snapshot_class: Some(class), .. }) = &seen.origin else { return Ok(()) };
    let api: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
    let made = objects::ensure(&api, &snapshot::of_claim(owner, &name(owner), claim, class)).await;
    if made.as_ref().is_err_and(|error| error.refusal().is_some_and(|words| words.contains(EXCEEDED_QUOTA))) {
        // The one that stayed from the last time may be what is too much.
        base(seen, claim).retire(context, &owner.namespace).await?;
    }
    made
}

/// The snapshots that stay of this claim; none is to.
fn base(seen: &Observed, claim: &str) -> Base {
    let status = seen.backup.status.as_ref();
    let repository = status.and_then(|status| status.repository_id.clone()).unwrap_or_default();
    Base { claim: claim.to_owned(), repository, kept: false }
}

/// Lends the handle to Carrack's namespace and claims the temporary volume; each only if it is not there. True once the
/// volume is claimed: not before what was lent is ready, for a provisioner that fails once lets much time pass.
async fn expose(context: &Context, owner: &Owner, seen: &mut Observed) -> Result<bool> {
    if seen.temporary.is_some() {
        return Ok(true);
    }
    if let Ok(Origin { live: Some(live), .. }) = &seen.origin {
        seen.contested = live.lend(context, owner, &name(owner)).await?.err();
        return Ok(seen.contested.is_none());
    }
    let (Some(snapshot), Some(content), Ok(origin), Resolution::Ready(access)) =
        (&seen.snapshot, &seen.content, &seen.origin, &seen.resolution)
    else {
        return Ok(false);
    };
    let (lent_name, namespace) = (lent_name(owner), &context.settings.namespace);
    let Some(lent) = snapshot::borrowed_content(owner, &lent_name, namespace, content) else {
        return Ok(false);
    };
    objects::ensure(&Api::all(context.client.clone()), &lent).await?;
    let class = lent.spec.volume_snapshot_class_name.clone();
    let borrowed = snapshot::borrowed_snapshot(owner, &lent_name, namespace, class);
    let snapshots: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), namespace);
    match objects::find(&snapshots, &lent_name).await? {
        Some(found) if found.status.as_ref().is_some_and(|status| status.ready_to_use == Some(true)) => {}
        Some(_) => return Ok(false),
        None => return objects::apply(&snapshots, &borrowed).await.map(|_| false),
    }
    let mut shape = origin.shape.clone();
    shape.size = snapshot::size(snapshot, Some(content), Some(shape.size).filter(|&size| size > 0));
    let names = snapshot::Names { claim: name(owner), snapshot: lent_name };
    let claim = snapshot::temporary_claim(owner, &names, namespace, &shape, &access.mover_type.spec);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    objects::ensure(&claims, &claim).await.map(|()| true)
}

async fn start(context: &Context, owner: &Owner, seen: &mut Observed) -> Result<()> {
    let (Resolution::Ready(access), Some(Bundle::Ready(bundle)), Ok(origin)) =
        (&seen.resolution, &seen.bundle, &seen.origin)
    else {
        return Ok(());
    };
    if !seen.exposed {
        return Ok(());
    }
    // What changes while it is read is no trouble of the users.
    let found_out = seen.backup.status.as_ref().and_then(|status| status.host_users);
    let found_out = found_out.or(origin.live.is_some().then_some(true));
    let mode = origin.shape.mode;
    let users = placement::users(context, &access.mover_type, found_out, mode).await?;
    let tracking = match (&seen.snapshot, &seen.content) {
        (Some(snapshot), Some(content)) if mode == VolumeMode::Block => {
            let read = changes::Read { snapshot, content, lent: &lent_name(owner) };
            let base = Base { repository: access.repository_id.clone(), ..base(seen, &origin.claim) };
            changes::tracking(context, &access.mover_type.spec, &base, read).await?
        }
        _ => None,
    };
    let source = bundle::source(&context.cluster, &owner.namespace, &origin.claim, origin.shape.mode.place());
    let last_seen = memory::of_source(context, &access.repository_id, &source).await?;
    let what = (source, last_seen, tracking);
    let made = MoverPod {
        name: pod_name(owner, tries(seen)),
        owner,
        task: "backup",
        mover_type: &access.mover_type.spec,
        volume: Some(PodVolume {
            claim: name(owner),
            mode,
            read_only: true,
            mover_type: access.mover_type.name_any(),
            only_on: origin.live.as_ref().map(|live| live.nodes()).unwrap_or_default(),
            avoided: Vec::new(),
        }),
        host_users: users.host,
        files: files(seen, (access, origin), (bundle.clone(), users.strict), what),
    };
    seen.crowded = !placement::start(context, made, &access.mover_type).await?;
    Ok(())
}

fn files(
    seen: &Observed,
    (access, origin): (&Access, &Origin),
    (bundle, strict): (Vec<u8>, bool),
    (source, last_seen, tracking): (Source, Vec<SeenSnapshot>, Option<Tracking>),
) -> JobFiles {
    let config = &seen.backup.spec.config;
    let (changes, metadata) = tracking.map_or((None, None), |told| (Some(told.job), told.files));
    let mut tags = pod::list(config, "tags");
    if origin.live.is_some() {
        tags.push(LIVE_TAG.to_owned());
    }
    let task = BackupTask {
        source,
        tags,
        exclude: pod::list(config, "exclude"),
        cloned: origin.live.is_none(),
        force: config.get("force").is_some_and(|value| value == "true"),
        strict,
        changes,
    };
    let (key, mover_type) = (KeyFile::Bundle(bundle), &access.mover_type.spec);
    let mut files = JobFiles::new(&access.location, &access.credentials, key, mover_type, Task::Backup(task));
    files.metadata = metadata;
    files.job.last_seen = last_seen;
    files
}
