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
            "head -c 12000000 /dev/urandom > /data/random; echo as it was > /data/small; sync",
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
        self.here.wait_for_phase("pvc", "shop", "local", &["Bound"], 90)?;
        self.backup("local", "live", "local")?;
        self.is_live("local")?;
        self.restore_in_place("local", "local", "live", "Merge")?;
        self.ends("datamoverrestore", "local", "Completed")?;
        let words = std::fs::read_to_string(directory.path().join("words"))?;
        ensure!(words == "on the node\n", "{words:?}");
        self.here.0.kubectl(&["delete", "pvc", "local", "-n", "shop", "--timeout=60s"])?;
        self.here.0.kubectl(&["delete", "pv", "on-the-node", "--timeout=60s"]).map(drop)
    }

    /// A claim of another namespace names the volume as its own: nothing of it is read or written.
    pub(super) fn thief(&self) -> Result<()> {
        self.here.shell("shop", "plain", "echo unharmed > /data/small; sync")?;
        let robbed = self.here.get("pvc", "shop", "plain")?.context("the claim")?;
        let volume = robbed["spec"]["volumeName"].as_str().context("its volume")?;
        let snapshot =
            &self.here.get("datamoverbackup", "shop", "live")?.context("a backup")?["status"]["snapshotID"];
        let metadata = json!({ "name": "plain", "namespace": "thief" });
        self.here.apply(&[
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "thief" } }),
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata,
                "spec": { "storageClassName": "carrack-nosnapshots", "volumeName": volume, "accessModes": ["ReadWriteOnce"],
                    "resources": { "requests": { "storage": "400Mi" } } } }),
            json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup", "metadata": metadata,
                "spec": { "type": "PVC", "sourceClaimRef": { "name": "plain" }, "dataMoverType": "live" } }),
            json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore", "metadata": metadata,
                "spec": { "destinationClaimRef": { "name": "plain" }, "source": { "snapshotID": snapshot },
                    "dataMoverType": "live", "existingVolume": "Replace" } }),
        ])?;
        for kind in ["datamoverbackup", "datamoverrestore"] {
            until(&format!("{kind} thief/plain is told that the volume is not its own"), 60, || {
                let status = self.here.get(kind, "thief", "plain")?.context("it is there")?["status"].clone();
                let said = status["message"].as_str().unwrap_or_default();
                Ok(status["phase"] == "Pending" && said.contains("not bound to it"))
            })?;
            self.stop(kind, "thief", "plain")?;
            let ends = self.here.ends(kind, "thief", "plain", 120)?;
            ensure!(ends.text("phase") == "Canceled" && ends.status["node"].is_null(), "{}", ends.status);
        }
        let small = self.here.shell("shop", "plain", "cat /data/small")?;
        ensure!(small == "unharmed\n", "{small:?}");
        let claimed = self.here.get("pv", "", volume)?.context("the volume")?["spec"]["claimRef"].clone();
        ensure!(claimed["uid"] == robbed["metadata"]["uid"], "{claimed}");
        self.here.0.kubectl(&["delete", "namespace", "thief", "--timeout=120s"]).map(drop)
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
        self.stop("datamoverrestore", "shop", "stopped")?;
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

    /// Asked for in the same moment, and done one after the other.
    pub(super) fn two_into_one_volume(&self) -> Result<()> {
        let before = self.here.shell("shop", "plain", "sha256sum /data/random")?;
        self.here.shell("shop", "plain", "head -c 12000000 /dev/urandom > /data/random; sync")?;
        self.delete_pod("plain")?;
        let names = ["one", "other"];
        self.restore_in_place(names[0], "plain", SLOW, "Merge")?;
        self.restore_in_place(names[1], "plain", SLOW, "Replace")?;
        let (mut together, mut waited) = (false, false);
        until("both are done", 120, || {
            let status = |name| -> Result<Value> {
                Ok(self.here.get("datamoverrestore", "shop", name)?.context("it is there")?["status"].clone())
            };
            let found = [status(names[0])?, status(names[1])?];
            together |= found.iter().all(|status| status["phase"] == "Running");
            waited |= found.iter().any(|status| {
                let said = status["message"].as_str().unwrap_or_default();
                status["phase"] == "Pending" && said.contains("restored into by DataMoverRestore shop/")
            });
            Ok(found.iter().all(|status| status["phase"] == "Completed"))
        })?;
        ensure!(!together, "two movers had the volume");
        ensure!(waited, "nobody was told why it waits");
        for name in names {
            self.ends("datamoverrestore", name, "Completed")?;
        }
        self.here.use_claim("shop", "plain", false)?;
        let after = self.here.shell("shop", "plain", "sha256sum /data/random")?;
        ensure!(after == before, "{after:?}");
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
        // The first is at work for 40 s: all that the second needs is made meanwhile, also on a busy machine.
        self.limited_way("slowest", 300_000)?;
        let mut single = mover_type("single", "slowest", "256Mi");
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
        until("the second waits for a node", 90, || {
            let status =
                self.here.get("datamoverbackup", "shop", "behind")?.context("it is there")?["status"].clone();
            Ok(status["message"].as_str().is_some_and(|text| text.contains("node")))
        })?;
        until("both are done", 240, || {
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
