//! What a person asked for wrongly, or did not ask Carrack.

use super::*;

impl Test<'_> {
    pub(super) fn foreign(&self) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverType", "metadata": { "name": "theirs" },
            "spec": { "provisioner": "other.example/mover" } })])?;
        self.backup("theirs", "theirs", "data")?;
        sleep(Duration::from_secs(3));
        for (kind, namespace) in [("datamovertype", ""), ("datamoverbackup", "shop")] {
            let found = self.here.get(kind, namespace, "theirs")?.context("it is there")?;
            ensure!(
                found["status"].is_null() && found["metadata"]["finalizers"].is_null(),
                "it was touched: {found}"
            );
        }
        self.here.0.kubectl(&["delete", "datamoverbackup", "-n", "shop", "theirs"]).map(drop)
    }

    pub(super) fn no_snapshot_class(&self) -> Result<()> {
        let mut named = mover_type("classless", "main", "256Mi");
        named["spec"]["snapshotClass"] = json!("nowhere");
        self.here.apply(&[named])?;
        self.backup("classless", "classless", "data")?;
        let ends = self.ends("datamoverbackup", "classless", "Failed")?;
        ensure!(
            ends.reason() == "NoSnapshotClass" && ends.text("message").contains("nowhere"),
            "{}",
            ends.status
        );
        self.here.workload("shop", "plain", "carrack-nosnapshots", false)?;
        self.backup("plain", "standard", "plain")?;
        let ends = self.ends("datamoverbackup", "plain", "Failed")?;
        ensure!(
            ends.reason() == "NoSnapshotClass" && ends.text("message").contains("nosnapshots.csi"),
            "{}",
            ends.status
        );
        Ok(())
    }

    pub(super) fn no_claim(&self) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "stranger", "namespace": "default" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "data", "namespace": "shop" } } })])?;
        let ends = self.here.ends("datamoverbackup", "default", "stranger", 120)?;
        ensure!(
            ends.reason() == "Invalid" && ends.text("message").contains("namespace shop"),
            "{}",
            ends.status
        );
        self.backup("nothing", "standard", "nothing")?;
        self.waits_for("datamoverbackup", "nothing", "shop/nothing")?;
        self.stop("datamoverbackup", "shop", "nothing")?;
        self.ends("datamoverbackup", "nothing", "Canceled").map(drop)
    }

    pub(super) fn wrong_key(&self) -> Result<()> {
        let mut repository = self.here.get("clusterrepository", "", "main")?.context("the repository")?;
        repository["metadata"] = json!({ "name": "locked" });
        repository["spec"]["keySecret"]["name"] = json!("other");
        repository["status"] = Value::Null;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "other", "namespace": NAMESPACE },
            "stringData": { "password": "not the one" } });
        self.here.apply(&[secret, repository, mover_type("locked", "locked", "256Mi")])?;
        self.backup("locked", "locked", "data")?;
        until("the repository says that the password is wrong", 60, || {
            let status =
                self.here.get("clusterrepository", "", "locked")?.context("it is there")?["status"].clone();
            Ok(status["conditions"][0]["reason"] == "Denied")
        })?;
        self.waits_for("datamoverbackup", "locked", "password")?;
        self.stop("datamoverbackup", "shop", "locked")?;
        self.ends("datamoverbackup", "locked", "Canceled")?;
        self.here.0.kubectl(&["delete", "clusterrepository", "locked", "--timeout=60s"]).map(drop)
    }
}
