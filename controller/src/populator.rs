//! Volume populator: a claim whose `dataSourceRef` names a backup is filled before it binds.
//!
//! The claim stays Pending, for no provisioner serves our kinds. A restore into it is made, which the claim owns: it fills a
//! volume elsewhere and hands it over when it is full. Whatever dies in between, the claim never binds to less.

use std::{sync::Arc, time::Duration};

use carrack_controller_api::{
    ClaimRef, DataMoverBackup, DataMoverRestore, DataMoverRestoreSpec, GROUP, RestoreSource, reason,
};
use futures::{Stream, StreamExt as _};
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolumeClaim, TypedObjectReference},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::{Controller, controller::Action, watcher},
};

use crate::{
    context::Context,
    error::{Error, Result},
    objects,
};

/// How long after a failure of our own a claim is looked at again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// On a claim: the node that its pod was given.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Fills claims until the stream is dropped.
pub fn controller(context: &Context) -> impl Stream<Item = ()> + use<> {
    Controller::new(Api::<PersistentVolumeClaim>::all(context.client.clone()), watcher::Config::default())
        .owns(Api::<DataMoverRestore>::all(context.client.clone()), watcher::Config::default())
        .run(reconcile, failed, Arc::new(context.clone()))
        .map(drop)
}

fn failed(_claim: Arc<PersistentVolumeClaim>, error: &Error, _context: Arc<Context>) -> Action {
    tracing::warn!(%error, "a claim could not be filled, it is looked at again");
    Action::requeue(AFTER_FAILURE)
}

/// The source of a claim, if it is one of ours and the claim is still to be filled.
fn source(claim: &PersistentVolumeClaim) -> Option<&TypedObjectReference> {
    let spec = claim.spec.as_ref()?;
    let source = spec.data_source_ref.as_ref().filter(|source| source.api_group.as_deref() == Some(GROUP))?;
    let waits = spec.volume_name.as_deref().unwrap_or_default().is_empty()
        && claim.metadata.deletion_timestamp.is_none();
    waits.then_some(source)
}

async fn reconcile(claim: Arc<PersistentVolumeClaim>, context: Arc<Context>) -> Result<Action> {
    let Some(source) = source(&claim) else { return Ok(Action::await_change()) };
    let namespace = claim.namespace().unwrap_or_default();
    if source.kind != DataMoverBackup::kind(&()) {
        // A restore names its claim itself.
        if source.kind != DataMoverRestore::kind(&()) {
            let note = format!(
                "{} {} fills no claim: name a DataMoverBackup or a DataMoverRestore",
                source.kind, source.name
            );
            context.tell(&*claim, true, reason::INVALID, &note).await;
        }
        return Ok(Action::await_change());
    }
    if source.namespace.as_ref().is_some_and(|other| *other != namespace) {
        let note = "dataSourceRef names another namespace: restore there, or make a DataMoverRestore with an identity here";
        context.tell(&*claim, true, reason::INVALID, note).await;
        return Ok(Action::await_change());
    }
    if waits_for_consumer(&context, &claim).await? && !claim.annotations().contains_key(SELECTED_NODE) {
        return Ok(Action::await_change());
    }
    let restores: Api<DataMoverRestore> = Api::namespaced(context.client.clone(), &namespace);
    let name = format!("populate-{}", claim.uid().unwrap_or_default());
    if objects::find(&restores, &name).await?.is_none() {
        objects::apply(&restores, &restore(&claim, &namespace, &name, &source.name)).await?;
        context
            .tell(
                &*claim,
                false,
                "Populating",
                &format!("DataMoverRestore {name} fills the claim from backup {}", source.name),
            )
            .await;
    }
    Ok(Action::await_change())
}

/// A class may want to know first where the pod runs.
async fn waits_for_consumer(context: &Context, claim: &PersistentVolumeClaim) -> Result<bool> {
    let Some(class) =
        claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).filter(|name| !name.is_empty())
    else {
        return Ok(false);
    };
    let class: Option<StorageClass> = objects::find(&Api::all(context.client.clone()), &class).await?;
    Ok(class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")))
}

fn restore(claim: &PersistentVolumeClaim, namespace: &str, name: &str, backup: &str) -> DataMoverRestore {
    DataMoverRestore {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            owner_references: claim.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: DataMoverRestoreSpec {
            destination_claim_ref: ClaimRef { name: claim.name_any(), namespace: None },
            source: RestoreSource { backup: Some(backup.to_owned()), ..RestoreSource::default() },
            ..DataMoverRestoreSpec::default()
        },
        status: None,
    }
}
