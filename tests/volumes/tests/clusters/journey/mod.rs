//! The mission, on real parts: a volume of one cluster comes to another one, on other storage.

mod busy;
mod changes;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::{Bed, Level, Options};
use carrack_volume_tests::{Carrack, Contents, Kubernetes, Site, fill, start};
use serde_json::json;

#[test]
fn volumes_move_between_clusters() {
    let directory = tempfile::TempDir::with_prefix("carrack-bed-").expect("a directory");
    let bed = start(Options { clusters: 2, ..Options::new(Level::Full, directory.path()) }).expect("starts");
    let site = Site::new(&bed).expect("programs and image");
    let one = site.install(bed.cluster(0).expect("one")).expect("installed");
    let two = site.install(bed.cluster(1).expect("two")).expect("installed");
    if let Err(error) = journey(&bed, &one, &two) {
        panic!("{error:#}\n--- one\n{}\n--- two\n{}", one.describe(), two.describe());
    }
    drop((one, two));
    bed.stop().expect("ends");
}

fn journey(bed: &Bed, one: &Carrack<'_>, two: &Carrack<'_>) -> Result<()> {
    one.connect(bed, "fleet")?;
    two.connect(bed, "fleet")?;
    let (here, there) = (one.kubernetes(), two.kubernetes());
    files(here, there).context("files")?;
    incremental(here).context("incremental")?;
    given_snapshot(here, there).context("a snapshot that exists")?;
    block(here, there).context("a raw block volume")?;
    changes::told_and_untold(here).context("changed blocks")?;
    busy::database(bed, here, there).context("a database")?;
    populated(here).context("a claim that is filled")?;
    from_the_terminal(one).context("kubectl carrack")?;
    busy::together(one, two).context("two clusters and maintenance")?;
    here.nothing_is_left().context("cluster one")?;
    there.nothing_is_left().context("cluster two")
}

/// Another cluster, storage class, namespace, name and size; the pod runs there with the same contents.
fn files(here: Kubernetes<'_>, there: Kubernetes<'_>) -> Result<()> {
    here.workload("shop", "data", "carrack-btrfs", false)?;
    let source = here.directory("shop", "data")?;
    fill(&source, 300)?;
    let before = Contents::of(&source)?;
    here.back_up("shop", "first", "data")?;
    // What is written from now on is not in the snapshot; it may begin a moment before, so it is waited for.
    here.wait_for_phase("datamoverbackup", "shop", "first", &["Preparing", "Running", "Completed"], 120)?;
    here.shell("shop", "data", "echo later > /data/later; rm /data/many/file-9")?;
    let ends = here.ends("datamoverbackup", "shop", "first", 120)?;
    ensure!(ends.text("phase") == "Completed", "{}", ends.status);
    ensure!(ends.number("logicalBytes") > 70_000_000, "{}", ends.status);

    there.apply(&[
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "market" } }),
        json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": "first", "namespace": "market" },
            "spec": { "destinationClaimRef": { "name": "goods" }, "source": { "snapshotID": ends.text("snapshotID") },
                "newVolume": { "storageClassName": "carrack-ext4", "resources": { "requests": { "storage": "600Mi" } } } } }),
    ])?;
    let restored = there.ends("datamoverrestore", "market", "first", 120)?;
    ensure!(restored.text("phase") == "Completed", "{}", restored.status);
    there.use_claim("market", "goods", false)?;
    let after = Contents::of(&there.directory("market", "goods")?)?;
    ensure!(before == after, "of {} lines differ: {:#?}", before.len(), before.differences(&after));
    let volume = there.get("pvc", "market", "goods")?.context("the claim")?;
    ensure!(volume["status"]["capacity"]["storage"] == "600Mi", "{volume}");
    Ok(())
}

/// What hardly changed costs little.
fn incremental(here: Kubernetes<'_>) -> Result<()> {
    here.back_up("shop", "second", "data")?;
    let ends = here.ends("datamoverbackup", "shop", "second", 120)?;
    ensure!(ends.text("phase") == "Completed", "{}", ends.status);
    let (logical, stored) = (ends.number("logicalBytes"), ends.number("storedBytes"));
    ensure!(
        logical > 70_000_000 && stored < 1_000_000,
        "{stored} of {logical} bytes went to the store: {}",
        ends.status
    );
    Ok(())
}

/// A volume snapshot of somebody else is read, and stays.
fn given_snapshot(here: Kubernetes<'_>, there: Kubernetes<'_>) -> Result<()> {
    here.workload("shop", "ledger", "carrack-xfs", false)?;
    here.shell("shop", "ledger", "echo counted > /data/sum; sync")?;
    here.apply(&[json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": "friday", "namespace": "shop" }, "spec": { "source": { "persistentVolumeClaimName": "ledger" } } })])?;
    here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
        "metadata": { "name": "friday", "namespace": "shop" },
        "spec": { "type": "VolumeSnapshot", "sourceClaimRef": { "name": "friday" } } })])?;
    let ends = here.ends("datamoverbackup", "shop", "friday", 120)?;
    ensure!(ends.text("phase") == "Completed", "{}", ends.status);
    ensure!(here.get("volumesnapshot", "shop", "friday")?.is_some(), "the snapshot that was given is gone");
    there.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
        "metadata": { "name": "ledger", "namespace": "market" },
        "spec": { "destinationClaimRef": { "name": "ledger" },
            "source": { "identity": { "cluster": "one", "namespace": "shop", "claim": "ledger" } },
            "newVolume": { "storageClassName": "carrack-ext4-late", "resources": { "requests": { "storage": "400Mi" } } } } })])?;
    let restored = there.ends("datamoverrestore", "market", "ledger", 120)?;
    ensure!(restored.text("phase") == "Completed", "{}", restored.status);
    there.use_claim("market", "ledger", false)?;
    let sum = there.shell("market", "ledger", "cat /data/sum")?;
    ensure!(sum == "counted\n", "{sum:?}");
    Ok(())
}

/// A device, without a file system.
fn block(here: Kubernetes<'_>, there: Kubernetes<'_>) -> Result<()> {
    here.workload("shop", "disk", "carrack-ext4", true)?;
    let write =
        "dd if=/dev/urandom of=/dev/data bs=1M count=20 seek=7 2>/dev/null; sync; sha256sum < /dev/data";
    let before = here.shell("shop", "disk", write)?;
    here.back_up("shop", "disk", "disk")?;
    let ends = here.ends("datamoverbackup", "shop", "disk", 120)?;
    ensure!(ends.text("phase") == "Completed" && ends.text("volumeMode") == "Block", "{}", ends.status);
    there.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
        "metadata": { "name": "disk", "namespace": "market" },
        "spec": { "destinationClaimRef": { "name": "disk" }, "source": { "snapshotID": ends.text("snapshotID") },
            "newVolume": { "storageClassName": "carrack-xfs", "volumeMode": "Block",
                "resources": { "requests": { "storage": "400Mi" } } } } })])?;
    let restored = there.ends("datamoverrestore", "market", "disk", 120)?;
    ensure!(restored.text("phase") == "Completed", "{}", restored.status);
    there.use_claim("market", "disk", true)?;
    let after = there.shell("market", "disk", "sha256sum < /dev/data")?;
    ensure!(before == after, "{before} {after}");
    Ok(())
}

/// A claim that names a backup waits, and then binds full.
fn populated(here: Kubernetes<'_>) -> Result<()> {
    here.apply(&[json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "copy", "namespace": "shop" },
        "spec": { "storageClassName": "carrack-ext4", "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "400Mi" } },
            "dataSourceRef": { "apiGroup": "carrack.dev", "kind": "DataMoverBackup", "name": "first" } } })])?;
    here.use_claim("shop", "copy", false)?;
    let found = here.shell(
        "shop",
        "copy",
        "cat /data/many/file-9; ls /data | grep -v lost | wc -l; ls /data/later 2>&1 || true",
    )?;
    ensure!(found.starts_with("file 9 9 9\n5\n") && found.contains("No such file"), "{found:?}");
    Ok(())
}

/// The plugin makes the same objects, waits, and says how they ended.
fn from_the_terminal(one: &Carrack<'_>) -> Result<()> {
    let said = one.plugin(&["backup", "data", "-n", "shop", "--as-name", "typed"])?;
    ensure!(
        said.contains("datamoverbackup.carrack.dev/typed created") && said.contains("snapshot "),
        "{said}"
    );
    let listed = one.plugin(&["ls", "-n", "shop"])?;
    ensure!(listed.lines().any(|line| line.contains("typed") && line.contains("Completed")), "{listed}");
    let said =
        one.plugin(&["restore", "typed", "--to", "typed", "--storage-class", "carrack-xfs", "-n", "shop"])?;
    ensure!(said.contains("datamoverrestore.carrack.dev/"), "{said}");
    let state = one.plugin(&["status", "-A"])?;
    ensure!(
        state.lines().any(|line| line.contains("ClusterRepository") && line.contains("Ready")),
        "{state}"
    );
    let error = one
        .plugin(&["backup", "nowhere", "-n", "shop", "--mover-type", ""])
        .expect_err("refused")
        .to_string();
    ensure!(error.contains("the backup was refused"), "{error}");
    Ok(())
}

#[test]
fn tools_for_looking_at_volumes_are_there() {
    for tool in ["setfattr", "getfattr", "setfacl", "strip", "python3"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("a shell");
        assert!(found.status.success(), "{tool} is missing: tests/setup.sh cluster installs it");
    }
}
