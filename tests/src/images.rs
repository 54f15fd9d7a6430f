//! Real file systems and devices in image files, mounted where nobody else sees them.
//!
//! Mounts live in a mount namespace of one thread and end with it, and a loop device that was set up by `mount` ends
//! with its mount: whatever happens to a test, nothing of it stays behind.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

/// The one command that installs what these tests need of the system.
const INSTALL: &str = "apt-get install e2fsprogs xfsprogs btrfs-progs util-linux acl attr rsync fuse3";

/// A file system that images are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// With inodes for large attributes, as `mkfs.ext4 -O ea_inode` makes it.
    Ext4,
    /// As `mkfs.xfs` makes it.
    Xfs,
    /// As `mkfs.btrfs` makes it.
    Btrfs,
}

impl FileSystem {
    /// Longest target of a symbolic link, in bytes.
    pub fn longest_link(self) -> usize {
        match self {
            Self::Ext4 | Self::Btrfs => 4095,
            Self::Xfs => 1023,
        }
    }

    /// Makes the file system on an image or device.
    pub fn make(self, on: &Path) -> Result<()> {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", "ea_inode"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        };
        run(Command::new(program).args(arguments).arg(on)).map(drop)
    }

    /// Fails unless the file system on this image or device is whole.
    pub fn check(self, on: &Path) -> Result<()> {
        // For the first: although it looks clean; for the second: an image file too. And all of them: change nothing.
        let (program, arguments): (_, &[&str]) = match self {
            Self::Ext4 => ("e2fsck", &["-f", "-n"]),
            Self::Xfs => ("xfs_repair", &["-f", "-n"]),
            Self::Btrfs => ("btrfs", &["check", "--readonly"]),
        };
        run(Command::new(program).args(arguments).arg(on)).map(drop)
    }
}

/// Runs a program of the system to its end; gives what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be run; install it: {INSTALL}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Whether something is mounted there, as this thread sees it; asks what may be dead nothing.
pub fn is_mounted(point: &Path) -> bool {
    let mounts =
        std::fs::read_to_string("/proc/thread-self/mounts").expect("a thread has a list of its mounts");
    mounts.lines().any(|line| line.split(' ').nth(1) == point.to_str())
}

/// Does `work` on a thread whose mounts, and those of the programs that it starts, end with it.
pub fn in_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let alone = || {
        leave_shared_mounts().expect("mounts of its own need root: run the tests as root");
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(alone).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[expect(
    unsafe_code,
    reason = "rustix marks all of unshare unsafe for the flags that split descriptor tables"
)]
fn leave_shared_mounts() -> Result<()> {
    // SAFETY: a mount namespace of its own leaves memory and descriptors of the thread shared as they were.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.context("unshare the mounts")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("make the mounts private")?;
    let_go_of_clusters()
}

/// Clusters of other tests run beside these. A file system that they unmount lives on, with its device, as long as it is
/// mounted in any namespace: the copies here would keep it.
fn let_go_of_clusters() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").context("read the list of mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.rev().filter(|point| is_of_cluster(Path::new(point))) {
        // Fails only where it has gone with the one above it.
        rustix::mount::unmount(point, UnmountFlags::DETACH).ok();
    }
    Ok(())
}

/// Volumes lie below the directory that such a test makes; networks have names that all programs share.
fn is_of_cluster(point: &Path) -> bool {
    let is_bed = |name: &OsStr| name.as_encoded_bytes().starts_with(b"carrack-bed-");
    point.starts_with("/run/netns") || point.iter().any(is_bed)
}

/// An image file with a file system that is mounted; only within [`in_private_mounts`].
#[derive(Debug)]
pub struct Mounted {
    directory: TempDir,
}

impl Mounted {
    /// Makes a sparse image of `mib` MiB and mounts it.
    pub fn new(kind: FileSystem, mib: u64) -> Result<Self> {
        let mounted = Self { directory: TempDir::with_prefix("carrack-image-")? };
        let image = mounted.image();
        File::create(&image)?.set_len(mib << 20)?;
        kind.make(&image)?;
        std::fs::create_dir(mounted.path())?;
        mounted.mount()?;
        // Ordinary users go in.
        open_up(mounted.directory.path())?;
        open_up(&mounted.path())?;
        Ok(mounted)
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path())).map(drop)
    }

    /// The top of the file system.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// The image file.
    pub fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Unmounts it; the image is whole afterwards.
    pub fn unmount(&self) -> Result<()> {
        rustix::mount::unmount(self.path(), UnmountFlags::empty()).context("unmount the image")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Fails only where it is not mounted any more.
        rustix::mount::unmount(self.path(), UnmountFlags::DETACH).ok();
    }
}

/// Lets everybody pass through and list a directory.
pub fn open_up(directory: &Path) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, mode).with_context(|| format!("open up {}", directory.display()))
}

/// An image file as a block device; detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    directory: TempDir,
    device: PathBuf,
}

impl LoopDevice {
    /// A device of `bytes` bytes that reads as zeros.
    pub fn new(bytes: u64) -> Result<Self> {
        let directory = TempDir::with_prefix("carrack-device-")?;
        let image = directory.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        Ok(Self { directory, device: PathBuf::from(device.trim_end()) })
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.device
    }

    /// The file behind it.
    pub fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Fails only where it is detached already.
        run(Command::new("losetup").arg("--detach").arg(&self.device)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_clusters_beside_the_tests_are_let_go_of_and_others_stay() {
        in_private_mounts(|| {
            let directories = ["carrack-bed-", "carrack-other-"]
                .map(|prefix| TempDir::with_prefix(prefix).expect("a directory"));
            let [bed, other] =
                directories.each_ref().map(|directory| directory.path().canonicalize().expect("a path"));
            for point in [&bed, &other] {
                run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(point)).expect("mounts");
            }
            let inside = in_private_mounts(|| [is_mounted(&bed), is_mounted(&other)]);
            let outside = [is_mounted(&bed), is_mounted(&other)];
            for point in [&bed, &other] {
                rustix::mount::unmount(point, UnmountFlags::empty()).expect("unmounts");
            }
            assert_eq!((inside, outside), ([false, true], [true, true]));
        });
    }
}
