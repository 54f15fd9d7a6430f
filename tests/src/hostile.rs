//! Snapshots that no honest program writes, made with the engine's own encoders and valid keys: what somebody can do
//! who has stolen them.

pub mod lookout;
pub mod scene;
pub mod swaps;

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use carrack_mover::{
    clock::World,
    codec::{self, Domain},
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace, Suite},
        metadata::{FileTime, Kind, Metadata},
        order::compare_paths,
        pack::{Footer, FooterFrame, Trailer},
        page::{Child, PageWriter},
        records::{Moved, PageRef, Snapshot, SourceKind, Statistics},
        session::{SessionKind, SessionName},
    },
    id::{LineageId, PackId},
    monitor::escape_path,
    repo::{Repository, Session, Unlock},
    secret::Passphrase,
    store::FsStore,
};

use crate::program::{Printed, Program};

/// A session that writes what it is told, however wrong it is.
#[derive(Debug)]
pub struct Forger {
    repository: Repository,
    session: Session,
    path: String,
    source: SourceKind,
    grid: u32,
    statistics: Statistics,
    pack: PackId,
    body: Vec<u8>,
    frames: Vec<FooterFrame>,
}

impl Forger {
    /// Begins a session of the lineage of this host and path.
    pub async fn begin(repository: &Path, password: &str, path: &Path) -> Result<Self> {
        let repository = open(repository, password).await?;
        let lineage = repository.lineage("hostile", &[path.as_os_str().as_bytes().to_vec()]);
        let session = repository.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await?;
        let pack = session.new_pack();
        let path = escape_path(path.as_os_str().as_bytes());
        Ok(Self {
            repository,
            session,
            path,
            source: SourceKind::Files,
            grid: 0,
            statistics: Statistics::default(),
            pack,
            body: Vec::new(),
            frames: Vec::new(),
        })
    }

    /// From now on its snapshot is of another source than files, cut on this grid.
    pub fn be_of(&mut self, source: SourceKind, grid: u32) {
        (self.source, self.grid) = (source, grid);
    }

    /// From now on its snapshot says that it counted this.
    pub fn count(&mut self, statistics: Statistics) {
        self.statistics = statistics;
    }

    /// What its snapshot is called.
    pub fn name(&self) -> SessionName {
        self.session.name()
    }

    /// One chunk in a frame of its own.
    pub fn chunk(&mut self, kind: FrameKind, plain: &[u8]) -> Result<ChunkRef> {
        self.promised(kind, plain, u32::try_from(plain.len())?)
    }

    /// The same, but readers are told another length before compression.
    pub fn promised(&mut self, kind: FrameKind, plain: &[u8], promise: u32) -> Result<ChunkRef> {
        let id = self.repository.keys().chunk_id(plain);
        let domain = Domain::from(kind);
        let mut place = FramePlace {
            session: self.session.name(),
            pack: self.pack,
            offset: u32::try_from(self.body.len())?,
            stored: 0,
            plain: promise,
            compression: Compression::Zstd,
            counter: self.session.next_counter(domain),
            id: codec::frame_id(self.repository.keys(), &[(id, promise)]),
        };
        let mut sealed = codec::compress(plain, 3)?;
        let cipher = match kind {
            FrameKind::Data => self.session.data_cipher(),
            FrameKind::Metadata => self.session.metadata_cipher(),
        };
        cipher.seal(domain, place.counter, &codec::frame_aad(kind, &place), &mut sealed, 0)?;
        place.stored = u32::try_from(sealed.len())?;
        self.body.extend_from_slice(&sealed);
        self.frames.push(FooterFrame { kind, place, chunks: Vec::new() });
        Ok(ChunkRef { id, offset: 0, length: promise, frame: Frame::settled(place) })
    }

    /// A part of a chunk, these bytes of its contents, as a chunk of its own.
    pub fn part(&self, whole: &ChunkRef, plain: &[u8], range: Range<usize>) -> Result<ChunkRef> {
        let (offset, length) = (u32::try_from(range.start)?, u32::try_from(range.len())?);
        Ok(ChunkRef {
            id: self.repository.keys().chunk_id(&plain[range]),
            offset,
            length,
            frame: whole.frame.clone(),
        })
    }

    /// A page of this run again and again, below pages of that page again and again: what an entry names whose lists have
    /// so many levels, and the bytes that it stands for.
    pub fn tower_of_runs(&mut self, run: &Run, wide: u64, levels: u8) -> Result<(ChunkRef, u64)> {
        let mut page = PageWriter::runs();
        (0..wide).try_for_each(|_| page.push_run(run))?;
        let (mut below, mut bytes) = (self.page(&page)?, wide * run.length());
        for _ in 1..levels {
            let mut page = PageWriter::runs_inner();
            (0..wide).try_for_each(|_| page.push_runs_page(&below, bytes))?;
            (below, bytes) = (self.page(&page)?, wide * bytes);
        }
        Ok((below, bytes))
    }

    /// A file with these contents.
    pub fn file(&mut self, path: &[u8], contents: &[u8]) -> Result<Entry> {
        let runs = match contents {
            [] => Vec::new(),
            contents => vec![Run::Chunk(self.chunk(FrameKind::Data, contents)?)],
        };
        Ok(with_contents(path, Content::Inline(runs), contents.len() as u64))
    }

    /// A page, whatever is in it.
    pub fn page(&mut self, page: &PageWriter) -> Result<ChunkRef> {
        self.chunk(FrameKind::Metadata, &page.to_bytes()?)
    }

    /// A leaf of these entries, in the order given, and what an honest page above would say of it.
    pub fn leaf(&mut self, entries: &[Entry]) -> Result<Child> {
        let mut page = PageWriter::leaf();
        entries.iter().try_for_each(|entry| page.push_entry(entry))?;
        let path = |entry: Option<&Entry>| entry.map(|entry| entry.path.clone()).unwrap_or_default();
        Ok(Child {
            first: path(entries.first()),
            last: path(entries.last()),
            entries: entries.len() as u64,
            bytes: entries.iter().fold(0, |sum, entry| sum.wrapping_add(entry.metadata.size)),
            page: self.page(&page)?,
        })
    }

    /// A page above these, and what an honest page above it would say.
    pub fn inner(&mut self, children: &[Child]) -> Result<Child> {
        let mut page = PageWriter::inner();
        children.iter().try_for_each(|child| page.push_child(child))?;
        let page = self.page(&page)?;
        let sum = |of: fn(&Child) -> u64| children.iter().map(of).fold(0, u64::wrapping_add);
        Ok(Child {
            first: children.first().map(|child| child.first.clone()).unwrap_or_default(),
            last: children.last().map(|child| child.last.clone()).unwrap_or_default(),
            entries: sum(|child| child.entries),
            bytes: sum(|child| child.bytes),
            page,
        })
    }

    /// Commits a tree of one leaf, its entries sorted as readers want them.
    pub async fn commit_entries(mut self, mut entries: Vec<Entry>) -> Result<()> {
        entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
        let leaf = self.leaf(&entries)?;
        self.commit(&leaf.page, 1).await
    }

    /// Stores what was written so far as one pack.
    pub async fn close_pack(&mut self) -> Result<()> {
        let body = std::mem::take(&mut self.body);
        let frames = std::mem::take(&mut self.frames);
        let pack = std::mem::replace(&mut self.pack, self.session.new_pack());
        let footer = Footer { sessions: vec![self.session.key_info().clone()], frames };
        let counter = self.session.next_counter(Domain::Footer);
        let (session, info) = (self.session.name(), self.session.key_info());
        let aad = codec::footer_aad(session, pack);
        let sealed = codec::seal_bound(
            self.session.index_cipher(),
            Domain::Footer,
            &aad,
            counter,
            &footer.to_bytes(),
        )?;
        let trailer = Trailer {
            footer_length: u32::try_from(sealed.len())?,
            counter,
            generation: info.generation,
            suite: info.suite,
            session,
        };
        let body = [body, sealed, trailer.to_bytes().to_vec()].concat();
        self.session.put_pack(pack, body.into()).await?;
        Ok(())
    }

    /// Commits a snapshot whose tree has this root.
    pub async fn commit(self, root: &ChunkRef, depth: u8) -> Result<()> {
        self.commit_after(None, root, depth).await
    }

    /// The same, with a parent.
    pub async fn commit_after(
        mut self,
        parent: Option<SessionName>,
        root: &ChunkRef,
        depth: u8,
    ) -> Result<()> {
        self.close_pack().await?;
        let now = self.session.world().clock.now();
        let snapshot = Snapshot {
            version: 1,
            session: self.session.name(),
            source: self.source,
            host: "hostile".into(),
            user: "mallory".into(),
            // A record that names another source than its session's is believed by nobody.
            paths: vec![self.path.clone()],
            tags: Vec::new(),
            started: now,
            finished: now,
            parent,
            grid: self.grid,
            change_id: None,
            root: PageRef::from_chunk(root),
            depth,
            sessions: vec![self.session.key_info().clone()],
            statistics: self.statistics,
            problems: Vec::new(),
            program: "forged".into(),
            copied_from: None,
        };
        self.session.commit(&snapshot).await?;
        Ok(())
    }
}

async fn open(repository: &Path, password: &str) -> Result<Repository> {
    let store = Arc::new(FsStore::open(repository, World::system()));
    let unlock = Unlock::Passphrase(Passphrase::new(password.as_bytes().to_vec()));
    Ok(Repository::open(store, World::system(), &unlock).await?)
}

/// A repack that moved nothing, and says that it moved this.
pub async fn relocate(repository: &Path, password: &str, moved: &[Moved]) -> Result<()> {
    let repository = open(repository, password).await?;
    let session = repository.begin(SessionKind::Repack, LineageId::default(), Suite::Aes256Gcm).await?;
    session.commit_relocations(moved).await?;
    Ok(())
}

/// An entry without contents.
pub fn entry(path: &[u8], kind: Kind) -> Entry {
    let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
    let mtime = FileTime { seconds: 1_700_000_000, nanoseconds: 1 };
    let metadata = Metadata { mode, mtime, links: 1, ..Metadata::default() };
    Entry { path: path.to_vec(), kind, metadata, content: Content::default() }
}

/// A file of these contents and that size.
pub fn with_contents(path: &[u8], content: Content, size: u64) -> Entry {
    let mut file = entry(path, Kind::File);
    (file.content, file.metadata.size) = (content, size);
    file
}

/// An image, or a stream, of these contents and that size.
pub fn image(path: &[u8], content: Content, size: u64) -> Entry {
    Entry { kind: Kind::Image, ..with_contents(path, content, size) }
}

/// Another name of an inode.
pub fn linked(mut entry: Entry, inode: u64) -> Entry {
    (entry.metadata.links, entry.metadata.device, entry.metadata.inode) = (2, 1, inode);
    entry
}

/// What a run came to: its exit code, its peak of resident memory in KiB, and what it printed.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// The kernel's figure, as `wait4` gives it.
    pub peak_kib: u64,
    /// What was printed.
    pub printed: Printed,
}

/// Asks the kernel for the peak of a child, which misses no short one.
const MEASURE: &str = "import resource, subprocess, sys\n\
    try: code = subprocess.run(sys.argv[2:], timeout=int(sys.argv[1])).returncode\n\
    except subprocess.TimeoutExpired: code = 'late'\n\
    print('measured', code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)";

/// Runs the program to its end, which must come within so many seconds.
pub fn measured(carrack: &Program, arguments: &[&str], seconds: u32) -> Result<Outcome> {
    measured_command(&carrack.command(arguments), seconds)
}

/// The same for any command.
pub fn measured_command(command: &Command, seconds: u32) -> Result<Outcome> {
    let output = measuring(command, seconds).output().context("python3 starts")?;
    outcome(command, seconds, &output)
}

/// The same with a file for its standard input.
pub fn measured_with_input(
    carrack: &Program,
    arguments: &[&str],
    seconds: u32,
    input: File,
) -> Result<Outcome> {
    let command = carrack.command(arguments);
    let output = measuring(&command, seconds).stdin(input).output().context("python3 starts")?;
    outcome(&command, seconds, &output)
}

/// The same where whoever reads its standard output goes away behind so many bytes.
pub fn measured_until_closed(
    carrack: &Program,
    arguments: &[&str],
    seconds: u32,
    bytes: u64,
) -> Result<Outcome> {
    let command = carrack.command(arguments);
    let child = measuring(&command, seconds).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("python3 starts")?;
    let mut printed = child.stdout.take().context("a pipe")?.take(bytes);
    io::copy(&mut printed, &mut io::sink()).context("read what is printed")?;
    drop(printed);
    outcome(&command, seconds, &child.wait_with_output()?)
}

fn measuring(plain: &Command, seconds: u32) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", MEASURE, &seconds.to_string()]).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null());
    command
}

fn outcome(command: &Command, seconds: u32, output: &Output) -> Result<Outcome> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = Printed { out: text(&output.stdout), err: text(&output.stderr) };
    let last = printed.err.lines().rfind(|line| line.starts_with("measured ")).context("a last line")?;
    let [_, code, peak] = last.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("not a measurement: {last}");
    };
    ensure!(code != "late", "{command:?} did not end in {seconds} s:\n{}\n{}", printed.out, printed.err);
    Ok(Outcome { code: code.parse().ok().filter(|code| *code >= 0), peak_kib: peak.parse()?, printed })
}
