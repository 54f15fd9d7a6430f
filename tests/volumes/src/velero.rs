//! Velero with its own data mover, for the benchmark: what Carrack is compared with, on the same cluster, driver and store.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use carrack_cluster::{Bed, Cluster, image::Image, program};
use serde_json::Value;

use crate::install::run;

/// Where Velero's objects are.
const NAMESPACE: &str = "velero";
/// The image of the node agent and of the pods that move data.
const IMAGE: &str = "carrack.test/velero:1";

/// Velero in one cluster: its node agent in a pod, its server as a process.
#[derive(Debug)]
pub struct Velero<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
    server: Child,
}

/// How long a backup or restore took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// The whole command.
    pub whole: Duration,
    /// Moving the data alone: from the request to its completion, in whole seconds.
    pub moving: Duration,
}

impl<'a> Velero<'a> {
    /// Installs it, and waits until it can store something.
    ///
    /// # Errors
    ///
    /// It is not built (`tests/cluster/build.sh velero`), or does not come up.
    pub fn install(bed: &Bed, cluster: &'a Cluster) -> Result<Self> {
        let (velero, plugin) = (program("velero")?, program("velero-plugin-for-aws")?);
        let archive = bed.directory().join("velero.tar");
        Image {
            name: IMAGE,
            files: &[(velero.clone(), "/velero")],
            entrypoint: &["/velero"],
            busybox: false,
        }
        .write(&archive)?;
        cluster.import_image(&archive)?;
        let credentials = bed.directory().join("velero-credentials");
        let minio = bed.minio().context("the bed has an object store")?;
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            minio.access_key, minio.secret_key
        );
        fs::write(&credentials, text)?;
        let plugins = bed.directory().join("velero-plugins");
        fs::create_dir_all(&plugins)?;
        fs::copy(&plugin, plugins.join("velero-plugin-for-aws"))?;
        let location = format!("region=us-east-1,s3ForcePathStyle=true,s3Url={}", minio.url);
        let mut render = Command::new(&velero);
        render
            .args(["install", "--dry-run", "-o", "json", "--use-node-agent", "--use-volume-snapshots=false"])
            .args(["--provider", "aws", "--plugins", "none:1", "--image", IMAGE, "--features", "EnableCSI"])
            .args(["--bucket", minio.bucket, "--prefix", "velero", "--backup-location-config", &location])
            .arg("--secret-file")
            .arg(&credentials)
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig());
        apply(cluster, &run(&mut render)?)?;
        let log = File::create(cluster.log("velero"))?;
        let server = Command::new(&velero)
            .args([
                "server",
                "--namespace",
                NAMESPACE,
                "--features",
                "EnableCSI",
                "--metrics-address",
                "127.0.0.1:0",
            ])
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .arg("--plugin-dir")
            .arg(&plugins)
            .env("AWS_SHARED_CREDENTIALS_FILE", &credentials)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("Velero's server")?;
        let installed = Self { cluster, program: velero, server };
        let agent = ["rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s"];
        cluster.kubectl(&agent)?;
        let available = "--for=jsonpath={.status.phase}=Available";
        cluster.kubectl(&[
            "wait",
            available,
            "-n",
            NAMESPACE,
            "backupstoragelocation/default",
            "--timeout=120s",
        ])?;
        Ok(installed)
    }

    /// Backs up a namespace, its volumes with it.
    ///
    /// # Errors
    ///
    /// It does not complete.
    pub fn back_up(&self, name: &str, namespace: &str) -> Result<Took> {
        let words = ["--include-namespaces", namespace, "--snapshot-move-data", "--wait"];
        self.timed("backup", name, &words, "dataupload")
    }

    /// Restores a backup into another namespace.
    ///
    /// # Errors
    ///
    /// It does not complete.
    pub fn restore(&self, name: &str, backup: &str, from: &str, to: &str) -> Result<Took> {
        let mapping = format!("{from}:{to}");
        let words = ["--from-backup", backup, "--namespace-mappings", &mapping, "--wait"];
        self.timed("restore", name, &words, "datadownload")
    }

    fn timed(&self, verb: &str, name: &str, words: &[&str], moved: &str) -> Result<Took> {
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        command.args([verb, "create", name, "--namespace", NAMESPACE, "--kubeconfig"]);
        let said = run(command.arg(self.cluster.kubeconfig()).args(words))?;
        let whole = start.elapsed();
        let object = format!("{verb}.velero.io/{name}");
        let phase =
            self.cluster.kubectl(&["get", "-n", NAMESPACE, &object, "-o", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Completed", "{object} is {phase}: {said}");
        let label = format!("velero.io/{verb}-name={name}");
        let list = self.cluster.kubectl(&["get", "-n", NAMESPACE, moved, "-l", &label, "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let one = &list["items"][0];
        let time = |value: &Value| -> Result<jiff::Timestamp> {
            value
                .as_str()
                .with_context(|| format!("a time of {moved} {name}: {one}"))?
                .parse()
                .context("a time")
        };
        let (from, to) =
            (time(&one["metadata"]["creationTimestamp"])?, time(&one["status"]["completionTimestamp"])?);
        Ok(Took { whole, moving: to.duration_since(from).unsigned_abs() })
    }
}

/// Applies what `velero install` prints: kinds first, with the agent on this node, and without the server's own pod.
fn apply(cluster: &Cluster, rendered: &str) -> Result<()> {
    let mut list: Value = serde_json::from_str(rendered).context("what velero install prints")?;
    let items = list["items"].as_array_mut().context("a list")?;
    let (kinds, mut others): (Vec<Value>, Vec<Value>) =
        items.drain(..).partition(|item| item["kind"] == "CustomResourceDefinition");
    let root = cluster.kubelet_root().display().to_string();
    for item in &mut others {
        match item["kind"].as_str() {
            Some("Deployment") => item["spec"]["replicas"] = 0.into(),
            Some("DaemonSet") => {
                let spec = &mut item["spec"]["template"]["spec"];
                spec["containers"][0]["imagePullPolicy"] = "Never".into();
                for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
                    if let Some(path) = volume["hostPath"]["path"].as_str() {
                        volume["hostPath"]["path"] = path.replace("/var/lib/kubelet", &root).into();
                    }
                }
            }
            _ => {}
        }
    }
    let apply = |items: Vec<Value>| {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items });
        cluster.apply(&list.to_string())
    };
    apply(kinds)?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    apply(others).map(drop)
}

impl Drop for Velero<'_> {
    fn drop(&mut self) {
        // It is gone either way.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
