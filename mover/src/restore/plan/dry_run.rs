//! What a restore would do, as far as sizes and times tell.

use std::sync::atomic::Ordering;

use super::{Planner, looks_right, report};
use crate::{
    error::ErrorKind,
    format::{
        entry::Entry,
        metadata::{Kind, Metadata},
    },
    target::{directory_in_the_way, protected_in_the_way},
};

impl Planner<'_> {
    /// A dry run's look at something in the place of what is no directory: whether it would be a problem. What would be
    /// removed with it is told and counted.
    pub(super) fn is_in_the_way(&mut self, path: &[u8], present: Option<&(Kind, Metadata)>) -> bool {
        let Some(tree) = &self.looked_at else { return false };
        if !matches!(present, Some((Kind::Directory, _))) {
            return false;
        }
        let monitor = &*self.shared.monitor;
        // What cannot be looked at is met again below.
        if tree.keeps_something(path).unwrap_or_default() {
            report(monitor, path, &protected_in_the_way(path));
            return true;
        }
        let counted = if self.options.delete {
            let tell = |below: &[u8]| {
                if below != path {
                    monitor.would_remove(below);
                }
            };
            tree.list(path, tell)
        } else {
            tree.count(path)
        };
        match counted {
            Ok(count) if count > 1 && !self.options.delete => {
                report(monitor, path, &directory_in_the_way(path));
                return true;
            }
            Ok(count) => self.report.deleted += count.saturating_sub(1),
            Err(error) => report(monitor, path, &error),
        }
        false
    }

    /// Counts what would be written of a file: all that it holds, unless it is there with the same size and time. Holes
    /// are never written.
    pub(super) async fn count_file(&self, path: &[u8], entry: &Entry, present: Option<&(Kind, Metadata)>) {
        if matches!(present, Some((Kind::File, old)) if looks_right(old, &entry.metadata)) {
            return;
        }
        match self.shared.reader.runs(&entry.content).chunk_bytes(&self.shared.cancel).await {
            Ok(bytes) => {
                self.shared.written.fetch_add(bytes, Ordering::Relaxed);
            }
            // Whoever asked to stop is told so in the end, and not of this file.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => self.shared.report(path, &error),
        }
    }
}
