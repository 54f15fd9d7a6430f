//! What tests ask of a cluster.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use carrack_cluster::{Cluster, DRIVER, image::BUSYBOX};
use serde_json::{Value, json};

use crate::{install::NAMESPACE, look, wait::until};

/// A cluster, with what tests ask of it.
#[derive(Clone, Copy, Debug)]
pub struct Kubernetes<'a>(pub &'a Cluster);

/// How a backup or restore ended.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Its status.
    pub status: Value,
}

impl Ends {
    /// A field of the status as text.
    pub fn text(&self, field: &str) -> &str {
        self.status[field].as_str().unwrap_or_default()
    }

    /// A field of the status as a number.
    pub fn number(&self, field: &str) -> i64 {
        self.status[field].as_i64().unwrap_or(-1)
    }

    /// The reason of the condition `Succeeded`.
    pub fn reason(&self) -> &str {
        let conditions = self.status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = conditions.iter().find(|found| found["type"] == "Succeeded");
        found.and_then(|found| found["reason"].as_str()).unwrap_or_default()
    }
}

impl Kubernetes<'_> {
    /// Applies objects.
    ///
    /// # Errors
    ///
    /// The cluster refuses one of them.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.0.apply(&list.to_string()).map(drop)
    }

    /// An object; none if there is none.
    ///
    /// # Errors
    ///
    /// The cluster does not answer.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        look::one(self.0, kind, namespace, name)
    }

    /// Waits until an object has a phase, or one of several, and be it for a moment.
    ///
    /// # Errors
    ///
    /// It has not within `seconds`; the error has its status.
    pub fn wait_for_phase(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        phases: &[&str],
        seconds: u64,
    ) -> Result<Ends> {
        let mut last = Value::Null;
        let limit = Duration::from_secs(seconds);
        let waited = look::follow(self.0, kind, namespace, name, limit, |object| {
            last = object["status"].clone();
            phases.iter().any(|phase| last["phase"] == *phase)
        });
        waited.with_context(|| {
            format!("wait until {kind} {namespace}/{name} is {phases:?}; its status: {last}")
        })?;
        Ok(Ends { status: last })
    }

    /// Waits until a backup or restore has come to its end and cleaned up.
    ///
    /// # Errors
    ///
    /// It has not within `seconds`.
    pub fn ends(&self, kind: &str, namespace: &str, name: &str, seconds: u64) -> Result<Ends> {
        let phases = ["Completed", "PartiallyCompleted", "Failed", "Canceled"];
        self.wait_for_phase(kind, namespace, name, &phases, seconds)?;
        let mut ends = Ends { status: Value::Null };
        until(&format!("{kind} {namespace}/{name} has cleaned up"), 180, || {
            ends.status =
                self.get(kind, namespace, name)?.map_or(Value::Null, |object| object["status"].clone());
            let conditions = ends.status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(conditions.iter().any(|found| found["type"] == "CleanedUp" && found["status"] == "True"))
        })?;
        Ok(ends)
    }

    /// A namespace with a claim of this class and size, and a pod that uses it and waits.
    ///
    /// # Errors
    ///
    /// The cluster refuses them, or the pod does not run within three minutes.
    pub fn workload(&self, namespace: &str, name: &str, class: &str, block: bool) -> Result<()> {
        let mode = if block { "Block" } else { "Filesystem" };
        self.apply(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": namespace },
                "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeMode": mode,
                    "resources": { "requests": { "storage": "400Mi" } } } }),
            user(namespace, name, block),
        ])?;
        self.runs(namespace, name)
    }

    /// A pod that uses a claim of its own name.
    ///
    /// # Errors
    ///
    /// As for [`Self::workload`].
    pub fn use_claim(&self, namespace: &str, name: &str, block: bool) -> Result<()> {
        self.apply(&[user(namespace, name, block)])?;
        self.runs(namespace, name)
    }

    fn runs(&self, namespace: &str, name: &str) -> Result<()> {
        self.wait_for_phase("pod", namespace, name, &["Running"], 180).map(drop)
    }

    /// Runs a command of busybox in a pod.
    ///
    /// # Errors
    ///
    /// It does not end well.
    pub fn shell(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        self.0.kubectl(&["exec", "-n", namespace, pod, "--", "sh", "-euc", script])
    }

    /// Where the volume of a pod is on this machine.
    ///
    /// # Errors
    ///
    /// The pod or its volume is not there.
    pub fn directory(&self, namespace: &str, pod: &str) -> Result<std::path::PathBuf> {
        let uid = self.get("pod", namespace, pod)?.context("the pod")?["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let claim = self.get("pvc", namespace, pod)?.context("the claim")?;
        let volume = claim["spec"]["volumeName"].as_str().context("a volume")?;
        let path = self.0.kubelet_root().join(format!("pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount"));
        ensure!(path.is_dir(), "{} is not there", path.display());
        Ok(path)
    }

    /// A backup of a claim.
    ///
    /// # Errors
    ///
    /// The cluster refuses it.
    pub fn back_up(&self, namespace: &str, name: &str, claim: &str) -> Result<()> {
        self.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": claim } } })])
    }

    /// Snapshots and volumes take two seconds more from now on, so that each phase can be hit; or no longer.
    ///
    /// # Errors
    ///
    /// The driver's file cannot be written.
    pub fn slow_storage(&self, slow: bool) -> Result<()> {
        let path = self.0.faults(DRIVER);
        if slow {
            let text = r#"{"createSnapshot":{"delaySeconds":2},"createVolume":{"delaySeconds":2}}"#;
            let fresh = path.with_extension("new");
            fs::write(&fresh, text)?;
            fs::rename(fresh, path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Everything that could have been left behind by backups and restores, and was not there before any of them.
    ///
    /// # Errors
    ///
    /// The cluster does not answer.
    pub fn left_behind(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let lists = [
            ("pods", Some(NAMESPACE)),
            ("pvc", Some(NAMESPACE)),
            ("volumesnapshots", None),
            ("volumesnapshotcontents", None),
            ("secrets", Some(NAMESPACE)),
            ("pv", None),
        ];
        for (kind, namespace) in lists {
            for object in look::all(self.0, kind, namespace)? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let labelled = object["metadata"]["labels"]["carrack.dev/owner-uid"].is_string();
                let temporary = object["spec"]["claimRef"]["namespace"] == NAMESPACE;
                if labelled || temporary {
                    found.push(format!("{kind} {name}"));
                }
            }
        }
        Ok(found)
    }

    /// Fails if anything was left behind; volumes may take a moment to go.
    ///
    /// # Errors
    ///
    /// Something is there after two minutes; the error names it.
    pub fn nothing_is_left(&self) -> Result<()> {
        let mut left = Vec::new();
        let waited = until("nothing is left behind", 120, || {
            left = self.left_behind()?;
            Ok(left.is_empty())
        });
        waited.with_context(|| format!("left behind: {left:?}"))
    }
}

fn user(namespace: &str, name: &str, block: bool) -> Value {
    let mut container = json!({ "name": "user", "image": BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sleep", "100000"], "terminationMessagePolicy": "FallbackToLogsOnError" });
    if block {
        container["volumeDevices"] = json!([{ "name": "data", "devicePath": "/dev/data" }]);
    } else {
        container["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": name } }] } })
}
