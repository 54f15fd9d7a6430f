//! `DataMoverBackup`: observe, decide, apply, report.

mod apply;
mod decide;
mod ending;
mod forget;
mod observe;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use carrack_controller_api::{BackupPhase, DataMoverBackup, DataMoverBackupStatus};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    runtime::{Controller, controller::Action, watcher},
};

use crate::{
    condition,
    context::Context,
    error::{Error, Result},
    metrics::{Ended, Volume},
    objects, owners, retry, slots,
};

/// How long after a failure of our own a backup is looked at again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Works on backups until the stream is dropped.
pub fn controller(context: &Context) -> impl Stream<Item = ()> + use<> {
    let backups: Api<DataMoverBackup> = Api::all(context.client.clone());
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let slots = context.slots.clone();
    Controller::new(backups, watcher::Config::default())
        .watches(pods, owners::watched("datamoverbackup"), owners::of_pod)
        .run(reconcile, failed, Arc::new(context.clone()))
        .map(move |looked| slots.miss(looked))
}

fn failed(_backup: Arc<DataMoverBackup>, error: &Error, _context: Arc<Context>) -> Action {
    if error.is_conflict() {
        tracing::debug!(%error, "a backup was changed meanwhile, it is looked at again");
        return Action::requeue(retry::SOON);
    }
    tracing::warn!(%error, "a backup could not be looked after, it is looked at again");
    Action::requeue(AFTER_FAILURE)
}

async fn reconcile(backup: Arc<DataMoverBackup>, context: Arc<Context>) -> Result<Action> {
    if let Some(status) = &backup.status
        && condition::rests(&backup.metadata, &status.conditions, status.observed_generation)
    {
        remember(&context, &backup, status);
        return Ok(Action::await_change());
    }
    let api: Api<DataMoverBackup> =
        Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    // What the watch shows may be older than what we wrote ourselves, and a step must not be taken twice.
    let Some(mut backup) = objects::find(&api, &backup.name_any()).await? else {
        context.slots.release(&slots::request(&*backup));
        return Ok(Action::await_change());
    };
    if backup.status.as_ref().is_some_and(|status| status.phase.is_final()) {
        context.slots.release(&slots::request(&backup));
    }
    let decision = match step(&context, &mut backup).await {
        Ok(Some(decision)) => decision,
        Ok(None) => {
            context.slots.release(&slots::request(&backup));
            return Ok(Action::await_change());
        }
        Err(error) => refused(&context, &backup, error)?,
    };
    report(&context, &api, &backup, &decision).await?;
    Ok(decision.again.map_or_else(Action::await_change, Action::requeue))
}

/// Looks, decides, and does; nothing for what is somebody else's.
async fn step(context: &Context, backup: &mut DataMoverBackup) -> Result<Option<decide::Decision>> {
    let mut seen = observe::observe(context, backup).await?;
    let Some(mut decision) = decide::decide(&seen) else { return Ok(None) };
    apply::apply(context, &mut seen, &decision).await?;
    if seen.crowded {
        decide::crowded(&seen, &mut decision);
    }
    if let Some(obstacle) = &seen.contested {
        decision = decide::contested(&seen, obstacle);
        give_way(context, backup);
    }
    if seen.clean
        && let Some(next) = decide::decide(&seen)
    {
        // Nothing is left: that is reported, or the request let go, at once.
        apply::apply(context, &mut seen, &next).await?;
        decision = next;
    }
    // The finalizer made another version of it.
    backup.metadata = seen.backup.metadata;
    Ok(Some(decision))
}

/// One that has not begun gives its slot back: others need not wait until it may.
fn give_way(context: &Context, backup: &DataMoverBackup) {
    if backup.status.as_ref().is_none_or(|status| status.phase == BackupPhase::Pending) {
        context.slots.release(&slots::request(backup));
    }
}

/// What the API server refused is said where people look, and tried again.
fn refused(context: &Context, backup: &DataMoverBackup, error: Error) -> Result<decide::Decision> {
    let Some(message) = error.refusal() else { return Err(error) };
    tracing::warn!(message, "refused");
    give_way(context, backup);
    let mut status = backup.status.clone().unwrap_or_default();
    status.message = Some(message);
    Ok(decide::Decision { status, again: Some(retry::LATER), ..decide::Decision::default() })
}

/// Writes the status, if it says anything new, and tells of what people wait for.
async fn report(
    context: &Context,
    api: &Api<DataMoverBackup>,
    backup: &DataMoverBackup,
    decision: &decide::Decision,
) -> Result<()> {
    let (before, after) = (backup.status.clone().unwrap_or_default(), &decision.status);
    remember(context, backup, &before);
    if before == *after && backup.status.is_some() || decision.steps.contains(&decide::Step::LetGo) {
        return Ok(());
    }
    let is_there = objects::report(api, backup, after).await?;
    // Not before the end is written: to everybody else it is at work until then, beside whoever takes its slot.
    if after.phase.is_final() {
        context.slots.release(&slots::request(backup));
    }
    if !is_there {
        return Ok(());
    }
    if before.phase != after.phase {
        count(context, backup, after);
        let warning = matches!(after.phase, BackupPhase::Failed | BackupPhase::PartiallyCompleted);
        let note = after.message.clone().unwrap_or_else(|| format!("{:?}", after.phase));
        context.tell(backup, warning, &format!("{:?}", after.phase), &note).await;
    } else if before.message != after.message
        && let Some(message) = &after.message
    {
        context.tell(backup, true, "Waiting", message).await;
    }
    Ok(())
}

/// Counts what came to its end.
fn count(context: &Context, backup: &DataMoverBackup, status: &DataMoverBackupStatus) {
    if !status.phase.is_final() {
        return;
    }
    let metrics = &context.metrics;
    metrics.backups.get_or_create(&Ended { result: format!("{:?}", status.phase) }).inc();
    let bytes = |field: Option<i64>| field.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    metrics.backup_bytes.inc_by(bytes(status.logical_bytes));
    metrics.backup_stored_bytes.inc_by(bytes(status.stored_bytes));
    if let (Some(from), Some(to)) = (&status.accepted_timestamp, &status.completion_timestamp) {
        metrics.backup_duration.observe(to.0.duration_since(from.0).as_secs_f64());
    }
    remember(context, backup, status);
}

/// The age of the last success is known again after a restart, for the objects say it.
fn remember(context: &Context, backup: &DataMoverBackup, status: &DataMoverBackupStatus) {
    if let (BackupPhase::Completed, Some(time), Some(identity)) =
        (status.phase, &status.completion_timestamp, &status.identity)
    {
        let claim = identity.rsplit('/').next().unwrap_or_default().to_owned();
        let volume = Volume { namespace: backup.namespace().unwrap_or_default(), claim };
        let gauge = context.metrics.last_success.get_or_create(&volume);
        gauge.set(gauge.get().max(time.0.as_second()));
    }
}
