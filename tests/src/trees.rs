//! Trees with every kind of thing and attribute that a file system can keep, and a comparer that looks at all of them.

mod compare;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, makedev,
};

pub use self::compare::{Difference, Entry, Tree, differences, read};
use crate::images::{FileSystem, run};

/// `cap_net_bind_service=ep` as the kernel keeps it: version 2, effective, one bit in the first permitted word.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Entries of the large directory: several batches of the walk.
const MANY: u32 = 3_000;

/// All files below a folder, in the order of their paths; none if there is no folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            directory if directory.is_dir() => found.extend(files_below(&directory)),
            file => found.push(file),
        }
    }
    found.sort();
    found
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Makes two trees, `one` and `other`, below `top`, with all that both `file systems` can keep.
pub fn make_everything(top: &Path, file_systems: [FileSystem; 2]) -> Result<[PathBuf; 2]> {
    let (one, other) = (top.join("one"), top.join("other"));
    fs::create_dir_all(&one)?;
    fs::create_dir_all(&other)?;
    let longest_link = file_systems.iter().map(|kind| kind.longest_link()).min().unwrap_or_default();
    names(&one.join("names"))?;
    nodes(&one.join("nodes"), longest_link)?;
    sparse(&one.join("sparse"))?;
    many(&one.join("many"))?;
    owners(&one.join("owners"))?;
    attributes(&one.join("attributes"))?;
    links(&one, &other)?;
    flags(&other.join("flags"))?;
    deep(&other.join("deep"), 24, 200)?;
    times(&other.join("times"))?;
    Ok([one, other])
}

fn names(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    let longest = "n".repeat(255);
    let names: [&[u8]; 13] = [
        longest.as_bytes(),
        b"\xff\xfe not UTF-8",
        b"line\nbreak",
        b"-rf",
        b" ",
        b"*",
        b"[a-z]?",
        b"back\\slash",
        b"\"'$(x)",
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
        b"\x01\x1b[31m",
        b"...",
    ];
    for (index, name) in names.into_iter().enumerate() {
        fs::write(at.join(OsStr::from_bytes(name)), format!("{index}"))?;
    }
    let directory = at.join(OsStr::from_bytes(b"directory \xc3\n"));
    fs::create_dir(&directory)?;
    fs::write(directory.join("inside"), b"inside")?;
    fs::write(at.join("empty file"), b"")?;
    fs::create_dir(at.join("empty directory"))?;
    Ok(())
}

/// Everything that is neither a file nor a directory.
fn nodes(at: &Path, longest_link: usize) -> Result<()> {
    fs::create_dir(at)?;
    symlink("nowhere/at all", at.join("dangling"))?;
    symlink("../names", at.join("to a directory"))?;
    symlink(OsStr::from_bytes(b"\xfe\n\xff"), at.join("to bytes"))?;
    symlink("l".repeat(longest_link), at.join("long"))?;
    let node = |name: &str, kind, device| -> Result<()> {
        let mode = Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(CWD, at.join(name), kind, mode, device).with_context(|| format!("make {name}"))
    };
    node("fifo", FileType::Fifo, 0)?;
    node("socket", FileType::Socket, 0)?;
    node("null", FileType::CharacterDevice, makedev(1, 3))?;
    node("disk", FileType::BlockDevice, makedev(259, 70_000))?;
    lchown(at.join("dangling"), Some(1001), Some(1002))?;
    lchown(at.join("null"), Some(1003), Some(1004))?;
    fs::set_permissions(at.join("disk"), fs::Permissions::from_mode(0o2606))?;
    fs::hard_link(at.join("fifo"), at.join("fifo again"))?;
    fs::hard_link(at.join("dangling"), at.join("dangling again"))?;
    set_xattr(&at.join("dangling"), "trusted.of-a-link", b"kept")?;
    set_xattr(&at.join("fifo"), "trusted.of-a-fifo", b"kept")?;
    Ok(())
}

/// Name and length of a sparse file, and where how many bytes lie in it.
type Layout<'l> = (&'l str, u64, &'l [(u64, usize)]);

/// Holes at the beginning, in the middle and at the end, and nothing but a hole.
fn sparse(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    let layouts: [Layout<'_>; 6] = [
        ("hole first", 5 << 20, &[(4 << 20, 1 << 20)]),
        ("hole last", 5 << 20, &[(0, 1 << 20)]),
        ("hole between", 6 << 20, &[(0, 300_000), (5 << 20, 1 << 20)]),
        ("holes everywhere", 40_000_001, &[(1_000_000, 5_000), (9_999_999, 70_000), (30_000_000, 1)]),
        ("only a hole", 64 << 20, &[]),
        ("ends within a block", 1_234_567, &[(1_200_000, 34_567)]),
    ];
    for (index, (name, length, data)) in layouts.into_iter().enumerate() {
        let file = File::create(at.join(name))?;
        file.set_len(length)?;
        for (offset, bytes) in data {
            file.write_all_at(&noise(100 + index as u64, *bytes), *offset)?;
        }
    }
    // Written zeros read like a hole; whether they come back as one is the engine's choice.
    fs::write(at.join("zeros"), vec![0; 3 << 20])?;
    Ok(())
}

fn many(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    for index in 0..MANY {
        fs::write(at.join(format!("{index}")), format!("contents of {index}"))?;
    }
    fs::write(at.join("large"), noise(7, 9_000_000))?;
    Ok(())
}

/// Owners, and all bits of the mode.
fn owners(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    for (index, mode) in [0o000, 0o400, 0o644, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777].into_iter().enumerate()
    {
        let owner = u32::try_from(index)? * 7_000_001;
        let (file, directory) = (at.join(format!("file {mode:o}")), at.join(format!("directory {mode:o}")));
        fs::write(&file, format!("{mode:o}"))?;
        fs::create_dir(&directory)?;
        fs::write(directory.join("inside"), format!("in {mode:o}"))?;
        for path in [file, directory] {
            // A change of owner takes set-id bits off.
            lchown(&path, Some(owner), Some(owner + 1))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Extended attributes of every kind, lists of rights and capabilities.
fn attributes(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    let file = |name: &str| -> Result<PathBuf> {
        let path = at.join(name);
        fs::write(&path, name)?;
        Ok(path)
    };
    let plain = file("plain")?;
    for (name, value) in
        [("user.empty", &b""[..]), ("user.bytes", b"\0\xff\n"), ("user.\u{e9} \u{1f600}", b"name")]
    {
        set_xattr(&plain, name, value)?;
    }
    set_xattr(&plain, "trusted.carrack", b"trusted")?;
    set_xattr(&plain, "security.carrack", b"security")?;
    set_xattr(at, "user.of-a-directory", b"directory")?;
    set_xattr(&file("64 KiB")?, "user.large", &noise(9, 65_536))?;
    let several = file("several")?;
    for index in 0..60 {
        set_xattr(&several, &format!("user.number {index}"), &noise(index, 30))?;
    }
    let able = file("able")?;
    lchown(&able, Some(42), Some(43))?;
    fs::set_permissions(&able, fs::Permissions::from_mode(0o4755))?;
    set_xattr(&able, "security.capability", &CAPABILITY)?;
    let ruled = at.join("ruled");
    fs::create_dir(&ruled)?;
    set_acl(&["u:1234:rwx,g:4321:r-x,m::rwx"], &ruled)?;
    set_acl(&["-d", "u::rwx,u:77:rw-,g::r-x,g:88:---,o::---,m::rwx"], &ruled)?;
    fs::write(ruled.join("inherits"), b"by default")?;
    fs::create_dir(ruled.join("inherits too"))?;
    fs::write(ruled.join("own"), b"own")?;
    set_acl(&["-b"], &ruled.join("own"))?;
    set_acl(&["u:5:r--,m::---"], &file("masked")?)
}

fn set_acl(what: &[&str], path: &Path) -> Result<()> {
    let mut command = Command::new("setfacl");
    // A single word is a list of rights or an option without one.
    match what {
        [option] if option.starts_with('-') => command.arg(option),
        [rights] => command.args(["-m", rights]),
        words => command.args(&words[..words.len() - 1]).arg("-m").args(&words[words.len() - 1..]),
    };
    run(command.arg(path)).map(drop)
}

/// Hard links in a directory, across directories, and from one tree to the other.
fn links(one: &Path, other: &Path) -> Result<()> {
    let (here, there) = (one.join("links"), other.join("links"));
    fs::create_dir_all(here.join("below"))?;
    fs::create_dir(&there)?;
    fs::write(here.join("first"), noise(11, 200_000))?;
    for name in ["second", "below/third"] {
        fs::hard_link(here.join("first"), here.join(name))?;
    }
    fs::hard_link(here.join("first"), there.join("fourth"))?;
    fs::write(here.join("small"), b"small")?;
    fs::hard_link(here.join("small"), there.join("small"))?;
    fs::write(here.join("empty"), b"")?;
    fs::hard_link(here.join("empty"), here.join("below/empty"))?;
    Ok(())
}

/// Inode flags, the two that lock among them.
fn flags(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    let set = |name: &str, flags: IFlags, directory: bool| -> Result<()> {
        let path = at.join(name);
        if directory {
            fs::create_dir(&path)?;
            fs::write(path.join("inside"), b"inside")?;
        } else {
            fs::write(&path, b"flagged")?;
            if name == "linked" {
                fs::hard_link(&path, at.join("linked again"))?;
            }
        }
        set_flags(&path, flags)
    };
    set("immutable", IFlags::IMMUTABLE, false)?;
    set("append", IFlags::APPEND, false)?;
    set("no dump", IFlags::NODUMP | IFlags::NOATIME, false)?;
    set("synchronous", IFlags::SYNC, false)?;
    set("linked", IFlags::IMMUTABLE, false)?;
    set("immutable directory", IFlags::IMMUTABLE, true)?;
    set("append directory", IFlags::APPEND | IFlags::NODUMP, true)
}

/// Sets the inode flags of a file or directory, leaving those of the file system alone.
pub fn set_flags(path: &Path, flags: IFlags) -> Result<()> {
    let file = File::open(path)?;
    let kept = IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP | IFlags::NOATIME | IFlags::SYNC;
    let present = rustix::fs::ioctl_getflags(&file)?;
    rustix::fs::ioctl_setflags(&file, (present - kept) | flags)
        .with_context(|| format!("flags of {}", path.display()))
}

/// Directories below each other, so that the whole path is far longer than the kernel takes at once.
fn deep(at: &Path, levels: usize, length: usize) -> Result<()> {
    fs::create_dir(at)?;
    let mut directory = rustix::fs::openat(CWD, at, OFlags::DIRECTORY, Mode::empty())?;
    ensure!(levels * length > 4096, "not deep enough");
    for level in 0..levels {
        let name = format!("{level}").repeat(length)[..length].to_owned();
        rustix::fs::mkdirat(&directory, &name, Mode::from_raw_mode(0o750))?;
        directory = rustix::fs::openat(&directory, &name, OFlags::DIRECTORY, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = rustix::fs::openat(&directory, "file", flags, Mode::from_raw_mode(0o640))?;
        rustix::io::write(&file, name.as_bytes())?;
    }
    Ok(())
}

/// Times before 1970 and after 2038, and every digit of the nanoseconds.
fn times(at: &Path) -> Result<()> {
    fs::create_dir(at)?;
    let times =
        [(0, 0), (-1, 999_999_999), (-1_000_000_000, 1), (2_147_483_648, 123_456_789), (7_000_000_000, 10)];
    for (seconds, nanoseconds) in times {
        let (file, directory, link) = (
            at.join(format!("file {seconds}")),
            at.join(format!("directory {seconds}")),
            at.join(format!("link {seconds}")),
        );
        fs::write(&file, b"old or new")?;
        fs::create_dir(&directory)?;
        fs::write(directory.join("inside"), b"inside")?;
        symlink("nowhere", &link)?;
        for path in [file, directory, link] {
            set_mtime(&path, seconds, nanoseconds)?;
        }
    }
    set_mtime(at, -77, 7)
}

/// Sets the time of modification, of a link itself too.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("set the time of {}", path.display()))
}

/// Sets an extended attribute, of a link itself too.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .with_context(|| format!("set {name} of {}", path.display()))
}

/// What `rsync` would change to make `right` like `left`, and the other way round: nothing if they are equal.
pub fn rsync_differences(left: &Path, right: &Path, leave_out: &[&str]) -> Result<String> {
    let mut text = String::new();
    for (from, to) in [(left, right), (right, left)] {
        let mut command = Command::new("rsync");
        command.args(["-nac", "--delete", "-HAXS", "--numeric-ids", "--itemize-changes"]);
        // XFS shows lists of rights a second time under a name of its own.
        command.arg("--filter=-x trusted.SGI_ACL_*");
        command.args(leave_out.iter().map(|pattern| format!("--exclude={pattern}")));
        // The slash at the end means the contents.
        command.arg(from.join("")).arg(to.join(""));
        text.push_str(&run(&mut command)?);
    }
    Ok(text)
}
