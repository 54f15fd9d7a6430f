//! Removing what is in the way of a restore, or what the snapshot does not hold.
//!
//! A directory may hold any number of names, so they are never all in memory: files go while the directory is read, and
//! only so many names of sub-directories wait that memory stays small; then the reading goes on.

use std::ffi::CStr;
use std::fmt::Debug;
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

/// Knows what in the target is not to be removed.
pub trait Protection: Debug + Send + Sync {
    /// Whether what is at this path beneath the root stays, a directory with all that is in it.
    fn protects(&self, path: &[u8]) -> bool;
}

/// What has gone, or would go.
#[derive(Debug, Default, Clone, Copy)]
struct Gone {
    entries: u64,
    /// Something is protected and stays, and so do the directories that it is in.
    keeps: bool,
}

impl TargetTree {
    /// From now on a directory is removed without what is protected, which stays together with the directories that it
    /// is in. What is removed by its own path is not asked for: whoever names it knows.
    pub fn protect(&mut self, protection: Box<dyn Protection>) {
        self.protection = Some(protection);
    }

    /// Removes what is at `path`, a directory with all that is in it and not protected. Returns how many entries went.
    /// Links are removed, never followed. Ends at the first name that cannot be removed.
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
        Ok(self.go_through(path, false, WAITING, &mut each)?.entries)
    }

    /// Whether a directory would stay because of something in it that is protected.
    pub fn keeps_something(&self, path: &[u8]) -> Result<bool> {
        if self.protection.is_none() {
            return Ok(false);
        }
        Ok(self.go_through(path, false, WAITING, &mut |_| {})?.keeps)
    }

    pub(super) fn bottom_up(&self, path: &[u8], remove: bool, waiting: usize) -> Result<u64> {
        Ok(self.go_through(path, remove, waiting, &mut |_| {})?.entries)
    }

    fn go_through(
        &self,
        path: &[u8],
        remove: bool,
        waiting: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<Gone> {
        let (parent, name) = self.locate(path)?;
        let stat = stat_at(&parent.fd, &name).map_err(|error| failed(error, "examine", path))?;
        let (path_now, levels, gone) = (path.to_vec(), Vec::new(), Gone::default());
        let mut walk = BottomUp { tree: self, remove, each, waiting, path: path_now, levels, gone };
        let enter = walk.meet(&parent.fd, &name, file_type(&stat));
        if enter.map_err(|error| failed(error, "remove", path))? {
            walk.levels.push(Level::at(path.len()));
            walk.run()?;
        } else if !remove {
            (walk.each)(path);
        }
        Ok(walk.gone)
    }

    /// Makes room where a directory is. Nobody loses a tree because a name in the snapshot is that of a file.
    fn clear_directory(&self, path: &[u8], parent: &DirectoryHandle, name: &CStr) -> Result<()> {
        if self.options.replace_trees {
            if self.keeps_something(path)? {
                return Err(protected_in_the_way(path));
            }
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

    /// From now on nothing is replaced: there was nothing in the target, so a name that exists was made by somebody else
    /// meanwhile, or is that of another entry of the snapshot where the file system does not tell the two apart.
    pub fn replace_nothing(&mut self) {
        self.was_empty = true;
    }

    /// Clears the name if the options allow it, and calls `make` again.
    pub(super) fn replacing<T>(
        &self,
        path: &[u8],
        parent: &DirectoryHandle,
        name: &CStr,
        make: impl Fn() -> io::Result<T>,
    ) -> Result<T> {
        if self.was_empty {
            return Err(made_meanwhile(path));
        }
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

/// In a target that was empty, something has this name already.
pub(super) fn made_meanwhile(path: &[u8]) -> Error {
    Error::conflict(format!(
        "{} was not there when the restore began: somebody made it meanwhile, or the file system takes two names of the \
         snapshot for one",
        show_path(path)
    ))
}

/// Says that a directory with contents is in the way of something else.
pub(crate) fn directory_in_the_way(path: &[u8]) -> Error {
    let path = show_path(path);
    Error::conflict(format!(
        "{path} is a directory with contents in the target, and something else in the snapshot"
    ))
    .with_hint("move it away or remove it, or restore with --delete")
}

/// Says that a directory with something that is protected is in the way of something else.
pub(crate) fn protected_in_the_way(path: &[u8]) -> Error {
    let path = show_path(path);
    Error::conflict(format!(
        "{path} is a directory in the target that holds what the patterns leave out, and something else in the snapshot"
    ))
    .with_hint("move it away or remove it, or restore without the patterns")
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
    gone: Gone,
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
    /// How many names this pass has met that are to go, and how many it may meet. A directory counts when it was gone
    /// through, and one in which something stays does not.
    found: u64,
    most: Option<u64>,
    /// Something in it stays.
    keeps: bool,
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
            Err(error) if !self.levels.is_empty() && is_replaced(&error) => {
                self.close(false);
                return Ok(());
            }
            opened => opened.map_err(|error| failed(error, "open", &self.path))?,
        };
        (level.waiting, level.next, level.ended) = (Names::default(), 0, true);
        let mut culprit = None;
        let read = each_entry(&directory, level.from, |entry| {
            let name = entry.file_name();
            level.from = entry.next_entry_cookie();
            if self.is_protected(name) {
                level.keeps = true;
                return Ok(ControlFlow::Continue(()));
            }
            if level.most.is_some_and(|most| level.found > most) {
                return Ok(ControlFlow::Break(()));
            }
            let met = self.meet(&directory, name, entry.file_type());
            let enter = met.inspect_err(|_| culprit = Some(name.to_owned()))?;
            level.found += u64::from(!enter);
            if !self.remove && !enter {
                let path = self.below(name);
                (self.each)(&path);
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
            (Err(error), Some(name)) => Err(failed(error, "remove", &self.below(&name))),
        }
    }

    /// The path of a name in the directory that it is in.
    fn below(&self, name: &CStr) -> Vec<u8> {
        [&self.path, &b"/"[..], name.to_bytes()].concat()
    }

    fn is_protected(&self, name: &CStr) -> bool {
        let protection = self.tree.protection.as_ref();
        protection.is_some_and(|protection| protection.protects(&self.below(name)))
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
            Ok(()) => self.gone.entries += 1,
            Err(error) if is_not_empty(&error) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Ends the last level, or begins another pass through it: names may have been left out while others were removed,
    /// or have come since. One that keeps something is done when a pass finds nothing that is to go.
    fn leave(&mut self) -> Result<()> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        if !self.remove {
            if !level.keeps {
                self.gone.entries += 1;
                (self.each)(&self.path);
            }
            self.close(level.keeps);
            return Ok(());
        }
        let (above, name) = split_path(&self.path);
        let removed = if level.keeps {
            Err(Errno::NOTEMPTY.into())
        } else {
            open_directory_beneath(&self.tree.root, above)
                .and_then(|parent| unlink(&parent, &to_c_string(name)?, true))
        };
        match removed {
            Ok(()) => {
                self.gone.entries += 1;
                self.close(false);
            }
            Err(error) if is_not_empty(&error) && level.may_go_on() => {
                let most = Some((level.found / 4 * 3).max(NAMES_LEFT_OUT));
                let (passes, keeps) = (level.passes + 1, level.keeps);
                self.levels.push(Level { passes, most, keeps, ..Level::at(level.length) });
            }
            Err(error) if is_not_empty(&error) && level.found > 0 => {
                let path = show_path(&self.path);
                return Err(Error::conflict(format!("somebody keeps making names in {path} in the target")));
            }
            Err(_) if level.keeps => self.close(true),
            Err(error) if is_replaced(&error) => self.close(false),
            Err(error) => return Err(failed(error, "remove", &self.path)),
        }
        Ok(())
    }

    /// A directory was gone through; the last level is now the one above it.
    fn close(&mut self, keeps: bool) {
        match self.levels.last_mut() {
            Some(above) if keeps => above.keeps = true,
            Some(above) => above.found += 1,
            None => self.gone.keeps = keeps,
        }
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
