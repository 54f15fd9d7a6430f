//! Reads everything that a tree is, by descriptors and not by paths, which may be too long; and tells two apart.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use carrack_mover::sys::attributes::KEPT_FLAGS;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

/// How many more bytes a file may take on the disk than the one it is compared with: file systems round differently.
const SLACK: u64 = 256 << 10;

/// Everything about an entry that must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and mode.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Time of modification: seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Length of a file, and a hash of its contents.
    pub contents: Option<(u64, u64)>,
    /// Of a device.
    pub device: u64,
    /// Of a link.
    pub target: Option<Vec<u8>>,
    /// By their names; lists of rights are among them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Inode flags that a person can set.
    pub flags: u32,
    /// The first path of the same inode.
    pub first_name: Vec<u8>,
    /// Names of the inode.
    pub names: u64,
}

/// An entry, and the bytes that it takes on the disk.
type Kept = (Entry, u64);

/// Entries by their path.
pub type Tree = BTreeMap<Vec<u8>, Kept>;

/// What differs: the path, and how.
pub type Difference = String;

/// Reads the trees below `roots`, whose hard links may cross from one to another.
pub fn read(roots: &[impl AsRef<Path>]) -> Result<Tree> {
    let mut reader = Reader::default();
    for (index, root) in roots.iter().enumerate() {
        let root = root.as_ref();
        let top = rustix::fs::openat(CWD, root, OFlags::DIRECTORY, Mode::empty())
            .with_context(|| format!("open {}", root.display()))?;
        let path = format!("{index}").into_bytes();
        reader.entry(&top, c".", path.clone())?;
        reader.directory(&top, &path)?;
    }
    Ok(reader.tree)
}

#[derive(Debug, Default)]
struct Reader {
    tree: Tree,
    first: HashMap<(u64, u64), Vec<u8>>,
}

impl Reader {
    fn directory(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<()> {
        let mut names = Vec::new();
        for name in Dir::read_from(directory)? {
            let name = name?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let below = [path, b"/", name.to_bytes()].concat();
            let kind = self.entry(directory, &name, below.clone())?;
            if kind == FileType::Directory {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME;
                self.directory(&rustix::fs::openat(directory, &name, flags, Mode::empty())?, &below)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &CStr, path: Vec<u8>) -> Result<FileType> {
        let shown = || path.escape_ascii().to_string();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).with_context(shown)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let inode = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let opened = match kind {
            FileType::RegularFile | FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME;
                Some(rustix::fs::openat(directory, name, flags, Mode::empty()).with_context(shown)?)
            }
            _ => None,
        };
        let flags = match &opened {
            Some(fd) => rustix::fs::ioctl_getflags(fd).map_or(0, |flags| flags.bits() & KEPT_FLAGS),
            None => 0,
        };
        let contents = match opened {
            Some(fd) if kind == FileType::RegularFile => Some(hash(File::from(fd)).with_context(shown)?),
            _ => None,
        };
        let target = match kind {
            FileType::Symlink => Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes()),
            _ => None,
        };
        let first_name = match kind {
            FileType::Directory => path.clone(),
            _ => self.first.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.clone()).clone(),
        };
        let entry = Entry {
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            mtime: (stat.st_mtime, stat.st_mtime_nsec.try_into()?),
            contents,
            device: stat.st_rdev,
            target,
            xattrs: xattrs(&inode).with_context(shown)?,
            flags,
            first_name,
            names: if kind == FileType::Directory { 0 } else { stat.st_nlink },
        };
        let on_disk = u64::try_from(stat.st_blocks)? * 512;
        self.tree.insert(path, (entry, on_disk));
        Ok(kind)
    }
}

fn hash(mut file: File) -> Result<(u64, u64)> {
    let (mut hasher, mut length) = (DefaultHasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((length, hasher.finish()));
        }
        length += count as u64;
        hasher.write(&buffer[..count]);
    }
}

fn xattrs(inode: &impl AsFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    // The inode behind the descriptor: pipes and devices are not opened, links not followed.
    let path = format!("/proc/self/fd/{}", inode.as_fd().as_raw_fd());
    let mut buffer = vec![0_u8; 65_536];
    let length = rustix::fs::listxattr(path.as_str(), &mut buffer[..])?;
    // XFS shows lists of rights a second time under a name of its own.
    let own = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.SGI_ACL_");
    let names: Vec<Vec<u8>> =
        buffer[..length].split(|byte| *byte == 0).filter(own).map(<[u8]>::to_vec).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let length = rustix::fs::getxattr(path.as_str(), name.as_slice(), &mut buffer[..])?;
        found.insert(name, buffer[..length].to_vec());
    }
    Ok(found)
}

/// How `restored` differs from `source`; holes may be more than they were, but not fewer.
pub fn differences(source: &Tree, restored: &Tree) -> Vec<Difference> {
    let mut found = Vec::new();
    for (path, (wanted, on_disk)) in source {
        let shown = path.escape_ascii();
        match restored.get(path) {
            None => found.push(format!("{shown}: missing")),
            Some((entry, _)) if entry != wanted => {
                found.push(format!("{shown}: {}", told_apart(wanted, entry)))
            }
            Some((_, now)) if *now > on_disk + SLACK => {
                found.push(format!("{shown}: takes {now} bytes on the disk instead of {on_disk}"));
            }
            Some(_) => {}
        }
    }
    let new = restored.keys().filter(|path| !source.contains_key(*path));
    found.extend(new.map(|path| format!("{}: was not there", path.escape_ascii())));
    found
}

fn told_apart(wanted: &Entry, found: &Entry) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, wanted: String, found: String| {
        if wanted != found {
            parts.push(format!("{name} {wanted:.200} became {found:.200}"));
        }
    };
    part("mode", format!("{:o}", wanted.mode), format!("{:o}", found.mode));
    part("owner", format!("{:?}", wanted.owner), format!("{:?}", found.owner));
    part("mtime", format!("{:?}", wanted.mtime), format!("{:?}", found.mtime));
    part("contents", format!("{:?}", wanted.contents), format!("{:?}", found.contents));
    part("device", format!("{:x}", wanted.device), format!("{:x}", found.device));
    part("target", format!("{:?}", wanted.target), format!("{:?}", found.target));
    part("flags", format!("{:x}", wanted.flags), format!("{:x}", found.flags));
    part("names", format!("{:?}", wanted.names), format!("{:?}", found.names));
    part("first name", format!("{:?}", wanted.first_name), format!("{:?}", found.first_name));
    let text = |entry: &Entry| {
        let each = entry.xattrs.iter().map(|(name, value)| {
            format!(
                "{}={}",
                name.escape_ascii(),
                value.iter().take(32).copied().collect::<Vec<_>>().escape_ascii()
            )
        });
        each.collect::<Vec<_>>().join(" ")
    };
    part("attributes", text(wanted), text(found));
    parts.join("; ")
}
