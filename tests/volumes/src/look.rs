//! Looking at objects again and again: by the API itself, for each kubectl costs a tenth of a second of a processor.

use std::{
    collections::HashMap,
    path::PathBuf,
    pin::pin,
    sync::{LazyLock, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use carrack_cluster::Cluster;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use kube::{
    Client, Config,
    api::WatchEvent,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::{runtime::Runtime, time::timeout};

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

/// How long to wait before a watch that has ended is begun again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the last look may take.
const LAST_LOOK: Duration = Duration::from_secs(5);

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

impl Looking {
    /// The client of a cluster, the same each time.
    async fn client(&self, cluster: &Cluster) -> Result<Client> {
        let kubeconfig = cluster.kubeconfig().to_owned();
        let known = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&kubeconfig).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let client = client(cluster).await?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(kubeconfig, client.clone());
        Ok(client)
    }

    /// What is at a path; none if there is nothing.
    async fn read(&self, cluster: &Cluster, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path).body(Body::empty())?;
        let answer = self.client(cluster).await?.send(request).await?;
        let (status, body) = (answer.status(), answer.into_body().collect().await?.to_bytes());
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(Some(serde_json::from_slice(&body)?))
    }

    /// Shows what a list of one object has, and then every version of the object that is written, until `found` says that
    /// it is the one; false if the watch ends before. After a version that is known already, only those that came later.
    async fn watch(
        &self,
        cluster: &Cluster,
        list: &str,
        version: &mut Option<String>,
        found: &mut impl FnMut(&Value) -> bool,
    ) -> Result<bool> {
        let from = match version.take() {
            Some(known) => known,
            None => {
                let present = self.read(cluster, list).await?.context("no such kind")?;
                if found(&present["items"][0]) {
                    return Ok(true);
                }
                present["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned()
            }
        };
        let request = Request::get(format!("{list}&watch=true&resourceVersion={from}")).body(Vec::new())?;
        let client = self.client(cluster).await?;
        let mut events = pin!(client.request_events::<Value>(request).await?);
        *version = Some(from);
        while let Some(event) = events.next().await {
            let (object, is_there) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                WatchEvent::Deleted(object) => (object, false),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => {
                    *version = None;
                    bail!("{status:?}");
                }
            };
            *version = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            if found(if is_there { &object } else { &Value::Null }) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is at a path; none if there is nothing.
fn read(cluster: &Cluster, path: &str) -> Result<Option<Value>> {
    let looking = LOOKING.as_ref().context("a runtime")?;
    looking.runtime.block_on(looking.read(cluster, path))
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

/// Shows an object, null if there is none, and every version of it that is written from then on, however short it is there,
/// until `found` says that it is the one. A server that does not answer is asked again.
pub(crate) fn follow(
    cluster: &Cluster,
    kind: &str,
    namespace: &str,
    name: &str,
    limit: Duration,
    mut found: impl FnMut(&Value) -> bool,
) -> Result<()> {
    let looking = LOOKING.as_ref().context("a runtime")?;
    let list = format!("{}?fieldSelector=metadata.name%3D{name}", path(kind, Some(namespace))?);
    let start = Instant::now();
    let mut version = None;
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let looked = looking.runtime.block_on(async {
            let watch = looking.watch(cluster, &list, &mut version, &mut found);
            timeout(left.max(LAST_LOOK), watch).await.unwrap_or(Ok(false))
        });
        if matches!(looked, Ok(true)) {
            return Ok(());
        }
        if left.is_zero() {
            looked.with_context(|| format!("not within {} s: {list}", limit.as_secs()))?;
            bail!("not within {} s", limit.as_secs());
        }
        sleep(PAUSE);
    }
}
