//! The operations that the kernel asks for.
//!
//! What fails for reasons of the engine is `EIO` for the program that asked, and a message in the log that says
//! why; a defect of the program ends the mount besides. What would change something is `EROFS`.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::{
    attributes,
    directory::OpenDirectory,
    file::OpenFile,
    handles::Handles,
    inodes::{FIRST_SNAPSHOT, LATEST, Node, ROOT, UNKNOWN},
    view::View,
};
use crate::{
    error::Error,
    format::{entry::Entry, metadata::Kind, order::split_path},
    monitor::escape_path,
    reader::{SnapshotReader, walk::has_contents},
};

/// How long the kernel may believe what it was told: snapshots do not change.
const TRUTH: Duration = Duration::from_secs(3600);
/// Numbers are never used twice, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// The longest name that Linux passes on, in bytes.
const NAME_LIMIT: u32 = 255;
/// The handle of the top directory, which needs no state.
const TOP: u64 = 0;
const LATEST_NAME: &str = "latest";

type Answer<T> = Result<T, Errno>;

#[derive(Debug)]
pub(super) struct SnapshotFs {
    view: Arc<View>,
    files: Handles<OpenFile>,
    directories: Handles<OpenDirectory>,
}

impl SnapshotFs {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, files: Handles::new(), directories: Handles::new() }
    }

    fn node(&self, number: INodeNo) -> Answer<Node> {
        self.view.inodes.get(number.0).ok_or(Errno::ENOENT)
    }

    fn entry(&self, snapshot: usize, path: &[u8]) -> Answer<Option<Entry>> {
        self.view.entry(snapshot, path).map_err(|error| self.failed(snapshot, path, &error))
    }

    fn reader(&self, snapshot: usize, path: &[u8]) -> Answer<SnapshotReader> {
        self.view.reader(snapshot).map_err(|error| self.failed(snapshot, path, &error))
    }

    /// The entry of an inode; none for those that no snapshot has.
    fn entry_of(&self, number: INodeNo) -> Answer<Option<Entry>> {
        match self.node(number)? {
            Node::Path(snapshot, path) if !path.is_empty() => {
                self.entry(snapshot, &path)?.map(Some).ok_or(Errno::ENOENT)
            }
            _ => Ok(None),
        }
    }

    fn failed(&self, snapshot: usize, path: &[u8], error: &Error) -> Errno {
        self.view.note(error);
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            snapshot = self.view.names[snapshot],
            path = escape_path(path),
            hint = error.hint().unwrap_or_default(),
            cause,
            "cannot be read: {error}"
        );
        Errno::EIO
    }

    fn started(&self, snapshot: Option<usize>) -> SystemTime {
        snapshot.map_or(UNIX_EPOCH, |index| self.view.snapshots[index].started.into())
    }

    fn top_attributes(&self, node: &Node) -> FileAttr {
        let latest = self.started(self.view.latest);
        match node {
            Node::Root => attributes::of_own(ROOT, FileType::Directory, 0, latest),
            Node::Latest => {
                let size = self.view.latest.map_or(0, |index| self.view.names[index].len());
                attributes::of_own(LATEST, FileType::Symlink, size as u64, latest)
            }
            Node::Path(snapshot, _) => {
                let number = FIRST_SNAPSHOT + *snapshot as u64;
                attributes::of_own(number, FileType::Directory, 0, self.started(Some(*snapshot)))
            }
        }
    }

    fn attributes(&self, number: INodeNo) -> Answer<FileAttr> {
        match self.entry_of(number)? {
            Some(entry) => Ok(attributes::of_entry(number.0, &entry)),
            None => Ok(self.top_attributes(&self.node(number)?)),
        }
    }

    fn look_up(&self, parent: INodeNo, name: &[u8]) -> Answer<FileAttr> {
        let (snapshot, directory) = match self.node(parent)? {
            Node::Root => return self.look_up_top(name),
            Node::Latest => return Err(Errno::ENOTDIR),
            Node::Path(snapshot, path) => (snapshot, path),
        };
        let path = join(&directory, name);
        let entry = self.entry(snapshot, &path)?.ok_or(Errno::ENOENT)?;
        let number = self.view.inodes.look_up(snapshot, &path, entry.kind == Kind::Directory);
        let number = number.ok_or_else(|| {
            tracing::error!("more names are in use than can be remembered");
            Errno::ENFILE
        })?;
        Ok(attributes::of_entry(number, &entry))
    }

    fn look_up_top(&self, name: &[u8]) -> Answer<FileAttr> {
        if name == LATEST_NAME.as_bytes() && self.view.latest.is_some() {
            return Ok(self.top_attributes(&Node::Latest));
        }
        let index = self.view.names.iter().position(|known| known.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(self.top_attributes(&Node::Path(index, Arc::from([]))))
    }

    fn target(&self, number: INodeNo) -> Answer<Vec<u8>> {
        if let (Node::Latest, Some(index)) = (self.node(number)?, self.view.latest) {
            return Ok(self.view.names[index].clone().into_bytes());
        }
        match self.entry_of(number)?.map(|entry| entry.kind) {
            Some(Kind::Symlink { target }) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open_file(&self, number: INodeNo, flags: OpenFlags) -> Answer<u64> {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return Err(Errno::EROFS);
        }
        let Node::Path(snapshot, path) = self.node(number)? else { return Err(Errno::EISDIR) };
        let entry = self.entry_of(number)?.ok_or(Errno::EISDIR)?;
        if !has_contents(&entry) {
            return Err(Errno::EINVAL);
        }
        let file = OpenFile::new(self.reader(snapshot, &path)?, entry.content, entry.metadata.size);
        self.files.open(file).ok_or(Errno::ENFILE)
    }

    fn read_file(&self, number: INodeNo, handle: FileHandle, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let file = self.files.get(handle.0).ok_or(Errno::EBADF)?;
        file.read(&self.view.handle, offset, size).map_err(|error| match self.view.inodes.get(number.0) {
            Some(Node::Path(snapshot, path)) => self.failed(snapshot, &path, &error),
            _ => Errno::EIO,
        })
    }

    fn open_directory(&self, number: INodeNo) -> Answer<u64> {
        match self.node(number)? {
            Node::Root => Ok(TOP),
            Node::Latest => Err(Errno::ENOTDIR),
            Node::Path(snapshot, path) => {
                let directory = OpenDirectory::new(self.reader(snapshot, &path)?, snapshot, &path);
                self.directories.open(directory).ok_or(Errno::ENFILE)
            }
        }
    }

    /// Fills the answer with names from `offset` on; an offset is the number of names before it.
    fn list(
        &self,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Answer<()> {
        let directory =
            if handle.0 == TOP { None } else { Some(self.directories.get(handle.0).ok_or(Errno::EBADF)?) };
        let above = directory.as_ref().map_or(ROOT, |directory| self.number_above(directory));
        let dots = [(number.0, "."), (above, "..")];
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (number, name)) in dots.into_iter().enumerate().skip(first) {
            if reply.add(INodeNo(number), index as u64 + 1, FileType::Directory, name) {
                return Ok(());
            }
        }
        let position = offset.saturating_sub(dots.len() as u64);
        match directory {
            None => self.list_top(position, reply),
            Some(directory) => return self.list_directory(&directory, position, reply),
        }
        Ok(())
    }

    fn number_above(&self, directory: &OpenDirectory) -> u64 {
        if directory.path.is_empty() {
            return ROOT;
        }
        let above = split_path(&directory.path).0;
        self.view.inodes.number(directory.snapshot, above).unwrap_or(UNKNOWN)
    }

    fn list_top(&self, position: u64, reply: &mut ReplyDirectory) {
        let numbers = FIRST_SNAPSHOT..;
        let snapshots =
            numbers.zip(&self.view.names).map(|(number, name)| (number, FileType::Directory, &**name));
        let latest = self.view.latest.map(|_| (LATEST, FileType::Symlink, LATEST_NAME));
        let first = usize::try_from(position).unwrap_or(usize::MAX);
        for (index, (number, kind, name)) in snapshots.chain(latest).enumerate().skip(first) {
            if reply.add(INodeNo(number), index as u64 + 3, kind, name) {
                return;
            }
        }
    }

    fn list_directory(
        &self,
        directory: &OpenDirectory,
        mut position: u64,
        reply: &mut ReplyDirectory,
    ) -> Answer<()> {
        let mut listing = directory.listing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = self.view.handle.block_on(directory.name(&mut listing, position));
            let found = next.map_err(|error| self.failed(directory.snapshot, &directory.path, &error))?;
            let Some(found) = found else { return Ok(()) };
            let path = join(&directory.path, &found.name);
            let number = self.view.inodes.number(directory.snapshot, &path).unwrap_or(UNKNOWN);
            if reply.add(INodeNo(number), position + 3, found.kind, OsStr::from_bytes(&found.name)) {
                return Ok(());
            }
            position += 1;
        }
    }

    fn xattr(&self, number: INodeNo, name: &[u8]) -> Answer<Vec<u8>> {
        let entry = self.entry_of(number)?.ok_or(Errno::NO_XATTR)?;
        let found = entry.metadata.xattrs.into_iter().find(|xattr| xattr.name == name);
        found.map(|xattr| xattr.value).ok_or(Errno::NO_XATTR)
    }

    fn xattr_names(&self, number: INodeNo) -> Answer<Vec<u8>> {
        let mut names = Vec::new();
        for xattr in self.entry_of(number)?.map(|entry| entry.metadata.xattrs).unwrap_or_default() {
            names.extend_from_slice(&xattr.name);
            names.push(0);
        }
        Ok(names)
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// An attribute as the kernel asks for it: first how long it is, then the bytes.
fn answer_xattr(answer: Answer<Vec<u8>>, room: u32, reply: ReplyXattr) {
    match answer {
        Err(error) => reply.error(error),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if room == 0 => reply.size(length),
            Ok(length) if length <= room => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
    }
}

impl Filesystem for SnapshotFs {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent, name.as_bytes()) {
            Ok(attributes) => reply.entry(&TRUTH, &attributes, GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.view.inodes.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&TRUTH, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.target(ino) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino, flags) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_file(ino, fh, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.close(fh.0);
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        match self.open_directory(ino) {
            Ok(handle) => reply.opened(FileHandle(handle), flags),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(ino, fh, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.close(fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let size = attributes::BLOCK_SIZE;
        let bytes = self
            .view
            .snapshots
            .iter()
            .fold(0u64, |sum, snapshot| sum.saturating_add(snapshot.statistics.bytes_total));
        reply.statfs(bytes.div_ceil(size.into()), 0, 0, 0, 0, size, NAME_LIMIT, size);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(self.xattr(ino, name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(self.xattr_names(ino), size, reply);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) { reply.error(Errno::EROFS) } else { reply.ok() }
    }

    // The mount is read-only, so the kernel refuses these by itself; a remount must not change that.

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
