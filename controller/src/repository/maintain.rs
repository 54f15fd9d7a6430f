//! Maintenance on a schedule: forget by rules, free what nobody needs, check.

use std::time::Duration;

use carrack_controller_api::{Maintenance, RepositoryStatus, condition as conditions, reason};
use carrack_proto::{JobResult, MaintainTask, Outcome, Output, Task};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{
    AnyRepository, WORKING,
    connect::{Run, Work},
    schedule,
};
use crate::{
    condition,
    error::{Obstacle, Result},
    figures::signed,
    memory, pod,
};

/// Starts what is due, looks at what runs; says when to look again.
pub(super) async fn step<R: AnyRepository>(
    work: &Work<'_>,
    repository: &R,
    status: &mut RepositoryStatus,
) -> Result<Duration> {
    let settings = repository.maintenance();
    if let Some(pod) = status.maintenance_pod.clone() {
        return look_at(work, settings, status, &pod).await;
    }
    let Some(cron) = settings.schedule.as_ref().filter(|_| !settings.suspend) else {
        return Ok(Duration::MAX);
    };
    let now = work.context.now();
    let made = repository.creation_timestamp().map_or(now, |time| time.0);
    // A failure waits for its next turn, as a success does.
    let tried = status
        .conditions
        .iter()
        .find(|found| found.type_ == conditions::MAINTAINED)
        .map(|found| found.last_transition_time.0);
    let last =
        status.last_maintenance.as_ref().map(|time| time.0).into_iter().chain(tried).max().unwrap_or(made);
    let due = match schedule::next(cron, last) {
        Ok(due) => due,
        Err(obstacle) => {
            report(work, status, false, &obstacle);
            return Ok(Duration::MAX);
        }
    };
    if due > now {
        return Ok(due.duration_since(now).unsigned_abs());
    }
    // It is named before it is made: whatever becomes of schedule and settings, what was begun is brought to its end.
    status.maintenance_pod = Some(format!("maintain-{}-{}", work.owner.uid, due.as_second()));
    Ok(Duration::ZERO)
}

/// Starts the pod, or looks at how far it is.
async fn look_at(
    work: &Work<'_>,
    settings: &Maintenance,
    status: &mut RepositoryStatus,
    pod: &str,
) -> Result<Duration> {
    let task = || {
        Task::Maintain(MaintainTask {
            keep: settings.keep.to_options(),
            prune: true,
            check_percent: Some(settings.check_percent),
        })
    };
    match work.run(pod, "maintain", task).await? {
        Run::Working(_) => return Ok(WORKING),
        Run::Ended(result, _) => {
            if let (Some(id), Some(Output::Maintain(output))) = (work.id(), &result.output) {
                memory::forget_gone(work.context, id, output).await?;
            }
            settle(work, status, &result);
        }
        Run::Lost(message, _) => report(work, status, false, &Obstacle::passing(reason::POD_FAILED, message)),
    }
    pod::clean_up(work.context, pod).await?;
    status.maintenance_pod = None;
    Ok(WORKING)
}

fn settle(work: &Work<'_>, status: &mut RepositoryStatus, result: &JobResult) {
    let Some(Output::Maintain(output)) = &result.output else {
        return report(work, status, false, &pod::failure(result));
    };
    if let Some(bytes) = output.repository_bytes {
        status.stored_bytes = Some(signed(bytes));
    }
    if result.outcome != Outcome::Completed {
        return report(work, status, false, &pod::failure(result));
    }
    let now = Some(Time(work.context.now()));
    status.last_maintenance.clone_from(&now);
    status.last_check = now;
    let words = format!(
        "{} snapshots forgotten, {} bytes freed, {} snapshots checked",
        output.forgotten, output.freed_bytes, output.checked_snapshots
    );
    report(work, status, true, &Obstacle::passing(reason::SUCCEEDED, words));
}

/// Whatever came of it, its time is now: the next turn is counted from here.
fn report(work: &Work<'_>, status: &mut RepositoryStatus, good: bool, what: &Obstacle) {
    status.conditions.retain(|found| found.type_ != conditions::MAINTAINED);
    let (generation, now) = (status.observed_generation, work.context.now());
    condition::set(
        &mut status.conditions,
        conditions::MAINTAINED,
        Some(good),
        what.reason,
        &what.message,
        generation,
        now,
    );
}
