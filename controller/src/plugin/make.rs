//! Objects that are made or stopped.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use carrack_controller_api::{
    BackupType, ClaimRef, DataMoverBackup, DataMoverBackupSpec, DataMoverRestore, DataMoverRestoreSpec,
    NewVolume, RestoreSource, SourceIdentity,
};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::VolumeResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{Place, say, watch};

/// What to back up.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The claim, or with --snapshot the volume snapshot
    name: String,
    /// NAME is a VolumeSnapshot that exists
    #[arg(long)]
    snapshot: bool,
    /// Name of the backup [default: that of the claim with the time]
    #[arg(long, value_name = "NAME")]
    as_name: Option<String>,
    /// Type of mover [default: the default one]
    #[arg(long, value_name = "TYPE")]
    mover_type: Option<String>,
    /// Return at once, and let it run
    #[arg(long)]
    no_wait: bool,
}

/// What to restore, and where to.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A backup of this namespace
    #[arg(required_unless_present_any = ["snapshot_id", "from"], conflicts_with_all = ["snapshot_id", "from"])]
    backup: Option<String>,
    /// A snapshot of the repository
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    snapshot_id: Option<String>,
    /// The newest snapshot of a volume: CLUSTER/NAMESPACE/CLAIM
    #[arg(long, value_name = "VOLUME")]
    from: Option<String>,
    /// The claim to fill; one that does not exist is made
    #[arg(long, value_name = "CLAIM")]
    to: String,
    /// Storage class of the claim that is made [default: the cluster's]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Size of the claim that is made, such as 10Gi [default: that of the backup]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// The claim that is made is a device, without a file system
    #[arg(long)]
    block: bool,
    /// Name of the restore [default: that of the claim with the time]
    #[arg(long, value_name = "NAME")]
    as_name: Option<String>,
    /// Type of mover [default: the default one]
    #[arg(long, value_name = "TYPE")]
    mover_type: Option<String>,
    /// Return at once, and let it run
    #[arg(long)]
    no_wait: bool,
}

/// What to stop.
#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// backup/NAME or restore/NAME
    object: String,
}

/// A name that nobody has, from what it is for and the time.
fn fresh(name: &str, given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(|| format!("{name}-{}", Timestamp::now().strftime("%Y%m%d%H%M%S")))
}

pub(super) async fn backup(place: &Place, args: &BackupArgs) -> anyhow::Result<u8> {
    let backups: Api<DataMoverBackup> = Api::namespaced(place.client.clone(), &place.namespace);
    let spec = DataMoverBackupSpec {
        data_mover_type: args.mover_type.clone(),
        backup_type: if args.snapshot { BackupType::VolumeSnapshot } else { BackupType::Claim },
        source_claim_ref: ClaimRef { name: args.name.clone(), namespace: None },
        ..DataMoverBackupSpec::default()
    };
    let name = fresh(&args.name, args.as_name.as_ref());
    backups
        .create(&PostParams::default(), &DataMoverBackup::new(&name, spec))
        .await
        .context("the backup was refused")?;
    say(&format!("datamoverbackup.carrack.dev/{name} created"))?;
    if args.no_wait { Ok(0) } else { watch::backup(&backups, &name).await }
}

pub(super) async fn restore(place: &Place, args: &RestoreArgs) -> anyhow::Result<u8> {
    let restores: Api<DataMoverRestore> = Api::namespaced(place.client.clone(), &place.namespace);
    let requests =
        args.size.as_ref().map(|size| BTreeMap::from([("storage".to_owned(), Quantity(size.clone()))]));
    let spec = DataMoverRestoreSpec {
        data_mover_type: args.mover_type.clone(),
        destination_claim_ref: ClaimRef { name: args.to.clone(), namespace: None },
        source: RestoreSource {
            backup: args.backup.clone(),
            snapshot_id: args.snapshot_id.clone(),
            identity: args.from.as_deref().map(identity).transpose()?,
        },
        new_volume: Some(NewVolume {
            storage_class_name: args.storage_class.clone(),
            resources: requests
                .map(|requests| VolumeResourceRequirements { requests: Some(requests), limits: None }),
            volume_mode: args.block.then(|| "Block".to_owned()),
            ..NewVolume::default()
        }),
        ..DataMoverRestoreSpec::default()
    };
    let name = fresh(&args.to, args.as_name.as_ref());
    restores
        .create(&PostParams::default(), &DataMoverRestore::new(&name, spec))
        .await
        .context("the restore was refused")?;
    say(&format!("datamoverrestore.carrack.dev/{name} created"))?;
    if args.no_wait { Ok(0) } else { watch::restore(&restores, &name).await }
}

fn identity(text: &str) -> anyhow::Result<SourceIdentity> {
    let parts: Vec<&str> = text.split('/').collect();
    let [cluster, namespace, claim] = parts.as_slice() else {
        bail!("--from {text}: use CLUSTER/NAMESPACE/CLAIM, as the status of a backup has it in identity");
    };
    Ok(SourceIdentity {
        cluster: Some((*cluster).to_owned()),
        namespace: Some((*namespace).to_owned()),
        claim: (*claim).to_owned(),
        ..SourceIdentity::default()
    })
}

pub(super) async fn cancel(place: &Place, args: &CancelArgs) -> anyhow::Result<u8> {
    let patch = Patch::Merge(json!({ "spec": { "cancel": true } }));
    let parameters = PatchParams::default();
    match args.object.split_once('/') {
        Some(("backup", name)) => {
            let api: Api<DataMoverBackup> = Api::namespaced(place.client.clone(), &place.namespace);
            api.patch(name, &parameters, &patch).await.map(|found| found.name_any())
        }
        Some(("restore", name)) => {
            let api: Api<DataMoverRestore> = Api::namespaced(place.client.clone(), &place.namespace);
            api.patch(name, &parameters, &patch).await.map(|found| found.name_any())
        }
        _ => bail!("{}: say backup/NAME or restore/NAME", args.object),
    }
    .with_context(|| format!("{} cannot be stopped", args.object))?;
    say(&format!("{} is asked to stop", args.object))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_named_by_cluster_namespace_and_claim() {
        let found = identity("east/shop/data").expect("three parts");
        assert_eq!((found.cluster.as_deref(), found.claim.as_str()), (Some("east"), "data"));
        assert!(
            identity("shop/data").expect_err("two parts").to_string().contains("CLUSTER/NAMESPACE/CLAIM")
        );
    }
}
