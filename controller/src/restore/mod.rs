//! `DataMoverRestore`: observe, decide, apply, report.

mod apply;
mod decide;
mod ending;
mod handover;
mod observe;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use carrack_controller_api::{DataMoverRestore, RestorePhase};
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
    metrics::Ended,
    objects, owners, retry, slots,
};

/// How long after a failure of our own a restore is looked at again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Works on restores until the stream is dropped.
pub fn controller(context: &Context) -> impl Stream<Item = ()> + use<> {
    let restores: Api<DataMoverRestore> = Api::all(context.client.clone());
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let slots = context.slots.clone();
    Controller::new(restores, watcher::Config::default())
        .watches(pods, owners::watched("datamoverrestore"), owners::of_pod)
        .run(reconcile, failed, Arc::new(context.clone()))
        .map(move |looked| slots.miss(looked))
}

fn failed(_restore: Arc<DataMoverRestore>, error: &Error, _context: Arc<Context>) -> Action {
    if error.is_conflict() {
        tracing::debug!(%error, "a restore was changed meanwhile, it is looked at again");
        return Action::requeue(retry::SOON);
    }
    tracing::warn!(%error, "a restore could not be looked after, it is looked at again");
    Action::requeue(AFTER_FAILURE)
}

async fn reconcile(restore: Arc<DataMoverRestore>, context: Arc<Context>) -> Result<Action> {
    if let Some(status) = &restore.status
        && condition::rests(&restore.metadata, &status.conditions, status.observed_generation)
    {
        return Ok(Action::await_change());
    }
    let api: Api<DataMoverRestore> =
        Api::namespaced(context.client.clone(), &restore.namespace().unwrap_or_default());
    // What the watch shows may be older than what we wrote ourselves, and a step must not be taken twice.
    let Some(mut restore) = objects::find(&api, &restore.name_any()).await? else {
        context.slots.release(&slots::request(&*restore));
        return Ok(Action::await_change());
    };
    if restore.status.as_ref().is_some_and(|status| status.phase.is_final()) {
        context.slots.release(&slots::request(&restore));
    }
    let decision = match step(&context, &mut restore).await {
        Ok(Some(decision)) => decision,
        Ok(None) => {
            context.slots.release(&slots::request(&restore));
            return Ok(Action::await_change());
        }
        Err(error) => refused(&context, &restore, error)?,
    };
    report(&context, &api, &restore, &decision).await?;
    Ok(decision.again.map_or_else(Action::await_change, Action::requeue))
}

/// Looks, decides, and does; nothing for what is somebody else's.
async fn step(context: &Context, restore: &mut DataMoverRestore) -> Result<Option<decide::Decision>> {
    let mut seen = observe::observe(context, restore).await?;
    let Some(mut decision) = decide::decide(&seen) else { return Ok(None) };
    apply::apply(context, &mut seen, &decision).await?;
    if seen.crowded {
        decide::crowded(&seen, &mut decision);
    }
    if let Some(obstacle) = &seen.contested {
        decision = decide::contested(&seen, obstacle);
        give_way(context, restore);
    }
    if seen.clean
        && let Some(next) = decide::decide(&seen)
    {
        // Nothing is left: that is reported, or the request let go, at once.
        apply::apply(context, &mut seen, &next).await?;
        decision = next;
    }
    // The finalizer made another version of it.
    restore.metadata = seen.restore.metadata;
    Ok(Some(decision))
}

/// One that has not begun gives its slot back: others need not wait until it may.
fn give_way(context: &Context, restore: &DataMoverRestore) {
    if restore.status.as_ref().is_none_or(|status| status.phase == RestorePhase::Pending) {
        context.slots.release(&slots::request(restore));
    }
}

/// What the API server refused is said where people look, and tried again.
fn refused(context: &Context, restore: &DataMoverRestore, error: Error) -> Result<decide::Decision> {
    let Some(message) = error.refusal() else { return Err(error) };
    tracing::warn!(message, "refused");
    give_way(context, restore);
    let mut status = restore.status.clone().unwrap_or_default();
    status.message = Some(message);
    Ok(decide::Decision { status, again: Some(retry::LATER), ..decide::Decision::default() })
}

/// Writes the status, if it says anything new, and tells of what people wait for.
async fn report(
    context: &Context,
    api: &Api<DataMoverRestore>,
    restore: &DataMoverRestore,
    decision: &decide::Decision,
) -> Result<()> {
    let (before, after) = (restore.status.clone().unwrap_or_default(), &decision.status);
    if before == *after && restore.status.is_some() || decision.steps.contains(&decide::Step::LetGo) {
        return Ok(());
    }
    let is_there = objects::report(api, restore, after).await?;
    // Not before the end is written: to everybody else it is at work until then, beside whoever takes its slot.
    if after.phase.is_final() {
        context.slots.release(&slots::request(restore));
    }
    if !is_there {
        return Ok(());
    }
    if before.phase != after.phase {
        if after.phase.is_final() {
            context.metrics.restores.get_or_create(&Ended { result: format!("{:?}", after.phase) }).inc();
        }
        let warning = matches!(after.phase, RestorePhase::Failed | RestorePhase::PartiallyCompleted);
        let note = after.message.clone().unwrap_or_else(|| format!("{:?}", after.phase));
        context.tell(restore, warning, &format!("{:?}", after.phase), &note).await;
    } else if before.message != after.message
        && let Some(message) = &after.message
    {
        context.tell(restore, true, "Waiting", message).await;
    }
    Ok(())
}
