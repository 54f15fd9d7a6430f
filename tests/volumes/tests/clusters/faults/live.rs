//! Volumes that are read or written themselves: those without snapshots, and those that a restore goes into.

use super::*;

impl Test<'_> {
    /// Read beside its pod, and the backup says that it is not of one moment.
    pub(super) fn without_snapshots(&self) -> Result<()> {
        let mut live = mover_type("live", "main", "256Mi");
        live["spec"]["withoutSnapshots"] = json!("Live");
        self.here.apply(&[live])?;
        self.here.workload("shop", "plain", "carrack-nosnapshots", false)?;
        self.here.shell(
            "shop",
            "plain",
            "head -c 3000000 /dev/urandom > /data/random; echo as it was > /data/small; sync",
        )?;
        self.backup("live", "live", "plain")?;
        self.is_live("live")?;
        self.node_directory()?;
        self.device_in_use()
    }

    fn is_live(&self, name: &str) -> Result<()> {
        let ends = self.ends("datamoverbackup", name, "Completed")?;
        let consistent = ends.status["conditions"].as_array().into_iter().flatten();
        let marked =
            consistent.clone().any(|found| found["type"] == "Consistent" && found["status"] == "False");
        ensure!(ends.text("consistency") == "Live" && marked, "{}", ends.status);
        Ok(())
    }

    /// A volume without any driver.
    fn node_directory(&self) -> Result<()> {
        let directory = tempfile::TempDir::with_prefix("carrack-local-")?;
        std::fs::write(directory.path().join("words"), "on the node\n")?;
        let node = self.here.0.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
        self.here.apply(&[
            json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "on-the-node" },
                "spec": { "capacity": { "storage": "10Mi" }, "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain", "local": { "path": directory.path() },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchFields": [
                        { "key": "metadata.name", "operator": "In", "values": [node] }] }] } } } }),
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "local", "namespace": "shop" },
                "spec": { "storageClassName": "", "volumeName": "on-the-node", "accessModes": ["ReadWriteOnce"],
                    "resources": { "requests": { "storage": "10Mi" } } } }),
        ])?;
        self.here.wait_for_phase("pvc", "shop", "local", &["Bound"], 30)?;
        self.backup("local", "live", "local")?;
        self.is_live("local")?;
        self.restore_in_place("local", "local", "live", "Merge")?;
        self.ends("datamoverrestore", "local", "Completed")?;
        let words = std::fs::read_to_string(directory.path().join("words"))?;
        ensure!(words == "on the node\n", "{words:?}");
        self.here.0.kubectl(&["delete", "pvc", "local", "-n", "shop", "--timeout=60s"])?;
        self.here.0.kubectl(&["delete", "pv", "on-the-node", "--timeout=60s"]).map(drop)
    }

    /// A device has no files of which each is whole.
    fn device_in_use(&self) -> Result<()> {
        self.here.workload("shop", "device", "carrack-nosnapshots", true)?;
        self.backup("device", "live", "device")?;
        self.waits_for("datamoverbackup", "device", "used by device")?;
        self.delete_pod("device")?;
        self.is_live("device")
    }

    /// Only when asked, only while nobody uses it, and what was stopped half-way says so.
    pub(super) fn restore_into_a_volume(&self) -> Result<()> {
        self.restore_in_place("refused", "plain", "standard", "Refuse")?;
        let ends = self.ends("datamoverrestore", "refused", "Failed")?;
        ensure!(
            ends.reason() == "DestinationInUse" && ends.text("message").contains("existingVolume"),
            "{}",
            ends.status
        );
        let before = self.here.shell("shop", "plain", "sha256sum /data/random")?;
        self.here.shell(
            "shop",
            "plain",
            "echo changed > /data/small; echo more > /data/extra; rm /data/random; sync",
        )?;

        self.restore_in_place("stopped", "plain", SLOW, "Merge")?;
        self.waits_for("datamoverrestore", "stopped", "used by plain")?;
        self.delete_pod("plain")?;
        self.phase("datamoverrestore", "stopped", &["Running"])?;
        self.stop("datamoverrestore", "stopped")?;
        let ends = self.ends("datamoverrestore", "stopped", "Canceled")?;
        ensure!(ends.text("message").contains("holds a part of it"), "{}", ends.status);

        self.restore_in_place("merged", "plain", "live", "Merge")?;
        let ends = self.ends("datamoverrestore", "merged", "Completed")?;
        ensure!(ends.status["inPlace"] == true, "{}", ends.status);
        self.here.use_claim("shop", "plain", false)?;
        let merged =
            self.here.shell("shop", "plain", "sha256sum /data/random; cat /data/small /data/extra")?;
        ensure!(merged == format!("{before}as it was\nmore\n"), "{merged:?}");
        self.delete_pod("plain")?;

        self.restore_in_place("replaced", "plain", "live", "Replace")?;
        self.ends("datamoverrestore", "replaced", "Completed")?;
        self.here.use_claim("shop", "plain", false)?;
        let replaced = self.here.shell(
            "shop",
            "plain",
            "sha256sum /data/random; cat /data/small; ls /data | grep -v lost",
        )?;
        ensure!(replaced == format!("{before}as it was\nrandom\nsmall\n"), "{replaced:?}");
        Ok(())
    }

    fn restore_in_place(&self, name: &str, claim: &str, mover_type: &str, existing: &str) -> Result<()> {
        let backup = if claim == "plain" { "live" } else { claim };
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "destinationClaimRef": { "name": claim }, "source": { "backup": backup },
                "dataMoverType": mover_type, "existingVolume": existing } })])
    }

    fn delete_pod(&self, name: &str) -> Result<()> {
        self.here.0.kubectl(&["delete", "pod", name, "-n", "shop", "--timeout=60s"]).map(drop)
    }

    /// One mover on each node: the second waits for the only node that can take it, and goes there once there is room.
    pub(super) fn one_on_each_node(&self) -> Result<()> {
        let mut single = mover_type("single", SLOW, "256Mi");
        single["spec"]["concurrency"] = json!({ "perNode": 1, "perCluster": 10 });
        self.here.apply(&[
            single,
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "closed" },
                "spec": { "taints": [{ "key": "closed", "effect": "NoSchedule" }] } }),
        ])?;
        self.change()?;
        self.backup("before", "single", "data")?;
        self.phase("datamoverbackup", "before", &["Running"])?;
        self.backup("behind", "single", "data")?;
        let mut together = false;
        until("the second waits for a node", 30, || {
            let status =
                self.here.get("datamoverbackup", "shop", "behind")?.context("it is there")?["status"].clone();
            Ok(status["message"].as_str().is_some_and(|text| text.contains("node")))
        })?;
        until("both are done", 120, || {
            let phase = |name: &str| -> Result<Value> {
                Ok(self.here.get("datamoverbackup", "shop", name)?.context("it is there")?["status"]["phase"]
                    .clone())
            };
            let (before, behind) = (phase("before")?, phase("behind")?);
            together |= before == "Running" && behind == "Running";
            Ok(before == "Completed" && behind == "Completed")
        })?;
        ensure!(!together, "two movers ran on the node");
        self.ends("datamoverbackup", "behind", "Completed")?;
        self.here.0.kubectl(&["delete", "node", "closed"])?;
        // That not all nodes give pods users of their own is believed for some minutes.
        self.carrack.kill()?;
        self.carrack.start()
    }
}
