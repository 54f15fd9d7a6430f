//! What a restore of a snapshot gives back, compared with what was backed up.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use carrack_mover::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{records::SourceKind, session::SessionName},
    monitor::CollectMonitor,
    reader::SnapshotReader,
    repo::Repository,
    restore::{
        RestoreOptions,
        image::{ImageOptions, restore_image},
        restore,
    },
};

use super::scene::{IMAGE, MEMORY_BYTES, Tree, tree_of};

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
    let monitor = Arc::new(CollectMonitor::default());
    let (done, back) = match reader.snapshot().source {
        SourceKind::Block => restored_image(&reader, target.path(), monitor.clone()).await,
        SourceKind::Files | SourceKind::Stdin => {
            let options = RestoreOptions {
                memory_bytes: MEMORY_BYTES,
                threads: 1,
                ..RestoreOptions::to(target.path())
            };
            let done = restore(&reader, &options, monitor.clone(), Cancel::default()).await;
            (done.map(drop), below(target.path()))
        }
    };
    let named: BTreeSet<String> = monitor.problems().into_iter().map(|problem| problem.what).collect();
    let mut found = Restored { error: done.err().map(|error| error.in_one_line()), ..Restored::default() };
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

/// Restores an image to a file: the one entry that there is.
async fn restored_image(
    reader: &SnapshotReader,
    target: &Path,
    monitor: Arc<CollectMonitor>,
) -> (Result<()>, Tree) {
    let file = target.join(IMAGE);
    let options = ImageOptions {
        target: file.clone(),
        path: Vec::new(),
        replace: false,
        known_zero: false,
        compare: false,
        verify: false,
        dry_run: false,
        memory_bytes: MEMORY_BYTES,
        threads: 1,
    };
    let done = match restore_image(reader, &options, monitor, Cancel::default()).await {
        // A copy that could not read it has no entry: it is judged as a file that was left out.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map(drop),
    };
    let back = fs::read(&file).map(|bytes| Tree::from([(IMAGE.to_owned(), bytes)]));
    (done, back.unwrap_or_default())
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
