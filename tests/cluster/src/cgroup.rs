//! The cgroups of a bed: one folder in every hierarchy, in which everything that it starts stays.
//!
//! They are how a bed finds all of its processes, also those of programs that were started by its programs.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::machine::{mounts, wait_until};
use crate::process::signal_if;

/// How long processes that were killed and cgroups that were emptied may take to go: those that wait for a disk do until it
/// has answered.
const END_LIMIT: Duration = Duration::from_secs(120);

/// The folder of a bed in every hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroups {
    folders: Vec<PathBuf>,
}

impl Cgroups {
    /// Of the bed with this name. Nothing is made.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let mounts = mounts()?;
        // The second version may be there beside the first; runc makes folders in both.
        let kinds = ["cgroup", "cgroup2"];
        let hierarchies = mounts.iter().filter(|mount| kinds.contains(&mount.kind.as_str()));
        let mut folders: Vec<PathBuf> = hierarchies.map(|mount| mount.point.join(name)).collect();
        // Every process of a pod is in that one, of the first version.
        folders.sort_by_key(|folder| !folder.starts_with("/sys/fs/cgroup/pids"));
        if folders.is_empty() {
            bail!("no cgroup hierarchy is mounted; mount one at /sys/fs/cgroup");
        }
        Ok(Self { folders })
    }

    /// Makes the folder `below` in every hierarchy.
    pub(crate) fn make(&self, below: &str) -> Result<()> {
        for folder in &self.folders {
            make_one(folder)?;
            make_one(&folder.join(below))?;
        }
        Ok(())
    }

    /// The file that a process is written to so that it is found again.
    pub(crate) fn entrance(&self) -> Result<PathBuf> {
        Ok(self.first()?.join("parts/cgroup.procs"))
    }

    /// Kills everything in it.
    pub(crate) fn kill_all(&self) -> Result<()> {
        let first = self.first()?;
        let emptied = wait_until(END_LIMIT, || kill_members(first));
        emptied.with_context(|| format!("end the processes in {}", first.display()))
    }

    /// Removes every folder.
    pub(crate) fn remove(&self) -> Result<()> {
        for folder in &self.folders {
            // Processes that have ended may keep it busy for a moment, and one whose starter was killed just before it
            // entered comes when all others are gone.
            wait_until(END_LIMIT, || {
                Ok(remove_tree(folder)? || (kill_members(folder)? && remove_tree(folder)?))
            })
            .with_context(|| format!("remove the cgroup {}", folder.display()))?;
        }
        Ok(())
    }

    fn first(&self) -> Result<&PathBuf> {
        self.folders.first().context("no cgroup hierarchy is mounted")
    }
}

fn make_one(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make the cgroup {}", folder.display()));
        }
        _ => {}
    }
    // A new folder of this hierarchy has no processors and no memory, and takes nobody in.
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = folder.join(name);
        if own.exists() && fs::read_to_string(&own)?.trim().is_empty() {
            let above = folder.parent().context("it is below a hierarchy")?.join(name);
            let text = fs::read_to_string(&above).with_context(|| format!("read {}", above.display()))?;
            fs::write(&own, text).with_context(|| format!("write {}", own.display()))?;
        }
    }
    Ok(())
}

fn members(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Kills whatever is in a folder or below it; whether nothing was.
fn kill_members(folder: &Path) -> Result<bool> {
    let mut processes = Vec::new();
    collect(folder, &mut processes)?;
    for (pid, folder) in &processes {
        signal_if(*pid, Signal::KILL, || members(folder).contains(pid))?;
    }
    Ok(processes.is_empty())
}

fn collect(folder: &Path, processes: &mut Vec<(i32, PathBuf)>) -> Result<()> {
    processes.extend(members(folder).into_iter().map(|pid| (pid, folder.to_owned())));
    folders_in(folder)?.iter().try_for_each(|below| collect(below, processes))
}

/// Whether it is gone.
fn remove_tree(folder: &Path) -> Result<bool> {
    for below in folders_in(folder)? {
        if !remove_tree(&below)? {
            return Ok(false);
        }
    }
    match fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", folder.display())),
    }
}
