//! Brings the contents of a snapshot back: to a directory, a device or image file, or a stream.
//!
//! A planner walks the tree in order, makes directories and everything that has no contents at once, and collects
//! the chunks of files into batches that are bounded by memory. Each batch is sorted by pack; what lies together
//! is fetched together, and one worker for each core opens a frame once and writes every chunk of it to every
//! place that wants it. Holes are never written. Attributes follow when a file is complete, those of directories
//! at the end, from the bottom up. What does not work is counted and reported, and makes the restore partial.

mod batch;
mod compare;
mod execute;
pub mod image;
mod places;
mod plan;
pub mod select;
pub mod stream;
#[cfg(test)]
mod tests;
mod verify;
mod work;

use std::{path::PathBuf, sync::Arc};

use crate::{
    cancel::Cancel,
    error::Result,
    limits,
    monitor::{Monitor, Problem},
    reader::SnapshotReader,
};
pub use select::Selection;

/// What to do with a file that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Same size and time of modification: its contents are taken to be right. Otherwise as `Compare`.
    #[default]
    Trust,
    /// Read it, and write only what differs.
    Compare,
    /// Leave it as it is unless the snapshot has a later time of modification; then as `Compare`. A directory in the place
    /// of something else is in the way, whatever its time.
    KeepNewer,
    /// Leave it as it is.
    Keep,
}

/// How to restore to a directory.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Directory to restore to; made if it does not exist.
    pub target: PathBuf,
    /// What of the snapshot.
    pub selection: Selection,
    /// What to do with files that exist.
    pub existing: Existing,
    /// Remove what the selected part of the snapshot does not have.
    pub delete: bool,
    /// A directory that is restored to the target itself gives it its attributes even if the target holds something.
    pub take_over: bool,
    /// Read everything back and compare it, but for the files that `existing` left as they were.
    pub verify: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
    /// Workers; 0 for one on each core.
    pub threads: usize,
}

impl RestoreOptions {
    /// Everything of a snapshot, to this directory.
    pub fn to(target: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            selection: Selection::default(),
            existing: Existing::default(),
            delete: false,
            take_over: false,
            verify: false,
            dry_run: false,
            memory_bytes: limits::MEMORY_DEFAULT,
            threads: 0,
        }
    }
}

/// What became of the attributes of the directory that is restored to the target itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAttributes {
    /// The target was new or empty, and has them now.
    Restored,
    /// The target held something, and stays as it was.
    Left,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RestoreReport {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices, pipes and sockets.
    pub others: u64,
    /// Files that were not there.
    pub files_new: u64,
    /// Files that were right already, or were to be kept.
    pub files_skipped: u64,
    /// Things removed because the snapshot does not have them.
    pub deleted: u64,
    /// Bytes of contents of all of them, holes included.
    pub bytes: u64,
    /// Bytes written. A dry run believes sizes and times, and counts files that differ whole.
    pub bytes_written: u64,
    /// Bytes that came from the store.
    pub bytes_fetched: u64,
    /// Files that were read back and are as in the snapshot.
    pub files_verified: u64,
    /// If one directory of the snapshot was restored to the target: what became of its attributes.
    pub target_attributes: Option<TargetAttributes>,
    /// Of a dry run to a device or image file: bytes that it can take.
    pub target_room: Option<u64>,
    /// What could not be restored.
    pub problems: u64,
}

/// Restores to a directory.
pub async fn restore(
    reader: &SnapshotReader,
    options: &RestoreOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<RestoreReport> {
    reader.keys().check_opens_data()?;
    monitor.phase("restore");
    let (mut report, kept) = plan::run(reader, options, Arc::clone(&monitor), cancel.clone()).await?;
    if options.verify && !options.dry_run {
        monitor.phase("verify");
        report.files_verified = verify::verify(reader, options, &kept, Arc::clone(&monitor), cancel).await?;
        if report.target_attributes == Some(TargetAttributes::Restored) {
            verify::verify_target(reader, options, &*monitor).await?;
        }
        report.problems = crate::monitor::Progress::get(&monitor.progress().problems);
    }
    Ok(report)
}

impl RestoreReport {
    /// Whether patterns chose nothing at all, of the snapshot and of the target.
    pub fn is_of_nothing(&self, selection: &Selection) -> bool {
        selection.include.has_patterns() && self.files + self.directories + self.others + self.deleted == 0
    }
}

/// Workers for a wish of `threads`, 0 for one on each core.
pub(crate) fn worker_count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        wish => wish.min(256),
    }
}

/// Reports something that goes wrong about a path, with what to do about it.
pub(crate) fn report(monitor: &dyn Monitor, path: &[u8], error: &crate::error::Error) {
    let next = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let message = error.in_one_line() + &next;
    monitor.problem(Problem { what: crate::monitor::escape_path(path), message });
}
