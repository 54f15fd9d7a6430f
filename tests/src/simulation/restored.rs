//! Restores of a simulated world, and what excuses one that fails.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

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
    // The store may have been away, or a newer key may say where a frame went; if not, a snapshot that can be seen does not
    // restore.
    let says = |words: &[&str]| words.iter().any(|words| problem.message.contains(words));
    let kind = if says(&["does not answer", "this process died"]) {
        ErrorKind::Unavailable
    } else if says(&["it is not signed with the maintenance key"]) {
        ErrorKind::Denied
    } else {
        ErrorKind::Corrupt
    };
    Err(Error::new(kind, format!("{}: {}", problem.what, problem.message)))
}

/// Whether a restored tree is what was backed up: names, bytes and times of its files, and no others.
pub(super) fn look_at_restored(target: &Path, root: &Path, tree: &Tree) -> Result<()> {
    let below = target.join(root.strip_prefix("/").unwrap_or(root));
    let base = if below.exists() { below } else { target.to_owned() };
    let failed =
        |error| Error::new(ErrorKind::Internal, format!("the restored tree cannot be read: {error}"));
    let found = names_below(&base).map_err(failed)?;
    let wanted: BTreeSet<PathBuf> = tree.keys().map(|name| base.join(name)).collect();
    if let Some(path) = found.symmetric_difference(&wanted).next() {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("{} was restored or backed up, and not both", path.display()),
        ));
    }
    for (name, file) in tree {
        let path = base.join(name);
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(failed)?;
        if modified != SystemTime::UNIX_EPOCH + file.modified {
            return Err(Error::new(ErrorKind::Internal, format!("restored {name} has another time")));
        }
        if fs::read(&path).map_err(failed)? != *content(file.content) {
            return Err(Error::new(ErrorKind::Internal, format!("restored {name} has other bytes")));
        }
    }
    Ok(())
}

/// All that is no directory.
fn names_below(base: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let (mut names, mut pending) = (BTreeSet::new(), vec![base.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                names.insert(path);
            }
        }
    }
    Ok(names)
}
