//! Restores of a simulated world, and what excuses one that fails.

use std::{path::Path, sync::Arc};

use carrack_mover::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    monitor::CollectMonitor,
    reader::SnapshotReader,
    restore::{RestoreOptions, restore},
};

use super::{
    actors::MEMORY_BYTES,
    model::Model,
    source::{Tree, content},
};

/// What fails because the snapshot was forgotten meanwhile, fails rightly.
pub(super) fn excuse<T>(model: &Model, session: &str, done: Result<T>) -> Result<T> {
    match done {
        Err(error) if model.is_forgetting(session) && error.kind() == ErrorKind::Corrupt => {
            Err(Error::not_found(format!("it was forgotten: {}", error.in_one_line())))
        }
        Err(error) if !model.is_forgetting(session) && error.kind() == ErrorKind::NotFound => {
            Err(Error::corrupt(format!("{session} can be seen and is not found: {}", error.in_one_line())))
        }
        done => done,
    }
}

/// Restores all of it; problems are errors.
pub(super) async fn restore_whole(reader: &SnapshotReader, target: &Path) -> Result<()> {
    let options = RestoreOptions { memory_bytes: MEMORY_BYTES, threads: 1, ..RestoreOptions::to(target) };
    let monitor = Arc::new(CollectMonitor::default());
    let report = restore(reader, &options, Arc::clone(&monitor) as _, Cancel::default()).await?;
    let Some(problem) = monitor.problems().into_iter().next().filter(|_| report.problems > 0) else {
        return Ok(());
    };
    // The store may have been away; if not, a snapshot that can be seen does not restore.
    let was_away =
        ["does not answer", "this process died"].iter().any(|words| problem.message.contains(words));
    let kind = if was_away { ErrorKind::Unavailable } else { ErrorKind::Corrupt };
    Err(Error::new(kind, format!("{}: {}", problem.what, problem.message)))
}

/// Whether a restored tree is what was backed up.
pub(super) fn look_at_restored(target: &Path, root: &Path, tree: &Tree) -> Result<()> {
    let below = target.join(root.strip_prefix("/").unwrap_or(root));
    let base = if below.exists() { below } else { target.to_owned() };
    for (name, number) in tree {
        let found = std::fs::read(base.join(name))
            .map_err(|error| Error::internal(format!("restored {name} cannot be read: {error}")))?;
        if found != *content(*number) {
            return Err(Error::internal(format!("restored {name} has other bytes")));
        }
    }
    Ok(())
}
