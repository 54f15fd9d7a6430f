//! How long volumes take, from `kubectl apply` to the end, on two real clusters, and what the controller needs.
//!
//! With the word `velero`: only what is compared with.
//!
//! Programs as for the tests; build them with `--release` and name them by CARRACK and CARRACK_CONTROLLER. The figures are of
//! a quiet machine or of none.

use std::{
    fs,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::{Bed, Level, Options};
use carrack_volume_tests::{Carrack, Kubernetes, Site, Took, Velero};
use serde_json::{Value, json};

/// Size of the file in the volume, in MiB.
const FILE_MIB: u32 = 2048;
/// Finished objects that the controller's memory is measured with.
const OBJECTS: u32 = 1000;

fn main() -> Result<()> {
    let directory = std::path::Path::new("/tmp/carrack-bench-bed");
    fs::create_dir_all(directory)?;
    let bed = Bed::start(Options { clusters: 2, ..Options::new(Level::Full, directory) })?;
    let measured = measure(&bed);
    bed.stop()?;
    measured
}

fn measure(bed: &Bed) -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("velero") {
        return beside(bed, Kubernetes(bed.cluster(0)?));
    }
    let site = Site::new(bed)?;
    let one = site.install(bed.cluster(0)?)?;
    let two = site.install(bed.cluster(1)?)?;
    one.connect(bed, "bench")?;
    two.connect(bed, "bench")?;
    let (here, there) = (one.kubernetes(), two.kubernetes());
    here.workload("shop", "data", "carrack-btrfs", false)?;
    here.shell("shop", "data", &random_file())?;
    row("", "seconds", "budget")?;
    let first = backup(here, "first")?;
    row("backup of a 2 GiB random file: until the mover runs", &seconds(first.running), "-")?;
    row("… until Completed", &seconds(first.completed), "12")?;
    let again = backup(here, "again")?;
    row("unchanged again: until Completed", &seconds(again.completed), "6")?;
    let bare = without_us(here)?;
    row("what the cluster itself needs: snapshot, volume of it, pod", &seconds(bare), "-")?;
    let more = again.running.as_secs_f64() - bare.as_secs_f64();
    row("unchanged again: until the mover runs, beyond that", &format!("{more:.1}"), "2.0")?;
    let restored = restore(there, &first.snapshot)?;
    row("restore into the other cluster: until the pod runs", &seconds(restored), "15")?;
    memory(&one, here)?;
    idle(here)?;
    one.kill()?;
    beside(bed, here)
}

/// The same with Velero's own data mover, if it is built: the whole command, and the moving of data alone.
fn beside(bed: &Bed, here: Kubernetes<'_>) -> Result<()> {
    if carrack_cluster::program("velero").is_err() {
        return row("Velero is not built: tests/cluster/build.sh velero", "", "");
    }
    here.workload("store", "data", "carrack-btrfs", false)?;
    here.shell("store", "data", &random_file())?;
    let velero = Velero::install(bed, here.0)?;
    row("Velero with its own data mover", "whole", "moving")?;
    let both = |what: &str, took: Took| row(what, &seconds(took.whole), &seconds(took.moving));
    both("backup of a 2 GiB random file", velero.back_up("first", "store")?)?;
    both("unchanged again", velero.back_up("again", "store")?)?;
    both("restore into another namespace", velero.restore("back", "first", "store", "store-again")?)
}

fn random_file() -> String {
    format!("dd if=/dev/urandom of=/data/file bs=1M count={FILE_MIB} 2>/dev/null; sync")
}

struct Times {
    running: Duration,
    completed: Duration,
    snapshot: String,
}

fn backup(here: Kubernetes<'_>, name: &str) -> Result<Times> {
    let start = Instant::now();
    here.back_up("shop", name, "data")?;
    let phases = ["Running", "Completed", "Failed"];
    here.wait_for_phase("datamoverbackup", "shop", name, &phases, 300)?;
    let running = start.elapsed();
    let ends = here.wait_for_phase("datamoverbackup", "shop", name, &["Completed", "Failed"], 300)?;
    ensure!(ends.text("phase") == "Completed", "{}", ends.status);
    Ok(Times { running, completed: start.elapsed(), snapshot: ends.text("snapshotID").to_owned() })
}

/// The same way without Carrack: a snapshot of the volume, a volume of the snapshot, a pod that uses it.
fn without_us(here: Kubernetes<'_>) -> Result<Duration> {
    let start = Instant::now();
    here.apply(&[json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": "bare", "namespace": "shop" },
        "spec": { "source": { "persistentVolumeClaimName": "data" } } })])?;
    carrack_volume_tests::until("the snapshot is ready", 60, || {
        let found = here.get("volumesnapshot", "shop", "bare")?;
        Ok(found.is_some_and(|found| found["status"]["readyToUse"] == true))
    })?;
    here.apply(&[json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "bare", "namespace": "shop" },
        "spec": { "storageClassName": "carrack-btrfs", "accessModes": ["ReadWriteOnce"],
            "dataSource": { "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "bare" },
            "resources": { "requests": { "storage": "400Mi" } } } })])?;
    here.use_claim("shop", "bare", false)?;
    Ok(start.elapsed())
}

/// Requests of a controller that has nothing to do, in half a minute; its watches and its lease are no requests here.
fn idle(here: Kubernetes<'_>) -> Result<()> {
    let count = || -> Result<f64> {
        let metrics = here.0.kubectl(&["get", "--raw", "/metrics"])?;
        let ours = metrics.lines().filter(|line| {
            line.starts_with("apiserver_request_total{")
                && line.contains("group=\"carrack.dev\"")
                && !line.contains("verb=\"WATCH\"")
        });
        Ok(ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    let before = count()?;
    std::thread::sleep(Duration::from_secs(30));
    row("requests of the idle controller in 30 s", &format!("{}", count()? - before), "0")
}

fn restore(there: Kubernetes<'_>, snapshot: &str) -> Result<Duration> {
    there.apply(&[json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "market" } })])?;
    let start = Instant::now();
    there.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
        "metadata": { "name": "first", "namespace": "market" },
        "spec": { "destinationClaimRef": { "name": "goods" }, "source": { "snapshotID": snapshot },
            "newVolume": { "storageClassName": "carrack-ext4", "resources": { "requests": { "storage": "3Gi" } } } } })])?;
    there.use_claim("market", "goods", false)?;
    Ok(start.elapsed())
}

/// The controller's memory with many finished objects, just after it has started with them.
fn memory(one: &Carrack<'_>, here: Kubernetes<'_>) -> Result<()> {
    let object = |number: u32| {
        json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
        "metadata": { "name": format!("old-{number}"), "namespace": "shop", "finalizers": ["carrack.dev/clean-up"] },
        "spec": { "type": "PVC", "sourceClaimRef": { "name": "data" }, "cancel": true } })
    };
    one.kill()?;
    here.apply(&(0..OBJECTS).map(object).collect::<Vec<Value>>())?;
    one.start()?;
    carrack_volume_tests::until("all are finished", 600, || {
        let phases = here.0.kubectl(&[
            "get",
            "datamoverbackups",
            "-n",
            "shop",
            "-o",
            "jsonpath={.items[*].status.phase}",
        ])?;
        Ok(phases.split_whitespace().filter(|phase| *phase == "Canceled").count() == OBJECTS as usize)
    })?;
    one.kill()?;
    one.start()?;
    std::thread::sleep(Duration::from_secs(15));
    let status =
        fs::read_to_string(format!("/proc/{}/status", one.process_id().context("the controller runs")?))?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    row(
        &format!(
            "controller with {OBJECTS} finished objects: {}",
            peak.split_whitespace().collect::<Vec<_>>().join(" ")
        ),
        "-",
        "65536 kB",
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

fn row(what: &str, measured: &str, budget: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{what:<70} {measured:>10} {budget:>10}")?)
}
