//! Snapshots as a read-only FUSE file system: `/<short id>/…` for each, and `/latest`, a link to the newest.
//!
//! FUSE threads are ordinary threads that wait for the engine through a runtime's handle. Nothing is read before
//! somebody asks for it. What is remembered is bounded: readers, open handles and inodes each have a limit.
//! Snapshots never change, so the kernel may keep what it was told. A name is an inode of its own: hard links
//! show their count and not their identity.

mod attributes;
mod directory;
mod file;
mod handles;
mod inodes;
mod operations;
mod view;

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc, thread, time::Duration};

use fuser::{BackgroundSession, Config, INodeNo, MountOption, SessionACL};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;

use self::{operations::SnapshotFs, view::View};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::records::Snapshot,
    repo::Repository,
};

/// Threads that answer the kernel: enough to keep a store busy for a few readers at once.
const THREADS: usize = 4;
/// How often the end of the mount and the request to stop are looked for.
const TICK: Duration = Duration::from_millis(100);
/// How long requests under way may take to end after the file system was taken out of view.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// How to mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// Let other users in; the kernel then holds them to owners and modes.
    pub allow_other: bool,
}

/// Shows `snapshots` on `mount_point`; returns once it is unmounted, by others or by `cancel`.
pub fn mount(
    repository: Repository,
    snapshots: Vec<Snapshot>,
    mount_point: &Path,
    options: MountOptions,
    handle: Handle,
    cancel: Cancel,
) -> Result<()> {
    let failed = |error| explain(error, mount_point);
    if !mount_point.metadata().map_err(failed)?.is_dir() {
        return Err(Error::invalid(format!("{} is not a directory", mount_point.display()))
            .with_hint("mount on an empty directory"));
    }
    // The current directory may be another one by the time of unmounting.
    let mount_point = mount_point.canonicalize().map_err(failed)?;
    let view = Arc::new(View::new(repository, snapshots, handle));
    let session = fuser::spawn_mount(SnapshotFs::new(Arc::clone(&view)), &mount_point, &config(options))
        .map_err(failed)?;
    while !session.guard.is_finished() {
        if cancel.is_cancelled() {
            return unmount(session, &mount_point);
        }
        trim(&session, &view);
        thread::sleep(TICK);
    }
    session.join().map_err(failed)
}

fn config(options: MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("carrack".to_owned()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    config.n_threads = Some(THREADS);
    if options.allow_other {
        config.acl = SessionACL::All;
        // Who mounts alone holds the keys anyway; others see what the source let them see.
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config
}

fn explain(error: io::Error, mount_point: &Path) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound if mount_point.exists() => "load the kernel's module: modprobe fuse",
        io::ErrorKind::NotFound => "make the directory first",
        io::ErrorKind::NotConnected => "a dead mount may lie there: fusermount3 -u DIR",
        _ => {
            "it needs /dev/fuse and, unless you are root, fusermount3; --allow-other also needs \
              user_allow_other in /etc/fuse.conf"
        }
    };
    Error::io(error, format!("snapshots cannot be mounted on {}", mount_point.display())).with_hint(hint)
}

/// Takes the file system out of view; if it is in use, its users keep it until the program ends.
fn unmount(session: BackgroundSession, mount_point: &Path) -> Result<()> {
    match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
        // Its threads see the end of the mount.
        Ok(()) => {}
        Err(rustix::io::Errno::BUSY) => {
            tracing::warn!(mount_point = %mount_point.display(), "still in use: it is detached");
            let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
            rustix::mount::unmount(mount_point, flags).map_err(|error| still_mounted(error, mount_point))?;
        }
        // Only root may; for others fusermount does, when the session is dropped. `INVAL`: unmounted by others.
        Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(still_mounted(error, mount_point)),
    }
    let BackgroundSession { guard, .. } = session;
    let mut waited = Duration::ZERO;
    while !guard.is_finished() && waited < LAST_REQUESTS {
        thread::sleep(TICK);
        waited += TICK;
    }
    Ok(())
}

fn still_mounted(error: rustix::io::Errno, mount_point: &Path) -> Error {
    let shown = mount_point.display();
    Error::io(error.into(), format!("{shown} cannot be unmounted"))
        .with_hint(format!("unmount it with: umount --lazy {shown}"))
}

/// Asks the kernel to forget names that were looked up long ago; it tells by `forget` which it let go.
fn trim(session: &BackgroundSession, view: &View) {
    let surplus = view.inodes.surplus();
    if surplus.is_empty() {
        return;
    }
    let notifier = session.notifier();
    for (parent, name) in surplus {
        // Fails for a name that the kernel has forgotten in between, which is as well.
        if let Err(error) = notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name)) {
            tracing::trace!(%error, "the kernel had forgotten a name already");
        }
    }
}
