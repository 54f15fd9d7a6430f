//! The engine in this process, on a store in memory: what tests of it have in common.

use std::{path::Path, sync::Arc};

use carrack_mover::{
    backup::{BackupOptions, BackupSource, backup},
    cancel::Cancel,
    error::{Error, Result},
    format::session::SessionName,
    limits,
    monitor::CollectMonitor,
    repo::{Repository, Unlock},
    secret::Key,
    source::walk::WalkOptions,
};

/// What opens such a repository.
pub fn unlock() -> Unlock {
    Unlock::Secret(Key::new([7; 32]))
}

/// Backs a tree up on one thread, in the least memory.
pub async fn back_up(repository: &Repository, source: &Path) -> Result<SessionName> {
    let walk = WalkOptions { roots: vec![source.to_owned()], threads: 1, ..WalkOptions::default() };
    let options = BackupOptions {
        host: "host".to_owned(),
        memory_bytes: limits::MEMORY_MIN,
        threads: 1,
        ..BackupOptions::new(BackupSource::Files(walk))
    };
    let report = backup(repository, options, Arc::new(CollectMonitor::default()), Cancel::default()).await?;
    let snapshot = report.snapshot.ok_or_else(|| Error::internal("a backup without a snapshot"))?;
    Ok(snapshot.session)
}
