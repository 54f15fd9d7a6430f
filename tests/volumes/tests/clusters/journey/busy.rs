//! Volumes that are written to while they are backed up, and a repository that two clusters write to.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::{Bed, image::Image};
use carrack_volume_tests::{Carrack, Kubernetes, NAMESPACE, until};
use serde_json::{Value, json};

/// The image of the pods with a database.
const SQLITE: &str = "carrack.test/sqlite:1";
/// A second way to the repository, with a limit.
const SLOW: &str = "slow";
/// A row in each transaction, for as long as the pod lives.
const WRITES: &str = "while true; do sqlite3 -cmd '.timeout 5000' /data/shop.db \
     'INSERT INTO orders(note) VALUES (hex(randomblob(300)))'; done";

/// A database that is written to all the time: what is stored is the moment of the snapshot, and it is whole.
pub(super) fn database(bed: &Bed, here: Kubernetes<'_>, there: Kubernetes<'_>) -> Result<()> {
    let archive = bed.directory().join("sqlite.tar");
    let files = [("/usr/bin/sqlite3".into(), "/usr/bin/sqlite3")];
    Image { name: SQLITE, files: &files, entrypoint: &["/bin/sh"], busybox: true }.write(&archive)?;
    for cluster in [here, there] {
        cluster.0.import_image(&archive)?;
    }
    here.apply(&[claim("orders", "carrack-btrfs")])?;
    let start = format!(
        "sqlite3 -cmd '.timeout 5000' /data/shop.db 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS orders(id INTEGER PRIMARY KEY, note TEXT)'; {WRITES}"
    );
    here.apply(&[pod("shop", "orders", &start)])?;
    here.wait_for_phase("pod", "shop", "orders", &["Running"], 90)?;
    until("orders come in", 60, || Ok(rows(here, "shop").unwrap_or(0) > 20))?;
    let before = rows(here, "shop")?;
    here.back_up("shop", "orders", "orders")?;
    here.wait_for_phase("datamoverbackup", "shop", "orders", &["Preparing", "Running", "Completed"], 120)?;
    let after = rows(here, "shop")?;
    let ends = here.ends("datamoverbackup", "shop", "orders", 120)?;
    ensure!(ends.text("phase") == "Completed", "{}", ends.status);
    until("more orders come in", 60, || Ok(rows(here, "shop")? > after + 20))?;
    here.0.kubectl(&["delete", "pod", "orders", "-n", "shop", "--grace-period=0", "--force"])?;

    there.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
        "metadata": { "name": "orders", "namespace": "market" },
        "spec": { "destinationClaimRef": { "name": "orders" }, "source": { "snapshotID": ends.text("snapshotID") },
            "newVolume": { "storageClassName": "carrack-xfs",
                "resources": { "requests": { "storage": "400Mi" } } } } })])?;
    let restored = there.ends("datamoverrestore", "market", "orders", 120)?;
    ensure!(restored.text("phase") == "Completed", "{}", restored.status);
    there.apply(&[pod("market", "orders", "sleep 100000")])?;
    there.wait_for_phase("pod", "market", "orders", &["Running"], 90)?;
    let judged = there.shell("market", "orders", "sqlite3 /data/shop.db 'PRAGMA integrity_check'")?;
    ensure!(judged == "ok\n", "{judged}");
    let found = rows(there, "market")?;
    ensure!(
        (before..=after).contains(&found),
        "{found} orders were restored: {before} were there before, {after} when the snapshot was ready"
    );
    // The pod goes on where the other one was.
    there.shell("market", "orders", "sqlite3 /data/shop.db 'INSERT INTO orders(note) VALUES (1)'")?;
    ensure!(rows(there, "market")? == found + 1, "it does not go on");
    Ok(())
}

fn rows(cluster: Kubernetes<'_>, namespace: &str) -> Result<u64> {
    let count = "sqlite3 -cmd '.timeout 5000' /data/shop.db 'SELECT count(*) FROM orders'";
    let said = cluster.shell(namespace, "orders", count)?;
    said.trim().parse().with_context(|| said.clone())
}

/// Both clusters are in the middle of a backup when maintenance forgets, frees and checks.
pub(super) fn together(one: &Carrack<'_>, two: &Carrack<'_>) -> Result<()> {
    let sides = [(one.kubernetes(), "shop"), (two.kubernetes(), "market")];
    for (cluster, namespace) in sides {
        slow_way(cluster)?;
        cluster.workload(namespace, "busy", "carrack-btrfs", false)?;
        cluster.shell(namespace, "busy", "head -c 72000000 /dev/urandom > /data/random; sync")?;
        // What is to be forgotten meanwhile.
        cluster.back_up(namespace, "earlier", "busy")?;
        cluster.ends("datamoverbackup", namespace, "earlier", 120)?;
        cluster.shell(namespace, "busy", "head -c 72000000 /dev/urandom > /data/random; sync")?;
    }
    wait_for_second(40)?;
    for (cluster, namespace) in sides {
        cluster.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "meanwhile", "namespace": namespace },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "busy" }, "dataMoverType": SLOW } })])?;
    }
    let here = one.kubernetes();
    let patch = r#"{"spec":{"maintenance":{"schedule":"* * * * *","keep":{"last":1},"checkPercent":100}}}"#;
    here.0.kubectl(&["patch", "clusterrepository", "main", "--type=merge", "-p", patch])?;
    until("maintenance runs beside both backups", 180, || {
        let path = "jsonpath={.items[*].status.phase}";
        let label = "carrack.dev/task=maintain";
        let maintains = here.0.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", label, "-o", path])?;
        let mut beside = maintains.split(' ').any(|phase| phase == "Running");
        for (cluster, namespace) in sides {
            let backup = cluster.get("datamoverbackup", namespace, "meanwhile")?.context("the backup")?;
            beside &= backup["status"]["phase"] == "Running";
        }
        Ok(beside)
    })?;
    until("the repository was maintained", 600, || {
        let repository = here.get("clusterrepository", "", "main")?.context("the repository")?;
        Ok(repository["status"]["lastMaintenance"].is_string())
    })?;
    let patch = r#"{"spec":{"maintenance":{"suspend":true}}}"#;
    here.0.kubectl(&["patch", "clusterrepository", "main", "--type=merge", "-p", patch])?;
    for (cluster, namespace) in sides {
        let ends = cluster.ends("datamoverbackup", namespace, "meanwhile", 300)?;
        ensure!(ends.text("phase") == "Completed", "{}", ends.status);
    }
    for (cluster, namespace) in sides {
        whole(cluster, namespace)?;
    }
    forgotten(here)
}

/// Writes slowly, so that something can happen meanwhile.
fn slow_way(cluster: Kubernetes<'_>) -> Result<()> {
    let mut repository = cluster.get("clusterrepository", "", "main")?.context("the repository")?;
    repository["metadata"] = json!({ "name": SLOW });
    repository["status"] = Value::Null;
    repository["spec"]["location"]["limits"] = json!({ "uploadBytesPerSecond": 600_000 });
    cluster.apply(&[
        repository,
        json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverType", "metadata": { "name": SLOW },
            "spec": { "provisioner": "carrack.dev/mover", "repository": { "name": SLOW } } }),
    ])?;
    cluster.0.wait_for("clusterrepository/slow", "condition=Ready", 180)
}

/// The last backup of each side restores, byte for byte.
fn whole(cluster: Kubernetes<'_>, namespace: &str) -> Result<()> {
    cluster.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
        "metadata": { "name": "meanwhile", "namespace": namespace },
        "spec": { "destinationClaimRef": { "name": "quiet" }, "source": { "backup": "meanwhile" },
            "newVolume": { "storageClassName": "carrack-ext4" } } })])?;
    let restored = cluster.ends("datamoverrestore", namespace, "meanwhile", 120)?;
    ensure!(restored.text("phase") == "Completed", "{}", restored.status);
    cluster.use_claim(namespace, "quiet", false)?;
    let sum = |pod: &str| cluster.shell(namespace, pod, "sha256sum < /data/random");
    let (before, after) = (sum("busy")?, sum("quiet")?);
    ensure!(before == after, "{before} {after}");
    Ok(())
}

/// What the rules let go is gone.
fn forgotten(here: Kubernetes<'_>) -> Result<()> {
    here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
        "metadata": { "name": "forgotten", "namespace": "shop" },
        "spec": { "destinationClaimRef": { "name": "forgotten" }, "source": { "backup": "first" },
            "newVolume": { "storageClassName": "carrack-ext4" } } })])?;
    let ends = here.ends("datamoverrestore", "shop", "forgotten", 120)?;
    ensure!(ends.text("phase") == "Failed" && ends.reason() == "SourceNotFound", "{}", ends.status);
    // Another turn may have begun before it was suspended: that comes to its end.
    let label = "carrack.dev/task=maintain";
    until("no pod of maintenance is left", 120, || {
        Ok(here.0.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", label, "-o", "name"])?.is_empty())
    })
}

/// Waits until a second of the minute has begun.
fn wait_for_second(second: u64) -> Result<()> {
    let now = || -> Result<u64> { Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()) };
    let start = now()?;
    let wanted = start + (60 + second - start % 60) % 60;
    until("the next minute is near", 70, || Ok(now()? >= wanted))
}

fn claim(name: &str, class: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "400Mi" } } } })
}

fn pod(namespace: &str, name: &str, script: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": { "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "database", "image": SQLITE, "imagePullPolicy": "Never",
                "command": ["sh", "-euc", script], "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": name } }] } })
}
