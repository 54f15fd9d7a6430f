//! Opening and listing directories by descriptor.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir, RawDirEntry, ResolveFlags, SeekFrom};
use rustix::io::Errno;

/// Size of the buffer that one `getdents64` fills, in bytes: several hundred names per call.
const LIST_BUFFER: usize = 32 * 1024;

/// Longest piece of a path that is handed to the kernel at once, in bytes; `PATH_MAX` is 4096 with the NUL.
const PIECE_MAX: usize = 2048;

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Names of a directory, in one allocation and eight bytes beside each name.
#[derive(Debug, Clone, Default)]
pub struct Names {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

impl Names {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name at `index`, with the NUL that the kernel wants.
    pub fn get(&self, index: usize) -> &CStr {
        let (start, length) = self.spans[index];
        let bytes = &self.bytes[start as usize..start as usize + length as usize + 1];
        CStr::from_bytes_with_nul(bytes).expect("a name was stored with its NUL and holds no other")
    }

    /// All names, each with its NUL, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Bytes of memory that are taken.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<(u32, u32)>()
    }

    /// Bytes of the names with their NULs.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a name at the end; false if four gigabytes of names are reached.
    pub fn push(&mut self, name: &CStr) -> bool {
        let bytes = name.to_bytes_with_nul();
        let (Ok(start), Ok(length)) = (u32::try_from(self.bytes.len()), u32::try_from(bytes.len() - 1))
        else {
            return false;
        };
        self.bytes.extend_from_slice(bytes);
        self.spans.push((start, length));
        true
    }

    /// Puts the names into byte order, each once: a directory that changes while it is listed may show one twice, and
    /// some file systems have a file and a directory of one name.
    pub fn sort(&mut self) {
        let Self { bytes, spans } = self;
        let slice = |span: &(u32, u32)| &bytes[span.0 as usize..(span.0 + span.1) as usize];
        spans.sort_unstable_by(|a, b| slice(a).cmp(slice(b)));
        spans.dedup_by(|a, b| slice(a) == slice(b));
    }
}

/// Hands out the names of an open directory from its beginning, in no order; ends at the first error of `take`.
pub fn each_name(directory: impl AsFd, mut take: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    each_entry(directory, 0, |entry| take(entry.file_name()).map(ControlFlow::Continue))
}

/// Hands out what an open directory holds, in no order, from where an earlier entry said that the next one is, or
/// from 0, the beginning. Ends when `take` breaks off, and at its first error.
pub fn each_entry(
    directory: impl AsFd,
    from: u64,
    mut take: impl FnMut(&RawDirEntry<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    rustix::fs::seek(directory.as_fd(), SeekFrom::Start(from))?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); LIST_BUFFER];
    let mut list = RawDir::new(directory, &mut buffer);
    while let Some(entry) = list.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => match take(&entry)? {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => break,
            },
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether an open directory holds `name`, whatever that is.
pub fn holds(directory: impl AsFd, name: &[u8]) -> bool {
    to_c_string(name).is_ok_and(|name| super::stat::stat_at(directory, &name).is_ok())
}

/// Opens a sub-directory for listing; a symbolic link is refused.
pub fn open_directory(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let quiet = rustix::fs::openat(parent.as_fd(), name, OPEN_DIRECTORY | OFlags::NOATIME, Mode::empty());
    match quiet {
        // Only the owner and root may ask for O_NOATIME.
        Err(Errno::PERM) => Ok(rustix::fs::openat(parent, name, OPEN_DIRECTORY, Mode::empty())?),
        other => Ok(other?),
    }
}

/// Opens the directory at an absolute or relative path of the process, following symbolic links: for paths
/// that the user typed, never for names that were found.
pub fn open_trusted_directory(path: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a sub-directory only to pass through it, following symbolic links; needs no right to list it.
pub fn pass_directory(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the directory at `path` beneath `root`, for any length of path, following no symbolic link and
/// leaving `root` by no way. Components must be plain names.
pub fn open_directory_beneath(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let mut current = rustix::fs::openat(root, c".", OPEN_DIRECTORY, Mode::empty())?;
    let mut rest = path;
    while !rest.is_empty() {
        let cut = piece_end(rest);
        let piece = to_c_string(&rest[..cut])?;
        current = open_piece(&current, &piece)?;
        rest = rest.get(cut + 1..).unwrap_or_default();
    }
    Ok(current)
}

fn piece_end(path: &[u8]) -> usize {
    if path.len() <= PIECE_MAX {
        return path.len();
    }
    let within = path[..PIECE_MAX].iter().rposition(|&byte| byte == b'/');
    within.or_else(|| path.iter().position(|&byte| byte == b'/')).unwrap_or(path.len())
}

fn open_piece(from: &OwnedFd, piece: &CStr) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(from, piece, OPEN_DIRECTORY, Mode::empty(), resolve) {
            // The kernel saw a rename while it resolved and asks to be asked again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => return open_stepwise(from, piece),
            other => return Ok(other?),
        }
    }
}

/// Before Linux 5.6, or where a seccomp filter refuses `openat2`: one component at a time.
fn open_stepwise(from: &OwnedFd, piece: &CStr) -> io::Result<OwnedFd> {
    let mut current = rustix::fs::openat(from, c".", OPEN_DIRECTORY, Mode::empty())?;
    for component in piece.to_bytes().split(|&byte| byte == b'/') {
        if matches!(component, b"" | b"." | b"..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        current =
            rustix::fs::openat(&current, to_c_string(component)?.as_c_str(), OPEN_DIRECTORY, Mode::empty())?;
    }
    Ok(current)
}

/// A name or path for the kernel; one that holds a NUL is no name.
pub fn to_c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}
