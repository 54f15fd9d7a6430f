//! Looking at objects again and again: by the API itself, for each kubectl costs a tenth of a second of a processor.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{LazyLock, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use carrack_cluster::Cluster;
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Group with version and plural of the kinds that tests look at, by the names that kubectl takes.
const KINDS: [(&[&str], &str, &str); 11] = [
    (&["pod", "pods"], "/api/v1", "pods"),
    (&["pvc"], "/api/v1", "persistentvolumeclaims"),
    (&["pv"], "/api/v1", "persistentvolumes"),
    (&["secrets"], "/api/v1", "secrets"),
    (&["resourcequota"], "/api/v1", "resourcequotas"),
    (&["volumesnapshot", "volumesnapshots"], "/apis/snapshot.storage.k8s.io/v1", "volumesnapshots"),
    (&["volumesnapshotcontents"], "/apis/snapshot.storage.k8s.io/v1", "volumesnapshotcontents"),
    (&["datamoverbackup", "datamoverbackups"], "/apis/carrack.dev/v1alpha1", "datamoverbackups"),
    (&["datamoverrestore", "datamoverrestores"], "/apis/carrack.dev/v1alpha1", "datamoverrestores"),
    (&["datamovertype"], "/apis/carrack.dev/v1alpha1", "datamovertypes"),
    (&["clusterrepository"], "/apis/carrack.dev/v1alpha1", "clusterrepositories"),
];
/// Those without a namespace.
const OF_CLUSTERS: [&str; 4] =
    ["persistentvolumes", "volumesnapshotcontents", "datamovertypes", "clusterrepositories"];

struct Looking {
    runtime: Runtime,
    clients: Mutex<HashMap<PathBuf, Client>>,
}

static LOOKING: LazyLock<Option<Looking>> =
    LazyLock::new(|| Some(Looking { runtime: Runtime::new().ok()?, clients: Mutex::default() }));

/// A client with all rights.
pub(crate) async fn client(cluster: &Cluster) -> Result<Client> {
    let read = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// What is at a path; none if there is nothing.
fn read(cluster: &Cluster, path: &str) -> Result<Option<Value>> {
    let looking = LOOKING.as_ref().context("a runtime")?;
    looking.runtime.block_on(async {
        let kubeconfig = cluster.kubeconfig().to_owned();
        let known = looking.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&kubeconfig).cloned();
        let client = match known {
            Some(client) => client,
            None => {
                let client = client(cluster).await?;
                let mut clients = looking.clients.lock().unwrap_or_else(PoisonError::into_inner);
                clients.insert(kubeconfig, client.clone());
                client
            }
        };
        let answer = client.send(Request::get(path).body(Body::empty())?).await?;
        let (status, body) = (answer.status(), answer.into_body().collect().await?.to_bytes());
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(Some(serde_json::from_slice(&body)?))
    })
}

fn path(kind: &str, namespace: Option<&str>) -> Result<String> {
    let (_, group, plural) =
        KINDS.iter().find(|(names, ..)| names.contains(&kind)).with_context(|| format!("the kind {kind}"))?;
    Ok(match namespace.filter(|_| !OF_CLUSTERS.contains(plural)) {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    })
}

/// An object; none if there is none.
pub(crate) fn one(cluster: &Cluster, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
    let path = format!("{}/{name}", path(kind, Some(namespace))?);
    read(cluster, &path).with_context(|| path.clone())
}

/// All objects of a kind, of one namespace or of all.
pub(crate) fn all(cluster: &Cluster, kind: &str, namespace: Option<&str>) -> Result<Vec<Value>> {
    let path = path(kind, namespace)?;
    let list = read(cluster, &path).with_context(|| path.clone())?.unwrap_or_default();
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}
