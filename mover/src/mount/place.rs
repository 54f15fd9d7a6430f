//! Where something is mounted, and how it is taken away when there is no time to wait for its users.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags},
    io::Errno,
    mount::UnmountFlags,
};

use crate::error::{Error, Result};

/// A mount of this program. A dead mount answers nobody, so whoever ends the program at once detaches it first.
#[derive(Debug, Clone)]
pub struct MountPlace {
    path: PathBuf,
    device: (u32, u32),
}

impl MountPlace {
    /// What is mounted at an absolute path now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), device: device(path)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this very file system is still there: others may have unmounted it, and mounted something else.
    pub fn is_mounted(&self) -> bool {
        device(&self.path).is_ok_and(|now| now == self.device)
    }

    /// Takes it out of view at once, whoever uses it; nothing to do if it is gone already.
    pub fn detach(&self) -> Result<()> {
        if !self.is_mounted() {
            return Ok(());
        }
        let done = match rustix::mount::unmount(&self.path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            // Only root may by itself; for others there is a program.
            Err(Errno::PERM) => self.detach_as_user(),
            other => other.map_err(io::Error::from),
        };
        let shown = self.path.display();
        done.map_err(|error| {
            Error::io(error, format!("{shown} cannot be unmounted"))
                .with_hint(format!("unmount it with: fusermount3 -u -z {shown}"))
        })
    }

    fn detach_as_user(&self) -> io::Result<()> {
        let mut last = io::Error::from(Errno::PERM);
        for program in ["fusermount3", "fusermount"] {
            match Command::new(program).args(["-u", "-z", "-q", "--"]).arg(&self.path).status() {
                Ok(status) if status.success() => return Ok(()),
                Ok(status) => last = io::Error::other(format!("{program} ended with {status}")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The device number of the file system at a path, from what the kernel knows: a file system that does not answer
/// is not asked.
fn device(path: &Path) -> io::Result<(u32, u32)> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::TYPE)?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}
