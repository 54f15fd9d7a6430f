//! Maintenance on a schedule: forget by rules, free what nobody needs, check.

use std::time::Duration;

use carrack_controller_api::{Maintenance, RepositoryStatus, condition as conditions, reason};
use carrack_proto::{JobResult, MaintainTask, Outcome, Output, Task};
use jiff::Timestamp;
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
    let good = status.last_maintenance.as_ref().map(|time| time.0);
    let last = good.into_iter().chain(told_at(status)).max().unwrap_or(made);
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
    if is_told(status, pod) {
        return leave(work, status, pod).await;
    }
    // Its end is told here, and it is left at the next look. That is not at once: while a clock that went back catches up, it
    // stays untold.
    match work.run(pod, "maintain", task).await? {
        Run::Working(_) => {}
        Run::Ended(result, _) => settle(work, status, &result),
        Run::Lost(message, _) => report(work, status, false, &Obstacle::passing(reason::POD_FAILED, message)),
    }
    Ok(WORKING)
}

/// When the last turn was told of, if any was.
fn told_at(status: &RepositoryStatus) -> Option<Timestamp> {
    let told = status.conditions.iter().find(|found| found.type_ == conditions::MAINTAINED);
    told.map(|found| found.last_transition_time.0)
}

/// Whether the end of this turn is told: what is told of the turn before it is older than the time at which this one was due.
fn is_told(status: &RepositoryStatus, pod: &str) -> bool {
    let due: Option<i64> = pod.rsplit('-').next().and_then(|due| due.parse().ok());
    told_at(status).is_some_and(|told| due.is_none_or(|due| told.as_second() >= due))
}

/// What it did not find is expected no more, and its pod goes. Not before its end is told and written: it stops once only, and
/// that must reach people whatever becomes of this controller.
async fn leave(work: &Work<'_>, status: &mut RepositoryStatus, pod: &str) -> Result<Duration> {
    if let (Some(id), Some(Output::Maintain(output))) = (work.id(), work.said(pod).await?) {
        memory::forget_gone(work.context, id, &output).await?;
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

#[cfg(test)]
mod tests {
    use carrack_controller_api::{ClusterRepository, annotation, label};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        access::{SecretData, Settled},
        fake::Fake,
        pod::Owner,
    };

    const POD: &str = "maintain-uid-1764600000";
    const POD_PATH: &str = "/api/v1/namespaces/carrack/pods/maintain-uid-1764600000";
    const KEYS_PATH: &str = "/api/v1/namespaces/carrack/secrets/bundle-of-goods";

    /// Maintenance that has stopped because a snapshot is gone, and the keys of its volume.
    fn put_stopped(fake: &Fake) {
        let said = json!({ "version": 1, "outcome": "failed", "exitCode": 11, "message": "it is gone",
            "output": { "maintain": { "forgotten": 0, "freedBytes": 0, "repositoryBytes": null,
                "checkedSnapshots": 0, "damagedObjects": 0, "gone": 1, "firstGone": ["b01-02"] } } });
        let ended =
            json!({ "exitCode": 11, "message": said.to_string(), "finishedAt": "2026-11-29T12:00:00Z" });
        let container = json!({ "name": "mover", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "terminated": ended } });
        fake.put(
            POD_PATH,
            json!({ "metadata": { "name": POD, "namespace": "carrack", "uid": "pod" },
                "status": { "phase": "Failed", "containerStatuses": [container] } }),
        );
        fake.put(
            KEYS_PATH,
            json!({ "metadata": { "name": "bundle-of-goods", "namespace": "carrack",
                "labels": { label::REPOSITORY_ID: "id" },
                "annotations": { annotation::LAST_SEEN: "b01-02 2026-11-28T12:00:00Z" } } }),
        );
    }

    #[tokio::test]
    async fn what_is_gone_is_expected_until_people_were_told_of_it() {
        let fake = Fake::default();
        let context = fake.context().await;
        put_stopped(&fake);
        let repository: ClusterRepository = serde_json::from_value(json!({
            "metadata": { "name": "main", "uid": "uid" },
            "spec": { "location": { "url": "s3://bucket" }, "keySecret": { "name": "key", "namespace": "carrack" } },
            "status": { "id": "id", "maintenancePod": POD },
        }))
        .expect("an object");
        let (owner, settled) = (Owner::of(&repository), Settled::from(&repository));
        let credentials = SecretData::new();
        let key = credentials.clone();
        let work = Work { context: &context, owner: &owner, settled: &settled, credentials, key };
        let expected = || fake.get(KEYS_PATH)["metadata"]["annotations"][annotation::LAST_SEEN].clone();
        let mut status = settled.status.clone().expect("a status");
        // The first report is lost: somebody else wrote at that moment.
        for _ in 0..2 {
            status = settled.status.clone().expect("a status");
            let again = step(&work, &repository, &mut status).await.expect("it is looked at");
            assert_eq!((again, status.maintenance_pod.as_deref()), (WORKING, Some(POD)));
            let told = &status.conditions[0];
            assert!(told.status == "False" && told.message.contains("it is gone"), "{told:?}");
            assert_ne!(expected(), Value::Null, "nobody was told");
            assert_ne!(fake.get(POD_PATH), Value::Null);
        }
        step(&work, &repository, &mut status).await.expect("it is looked at");
        assert_eq!((status.maintenance_pod, expected()), (None, Value::Null));
        assert_eq!((fake.get(POD_PATH), status.conditions.len()), (Value::Null, 1));
    }

    #[test]
    fn what_was_told_of_the_turn_before_says_nothing_of_this_one() {
        let mut status = RepositoryStatus::default();
        assert!(!is_told(&status, POD));
        for (second, told) in [(1_764_599_999, false), (1_764_600_000, true), (1_764_600_001, true)] {
            let at = Timestamp::from_second(second).expect("a time");
            status.conditions.clear();
            condition::set(&mut status.conditions, conditions::MAINTAINED, Some(true), "", "", None, at);
            assert_eq!(is_told(&status, POD), told, "{second}");
        }
    }
}
