//! The controller dies, is told to stop, or has much to do.

use super::*;

impl Test<'_> {
    pub(super) fn backup_survives_the_controller(&self) -> Result<()> {
        self.here.slow_storage(true)?;
        for phase in ["Snapshotting", "Preparing", "Running", "Completed"] {
            let name = format!("killed-{}", phase.to_lowercase());
            self.change()?;
            self.backup(&name, SLOW, "data")?;
            self.phase("datamoverbackup", &name, &[phase])?;
            self.carrack.kill()?;
            sleep(Duration::from_secs(1));
            self.carrack.start()?;
            self.ends("datamoverbackup", &name, "Completed").with_context(|| format!("killed in {phase}"))?;
        }
        self.here.slow_storage(false)
    }

    fn restore(&self, name: &str, mover_type: &str) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "dataMoverType": mover_type, "destinationClaimRef": { "name": name },
                "source": { "backup": "killed-completed" },
                "newVolume": { "storageClassName": "carrack-ext4" } } })])
    }

    pub(super) fn restore_survives_the_controller(&self) -> Result<()> {
        self.here.slow_storage(true)?;
        for phase in ["Preparing", "Running", "Binding", "Completed"] {
            let name = format!("restored-{}", phase.to_lowercase());
            self.restore(&name, SLOW)?;
            self.phase("datamoverrestore", &name, &[phase])?;
            self.carrack.kill()?;
            sleep(Duration::from_secs(1));
            let restore = self.here.get("datamoverrestore", "shop", &name)?.context("the restore")?;
            let claim = self.here.get("pvc", "shop", &name)?;
            // A volume that binds is full, and others end what the controller has begun.
            let is_full = ["Binding", "Completed"].iter().any(|phase| restore["status"]["phase"] == **phase);
            ensure!(
                is_full || claim.is_none_or(|claim| claim["status"]["phase"] != "Bound"),
                "bound before it was full"
            );
            self.carrack.start()?;
            self.ends("datamoverrestore", &name, "Completed")
                .with_context(|| format!("killed in {phase}"))?;
        }
        self.here.slow_storage(false)?;
        self.here.use_claim("shop", "restored-binding", false)?;
        let sums = |pod: &str| self.here.shell("shop", pod, "sha256sum < /data/random; cat /data/small");
        let (before, after) = (sums("data")?, sums("restored-binding")?);
        ensure!(before == after, "{before} {after}");
        Ok(())
    }

    pub(super) fn cancel(&self) -> Result<()> {
        self.here.slow_storage(true)?;
        for phase in ["Snapshotting", "Preparing", "Running"] {
            let name = format!("canceled-{}", phase.to_lowercase());
            self.change()?;
            self.backup(&name, SLOW, "data")?;
            self.phase("datamoverbackup", &name, &[phase])?;
            self.stop("datamoverbackup", "shop", &name)?;
            self.ends("datamoverbackup", &name, "Canceled")
                .with_context(|| format!("canceled in {phase}"))?;
        }
        for phase in ["Preparing", "Running"] {
            let name = format!("unrestored-{}", phase.to_lowercase());
            self.restore(&name, SLOW)?;
            self.phase("datamoverrestore", &name, &[phase])?;
            self.stop("datamoverrestore", "shop", &name)?;
            self.ends("datamoverrestore", &name, "Canceled")
                .with_context(|| format!("canceled in {phase}"))?;
            ensure!(self.here.get("pvc", "shop", &name)?.is_none(), "a claim was made for what was canceled");
        }
        self.here.slow_storage(false)
    }

    pub(super) fn ten_at_once(&self) -> Result<()> {
        let mut narrow = mover_type("narrow", "main", "256Mi");
        narrow["spec"]["concurrency"] = json!({ "perCluster": 3, "perNode": 10 });
        let names: Vec<String> = (0..10).map(|number| format!("many-{number}")).collect();
        let claim = |name: &String| {
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "storageClassName": "carrack-btrfs", "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "100Mi" } } } })
        };
        self.here.apply(&[narrow])?;
        self.here.apply(&names.iter().map(claim).collect::<Vec<_>>())?;
        for name in &names {
            self.backup(name, "narrow", name)?;
        }
        let (mut most, mut crowd) = (0, Vec::new());
        until("all ten are done", 600, || {
            let text = self.here.0.kubectl(&["get", "datamoverbackups", "-n", "shop", "-o", "json"])?;
            let list: Value = serde_json::from_str(&text)?;
            let of_ten = |found: &&Value| found["spec"]["dataMoverType"] == "narrow";
            let phases: Vec<Value> = list["items"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .filter(of_ten)
                .map(|found| found["status"]["phase"].clone())
                .collect();
            let at_work =
                |phase: &&Value| ["Snapshotting", "Preparing", "Running"].iter().any(|name| **phase == *name);
            most = most.max(phases.iter().filter(at_work).count());
            if most > 3 {
                crowd = phases;
                return Ok(true);
            }
            Ok(phases.iter().filter(|phase| **phase == "Completed").count() == 10)
        })?;
        ensure!(most <= 3, "{most} at once: {crowd:?}");
        ensure!(most >= 2, "they ran one after the other");
        names.iter().try_for_each(|name| self.ends("datamoverbackup", name, "Completed").map(drop))
    }

    pub(super) fn deleted_with_snapshot(&self) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "brief", "namespace": "shop" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "data" }, "deletionPolicy": "Delete" } })])?;
        let snapshot = self.ends("datamoverbackup", "brief", "Completed")?.text("snapshotID").to_owned();
        self.here.0.kubectl(&["delete", "datamoverbackup", "-n", "shop", "brief", "--timeout=180s"])?;
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": "brief", "namespace": "shop" },
            "spec": { "destinationClaimRef": { "name": "brief" }, "source": { "snapshotID": snapshot },
                "newVolume": { "storageClassName": "carrack-ext4", "resources": { "requests": { "storage": "400Mi" } } } } })])?;
        let ends = self.ends("datamoverrestore", "brief", "Failed")?;
        ensure!(ends.reason() == "SourceNotFound", "{}", ends.status);
        Ok(())
    }

    /// A claim that names a backup never binds to less than all of it.
    pub(super) fn populator_survives_the_controller(&self) -> Result<()> {
        self.here.slow_storage(true)?;
        self.here.apply(&[json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "filled", "namespace": "shop" },
            "spec": { "storageClassName": "carrack-ext4", "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "400Mi" } },
                "dataSourceRef": { "apiGroup": "carrack.dev", "kind": "DataMoverBackup", "name": "killed-completed" } } })])?;
        for phase in ["Preparing", "Running", "Binding"] {
            let mut found = String::new();
            until(&format!("the claim's restore is {phase}"), 240, || {
                let path = "jsonpath={.items[?(@.spec.destinationClaimRef.name=='filled')].status.phase}";
                found = self.here.0.kubectl(&["get", "datamoverrestores", "-n", "shop", "-o", path])?;
                // A small volume may be full before it is looked at.
                Ok(found == phase || found == "Completed")
            })?;
            self.carrack.kill()?;
            let claim = self.here.get("pvc", "shop", "filled")?.context("the claim")?;
            ensure!(found != "Preparing" || claim["status"]["phase"] == "Pending", "{claim}");
            self.carrack.start()?;
        }
        self.here.slow_storage(false)?;
        self.here.use_claim("shop", "filled", false)?;
        let sum = |pod: &str| self.here.shell("shop", pod, "sha256sum < /data/random; cat /data/small");
        let (before, after) = (sum("restored-binding")?, sum("filled")?);
        ensure!(before == after, "{before} {after}");
        let path = "jsonpath={.items[?(@.spec.destinationClaimRef.name=='filled')].metadata.name}";
        let restore = self.here.0.kubectl(&["get", "datamoverrestores", "-n", "shop", "-o", path])?;
        self.ends("datamoverrestore", &restore, "Completed").map(drop)
    }
}
