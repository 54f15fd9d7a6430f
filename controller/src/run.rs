//! The controllers together.

use std::{io::Write as _, time::Duration};

use anyhow::Context as _;
use carrack_controller_api::{
    BackupPhase, ClusterRepository, DataMoverBackup, DataMoverRestore, Repository, RestorePhase,
};
use futures::{StreamExt as _, future};
use kube::{Api, api::ListParams};

use crate::{
    backup,
    context::Context,
    error::{Error, Result},
    lease::Candidate,
    metrics, movertype, populator, repository, restore, slots,
};

/// How long after a failure to list what is under way that is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Prints the kinds as a list that kubectl takes. JSON is YAML.
pub fn print_kinds() -> anyhow::Result<()> {
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "List", "items": carrack_controller_api::custom_resource_definitions(),
    });
    let text = serde_json::to_string_pretty(&list)?;
    writeln!(std::io::stdout(), "{text}").context("the kinds cannot be printed")
}

/// Waits to lead, then runs all controllers until the program is asked to stop. What is under way goes on when one starts
/// again, here or elsewhere.
pub async fn until_stopped(context: Context) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let candidate = Candidate::new(&context);
    let work = async {
        loop {
            candidate.lead().await?;
            context.slots.forget_all();
            // An API server that went away again is asked again, as a leader anew.
            if let Err(error) = occupy(&context).await {
                tracing::warn!(%error, "what is under way cannot be listed, it is tried again");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            tracing::info!(cluster = %context.cluster, namespace = context.settings.namespace, "controllers run");
            tokio::select! {
                () = controllers(&context) => anyhow::bail!("the controllers ended by themselves"),
                lost = candidate.keep() => tracing::warn!("this controller leads no more, and asks to lead again: {lost}"),
            }
        }
    };
    tokio::select! {
        ended = work => return ended,
        ended = metrics::serve(context.settings.metrics_address, context.metrics.clone()) => return ended,
        () = stop => {}
    }
    tracing::info!("asked to stop");
    candidate.leave().await;
    Ok(())
}

async fn controllers(context: &Context) {
    let each = |_: ()| future::ready(());
    tokio::join!(
        backup::controller(context).for_each(each),
        restore::controller(context).for_each(each),
        repository::controller::<Repository>(context).for_each(each),
        repository::controller::<ClusterRepository>(context).for_each(each),
        movertype::controller(context).for_each(each),
        populator::controller(context).for_each(each),
    );
}

/// Requests that are under way have their slots before any other may take one.
async fn occupy(context: &Context) -> Result<()> {
    let all = ListParams::default();
    let backups: Api<DataMoverBackup> = Api::all(context.client.clone());
    for backup in backups.list(&all).await.map_err(Error::api("DataMoverBackups cannot be listed"))? {
        let status = backup
            .status
            .as_ref()
            .filter(|status| status.phase != BackupPhase::Pending && !status.phase.is_final());
        if let Some(mover_type) = status.and_then(|status| status.data_mover_type.as_ref()) {
            context.slots.occupy(&slots::request(&backup), mover_type);
        }
    }
    let restores: Api<DataMoverRestore> = Api::all(context.client.clone());
    for restore in restores.list(&all).await.map_err(Error::api("DataMoverRestores cannot be listed"))? {
        let status = restore
            .status
            .as_ref()
            .filter(|status| status.phase != RestorePhase::Pending && !status.phase.is_final());
        if let Some(mover_type) = status.and_then(|status| status.data_mover_type.as_ref()) {
            context.slots.occupy(&slots::request(&restore), mover_type);
        }
    }
    Ok(())
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
    })
}
