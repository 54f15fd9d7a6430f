//! What is shown: the snapshots with their names, and the few that are open for reading.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::Handle;

use super::inodes::Inodes;
use crate::{
    error::{Error, ErrorKind, Result},
    format::entry::Entry,
    format::records::Snapshot,
    reader::SnapshotReader,
    repo::Repository,
};

/// Snapshots that are kept open, each with caches of up to 48 MiB; others open anew. Open files keep theirs.
const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct View {
    repository: Repository,
    pub(super) snapshots: Vec<Snapshot>,
    /// One for each snapshot, all different.
    pub(super) names: Vec<String>,
    /// The newest one's index.
    pub(super) latest: Option<usize>,
    pub(super) inodes: Inodes,
    pub(super) handle: Handle,
    /// Those that were used last, youngest at the end.
    readers: Mutex<Vec<(usize, SnapshotReader)>>,
    /// The first defect of the program that was met.
    defect: Mutex<Option<Error>>,
}

impl View {
    pub(super) fn new(repository: Repository, snapshots: Vec<Snapshot>, handle: Handle) -> Self {
        let latest = (0..snapshots.len()).max_by_key(|index| snapshots[*index].started);
        let names = names(&snapshots);
        let inodes = Inodes::new(snapshots.len());
        let (readers, defect) = (Mutex::default(), Mutex::default());
        Self { repository, snapshots, names, latest, inodes, handle, readers, defect }
    }

    /// Keeps a defect of the program: it ends the mount.
    pub(super) fn note(&self, error: &Error) {
        if error.kind() == ErrorKind::Internal {
            let mut defect = self.defect.lock().unwrap_or_else(PoisonError::into_inner);
            defect.get_or_insert_with(|| error.again());
        }
    }

    /// The defect that was met, once.
    pub(super) fn take_defect(&self) -> Option<Error> {
        self.defect.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Opens a snapshot for reading.
    pub(super) fn reader(&self, index: usize) -> Result<SnapshotReader> {
        let readers = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = readers().iter().find(|(known, _)| *known == index).map(|(_, reader)| reader.clone());
        let reader = match known {
            Some(reader) => reader,
            None => {
                self.handle.block_on(SnapshotReader::of(&self.repository, self.snapshots[index].session))?
            }
        };
        let mut readers = readers();
        readers.retain(|(known, _)| *known != index);
        if readers.len() >= READERS {
            readers.remove(0);
        }
        readers.push((index, reader.clone()));
        Ok(reader)
    }

    /// The entry at a path of a snapshot.
    pub(super) fn entry(&self, index: usize, path: &[u8]) -> Result<Option<Entry>> {
        let reader = self.reader(index)?;
        self.handle.block_on(reader.lookup(path))
    }
}

/// Short ids; the full one where two would be the same.
fn names(snapshots: &[Snapshot]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut name = |snapshot: &Snapshot| {
        let short = snapshot.session.nonce.short();
        if seen.insert(short.clone()) { short } else { snapshot.session.nonce.to_hex() }
    };
    snapshots.iter().map(&mut name).collect()
}
