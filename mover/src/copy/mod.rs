//! Copying snapshots into another repository, which has other keys, ids and cuts.
//!
//! A copy is a backup whose source is a snapshot: it is cut, sealed, packed, indexed and committed as if it had been
//! read here, so that it shares what it can with what is here already.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    backup::{BackupOptions, BackupReport, BackupSource, CipherChoice, CompressionChoice, backup},
    cancel::Cancel,
    error::{Error, Result},
    format::{
        records::{CopiedFrom, Snapshot},
        session::SessionName,
    },
    limits,
    monitor::Monitor,
    reader::SnapshotReader,
    repo::{Repository, SnapshotList},
};

#[cfg(test)]
mod tests;

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub struct CopyOptions {
    /// Which cipher.
    pub cipher: CipherChoice,
    /// How hard to compress.
    pub compression: CompressionChoice,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
    /// Worker threads; 0 for one a core.
    pub threads: usize,
    /// Least time between two checkpoints, from which a retry goes on after a kill.
    pub checkpoint_interval: Duration,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            cipher: CipherChoice::default(),
            compression: CompressionChoice::default(),
            memory_bytes: limits::MEMORY_DEFAULT,
            threads: 0,
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
        }
    }
}

/// What is to be copied.
#[derive(Debug, Clone, Default)]
pub struct CopyPlan {
    /// In the order of their beginning, so that each is compared with the one before.
    pub copy: Vec<Snapshot>,
    /// What the target has already, as a copy or because it is where it comes from.
    pub present: Vec<SessionName>,
}

/// Decides which of the chosen snapshots are to be copied; `there` is what the target has.
pub fn plan(
    from: &Repository,
    to: &Repository,
    chosen: Vec<Snapshot>,
    there: &SnapshotList,
) -> Result<CopyPlan> {
    let repository = from.format().repository;
    if repository == to.format().repository {
        return Err(Error::invalid(format!(
            "{} and {} are the same repository, {repository}",
            from.store().describe(),
            to.store().describe()
        ))
        .with_hint(
            "copy into a repository of its own: carrack init; to move one, copy its objects as they are",
        ));
    }
    if !from.keys().can_read_data() {
        return Err(Error::denied(format!("these keys cannot read data of {}", from.store().describe()))
            .with_hint("open it with a password or a key; a writer bundle only writes"));
    }
    let mut present: HashSet<CopiedFrom> =
        there.snapshots.iter().map(|snapshot| origin(to, snapshot)).collect();
    let mut plan = CopyPlan::default();
    for snapshot in chosen {
        // Of several copies of one snapshot in the source one will do.
        match present.insert(origin(from, &snapshot)) {
            true => plan.copy.push(snapshot),
            false => plan.present.push(snapshot.session),
        }
    }
    plan.copy.sort_by_key(|snapshot| (snapshot.started, snapshot.session));
    Ok(plan)
}

/// Where a snapshot was made, however often it was copied since.
fn origin(repository: &Repository, snapshot: &Snapshot) -> CopiedFrom {
    let own = CopiedFrom { repository: repository.format().repository, session: snapshot.session };
    snapshot.copied_from.unwrap_or(own)
}

/// Copies one snapshot. What cannot be read of it is left out, and is a problem of the report.
pub async fn copy(
    from: &Repository,
    to: &Repository,
    snapshot: &Snapshot,
    options: &CopyOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<BackupReport> {
    // It may have been forgotten since it was chosen, while others were copied.
    let snapshot = from.snapshot(snapshot.session).await?;
    let origin = origin(from, &snapshot);
    let (host, user, tags) = (snapshot.host.clone(), snapshot.user.clone(), snapshot.tags.clone());
    let reader = SnapshotReader::new(from.clone(), snapshot);
    let source = BackupSource::Snapshot { from: from.clone(), reader, origin };
    let options = BackupOptions {
        host,
        user,
        tags,
        cipher: options.cipher,
        compression: options.compression,
        memory_bytes: options.memory_bytes,
        threads: options.threads,
        checkpoint_interval: options.checkpoint_interval,
        ..BackupOptions::new(source)
    };
    backup(to, options, monitor, cancel).await
}
