//! Removing what the selected part of the snapshot does not have.
//!
//! The names of a directory come sorted, and the target's are sorted as well, in memory that has a bound: what lies
//! between two names of the snapshot is removed when the second one comes.

use std::{collections::HashSet, sync::Arc};

use super::{Planner, directories::directories_to, relative, report};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{metadata::Kind, order::split_path},
    sys::names::{Cursor, Room, temporary},
    target::MADE_BY_THE_FILE_SYSTEM,
};

#[cfg(test)]
mod tests;

/// The names of one directory of the target, and those of directories that wait, take this part of the memory each.
const NAMES_SHARE: u64 = 48;
/// What a waiting directory takes beside its path, in bytes.
const WAITING_BYTES: usize = 64;

/// What is being compared, and what is still to be.
#[derive(Debug)]
pub(super) struct Others {
    room: Arc<Room>,
    /// The directory whose names come now.
    listing: Option<Listing>,
    /// Directories that existed and whose names did not come yet: the empty ones among them have none. `None` once
    /// there were too many; then the tree is walked once more for the empty ones.
    waiting: Option<HashSet<Vec<u8>>>,
    waiting_bytes: usize,
    waiting_limit: usize,
}

/// A directory of the snapshot that is passed through.
#[derive(Debug)]
struct Listing {
    directory: Vec<u8>,
    /// What the target has there and was not compared yet; `None` if that cannot be listed.
    present: Option<Cursor>,
}

impl Others {
    pub(super) fn new(memory_bytes: u64) -> Self {
        let share = usize::try_from(memory_bytes / NAMES_SHARE).unwrap_or(usize::MAX >> 1);
        Self {
            room: Room::new(share, temporary()),
            listing: None,
            waiting: Some(HashSet::new()),
            waiting_bytes: 0,
            waiting_limit: share,
        }
    }

    /// Keeps a directory until its names come.
    pub(super) fn wait(&mut self, directory: &[u8]) {
        if let Some(waiting) = &mut self.waiting
            && waiting.insert(directory.to_vec())
        {
            self.waiting_bytes += directory.len() + WAITING_BYTES;
        }
        if self.waiting_bytes > self.waiting_limit {
            self.waiting = None;
        }
    }

    fn came(&mut self, directory: &[u8]) {
        if self.waiting.as_mut().is_some_and(|waiting| waiting.remove(directory)) {
            self.waiting_bytes -= directory.len() + WAITING_BYTES;
        }
    }
}

impl Planner<'_> {
    /// Removes what comes before this name of the snapshot and after the one before it.
    pub(super) fn pass_name(&mut self, path: &[u8]) {
        let (directory, name) = split_path(path);
        if self.others.listing.as_ref().is_none_or(|listing| listing.directory != directory) {
            self.remove_before(None);
            self.others.came(directory);
            self.others.listing = Some(self.list(directory));
        }
        self.remove_before(Some(name));
    }

    /// After the last name: what is left in the last directory, and in those for which no name came.
    pub(super) async fn remove_rest(&mut self) -> Result<()> {
        self.remove_before(None);
        if let Some(waiting) = self.others.waiting.take() {
            waiting.iter().for_each(|directory| self.remove_all_in(directory));
            return Ok(());
        }
        let mut walk = self.shared.reader.entries(self.options.selection.part())?;
        while let Some(leaf) = walk.next_leaf().await? {
            self.shared.check()?;
            for entry in leaf.iter().filter(|entry| entry.kind == Kind::Directory) {
                if let Some(path) = relative(&entry.path, &self.prefix)
                    && self.options.selection.wants(path)
                    && matches!(self.present(path), Some((Kind::Directory, _)))
                    && !self.shared.reader.has_names(&entry.path).await?
                {
                    self.remove_all_in(path);
                }
            }
        }
        Ok(())
    }

    /// Empties a directory that is empty in the snapshot, which one that something was mounted at is as well: another
    /// file system there is not what was backed up as nothing.
    fn remove_all_in(&mut self, directory: &[u8]) {
        let listing = self.list(directory);
        if !self.used().is_some_and(|tree| tree.is_mounted(directory)) {
            self.others.listing = Some(listing);
            return self.remove_before(None);
        }
        let Some(mut names) = listing.present else { return };
        let would_go = |name: Vec<u8>| {
            name != MADE_BY_THE_FILE_SYSTEM && self.options.selection.wants(&join(directory, &name))
        };
        if std::iter::from_fn(|| names.next_before(None).unwrap_or_default()).any(would_go) {
            let error = Error::conflict(
                "another file system is mounted there, and what is in it stays, although the directory is empty in the \
                 snapshot: unmount it and restore again, or restore by itself what belongs into it",
            );
            report(&*self.shared.monitor, directory, &error);
        }
    }

    fn list(&self, directory: &[u8]) -> Listing {
        let mut listing = Listing { directory: directory.to_vec(), present: None };
        // In a dry run it may not be there yet, or something else in its place.
        let listed = !self.options.dry_run
            || directory.is_empty()
            || matches!(self.present(directory), Some((Kind::Directory, _)));
        if let Some(tree) = self.used().filter(|_| listed) {
            match tree.names(directory, &self.others.room) {
                Ok(names) => listing.present = Some(Cursor::new(names)),
                // One that patterns left out, or that could not be made, which was said.
                Err(error) if error.kind() == ErrorKind::NotFound || self.is_something_else(directory) => {}
                Err(error) => report(&*self.shared.monitor, directory, &error),
            }
        }
        listing
    }

    /// Whether the target has something else than a directory in its place, or on the way to it.
    fn is_something_else(&self, directory: &[u8]) -> bool {
        let mut on_the_way = directories_to(directory).map(|above| self.present(above));
        on_the_way.any(|present| present.is_some_and(|(kind, _)| kind != Kind::Directory))
    }

    /// Removes what comes before this name; without one, all that is left, and the listing is over.
    fn remove_before(&mut self, name: Option<&[u8]>) {
        let Some(mut listing) = self.others.listing.take() else { return };
        while let Some(cursor) = &mut listing.present
            && !self.shared.is_over()
        {
            match cursor.next_before(name) {
                Ok(Some(other)) => self.remove_other(&join(&listing.directory, &other)),
                Ok(None) => break,
                Err(error) => {
                    let error = Error::io(error, "cannot read the sorted names back");
                    report(&*self.shared.monitor, &listing.directory, &error);
                    listing.present = None;
                }
            }
        }
        self.others.listing = name.map(|_| listing);
    }

    fn remove_other(&mut self, path: &[u8]) {
        // What the patterns do not select is not this restore's to remove. The tree asks them of what is below.
        if !self.options.selection.wants(path) {
            return;
        }
        // That of the file system that is mounted there, which is not part of its contents.
        if path == MADE_BY_THE_FILE_SYSTEM && matches!(self.present(path), Some((Kind::Directory, _))) {
            return;
        }
        let Some(tree) = self.used() else { return };
        let removed = if self.options.dry_run {
            tree.list(path, |path| self.shared.monitor.would_remove(path))
        } else {
            tree.remove(path)
        };
        match removed {
            Ok(count) => self.report.deleted += count,
            Err(error) => report(&*self.shared.monitor, path, &error),
        }
    }
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
