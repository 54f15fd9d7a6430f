//! What a backup needs goes away under way.

use super::*;

impl Test<'_> {
    pub(super) fn store_stops(&self) -> Result<()> {
        self.change()?;
        self.backup("patient", SLOW, "data")?;
        self.phase("datamoverbackup", "patient", &["Running"])?;
        self.bed.kill_minio()?;
        sleep(Duration::from_secs(60));
        self.bed.start_minio_again()?;
        self.ends("datamoverbackup", "patient", "Completed").map(drop)
    }

    pub(super) fn credentials_revoked(&self) -> Result<()> {
        let minio = self.bed.minio().context("the object store")?;
        let secret = |key: &str| {
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "store", "namespace": NAMESPACE },
            "stringData": { "AWS_ACCESS_KEY_ID": minio.access_key, "AWS_SECRET_ACCESS_KEY": key } })
        };
        self.here.apply(&[secret("revoked")])?;
        self.backup("revoked", "standard", "data")?;
        let ends = self.ends("datamoverbackup", "revoked", "Failed")?;
        ensure!(ends.reason() == "Denied", "{}", ends.status);
        self.here.apply(&[secret(minio.secret_key)])?;
        self.backup("allowed", "standard", "data")?;
        self.ends("datamoverbackup", "allowed", "Completed").map(drop)
    }

    pub(super) fn namespace_deleted(&self) -> Result<()> {
        self.here.workload("gone", "data", "carrack-btrfs", false)?;
        self.here.shell("gone", "data", "head -c 20000000 /dev/urandom > /data/random; sync")?;
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "gone", "namespace": "gone" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "data" }, "dataMoverType": SLOW } })])?;
        self.here.wait_for_phase("datamoverbackup", "gone", "gone", &["Running"], 90)?;
        self.here.0.kubectl(&["delete", "namespace", "gone", "--timeout=120s"]).map(drop)
    }

    /// A quota has no room for the claim. The restore says so and keeps what it has filled; when it is stopped, that goes.
    pub(super) fn claim_refused(&self) -> Result<()> {
        self.backup("generous", "standard", "data")?;
        let ends = self.ends("datamoverbackup", "generous", "Completed")?;
        self.here.apply(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "poor" } }),
            json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "none", "namespace": "poor" },
                "spec": { "hard": { "persistentvolumeclaims": "0" } } }),
        ])?;
        until("the quota counts", 60, || {
            let quota = self.here.get("resourcequota", "poor", "none")?.context("it is there")?;
            Ok(quota["status"]["hard"]["persistentvolumeclaims"] == "0")
        })?;
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": "refused", "namespace": "poor" },
            "spec": { "destinationClaimRef": { "name": "data" }, "source": { "snapshotID": ends.status["snapshotID"] },
                "dataMoverType": "standard", "newVolume": { "storageClassName": "carrack-btrfs",
                    "resources": { "requests": { "storage": "400Mi" } } } } })])?;
        let status = || -> Result<Value> {
            let restore = self.here.get("datamoverrestore", "poor", "refused")?.context("it is there")?;
            Ok(restore["status"].clone())
        };
        until("the restore says that its claim is refused", 90, || {
            let status = status()?;
            let said = status["message"].as_str().unwrap_or_default();
            Ok(status["phase"] == "Binding" && said.contains("exceeded quota"))
        })?;
        let volume = status()?["volumeName"].as_str().context("the full volume")?.to_owned();
        self.here.get("pv", "", &volume)?.context("it is kept")?;
        self.stop("datamoverrestore", "poor", "refused")?;
        let ends = self.here.ends("datamoverrestore", "poor", "refused", 120)?;
        ensure!(ends.text("phase") == "Canceled", "{}", ends.status);
        until("its volume is gone", 60, || Ok(self.here.get("pv", "", &volume)?.is_none()))?;
        self.here.0.kubectl(&["delete", "namespace", "poor", "--timeout=120s"]).map(drop)
    }

    /// What the snapshot holds is backed up, though the claim and its volume are gone.
    pub(super) fn claim_deleted(&self) -> Result<()> {
        self.here.workload("shop", "brief", "carrack-xfs", false)?;
        self.here.shell("shop", "brief", "echo last words > /data/words; sync")?;
        self.here.slow_storage(true)?;
        self.backup("orphan", "standard", "brief")?;
        self.phase("datamoverbackup", "orphan", &["Snapshotting"])?;
        // Bound: before that, whoever takes snapshots does not take one of a claim that is being deleted.
        let path = "jsonpath={range .items[*]}{.metadata.name} {.status.boundVolumeSnapshotContentName}{\"\\n\"}{end}";
        until("the snapshot is there", 60, || {
            let found = self.here.0.kubectl(&["get", "volumesnapshots", "-n", "shop", "-o", path])?;
            Ok(found.lines().any(|line| line.starts_with("backup-") && line.contains(" snapcontent-")))
        })?;
        self.here.0.kubectl(&["delete", "pod", "brief", "-n", "shop", "--grace-period=0", "--force"])?;
        self.here.0.kubectl(&["delete", "pvc", "brief", "-n", "shop", "--timeout=90s"])?;
        self.ends("datamoverbackup", "orphan", "Completed")?;
        self.here.slow_storage(false)?;
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": "orphan", "namespace": "shop" },
            "spec": { "destinationClaimRef": { "name": "brief" }, "source": { "backup": "orphan" },
                "newVolume": { "storageClassName": "carrack-xfs" } } })])?;
        self.ends("datamoverrestore", "orphan", "Completed")?;
        self.here.use_claim("shop", "brief", false)?;
        let words = self.here.shell("shop", "brief", "cat /data/words")?;
        ensure!(words == "last words\n", "{words:?}");
        Ok(())
    }
}
