//! Mover pods and their node are lost.

use super::*;

impl Test<'_> {
    pub(super) fn mover_killed(&self) -> Result<()> {
        self.change()?;
        self.backup("shot", SLOW, "data")?;
        self.phase("datamoverbackup", "shot", &["Running"])?;
        let pods = "carrack.dev/task=backup";
        self.here.0.kubectl(&[
            "delete",
            "pod",
            "-n",
            NAMESPACE,
            "-l",
            pods,
            "--grace-period=0",
            "--force",
        ])?;
        let ends = self.ends("datamoverbackup", "shot", "Completed")?;
        ensure!(ends.number("retries") == 1, "{}", ends.status);
        Ok(())
    }

    pub(super) fn out_of_memory(&self) -> Result<()> {
        self.here.apply(&[mover_type("tiny", "main", "12Mi")])?;
        self.change()?;
        self.backup("tiny", "tiny", "data")?;
        let ends = self.ends("datamoverbackup", "tiny", "Failed")?;
        ensure!(ends.text("message").contains("memory"), "{}", ends.status);
        Ok(())
    }

    pub(super) fn mover_evicted(&self) -> Result<()> {
        self.change()?;
        self.backup("evicted", SLOW, "data")?;
        self.phase("datamoverbackup", "evicted", &["Running"])?;
        let pod = self.here.0.kubectl(&[
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "-l",
            "carrack.dev/task=backup",
            "-o",
            "jsonpath={.items[0].metadata.name}",
        ])?;
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": pod, "namespace": NAMESPACE } });
        let file = self.bed.directory().join("eviction.json");
        std::fs::write(&file, eviction.to_string())?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
        self.here.0.kubectl(&["create", "--raw", &path, "-f", &file.display().to_string()])?;
        let ends = self.ends("datamoverbackup", "evicted", "Completed")?;
        ensure!(ends.number("retries") == 1, "{}", ends.status);
        Ok(())
    }

    /// The node goes with all that ran there, as when a machine is taken away, and another one comes.
    pub(super) fn node_gone(&self) -> Result<()> {
        self.change()?;
        self.backup("homeless", SLOW, "data")?;
        self.phase("datamoverbackup", "homeless", &["Running"])?;
        self.here.0.kill("kubelet")?;
        self.here.0.kubectl(&["delete", "node", &self.here.0.node()])?;
        self.here.0.kubectl(&["delete", "pods", "--all", "-n", NAMESPACE, "--grace-period=0", "--force"])?;
        until("the backup waits for a node", 60, || {
            let status =
                self.here.get("datamoverbackup", "shop", "homeless")?.context("it is there")?["status"]
                    .clone();
            Ok(status["retries"] == 1
                && status["message"].as_str().is_some_and(|text| text.contains("no node")))
        })?;
        self.here.0.start("kubelet")?;
        self.ends("datamoverbackup", "homeless", "Completed")?;
        // What used the volume was on the node too.
        self.here.0.kubectl(&["delete", "pod", "-n", "shop", "--all", "--grace-period=0", "--force"])?;
        self.here.use_claim("shop", "data", false)
    }

    /// Movers have users of their own, until a volume needs more than those: then once more, with nothing lost.
    pub(super) fn users_of_its_own(&self) -> Result<()> {
        self.change()?;
        self.backup("own-users", SLOW, "data")?;
        self.phase("datamoverbackup", "own-users", &["Running"])?;
        let selector = "carrack.dev/task=backup";
        let users =
            ["get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "jsonpath={.items[*].spec.hostUsers}"];
        let users = self.here.0.kubectl(&users)?;
        ensure!(users == "false", "users of its own: {users:?}");
        let ends = self.ends("datamoverbackup", "own-users", "Completed")?;
        ensure!(ends.status["hostUsers"].is_null(), "{}", ends.status);

        self.here.shell(
            "shop",
            "data",
            "echo theirs > /data/foreign; chown 100000:200000 /data/foreign; sync",
        )?;
        self.backup("foreign-users", "standard", "data")?;
        let ends = self.ends("datamoverbackup", "foreign-users", "Completed")?;
        ensure!(ends.status["hostUsers"] == true && ends.number("retries") == 1, "{}", ends.status);
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": "foreign-users", "namespace": "shop" },
            "spec": { "destinationClaimRef": { "name": "foreign-users" }, "source": { "backup": "foreign-users" },
                "newVolume": { "storageClassName": "carrack-ext4" } } })])?;
        let ends = self.ends("datamoverrestore", "foreign-users", "Completed")?;
        ensure!(ends.status["hostUsers"] == true && ends.number("retries") == 1, "{}", ends.status);
        self.here.use_claim("shop", "foreign-users", false)?;
        let owner =
            self.here.shell("shop", "foreign-users", "stat -c %u:%g /data/foreign; cat /data/foreign")?;
        ensure!(owner == "100000:200000\ntheirs\n", "{owner:?}");
        self.here.shell("shop", "data", "rm /data/foreign; sync").map(drop)
    }
}
