//! The list of all beds on this machine, so that those which nobody ends are found.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::machine::write;
use crate::network::Network;
use crate::process::Identity;

/// One file a bed.
const FOLDER: &str = "/run/carrack-beds";

/// Held by whoever chooses a name or ends what others have left.
const LOCK: &str = "/run/carrack-beds.lock";

/// Held by whoever starts a program of which only one at a time may make its socket.
const SOCKET_LOCK: &str = "/run/carrack-beds-socket.lock";

/// A bed on this machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) directory: PathBuf,
    pub(crate) network: Network,
    /// The process whose end should be the end of the bed; none if it is kept.
    pub(crate) owner: Option<Identity>,
}

impl Entry {
    /// Writes it, instead of the one before.
    pub(crate) fn write(&self) -> Result<()> {
        write(&file(&self.network), &serde_json::to_string(self)?)
    }
}

/// Waits until nobody else has what this gives.
pub(crate) fn alone() -> Result<File> {
    locked(LOCK)
}

/// The same for the start of programs that make a socket at one path.
pub(crate) fn alone_at_socket() -> Result<File> {
    locked(SOCKET_LOCK)
}

fn locked(path: &str) -> Result<File> {
    let file =
        OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("open {path}"))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("lock {path}"))?;
    Ok(file)
}

/// All beds; an entry that is just being written is left out.
pub(crate) fn all() -> Vec<Entry> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    entries.filter_map(|entry| serde_json::from_str(&fs::read_to_string(entry.path()).ok()?).ok()).collect()
}

/// Forgets a bed.
pub(crate) fn forget(network: &Network) -> Result<()> {
    let path = file(network);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn file(network: &Network) -> PathBuf {
    Path::new(FOLDER).join(network.name())
}
