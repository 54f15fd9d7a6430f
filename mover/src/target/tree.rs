//! Restores entries beneath a root directory.
//!
//! The order of calls is the caller's: `create_directory` before what is in it, then files, nodes and links
//! in any order and from any thread, then `finish_directory` from the bottom up, because everything that is
//! made in a directory changes its times. What cannot be set is kept as a [`Problem`] and does not end the
//! restore.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType, Mode};

use super::Problem;
use super::attributes::{Handle, apply};
use super::remove::{Protection, made_meanwhile};
use crate::error::{Error, Result};
use crate::format::metadata::{Kind, Metadata};
use crate::source::show_path;
use crate::sys::attributes::{Inode, read_flags, write_flags};
use crate::sys::directory::{open_directory, open_directory_beneath, open_trusted_directory, to_c_string};
use crate::sys::fds::{FdCache, lock};
use crate::sys::file::open_path_only;
use crate::sys::names::{Listed, Room};
use crate::sys::stat::{file_type, kind_of, metadata_of, stat_at, stat_of};

/// Directories that stay open for the next entry in them.
const OPEN_DIRECTORIES: usize = 128;

/// Problems kept word for word; more of them are counted by attribute, so that a restore of millions of files
/// as an ordinary user stays within memory.
const PROBLEMS_KEPT: usize = 10_000;
/// Bytes that the paths and words of those may take: paths may be long, and each is in its words once more.
const PROBLEMS_BYTES: usize = 4 << 20;
/// Attributes by which the others are counted at most. A snapshot may name any number of them.
const ATTRIBUTES_COUNTED: usize = 1000;
/// What they are counted by beyond that.
const OTHER_ATTRIBUTES: &str = "other attributes";

/// Longest name that Linux takes, in bytes.
const NAME_MAX: usize = 255;

/// How a tree is restored.
#[derive(Debug, Clone, Copy, Default)]
pub struct TargetOptions {
    /// Whether something that is in the way is removed; if not, it is an error of that entry.
    pub replace: bool,
    /// Whether a directory that is in the way is removed with all that is in it; otherwise only an empty one is.
    pub replace_trees: bool,
}

/// A file made or taken over in this run: the only thing that a hard link may be made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its path beneath the root.
    pub path: Vec<u8>,
    pub(super) identity: (u64, u64),
}

/// What could not be restored as it was.
#[derive(Debug, Default)]
pub struct Report {
    /// The first problems.
    pub problems: Vec<Problem>,
    /// How many more there were, by what they are about.
    pub further: BTreeMap<String, u64>,
    /// What the first ones take.
    bytes: usize,
}

/// An open directory of the target.
#[derive(Debug)]
pub(super) struct DirectoryHandle {
    pub(super) fd: OwnedFd,
    /// Whether new entries get something from it: a default ACL or inode flags.
    pub(super) inherits: bool,
}

#[derive(Debug, Default)]
struct Directories {
    open: HashMap<Vec<u8>, Arc<DirectoryHandle>>,
    order: VecDeque<Vec<u8>>,
}

/// A directory that a tree is restored into.
#[derive(Debug)]
pub struct TargetTree {
    pub(super) root: OwnedFd,
    pub(super) options: TargetOptions,
    /// It was empty, so that whatever is in the way has come during this run.
    pub(super) was_empty: bool,
    /// What is not removed with the directory that it is in.
    pub(super) protection: Option<Box<dyn Protection>>,
    directories: Mutex<Directories>,
    pub(super) files: FdCache,
    report: Mutex<Report>,
    locked_links: Mutex<Vec<(Made, u32)>>,
    pub(super) is_root: bool,
    /// What was removed with directories that were in the way.
    pub(super) removed: AtomicU64,
}

impl TargetTree {
    /// Opens the directory at `root`, making it if need be.
    pub fn open(root: &Path, options: TargetOptions) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(|error| cannot_open(error, root))?;
        let tree = Self::open_root(root, options).map_err(|error| cannot_open(error, root))?;
        // Said once, and not of each thing that cannot be made there.
        match rustix::fs::fstatvfs(&tree.root) {
            Ok(found) if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => {
                let error = io::ErrorKind::ReadOnlyFilesystem.into();
                Err(cannot_open(error, root).with_hint("mount it for writing, or restore to another place"))
            }
            _ => Ok(tree),
        }
    }

    /// Opens the directory at `root` if there is one.
    pub fn open_existing(root: &Path, options: TargetOptions) -> Result<Option<Self>> {
        match Self::open_root(root, options) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(|error| cannot_open(error, root)),
        }
    }

    fn open_root(root: &Path, options: TargetOptions) -> io::Result<Self> {
        let name = to_c_string(root.as_os_str().as_bytes())?;
        Ok(Self {
            root: open_trusted_directory(&name)?,
            options,
            was_empty: false,
            protection: None,
            directories: Mutex::default(),
            files: FdCache::with_default_limit(),
            report: Mutex::default(),
            locked_links: Mutex::default(),
            is_root: rustix::process::geteuid().is_root(),
            removed: AtomicU64::new(0),
        })
    }

    /// What is at `path` now, without its extended attributes and flags.
    pub fn look_up(&self, path: &[u8]) -> Result<Option<(Kind, Metadata)>> {
        let (directory, name) = match self.locate(path) {
            Ok(found) => found,
            Err(error) if error.kind() == crate::error::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match stat_at(&directory.fd, &name) {
            Ok(stat) => Ok(kind_of(&stat).map(|kind| (kind, metadata_of(&stat)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error, "examine", path)),
        }
    }

    /// The names in a directory of the target, sorted in the memory that `room` has; the empty path is the root.
    pub(crate) fn names(&self, path: &[u8], room: &Arc<Room>) -> Result<Listed> {
        let directory = self.directory(path)?;
        let fd = open_directory(&directory.fd, c".").map_err(|error| failed(error, "list", path))?;
        match Listed::read(&fd, room) {
            (names, None) => Ok(names),
            (_, Some(error)) => Err(failed(error, "list", path)),
        }
    }

    /// Makes a directory that only this user can enter until [`Self::finish_directory`]; one that exists
    /// is kept with what is in it, and is an error where the target was empty.
    pub fn create_directory(&self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.locate(path)?;
        let make = || -> io::Result<()> { Ok(rustix::fs::mkdirat(&parent.fd, name.as_c_str(), Mode::RWXU)?) };
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.was_empty => {
                return Err(made_meanwhile(path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(|error| failed(error, "create the directory", path)),
        }
        let stat = stat_at(&parent.fd, &name).map_err(|error| failed(error, "examine", path))?;
        if file_type(&stat) != FileType::Directory {
            return self.replacing(path, &parent, &name, make);
        }
        self.unlock_directory(path, &parent, &name, stat.st_mode)
    }

    /// Makes an existing directory writable for this run; its own attributes follow at the end.
    fn unlock_directory(&self, path: &[u8], parent: &DirectoryHandle, name: &CStr, mode: u32) -> Result<()> {
        let fd = open_directory(&parent.fd, name).map_err(|error| failed(error, "open", path))?;
        if read_flags(&fd).is_ok_and(|flags| flags & crate::sys::attributes::LOCKING_FLAGS != 0) {
            write_flags(&fd, 0).map_err(|error| failed(error, "take the immutable flag off", path))?;
        }
        if !self.is_root && mode & 0o700 != 0o700 {
            let wider = Mode::from_raw_mode((mode & 0o7777) | 0o700);
            rustix::fs::fchmod(&fd, wider).map_err(|error| failed(error.into(), "open up", path))?;
        }
        Ok(())
    }

    /// Sets the attributes of a directory after everything in it is done.
    pub fn finish_directory(&self, path: &[u8], metadata: &Metadata) -> Result<()> {
        let (parent, name) = self.locate(path)?;
        let fd = open_directory(&parent.fd, &name).map_err(|error| failed(error, "open", path))?;
        let stat = stat_of(&fd).map_err(|error| failed(error, "examine", path))?;
        apply(&Handle::open(&fd, self.is_root), path, metadata, &stat, true, &mut |problem| {
            self.report(problem);
        });
        Ok(())
    }

    /// Makes a symbolic link, device node, pipe or socket with its attributes.
    pub fn create_node(&self, path: &[u8], kind: &Kind, metadata: &Metadata) -> Result<Made> {
        let (parent, name) = self.locate(path)?;
        let make = || make_node(&parent.fd, &name, kind);
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.replacing(path, &parent, &name, make)?;
            }
            other => other.map_err(|error| failed(error, "create", path))?,
        }
        let look = || -> io::Result<_> {
            let fd = open_path_only(&parent.fd, &name)?;
            let stat = stat_of(&fd)?;
            Ok((fd, stat))
        };
        let (fd, stat) = look().map_err(|error| failed(error, "examine", path))?;
        if !kind_of(&stat).is_some_and(|made| same_type(&made, kind)) {
            return Err(Error::conflict(format!("{} was replaced during the restore", show_path(path))));
        }
        let handle = Handle::path_only(&fd, file_type(&stat) == FileType::Symlink);
        apply(&handle, path, metadata, &stat, parent.inherits, &mut |problem| self.report(problem));
        Ok(Made { path: path.to_vec(), identity: (stat.st_dev, stat.st_ino) })
    }

    /// Makes another name for a file of this run.
    pub fn hard_link(&self, path: &[u8], first: &Made) -> Result<()> {
        let (from, from_name) = self.locate(&first.path)?;
        let (parent, name) = self.locate(path)?;
        let link = || -> io::Result<()> {
            let (old, new) = (from_name.as_c_str(), name.as_c_str());
            Ok(rustix::fs::linkat(&from.fd, old, &parent.fd, new, AtFlags::empty())?)
        };
        match link() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let present = stat_at(&parent.fd, &name).map_err(|error| failed(error, "examine", path))?;
                if (present.st_dev, present.st_ino) == first.identity {
                    return Ok(());
                }
                self.replacing(path, &parent, &name, link)?;
            }
            other => other.map_err(|error| failed(error, "link", path))?,
        }
        let made = stat_at(&parent.fd, &name).map_err(|error| failed(error, "examine", path))?;
        if (made.st_dev, made.st_ino) != first.identity {
            rustix::fs::unlinkat(&parent.fd, name.as_c_str(), AtFlags::empty())
                .map_err(|error| failed(error.into(), "take back the link", path))?;
            let first = show_path(&first.path);
            return Err(Error::conflict(format!(
                "{first} was replaced during the restore; not linked to it"
            )));
        }
        Ok(())
    }

    /// How many entries went with directories that were in the way; what took their names is not counted.
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// Sets the flags that had to wait until a file has all of its names.
    pub fn lock_linked(&self) {
        for (made, flags) in std::mem::take(&mut *lock(&self.locked_links)) {
            let set = || -> Result<()> {
                let (parent, name) = self.locate(&made.path)?;
                let file = crate::sys::file::open_for_reading(&parent.fd, &name)
                    .map_err(|error| failed(error, "open", &made.path))?;
                let stat = stat_of(&file).map_err(|error| failed(error, "examine", &made.path))?;
                if (stat.st_dev, stat.st_ino) != made.identity {
                    return Err(Error::conflict("it was replaced during the restore"));
                }
                write_flags(&file, flags).map_err(|error| failed(error, "set the flags of", &made.path))
            };
            if let Err(error) = set() {
                self.report(Problem::new(made.path.as_slice(), "flags", error));
            }
        }
    }

    /// Ends the restore: sets what had to wait, and tells what could not be restored.
    pub fn finish(self) -> Report {
        self.lock_linked();
        std::mem::take(&mut *lock(&self.report))
    }

    pub(super) fn lock_later(&self, made: Made, flags: u32) {
        lock(&self.locked_links).push((made, flags));
    }

    pub(super) fn report(&self, problem: Problem) {
        let mut report = lock(&self.report);
        let bytes = report.bytes + 2 * (problem.path.len() + problem.what.len());
        if report.problems.len() < PROBLEMS_KEPT && bytes <= PROBLEMS_BYTES {
            report.bytes = bytes;
            report.problems.push(problem);
            return;
        }
        let what = &*problem.what;
        let finds_room = report.further.len() < ATTRIBUTES_COUNTED && what.len() <= NAME_MAX;
        let what = if finds_room || report.further.contains_key(what) { what } else { OTHER_ATTRIBUTES };
        *report.further.entry(what.to_owned()).or_default() += 1;
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn locate(&self, path: &[u8]) -> Result<(Arc<DirectoryHandle>, CString)> {
        if path.starts_with(b"/") {
            check_name(b"", path)?;
        }
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        check_name(name, path)?;
        let name = to_c_string(name).map_err(|error| failed(error, "use the name", path))?;
        Ok((self.directory(parent)?, name))
    }

    pub(super) fn directory(&self, path: &[u8]) -> Result<Arc<DirectoryHandle>> {
        if let Some(handle) = lock(&self.directories).open.get(path) {
            return Ok(Arc::clone(handle));
        }
        if !path.is_empty() {
            path.split(|&byte| byte == b'/').try_for_each(|name| check_name(name, path))?;
        }
        let fd = open_directory_beneath(&self.root, path).map_err(|error| {
            failed(error, "open the directory", path).with_hint("no symbolic link is followed in the target")
        })?;
        let acl = Inode::open(&fd).value(c"system.posix_acl_default");
        let inherits = acl.is_ok_and(|acl| acl.is_some()) || read_flags(&fd).is_ok_and(|flags| flags != 0);
        let handle = Arc::new(DirectoryHandle { fd, inherits });
        let mut directories = lock(&self.directories);
        if directories.open.len() >= OPEN_DIRECTORIES
            && let Some(oldest) = directories.order.pop_front()
        {
            directories.open.remove(&oldest);
        }
        if directories.open.insert(path.to_vec(), Arc::clone(&handle)).is_none() {
            directories.order.push_back(path.to_vec());
        }
        Ok(handle)
    }

    /// After something was removed, a kept descriptor may be of a directory that is gone.
    pub(super) fn forget_directories(&self) {
        *lock(&self.directories) = Directories::default();
    }
}

fn cannot_open(error: io::Error, root: &Path) -> Error {
    Error::io(error, format!("cannot open the target {}", root.display()))
}

/// Names come from the repository, which may be hostile.
fn check_name(name: &[u8], path: &[u8]) -> Result<()> {
    if matches!(name, b"" | b"." | b"..")
        || name.len() > NAME_MAX
        || name.contains(&0)
        || name.contains(&b'/')
    {
        return Err(Error::corrupt(format!(
            "the snapshot holds an impossible name in {:?}",
            show_path(path)
        )));
    }
    Ok(())
}

fn same_type(a: &Kind, b: &Kind) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn make_node(parent: &OwnedFd, name: &CStr, kind: &Kind) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    let node = |kind, device| Ok(rustix::fs::mknodat(parent, name, kind, mode, device)?);
    match kind {
        Kind::Symlink { target } => Ok(rustix::fs::symlinkat(target.as_slice(), parent, name)?),
        Kind::BlockDevice { major, minor } => {
            node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
        }
        Kind::CharDevice { major, minor } => {
            node(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
        }
        Kind::Fifo => node(FileType::Fifo, 0),
        Kind::Socket => node(FileType::Socket, 0),
        Kind::File | Kind::Directory | Kind::Image => Err(io::ErrorKind::InvalidInput.into()),
    }
}

pub(super) fn failed(error: io::Error, action: &str, path: &[u8]) -> Error {
    Error::io(error, format!("cannot {action} {} in the target", show_path(path)))
}
