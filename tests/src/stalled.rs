//! A file system that does not answer: what a network share is after its server went away.

use std::{
    any::Any,
    ffi::OsStr,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

const ROOT: INodeNo = INodeNo(1);
const TRUTH: Duration = Duration::from_secs(1);

/// Answers that are not given; dropped they are errors.
type Waiting = Arc<Mutex<Vec<Box<dyn Any + Send>>>>;

/// Mounted until it is dropped.
#[derive(Debug)]
pub struct StalledFs {
    session: Option<BackgroundSession>,
    waiting: Waiting,
}

/// What is never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Which file has this name.
    Lookup,
    /// What is in this directory.
    List,
    /// The contents of this file.
    Read,
}

/// One directory with names, each of which waits in its own way.
#[derive(Debug)]
struct Stalled {
    names: Vec<(&'static str, Stall)>,
    waiting: Waiting,
}

impl StalledFs {
    /// Mounts it on an empty directory, with one file `never` whose reads wait.
    pub fn mount(at: &Path) -> Result<Self> {
        Self::of(at, vec![("never", Stall::Read)])
    }

    /// The same with other names.
    pub fn of(at: &Path, names: Vec<(&'static str, Stall)>) -> Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("stalled".to_owned()), MountOption::RO];
        let waiting = Waiting::default();
        let stalled = Stalled { names, waiting: Arc::clone(&waiting) };
        let session = Some(fuser::spawn_mount(stalled, at, &config).context("mount")?);
        Ok(Self { session, waiting })
    }

    /// Answers all that waits with an error. A process that was killed, too, waits for a list or the meaning of a name.
    pub fn let_go(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Stalled {
    fn keep_waiting(&self, reply: impl Any + Send) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(reply));
    }

    /// The names with their numbers.
    fn numbered(&self) -> impl Iterator<Item = (INodeNo, &'static str, Stall)> {
        let numbers = (ROOT.0 + 1..).map(INodeNo);
        numbers.zip(&self.names).map(|(number, (name, stall))| (number, *name, *stall))
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let is_list = self.numbered().any(|(found, _, stall)| found == number && stall == Stall::List);
        attributes(number, number == ROOT || is_list)
    }
}

impl Drop for StalledFs {
    fn drop(&mut self) {
        // Whoever still waits is told that nothing is there any more.
        drop(self.session.take());
    }
}

fn attributes(number: INodeNo, directory: bool) -> FileAttr {
    FileAttr {
        ino: number,
        size: if directory { 0 } else { 4096 },
        blocks: 8,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: if directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Stalled {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Otherwise who waits for one name keeps the kernel from asking for another one.
        let added = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        added.map_err(|_missing| io::Error::from(io::ErrorKind::Unsupported))
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.numbered().find(|(_, found, _)| parent == ROOT && name == *found);
        match found {
            Some((_, _, Stall::Lookup)) => self.keep_waiting(reply),
            Some((number, _, _)) => reply.entry(&TRUTH, &self.attributes(number), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TRUTH, &self.attributes(number));
    }

    fn open(&self, _req: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Otherwise whoever opens it once more waits in the kernel for the pages that are being read, and cannot be killed.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(
        &self,
        _req: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if number != ROOT {
            self.keep_waiting(reply);
            return;
        }
        let own = [(ROOT, "."), (ROOT, "..")].into_iter();
        let names = own.chain(self.numbered().map(|(number, name, _)| (number, name)));
        for (at, (number, name)) in names.enumerate().skip(offset as usize) {
            if reply.add(number, at as u64 + 1, self.attributes(number).kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.keep_waiting(reply);
    }
}
