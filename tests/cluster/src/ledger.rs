//! What a bed has started, in memory and in the file `bed.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::bed::Level;
use crate::cgroup::Cgroups;
use crate::machine::{tell, write};
use crate::network::Network;
use crate::part::Part;
use crate::register;

/// How long a part may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long one may take that was killed: it is gone only when the disk has answered what it was waiting for.
const KILL_LIMIT: Duration = Duration::from_secs(120);

/// The contents of `bed.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) network: Network,
    pub(crate) clusters: u8,
    pub(crate) level: Level,
    pub(crate) minio: bool,
    /// Everything was started.
    pub(crate) ready: bool,
    pub(crate) parts: Vec<Part>,
}

impl State {
    /// The file in a bed's directory.
    pub(crate) fn file(directory: &Path) -> PathBuf {
        directory.join("bed.json")
    }

    /// What is there for a moment while it is written, and stays if the writer is killed then.
    pub(crate) fn half_written(directory: &Path) -> PathBuf {
        Self::file(directory).with_extension("new")
    }

    /// Of the bed in this directory, or nothing if there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = Self::file(directory);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let state = serde_json::from_str(&text);
        state.map(Some).with_context(|| format!("{} is not what this version writes", path.display()))
    }

    /// Writes it so that a reader finds the old or the new one.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = Self::file(directory);
        let new = Self::half_written(directory);
        write(&new, &serde_json::to_string_pretty(self)?)?;
        fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }
}

/// The parts of a running bed.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) directory: PathBuf,
    pub(crate) network: Network,
    cgroups: Cgroups,
    state: Mutex<State>,
    /// Those that this process has started and must wait for.
    children: Mutex<BTreeMap<String, Child>>,
}

impl Ledger {
    pub(crate) fn new(directory: &Path, state: State) -> Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            network: state.network.clone(),
            cgroups: Cgroups::of(&state.network.name())?,
            state: Mutex::new(state),
            children: Mutex::default(),
        })
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// How many clusters there are, and whether there is a MinIO.
    pub(crate) fn shape(&self) -> (u8, bool) {
        let state = hold(&self.state);
        (state.clusters, state.minio)
    }

    /// Changes the state and writes it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = hold(&self.state);
        let changed = change(&mut state)?;
        state.write(&self.directory)?;
        Ok(changed)
    }

    /// Adds parts, starts them, and waits for all of them.
    pub(crate) fn launch(&self, parts: Vec<Part>) -> Result<()> {
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        self.change(|state| {
            state.parts.extend(parts);
            Ok(())
        })?;
        let start = Instant::now();
        names.iter().try_for_each(|name| self.spawn(name))?;
        for name in &names {
            self.part(name)?.wait_ready()?;
            tell(&format!("{name} ready after {:.1} s", start.elapsed().as_secs_f32()));
        }
        Ok(())
    }

    fn spawn(&self, name: &str) -> Result<()> {
        let entrance = self.cgroups.entrance()?;
        let common_socket = self.part(name)?.common_socket;
        let _alone = common_socket.as_ref().map(|_| register::alone_at_socket()).transpose()?;
        let child = self.change(|state| find(&mut state.parts, name)?.start(&entrance))?;
        hold(&self.children).insert(name.to_owned(), child);
        common_socket.map_or(Ok(()), |socket| self.part(name)?.wait_for_common_socket(&socket))
    }

    /// A part as it is now.
    pub(crate) fn part(&self, name: &str) -> Result<Part> {
        find(&mut hold(&self.state).parts, name).cloned()
    }

    /// The names of all parts.
    pub(crate) fn names(&self) -> Vec<String> {
        hold(&self.state).parts.iter().map(|part| part.name.clone()).collect()
    }

    /// Starts a part that does not run, and waits until it is ready.
    pub(crate) fn start(&self, name: &str) -> Result<()> {
        if !self.part(name)?.runs() {
            self.spawn(name)?;
        }
        self.part(name)?.wait_ready()
    }

    /// Ends a part: asks it to, and kills it if it takes too long.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        if let Some(process) = self.part(name)?.process {
            process.signal(Signal::TERM)?;
            if process.wait(STOP_LIMIT).is_ok() {
                self.reap(name);
                return Ok(());
            }
        }
        self.kill(name)
    }

    /// Kills a part, as a crash does.
    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        if let Some(process) = self.part(name)?.process {
            process.signal(Signal::KILL)?;
            process.wait(KILL_LIMIT)?;
        }
        self.reap(name);
        Ok(())
    }

    fn reap(&self, name: &str) {
        if let Some(mut child) = hold(&self.children).remove(name) {
            // It has ended; there is nothing to learn from how.
            child.wait().ok();
        }
    }

    /// Waits for all children after everything was killed.
    pub(crate) fn reap_all(&self) {
        let children = std::mem::take(&mut *hold(&self.children));
        for mut child in children.into_values() {
            child.wait().ok();
        }
    }

    /// Fails if a part has ended.
    pub(crate) fn all_run(&self) -> Result<()> {
        for part in &hold(&self.state).parts {
            if !part.runs() {
                bail!("{} has ended; {}", part.name, part.last_words());
            }
        }
        Ok(())
    }
}

/// A thread that has panicked leaves a list of parts that is as good as any.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find<'a>(parts: &'a mut [Part], name: &str) -> Result<&'a mut Part> {
    let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
    let found = parts.iter_mut().find(|part| part.name == name);
    found.with_context(|| format!("there is no part {name}; there are: {}", names.join(", ")))
}
