//! What goes wrong under way: each ends in the right phase with a reason a person can act on, and nothing is left behind.

mod controller;
mod live;
mod movers;
mod requests;
mod world;

use std::{io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::{Bed, Level, Options};
use carrack_volume_tests::{Carrack, Ends, Kubernetes, NAMESPACE, Site, start, until};
use serde_json::{Value, json};

/// A backup that takes some seconds while the mover runs.
const SLOW: &str = "slow";

#[test]
fn every_fault_ends_in_the_right_phase_and_leaves_nothing() {
    let directory = tempfile::TempDir::with_prefix("carrack-bed-").expect("a directory");
    let bed = start(Options::new(Level::Full, directory.path())).expect("starts");
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
        let scenarios: [Scenario<'_>; 25] = [
            ("the type of somebody else", Self::foreign),
            ("no class for snapshots", Self::no_snapshot_class),
            ("a claim that is not there", Self::no_claim),
            ("a volume without snapshots is read itself", Self::without_snapshots),
            ("a claim names the volume of another one", Self::thief),
            ("a restore goes into a volume that is there", Self::restore_into_a_volume),
            ("two restores go into one volume", Self::two_into_one_volume),
            ("one mover on each node", Self::one_on_each_node),
            ("a backup is deleted with its snapshot", Self::deleted_with_snapshot),
            ("the controller is killed in each phase of a backup", Self::backup_survives_the_controller),
            ("the controller is killed in each phase of a restore", Self::restore_survives_the_controller),
            ("the controller is killed while a claim is filled", Self::populator_survives_the_controller),
            ("cancel in each phase", Self::cancel),
            ("ten volumes at once, three at a time", Self::ten_at_once),
            ("owners that a mover's own users do not include", Self::users_of_its_own),
            ("the mover pod is killed", Self::mover_killed),
            ("the mover pod is evicted", Self::mover_evicted),
            ("the object store stops for a while", Self::store_stops),
            ("too little memory", Self::out_of_memory),
            ("a wrong key", Self::wrong_key),
            ("credentials are revoked", Self::credentials_revoked),
            ("the claim of a full volume is refused", Self::claim_refused),
            ("the claim is deleted under way", Self::claim_deleted),
            ("the namespace is deleted under way", Self::namespace_deleted),
            ("the node is gone", Self::node_gone),
        ];
        // For who works on one of them: part of its name. Some need what others have made.
        let only = std::env::var("CARRACK_SCENARIO").unwrap_or_default();
        let chosen: Vec<_> = scenarios.into_iter().filter(|(name, _)| name.contains(&only)).collect();
        ensure!(!chosen.is_empty(), "no scenario is called {only:?}");
        for (name, scenario) in chosen {
            let start = std::time::Instant::now();
            scenario(self).with_context(|| format!("scenario: {name}"))?;
            self.here.nothing_is_left().with_context(|| format!("after scenario: {name}"))?;
            writeln!(std::io::stderr(), "{name}: {:.1} s", start.elapsed().as_secs_f64())?;
        }
        Ok(())
    }

    /// A backup of new contents takes eight seconds: there is time to hit a mover that runs.
    fn slow_type(&self) -> Result<()> {
        self.limited_way(SLOW, 1_500_000)?;
        self.here.apply(&[mover_type(SLOW, SLOW, "256Mi")])
    }

    /// A second way to the same repository, with a limit of bytes per second.
    fn limited_way(&self, name: &str, limit: u64) -> Result<()> {
        let mut repository = self.here.get("clusterrepository", "", "main")?.context("the repository")?;
        repository["metadata"] = json!({ "name": name });
        repository["spec"]["location"]["limits"] =
            json!({ "uploadBytesPerSecond": limit, "downloadBytesPerSecond": limit });
        repository["status"] = Value::Null;
        self.here.apply(&[repository])?;
        self.here.0.wait_for(&format!("clusterrepository/{name}"), "condition=Ready", 180)
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
        self.here.wait_for_phase(kind, "shop", name, phases, 120)
    }

    fn ends(&self, kind: &str, name: &str, phase: &str) -> Result<Ends> {
        let ends = self.here.ends(kind, "shop", name, 240)?;
        ensure!(ends.text("phase") == phase, "{name} should be {phase}: {}", ends.status);
        Ok(ends)
    }

    /// Waits until a request is pending and says so with these words.
    fn waits_for(&self, kind: &str, name: &str, words: &str) -> Result<()> {
        until(&format!("{kind} {name} waits and says {words:?}"), 60, || {
            let status = self.here.get(kind, "shop", name)?.context("it is there")?["status"].clone();
            Ok(status["phase"] == "Pending"
                && status["message"].as_str().is_some_and(|text| text.contains(words)))
        })
    }

    fn stop(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let patch = r#"{"spec":{"cancel":true}}"#;
        self.here.0.kubectl(&["patch", kind, "-n", namespace, name, "--type=merge", "-p", patch]).map(drop)
    }
}

fn mover_type(name: &str, repository: &str, memory: &str) -> Value {
    json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverType", "metadata": { "name": name },
        "spec": { "provisioner": "carrack.dev/mover", "repository": { "name": repository },
            "timeouts": { "prepareSeconds": 120, "stopSeconds": 10 },
            "podTemplate": { "resources": { "limits": { "memory": memory } } } } })
}
