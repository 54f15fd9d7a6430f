//! The disk as a mounted file system.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, FileType as Kind, XattrFlags};

use super::contents::Contents;
use super::state::{Body, Inode, State};
use super::{Shared, Step};

/// How long the kernel may believe what it was told: nobody else changes anything.
const TRUTH: Duration = Duration::from_secs(3600);
const GENERATION: Generation = Generation(0);
/// No attribute of this name.
const NO_DATA: Errno = Errno::ENODATA;

type Answer<T> = Result<T, Errno>;

/// Answers the kernel, one request after the other.
#[derive(Debug)]
pub(super) struct Served(pub(super) Arc<Shared>);

impl Served {
    /// A step that changes something: carried out unless the program is killed at it.
    fn step<T>(&self, step: Step, change: impl FnOnce(&mut State) -> Answer<T>) -> Answer<T> {
        self.0.step(step, change).unwrap_or(Err(Errno::EIO))
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> Answer<T>) -> Answer<T> {
        look(&self.0.lock().state)
    }

    fn make(&self, parent: INodeNo, name: &OsStr, inode: Inode) -> Answer<FileAttr> {
        self.step(Step::Change, |state| {
            let names = state.names(parent.0).ok_or(Errno::ENOTDIR)?;
            if names.contains_key(name) {
                return Err(Errno::EEXIST);
            }
            let number = state.make(inode);
            state.link(parent.0, name, number);
            attributes(state, number)
        })
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, directory: bool) -> Answer<()> {
        self.step(Step::Change, |state| {
            let number = state.look_up(parent.0, name).ok_or(Errno::ENOENT)?;
            match (state.names(number), directory) {
                (Some(_), false) => return Err(Errno::EISDIR),
                (None, true) => return Err(Errno::ENOTDIR),
                (Some(names), true) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => state.unlink(parent.0, name),
            }
            Ok(())
        })
    }

    fn sync(&self, number: INodeNo, reply: ReplyEmpty) {
        let done = self.step(Step::Sync, |state| {
            state.sync(number.0);
            Ok(())
        });
        settle(done, reply);
    }

    fn xattrs(&self, number: INodeNo, change: impl FnOnce(&mut Inode) -> Answer<()>, reply: ReplyEmpty) {
        settle(self.step(Step::Change, |state| change(inode_mut(state, number.0)?)), reply);
    }
}

fn settle(done: Answer<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn enter(found: Answer<FileAttr>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&TRUTH, &attributes, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn inode(state: &State, number: u64) -> Answer<&Inode> {
    state.get(number).ok_or(Errno::ENOENT)
}

fn inode_mut(state: &mut State, number: u64) -> Answer<&mut Inode> {
    state.get_mut(number).ok_or(Errno::ENOENT)
}

fn contents(inode: &mut Inode) -> Answer<&mut Contents> {
    match &mut inode.body {
        Body::File(contents) => Ok(contents),
        _ => Err(Errno::EINVAL),
    }
}

fn kind_of(mode: u32) -> FileType {
    match Kind::from_raw_mode(mode) {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn attributes(state: &State, number: u64) -> Answer<FileAttr> {
    let found = inode(state, number)?;
    let (size, allocated, rdev) = match &found.body {
        Body::File(contents) => (contents.length(), contents.allocated(), 0),
        Body::Directory(names) => (names.len() as u64, 0, 0),
        Body::Link(target) => (target.len() as u64, 0, 0),
        Body::Node(rdev) => (0, 0, *rdev),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: allocated.div_ceil(512),
        atime: found.atime,
        mtime: found.mtime,
        ctime: found.mtime,
        crtime: found.mtime,
        kind: kind_of(found.mode),
        perm: (found.mode & 0o7777) as u16,
        nlink: state.links(number),
        uid: found.owner.0,
        gid: found.owner.1,
        rdev,
        blksize: 4096,
        flags: 0,
    })
}

fn time(wish: TimeOrNow) -> SystemTime {
    match wish {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn renamed(
    state: &mut State,
    (parent, name): (u64, &OsStr),
    (new_parent, new_name): (u64, &OsStr),
    keep: bool,
) -> Answer<()> {
    let number = state.look_up(parent, name).ok_or(Errno::ENOENT)?;
    if let Some(there) = state.look_up(new_parent, new_name) {
        if keep {
            return Err(Errno::EEXIST);
        }
        if state.names(there).is_some_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
    }
    state.link(new_parent, new_name, number);
    state.unlink(parent, name);
    Ok(())
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.read(|state| attributes(state, state.look_up(parent.0, name).ok_or(Errno::ENOENT)?));
        enter(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.read(|state| attributes(state, ino.0)) {
            Ok(found) => reply.attr(&TRUTH, &found),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = self.step(Step::Change, |state| {
            let found = inode_mut(state, ino.0)?;
            if let Some(size) = size {
                contents(found)?.set_length(size);
                found.mtime = SystemTime::now();
            }
            if let Some(mode) = mode {
                found.mode = (found.mode & !0o7777) | (mode & 0o7777);
            }
            found.owner = (uid.unwrap_or(found.owner.0), gid.unwrap_or(found.owner.1));
            found.atime = atime.map_or(found.atime, time);
            found.mtime = mtime.map_or(found.mtime, time);
            attributes(state, ino.0)
        });
        match done {
            Ok(found) => reply.attr(&TRUTH, &found),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.read(|state| match &inode(state, ino.0)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        });
        match target {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let body = match Kind::from_raw_mode(mode) {
            Kind::RegularFile => Body::File(Contents::default()),
            _ => Body::Node(rdev),
        };
        let made = Inode::new(body, mode & !umask, (request.uid(), request.gid()));
        enter(self.make(parent, name, made), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = Kind::Directory.as_raw_mode() | (mode & 0o7777 & !umask);
        let made = Inode::new(Body::Directory(Default::default()), mode, (request.uid(), request.gid()));
        enter(self.make(parent, name, made), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        settle(self.remove(parent, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        settle(self.remove(parent, name, true), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let body = Body::Link(target.as_os_str().to_owned());
        let made = Inode::new(body, Kind::Symlink.as_raw_mode() | 0o777, (request.uid(), request.gid()));
        enter(self.make(parent, name, made), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let done =
            self.step(Step::Change, |state| renamed(state, (parent.0, name), (new_parent.0, new_name), keep));
        settle(done, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.step(Step::Change, |state| {
            if state.look_up(parent.0, name).is_some() {
                return Err(Errno::EEXIST);
            }
            state.link(parent.0, name, ino.0);
            attributes(state, ino.0)
        });
        enter(linked, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.step(Step::Look, |_| Ok(())) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mode = Kind::RegularFile.as_raw_mode() | (mode & 0o7777 & !umask);
        let made = Inode::new(Body::File(Contents::default()), mode, (request.uid(), request.gid()));
        match self.make(parent, name, made) {
            Ok(found) => {
                reply.created(&TRUTH, &found, GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE)
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.read(|state| match &inode(state, ino.0)?.body {
            Body::File(contents) => Ok(contents.read(offset, size.into())),
            _ => Err(Errno::EINVAL),
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.step(Step::Change, |state| {
            let found = inode_mut(state, ino.0)?;
            contents(found)?.write(offset, data);
            found.mtime = SystemTime::now();
            Ok(())
        });
        match done {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        // The kernel asks for the rest of a list as long as there is one.
        if offset == 0
            && let Err(errno) = self.step(Step::Look, |_| Ok(()))
        {
            return reply.error(errno);
        }
        let listed = self.read(|state| {
            let names = state.names(ino.0).ok_or(Errno::ENOTDIR)?;
            let kind =
                |number: u64| state.get(number).map_or(FileType::RegularFile, |inode| kind_of(inode.mode));
            let own = [".", ".."].map(|name| (OsString::from(name), ino.0, FileType::Directory));
            let others = names.iter().map(|(name, number)| (name.clone(), *number, kind(*number)));
            Ok(own.into_iter().chain(others).collect::<Vec<_>>())
        });
        let names = match listed {
            Ok(names) => names,
            Err(errno) => return reply.error(errno),
        };
        for (index, (name, number, kind)) in names.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(number), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let set = |inode: &mut Inode| {
            let there = inode.xattrs.contains_key(name);
            if there && flags.contains(XattrFlags::CREATE) {
                return Err(Errno::EEXIST);
            }
            if !there && flags.contains(XattrFlags::REPLACE) {
                return Err(NO_DATA);
            }
            inode.xattrs.insert(name.to_owned(), value.to_vec());
            Ok(())
        };
        self.xattrs(ino, set, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.read(|state| inode(state, ino.0)?.xattrs.get(name).cloned().ok_or(NO_DATA));
        answer(value, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.read(|state| {
            let names = inode(state, ino.0)?.xattrs.keys();
            Ok(names.flat_map(|name| [name.as_encoded_bytes(), b"\0"].concat()).collect())
        });
        answer(names, size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |inode: &mut Inode| inode.xattrs.remove(name).map(drop).ok_or(NO_DATA);
        self.xattrs(ino, remove, reply);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        if flags != FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let done = self.step(Step::Change, |state| {
            contents(inode_mut(state, ino.0)?)?.punch(offset, length);
            Ok(())
        });
        settle(done, reply);
    }
}

/// A value, or its length for those who ask how much room it takes.
fn answer(value: Answer<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}
