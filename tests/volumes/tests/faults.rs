//! What goes wrong under way: each ends in the right phase with a reason a person can act on, and nothing is left behind.

use std::{fs, io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::{Bed, DRIVER, Level, Options};
use carrack_volume_tests::{Carrack, Ends, Kubernetes, NAMESPACE, Site, until};
use serde_json::{Value, json};

/// A backup that takes some seconds while the mover runs.
const SLOW: &str = "slow";

#[test]
fn every_fault_ends_in_the_right_phase_and_leaves_nothing() {
    let directory = tempfile::TempDir::with_prefix("carrack-bed-").expect("a directory");
    let bed = Bed::start(Options::new(Level::Full, directory.path())).expect("starts");
    let site = Site::new(&bed).expect("programs and image");
    let carrack = site.install(bed.cluster(0).expect("one")).expect("installed");
    let test = Test { bed: &bed, carrack: &carrack, here: carrack.kubernetes() };
    if let Err(error) = test.all() {
        panic!("{error:#}\n{}", carrack.describe());
    }
    drop(carrack);
    bed.stop().expect("ends");
}

struct Test<'a> {
    bed: &'a Bed,
    carrack: &'a Carrack<'a>,
    here: Kubernetes<'a>,
}

impl Test<'_> {
    fn all(&self) -> Result<()> {
        self.carrack.connect(self.bed, "faults")?;
        self.slow_type()?;
        self.here.workload("shop", "data", "carrack-btrfs", false)?;
        self.here.shell(
            "shop",
            "data",
            "head -c 12000000 /dev/urandom > /data/random; echo kept > /data/small; sync",
        )?;
        type Scenario<'a> = (&'static str, fn(&Test<'a>) -> Result<()>);
        let scenarios: [Scenario<'_>; 14] = [
            ("the type of somebody else", Self::foreign),
            ("no class for snapshots", Self::no_snapshot_class),
            ("a claim that is not there", Self::no_claim),
            ("a backup is deleted with its snapshot", Self::deleted_with_snapshot),
            ("the controller is killed in each phase of a backup", Self::backup_survives_the_controller),
            ("the controller is killed in each phase of a restore", Self::restore_survives_the_controller),
            ("cancel in each phase", Self::cancel),
            ("ten volumes at once, three at a time", Self::ten_at_once),
            ("the mover pod is killed", Self::mover_killed),
            ("the object store stops for a while", Self::store_stops),
            ("too little memory", Self::out_of_memory),
            ("a wrong key", Self::wrong_key),
            ("credentials are revoked", Self::credentials_revoked),
            ("the namespace is deleted under way", Self::namespace_deleted),
        ];
        for (name, scenario) in scenarios {
            let start = std::time::Instant::now();
            scenario(self).with_context(|| format!("scenario: {name}"))?;
            self.here.nothing_is_left().with_context(|| format!("after scenario: {name}"))?;
            writeln!(std::io::stderr(), "{name}: {:.1} s", start.elapsed().as_secs_f64())?;
        }
        Ok(())
    }

    /// A second way to the same repository, with a limit: there is time to hit a mover that runs.
    fn slow_type(&self) -> Result<()> {
        let mut repository = self.here.get("clusterrepository", "", "main")?.context("the repository")?;
        repository["metadata"] = json!({ "name": SLOW });
        repository["spec"]["location"]["limits"] =
            json!({ "uploadBytesPerSecond": 3_000_000, "downloadBytesPerSecond": 3_000_000 });
        repository["status"] = Value::Null;
        self.here.apply(&[repository, mover_type(SLOW, SLOW, "256Mi")])?;
        self.here.0.wait_for("clusterrepository/slow", "condition=Ready", 60)
    }

    fn backup(&self, name: &str, mover_type: &str, claim: &str) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": claim }, "dataMoverType": mover_type,
                "config": { "force": "true" } } })])
    }

    /// New contents, so that a backup has something to send.
    fn change(&self) -> Result<()> {
        self.here.shell("shop", "data", "head -c 12000000 /dev/urandom > /data/random; sync").map(drop)
    }

    fn phase(&self, kind: &str, name: &str, phases: &[&str]) -> Result<Ends> {
        self.here.wait_for_phase(kind, "shop", name, phases, 90)
    }

    fn ends(&self, kind: &str, name: &str, phase: &str) -> Result<Ends> {
        let ends = self.here.ends(kind, "shop", name, 240)?;
        ensure!(ends.text("phase") == phase, "{name} should be {phase}: {}", ends.status);
        Ok(ends)
    }

    fn foreign(&self) -> Result<()> {
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

    fn no_snapshot_class(&self) -> Result<()> {
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

    fn no_claim(&self) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "stranger", "namespace": "default" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "data", "namespace": "shop" } } })])?;
        let ends = self.here.ends("datamoverbackup", "default", "stranger", 60)?;
        ensure!(
            ends.reason() == "Invalid" && ends.text("message").contains("namespace shop"),
            "{}",
            ends.status
        );
        self.backup("nothing", "standard", "nothing")?;
        until("it says what is missing", 30, || {
            let status =
                self.here.get("datamoverbackup", "shop", "nothing")?.context("it is there")?["status"]
                    .clone();
            Ok(status["phase"] == "Pending"
                && status["message"].as_str().is_some_and(|text| text.contains("shop/nothing")))
        })?;
        self.stop("datamoverbackup", "nothing")?;
        self.ends("datamoverbackup", "nothing", "Canceled").map(drop)
    }

    fn deleted_with_snapshot(&self) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "brief", "namespace": "shop" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "data" }, "deletionPolicy": "Delete" } })])?;
        let snapshot = self.ends("datamoverbackup", "brief", "Completed")?.text("snapshotID").to_owned();
        self.here.0.kubectl(&["delete", "datamoverbackup", "-n", "shop", "brief", "--timeout=60s"])?;
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": "brief", "namespace": "shop" },
            "spec": { "destinationClaimRef": { "name": "brief" }, "source": { "snapshotID": snapshot },
                "newVolume": { "storageClassName": "carrack-ext4", "resources": { "requests": { "storage": "400Mi" } } } } })])?;
        let ends = self.ends("datamoverrestore", "brief", "Failed")?;
        ensure!(ends.reason() == "SourceNotFound", "{}", ends.status);
        Ok(())
    }

    fn stop(&self, kind: &str, name: &str) -> Result<()> {
        let patch = r#"{"spec":{"cancel":true}}"#;
        self.here.0.kubectl(&["patch", kind, "-n", "shop", name, "--type=merge", "-p", patch]).map(drop)
    }

    /// Snapshots take a moment, so that the phase can be hit.
    fn slow_snapshots(&self, slow: bool) -> Result<()> {
        let path = self.here.0.faults(DRIVER);
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

    fn backup_survives_the_controller(&self) -> Result<()> {
        self.slow_snapshots(true)?;
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
        self.slow_snapshots(false)
    }

    fn restore(&self, name: &str, mover_type: &str) -> Result<()> {
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "dataMoverType": mover_type, "destinationClaimRef": { "name": name },
                "source": { "backup": "killed-completed" },
                "newVolume": { "storageClassName": "carrack-ext4" } } })])
    }

    fn restore_survives_the_controller(&self) -> Result<()> {
        self.slow_snapshots(true)?;
        for phase in ["Preparing", "Running", "Binding", "Completed"] {
            let name = format!("restored-{}", phase.to_lowercase());
            self.restore(&name, SLOW)?;
            self.phase("datamoverrestore", &name, &[phase])?;
            self.carrack.kill()?;
            sleep(Duration::from_secs(1));
            if phase != "Completed" {
                let claim = self.here.get("pvc", "shop", &name)?;
                ensure!(
                    claim.is_none_or(|claim| claim["status"]["phase"] != "Bound"),
                    "bound before it was full"
                );
            }
            self.carrack.start()?;
            self.ends("datamoverrestore", &name, "Completed")
                .with_context(|| format!("killed in {phase}"))?;
        }
        self.slow_snapshots(false)?;
        self.here.use_claim("shop", "restored-binding", false)?;
        let sums = |pod: &str| self.here.shell("shop", pod, "sha256sum < /data/random; cat /data/small");
        let (before, after) = (sums("data")?, sums("restored-binding")?);
        ensure!(before == after, "{before} {after}");
        Ok(())
    }

    fn cancel(&self) -> Result<()> {
        self.slow_snapshots(true)?;
        for phase in ["Snapshotting", "Preparing", "Running"] {
            let name = format!("canceled-{}", phase.to_lowercase());
            self.change()?;
            self.backup(&name, SLOW, "data")?;
            self.phase("datamoverbackup", &name, &[phase])?;
            self.stop("datamoverbackup", &name)?;
            self.ends("datamoverbackup", &name, "Canceled")
                .with_context(|| format!("canceled in {phase}"))?;
        }
        for phase in ["Preparing", "Running"] {
            let name = format!("unrestored-{}", phase.to_lowercase());
            self.restore(&name, SLOW)?;
            self.phase("datamoverrestore", &name, &[phase])?;
            self.stop("datamoverrestore", &name)?;
            self.ends("datamoverrestore", &name, "Canceled")
                .with_context(|| format!("canceled in {phase}"))?;
            ensure!(self.here.get("pvc", "shop", &name)?.is_none(), "a claim was made for what was canceled");
        }
        self.slow_snapshots(false)
    }

    fn ten_at_once(&self) -> Result<()> {
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
        let mut most = 0;
        until("all ten are done", 240, || {
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
            ensure!(most <= 3, "{most} at once: {phases:?}");
            Ok(phases.iter().filter(|phase| **phase == "Completed").count() == 10)
        })?;
        ensure!(most >= 2, "they ran one after the other");
        names.iter().try_for_each(|name| self.ends("datamoverbackup", name, "Completed").map(drop))
    }

    fn mover_killed(&self) -> Result<()> {
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

    fn store_stops(&self) -> Result<()> {
        self.change()?;
        self.backup("patient", SLOW, "data")?;
        self.phase("datamoverbackup", "patient", &["Running"])?;
        self.bed.kill_minio()?;
        sleep(Duration::from_secs(10));
        self.bed.start_minio_again()?;
        self.ends("datamoverbackup", "patient", "Completed").map(drop)
    }

    fn out_of_memory(&self) -> Result<()> {
        self.here.apply(&[mover_type("tiny", "main", "12Mi")])?;
        self.change()?;
        self.backup("tiny", "tiny", "data")?;
        let ends = self.ends("datamoverbackup", "tiny", "Failed")?;
        ensure!(ends.text("message").contains("memory"), "{}", ends.status);
        Ok(())
    }

    fn wrong_key(&self) -> Result<()> {
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
        until("the backup says why it waits", 60, || {
            let status =
                self.here.get("datamoverbackup", "shop", "locked")?.context("it is there")?["status"].clone();
            Ok(status["phase"] == "Pending"
                && status["message"].as_str().is_some_and(|text| text.contains("password")))
        })?;
        self.stop("datamoverbackup", "locked")?;
        self.ends("datamoverbackup", "locked", "Canceled")?;
        self.here.0.kubectl(&["delete", "clusterrepository", "locked", "--timeout=60s"]).map(drop)
    }

    fn credentials_revoked(&self) -> Result<()> {
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

    fn namespace_deleted(&self) -> Result<()> {
        self.here.workload("gone", "data", "carrack-btrfs", false)?;
        self.here.shell("gone", "data", "head -c 20000000 /dev/urandom > /data/random; sync")?;
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "gone", "namespace": "gone" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "data" }, "dataMoverType": SLOW } })])?;
        self.here.wait_for_phase("datamoverbackup", "gone", "gone", &["Running"], 90)?;
        self.here.0.kubectl(&["delete", "namespace", "gone", "--timeout=120s"]).map(drop)
    }
}

fn mover_type(name: &str, repository: &str, memory: &str) -> Value {
    json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverType", "metadata": { "name": name },
        "spec": { "provisioner": "carrack.dev/mover", "repository": { "name": repository },
            "timeouts": { "prepareSeconds": 120, "stopSeconds": 10 },
            "podTemplate": { "resources": { "limits": { "memory": memory } } } } })
}
