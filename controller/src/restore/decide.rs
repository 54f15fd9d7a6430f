//! What comes next for a restore: a pure function of what was observed.

use std::time::Duration;

use carrack_controller_api::{
    DataMoverRestoreStatus as Status, RestorePhase as Phase, condition as conditions, finalizer, reason,
};
use carrack_proto::{JobResult, Outcome, Output};
use jiff::SignedDuration;
use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt as _;

use super::{
    ending::{self, end, fail},
    handover,
    observe::Observed,
};
use crate::{
    access::{self, Access, Resolution},
    condition,
    error::Obstacle,
    figures::{self, signed},
    pod::{self, PodState},
    retry::{self, LATER, PROGRESS, SOON},
};

/// What is done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The finalizer is set.
    Hold,
    /// The temporary volume is claimed.
    Claim,
    /// The mover pod is made.
    Start,
    /// The mover pod is asked to stop; at once if its time is up.
    Stop {
        /// Not to be waited for.
        at_once: bool,
    },
    /// A step of the hand-over.
    HandOver(handover::Step),
    /// What was made is deleted.
    Sweep,
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

/// What comes next for a restore; nothing for one that is somebody else's.
pub(super) fn decide(seen: &Observed) -> Option<Decision> {
    if matches!(seen.resolution, Resolution::Foreign) {
        return None;
    }
    let restore = &seen.restore;
    let mut status = restore.status.clone().unwrap_or_default();
    status.observed_generation = restore.metadata.generation;
    let held = restore.finalizers().iter().any(|found| found == finalizer::CLEAN_UP);
    let deleted = restore.metadata.deletion_timestamp.is_some();
    if deleted && !held {
        return None;
    }
    if status.phase.is_final() {
        return Some(if deleted { ending::leave(seen, status) } else { ending::after(seen, status) });
    }
    if deleted || restore.spec.cancel {
        let why = if deleted { "stopped: the restore was deleted" } else { "stopped on request" };
        if let Some(decision) = ending::stop(seen, &status, why) {
            return Some(decision);
        }
    }
    let mut decision = match status.phase {
        Phase::Pending => begin(seen, status),
        Phase::Running => run(seen, status),
        Phase::Binding => bind(seen, status),
        _ => prepare(seen, status),
    };
    if !held {
        decision.steps.insert(0, Step::Hold);
    }
    Some(decision)
}

/// Waits for type, repository, source, destination and a slot.
fn begin(seen: &Observed, mut status: Status) -> Decision {
    let access = match &seen.resolution {
        Resolution::Ready(access) => access,
        Resolution::Blocked(obstacle) => return blocked(seen, status, obstacle),
        Resolution::Foreign => return Decision::default(),
    };
    if let Err(obstacle) = &seen.source {
        return blocked(seen, status, obstacle);
    }
    if let Some(obstacle) = destination_obstacle(seen) {
        return blocked(seen, status, &obstacle);
    }
    if !seen.slot {
        let message = "waits for a free slot: as many movers run as the DataMoverType allows";
        mark(seen, &mut status, conditions::ACCEPTED, Some(false), reason::QUEUED, message);
        status.message = Some(message.into());
        return Decision { status, again: Some(retry::QUEUE), ..Decision::default() };
    }
    accept(seen, &mut status, access);
    prepare(seen, status)
}

fn accept(seen: &Observed, status: &mut Status, access: &Access) {
    status.data_mover_type = Some(access.mover_type.name_any());
    status.repository = Some(access.repository.clone());
    status.accepted_timestamp = Some(Time(seen.now));
    status.phase = Phase::Preparing;
    status.message = None;
    if let Some(Ok(live)) = &seen.existing {
        status.in_place = Some(true);
        status.volume_name = Some(live.volume.name_any());
    }
    mark(
        seen,
        status,
        conditions::ACCEPTED,
        Some(true),
        reason::SUCCEEDED,
        "type, repository, source, destination and slot are settled",
    );
}

/// Why the destination cannot be filled.
pub(super) fn destination_obstacle(seen: &Observed) -> Option<Obstacle> {
    let spec = &seen.restore.spec;
    let name = &spec.destination_claim_ref.name;
    let own = seen.restore.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(obstacle) =
        access::other_namespace("spec.destinationClaimRef", &spec.destination_claim_ref, own)
    {
        return Some(obstacle);
    }
    match &seen.destination {
        Some(claim) if volume_of(claim).is_some() => in_place_obstacle(seen, name),
        Some(claim) if claim.metadata.deletion_timestamp.is_some() => Some(Obstacle::passing(
            reason::CLAIM_NOT_FOUND,
            format!("PersistentVolumeClaim {name} is being deleted"),
        )),
        Some(_) => None,
        None if spec.new_volume.is_none() => Some(Obstacle::passing(
            reason::CLAIM_NOT_FOUND,
            format!(
                "there is no PersistentVolumeClaim {name}: make it, or say in spec.newVolume how it is to be made"
            ),
        )),
        None => size_obstacle(seen),
    }
}

/// Why a volume that the claim has already cannot be written to.
fn in_place_obstacle(seen: &Observed, name: &str) -> Option<Obstacle> {
    match &seen.existing {
        None => Some(Obstacle::lasting(
            reason::DESTINATION_IN_USE,
            format!(
                "PersistentVolumeClaim {name} is bound to a volume already: restore into a claim that does not exist yet, or say \
                 in spec.existingVolume what is to become of what the volume holds"
            ),
        )),
        Some(Err(obstacle)) => Some(obstacle.clone()),
        Some(Ok(live)) => live.used_by().map(|pods| {
            let message = format!(
                "PersistentVolumeClaim {name} is used by {pods}: stop them, the restore into its volume begins then"
            );
            Obstacle::passing(reason::DESTINATION_IN_USE, message)
        }),
    }
}

/// A claim that is to be made needs a size.
fn size_obstacle(seen: &Observed) -> Option<Obstacle> {
    let asked = seen
        .restore
        .spec
        .new_volume
        .as_ref()
        .and_then(|new| new.resources.as_ref()?.requests.as_ref()?.get("storage").cloned());
    let known = seen.source.as_ref().ok().and_then(|source| source.volume_bytes);
    match (asked.as_ref().map(pod::bytes), known) {
        (Some(Some(asked)), Some(known)) if asked < known && mode_is_block(seen) => Some(Obstacle::lasting(
            reason::INVALID,
            format!(
                "spec.newVolume is {asked} bytes large, the device that was backed up {known}: ask for at least as much"
            ),
        )),
        (Some(Some(_)), _) | (None, Some(_)) => None,
        (Some(None), _) => {
            Some(Obstacle::invalid("spec.newVolume.resources.requests.storage is no quantity"))
        }
        (None, None) => Some(Obstacle::invalid(
            "the size of the volume is not known: give spec.newVolume.resources.requests.storage",
        )),
    }
}

fn mode_is_block(seen: &Observed) -> bool {
    seen.source.as_ref().is_ok_and(|source| source.mode == Some(pod::VolumeMode::Block))
}

pub(super) fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// From the slot until the mover runs.
fn prepare(seen: &Observed, mut status: Status) -> Decision {
    if matches!(seen.pod, PodState::Running { .. } | PodState::Finished { .. } | PodState::Lost(_)) {
        return run(seen, status);
    }
    let access = match &seen.resolution {
        Resolution::Ready(access) => access,
        Resolution::Blocked(obstacle) => {
            status.message = Some(obstacle.message.clone());
            let since = status.accepted_timestamp.as_ref().map_or(seen.now, |time| time.0);
            if !obstacle.may_pass || seen.now.duration_since(since) > SignedDuration::from_mins(30) {
                return fail(seen, status, obstacle);
            }
            return Decision { status, again: Some(LATER), ..Decision::default() };
        }
        Resolution::Foreign => return Decision::default(),
    };
    if let Some(late) =
        retry::too_late(seen.now, status.accepted_timestamp.as_ref(), status.message.as_deref(), access)
    {
        return fail(seen, status, &late);
    }
    if let Err(obstacle) = &seen.source {
        return fail(seen, status, obstacle);
    }
    if let Some(obstacle) = destination_obstacle(seen) {
        return fail(seen, status, &obstacle);
    }
    let waits = retry::waits(seen.now, status.retries, &status.conditions);
    let mut steps = Vec::new();
    if seen.temporary.is_none() {
        steps.push(Step::Claim);
    }
    match &seen.pod {
        PodState::Missing if waits.is_none() => steps.push(Step::Start),
        PodState::Waiting { .. } if seen.misplaced => steps.push(Step::Stop { at_once: true }),
        PodState::Waiting { because: Some(because), avoided, .. } => {
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
            // Nobody can be kept away from a claim; it can be said what they see.
            status.message =
                seen.existing.as_ref().and_then(|found| found.as_ref().ok()?.used_by()).map(|pods| {
                    format!(
                        "{pods} began to use the volume while it is restored: what is there is not whole yet"
                    )
                });
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

/// The mover said how it ended. What it restored goes on its way; what it did not never reaches the claim.
fn finish(seen: &Observed, mut status: Status, result: &JobResult) -> Decision {
    if let Some(Output::Restore(output)) = &result.output {
        status.snapshot_id = Some(output.snapshot.clone()).filter(|id| !id.is_empty());
        status.files = Some(signed(output.files));
        status.restored_bytes = Some(signed(output.bytes));
        status.progress = Some(figures::complete(output.bytes));
    }
    status.skipped = Some(signed(result.problems));
    status.first_skipped = figures::first_problems(result);
    match result.outcome {
        Outcome::Completed | Outcome::Partial if status.in_place == Some(true) => {
            let has_it = matches!(&seen.existing, Some(Ok(live)) if status.volume_name == Some(live.volume.name_any()));
            if has_it {
                return written(seen, status, "the volume of the claim holds what was restored");
            }
            let message = format!(
                "PersistentVolume {} holds what was restored, and is no longer that of the claim: it was deleted or made anew \
                 meanwhile",
                status.volume_name.as_deref().unwrap_or_default()
            );
            end(seen, status, Phase::Failed, reason::CLAIM_NOT_FOUND, &message)
        }
        Outcome::Completed | Outcome::Partial => {
            status.phase = Phase::Binding;
            status.volume_name =
                seen.temporary.as_ref().and_then(volume_of).map(str::to_owned).or(status.volume_name);
            status.message = Some("the volume is full and goes to its claim".into());
            Decision { status, again: Some(Duration::ZERO), ..Decision::default() }
        }
        Outcome::Cancelled => try_again(
            seen,
            status,
            &Obstacle::passing(reason::POD_FAILED, "the mover pod was stopped by somebody else"),
        ),
        Outcome::Failed => {
            let obstacle = pod::failure(result);
            if obstacle.may_pass { try_again(seen, status, &obstacle) } else { fail(seen, status, &obstacle) }
        }
    }
}

/// The full volume goes to its claim, one step each time.
fn bind(seen: &Observed, status: Status) -> Decision {
    match handover::next(seen, &status) {
        handover::Next::Step(step) => {
            Decision { steps: vec![Step::HandOver(step)], status, again: Some(Duration::ZERO) }
        }
        handover::Next::Wait => Decision { status, again: Some(SOON), ..Decision::default() },
        handover::Next::Broken(obstacle) => fail(seen, status, &obstacle),
        handover::Next::Done => written(seen, status, "the claim is bound to the full volume"),
    }
}

/// All of it, or but for what was skipped.
fn written(seen: &Observed, status: Status, words: &str) -> Decision {
    match status.skipped.unwrap_or(0) {
        0 => end(seen, status, Phase::Completed, reason::SUCCEEDED, words),
        skipped => {
            let message = format!("restored, but for {skipped} things: see firstSkipped and the log");
            end(seen, status, Phase::PartiallyCompleted, reason::PARTIAL, &message)
        }
    }
}

/// Another pod goes on, unless there were too many.
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

/// Another mover got the volume at the same moment: it waits, as if it had not been accepted.
pub(super) fn contested(seen: &Observed, obstacle: &Obstacle) -> Decision {
    blocked(seen, seen.restore.status.clone().unwrap_or_default(), obstacle)
}

/// A person must put something right; or nobody can.
fn blocked(seen: &Observed, mut status: Status, obstacle: &Obstacle) -> Decision {
    if !obstacle.may_pass {
        return fail(seen, status, obstacle);
    }
    mark(seen, &mut status, conditions::ACCEPTED, Some(false), obstacle.reason, &obstacle.message);
    status.message = Some(obstacle.message.clone());
    // Whoever stops pods for it waits for it to begin.
    let again = if obstacle.reason == reason::DESTINATION_IN_USE { retry::QUEUE } else { LATER };
    Decision { status, again: Some(again), ..Decision::default() }
}

fn mark(seen: &Observed, status: &mut Status, kind: &str, value: Option<bool>, reason: &str, message: &str) {
    condition::set(
        &mut status.conditions,
        kind,
        value,
        reason,
        message,
        seen.restore.metadata.generation,
        seen.now,
    );
}
