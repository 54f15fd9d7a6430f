//! The bed itself: it serves, and nothing of it is left however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carrack_cluster::{Bed, Cluster, DRIVER, Level, Options, down, image, sweep};
use tempfile::TempDir;

/// Manifests of the pods and volumes below.
const PODS: &str = include_str!("pods.yaml");

/// Seconds within which a bed has started its parts, or has ended: more than it gives each of them.
const LONG: u64 = 180;

fn directory() -> TempDir {
    TempDir::with_prefix("carrack-bed-").expect("a directory")
}

/// The name by which namespaces, cgroups and interfaces of the bed are found.
fn name_of(directory: &Path) -> Option<String> {
    let state: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(directory.join("bed.json")).ok()?).ok()?;
    let network = state.get("network")?;
    Some(format!("carrack-{}-{}", network.get("subnet")?, network.get("suffix")?.as_str()?))
}

fn names_in(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Everything on this machine that belongs to the bed.
fn traces(directory: &Path, name: &str) -> Vec<String> {
    let shown = directory.display().to_string();
    let mut found = Vec::new();
    for process in names_in("/proc") {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let own = process.ends_with(std::process::id().to_string());
        if command.contains(&shown) && !own {
            found.push(format!("{}: {command}", process.display()));
        }
    }
    for mount in fs::read_to_string("/proc/self/mountinfo").expect("reads").lines() {
        if mount.contains(&shown) || mount.contains(name) {
            found.push(mount.to_owned());
        }
    }
    let interface = name.replacen("carrack-", "cb", 1);
    let folders = ["/run", "/run/netns", "/run/carrack-beds", "/sys/class/net", "/var/lib/cni/results"];
    let cgroups = names_in("/sys/fs/cgroup").into_iter().map(|path| path.display().to_string());
    for folder in cgroups.chain(folders.map(str::to_owned)) {
        for path in names_in(&folder) {
            let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if last.starts_with(name) || last == interface {
                found.push(path.display().to_string());
            }
        }
    }
    for device in names_in("/sys/block") {
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        if file.starts_with(&shown) {
            found.push(format!("{}: {file}", device.display()));
        }
    }
    for path in names_in(&shown) {
        if !path.ends_with("bed.lock") {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_control_plane_serves_and_its_parts_can_be_killed_and_started_again() {
    let directory = directory();
    let bed = Bed::start(Options::new(Level::ControlPlane, directory.path())).expect("starts");
    let name = name_of(directory.path()).expect("it has a name");
    let cluster = bed.cluster(0).expect("it has one");
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]).expect("it takes objects");

    let second = Bed::start(Options::new(Level::ControlPlane, directory.path()));
    let error = format!("{:#}", second.expect_err("the directory is taken"));
    assert!(error.contains("another process has a bed in"), "{error}");

    cluster.kill("kube-apiserver").expect("killed");
    assert!(!cluster.runs("kube-apiserver").expect("it is known"));
    cluster.kubectl(&["get", "configmap", "kept"]).expect_err("nobody answers");
    cluster.kill("etcd").expect("killed");
    cluster.start("etcd").expect("starts again");
    cluster.start("kube-apiserver").expect("starts again");
    cluster.kubectl(&["get", "configmap", "kept"]).expect("it is still there");

    let attached = Bed::attach(directory.path()).expect("it runs");
    let again = attached.cluster(0).expect("it has one");
    again.restart("kube-controller-manager").expect("whoever is attached may restart too");
    drop(attached);
    assert!(cluster.runs("etcd").expect("it is known"), "whoever is only attached ends nothing");

    let error = format!("{:#}", cluster.kill("kubelet").expect_err("it has no node"));
    assert!(error.contains("there is no part one/kubelet; there are: one/etcd"), "{error}");
    bed.stop().expect("ends");
    assert_eq!(traces(directory.path(), &name), Vec::<String>::new());
}

#[test]
fn a_start_that_was_killed_half_way_leaves_nothing_after_down() {
    let directory = directory();
    let sweeps = Path::new("no directory");
    for (part, ended) in [("\"one/etcd\"", directory.path()), ("\"one/kube-controller-manager\"", sweeps)] {
        let mut starter = Command::new(env!("CARGO_BIN_EXE_cluster"));
        starter.arg("up").arg(directory.path()).args(["--level", "control-plane"]);
        let mut starter = starter.stdout(Stdio::null()).spawn().expect("runs");
        wait(LONG, || {
            Ok(fs::read_to_string(directory.path().join("bed.json")).is_ok_and(|state| state.contains(part)))
        })
        .expect("it starts parts");
        let name = name_of(directory.path()).expect("it has a name");
        assert_ne!(traces(directory.path(), &name), Vec::<String>::new(), "nothing was started yet");
        starter.kill().expect("killed");
        starter.wait().expect("waited for");
        // What nobody ends by its directory is ended by the next who starts a bed: that may be any other test, at any moment.
        if ended == sweeps {
            sweep().expect("ends it");
        } else {
            wait(LONG, || Ok(down(ended).is_ok())).expect("ends it, or finds that it was ended");
        }
        wait(LONG, || Ok(traces(directory.path(), &name).is_empty())).ok();
        assert_eq!(traces(directory.path(), &name), Vec::<String>::new());
    }
}

#[test]
fn bad_input_says_what_to_do() {
    let start = |options: Options| format!("{:#}", Bed::start(options).expect_err("refused"));
    let mut options = Options::new(Level::ControlPlane, "/tmp/carrack-bed-none");
    options.clusters = 3;
    assert_eq!(start(options), "a bed has 1 or 2 clusters, not 3");
    let error = start(Options::new(Level::ControlPlane, format!("/tmp/{}", "long".repeat(20))));
    assert!(error.contains("is too long for the sockets in it; take one of at most"), "{error}");
    let error = start(Options::new(Level::ControlPlane, "relative"));
    assert!(error.contains("must be an absolute path"), "{error}");
    let error = format!("{:#}", Bed::attach(Path::new("/tmp/carrack-bed-none")).expect_err("refused"));
    assert!(error.contains("start one: cluster up /tmp/carrack-bed-none"), "{error}");
}

#[test]
fn two_full_clusters_run_pods_with_volumes_snapshots_and_an_object_store() {
    let directory = directory();
    let options = Options { clusters: 2, ..Options::new(Level::Full, directory.path()) };
    let bed = Bed::start(options).expect("starts");
    let name = name_of(directory.path()).expect("it has a name");
    let tested = uses_everything(&bed);
    if let Err(error) = tested {
        let cluster = bed.cluster(0).expect("it has one");
        panic!("{error:#}\n{}", describe(cluster));
    }
    bed.stop().expect("ends");
    assert_eq!(traces(directory.path(), &name), Vec::<String>::new());
}

fn uses_everything(bed: &Bed) -> Result<()> {
    let cluster = bed.cluster(0)?;
    cluster.apply(PODS)?;
    let limit = Duration::from_secs(90);
    for pod in ["writer", "namespaced", "late"] {
        succeeds(cluster, pod, limit)?;
    }
    let users = logs(cluster, "namespaced")?;
    ensure!(!users.contains("4294967295"), "its users are those of the node: {users}");

    cluster.apply(include_str!("snapshot.yaml"))?;
    for snapshot in ["btrfs", "ext4"] {
        cluster.wait_for(&format!("volumesnapshot/{snapshot}"), "jsonpath={.status.readyToUse}=true", 60)?;
    }
    cluster.apply(include_str!("restored.yaml"))?;
    cluster.wait_for("pod/holder", "condition=Ready", 60)?;
    cluster.kill("csi-driver")?;
    cluster.start("csi-driver")?;
    serves_changed_blocks(cluster)?;
    succeeds(cluster, "changer", limit)?;
    succeeds(cluster, "reader", limit)?;
    let read = logs(cluster, "reader")?;
    ensure!(read == "from before\nfrom before\n", "the volumes of snapshots have {read:?}");
    // A container that is just being made or ending when its runtime is killed ends unknown: now there is none.
    for part in ["containerd", "kubelet"] {
        cluster.kill(part)?;
        cluster.start(part)?;
    }
    cluster.wait_for("pod/holder", "condition=Ready", 60)?;

    let larger = r#"{"spec": {"resources": {"requests": {"storage": "600Mi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "btrfs", "--patch", larger])?;
    cluster.wait_for("pvc/btrfs", "jsonpath={.status.capacity.storage}=600Mi", 60)?;

    let archive = bed.directory().join("list.tar");
    let files = [(PathBuf::from("/bin/ls"), "/bin/ls")];
    let packed =
        image::Image { name: "carrack.test/list:1", files: &files, entrypoint: &["/bin/ls"], busybox: false };
    packed.write(&archive)?;
    cluster.import_image(&archive)?;
    fs::remove_file(&archive)?;
    cluster.kubectl(&["run", "list", "--restart=Never", "--image", packed.name, "--", "/bin"])?;
    succeeds(cluster, "list", limit)?;
    ensure!(logs(cluster, "list")? == "ls\n", "a program with its libraries has listed another folder");

    let other = bed.cluster(1)?;
    let url = &bed.minio().context("there is an object store")?.url;
    other.kubectl(&[
        "run",
        "client",
        "--restart=Never",
        "--image",
        image::BUSYBOX,
        "--command",
        "--",
        "wget",
        "-q",
        "-O",
        "/dev/null",
        &format!("{url}/minio/health/live"),
    ])?;
    succeeds(other, "client", limit)?;

    cluster.wait_for(&format!("node/{}", cluster.node()), "condition=Ready", 60)
}

/// Somebody answers where the changed blocks of snapshots are to be asked for, with a certificate of the cluster.
fn serves_changed_blocks(cluster: &Cluster) -> Result<()> {
    let service = format!("snapshotmetadataservice/{DRIVER}");
    let address = cluster.kubectl(&["get", &service, "-o", "jsonpath={.spec.address}"])?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--output", "/dev/null", "--cacert"]);
    curl.arg(cluster.kubeconfig().with_file_name("ca.crt")).arg(format!("https://{address}"));
    let output = curl.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nobody tells changed blocks at {address}: {said}");
    Ok(())
}

fn logs(cluster: &Cluster, pod: &str) -> Result<String> {
    cluster.kubectl(&["logs", pod])
}

fn succeeds(cluster: &Cluster, pod: &str, limit: Duration) -> Result<()> {
    let phase = || cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"]);
    let waited = wait(limit.as_secs(), || {
        // Each look costs a tenth of a second of a processor.
        sleep(Duration::from_millis(300));
        match phase()?.as_str() {
            "Succeeded" => Ok(true),
            "Failed" => bail!("it failed: {}", logs(cluster, pod)?),
            _ => Ok(false),
        }
    });
    waited.with_context(|| format!("wait for the end of pod {pod} of cluster {}", cluster.name()))
}

/// For whoever must find out why a test failed.
fn describe(cluster: &Cluster) -> String {
    let mut text = cluster.kubectl(&["get", "pods,pvc,volumesnapshots,events"]).unwrap_or_default();
    for part in ["kubelet", "csi-driver", "csi-provisioner", "csi-snapshotter", "csi-snapshot-metadata"] {
        let log = fs::read_to_string(cluster.log(part)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
        text.push_str(&format!("\n{part}:\n{}\n", last.join("\n")));
    }
    text
}

/// Asks until it holds. A look may take its time: only one that began after the limit is the last.
fn wait(seconds: u64, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let is_late = start.elapsed().as_secs() >= seconds;
        if holds()? {
            return Ok(());
        }
        ensure!(!is_late, "not within {seconds} s");
        sleep(Duration::from_millis(20));
    }
}
