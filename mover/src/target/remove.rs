//! Removing what is in the way of a restore, or what the snapshot does not hold.
//!
//! A directory may hold any number of names, so they are never all in memory: files go while the directory is read, and
//! only so many names of sub-directories wait that memory stays small; then the reading goes on.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::tree::{DirectoryHandle, TargetTree, failed};
use crate::error::{Error, Result};
use crate::format::order::split_path;
use crate::source::show_path;
use crate::sys::attributes::write_flags;
use crate::sys::directory::{Names, each_entry, open_directory, open_directory_beneath, to_c_string};
use crate::sys::file::open_for_reading;
use crate::sys::stat::{file_type, stat_at};

#[cfg(test)]
mod tests;

/// How often a name is cleared for one entry; more means that somebody else keeps making it.
const ATTEMPTS: usize = 3;

/// How often a directory is gone through until it is empty. A file system may leave out names while others are removed,
/// but not so often: more means that somebody else keeps making some.
const PASSES: u32 = 100;

/// So many names may turn up in any further pass through a directory: a moment's work. Beyond that a pass has to find a
/// quarter fewer than the one before it, or somebody fills the directory as fast as it is emptied.
const NAMES_LEFT_OUT: u64 = 256;

/// The names of sub-directories that wait take so many bytes in the first directory, half as many in one below it, and
/// so on, at least one name: twice this in all.
const WAITING: usize = 512 << 10;

impl TargetTree {
    /// Removes what is at `path`, a directory with all that is in it. Returns how many entries went. Links
    /// are removed, never followed. Ends at the first name that cannot be removed.
    pub fn remove(&self, path: &[u8]) -> Result<u64> {
        self.forget_directories();
        let removed = self.bottom_up(path, true, WAITING);
        self.forget_directories();
        removed
    }

    /// How many entries [`Self::remove`] would remove.
    pub fn count(&self, path: &[u8]) -> Result<u64> {
        self.bottom_up(path, false, WAITING)
    }

    /// The same, and hands out each path that would go, what is in a directory before the directory.
    pub fn list(&self, path: &[u8], mut each: impl FnMut(&[u8])) -> Result<u64> {
        self.go_through(path, false, WAITING, &mut each)
    }

    pub(super) fn bottom_up(&self, path: &[u8], remove: bool, waiting: usize) -> Result<u64> {
        self.go_through(path, remove, waiting, &mut |_| {})
    }

    fn go_through(
        &self,
        path: &[u8],
        remove: bool,
        waiting: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<u64> {
        let (parent, name) = self.locate(path)?;
        let stat = stat_at(&parent.fd, &name).map_err(|error| failed(error, "examine", path))?;
        let mut walk =
            BottomUp { tree: self, remove, each, waiting, path: path.to_vec(), levels: Vec::new(), count: 0 };
        let enter = walk.meet(&parent.fd, &name, file_type(&stat));
        if enter.map_err(|error| failed(error, "remove", path))? {
            walk.levels.push(Level::at(path.len()));
            walk.run()?;
        } else if !remove {
            (walk.each)(path);
        }
        Ok(walk.count)
    }

    /// Makes room where a directory is. Nobody loses a tree because a name in the snapshot is that of a file.
    fn clear_directory(&self, path: &[u8], parent: &DirectoryHandle, name: &CStr) -> Result<()> {
        if self.options.replace_trees {
            let count = self.remove(path)?;
            self.removed.fetch_add(count.saturating_sub(1), Ordering::Relaxed);
            return Ok(());
        }
        match unlink(&parent.fd, name, true) {
            Err(error) if is_not_empty(&error) => Err(directory_in_the_way(path)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error, "remove", path)),
            _ => {
                self.forget_directories();
                Ok(())
            }
        }
    }

    /// Clears the name if the options allow it, and calls `make` again.
    pub(super) fn replacing<T>(
        &self,
        path: &[u8],
        parent: &DirectoryHandle,
        name: &CStr,
        make: impl Fn() -> io::Result<T>,
    ) -> Result<T> {
        if !self.options.replace {
            return Err(Error::conflict(format!("{} exists in the target", show_path(path)))
                .with_hint("restore into an empty directory, or allow existing files to be overwritten"));
        }
        for _ in 0..ATTEMPTS {
            match unlink(&parent.fd, name, false) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    self.clear_directory(path, parent, name)?;
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(error, "remove", path));
                }
                _ => {}
            }
            match make() {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map_err(|error| failed(error, "create", path)),
            }
        }
        Err(Error::conflict(format!("somebody keeps making {} in the target", show_path(path))))
    }
}

/// Says that a directory with contents is in the way of something else.
pub(crate) fn directory_in_the_way(path: &[u8]) -> Error {
    let path = show_path(path);
    Error::conflict(format!(
        "{path} is a directory with contents in the target, and something else in the snapshot"
    ))
    .with_hint("move it away or remove it, or restore with --delete")
}

/// Removes or counts what is below a path, and then itself.
struct BottomUp<'t> {
    tree: &'t TargetTree,
    remove: bool,
    /// Is told of each path that is only counted.
    each: &'t mut dyn FnMut(&[u8]),
    /// Bytes of names that may wait in the first directory.
    waiting: usize,
    /// Where it is; the directory of each level is a front part of it.
    path: Vec<u8>,
    levels: Vec<Level>,
    count: u64,
}

/// A directory that is being gone through.
#[derive(Default)]
struct Level {
    /// Length of its path.
    length: usize,
    /// Sub-directories to enter before it is read on, and which is next.
    waiting: Names,
    next: usize,
    /// Where it is read on. It is opened anew for that, so that no depth takes all descriptors.
    from: u64,
    /// How many names this pass has met, and how many it may meet.
    found: u64,
    most: Option<u64>,
    /// This pass has read to the end.
    ended: bool,
    passes: u32,
}

impl Level {
    fn at(length: usize) -> Self {
        Self { length, ..Self::default() }
    }

    /// Whether another pass may empty it: this one found something, and not more than somebody else's names explain.
    fn may_go_on(&self) -> bool {
        self.found > 0 && self.passes < PASSES && self.most.is_none_or(|most| self.found <= most)
    }
}

impl BottomUp<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.length);
            if level.next < level.waiting.len() {
                self.path.push(b'/');
                self.path.extend_from_slice(level.waiting.get(level.next).to_bytes());
                level.next += 1;
                self.levels.push(Level::at(self.path.len()));
            } else if level.ended {
                self.leave()?;
            } else {
                self.read_on()?;
            }
        }
        Ok(())
    }

    /// Reads the last level on, to its end or until enough sub-directories wait.
    fn read_on(&mut self) -> Result<()> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        let depth = u32::try_from(self.levels.len()).unwrap_or(u32::MAX);
        let most = self.waiting.checked_shr(depth).unwrap_or_default();
        let opened = open_directory_beneath(&self.tree.root, &self.path)
            .and_then(|directory| open_directory(&directory, c"."));
        let directory = match opened {
            // The next pass through the directory above meets what is there now.
            Err(error) if !self.levels.is_empty() && is_replaced(&error) => return Ok(()),
            opened => opened.map_err(|error| failed(error, "open", &self.path))?,
        };
        (level.waiting, level.next, level.ended) = (Names::default(), 0, true);
        let mut culprit = None;
        let read = each_entry(&directory, level.from, |entry| {
            let name = entry.file_name();
            level.from = entry.next_entry_cookie();
            level.found += 1;
            if level.most.is_some_and(|most| level.found > most) {
                return Ok(ControlFlow::Break(()));
            }
            let met = self.meet(&directory, name, entry.file_type());
            let enter = met.inspect_err(|_| culprit = Some(name.to_owned()))?;
            if !self.remove && !enter {
                (self.each)(&[&self.path, &b"/"[..], name.to_bytes()].concat());
            }
            if enter && (!level.waiting.push(name) || level.waiting.bytes() >= most) {
                level.ended = false;
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        });
        self.levels.push(level);
        match (read, culprit) {
            (Ok(()), _) => Ok(()),
            (Err(error), None) => Err(failed(error, "list", &self.path)),
            (Err(error), Some(name)) => {
                let path = [&self.path, &b"/"[..], name.to_bytes()].concat();
                Err(failed(error, "remove", &path))
            }
        }
    }

    /// Removes or counts a name; true for a directory that has to be entered first. What is gone already is right.
    fn meet(&mut self, parent: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<bool> {
        let directory = match kind {
            FileType::Unknown => match stat_at(parent, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                stat => file_type(&stat?) == FileType::Directory,
            },
            kind => kind == FileType::Directory,
        };
        let mut removed = match (self.remove, directory) {
            (false, true) => return Ok(true),
            (false, false) => Ok(()),
            (true, directory) => unlink(parent, name, directory),
        };
        if matches!(&removed, Err(error) if error.kind() == io::ErrorKind::IsADirectory) {
            removed = unlink(parent, name, true);
        }
        match removed {
            Ok(()) => self.count += 1,
            Err(error) if is_not_empty(&error) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Ends the last level, or begins another pass through it if it is not empty: names may have been left out while
    /// others were removed, or have come since.
    fn leave(&mut self) -> Result<()> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        if !self.remove {
            self.count += 1;
            (self.each)(&self.path);
            return Ok(());
        }
        let (above, name) = split_path(&self.path);
        let removed = open_directory_beneath(&self.tree.root, above)
            .and_then(|parent| unlink(&parent, &to_c_string(name)?, true));
        match removed {
            Ok(()) => self.count += 1,
            Err(error) if is_not_empty(&error) && level.may_go_on() => {
                let most = Some((level.found / 4 * 3).max(NAMES_LEFT_OUT));
                level = Level { passes: level.passes + 1, most, ..Level::at(level.length) };
                self.levels.push(level);
            }
            Err(error) if is_not_empty(&error) && level.found > 0 => {
                let path = show_path(&self.path);
                return Err(Error::conflict(format!("somebody keeps making names in {path} in the target")));
            }
            Err(error) if is_replaced(&error) => {}
            Err(error) => return Err(failed(error, "remove", &self.path)),
        }
        Ok(())
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTEMPTY | Errno::EXIST))
}

/// Whether there is no such directory any more: nothing, or something else in its place.
fn is_replaced(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Removes one name, taking a flag off that forbids it.
fn unlink(parent: &OwnedFd, name: &CStr, directory: bool) -> io::Result<()> {
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(parent, name, flags) {
        Err(Errno::PERM) => {
            let stat = stat_at(parent, name)?;
            match file_type(&stat) {
                FileType::RegularFile => write_flags(open_for_reading(parent, name)?, 0)?,
                FileType::Directory if !directory => return Err(io::ErrorKind::IsADirectory.into()),
                FileType::Directory => write_flags(open_directory(parent, name)?, 0)?,
                _ => return Err(Errno::PERM.into()),
            }
            Ok(rustix::fs::unlinkat(parent, name, flags)?)
        }
        other => Ok(other?),
    }
}
