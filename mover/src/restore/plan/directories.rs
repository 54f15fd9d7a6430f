//! Directories: made at once, given their attributes at the end, from the bottom up.

use std::mem;

use super::{Planner, join, weight};
use crate::{
    error::Result,
    format::{
        metadata::{Kind, Metadata},
        order::split_path,
    },
    monitor::Progress,
    reader::walk::TreeWalk,
    restore::{RestoreOptions, TargetAttributes, execute::Shared, plan::DIRECTORY_SHARE, select::relative},
};

#[cfg(test)]
mod tests;

impl Planner<'_> {
    /// The chosen directory is the target itself. Its attributes are the target's unless somebody uses that already:
    /// whoever restores into a directory with contents did not ask for another owner or mode of it.
    pub(super) fn target_itself(&mut self, metadata: Metadata) {
        if self.options.delete {
            // It may be empty, and then no name of it ever comes.
            self.others.wait(b"");
        }
        if !self.unused {
            self.report.target_attributes = Some(TargetAttributes::Left);
            return;
        }
        self.report.target_attributes = Some(TargetAttributes::Restored);
        if let Some(tree) = &self.shared.tree
            && let Err(error) = tree.prepare_root(&metadata)
        {
            self.shared.report(b".", &error);
        }
        self.root = Some(metadata);
    }

    /// Directories above a path that patterns chose are made if they are not there, and get their own attributes.
    /// What is below a directory comes in one go, so those above the name before this one are done already.
    pub(super) async fn make_above(&mut self, path: &[u8]) -> Result<()> {
        let directory = split_path(path).0;
        let before = mem::replace(&mut self.above, directory.to_vec());
        for above in directories_to(directory).filter(|above| !is_in(&before, above)) {
            if self.options.selection.wants(above) {
                continue;
            }
            let found = self.shared.reader.lookup(&join(&self.prefix, above)).await?;
            if let Some(entry) = found.filter(|entry| entry.kind == Kind::Directory) {
                self.make_directory(above.to_vec(), entry.metadata);
            }
        }
        Ok(())
    }

    pub(super) fn directory(&mut self, path: Vec<u8>, metadata: Metadata) {
        if self.options.delete && matches!(self.present(&path), Some((Kind::Directory, _))) {
            self.others.wait(&path);
        }
        if self.make_directory(path, metadata) {
            Progress::add(&self.shared.monitor.progress().entries, 1);
        }
    }

    /// Makes a directory and keeps its attributes for the end; whether it could.
    fn make_directory(&mut self, path: Vec<u8>, metadata: Metadata) -> bool {
        let Some(tree) = &self.shared.tree else { return false };
        if let Err(error) = tree.create_directory(&path) {
            self.shared.report(&path, &error);
            return false;
        }
        self.directory_bytes += mem::size_of::<(Vec<u8>, Metadata)>() + weight(&path, &metadata);
        if self.directory_bytes as u64 > self.options.memory_bytes / DIRECTORY_SHARE {
            self.directories = None;
        }
        if let Some(directories) = &mut self.directories {
            directories.push((path, metadata));
        }
        true
    }
}

/// The directories on the way to a directory and itself, from the top.
pub(super) fn directories_to(directory: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let ends = (0..directory.len()).filter(|&at| directory[at] == b'/');
    ends.chain((!directory.is_empty()).then_some(directory.len())).map(|end| &directory[..end])
}

/// Whether a directory is another one or lies in it.
fn is_in(directory: &[u8], above: &[u8]) -> bool {
    directory.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Attributes of directories, from the bottom up: what is made in a directory changes its times.
pub(super) async fn finish_directories(
    options: &RestoreOptions,
    shared: &Shared,
    prefix: &[u8],
    directories: Option<Vec<(Vec<u8>, Metadata)>>,
) -> Result<()> {
    if let Some(directories) = directories {
        directories.iter().rev().for_each(|(path, metadata)| finish(shared, path, metadata));
        return Ok(());
    }
    let patterns = options.selection.has_patterns();
    let mut above = Vec::new();
    let mut walk = TreeWalk::backwards(&shared.reader, options.selection.part())?;
    while let Some(leaf) = walk.next_leaf().await? {
        shared.check()?;
        for entry in leaf {
            let Some(path) = relative(&entry.path, prefix) else { continue };
            if !options.selection.wants(path) {
                continue;
            }
            if patterns {
                let directory = split_path(path).0;
                finish_above(options, shared, prefix, &above, directory).await?;
                directory.clone_into(&mut above);
            }
            if entry.kind == Kind::Directory {
                finish(shared, path, &entry.metadata);
            }
        }
    }
    finish_above(options, shared, prefix, &above, b"").await
}

/// Directories that patterns did not choose, but something in them: the walk has left `from` for `to`.
async fn finish_above(
    options: &RestoreOptions,
    shared: &Shared,
    prefix: &[u8],
    from: &[u8],
    to: &[u8],
) -> Result<()> {
    for above in directories_to(from).rev().filter(|above| !is_in(to, above)) {
        if options.selection.wants(above) {
            continue;
        }
        let found = shared.reader.lookup(&join(prefix, above)).await?;
        if let Some(entry) = found.filter(|entry| entry.kind == Kind::Directory) {
            finish(shared, above, &entry.metadata);
        }
    }
    Ok(())
}

fn finish(shared: &Shared, path: &[u8], metadata: &Metadata) {
    if let Some(tree) = &shared.tree
        && let Err(error) = tree.finish_directory(path, metadata)
    {
        shared.report(path, &error);
    }
}

/// Attributes of the target, after all that is in it.
pub(super) fn finish_root(shared: &Shared, root: Option<&Metadata>) {
    if let (Some(tree), Some(metadata)) = (&shared.tree, root)
        && let Err(error) = tree.finish_root(metadata)
    {
        shared.report(b".", &error);
    }
}
