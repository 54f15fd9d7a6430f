//! Entries of a tree, and the bytes of one.

use super::{
    bytes::{Reader, put_bytes, put_signed, put_varint},
    frame::ChunkRef,
    metadata::{FileTime, Kind, Metadata, Xattr},
    order,
    page::read_page_bytes,
    table::{RefReader, RefWriter},
};
use crate::{
    error::{Error, Result},
    limits,
};

/// One name in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Components joined by `/`, without a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub metadata: Metadata,
    /// What is in it: of files and images; empty for everything else.
    pub content: Content,
}

/// The contents of a file or image: runs in order, whose lengths add up to its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the entry itself.
    Inline(Vec<Run>),
    /// In pages of their own, because there are many.
    Paged {
        /// Levels of pages: 1 if the pages named here hold runs.
        depth: u8,
        /// The pages and the bytes of contents below each.
        pages: Vec<(ChunkRef, u64)>,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl Content {
    /// What an entry with it names: chunks, or pages.
    pub fn named(&self) -> Vec<&ChunkRef> {
        match self {
            Self::Inline(runs) => runs.iter().filter_map(Run::chunk).collect(),
            Self::Paged { pages, .. } => pages.iter().map(|(page, _)| page).collect(),
        }
    }
}

/// A stretch of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Stored bytes.
    Chunk(ChunkRef),
    /// This many zero bytes that take no room: a hole of a file, a run of zero blocks of a device.
    Hole(u64),
}

impl Run {
    /// Bytes of contents.
    pub fn length(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => u64::from(chunk.length),
            Self::Hole(length) => *length,
        }
    }

    /// The chunk, if it is one.
    pub fn chunk(&self) -> Option<&ChunkRef> {
        match self {
            Self::Chunk(chunk) => Some(chunk),
            Self::Hole(_) => None,
        }
    }
}

/// What the next entry is coded against.
#[derive(Debug, Default, Clone)]
pub(crate) struct Previous {
    directory: Vec<u8>,
    mtime: i64,
    ctime: i64,
    inode: u64,
    device: u64,
}

pub(crate) fn write_entry(
    out: &mut Vec<u8>,
    refs: &mut RefWriter,
    previous: &mut Previous,
    entry: &Entry,
) -> Result<()> {
    let (directory, name) = order::split_path(&entry.path);
    let same_directory = directory == previous.directory;
    out.push(kind_code(&entry.kind) | u8::from(same_directory) << 7);
    if !same_directory {
        put_bytes(out, directory);
        previous.directory = directory.to_vec();
    }
    put_bytes(out, name);
    write_metadata(out, previous, &entry.metadata);
    match &entry.kind {
        Kind::Symlink { target } => put_bytes(out, target),
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
            put_varint(out, u64::from(*major));
            put_varint(out, u64::from(*minor));
        }
        Kind::File | Kind::Image => write_content(out, refs, &entry.content)?,
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    Ok(())
}

fn kind_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink { .. } => 2,
        Kind::BlockDevice { .. } => 3,
        Kind::CharDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Image => 7,
    }
}

fn write_metadata(out: &mut Vec<u8>, previous: &mut Previous, metadata: &Metadata) {
    put_varint(out, u64::from(metadata.mode));
    put_varint(out, u64::from(metadata.uid));
    put_varint(out, u64::from(metadata.gid));
    put_signed(out, metadata.mtime.seconds.wrapping_sub(previous.mtime));
    put_varint(out, u64::from(metadata.mtime.nanoseconds));
    put_signed(out, metadata.ctime.seconds.wrapping_sub(previous.ctime));
    put_varint(out, u64::from(metadata.ctime.nanoseconds));
    put_signed(out, metadata.inode.wrapping_sub(previous.inode).cast_signed());
    put_signed(out, metadata.device.wrapping_sub(previous.device).cast_signed());
    put_varint(out, metadata.links);
    put_varint(out, metadata.size);
    put_varint(out, u64::from(metadata.flags));
    put_varint(out, metadata.xattrs.len() as u64);
    for xattr in &metadata.xattrs {
        put_bytes(out, &xattr.name);
        put_bytes(out, &xattr.value);
    }
    previous.mtime = metadata.mtime.seconds;
    previous.ctime = metadata.ctime.seconds;
    previous.inode = metadata.inode;
    previous.device = metadata.device;
}

fn write_content(out: &mut Vec<u8>, refs: &mut RefWriter, content: &Content) -> Result<()> {
    match content {
        Content::Inline(runs) => {
            out.push(0);
            write_runs(out, refs, runs)
        }
        Content::Paged { depth, pages } => {
            out.push(*depth);
            put_varint(out, pages.len() as u64);
            for (page, length) in pages {
                put_varint(out, *length);
                refs.write(out, page)?;
            }
            Ok(())
        }
    }
}

pub(crate) fn write_runs(out: &mut Vec<u8>, refs: &mut RefWriter, runs: &[Run]) -> Result<()> {
    put_varint(out, runs.len() as u64);
    for run in runs {
        match run {
            Run::Hole(length) => {
                out.push(0);
                put_varint(out, *length);
            }
            Run::Chunk(chunk) => {
                out.push(1);
                refs.write(out, chunk)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn read_entry(
    reader: &mut Reader<'_>,
    refs: &mut RefReader,
    previous: &mut Previous,
) -> Result<Entry> {
    let code = reader.byte()?;
    if code & 0x80 == 0 {
        previous.directory = reader.bytes(limits::PATH_LIMIT)?.to_vec();
    }
    let name = reader.bytes(limits::FIELD_LIMIT)?;
    let mut path = Vec::with_capacity(previous.directory.len() + 1 + name.len());
    if !previous.directory.is_empty() {
        path.extend_from_slice(&previous.directory);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    if name.contains(&b'/') || !order::is_valid_path(&path) {
        return Err(reader.malformed("a path that no tree can hold"));
    }
    let metadata = read_metadata(reader, previous)?;
    let mut content = Content::default();
    let kind = match code & 0x7f {
        0 | 7 => {
            content = read_content(reader, refs, metadata.size)?;
            if code & 0x7f == 0 { Kind::File } else { Kind::Image }
        }
        1 => Kind::Directory,
        2 => Kind::Symlink { target: reader.bytes(limits::FIELD_LIMIT)?.to_vec() },
        3 => Kind::BlockDevice { major: reader.varint32()?, minor: reader.varint32()? },
        4 => Kind::CharDevice { major: reader.varint32()?, minor: reader.varint32()? },
        5 => Kind::Fifo,
        6 => Kind::Socket,
        _ => return Err(reader.malformed("an unknown kind of entry")),
    };
    Ok(Entry { path, kind, metadata, content })
}

fn read_metadata(reader: &mut Reader<'_>, previous: &mut Previous) -> Result<Metadata> {
    let mode = reader.varint32()?;
    let uid = reader.varint32()?;
    let gid = reader.varint32()?;
    let mtime = read_time(reader, &mut previous.mtime)?;
    let ctime = read_time(reader, &mut previous.ctime)?;
    previous.inode = previous.inode.wrapping_add_signed(reader.signed()?);
    previous.device = previous.device.wrapping_add_signed(reader.signed()?);
    let links = reader.varint()?;
    let size = reader.varint()?;
    let flags = reader.varint32()?;
    let count = reader.count(2)?;
    let mut xattrs = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let name = reader.bytes(limits::FIELD_LIMIT)?.to_vec();
        xattrs.push(Xattr { name, value: reader.bytes(limits::FIELD_LIMIT)?.to_vec() });
    }
    let (inode, device) = (previous.inode, previous.device);
    Ok(Metadata { mode, uid, gid, mtime, ctime, inode, device, links, size, flags, xattrs })
}

fn read_time(reader: &mut Reader<'_>, previous: &mut i64) -> Result<FileTime> {
    *previous = previous.wrapping_add(reader.signed()?);
    let nanoseconds = reader.varint32()?;
    if nanoseconds >= 1_000_000_000 {
        return Err(reader.malformed("a second has fewer nanoseconds"));
    }
    Ok(FileTime { seconds: *previous, nanoseconds })
}

fn read_content(reader: &mut Reader<'_>, refs: &mut RefReader, size: u64) -> Result<Content> {
    let depth = reader.byte()?;
    if depth == 0 {
        let runs = read_runs(reader, refs)?;
        check_total(runs.iter().map(Run::length), size)?;
        return Ok(Content::Inline(runs));
    }
    if depth > limits::TREE_DEPTH {
        return Err(reader.malformed("pages are nested too deep"));
    }
    let count = reader.count(3)?;
    let mut pages = Vec::with_capacity(count);
    for _ in 0..count {
        let length = read_page_bytes(reader)?;
        pages.push((refs.read(reader)?, length));
    }
    check_total(pages.iter().map(|(_, length)| *length), size)?;
    Ok(Content::Paged { depth, pages })
}

pub(crate) fn read_runs(reader: &mut Reader<'_>, refs: &mut RefReader) -> Result<Vec<Run>> {
    let count = reader.count(2)?;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let run = match reader.byte()? {
            0 => Run::Hole(reader.varint()?),
            1 => Run::Chunk(refs.read(reader)?),
            _ => return Err(reader.malformed("an unknown kind of run")),
        };
        if run.length() == 0 {
            return Err(reader.malformed("a run of no bytes"));
        }
        runs.push(run);
    }
    Ok(runs)
}

/// Contents must be as long as the entry says: restore allocates and checks by it.
pub(crate) fn check_total(lengths: impl Iterator<Item = u64>, size: u64) -> Result<()> {
    let mut lengths = lengths;
    let total = lengths.try_fold(0u64, u64::checked_add);
    if total == Some(size) {
        return Ok(());
    }
    Err(Error::corrupt(format!("contents of {total:?} bytes in an entry of {size} bytes")))
}
