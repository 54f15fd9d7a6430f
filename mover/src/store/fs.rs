//! A repository in a local (or network) directory.
//!
//! An object is written to a temporary file under `tmp/` and renamed into its place without replacing: the
//! rename is the create-if-absent. Large bodies go past the page cache where the file system can do that. All
//! contents are durable when a put returns. So are the names, and those of all folders above them, whoever made
//! them; but for packs: their folders wait for [`flush`](ObjectStore::flush), which comes before anything that refers
//! to them.
//!
//! Every component of a path is opened without following symbolic links, so that nothing below the root can
//! lead out of it.

mod list;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use jiff::Timestamp;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{ByteRange, Capabilities, ObjectStore, Page, Put, check_name, span};
use crate::clock::World;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{direct, file::write_full_at};

/// Folder of files that are being written; no part of any listing.
const TEMPORARY: &str = "tmp";
/// Age in seconds from which a temporary file counts as left over: no write of one object takes a day.
const STALE_SECONDS: i64 = 24 * 60 * 60;
/// Size from which a body goes past the page cache: smaller ones are written sooner than their pages are found.
const DIRECT_FROM_BYTES: usize = 1024 * 1024;

/// A directory as an object store.
#[derive(Debug)]
pub struct FsStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: OnceLock<OwnedFd>,
    world: World,
    /// Folders of packs changed since the last flush; at most the number of pack folders.
    touched: Mutex<BTreeSet<String>>,
    /// Folders whose names, up to the root, are known to be durable. One that is there may have been made by somebody
    /// who was killed before he could see to that.
    anchored: Mutex<BTreeSet<String>>,
    /// The file system knows no rename without replacing: link and unlink instead.
    link: AtomicBool,
}

/// Where an object lies: its folder, opened, and its file name.
struct Place<'a> {
    folder: OwnedFd,
    file: &'a str,
}

impl FsStore {
    /// The directory at `path`, which the first put creates if it does not exist.
    pub fn open(path: impl Into<PathBuf>, world: World) -> Self {
        let path = path.into();
        let (root, touched, anchored) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { path, root, world, touched, anchored, link: AtomicBool::new(false) }) }
    }

    /// Removes temporary files older than a day and says how many. They are what interrupted writers left. Folders stay
    /// even when they are empty: somebody may be about to put something into them.
    pub async fn sweep_temporary(&self) -> Result<u64> {
        self.blocking(|inner| inner.sweep(inner.world.clock.now())).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|err| Error::internal("a file system task did not finish").with_source(err))?
    }
}

#[async_trait]
impl ObjectStore for FsStore {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.put(&name, &body)).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.get(&name, range)).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| inner.list(&prefix, token.as_deref())).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.delete(&name)).await
    }

    fn describe(&self) -> String {
        self.inner.path.display().to_string()
    }

    async fn flush(&self) -> Result<()> {
        self.blocking(Inner::flush).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { local: true, preferred_parallel_puts: 2, preferred_parallel_gets: 4 }
    }
}

/// The names of packs wait for a flush; everything else is durable at once.
fn is_deferred(name: &str) -> bool {
    name.starts_with("packs/")
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn open_folder(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    fs::openat(
        at,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

impl Inner {
    fn fail(&self, errno: Errno, action: &str, name: &str) -> Error {
        let place = self.path.join(name);
        let what = format!("{action} {}", place.display());
        match errno {
            Errno::LOOP | Errno::NOTDIR => {
                Error::invalid(format!("{what}: a folder or file is a symbolic link"))
                    .with_hint("a repository must not contain symbolic links; use a bind mount instead")
                    .with_source(std::io::Error::from(errno))
            }
            Errno::NOSPC | Errno::DQUOT => {
                Error::io(errno.into(), what).with_hint("free space on that file system, or raise its quota")
            }
            _ => Error::io(errno.into(), what),
        }
    }

    fn root(&self, create: bool) -> Result<BorrowedFd<'_>> {
        if let Some(root) = self.root.get() {
            return Ok(root.as_fd());
        }
        if create {
            std::fs::create_dir_all(&self.path)
                .map_err(|err| Error::io(err, format!("create the directory {}", self.path.display())))?;
        }
        // The root itself may be a symbolic link: the user named it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(&self.path, flags, Mode::empty()).map_err(|errno| {
            Error::io(errno.into(), format!("open the directory {}", self.path.display()))
        })?;
        Ok(self.root.get_or_init(|| root).as_fd())
    }

    fn place<'a>(&self, name: &'a str, create: bool) -> Result<Place<'a>> {
        check_name(name)?;
        if name == TEMPORARY || name.starts_with("tmp/") {
            return Err(Error::invalid(format!("{name:?} is no object name: {TEMPORARY}/ is reserved")));
        }
        let folder = folder_of(name);
        let file = name.rsplit_once('/').map_or(name, |(_, file)| file);
        let folder =
            self.folder(folder, create)?.map_err(|errno| self.fail(errno, "open the folder of", name))?;
        Ok(Place { folder, file })
    }

    /// Opens a folder of the repository, by its path from the root.
    fn folder(&self, path: &str, create: bool) -> Result<rustix::io::Result<OwnedFd>> {
        let root = self.root(create)?;
        let mut folder = open_folder(root, ".");
        let mut end = 0;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            let Ok(at) = &folder else { break };
            end += usize::from(end > 0) + component.len();
            let mut next = open_folder(at.as_fd(), component);
            if create && next.as_ref().is_err_and(|errno| *errno == Errno::NOENT) {
                self.anchored().remove(&path[..end]);
                next = make_folder(at.as_fd(), component);
            }
            folder = next;
        }
        Ok(folder)
    }

    fn anchored(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.anchored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, body: &[u8]) -> Result<Put> {
        let place = self.place(name, true)?;
        let tmp = self.folder(TEMPORARY, true)?.map_err(|errno| self.fail(errno, "open", TEMPORARY))?;
        let temporary = hex::encode(self.world.random::<16>());
        let written = self.write_temporary(&tmp, &temporary, name, body);
        let put = written.and_then(|()| self.move_in(&tmp, &temporary, &place, name));
        if !matches!(put, Ok(Put::Created)) {
            match fs::unlinkat(&tmp, &temporary, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => tracing::warn!(%errno, temporary, "a temporary file stays until it is swept"),
            }
        }
        let put = put?;
        // Also for an object that exists: whoever obeys it must not see it vanish in a power cut.
        self.settle(&place, name)?;
        if !is_deferred(name) {
            self.anchor([folder_of(name)])?;
        }
        Ok(put)
    }

    fn write_temporary(&self, tmp: &OwnedFd, temporary: &str, name: &str, body: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(tmp, temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.fail(errno, "create a temporary file for", name))?;
        let file = File::from(file);
        let fail = |err: std::io::Error| match Errno::from_io_error(&err) {
            Some(errno) => self.fail(errno, "write", name),
            None => Error::io(err, format!("write {}", self.path.join(name).display())),
        };
        let direct = if body.len() < DIRECT_FROM_BYTES { Ok(0) } else { direct::write_front(&file, body) };
        let direct = direct.map_err(fail)?;
        write_full_at(&file, &body[direct..], direct as u64).map_err(fail)?;
        file.sync_data().map_err(fail)
    }

    fn move_in(&self, tmp: &OwnedFd, temporary: &str, place: &Place<'_>, name: &str) -> Result<Put> {
        if !self.link.load(Ordering::Relaxed) {
            let flags = fs::RenameFlags::NOREPLACE;
            match fs::renameat_with(tmp, temporary, &place.folder, place.file, flags) {
                Ok(()) => return Ok(Put::Created),
                Err(Errno::EXIST) => return Ok(Put::Exists),
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.link.store(true, Ordering::Relaxed)
                }
                Err(errno) => return Err(self.fail(errno, "rename a temporary file to", name)),
            }
        }
        match fs::linkat(tmp, temporary, &place.folder, place.file, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Put::Exists),
            Err(errno) => return Err(self.fail(errno, "link a temporary file to", name)),
        }
        fs::unlinkat(tmp, temporary, AtFlags::empty()).unwrap_or_else(
            |errno| tracing::warn!(%errno, temporary, "a temporary file stays until it is swept"),
        );
        Ok(Put::Created)
    }

    /// The next flush sees to the names in a folder.
    fn touch(&self, folder: &str) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if !touched.contains(folder) {
            touched.insert(folder.to_owned());
        }
    }

    /// Makes a change of a folder durable, now or with the next flush.
    fn settle(&self, place: &Place<'_>, name: &str) -> Result<()> {
        if is_deferred(name) {
            self.touch(folder_of(name));
            return Ok(());
        }
        fs::fsync(&place.folder).map_err(|errno| self.unclear(errno, folder_of(name)))
    }

    /// After the rename an object is visible: a failure to sync leaves its fate unclear.
    fn unclear(&self, errno: Errno, folder: &str) -> Error {
        let what = format!("sync the folder {}", self.path.join(folder).display());
        Error::new(ErrorKind::Unavailable, what).with_source(std::io::Error::from(errno))
    }

    /// Makes the names of folders durable, and of those above them: a folder that is lost takes its objects with it.
    fn anchor<'f>(&self, folders: impl IntoIterator<Item = &'f str>) -> Result<()> {
        let mut anchored = self.anchored();
        let (mut parents, mut fresh) = (BTreeSet::new(), Vec::new());
        for folder in folders {
            let mut at = folder;
            while !at.is_empty() && !anchored.contains(at) {
                parents.insert(folder_of(at));
                fresh.push(at.to_owned());
                at = folder_of(at);
            }
        }
        if anchored.insert(String::new()) {
            self.anchor_root();
        }
        for parent in parents {
            let synced = self.folder(parent, false)?.and_then(fs::fsync);
            synced.map_err(|errno| self.unclear(errno, parent))?;
        }
        anchored.extend(fresh);
        Ok(())
    }

    /// The directories above the root may be new as well. Of those that cannot be opened or synced, we have made none.
    fn anchor_root(&self) {
        for directory in self.path.ancestors().skip(1) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Err(errno) = fs::open(directory, flags, Mode::empty()).and_then(fs::fsync) {
                tracing::debug!(%errno, directory = %directory.display(), "is not synced");
            }
        }
    }

    fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        let place = self.place(name, false)?;
        if is_deferred(name) && matches!(range, ByteRange::Last(_)) {
            // Who looks at a footer may come to rely on a pack of somebody who was killed before his flush.
            self.touch(folder_of(name));
        }
        let fail = |errno| self.fail(errno, "read", name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = fs::openat(&place.folder, place.file, flags, Mode::empty()).map_err(fail)?;
        let stat = fs::fstat(&file).map_err(fail)?;
        if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::RegularFile {
            let place = self.path.join(name);
            return Err(Error::invalid(format!("{} is not a regular file", place.display())));
        }
        let size = u64::try_from(stat.st_size).expect("a file has no negative size");
        if range == ByteRange::All {
            super::check_whole(&self.path.join(name).display().to_string(), size)?;
        }
        let (offset, length) =
            span(size, range).ok_or_else(|| past_end(self.path.join(name), size, range))?;
        let length = usize::try_from(length)
            .map_err(|err| Error::invalid(format!("{name} is too long for memory")).with_source(err))?;
        let fail = |err| Error::io(err, format!("read {}", self.path.join(name).display()));
        let (bytes, start) = direct::read_range(&File::from(file), offset, length).map_err(fail)?;
        if bytes.len() - start < length {
            return Err(past_end(self.path.join(name), offset + (bytes.len() - start) as u64, range));
        }
        let mut bytes = Bytes::from(bytes);
        bytes.advance(start);
        Ok(bytes)
    }

    fn delete(&self, name: &str) -> Result<bool> {
        let place = match self.place(name, false) {
            Ok(place) => place,
            Err(err) if err.kind() == ErrorKind::NotFound && self.root.get().is_some() => return Ok(false),
            Err(err) => return Err(err),
        };
        let existed = match fs::unlinkat(&place.folder, place.file, AtFlags::empty()) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(self.fail(errno, "delete", name)),
        };
        self.settle(&place, name)?;
        Ok(existed)
    }

    fn flush(&self) -> Result<()> {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        let result = self.sync(&touched);
        if result.is_err() {
            self.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(touched);
        }
        result
    }

    fn sync(&self, touched: &BTreeSet<String>) -> Result<()> {
        for folder in touched {
            let synced = self.folder(folder, false)?.and_then(fs::fsync);
            synced.map_err(|errno| self.fail(errno, "sync the folder", folder))?;
        }
        self.anchor(touched.iter().map(String::as_str))
    }

    fn sweep(&self, now: Timestamp) -> Result<u64> {
        let root = match self.root(false) {
            Ok(root) => root,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(0),
            Err(err) => return Err(err),
        };
        let tmp = match open_folder(root, TEMPORARY) {
            Ok(tmp) => tmp,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(self.fail(errno, "open", TEMPORARY)),
        };
        let fail = |errno| self.fail(errno, "sweep", TEMPORARY);
        let mut removed = 0;
        for entry in fs::Dir::read_from(&tmp).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(stat) = fs::statat(&tmp, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let file = fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::RegularFile;
            if file && now.as_second() - stat.st_mtime > STALE_SECONDS {
                fs::unlinkat(&tmp, entry.file_name(), AtFlags::empty()).map_err(fail)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn make_folder(at: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    match fs::mkdirat(at, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open_folder(at, name),
        Err(errno) => Err(errno),
    }
}

fn past_end(path: impl AsRef<Path>, size: u64, range: ByteRange) -> Error {
    super::past_end(&path.as_ref().display().to_string(), size, range)
}

#[cfg(test)]
mod tests;
