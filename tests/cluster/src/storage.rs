//! The storage of a cluster: two CSI drivers, each with its companions.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::authority::ADMIN;
use crate::cluster::Cluster;
use crate::control_plane::RETRY;
use crate::machine::{tell, wait_until};
use crate::part::{Part, Probe};
use crate::programs::program;

/// The driver of all classes but one.
pub const DRIVER: &str = "test.csi.carrack.dev";
/// The driver of the class `carrack-nosnapshots`.
pub const NO_SNAPSHOTS_DRIVER: &str = "nosnapshots.csi.carrack.dev";
/// Where the changed blocks of snapshots are asked for, the port that its program has everywhere.
const METADATA_PORT: u16 = 50051;
/// Where its program says whether it is ready.
const METADATA_HEALTH: &str = "127.0.0.1:10261";
/// How long kubelet may take to know a driver.
const REGISTER_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

impl Cluster {
    /// The drivers and their companions, not started yet.
    pub(crate) fn storage_parts(&self) -> Result<Vec<Part>> {
        let mut parts = vec![
            self.csi_driver("csi-driver", DRIVER, &[])?,
            self.companion("csi-provisioner", "", DRIVER, &PROVISIONER)?,
            self.companion("csi-resizer", "", DRIVER, &[])?,
            self.companion("csi-snapshotter", "", DRIVER, &["--extra-create-metadata", RETRY])?,
            self.snapshot_metadata()?,
        ];
        let name = NO_SNAPSHOTS_DRIVER;
        parts.push(self.csi_driver("csi-driver-nosnapshots", name, &["--no-snapshots"])?);
        parts.push(self.companion("csi-provisioner", "-nosnapshots", name, &PROVISIONER)?);
        parts.push(self.companion("csi-resizer", "-nosnapshots", name, &[])?);
        Ok(parts)
    }

    fn csi_driver(&self, part: &str, driver: &str, more: &[&str]) -> Result<Part> {
        let folder = self.folder.join("csi").join(driver);
        fs::create_dir_all(folder.join("state")).with_context(|| format!("make {}", folder.display()))?;
        let socket = folder.join("csi.sock");
        let mut arguments = vec![
            format!("--endpoint=unix://{}", socket.display()),
            format!("--state={}", folder.join("state").display()),
            format!("--node={}", self.node()),
            format!("--name={driver}"),
            format!("--registration-dir={}", self.kubelet_root().join("plugins_registry").display()),
            format!("--faults={}", self.faults(driver).display()),
        ];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        Ok(self.part(part, program("carrack-test-csi")?, &arguments, Probe::Socket(socket)))
    }

    /// The parts that talk to the driver which the part `driver` is; none if it is no driver.
    pub(crate) fn companions_of(&self, driver: &str) -> Vec<String> {
        let Some(suffix) = driver.strip_prefix("csi-driver") else { return Vec::new() };
        let names = ["csi-provisioner", "csi-resizer", "csi-snapshotter", "csi-snapshot-metadata"]
            .map(|name| format!("{name}{suffix}"));
        self.parts().into_iter().filter(|part| names.contains(part)).collect()
    }

    /// A program that turns objects of Kubernetes into calls of the driver.
    fn companion(&self, name: &str, suffix: &str, driver: &str, more: &[&str]) -> Result<Part> {
        let socket = self.folder.join("csi").join(driver).join("csi.sock");
        let mut arguments =
            vec![self.kubeconfig_of(ADMIN), format!("--csi-address=unix://{}", socket.display())];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        Ok(self.part(&format!("{name}{suffix}"), program(name)?, &arguments, Probe::Runs))
    }

    /// Serves the changed blocks of snapshots to backup programs.
    fn snapshot_metadata(&self) -> Result<Part> {
        let arguments = [
            &format!("--port={METADATA_PORT}"),
            &format!("--http-endpoint={METADATA_HEALTH}"),
            &format!("--tls-cert={}", self.authority.file("snapshot-metadata.crt")),
            &format!("--tls-key={}", self.authority.file("snapshot-metadata.key")),
            "--kube-api-qps=100",
            "--kube-api-burst=100",
        ];
        let mut part = self.companion("csi-snapshot-metadata", "", DRIVER, &arguments)?;
        part.probe = Probe::Url(format!("http://{METADATA_HEALTH}/health"));
        Ok(part)
    }

    /// Adds the drivers, the classes, and where the changed blocks of snapshots are asked for.
    pub(crate) fn add_storage_classes(&self) -> Result<()> {
        // JSON is YAML too.
        let classes = include_str!("../manifests/storage.yaml");
        self.apply(&format!("{classes}---\n{:#}\n", self.metadata_service()?)).map(drop)
    }

    fn metadata_service(&self) -> Result<Value> {
        Ok(json!({
            "apiVersion": "cbt.storage.k8s.io/v1beta1", "kind": "SnapshotMetadataService",
            "metadata": {"name": DRIVER},
            "spec": {
                "audience": format!("snapshot-metadata.{DRIVER}"),
                "address": format!("{}:{METADATA_PORT}", self.address()),
                "caCert": self.authority.bundle()?,
            },
        }))
    }

    /// Waits until kubelet knows the drivers, without which the first volumes of a test fail.
    pub(crate) fn wait_for_drivers(&self) -> Result<()> {
        let registered = wait_until(REGISTER_LIMIT, || {
            let object = format!("csinode/{}", self.node());
            let known = self.kubectl(&["get", &object, "-o", "jsonpath={.spec.drivers[*].name}"])?;
            Ok([DRIVER, NO_SNAPSHOTS_DRIVER]
                .iter()
                .all(|driver| known.split(' ').any(|name| name == *driver)))
        });
        registered.with_context(|| {
            let (kubelet, driver) = (self.last_words("kubelet"), self.last_words("csi-driver"));
            format!("wait until kubelet knows the CSI drivers; {kubelet}\n{driver}")
        })?;
        tell(&format!("{}/volumes are there", self.name()));
        Ok(())
    }
}

/// Volumes say where they are, and drivers hear for whom they make them.
const PROVISIONER: [&str; 3] = ["--feature-gates=Topology=true", "--extra-create-metadata", RETRY];
