//! What comes next for a backup: a pure function of what was observed.

use std::time::Duration;

use carrack_controller_api::{
    BackupPhase as Phase, BackupType, ChangedBlocksStatus, Consistency, DataMoverBackupStatus as Status,
    condition as conditions, reason,
};
use carrack_proto::{BackupOutput, Changes, JobResult, Outcome, Output, SeenSnapshot};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{
    ending,
    observe::{Observed, Origin},
};
use crate::{
    access::{Access, Resolution},
    bundle::{self, Bundle},
    changes::Base,
    condition,
    error::Obstacle,
    figures::{self, signed},
    pod::{self, PodState},
    retry::{self, LATER, PROGRESS, SOON},
    snapshot,
};

/// What is done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The finalizer is set.
    Hold,
    /// A snapshot of the claim is made.
    MakeSnapshot,
    /// Its handle is lent to Carrack's namespace, and the temporary volume is claimed.
    Expose,
    /// The mover pod is made.
    Start,
    /// The mover pod is asked to stop; at once if its time is up.
    Stop {
        /// Not to be waited for.
        at_once: bool,
    },
    /// What was made is deleted.
    Sweep {
        /// But for the snapshot that the next backup goes by, if it is to stay.
        base: Option<Base>,
    },
    /// The snapshot is remembered as the newest that was seen of the volume, unless there is a newer one.
    Remember(SeenSnapshot),
    /// The snapshot is forgotten in the repository.
    Forget,
    /// It was forgotten there, or may have been, and is not expected there any more.
    Disregard(String),
    /// The finalizer is taken off.
    LetGo,
}

/// What comes next.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    /// What is done.
    pub steps: Vec<Step>,
    /// What is reported then.
    pub status: Status,
    /// When to look again at the latest; never if nothing is said.
    pub again: Option<Duration>,
}

/// What comes next for a backup; nothing for one that is somebody else's.
pub(super) fn decide(seen: &Observed) -> Option<Decision> {
    if matches!(seen.resolution, Resolution::Foreign) {
        return None;
    }
    let backup = &seen.backup;
    let mut status = backup.status.clone().unwrap_or_default();
    status.observed_generation = backup.metadata.generation;
    let held = backup.finalizers().iter().any(|found| found == carrack_controller_api::finalizer::CLEAN_UP);
    if backup.metadata.deletion_timestamp.is_some() {
        return held.then(|| ending::leave(seen, status));
    }
    if status.phase.is_final() {
        return Some(ending::after(seen, status));
    }
    if backup.spec.cancel {
        return Some(cancel(seen, status, "stopped on request"));
    }
    let mut decision = match status.phase {
        Phase::Pending => begin(seen, status),
        Phase::Running => run(seen, status),
        _ => prepare(seen, status),
    };
    if !held {
        decision.steps.insert(0, Step::Hold);
    }
    Some(decision)
}

/// Waits for type, repository, source and a slot.
fn begin(seen: &Observed, mut status: Status) -> Decision {
    let access = match &seen.resolution {
        Resolution::Ready(access) => access,
        Resolution::Blocked(obstacle) => return blocked(seen, status, obstacle),
        Resolution::Foreign => return Decision::default(),
    };
    let origin = match &seen.origin {
        Ok(origin) => origin,
        Err(obstacle) => return blocked(seen, status, obstacle),
    };
    if !seen.slot {
        let message = "waits for a free slot: as many movers run as the DataMoverType allows";
        mark(seen, &mut status, conditions::ACCEPTED, Some(false), reason::QUEUED, message);
        status.message = Some(message.into());
        return Decision { status, again: Some(retry::QUEUE), ..Decision::default() };
    }
    accept(seen, &mut status, access, origin);
    prepare(seen, status)
}

fn accept(seen: &Observed, status: &mut Status, access: &Access, origin: &Origin) {
    status.data_mover_type = Some(access.mover_type.name_any());
    status.repository = Some(access.repository.clone());
    status.repository_id = Some(access.repository_id.clone());
    status.identity = Some(origin.identity.clone());
    status.volume_mode = Some(origin.shape.mode.name().into());
    status.storage_class_name.clone_from(&origin.shape.storage_class);
    status.accepted_timestamp = Some(Time(seen.now));
    status.message = None;
    if origin.live.is_some() {
        status.phase = Phase::Preparing;
        status.consistency = Some(Consistency::Live);
        status.volume_bytes = Some(signed(origin.shape.size));
        let words = "no snapshot can be made of the volume, so it is read itself: each file is of the moment in which it is read";
        mark(seen, status, conditions::CONSISTENT, Some(false), reason::LIVE, words);
    } else {
        status.phase = Phase::Snapshotting;
        status.consistency = Some(Consistency::Snapshot);
    }
    mark(
        seen,
        status,
        conditions::ACCEPTED,
        Some(true),
        reason::SUCCEEDED,
        "type, repository, volume and slot are settled",
    );
}

/// From the slot until the mover runs.
fn prepare(seen: &Observed, mut status: Status) -> Decision {
    match &seen.pod {
        PodState::Running { .. } | PodState::Finished { .. } | PodState::Lost(_) => return run(seen, status),
        PodState::Missing | PodState::Waiting { .. } | PodState::Ending { .. } => {}
    }
    let Resolution::Ready(access) = &seen.resolution else { return hindered(seen, status) };
    if let Some(late) =
        retry::too_late(seen.now, status.accepted_timestamp.as_ref(), status.message.as_deref(), access)
    {
        return fail(seen, status, &late);
    }
    if let Err(obstacle) = &seen.origin
        && !obstacle.may_pass
    {
        return fail(seen, status, obstacle);
    }
    if let Ok(Origin { live: Some(_), .. }) = &seen.origin {
        return start(seen, status, access);
    }
    let soon = Some(retry::soon(seen.now, status.accepted_timestamp.as_ref()));
    let mut steps = Vec::new();
    let Some(snapshot) = &seen.snapshot else {
        if let Err(obstacle) = &seen.origin {
            // It was there when the backup began.
            return fail(seen, status, obstacle);
        }
        steps.push(Step::MakeSnapshot);
        return Decision { steps, status, again: soon };
    };
    // The content is ready some time before its snapshot says so.
    let cut = seen.content.as_ref().and_then(|content| content.status.as_ref());
    let ready = cut.is_some_and(|found| found.ready_to_use == Some(true) && found.snapshot_handle.is_some());
    if !ready {
        let error = snapshot.status.as_ref().and_then(|found| found.error.as_ref()?.message.clone());
        let given = seen.backup.spec.backup_type == BackupType::VolumeSnapshot;
        let words = error.map_or_else(
            || {
                if given {
                    "the snapshot is not ready to use".into()
                } else {
                    "a snapshot of the volume is made".to_owned()
                }
            },
            |error| format!("the snapshot cannot be made yet: {error}"),
        );
        mark(seen, &mut status, conditions::SNAPSHOT_READY, Some(false), reason::IN_PROGRESS, &words);
        status.message = Some(words);
        return Decision { steps, status, again: soon };
    }
    if status.phase == Phase::Snapshotting {
        status.phase = Phase::Preparing;
        status.message = None;
        let claimed = seen.origin.as_ref().ok().map(|origin| origin.shape.size).filter(|&size| size > 0);
        status.volume_bytes = Some(signed(snapshot::size(snapshot, seen.content.as_ref(), claimed)));
        mark(
            seen,
            &mut status,
            conditions::SNAPSHOT_READY,
            Some(true),
            reason::SUCCEEDED,
            "the snapshot can be read",
        );
    }
    start(seen, status, access)
}

/// The temporary volume, the keys, the pod.
fn start(seen: &Observed, mut status: Status, access: &Access) -> Decision {
    let mut steps = vec![Step::Expose];
    let waits = retry::waits(seen.now, status.retries, &status.conditions);
    match (&seen.pod, &seen.bundle) {
        (PodState::Missing, Some(Bundle::Failed(obstacle))) if obstacle.may_pass => {
            status.message = Some(obstacle.message.clone());
            return Decision { steps, status, again: Some(LATER) };
        }
        (PodState::Missing, Some(Bundle::Failed(obstacle))) => return fail(seen, status, obstacle),
        (PodState::Missing, Some(Bundle::Ready(_))) if waits.is_none() => steps.push(Step::Start),
        (PodState::Waiting { .. }, _) if seen.misplaced => steps.push(Step::Stop { at_once: true }),
        (PodState::Waiting { because: Some(because), avoided, .. }, _) => {
            status.message = Some(because.clone());
            if !avoided.is_empty() {
                status.accepted_timestamp =
                    retry::renewed(seen.now, status.accepted_timestamp.take(), access);
            }
        }
        _ => {}
    }
    let soon = retry::soon(seen.now, status.accepted_timestamp.as_ref());
    Decision { steps, status, again: Some(waits.unwrap_or(soon).max(soon)) }
}

/// No node had room for the pod. That is a wait for its turn, and no time-out.
pub(super) fn crowded(seen: &Observed, decision: &mut Decision) {
    let Resolution::Ready(access) = &seen.resolution else { return };
    let status = &mut decision.status;
    status.message = Some(retry::CROWDED.into());
    status.accepted_timestamp = retry::renewed(seen.now, status.accepted_timestamp.take(), access);
    decision.again = Some(retry::QUEUE);
}

/// The mover works, or came to an end.
fn run(seen: &Observed, mut status: Status) -> Decision {
    match &seen.pod {
        PodState::Finished { result, node, started } => {
            status.node.clone_from(node);
            status.start_timestamp = status.start_timestamp.or_else(|| started.map(Time));
            finish(seen, status, result)
        }
        PodState::Running { node, since } => {
            if status.phase != Phase::Running {
                status.phase = Phase::Running;
                status.message = None;
                mark(
                    seen,
                    &mut status,
                    conditions::MOVER_STARTED,
                    Some(true),
                    reason::SUCCEEDED,
                    "the mover runs",
                );
            }
            status.node.clone_from(node);
            status.start_timestamp.get_or_insert(Time(*since));
            if let Some(said) = &seen.progress {
                status.progress = Some(figures::progress(said));
            }
            Decision { status, again: Some(PROGRESS), ..Decision::default() }
        }
        PodState::Lost(lost) => {
            status.node.clone_from(&lost.node);
            // Once more: what else was on the node may have been to blame.
            let hopeless = lost.will_recur && status.retries.is_some_and(|tried| tried > 0);
            let obstacle =
                Obstacle { reason: reason::POD_FAILED, message: lost.message.clone(), may_pass: !hopeless };
            if hopeless { fail(seen, status, &obstacle) } else { try_again(seen, status, &obstacle) }
        }
        PodState::Missing => {
            try_again(seen, status, &Obstacle::passing(reason::POD_FAILED, "the mover pod was deleted"))
        }
        PodState::Ending { deadline } => {
            let at_once = retry::overdue(seen.now, *deadline);
            let steps = if at_once { vec![Step::Stop { at_once }] } else { Vec::new() };
            Decision { steps, status, again: Some(PROGRESS) }
        }
        PodState::Waiting { .. } => Decision { status, again: Some(PROGRESS), ..Decision::default() },
    }
}

/// The mover said how it ended.
fn finish(seen: &Observed, mut status: Status, result: &JobResult) -> Decision {
    let written = match &result.output {
        Some(Output::Backup(output)) => Some(output),
        _ => None,
    };
    if let Some(name) = written.and_then(|output| output.snapshot.as_ref())
        && seen.lineage.as_ref().is_none_or(|lineage| !bundle::is_snapshot_of(lineage, name))
    {
        return fail(seen, status, &disbelieved(name));
    }
    if let Some(output) = written {
        status.snapshot_id.clone_from(&output.snapshot);
        status.logical_bytes = Some(signed(output.logical_bytes));
        status.read_bytes = Some(signed(output.read_bytes));
        status.changed_blocks = output.changes.as_ref().map(changed_blocks);
        status.added_bytes = Some(signed(output.added_bytes));
        status.stored_bytes = Some(signed(output.stored_bytes));
        status.progress = Some(figures::complete(output.logical_bytes));
    }
    status.skipped = Some(signed(result.problems));
    status.first_skipped = figures::first_problems(result);
    // A snapshot that is not there cannot be restored, whatever else was said.
    let snapshot = status.snapshot_id.is_some();
    match result.outcome {
        Outcome::Completed if snapshot => {
            let words = "the volume is in the repository";
            remembered(end(seen, status, Phase::Completed, reason::SUCCEEDED, words), written)
        }
        Outcome::Partial if snapshot => {
            let message = format!(
                "the volume is in the repository, but for {} things: see firstSkipped and the log",
                result.problems
            );
            remembered(end(seen, status, Phase::PartiallyCompleted, reason::PARTIAL, &message), written)
        }
        Outcome::Cancelled => try_again(
            seen,
            status,
            &Obstacle::passing(reason::POD_FAILED, "the mover pod was stopped by somebody else"),
        ),
        _ => {
            let obstacle = pod::failure(result);
            if obstacle.may_pass { try_again(seen, status, &obstacle) } else { fail(seen, status, &obstacle) }
        }
    }
}

/// Restores would read the snapshot that the status names, and a backup that is deleted forgets it, with a key that may
/// forget any: whoever has taken over a mover must not have it name that of another volume.
fn disbelieved(name: &str) -> Obstacle {
    let name: String = name.chars().take(80).collect();
    let message = format!(
        "the mover says that it wrote snapshot {name:?}, and with the keys that it was given it can write none of that name: \
         somebody may have taken it over, and nothing that it says is believed"
    );
    Obstacle::lasting(reason::MOVER_FAILED, message)
}

/// Before the end is told: after that nobody looks at what the mover said.
fn remembered(decision: Decision, written: Option<&BackupOutput>) -> Decision {
    let seen = written.and_then(|output| {
        Some(SeenSnapshot { snapshot: output.snapshot.clone()?, started: output.started? })
    });
    Decision { steps: seen.map(Step::Remember).into_iter().collect(), ..decision }
}

fn changed_blocks(told: &Changes) -> ChangedBlocksStatus {
    match told {
        Changes::Listed { bytes } => ChangedBlocksStatus { bytes: Some(signed(*bytes)), unknown: None },
        Changes::Unknown { because } => ChangedBlocksStatus { bytes: None, unknown: Some(because.clone()) },
    }
}

/// Another pod goes on where the last one was, unless there were too many.
fn try_again(seen: &Observed, mut status: Status, why: &Obstacle) -> Decision {
    let tried = status.retries.unwrap_or(0);
    if tried >= retry::LIMIT {
        let message = format!("{}; given up after {} tries", why.message, tried + 1);
        return fail(seen, status, &Obstacle::lasting(why.reason, message));
    }
    status.retries = Some(tried + 1);
    status.host_users = status.host_users.or(pod::needs_host_users(&seen.pod).then_some(true));
    status.phase = Phase::Preparing;
    status.message = Some(format!("{}; tried again", why.message));
    // What is still to be prepared has its time anew.
    status.accepted_timestamp = Some(Time(seen.now));
    status.conditions.retain(|found| found.type_ != conditions::MOVER_STARTED);
    mark(seen, &mut status, conditions::MOVER_STARTED, Some(false), why.reason, &why.message);
    Decision { steps: vec![Step::Stop { at_once: false }], status, again: Some(SOON) }
}

/// What was there when the backup began is not there now.
fn hindered(seen: &Observed, mut status: Status) -> Decision {
    if let Resolution::Blocked(obstacle) = &seen.resolution {
        let since = status.accepted_timestamp.as_ref().map_or(seen.now, |time| time.0);
        if !obstacle.may_pass || seen.now.duration_since(since) > SignedDuration::from_mins(30) {
            return fail(seen, status, obstacle);
        }
        status.message = Some(obstacle.message.clone());
    }
    Decision { status, again: Some(LATER), ..Decision::default() }
}

/// Another mover got the volume at the same moment: it waits, as if it had not been accepted.
pub(super) fn contested(seen: &Observed, obstacle: &Obstacle) -> Decision {
    blocked(seen, seen.backup.status.clone().unwrap_or_default(), obstacle)
}

/// A person must put something right; or nobody can.
fn blocked(seen: &Observed, mut status: Status, obstacle: &Obstacle) -> Decision {
    if !obstacle.may_pass {
        return fail(seen, status, obstacle);
    }
    mark(seen, &mut status, conditions::ACCEPTED, Some(false), obstacle.reason, &obstacle.message);
    status.message = Some(obstacle.message.clone());
    // Whoever stops pods for it waits for it to begin.
    let again = if obstacle.reason == reason::SOURCE_IN_USE { retry::QUEUE } else { LATER };
    Decision { status, again: Some(again), ..Decision::default() }
}

/// It is to stop: first the pod, then all.
pub(super) fn cancel(seen: &Observed, mut status: Status, why: &str) -> Decision {
    if seen.pod.is_alive() {
        let at_once =
            matches!(&seen.pod, PodState::Ending { deadline } if retry::overdue(seen.now, *deadline));
        let ending = matches!(seen.pod, PodState::Ending { .. });
        let steps = if at_once || !ending { vec![Step::Stop { at_once }] } else { Vec::new() };
        status.phase = Phase::Canceling;
        status.message = Some("the mover is asked to stop".into());
        return Decision { steps, status, again: Some(PROGRESS) };
    }
    // It may have been quicker.
    if let PodState::Finished { result, .. } = &seen.pod
        && matches!(result.outcome, Outcome::Completed | Outcome::Partial)
    {
        return finish(seen, status, result);
    }
    end(seen, status, Phase::Canceled, reason::CANCELED, why)
}

fn fail(seen: &Observed, status: Status, obstacle: &Obstacle) -> Decision {
    end(seen, status, Phase::Failed, obstacle.reason, &obstacle.message)
}

/// The end is reported before anything is deleted: what was written must not be forgotten.
fn end(seen: &Observed, mut status: Status, phase: Phase, reason: &str, message: &str) -> Decision {
    status.phase = phase;
    status.message = Some(message.to_owned());
    status.completion_timestamp = Some(Time(seen.now));
    let good = matches!(phase, Phase::Completed | Phase::PartiallyCompleted);
    let generation = seen.backup.metadata.generation;
    condition::ended(&mut status.conditions, good, reason, message, generation, seen.now);
    Decision { steps: Vec::new(), status, again: Some(Duration::ZERO) }
}

pub(super) fn mark(
    seen: &Observed,
    status: &mut Status,
    kind: &str,
    value: Option<bool>,
    reason: &str,
    message: &str,
) {
    condition::set(
        &mut status.conditions,
        kind,
        value,
        reason,
        message,
        seen.backup.metadata.generation,
        seen.now,
    );
}
