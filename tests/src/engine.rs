//! The engine in this process, on a store in memory: what tests of it have in common.

use std::{path::Path, sync::Arc};

use carrack_mover::{
    backup::{BackupOptions, BackupSource, backup},
    cancel::Cancel,
    error::{Error, Result},
    format::{
        frame::Suite,
        session::{SessionKind, SessionName},
    },
    id::{ChunkId, LineageId},
    limits,
    monitor::CollectMonitor,
    repo::{Join, Repository, Unlock},
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

/// Leaves as many small segments as the next backup joins, of a session that has given up.
pub async fn leave_small_segments(repository: &Repository, lineage: LineageId) -> Result<()> {
    let session = repository.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await?;
    for number in (0..).take(Join::FROM) {
        session.put_segment(&[(ChunkId([number; 32]), session.new_pack())]).await?;
    }
    session.abandon("it has only left segments").await
}
