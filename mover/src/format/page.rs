//! Pages: the nodes of a tree and of long lists of chunks. Each is one metadata frame with one chunk.

use super::{
    bytes::{Reader, put_bytes, put_varint},
    entry::{Content, Entry, Previous, Run, read_entry, read_runs, write_entry, write_runs},
    frame::ChunkRef,
    order,
    session::SessionName,
    table::{RefReader, RefWriter},
};
use crate::{
    error::{Error, Result},
    limits,
};

/// What is below one child of an inner page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The first path below it.
    pub first: Vec<u8>,
    /// The last path below it.
    pub last: Vec<u8>,
    /// Entries below it.
    pub entries: u64,
    /// Bytes of contents below it.
    pub bytes: u64,
    /// The page.
    pub page: ChunkRef,
}

impl Child {
    /// Whether the page is what is said here of it. To be asked of every page that is reached from above: one that
    /// hung in several places could make a small tree endless.
    pub fn describes(&self, page: &Page) -> bool {
        let (first, last, entries) = match page {
            Page::Leaf(entries) => match (entries.first(), entries.last()) {
                (Some(first), Some(last)) => (&first.path, &last.path, Some(entries.len() as u64)),
                _ => return false,
            },
            Page::Inner(children) => match (children.first(), children.last()) {
                (Some(first), Some(last)) => {
                    let entries = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.entries));
                    (&first.first, &last.last, entries)
                }
                _ => return false,
            },
            Page::Runs(_) | Page::RunsInner(_) => return false,
        };
        (first, last, entries) == (&self.first, &self.last, Some(self.entries))
    }
}

/// A decoded page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Entries in tree order.
    Leaf(Vec<Entry>),
    /// Pages in tree order.
    Inner(Vec<Child>),
    /// Runs of one content.
    Runs(Vec<Run>),
    /// Pages of runs, with the bytes of contents below each.
    RunsInner(Vec<(ChunkRef, u64)>),
}

const VERSION: u8 = 1;
const LEAF: u8 = 0;
const INNER: u8 = 1;
const RUNS: u8 = 2;
const RUNS_INNER: u8 = 3;

/// A page while it is filled: rows and the tables they refer to.
#[derive(Debug, Clone, Default)]
pub struct PageWriter {
    kind: u8,
    rows: Vec<u8>,
    count: u64,
    paths: usize,
    refs: RefWriter,
    previous: Previous,
}

impl PageWriter {
    /// An empty page of entries.
    pub fn leaf() -> Self {
        Self { kind: LEAF, ..Self::default() }
    }

    /// An empty page of pages.
    pub fn inner() -> Self {
        Self { kind: INNER, ..Self::default() }
    }

    /// An empty page of runs.
    pub fn runs() -> Self {
        Self { kind: RUNS, ..Self::default() }
    }

    /// An empty page of pages of runs.
    pub fn runs_inner() -> Self {
        Self { kind: RUNS_INNER, ..Self::default() }
    }

    /// Appends an entry to a leaf.
    pub fn push_entry(&mut self, entry: &Entry) -> Result<()> {
        self.count += 1;
        self.paths += entry.path.len();
        write_entry(&mut self.rows, &mut self.refs, &mut self.previous, entry)
    }

    /// Appends a child to an inner page.
    pub fn push_child(&mut self, child: &Child) -> Result<()> {
        self.count += 1;
        put_bytes(&mut self.rows, &child.first);
        put_bytes(&mut self.rows, &child.last);
        put_varint(&mut self.rows, child.entries);
        put_varint(&mut self.rows, child.bytes);
        self.refs.write(&mut self.rows, &child.page)
    }

    /// Appends a run to a page of runs.
    pub fn push_run(&mut self, run: &Run) -> Result<()> {
        self.count += 1;
        let mut row = Vec::new();
        write_runs(&mut row, &mut self.refs, std::slice::from_ref(run))?;
        // The row's own count of one is said once for the whole page.
        self.rows.extend_from_slice(&row[1..]);
        Ok(())
    }

    /// Appends a page to a page of pages of runs.
    pub fn push_runs_page(&mut self, page: &ChunkRef, bytes: u64) -> Result<()> {
        self.count += 1;
        put_varint(&mut self.rows, bytes);
        self.refs.write(&mut self.rows, page)
    }

    /// Rows so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// About how many bytes the page takes so far.
    pub fn size(&self) -> usize {
        self.rows.len() + self.refs.size()
    }

    /// Whether the page is to be closed, however few bytes it takes.
    pub fn is_full(&self) -> bool {
        self.size() >= limits::PAGE_TARGET_MAX || self.paths >= limits::PAGE_PATHS_TARGET
    }

    /// Which sessions' keys a reader of what the page names needs.
    pub fn sessions(&self) -> impl Iterator<Item = SessionName> {
        self.refs.sessions()
    }

    /// The plain bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let tables = self.refs.tables();
        let mut out = Vec::with_capacity(12 + tables.len() + self.rows.len());
        out.extend_from_slice(&[VERSION, self.kind]);
        out.extend_from_slice(&tables);
        put_varint(&mut out, self.count);
        out.extend_from_slice(&self.rows);
        if out.len() > limits::PAGE_LIMIT {
            return Err(Error::invalid(format!("one entry needs a page of {} bytes", out.len())).with_hint(
                "the largest page is 16 MiB; look for a file with very large extended attributes",
            ));
        }
        Ok(out)
    }
}

impl Page {
    /// Reads the plain bytes of a page.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::with_sessions(bytes).map(|(page, _)| page)
    }

    /// Everything that it names, in order: pages below it, pages of runs, chunks.
    pub fn named(&self) -> Vec<&ChunkRef> {
        match self {
            Self::Inner(children) => children.iter().map(|child| &child.page).collect(),
            Self::RunsInner(pages) => pages.iter().map(|(page, _)| page).collect(),
            Self::Runs(runs) => runs.iter().filter_map(Run::chunk).collect(),
            Self::Leaf(entries) => {
                let contents = entries.iter().map(|entry| &entry.content);
                contents.flat_map(Content::named).collect()
            }
        }
    }

    /// Bytes of contents that a page of runs, or of such pages, stands for; nothing for a page of a tree.
    pub fn content_bytes(&self) -> Option<u64> {
        match self {
            Self::Runs(runs) => runs.iter().try_fold(0u64, |sum, run| sum.checked_add(run.length())),
            Self::RunsInner(pages) => pages.iter().try_fold(0u64, |sum, (_, bytes)| sum.checked_add(*bytes)),
            Self::Leaf(_) | Self::Inner(_) => None,
        }
    }

    /// Whether a page of a list of runs is what is said above it: it stands for so many bytes, and is the last of its list
    /// or not. Only the last is without a chunk, because neighbouring holes are one run: few pages of others could stand
    /// for any number of runs in which nothing is.
    pub fn stands_for(&self, bytes: u64, is_last: bool) -> bool {
        let is_empty = matches!(self, Self::Runs(runs) if runs.iter().all(|run| run.chunk().is_none()));
        self.content_bytes() == Some(bytes) && (is_last || !is_empty)
    }

    /// Reads a page and lists the sessions whose keys are needed for what it names (with repeats).
    pub fn with_sessions(bytes: &[u8]) -> Result<(Self, Vec<SessionName>)> {
        let mut reader = Reader::within("page", bytes, limits::PAGE_ROWS);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(super::pack::newer("page", u32::from(version)));
        }
        let kind = reader.byte()?;
        let mut refs = RefReader::read_tables(&mut reader)?;
        let page = match kind {
            LEAF => Self::Leaf(read_leaf(&mut reader, &mut refs)?),
            INNER => Self::Inner(read_inner(&mut reader, &mut refs)?),
            RUNS => Self::Runs(read_page_runs(&mut reader, &mut refs)?),
            RUNS_INNER => {
                let count = reader.count(3)?;
                let mut pages = Vec::with_capacity(count);
                for _ in 0..count {
                    let bytes = read_page_bytes(&mut reader)?;
                    pages.push((refs.read(&mut reader)?, bytes));
                }
                Self::RunsInner(pages)
            }
            _ => return Err(reader.malformed("an unknown kind of page")),
        };
        reader.finish()?;
        Ok((page, refs.sessions().collect()))
    }
}

/// Bytes of contents below a page of runs. A page of none would cost time and stand for nothing, however often it is
/// named.
pub(crate) fn read_page_bytes(reader: &mut Reader<'_>) -> Result<u64> {
    match reader.varint()? {
        0 => Err(reader.malformed("a page of runs of no bytes")),
        bytes => Ok(bytes),
    }
}

/// Runs of a page. Neighbouring holes would cost time and stand for nothing that one does not.
fn read_page_runs(reader: &mut Reader<'_>, refs: &mut RefReader) -> Result<Vec<Run>> {
    let runs = read_runs(reader, refs)?;
    match runs.windows(2).any(|pair| pair.iter().all(|run| run.chunk().is_none())) {
        true => Err(reader.malformed("a hole follows a hole")),
        false => Ok(runs),
    }
}

fn read_leaf(reader: &mut Reader<'_>, refs: &mut RefReader) -> Result<Vec<Entry>> {
    let count = reader.count(14)?;
    let mut previous = Previous::default();
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut paths = 0;
    for _ in 0..count {
        let entry = read_entry(reader, refs, &mut previous)?;
        paths += entry.path.len();
        if paths > limits::PAGE_PATHS {
            return Err(reader.malformed("its paths are longer than allowed"));
        }
        if let Some(before) = entries.last()
            && order::compare_paths(&before.path, &entry.path).is_ge()
        {
            return Err(reader.malformed("entries are not in order"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_inner(reader: &mut Reader<'_>, refs: &mut RefReader) -> Result<Vec<Child>> {
    let count = reader.count(8)?;
    let mut children: Vec<Child> = Vec::with_capacity(count);
    for _ in 0..count {
        let first = reader.bytes(limits::PATH_LIMIT)?.to_vec();
        let last = reader.bytes(limits::PATH_LIMIT)?.to_vec();
        let ordered = order::compare_paths(&first, &last).is_le()
            && children.last().is_none_or(|before| order::compare_paths(&before.last, &first).is_lt());
        if !ordered {
            return Err(reader.malformed("children are not in order"));
        }
        let (entries, bytes) = (reader.varint()?, reader.varint()?);
        if entries == 0 {
            return Err(reader.malformed("a child without entries"));
        }
        children.push(Child { first, last, entries, bytes, page: refs.read(reader)? });
    }
    Ok(children)
}
