//! What there is in the cluster of a backup.

use carrack_controller_api::{
    BackupPhase, BackupType, Consistency, DataMoverBackup, DataMoverTypeSpec, WithoutSnapshots, reason,
};
use carrack_proto::Progress;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::{Api, ResourceExt as _};

use crate::{
    access::{self, Resolution},
    bundle::{self, Bundle},
    context::Context,
    error::{Obstacle, Result},
    live::{self, Live},
    objects, placement,
    pod::{self, Owner, PodState, VolumeMode},
    slots,
    snapshot::{
        self, Snapshots, VolumeShape,
        kinds::{VolumeSnapshot, VolumeSnapshotContent},
    },
};

/// What there is of a backup.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// When it was looked at.
    pub now: Timestamp,
    /// The request.
    pub backup: DataMoverBackup,
    /// Whose it is, and what it may use.
    pub resolution: Resolution,
    /// The volume.
    pub origin: Result<Origin, Obstacle>,
    /// The snapshot that is read: made for it, or given.
    pub snapshot: Option<VolumeSnapshot>,
    /// What it stands for.
    pub content: Option<VolumeSnapshotContent>,
    /// Whether the temporary volume's claim is there, and what keeps it.
    pub temporary: Option<PersistentVolumeClaim>,
    /// Whether the temporary volume is claimed by now; known once it was tried.
    pub exposed: bool,
    /// The keys of the volume, once they are needed.
    pub bundle: Option<Bundle>,
    /// The mover pod of this try.
    pub pod: PodState,
    /// The lineage of the keys that it was given; looked at once it has ended.
    pub lineage: Option<String>,
    /// What it said last.
    pub progress: Option<Progress>,
    /// The pod that forgets its snapshot; looked at only when it is deleted.
    pub forgets: PodState,
    /// Whether a slot is its own.
    pub slot: bool,
    /// Whether no node had room when its pod was to be made.
    pub crowded: bool,
    /// Whose mover had the volume when it was to be lent.
    pub contested: Option<Obstacle>,
    /// Whether its pod waits for a node and keeps away from one that has room by now.
    pub misplaced: bool,
    /// Whether nothing is left of it; looked at only after its end.
    pub clean: bool,
}

/// The volume that a backup is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Origin {
    /// The claim that its snapshots go by.
    pub claim: String,
    /// What it is called in the repository.
    pub identity: String,
    /// What the temporary volume is made like.
    pub shape: VolumeShape,
    /// The class for a snapshot of it; none if one was given or none can be made.
    pub snapshot_class: Option<String>,
    /// The volume, if it is read itself.
    pub live: Option<Box<Live>>,
}

/// Name of everything that is made for a backup.
pub(super) fn name(owner: &Owner) -> String {
    snapshot::name_of(owner)
}

/// Name of what is lent to Carrack's namespace. Another one: the claim may be in that namespace too.
pub(super) fn lent_name(owner: &Owner) -> String {
    format!("lent-{}", owner.uid)
}

/// Name of the pod of this try.
pub(super) fn pod_name(owner: &Owner, retries: u32) -> String {
    format!("backup-{}-{retries}", owner.uid)
}

/// Looks at everything that matters in the phase that the backup is in.
pub(super) async fn observe(context: &Context, backup: &DataMoverBackup) -> Result<Observed> {
    let owner = Owner::of(backup);
    let status = backup.status.clone().unwrap_or_default();
    let named = status.data_mover_type.as_deref().or(backup.spec.data_mover_type.as_deref());
    let mut seen = Observed {
        now: context.now(),
        backup: backup.clone(),
        resolution: access::resolve(context, &owner.namespace, named).await?,
        origin: Ok(Origin::default()),
        snapshot: None,
        content: None,
        temporary: None,
        exposed: false,
        bundle: None,
        pod: PodState::Missing,
        lineage: None,
        progress: None,
        forgets: PodState::Missing,
        slot: false,
        crowded: false,
        contested: None,
        misplaced: false,
        clean: false,
    };
    if matches!(seen.resolution, Resolution::Foreign) {
        return Ok(seen);
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let this = pod_name(&owner, status.retries.unwrap_or(0));
    seen.pod = PodState::of(objects::find(&pods, &this).await?.as_ref());
    if !status.phase.is_final() && matches!(seen.pod, PodState::Finished { .. }) {
        seen.lineage = lineage_of(context, &this).await?;
    }
    if backup.metadata.deletion_timestamp.is_some() {
        seen.forgets = super::forget::state(context, &owner).await?;
    }
    if status.phase.is_final() || backup.metadata.deletion_timestamp.is_some() || backup.spec.cancel {
        return Ok(seen);
    }
    if let PodState::Running { .. } = seen.pod {
        seen.progress = pod::progress(&pods, &this).await;
    }
    if status.phase <= BackupPhase::Preparing {
        look_at_source(context, &owner, &mut seen).await?;
    }
    seen.misplaced = placement::is_outdated(context, &seen.pod, &seen.resolution).await?;
    seen.slot = slot(context, &seen, status.phase).await?;
    Ok(seen)
}

/// The lineage of the keys that a pod was given. They are beside the pod until the end is told.
async fn lineage_of(context: &Context, pod: &str) -> Result<Option<String>> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let files = objects::find(&secrets, &pod::secret_name(pod)).await?.and_then(|secret| secret.data);
    Ok(files.and_then(|files| bundle::lineage(&files.get(bundle::FILE)?.0)))
}

/// Who is under way has a slot; who could begin asks for one.
async fn slot(context: &Context, seen: &Observed, phase: BackupPhase) -> Result<bool> {
    let Resolution::Ready(access) = &seen.resolution else { return Ok(phase != BackupPhase::Pending) };
    let (request, mover_type) = (slots::request(&seen.backup), access.mover_type.name_any());
    if phase != BackupPhase::Pending {
        context.slots.occupy(&request, &mover_type);
        return Ok(true);
    }
    if seen.origin.is_err() {
        return Ok(false);
    }
    let nodes = placement::nodes(context).await?.len();
    Ok(context.slots.take(&request, &mover_type, access.mover_type.spec.concurrency, nodes))
}

/// The way from the claim to the temporary volume, as far as it is there.
async fn look_at_source(context: &Context, owner: &Owner, seen: &mut Observed) -> Result<()> {
    let Resolution::Ready(access) = &seen.resolution else { return Ok(()) };
    let spec = &seen.backup.spec;
    let snapshots: Api<VolumeSnapshot> = Api::namespaced(context.client.clone(), &owner.namespace);
    let given = spec.backup_type == BackupType::VolumeSnapshot;
    let name = if given { spec.source_claim_ref.name.clone() } else { self::name(owner) };
    seen.snapshot = match snapshots.get_opt(&name).await {
        Ok(found) => found,
        // The kind itself is not known: the class cannot be found either, which says more.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => {
            return Err(crate::error::Error::api(format!("VolumeSnapshot {name} cannot be read"))(error));
        }
    };
    let bound = seen
        .snapshot
        .as_ref()
        .and_then(|found| found.status.as_ref()?.bound_volume_snapshot_content_name.clone());
    if let Some(bound) = bound {
        let found: Option<VolumeSnapshotContent> =
            objects::find(&Api::all(context.client.clone()), &bound).await?;
        // A status that somebody wrote may name the content of another one.
        seen.content = found.filter(|content| {
            let of = &content.spec.volume_snapshot_ref;
            (of.namespace.as_str(), of.name.as_str()) == (owner.namespace.as_str(), name.as_str())
        });
    }
    if let Some(obstacle) =
        access::other_namespace("spec.sourceClaimRef", &spec.source_claim_ref, &owner.namespace)
    {
        seen.origin = Err(obstacle);
        return Ok(());
    }
    let consistency = seen.backup.status.as_ref().and_then(|status| status.consistency);
    let began_live = consistency == Some(Consistency::Live);
    seen.origin = match &seen.snapshot {
        Some(_) if !given => Ok(snapshotted_claim(context, owner, &seen.backup).await?),
        None if !given => claim_of(context, owner, access, &spec.source_claim_ref.name, began_live).await?,
        Some(snapshot) => given_snapshot(context, owner, snapshot).await?,
        None => {
            let message =
                format!("there is no VolumeSnapshot {}/{name}: make it, or name another", owner.namespace);
            Err(Obstacle::passing(reason::SNAPSHOT_FAILED, message))
        }
    };
    if let Ok(origin) = &mut seen.origin {
        origin.identity =
            bundle::source(&context.cluster, &owner.namespace, &origin.claim, origin.shape.mode.place()).host;
    }
    if seen.backup.status.as_ref().is_none_or(|status| status.phase == BackupPhase::Pending) {
        return Ok(());
    }
    let temporary: Api<PersistentVolumeClaim> =
        Api::namespaced(context.client.clone(), &context.settings.namespace);
    seen.temporary = objects::find(&temporary, &self::name(owner)).await?;
    if let Ok(origin) = &seen.origin
        && seen.pod == PodState::Missing
    {
        // The one thing that looking moves on: the keys are made while the storage makes the snapshot.
        let source =
            bundle::source(&context.cluster, &owner.namespace, &origin.claim, origin.shape.mode.place());
        seen.bundle = Some(bundle::ensure(context, owner, access, &source).await?);
    }
    Ok(())
}

/// A claim of which a snapshot is to be made, or that is read itself.
async fn claim_of(
    context: &Context,
    owner: &Owner,
    access: &access::Access,
    name: &str,
    began_live: bool,
) -> Result<Result<Origin, Obstacle>> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &owner.namespace);
    let Some(claim) = objects::find(&claims, name).await? else {
        let message =
            format!("there is no PersistentVolumeClaim {}/{name}: make it, or name another", owner.namespace);
        return Ok(Err(Obstacle::passing(reason::CLAIM_NOT_FOUND, message)));
    };
    let shape = shape(&claim);
    let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) else {
        let message =
            format!("PersistentVolumeClaim {name} has no volume yet: it is backed up once it is bound");
        return Ok(Err(Obstacle::passing(reason::CLAIM_NOT_FOUND, message)));
    };
    let volume = match live::volume_of(context, &claim, &volume).await? {
        Ok(volume) => volume,
        Err(obstacle) => return Ok(Err(obstacle)),
    };
    let origin = Origin { claim: name.to_owned(), shape, ..Origin::default() };
    let mover_type = &access.mover_type.spec;
    if !began_live {
        match snapshots_of(context, mover_type, &origin.shape, name, &volume).await? {
            Snapshots::By(class) => return Ok(Ok(Origin { snapshot_class: Some(class), ..origin })),
            Snapshots::None(_) if mover_type.without_snapshots == WithoutSnapshots::Live => {}
            Snapshots::None(obstacle) | Snapshots::Unclear(obstacle) => return Ok(Err(obstacle)),
        }
    }
    let live = match Live::of(context, &owner.namespace, name, volume).await? {
        Ok(live) => live,
        Err(obstacle) => return Ok(Err(obstacle)),
    };
    if !began_live {
        let in_the_way = match readable(&live, name, origin.shape.mode) {
            None => live.taken(context, owner).await?,
            found => found,
        };
        if let Some(obstacle) = in_the_way {
            return Ok(Err(obstacle));
        }
    }
    Ok(Ok(Origin { live: Some(Box::new(live)), ..origin }))
}

async fn snapshots_of(
    context: &Context,
    mover_type: &DataMoverTypeSpec,
    shape: &VolumeShape,
    claim: &str,
    volume: &PersistentVolume,
) -> Result<Snapshots> {
    match volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) {
        Some(csi) => snapshot::class(context, mover_type, shape.storage_class.as_deref(), &csi.driver).await,
        None => {
            let message = format!(
                "the volume of claim {claim} is not one of a CSI driver, and only those have snapshots; withoutSnapshots: Live \
                 in the DataMoverType reads the volume itself"
            );
            Ok(Snapshots::None(Obstacle::lasting(reason::NO_SNAPSHOT_CLASS, message)))
        }
    }
}

/// A device that somebody writes to has no files of which each is whole: what would be read is worth nothing.
fn readable(live: &Live, claim: &str, mode: VolumeMode) -> Option<Obstacle> {
    let pods = live.used_by().filter(|_| mode == VolumeMode::Block)?;
    let message = format!(
        "the device of claim {claim} has no snapshots and is used by {pods}: stop them, the backup begins then"
    );
    Some(Obstacle::passing(reason::SOURCE_IN_USE, message))
}

/// A claim of which there is a snapshot. It may be gone: what the backup began with is in its status.
async fn snapshotted_claim(context: &Context, owner: &Owner, backup: &DataMoverBackup) -> Result<Origin> {
    let name = &backup.spec.source_claim_ref.name;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &owner.namespace);
    let status = backup.status.clone().unwrap_or_default();
    let shape = objects::find(&claims, name).await?.map_or_else(
        || VolumeShape {
            storage_class: status.storage_class_name,
            mode: VolumeMode::of(status.volume_mode.as_deref()),
            size: 0,
        },
        |claim| shape(&claim),
    );
    Ok(Origin { claim: name.clone(), shape, ..Origin::default() })
}

/// A snapshot that somebody else made.
async fn given_snapshot(
    context: &Context,
    owner: &Owner,
    snapshot: &VolumeSnapshot,
) -> Result<Result<Origin, Obstacle>> {
    let claim = snapshot.spec.source.persistent_volume_claim_name.clone();
    // One that was brought in from elsewhere has no claim: it goes by its own name.
    let named = claim.clone().unwrap_or_else(|| snapshot.name_any());
    let mut shape = VolumeShape::default();
    if let Some(claim) = claim {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &owner.namespace);
        if let Some(claim) = objects::find(&claims, &claim).await? {
            shape = self::shape(&claim);
        }
    }
    if shape.storage_class.is_none() {
        // Its claim is gone: the default class is as good a guess as there is, and the pod says if it does not fit.
        shape.storage_class = snapshot::default_storage_class(context).await?.map(|class| class.name_any());
    }
    Ok(Ok(Origin { claim: named, shape, ..Origin::default() }))
}

fn shape(claim: &PersistentVolumeClaim) -> VolumeShape {
    let spec = claim.spec.clone().unwrap_or_default();
    let capacity = claim
        .status
        .as_ref()
        .and_then(|status| status.capacity.as_ref()?.get("storage").and_then(pod::bytes));
    let asked = spec.resources.and_then(|resources| resources.requests?.get("storage").and_then(pod::bytes));
    VolumeShape {
        storage_class: spec.storage_class_name,
        mode: VolumeMode::of(spec.volume_mode.as_deref()),
        size: capacity.or(asked).unwrap_or(0),
    }
}
