//! What there is, as tables.

use anyhow::Context as _;
use carrack_controller_api::{
    ClusterRepository, DataMoverBackup, DataMoverRestore, DataMoverType, Repository, condition as conditions,
};
use clap::Args;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, Resource, ResourceExt as _, api::ListParams};

use super::{Place, say};
use crate::objects::Object;

/// Which namespaces are looked at.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

async fn list<K: Object>(api: Api<K>) -> anyhow::Result<Vec<K>> {
    let kind = K::kind(&()).into_owned();
    Ok(api
        .list(&ListParams::default())
        .await
        .with_context(|| format!("{kind} objects cannot be listed"))?
        .items)
}

fn api<K>(place: &Place, args: &ListArgs) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    if args.all_namespaces {
        Api::all(place.client.clone())
    } else {
        Api::namespaced(place.client.clone(), &place.namespace)
    }
}

pub(super) async fn backups(place: &Place, args: &ListArgs) -> anyhow::Result<()> {
    let mut found = list::<DataMoverBackup>(api(place, args)).await?;
    found.sort_by_key(|backup| backup.creation_timestamp().map(|time| time.0));
    let mut table =
        vec![row(&["NAMESPACE", "BACKUP", "VOLUME", "PHASE", "COMPLETED", "BYTES", "SENT", "SNAPSHOT"])];
    for backup in found {
        let status = backup.status.clone().unwrap_or_default();
        let bytes = |field: Option<i64>| field.map_or_else(|| "-".into(), |bytes| bytes.to_string());
        table.push(vec![
            backup.namespace().unwrap_or_default(),
            backup.name_any(),
            status.identity.unwrap_or_else(|| backup.spec.source_claim_ref.name.clone()),
            format!("{:?}", status.phase),
            status.completion_timestamp.map_or_else(|| "-".into(), |time| time.0.to_string()),
            bytes(status.logical_bytes),
            bytes(status.stored_bytes),
            status.snapshot_id.unwrap_or_else(|| "-".into()),
        ]);
    }
    print(&table)
}

pub(super) async fn status(place: &Place, args: &ListArgs) -> anyhow::Result<()> {
    let mut table = vec![row(&["KIND", "NAMESPACE", "NAME", "STATE", "SAYS"])];
    for found in list::<ClusterRepository>(Api::all(place.client.clone())).await? {
        let conditions = found.status.clone().unwrap_or_default().conditions;
        table.push(ready("ClusterRepository", &found, &conditions));
    }
    for found in list::<Repository>(api(place, args)).await? {
        let conditions = found.status.clone().unwrap_or_default().conditions;
        table.push(ready("Repository", &found, &conditions));
    }
    for found in list::<DataMoverType>(Api::all(place.client.clone())).await? {
        let conditions = found.status.clone().unwrap_or_default().conditions;
        table.push(ready("DataMoverType", &found, &conditions));
    }
    for found in list::<DataMoverBackup>(api(place, args)).await? {
        let status = found.status.clone().unwrap_or_default();
        if !status.phase.is_final() {
            table.push(under_way("DataMoverBackup", &found, format!("{:?}", status.phase), status.message));
        }
    }
    for found in list::<DataMoverRestore>(api(place, args)).await? {
        let status = found.status.clone().unwrap_or_default();
        if !status.phase.is_final() {
            table.push(under_way("DataMoverRestore", &found, format!("{:?}", status.phase), status.message));
        }
    }
    print(&table)
}

fn ready<K: Object>(kind: &str, object: &K, known: &[Condition]) -> Vec<String> {
    let found = known.iter().find(|found| found.type_ == conditions::READY);
    let state =
        found.map_or("Unknown", |found| if found.status == "True" { "Ready" } else { found.reason.as_str() });
    let says =
        found.map_or("nobody has looked at it yet: does the controller run?", |found| found.message.as_str());
    row(&[kind, &object.namespace().unwrap_or_else(|| "-".into()), &object.name_any(), state, says])
}

fn under_way<K: Object>(kind: &str, object: &K, phase: String, message: Option<String>) -> Vec<String> {
    let namespace = object.namespace().unwrap_or_default();
    row(&[kind, &namespace, &object.name_any(), &phase, message.as_deref().unwrap_or("-")])
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Prints a table in columns.
fn print(table: &[Vec<String>]) -> anyhow::Result<()> {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in table {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        say(cells.join("   ").trim_end())?;
    }
    Ok(())
}
