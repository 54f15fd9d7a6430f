//! Restores an image, or one file, to a block device or an image file.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{
    RestoreReport,
    batch::{Batch, FileTask, Sink},
    compare,
    execute::{Executor, Shared},
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        entry::{Entry, Run},
        metadata::Kind,
    },
    monitor::{Monitor, Progress},
    reader::SnapshotReader,
    target::block::{BlockTarget, BlockTargetOptions},
};

#[cfg(test)]
mod tests;

/// How an image is restored.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// The device or file to write to.
    pub target: PathBuf,
    /// Path of the image in the snapshot; empty for the only one it has.
    pub path: Vec<u8>,
    /// Whether a file that exists is overwritten.
    pub replace: bool,
    /// The target is known to read as zeros.
    pub known_zero: bool,
    /// Read what is there, and write only what differs.
    pub compare: bool,
    /// Read everything back and compare it.
    pub verify: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
    /// Workers; 0 for one on each core.
    pub threads: usize,
}

/// The entry to restore: the one at the path, or the only one with contents.
pub async fn choose(reader: &SnapshotReader, path: &[u8]) -> Result<Entry> {
    if !path.is_empty() {
        let entry = reader.find(path).await?;
        return match entry.kind {
            Kind::File | Kind::Image => Ok(entry),
            _ => Err(Error::invalid(format!("/{} has no contents", crate::monitor::escape_path(path)))),
        };
    }
    let several = || {
        Error::invalid("the snapshot holds more than one file")
            .with_hint("say which one: SNAPSHOT:/PATH (carrack ls SNAPSHOT lists them)")
    };
    let mut walk = reader.entries(crate::reader::walk::Part::all())?;
    let mut only = None;
    while let Some(leaf) = walk.next_leaf().await? {
        for entry in leaf.into_iter().filter(crate::reader::walk::has_contents) {
            if only.replace(entry).is_some() {
                return Err(several());
            }
        }
    }
    only.ok_or_else(|| Error::not_found("the snapshot holds no file"))
}

/// Restores an image.
pub async fn restore_image(
    reader: &SnapshotReader,
    options: &ImageOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<RestoreReport> {
    reader.keys().check_opens_data()?;
    monitor.phase("restore");
    let entry = choose(reader, &options.path).await?;
    let size = entry.metadata.size;
    let wish = BlockTargetOptions { known_zero: options.known_zero, replace: options.replace };
    if options.dry_run {
        return plan_only(reader, options, &entry, wish, &cancel).await;
    }
    let target = Arc::new(BlockTarget::open(&options.target, size, wish)?);
    Progress::add(&monitor.progress().bytes_expected, size);
    let mut shared = Shared::new(reader, None, Arc::clone(&monitor), cancel.clone());
    shared.compare_block = options.compare;
    let shared = Arc::new(shared);
    let executor = Executor::start(Arc::clone(&shared), options.threads, options.memory_bytes / 4)?;
    let sink = Sink::Block(Arc::clone(&target));
    let task = Arc::new(FileTask::new(entry.path.clone(), entry.metadata.clone(), sink));
    let limit = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let planned = plan(&shared, &entry, &task, &target, &executor, limit).await;
    let finished = executor.finish().await;
    finished?;
    planned?;
    let mut report = RestoreReport {
        files: 1,
        bytes: size,
        bytes_written: shared.written.load(Ordering::Relaxed),
        bytes_fetched: shared.fetched.load(Ordering::Relaxed),
        problems: Progress::get(&monitor.progress().problems),
        ..RestoreReport::default()
    };
    drop((task, shared));
    let target = Arc::into_inner(target).ok_or_else(|| Error::internal("a worker still writes"))?;
    tokio::task::spawn_blocking(move || target.finish())
        .await
        .map_err(|error| Error::internal("the target could not be finished").with_source(error))??;
    if options.verify && report.problems == 0 {
        monitor.phase("verify");
        report.files_verified = verify(reader, options, &entry, Arc::clone(&monitor), cancel).await?;
        report.problems = Progress::get(&monitor.progress().problems);
    }
    Ok(report)
}

/// What would be written, and whether it has room.
async fn plan_only(
    reader: &SnapshotReader,
    options: &ImageOptions,
    entry: &Entry,
    wish: BlockTargetOptions,
    cancel: &Cancel,
) -> Result<RestoreReport> {
    let size = entry.metadata.size;
    let room = BlockTarget::examine(&options.target, size, wish)?;
    let bytes_written = reader.runs(&entry.content).chunk_bytes_beyond(room, cancel).await?;
    if room < bytes_written {
        let target = options.target.display();
        return Err(Error::no_space(format!("{target} has room for {room} bytes, and more are needed")));
    }
    let target_room = Some(room);
    Ok(RestoreReport { files: 1, bytes: size, bytes_written, target_room, ..RestoreReport::default() })
}

/// Reads the target back and compares it; gives how many contents are right, which is one at most.
async fn verify(
    reader: &SnapshotReader,
    options: &ImageOptions,
    entry: &Entry,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<u64> {
    let target = Arc::new(BlockTarget::open_restored(&options.target, entry.metadata.size)?);
    let limit = usize::try_from(options.memory_bytes / 8).unwrap_or(usize::MAX);
    let shared = Arc::new(Shared::new(reader, None, monitor, cancel));
    let task = Arc::new(FileTask::new(entry.path.clone(), entry.metadata.clone(), Sink::Check));
    // What is cut within its last hole reads as zeros all the same.
    if let Err(error) = target.check_length() {
        shared.fail(&task, &error);
    }
    let mut work = compare::BlockWork::default();
    let mut index = work.batch.file(Arc::clone(&task));
    let mut runs = reader.runs(&entry.content);
    while let Some((mut at, piece)) = runs.next_piece().await? {
        for run in &piece {
            match run {
                Run::Chunk(chunk) => work.batch.add(index, at, chunk)?,
                Run::Hole(length) => work.zeros.push((at, *length)),
            }
            at += run.length();
        }
        if work.size() >= limit {
            compare::verify_block(std::mem::take(&mut work), &task, &target, &shared).await?;
            index = work.batch.file(Arc::clone(&task));
        }
    }
    compare::verify_block(work, &task, &target, &shared).await?;
    Ok(1 - shared.failed_files())
}

async fn plan(
    shared: &Shared,
    entry: &Entry,
    task: &Arc<FileTask>,
    target: &BlockTarget,
    executor: &Executor,
    limit: usize,
) -> Result<()> {
    let compares = shared.compare_block;
    let mut batch = Batch::comparing(compares);
    let mut index = batch.file(Arc::clone(task));
    let mut runs = shared.reader.runs(&entry.content);
    while let Some((mut at, piece)) = runs.next_piece().await? {
        // Holes fill no batch, and there may be any number of them.
        shared.check()?;
        for run in &piece {
            match run {
                Run::Chunk(chunk) => batch.add(index, at, chunk)?,
                Run::Hole(length) => target.zero(at, *length)?,
            }
            at += run.length();
        }
        if batch.size() >= limit {
            let full = std::mem::replace(&mut batch, Batch::comparing(compares));
            executor.run(full).await?;
            index = batch.file(Arc::clone(task));
        }
    }
    if task.done() {
        batch.complete.push(Arc::clone(task));
    }
    executor.run(batch).await
}
