//! Ending a bed, whatever state it is in: everything is found by the bed's name and directory, and nothing else is
//! touched.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use crate::bed::lock;
use crate::cgroup::Cgroups;
use crate::ledger::State;
use crate::machine::{mounts, run, tell, wait_until};
use crate::network::{Network, Place};
use crate::register;

/// How long a mount may stay busy after its last user was killed.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(120);
/// Where kubelet leaves links to logs, whatever its settings.
const LINKS: &str = "/var/log/containers";
/// The same of containerd, and what it knows of networks.
const RESULTS: &str = "/var/lib/cni/results";

/// Ends the bed in `directory`, started to its end or not, and removes all that it has made.
///
/// # Errors
///
/// Another process owns the bed and runs; or something cannot be ended or removed: the error says what.
pub fn down(directory: &Path) -> Result<()> {
    let shown = directory.display();
    // The list of mounts has absolute paths only.
    let directory = directory.canonicalize();
    let directory =
        directory.with_context(|| format!("no bed was started in {shown}; name the directory of one"))?;
    let lock = lock(&directory)?;
    let ended = down_held(&directory);
    fs::remove_file(directory.join("bed.lock")).ok();
    drop(lock);
    ended
}

/// The same for one who holds the lock of the directory.
pub(crate) fn down_held(directory: &Path) -> Result<()> {
    match State::read(directory)? {
        Some(state) => end(directory, &state.network, true),
        // A start that failed has left its logs.
        None => clear(directory, true),
    }
}

/// Ends beds whose owners have ended without ending them.
///
/// # Errors
///
/// As for [`down`].
pub fn sweep() -> Result<()> {
    let _alone = register::alone()?;
    for entry in register::all().iter().filter(|entry| entry.owner.is_some_and(|owner| !owner.runs())) {
        let (directory, network) = (&entry.directory, &entry.network);
        let held = directory.is_dir().then(|| lock(directory));
        // Whoever has the lock is ending it already.
        if !matches!(held, Some(Err(_))) {
            tell(&format!("ending {}, which its owner has left", network.name()));
            end(directory, network, true)?;
        }
    }
    Ok(())
}

/// Ends everything of a bed; without `with_logs`, the logs stay.
pub(crate) fn end(directory: &Path, network: &Network, with_logs: bool) -> Result<()> {
    let cgroups = Cgroups::of(&network.name())?;
    cgroups.kill_all()?;
    release_volumes(directory)?;
    network.remove()?;
    cgroups.remove()?;
    remove_links(directory)?;
    remove_results(network)?;
    remove(&network.run_folder())?;
    clear(directory, with_logs)?;
    register::forget(network)
}

/// Unmounts everything and detaches all loop devices. Devices hold on to the mounts in which their files are, and mounts
/// to their devices, so it takes rounds.
fn release_volumes(directory: &Path) -> Result<()> {
    let gone = wait_until(UNMOUNT_LIMIT, || {
        let mut left = false;
        for mount in mounts()?.iter().rev().filter(|mount| mount.point.starts_with(directory)) {
            left = true;
            // Busy ones are tried again.
            unmount(&mount.point, UnmountFlags::empty()).ok();
        }
        for device in loops(directory)? {
            left = true;
            run(Command::new("losetup").arg("--detach").arg(device)).ok();
        }
        Ok(!left)
    });
    gone.with_context(|| format!("unmount and detach what is below {}", directory.display()))
}

/// The loop devices with files in the directory.
fn loops(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").context("read /sys/block")?.flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(file.trim_end()).starts_with(directory) {
            found.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    Ok(found)
}

fn remove_links(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(LINKS).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(directory)) {
            fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Removes what the network plugins have noted of pods; their names begin with that of the network.
fn remove_results(network: &Network) -> Result<()> {
    let prefix = format!("{}-", network.name());
    for entry in fs::read_dir(RESULTS).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the files.
fn clear(directory: &Path, with_logs: bool) -> Result<()> {
    if mounts()?.iter().any(|mount| mount.point.starts_with(directory)) {
        bail!("something is mounted below {}; unmount it", directory.display());
    }
    for place in [Place::Cluster(0), Place::Cluster(1), Place::Minio] {
        let folder = directory.join(place.name());
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_log =
                path.ends_with("logs") || path.extension().is_some_and(|extension| extension == "log");
            if with_logs || !is_log {
                remove(&path)?;
            }
        }
        if with_logs {
            remove(&folder)?;
        }
    }
    remove(&State::half_written(directory))?;
    remove(&State::file(directory))
}

fn remove(path: &Path) -> Result<()> {
    let removed =
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
