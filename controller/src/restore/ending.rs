//! How a restore ends or is stopped, and what comes after: what was made for it goes, and it is let go when it is deleted.

use std::time::Duration;

use carrack_controller_api::{
    DataMoverRestoreStatus as Status, RestorePhase as Phase, condition as conditions, reason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    decide::{Decision, Step},
    handover::{self, Next},
    observe::Observed,
};
use crate::{
    condition,
    error::Obstacle,
    pod::PodState,
    retry::{self, PROGRESS, SOON},
};

/// It is to stop; nothing if it is too late for that. A volume that its claim has, or is about to get, arrives: half a hand-over
/// helps nobody.
pub(super) fn stop(seen: &Observed, status: &Status, why: &str) -> Option<Decision> {
    if status.phase == Phase::Binding {
        match handover::withdraw(seen) {
            Next::Step(step) => {
                let (steps, status) = (vec![Step::HandOver(step)], status.clone());
                return Some(Decision { steps, status, again: Some(Duration::ZERO) });
            }
            Next::Done => {}
            Next::Wait | Next::Broken(_) => return None,
        }
    }
    Some(cancel(seen, status.clone(), why))
}

/// First the pod, then all.
fn cancel(seen: &Observed, mut status: Status, why: &str) -> Decision {
    if seen.pod.is_alive() {
        let at_once =
            matches!(&seen.pod, PodState::Ending { deadline } if retry::overdue(seen.now, *deadline));
        let ending = matches!(seen.pod, PodState::Ending { .. });
        let steps = if at_once || !ending { vec![Step::Stop { at_once }] } else { Vec::new() };
        status.phase = Phase::Canceling;
        status.message = Some("the mover is asked to stop".into());
        return Decision { steps, status, again: Some(PROGRESS) };
    }
    let message = format!("{why}{}", half_written(&status).unwrap_or_default());
    if status.in_place != Some(true) {
        // What is named in the status is spared.
        status.volume_name = None;
    }
    end(seen, status, Phase::Canceled, reason::CANCELED, &message)
}

/// What is left in a volume that was the claim's before, if a mover began to write.
fn half_written(status: &Status) -> Option<String> {
    let began = status.in_place == Some(true) && status.start_timestamp.is_some();
    began.then(|| {
        let volume = status.volume_name.clone().unwrap_or_default();
        format!("; PersistentVolume {volume} holds a part of it: restore again before it is used")
    })
}

pub(super) fn fail(seen: &Observed, mut status: Status, obstacle: &Obstacle) -> Decision {
    let mut message = obstacle.message.clone();
    if status.phase == Phase::Binding {
        let kept = status.volume_name.clone().unwrap_or_default();
        message = format!("{message}; what was restored stays in PersistentVolume {kept}");
    } else if status.in_place == Some(true) {
        message.push_str(&half_written(&status).unwrap_or_default());
    } else {
        status.volume_name = None;
    }
    end(seen, status, Phase::Failed, obstacle.reason, &message)
}

/// The end is reported before anything is deleted.
pub(super) fn end(
    seen: &Observed,
    mut status: Status,
    phase: Phase,
    reason: &str,
    message: &str,
) -> Decision {
    status.phase = phase;
    status.message = Some(message.to_owned());
    status.completion_timestamp = Some(Time(seen.now));
    let good = matches!(phase, Phase::Completed | Phase::PartiallyCompleted);
    let generation = seen.restore.metadata.generation;
    condition::ended(&mut status.conditions, good, reason, message, generation, seen.now);
    Decision { steps: Vec::new(), status, again: Some(Duration::ZERO) }
}

/// After its end: what was made for it goes.
pub(super) fn after(seen: &Observed, mut status: Status) -> Decision {
    if condition::is_true(&status.conditions, conditions::CLEANED_UP) {
        return Decision { status, ..Decision::default() };
    }
    if seen.clean {
        condition::cleaned(&mut status.conditions, seen.restore.metadata.generation, seen.now);
        return Decision { status, ..Decision::default() };
    }
    Decision { steps: vec![Step::Sweep], status, again: Some(SOON) }
}

/// It is deleted: cleaned up, then let go.
pub(super) fn leave(seen: &Observed, status: Status) -> Decision {
    let step = if seen.clean { Step::LetGo } else { Step::Sweep };
    Decision { steps: vec![step], status, again: Some(SOON) }
}
