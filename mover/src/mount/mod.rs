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
mod place;
mod view;

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc, thread, time::Duration};

use fuser::{BackgroundSession, Config, INodeNo, MountOption, SessionACL};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;

pub use self::place::MountPlace;
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

/// Shows `snapshots` on `mount_point`; returns once it is unmounted, by others or by `cancel`, and after a defect of the
/// program. `mounted` is called when everybody can see them, with what ends the mount in haste.
pub fn mount(
    repository: Repository,
    snapshots: Vec<Snapshot>,
    mount_point: &Path,
    options: MountOptions,
    (handle, cancel): (Handle, Cancel),
    mounted: impl FnOnce(MountPlace),
) -> Result<()> {
    let failed = |error| explain(error, mount_point);
    check(mount_point)?;
    // The current directory may be another one by the time of unmounting.
    let path = mount_point.canonicalize().map_err(failed)?;
    let view = Arc::new(View::new(repository, snapshots, handle));
    let session =
        fuser::spawn_mount(SnapshotFs::new(Arc::clone(&view)), &path, &config(options)).map_err(failed)?;
    let place = MountPlace::of(&path).map_err(failed)?;
    mounted(place.clone());
    while !session.guard.is_finished() {
        if let Some(defect) = view.take_defect() {
            if let Err(error) = unmount(session, &place) {
                tracing::warn!(%error, mount_point = %place.path().display(), "it stays in view");
            }
            return Err(defect);
        }
        if cancel.is_cancelled() {
            let unmounted = unmount(session, &place);
            return view.take_defect().map_or(unmounted, Err);
        }
        trim(&session, &view);
        thread::sleep(TICK);
    }
    let joined = session.join();
    // Whoever met it may have unmounted at once.
    view.take_defect().map_or_else(|| ended(joined, &place).map_err(failed), Err)
}

/// How the session of a mount ended. A thread that takes a request at the moment of an unmount is told of an abort; the
/// same is said of a connection that somebody broke off, which stays in view and answers nobody.
fn ended(joined: io::Result<()>, place: &MountPlace) -> io::Result<()> {
    match joined {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted && !place.is_mounted() => Ok(()),
        other => other,
    }
}

/// Whether there is an empty directory to mount on: what lies in it would be hidden.
fn check(mount_point: &Path) -> Result<()> {
    let failed = |error| explain(error, mount_point);
    if !mount_point.metadata().map_err(failed)?.is_dir() {
        return Err(Error::invalid(format!("{} is not a directory", mount_point.display()))
            .with_hint("mount on an empty directory"));
    }
    if fs::read_dir(mount_point).map_err(failed)?.next().is_some() {
        return Err(Error::conflict(format!("{} is not empty", mount_point.display()))
            .with_hint("mount on an empty directory: what lies in this one would be hidden"));
    }
    Ok(())
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
    let shown = mount_point.display();
    let hint = match error.kind() {
        io::ErrorKind::NotConnected => {
            return Error::conflict(format!("a mount whose program was killed lies on {shown}"))
                .with_hint(format!("take it away first: fusermount3 -u -z {shown}"))
                .with_source(error);
        }
        io::ErrorKind::NotFound if mount_point.exists() => "load the kernel's module: modprobe fuse",
        io::ErrorKind::NotFound => "make the directory first",
        _ => {
            "it needs /dev/fuse and, unless you are root, fusermount3; --allow-other also needs \
              user_allow_other in /etc/fuse.conf"
        }
    };
    Error::io(error, format!("snapshots cannot be mounted on {shown}")).with_hint(hint)
}

/// Takes the file system out of view; if it is in use, its users keep it until the program ends.
fn unmount(session: BackgroundSession, place: &MountPlace) -> Result<()> {
    if let Err(error) = rustix::mount::unmount(place.path(), UnmountFlags::NOFOLLOW)
        && place.is_mounted()
    {
        if error == rustix::io::Errno::BUSY {
            tracing::warn!(mount_point = %place.path().display(), "still in use: it is detached");
        }
        place.detach()?;
    }
    // Its threads see the end of the mount.
    let BackgroundSession { guard, .. } = session;
    let mut waited = Duration::ZERO;
    while !guard.is_finished() && waited < LAST_REQUESTS {
        thread::sleep(TICK);
        waited += TICK;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_is_an_end_only_where_nothing_is_mounted_any_more() {
        let aborted = || Err(io::ErrorKind::ConnectionAborted.into());
        let here = tempfile::tempdir().expect("makes");
        let there = MountPlace::of(here.path()).expect("is there");
        assert!(ended(aborted(), &there).is_err());
        assert!(ended(Ok(()), &there).is_ok());
        drop(here);
        assert!(ended(aborted(), &there).is_ok());
        assert!(ended(Err(io::ErrorKind::PermissionDenied.into()), &there).is_err());
    }
}
