//! A file system that never answers a read: what a network share is after its server went away.

use std::{
    ffi::OsStr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, Request,
};

const ROOT: INodeNo = INodeNo(1);
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "never";
const TRUTH: Duration = Duration::from_secs(1);

/// Mounted until it is dropped.
#[derive(Debug)]
pub struct StalledFs(Option<BackgroundSession>);

/// One directory with one file, whose reads wait.
#[derive(Debug)]
struct Stalled {
    /// Answers that are never given; dropped they would be errors.
    waiting: Arc<Mutex<Vec<ReplyData>>>,
}

impl StalledFs {
    /// Mounts it on an empty directory.
    pub fn mount(at: &Path) -> Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("stalled".to_owned()), MountOption::RO];
        let session =
            fuser::spawn_mount(Stalled { waiting: Arc::default() }, at, &config).context("mount")?;
        Ok(Self(Some(session)))
    }
}

impl Drop for StalledFs {
    fn drop(&mut self) {
        // Whoever still waits is told that nothing is there any more.
        drop(self.0.take());
    }
}

fn attributes(number: INodeNo) -> FileAttr {
    let directory = number == ROOT;
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
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match (parent, name.to_str()) {
            (ROOT, Some(NAME)) => reply.entry(&TRUTH, &attributes(FILE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TRUTH, &attributes(number));
    }

    fn readdir(
        &self,
        _req: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names = [(ROOT, "."), (ROOT, ".."), (FILE, NAME)];
        for (at, (number, name)) in names.into_iter().enumerate().skip(offset as usize) {
            if reply.add(number, at as u64 + 1, attributes(number).kind, name) {
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
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
    }
}
