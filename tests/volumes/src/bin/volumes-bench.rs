//! How long volumes take, from `kubectl apply` to the end, on two real clusters, and what the controller needs.
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
use carrack_volume_tests::{Carrack, Kubernetes, Site};
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
    let site = Site::new(bed)?;
    let one = site.install(bed.cluster(0)?)?;
    let two = site.install(bed.cluster(1)?)?;
    one.connect(bed, "bench")?;
    two.connect(bed, "bench")?;
    let (here, there) = (one.kubernetes(), two.kubernetes());
    here.workload("shop", "data", "carrack-btrfs", false)?;
    let write = format!("dd if=/dev/urandom of=/data/file bs=1M count={FILE_MIB} 2>/dev/null; sync");
    here.shell("shop", "data", &write)?;
    row("", "seconds", "budget")?;
    let first = backup(here, "first")?;
    row("backup of a 2 GiB random file: until the mover runs", &seconds(first.running), "-")?;
    row("… until Completed", &seconds(first.completed), "12")?;
    let again = backup(here, "again")?;
    row("unchanged again: until Completed", &seconds(again.completed), "6")?;
    let restored = restore(there, &first.snapshot)?;
    row("restore into the other cluster: until the pod runs", &seconds(restored), "15")?;
    memory(&one, here)
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
