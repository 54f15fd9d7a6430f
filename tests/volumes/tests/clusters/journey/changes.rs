//! A driver that tells which blocks of a device have changed, and one that does not.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use carrack_cluster::DRIVER;
use carrack_volume_tests::{Ends, Kubernetes, until};
use serde_json::json;

/// What marks a snapshot that stays.
const BASE: &str = "carrack.dev/base";
/// The part that answers for the driver.
const SERVICE: &str = "csi-snapshot-metadata";
const MIB: i64 = 1 << 20;

/// The driver is asked, and it answers or not.
pub(super) fn told_and_untold(here: Kubernetes<'_>) -> Result<()> {
    let volume = Volume { here };
    volume.only_what_changed_is_read().context("only what changed is read")?;
    volume.broken_off_once().context("a list that breaks off once")?;
    volume.nobody_tells().context("nobody tells what changed")?;
    volume.nobody_is_asked().context("nobody is asked")
}

/// The raw block volume `blocks` in namespace `shop`.
struct Volume<'a> {
    here: Kubernetes<'a>,
}

impl Volume<'_> {
    /// The second backup reads what the driver lists, and the volume comes back whole.
    fn only_what_changed_is_read(&self) -> Result<()> {
        self.here.workload("shop", "blocks", "carrack-ext4", true)?;
        self.write("bs=1M count=40")?;
        self.unknown("blocks-1", "it is the first snapshot")?;
        let first = self.bases()?;
        ensure!(first.len() == 1, "{first:?}");

        self.write("bs=1M count=2 seek=300")?;
        self.write("bs=64k count=1 seek=3")?;
        let status = self.read("blocks-2")?.status;
        let listed = status["changedBlocks"]["bytes"].as_i64().unwrap_or(-1);
        ensure!((2 * MIB..4 * MIB).contains(&listed) && status["readBytes"] == listed, "{status}");
        until("the base before is gone, and one is there", 60, || {
            let second = self.bases()?;
            Ok(second.len() == 1 && second != first)
        })?;

        // Nothing is written: nothing is read.
        let status = self.read("blocks-3")?.status;
        ensure!(status["changedBlocks"]["bytes"] == 0 && status["readBytes"] == 0, "{status}");
        self.comes_back_whole("blocks-3")
    }

    /// Of a list that broke off, the rest is asked for.
    fn broken_off_once(&self) -> Result<()> {
        // More ranges than one message has.
        self.here.shell(
            "shop",
            "blocks",
            "i=0; while [ $i -lt 300 ]; do echo $i | dd of=/dev/data bs=128k seek=$((i + 800)) conv=notrunc; i=$((i + 1)); done \
             2>/dev/null; sync",
        )?;
        let log = self.here.0.log("csi-driver");
        let failures = || -> Result<usize> {
            let said = fs::read_to_string(&log)?;
            Ok(said
                .lines()
                .filter(|line| line.contains("GetMetadataDelta") && line.contains("Unavailable"))
                .count())
        };
        let before = failures()?;
        self.tells(r#"{"getMetadataDelta":{"fail":"UNAVAILABLE: at another time","failAfter":1}}"#)?;
        self.here.back_up("shop", "broke-off", "blocks")?;
        until("the list breaks off", 90, || Ok(failures()? > before))?;
        fs::remove_file(self.here.0.faults(DRIVER))?;
        let status = self.ends("datamoverbackup", "broke-off")?.status;
        let listed = status["changedBlocks"]["bytes"].as_i64().unwrap_or(-1);
        ensure!(listed >= 300 * 64 * 1024 && status["readBytes"] == listed, "{status}");
        self.comes_back_whole("broke-off")
    }

    /// All of the volume is read then, the status says why, and it comes back whole.
    fn nobody_tells(&self) -> Result<()> {
        self.write("bs=1M count=1 seek=10")?;
        // It breaks off in the middle each time.
        self.tells(r#"{"getMetadataDelta":{"fail":"UNAVAILABLE: at another time","failAfter":1}}"#)?;
        self.unknown("broken", "at another time")?;
        self.tells(r#"{"getMetadataDelta":{"fail":"FAILED_PRECONDITION: never"}}"#)?;
        self.unknown("refused", "never")?;
        fs::remove_file(self.here.0.faults(DRIVER))?;

        self.here.0.kill(SERVICE)?;
        self.unknown("silent", "the metadata service at")?;
        self.here.0.start(SERVICE)?;

        let base = ["delete", "volumesnapshots", "-n", "shop", "-l", BASE, "--timeout=60s"];
        self.here.0.kubectl(&base)?;
        self.unknown("no-base", "is not there any more")?;
        // From there it goes on.
        self.write("bs=1M count=1 seek=20")?;
        let status = self.read("again")?.status;
        ensure!(status["changedBlocks"]["bytes"].as_i64().is_some_and(|bytes| bytes < 2 * MIB), "{status}");
        self.comes_back_whole("again")
    }

    /// Who wants no list keeps no snapshot either, and a claim takes its own with it.
    fn nobody_is_asked(&self) -> Result<()> {
        self.here.apply(&[
            json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverType", "metadata": { "name": "never" },
                "spec": { "provisioner": "carrack.dev/mover", "repository": { "name": "main" }, "changedBlocks": "Never" } }),
            json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverBackup",
            "metadata": { "name": "never", "namespace": "shop" },
            "spec": { "type": "PVC", "sourceClaimRef": { "name": "blocks" }, "dataMoverType": "never" } }),
        ])?;
        let status = self.ends("datamoverbackup", "never")?.status;
        ensure!(status["changedBlocks"].is_null(), "{status}");
        until("the snapshot that stayed is gone", 60, || Ok(self.bases()?.is_empty()))?;

        self.unknown("once-more", "")?;
        ensure!(self.bases()?.len() == 1);
        self.here.0.kubectl(&["delete", "pod", "blocks", "-n", "shop", "--grace-period=0", "--force"])?;
        self.here.0.kubectl(&["delete", "pvc", "blocks", "-n", "shop", "--timeout=90s"])?;
        until("the snapshot goes with its claim", 60, || Ok(self.bases()?.is_empty()))
    }

    fn write(&self, how: &str) -> Result<()> {
        let script = format!("dd if=/dev/urandom of=/dev/data conv=notrunc {how} 2>/dev/null; sync");
        self.here.shell("shop", "blocks", &script).map(drop)
    }

    fn ends(&self, kind: &str, name: &str) -> Result<Ends> {
        let ends = self.here.ends(kind, "shop", name, 240)?;
        ensure!(ends.text("phase") == "Completed", "{name}: {}", ends.status);
        Ok(ends)
    }

    fn read(&self, name: &str) -> Result<Ends> {
        self.here.back_up("shop", name, "blocks")?;
        self.ends("datamoverbackup", name)
    }

    /// A backup for which all is read, and says so with these words.
    fn unknown(&self, name: &str, words: &str) -> Result<()> {
        let status = self.read(name)?.status;
        let why = status["changedBlocks"]["unknown"].as_str().unwrap_or("nothing said");
        ensure!(why.contains(words) && why != "nothing said", "expected {words:?}: {status}");
        ensure!(status["changedBlocks"]["bytes"].is_null(), "{status}");
        Ok(())
    }

    fn tells(&self, faults: &str) -> Result<()> {
        let path = self.here.0.faults(DRIVER);
        let fresh = path.with_extension("new");
        fs::write(&fresh, faults)?;
        fs::rename(fresh, path).map_err(Into::into)
    }

    /// Names of the snapshots that stay of this volume.
    fn bases(&self) -> Result<Vec<String>> {
        let names =
            "jsonpath={range .items[*]}{.metadata.ownerReferences[0].name} {.metadata.name}{'\\n'}{end}";
        let found =
            self.here.0.kubectl(&["get", "volumesnapshots", "-n", "shop", "-l", BASE, "-o", names])?;
        Ok(found.lines().filter(|line| line.starts_with("blocks ")).map(str::to_owned).collect())
    }

    fn comes_back_whole(&self, backup: &str) -> Result<()> {
        let name = format!("{backup}-whole");
        self.here.apply(&[json!({ "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverRestore",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "destinationClaimRef": { "name": name }, "source": { "backup": backup },
                "newVolume": { "volumeMode": "Block" } } })])?;
        self.ends("datamoverrestore", &name)?;
        self.here.use_claim("shop", &name, true)?;
        let sum = |pod: &str| self.here.shell("shop", pod, "sha256sum < /dev/data");
        let (before, after) = (sum("blocks")?, sum(&name)?);
        ensure!(before == after, "{before} {after}");
        Ok(())
    }
}
