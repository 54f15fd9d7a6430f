//! What a file tree knows of a file besides its contents.
//!
//! Pure types: reading them from a live tree is `source`, putting them back is `target`, their bytes are
//! `format::entry`. Names, link targets and attribute names are bytes, because Linux says so.

/// A point in time as a file system stores it: seconds since 1970 (may be negative) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileTime {
    /// Whole seconds since the epoch, rounded towards minus infinity.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999 999 999.
    pub nanoseconds: u32,
}

/// One extended attribute, ACLs and capabilities among them, as raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xattr {
    /// The full name, for example `user.comment` or `system.posix_acl_access`.
    pub name: Vec<u8>,
    /// The value, up to 64 KiB.
    pub value: Vec<u8>,
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and the bytes it points to.
    Symlink {
        /// The target as stored in the link, never resolved.
        target: Vec<u8>,
    },
    /// A block device node.
    BlockDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A character device node.
    CharDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket; kept as an entry, made again as a socket node.
    Socket,
    /// The contents of a block device or a stream, restored to a device, a file or standard output.
    Image,
}

/// Attributes of one entry. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// Permission bits with set-uid, set-gid and sticky: the low twelve bits of `st_mode`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of the last change of the contents.
    pub mtime: FileTime,
    /// Time of the last change of the inode; used to tell what is unchanged, never restored.
    pub ctime: FileTime,
    /// Inode number in the source; used to tell what is unchanged, never restored.
    pub inode: u64,
    /// Device number in the source; tells hard-link groups apart, never restored.
    pub device: u64,
    /// How many names the inode has.
    pub links: u64,
    /// Length of a file or image, 0 for everything else.
    pub size: u64,
    /// Inode flags of `FS_IOC_GETFLAGS` (immutable, append-only, no-dump, no-atime, …), 0 where unknown.
    pub flags: u32,
    /// Extended attributes in the order of their names.
    pub xattrs: Vec<Xattr>,
}
