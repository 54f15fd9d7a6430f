//! What a restore of a snapshot gives back, compared with what was backed up.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use carrack_mover::{
    cancel::Cancel,
    error::{Error, Result},
    format::session::SessionName,
    monitor::CollectMonitor,
    reader::SnapshotReader,
    repo::Repository,
    restore::{RestoreOptions, restore},
};

use super::scene::{MEMORY_BYTES, Tree, tree_of};

/// What a restore gave back.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files that are not as they were, and were not named.
    pub silent: BTreeSet<String>,
    /// Files that are not as they were.
    pub lost: BTreeSet<String>,
    /// What ended it.
    pub error: Option<String>,
}

impl Restored {
    /// Whether everything is as it was.
    pub fn is_exact(&self) -> bool {
        self.lost.is_empty() && self.error.is_none()
    }
}

/// Restores a snapshot and compares it.
pub async fn restored(repository: &Repository, session: SessionName, truth: &Tree) -> Result<Restored> {
    let reader = SnapshotReader::new(repository.clone(), repository.snapshot(session).await?);
    let target = tempfile::tempdir().map_err(|error| Error::io(error, "a directory to restore to"))?;
    let options =
        RestoreOptions { memory_bytes: MEMORY_BYTES, threads: 1, ..RestoreOptions::to(target.path()) };
    let monitor = Arc::new(CollectMonitor::default());
    let done = restore(&reader, &options, monitor.clone(), Cancel::default()).await;
    let named: BTreeSet<String> = monitor.problems().into_iter().map(|problem| problem.what).collect();
    let mut found = Restored { error: done.err().map(|error| error.in_one_line()), ..Restored::default() };
    let back = below(target.path());
    for (path, contents) in truth {
        if back.get(path) != Some(contents) {
            found.lost.insert(path.clone());
            if found.error.is_none() && !is_covered(path, &named) {
                found.silent.insert(path.clone());
            }
        }
    }
    // What was never in it is as wrong as what is missing of it.
    let extra = back.keys().filter(|path| !truth.contains_key(*path)).cloned();
    found.silent.extend(extra);
    Ok(found)
}

fn below(target: &Path) -> Tree {
    let prefix = format!("{}/", target.display()).trim_start_matches('/').to_owned();
    let tree = tree_of(target).unwrap_or_default().into_iter();
    tree.filter_map(|(path, contents)| Some((path.strip_prefix(&prefix)?.to_owned(), contents))).collect()
}

/// Whether a path, or one above it, is named. A page that is lost has no single name: `/` stands for all of it.
pub fn is_covered(path: &str, named: &BTreeSet<String>) -> bool {
    named.iter().any(|name| {
        let name = name.trim_start_matches('/');
        name.is_empty() || path == name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
    })
}
