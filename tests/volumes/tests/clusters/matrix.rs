//! Each phase of a backup and of a restore against an API server that is away, refuses, loses answers or breaks watches: the
//! end is the same as without. (A controller that is killed in each phase is among the faults.)

use std::{io::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::{Bed, Level, Options};
use carrack_volume_tests::{Carrack, Ends, Fault, FaultyServer, Kubernetes, Site, start};
use serde_json::{Value, json};

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(10);

#[test]
fn faults_of_the_api_server_change_no_end() {
    let directory = tempfile::TempDir::with_prefix("carrack-bed-").expect("a directory");
    let bed = start(Options::new(Level::Full, directory.path())).expect("starts");
    let site = Site::new(&bed).expect("programs and image");
    let cluster = bed.cluster(0).expect("one");
    let server = FaultyServer::start(cluster, directory.path()).expect("stands before the API server");
    let carrack = site.install_through(cluster, server.kubeconfig()).expect("installed");
    let test = Test { bed: &bed, carrack: &carrack, here: carrack.kubernetes(), server: &server };
    if let Err(error) = test.all() {
        panic!("{error:#}\n{}", carrack.describe());
    }
    drop(carrack);
    bed.stop().expect("ends");
}

/// One of the two kinds of request, and the phases it goes through.
#[derive(Clone, Copy)]
struct Request {
    kind: &'static str,
    phases: &'static [&'static str],
}

const BACKUP: Request =
    Request { kind: "datamoverbackup", phases: &["Snapshotting", "Preparing", "Running", "Completed"] };
const RESTORE: Request =
    Request { kind: "datamoverrestore", phases: &["Preparing", "Running", "Binding", "Completed"] };

struct Test<'a> {
    bed: &'a Bed,
    carrack: &'a Carrack<'a>,
    here: Kubernetes<'a>,
    server: &'a FaultyServer,
}

impl Test<'_> {
    fn all(&self) -> Result<()> {
        self.carrack.connect(self.bed, "matrix")?;
        self.linger()?;
        self.here.workload("shop", "data", "carrack-btrfs", false)?;
        for request in [BACKUP, RESTORE] {
            let usual = self.ends(request, "usual")?;
            ensure!(usual.text("phase") == "Completed", "without a fault: {}", usual.status);
            for fault in [Fault::Conflict, Fault::LostReply, Fault::BrokenWatch] {
                let name = format!("{fault:?}").to_lowercase();
                self.server.set(fault);
                let ended = self.ends(request, &name);
                self.server.set(Fault::None);
                self.compare(request, &usual, ended, &name)?;
            }
            for phase in request.phases {
                let name = format!("away-{}", phase.to_lowercase());
                let ended = self.away_in(request, phase, &name);
                self.compare(request, &usual, ended, &name)?;
            }
        }
        Ok(())
    }

    /// Every step takes a moment, so that each phase can be hit.
    fn linger(&self) -> Result<()> {
        self.here.slow_storage(true)?;
        let mut repository = self.here.get("clusterrepository", "", "main")?.context("the repository")?;
        repository["metadata"] = json!({ "name": "main" });
        repository["status"] = Value::Null;
        repository["spec"]["location"]["limits"] =
            json!({ "uploadBytesPerSecond": 1_500_000, "downloadBytesPerSecond": 1_500_000 });
        self.here.apply(&[repository])
    }

    fn make(&self, request: Request, name: &str) -> Result<()> {
        let spec = if request.kind == BACKUP.kind {
            // So that there is something to send.
            self.here.shell("shop", "data", "head -c 9000000 /dev/urandom > /data/random; sync")?;
            json!({ "type": "PVC", "sourceClaimRef": { "name": "data" }, "config": { "force": "true" } })
        } else {
            json!({ "destinationClaimRef": { "name": name }, "source": { "backup": "usual" },
                "newVolume": { "storageClassName": "carrack-ext4" } })
        };
        let kind = if request.kind == BACKUP.kind { "DataMoverBackup" } else { "DataMoverRestore" };
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": kind,
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec })])
    }

    fn ends(&self, request: Request, name: &str) -> Result<Ends> {
        self.make(request, name)?;
        self.here.ends(request.kind, "shop", name, 180)
    }

    fn away_in(&self, request: Request, phase: &str, name: &str) -> Result<Ends> {
        self.make(request, name)?;
        self.here.wait_for_phase(request.kind, "shop", name, &[phase], 120)?;
        self.server.set(Fault::Away);
        sleep(OUTAGE);
        self.server.set(Fault::None);
        self.here.ends(request.kind, "shop", name, 180)
    }

    /// The fault was met, the end is the usual one, and nothing is left behind.
    fn compare(&self, request: Request, usual: &Ends, ended: Result<Ends>, name: &str) -> Result<()> {
        let what = || format!("{} {name}", request.kind);
        let ended = ended.with_context(what)?;
        let met = self.server.injected();
        ensure!(met > 0, "{}: the controller met no fault", what());
        ensure!(ended.reason() == usual.reason(), "{}: {} instead of {}", what(), ended.status, usual.status);
        for field in ["phase", "logicalBytes", "restoredBytes", "files", "retries", "volumeMode", "skipped"] {
            let (this, that) = (&ended.status[field], &usual.status[field]);
            ensure!(this == that, "{}: {field} is {this} instead of {that}: {}", what(), ended.status);
        }
        if request.kind == RESTORE.kind {
            let claim = self.here.get("pvc", "shop", name)?.context("the claim")?;
            ensure!(claim["status"]["phase"] == "Bound", "{}: {claim}", what());
        }
        self.here.nothing_is_left().with_context(what)?;
        writeln!(std::io::stderr(), "{}: {met} faults, the usual end", what()).context("say so")
    }
}
