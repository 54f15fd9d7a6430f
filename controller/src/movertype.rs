//! `DataMoverType`: is what it names there? Types of other provisioners are left alone.

use std::{sync::Arc, time::Duration};

use carrack_controller_api::{
    ClusterRepository, DataMoverType, DataMoverTypeStatus, MOVER_PROVISIONER, RepositoryKind,
    condition as conditions, reason,
};
use futures::{Stream, StreamExt as _};
use kube::{
    Api, ResourceExt as _,
    runtime::{Controller, controller::Action, watcher},
};

use crate::{
    access::Settled,
    condition,
    context::Context,
    error::{Error, Obstacle, Result},
    objects,
    snapshot::kinds::VolumeSnapshotClass,
};

/// How long after a failure of our own a type is looked at again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often is looked at what a person must put right.
const LATER: Duration = Duration::from_secs(15);

/// Looks after types until the stream is dropped.
pub fn controller(context: &Context) -> impl Stream<Item = ()> + use<> {
    let controller =
        Controller::new(Api::<DataMoverType>::all(context.client.clone()), watcher::Config::default());
    let types = controller.store();
    controller
        .watches(
            Api::<ClusterRepository>::all(context.client.clone()),
            watcher::Config::default(),
            move |repository| {
                let name = repository.name_any();
                let uses = move |found: &Arc<DataMoverType>| {
                    found.spec.repository.as_ref().is_some_and(|used| used.name == name)
                };
                types
                    .state()
                    .into_iter()
                    .filter(uses)
                    .map(|found| kube::runtime::reflector::ObjectRef::from_obj(&*found))
                    .collect::<Vec<_>>()
            },
        )
        .run(reconcile, failed, Arc::new(context.clone()))
        .map(drop)
}

fn failed(_mover_type: Arc<DataMoverType>, error: &Error, _context: Arc<Context>) -> Action {
    tracing::warn!(%error, "a mover type could not be looked after, it is looked at again");
    Action::requeue(AFTER_FAILURE)
}

async fn reconcile(mover_type: Arc<DataMoverType>, context: Arc<Context>) -> Result<Action> {
    if mover_type.spec.provisioner != MOVER_PROVISIONER || mover_type.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let obstacle = obstacle(&context, &mover_type).await?;
    let before = mover_type.status.clone().unwrap_or_default();
    let generation = mover_type.metadata.generation;
    let mut status = DataMoverTypeStatus { observed_generation: generation, ..before.clone() };
    let (reason, message) = match &obstacle {
        Some(obstacle) => (obstacle.reason, obstacle.message.as_str()),
        None => (reason::SUCCEEDED, "requests of this type can be served"),
    };
    let ready = Some(obstacle.is_none());
    condition::set(
        &mut status.conditions,
        conditions::READY,
        ready,
        reason,
        message,
        generation,
        context.now(),
    );
    if status != before {
        let types: Api<DataMoverType> = Api::all(context.client.clone());
        objects::report(&types, &*mover_type, &status).await?;
    }
    Ok(if obstacle.is_some() { Action::requeue(LATER) } else { Action::await_change() })
}

/// What is in the way of every request of this type.
async fn obstacle(context: &Context, mover_type: &DataMoverType) -> Result<Option<Obstacle>> {
    let spec = &mover_type.spec;
    let Some(repository) = &spec.repository else {
        return Ok(Some(Obstacle::invalid("spec.repository names no repository")));
    };
    if repository.kind == RepositoryKind::ClusterRepository {
        // One in a namespace is looked at with each request from there.
        let status = match Settled::find(context, "", repository).await? {
            Ok(found) => found.status.unwrap_or_default(),
            Err(obstacle) => return Ok(Some(obstacle)),
        };
        if let Some(why) =
            status.conditions.iter().find(|found| found.type_ == conditions::READY && found.status != "True")
        {
            let message = format!("ClusterRepository {} is not ready: {}", repository.name, why.message);
            return Ok(Some(Obstacle::passing(reason::REPOSITORY_NOT_READY, message)));
        }
    }
    let named = spec
        .snapshot_class
        .iter()
        .chain(spec.storage_classes.values().filter_map(|settings| settings.snapshot_class.as_ref()));
    for class in named {
        let classes: Api<VolumeSnapshotClass> = Api::all(context.client.clone());
        if objects::find(&classes, class).await?.is_none() {
            let message = format!("there is no VolumeSnapshotClass {class}: make it, or name another");
            return Ok(Some(Obstacle::passing(reason::NO_SNAPSHOT_CLASS, message)));
        }
    }
    Ok(None)
}
