//! What comes after the end of a backup: what was made for it goes, and it is let go when it is deleted.

use std::time::Duration;

use carrack_controller_api::{
    BackupPhase as Phase, BackupType, DataMoverBackupStatus as Status, DeletionPolicy,
    condition as conditions, reason,
};
use carrack_proto::{Outcome, Output};

use super::{
    decide::{Decision, Step, cancel, mark},
    observe::Observed,
};
use crate::{
    access::Resolution,
    changes::Base,
    condition,
    pod::{PodState, VolumeMode},
    retry::{PROGRESS, SOON},
};

/// After its end: what was made for it goes.
pub(super) fn after(seen: &Observed, mut status: Status) -> Decision {
    if condition::is_true(&status.conditions, conditions::CLEANED_UP) {
        return Decision { status, ..Decision::default() };
    }
    if seen.clean {
        condition::cleaned(&mut status.conditions, seen.backup.metadata.generation, seen.now);
        return Decision { status, ..Decision::default() };
    }
    Decision { steps: vec![Step::Sweep { base: base(seen, &status) }], status, again: Some(SOON) }
}

/// After the end of a backup of a raw block volume: whether its snapshot stays for the driver to compare the next one with.
fn base(seen: &Observed, status: &Status) -> Option<Base> {
    let spec = &seen.backup.spec;
    let block = VolumeMode::of(status.volume_mode.as_deref()) == VolumeMode::Block;
    let written = matches!(status.phase, Phase::Completed | Phase::PartiallyCompleted);
    (block && written && spec.backup_type == BackupType::Claim).then(|| Base {
        claim: spec.source_claim_ref.name.clone(),
        repository: status.repository_id.clone().unwrap_or_default(),
        // Only what was read whole is something to go by.
        kept: status.phase == Phase::Completed && status.changed_blocks.is_some(),
    })
}

/// It is deleted: stopped first, then cleaned up, then let go.
pub(super) fn leave(seen: &Observed, status: Status) -> Decision {
    if !status.phase.is_final() {
        return cancel(seen, status, "stopped: the backup was deleted");
    }
    let known = status.conditions.iter().any(|found| found.type_ == conditions::FORGOTTEN);
    if seen.backup.spec.deletion_policy == DeletionPolicy::Delete && status.snapshot_id.is_some() && !known {
        return forget(seen, status);
    }
    let step = if seen.clean { Step::LetGo } else { Step::Sweep { base: base(seen, &status) } };
    Decision { steps: vec![step], status, again: Some(SOON) }
}

/// The snapshot goes before the rest does: what forgets it is a pod of this backup too. A repository that is gone must not
/// hold the backup for ever.
fn forget(seen: &Observed, mut status: Status) -> Decision {
    let stays = match &seen.resolution {
        Resolution::Ready(access) if status.repository_id.as_ref() == Some(&access.repository_id) => None,
        _ => Some("its repository is not that of the mover type any more, or not ready"),
    };
    // One that went although its pod failed, or may have gone with it, is no news either.
    let (done, gone, why) = match (&seen.forgets, stays) {
        (_, Some(why)) => (false, false, why.to_owned()),
        (PodState::Missing, None) => {
            return Decision { steps: vec![Step::Forget], status, again: Some(PROGRESS) };
        }
        (PodState::Finished { result, .. }, None) => {
            let went = matches!(&result.output, Some(Output::Forget { forgotten: 1.. }));
            let done = result.outcome == Outcome::Completed;
            (done, done || went, result.message.clone())
        }
        (PodState::Lost(lost), None) => (false, true, lost.message.clone()),
        (PodState::Waiting { .. } | PodState::Running { .. } | PodState::Ending { .. }, None) => {
            return Decision { status, again: Some(PROGRESS), ..Decision::default() };
        }
    };
    let reason = if done { reason::SUCCEEDED } else { reason::MOVER_FAILED };
    let message = if done {
        "the snapshot is forgotten".to_owned()
    } else {
        format!("the snapshot stays until the rules of the repository forget it: {why}")
    };
    mark(seen, &mut status, conditions::FORGOTTEN, Some(done), reason, &message);
    status.message = Some(message);
    let steps = status.snapshot_id.clone().filter(|_| gone).map(Step::Disregard).into_iter().collect();
    Decision { steps, status, again: Some(Duration::ZERO) }
}
