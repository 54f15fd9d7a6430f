//! What there is in the cluster of a restore.

use carrack_controller_api::{DataMoverBackup, DataMoverRestore, ExistingVolume, RestorePhase, reason};
use carrack_proto::Progress;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt as _};

use crate::{
    access::{self, Resolution},
    context::Context,
    error::{Obstacle, Result},
    live::{self, Live},
    objects, placement,
    pod::{self, Owner, PodState, VolumeMode},
    slots,
};

/// What there is of a restore.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// When it was looked at.
    pub now: Timestamp,
    /// The request.
    pub restore: DataMoverRestore,
    /// Whose it is, and what it may use.
    pub resolution: Resolution,
    /// What is restored; looked at only until it runs.
    pub source: Result<Source, Obstacle>,
    /// The claim that is to be filled.
    pub destination: Option<PersistentVolumeClaim>,
    /// The volume that the claim is bound to, if the restore is to go into it.
    pub existing: Option<Result<Live, Obstacle>>,
    /// The claim of the volume that is filled.
    pub temporary: Option<PersistentVolumeClaim>,
    /// That volume.
    pub volume: Option<PersistentVolume>,
    /// The mover pod of this try.
    pub pod: PodState,
    /// What it said last.
    pub progress: Option<Progress>,
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

/// What is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// A snapshot, or `latest`.
    pub snapshot: String,
    /// Whose latest is meant.
    pub host: Option<String>,
    /// The newest no later than this.
    pub as_of: Option<Timestamp>,
    /// How many before that.
    pub previous: Option<u32>,
    /// Size of the volume that was backed up.
    pub volume_bytes: Option<u64>,
    /// Whether it had a file system.
    pub mode: Option<VolumeMode>,
}

/// Name of everything that is made for a restore.
pub(super) fn name(owner: &Owner) -> String {
    format!("restore-{}", owner.uid)
}

/// Name of the pod of this try.
pub(super) fn pod_name(owner: &Owner, retries: u32) -> String {
    format!("restore-{}-{retries}", owner.uid)
}

/// Looks at everything that matters in the phase that the restore is in.
pub(super) async fn observe(context: &Context, restore: &DataMoverRestore) -> Result<Observed> {
    let owner = Owner::of(restore);
    let status = restore.status.clone().unwrap_or_default();
    let named = status.data_mover_type.as_deref().or(restore.spec.data_mover_type.as_deref());
    let mut seen = Observed {
        now: context.now(),
        restore: restore.clone(),
        resolution: access::resolve(context, &owner.namespace, named).await?,
        source: Ok(Source::default()),
        destination: None,
        existing: None,
        temporary: None,
        volume: None,
        pod: PodState::Missing,
        progress: None,
        slot: false,
        crowded: false,
        contested: None,
        misplaced: false,
        clean: false,
    };
    if matches!(seen.resolution, Resolution::Foreign) {
        return Ok(seen);
    }
    let namespace = &context.settings.namespace;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let this = pod_name(&owner, status.retries.unwrap_or(0));
    seen.pod = PodState::of(objects::find(&pods, &this).await?.as_ref());
    if status.phase.is_final() {
        return Ok(seen);
    }
    if let PodState::Running { .. } = seen.pod {
        seen.progress = pod::progress(&pods, &this).await;
    }
    let destinations: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &owner.namespace);
    seen.destination = objects::find(&destinations, &restore.spec.destination_claim_ref.name).await?;
    let temporary: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    seen.temporary = objects::find(&temporary, &name(&owner)).await?;
    let bound = seen.temporary.as_ref().and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
    if let Some(volume) = bound.or_else(|| status.volume_name.clone()) {
        seen.volume = objects::find(&Api::all(context.client.clone()), &volume).await?;
    }
    let in_place = status.in_place == Some(true)
        || (status.phase == RestorePhase::Pending && restore.spec.existing_volume != ExistingVolume::Refuse);
    if let Some(claim) = seen.destination.as_ref().filter(|_| in_place)
        && let Some(volume) = super::decide::volume_of(claim)
    {
        let mut found = match live::volume_of(context, claim, volume).await? {
            Ok(volume) => Live::of(context, &owner.namespace, &claim.name_any(), volume).await?,
            Err(obstacle) => Err(obstacle),
        };
        if let Ok(live) = &found
            && status.phase == RestorePhase::Pending
            && let Some(obstacle) = live.taken(context, &owner).await?
        {
            found = Err(obstacle);
        }
        seen.existing = Some(found);
    }
    if status.phase <= RestorePhase::Preparing {
        seen.source = source(context, &owner, &seen).await?;
    }
    seen.misplaced = placement::is_outdated(context, &seen.pod, &seen.resolution).await?;
    seen.slot = slot(context, &seen, status.phase).await?;
    Ok(seen)
}

/// Who is under way has a slot; who could begin asks for one.
async fn slot(context: &Context, seen: &Observed, phase: RestorePhase) -> Result<bool> {
    let Resolution::Ready(access) = &seen.resolution else { return Ok(phase != RestorePhase::Pending) };
    let (request, mover_type) = (slots::request(&seen.restore), access.mover_type.name_any());
    if phase != RestorePhase::Pending {
        context.slots.occupy(&request, &mover_type);
        return Ok(true);
    }
    if seen.source.is_err() || super::decide::destination_obstacle(seen).is_some() {
        return Ok(false);
    }
    let nodes = placement::nodes(context).await?.len();
    Ok(context.slots.take(&request, &mover_type, access.mover_type.spec.concurrency, nodes))
}

/// What the request means by its source.
async fn source(context: &Context, owner: &Owner, seen: &Observed) -> Result<Result<Source, Obstacle>> {
    let wanted = &seen.restore.spec.source;
    if let Some(snapshot) = &wanted.snapshot_id {
        return Ok(Ok(Source { snapshot: snapshot.clone(), ..Source::default() }));
    }
    if let Some(identity) = &wanted.identity {
        let cluster = identity.cluster.as_deref().unwrap_or(&context.cluster);
        let namespace = identity.namespace.as_deref().unwrap_or(&owner.namespace);
        return Ok(Ok(Source {
            snapshot: "latest".into(),
            host: Some(format!("{cluster}/{namespace}/{}", identity.claim)),
            as_of: identity.as_of.as_ref().map(|time| time.0),
            previous: identity.previous,
            ..Source::default()
        }));
    }
    let Some(name) = &wanted.backup else {
        return Ok(Err(Obstacle::invalid("spec.source names nothing: give backup, snapshotID or identity")));
    };
    let backups: Api<DataMoverBackup> = Api::namespaced(context.client.clone(), &owner.namespace);
    let Some(backup) = objects::find(&backups, name).await? else {
        let message =
            format!("there is no DataMoverBackup {}/{name}: make it, or name another", owner.namespace);
        return Ok(Err(Obstacle::passing(reason::SOURCE_NOT_FOUND, message)));
    };
    let repository = match &seen.resolution {
        Resolution::Ready(access) => Some(&access.repository_id),
        _ => None,
    };
    Ok(of_backup(&backup, repository))
}

/// A backup that can be restored, or why not.
fn of_backup(backup: &DataMoverBackup, repository: Option<&String>) -> Result<Source, Obstacle> {
    let (name, status) = (backup.name_any(), backup.status.clone().unwrap_or_default());
    let Some(snapshot) = status.snapshot_id else {
        let phase = status.phase;
        let message = format!("DataMoverBackup {name} wrote no snapshot yet: it is {phase:?}");
        return Err(Obstacle { reason: reason::SOURCE_NOT_FOUND, message, may_pass: !phase.is_final() });
    };
    if let Some(expected) =
        repository.filter(|&id| status.repository_id.as_ref().is_some_and(|found| found != id))
    {
        let kept = status.repository_id.unwrap_or_default();
        let message = format!(
            "DataMoverBackup {name} is in repository {kept}, the one of the DataMoverType is {expected}: name the type that \
             the backup was made with"
        );
        return Err(Obstacle::lasting(reason::SOURCE_NOT_FOUND, message));
    }
    Ok(Source {
        snapshot,
        volume_bytes: status.volume_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        mode: Some(VolumeMode::of(status.volume_mode.as_deref())),
        ..Source::default()
    })
}
