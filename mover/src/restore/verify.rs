//! Reads restored files back and compares every byte with the snapshot, holes too.

use std::{mem, os::fd::OwnedFd, sync::Arc};

use super::{
    RestoreOptions,
    batch::{Batch, FileTask, Sink},
    compare,
    execute::Shared,
    places::Places,
    plan::BATCH_SHARE,
    report,
    select::relative,
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{entry::Run, metadata::Kind},
    monitor::Monitor,
    reader::{SnapshotReader, runs::RunWalk},
    target::differing,
};

#[cfg(test)]
mod tests;

/// A range of a file that must read as zeros; of no bytes, for a file that only must be there.
#[derive(Debug)]
pub(crate) struct Zeros {
    pub file: Arc<FileTask>,
    pub at: u64,
    pub length: u64,
}

/// What is compared together.
#[derive(Debug, Default)]
struct Work {
    batch: Batch,
    zeros: Vec<Zeros>,
}

impl Work {
    fn size(&self) -> usize {
        self.batch.size() + self.zeros.len() * mem::size_of::<Zeros>()
    }

    fn add(&mut self, task: &Arc<FileTask>, index: u32, start: u64, piece: &[Run]) -> Result<()> {
        let mut at = start;
        for run in piece {
            match run {
                Run::Chunk(chunk) => self.batch.add(index, at, chunk)?,
                Run::Hole(length) => self.zeros.push(Zeros { file: Arc::clone(task), at, length: *length }),
            }
            at += run.length();
        }
        Ok(())
    }
}

/// What comes next in the contents of a file. A list of them that cannot be read fails this file, and no other.
async fn next_piece(runs: &mut RunWalk, task: &FileTask, shared: &Shared) -> Option<(u64, Vec<Run>)> {
    match runs.next_piece().await {
        Ok(next) => next,
        Err(error) => {
            shared.fail(task, &error);
            None
        }
    }
}

/// Compares what was selected, but for files that were to be left as they are; gives the number of files that are
/// right.
pub(super) async fn verify(
    reader: &SnapshotReader,
    options: &RestoreOptions,
    kept: &Places,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<u64> {
    let prefix = options.selection.prefix(reader).await?;
    let root = Arc::new(open_root(options)?);
    let shared = Arc::new(Shared::new(reader, None, monitor, cancel));
    let limit = usize::try_from(options.memory_bytes / BATCH_SHARE).unwrap_or(usize::MAX);
    let mut walk = reader.entries(options.selection.part())?;
    let mut work = Work::default();
    let (mut selected, mut files) = (0, 0);
    while let Some(leaf) = walk.next_leaf().await? {
        for entry in leaf {
            let Some(path) = relative(&entry.path, &prefix) else { continue };
            if entry.kind != Kind::File || !options.selection.wants(path) {
                continue;
            }
            selected += 1;
            if kept.has(selected - 1) {
                continue;
            }
            let task = Arc::new(FileTask::new(path.to_vec(), entry.metadata, Sink::Check));
            let mut index = work.batch.file(Arc::clone(&task));
            work.zeros.push(Zeros { file: Arc::clone(&task), at: 0, length: 0 });
            let mut runs = reader.runs(&entry.content);
            while let Some((start, piece)) = next_piece(&mut runs, &task, &shared).await {
                work.add(&task, index, start, &piece)?;
                if work.size() >= limit {
                    check(mem::take(&mut work), &shared, &root).await?;
                    index = work.batch.file(Arc::clone(&task));
                }
            }
            // Files without contents take memory as well.
            if work.size() >= limit {
                check(mem::take(&mut work), &shared, &root).await?;
            }
            files += 1;
        }
    }
    check(work, &shared, &root).await?;
    Ok(files - shared.failed_files())
}

/// Compares the attributes of the target with those of the directory that was restored to it.
pub(super) async fn verify_target(
    reader: &SnapshotReader,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<()> {
    let wanted = reader.find(&options.selection.path).await?.metadata;
    let root = open_root(options)?;
    let differing = differing(&root, &wanted)
        .map_err(|error| Error::io(error, format!("read {} back", options.target.display())))?;
    if !differing.is_empty() {
        let parts = differing.join(", ");
        let error = Error::corrupt(format!("the target differs from the snapshot in {parts}"));
        report(monitor, b".", &error);
    }
    Ok(())
}

fn open_root(options: &RestoreOptions) -> Result<OwnedFd> {
    std::fs::File::open(&options.target)
        .map(OwnedFd::from)
        .map_err(|error| Error::io(error, format!("open the target {}", options.target.display())))
}

async fn check(work: Work, shared: &Arc<Shared>, root: &Arc<OwnedFd>) -> Result<()> {
    let (shared, root) = (Arc::clone(shared), Arc::clone(root));
    tokio::task::spawn_blocking(move || {
        compare::verify(&work.batch, &work.zeros, &shared, &root);
        shared.check()
    })
    .await
    .map_err(|error| Error::internal("comparing did not finish").with_source(error))?
}
