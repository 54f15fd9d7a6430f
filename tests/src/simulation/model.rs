//! What must hold, and the reading that proves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use carrack_mover::{
    clock::World,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::Kind,
        pack::parse_pack_object,
    },
    id::PackId,
    reader::{
        SnapshotReader,
        walk::{Part, TreeWalk},
    },
    repo::{Repository, Unlock},
    secret::Key,
    store::{
        ByteRange, ObjectStore,
        mem::MemStore,
        record::{Call, Operation, RecordStore},
    },
};

use super::{
    net::Change,
    source::{FOLDER, File, Tree, content},
};

/// Changes of the store after which all snapshots are read again, whatever they were read from the last time.
const CHANGES_BETWEEN_LOOKS: u64 = 250;

/// What is known of a session that sent a record.
#[derive(Debug, Clone, Default)]
struct Known {
    root: PathBuf,
    tree: Tree,
    /// Its writer was told that it is stored.
    reported: bool,
    /// Its writer was told that it will never be.
    failed: bool,
    /// Somebody has begun to forget it.
    forgetting: bool,
    /// Somebody was told that it is forgotten.
    forgotten: bool,
    /// How it was read the last time: as long as all of that is there, it reads the same.
    last: Reading,
}

/// How a snapshot was read.
#[derive(Debug, Clone, Default)]
struct Reading {
    /// The objects.
    support: BTreeSet<String>,
    /// Which parts of packs were asked for, whether they were there or had been moved.
    places: BTreeSet<Place>,
}

/// Part of a pack: from where to where.
pub(super) type Place = (PackId, u64, u64);

#[derive(Debug, Default)]
struct State {
    /// What each client's source holds while it is backed up.
    sources: BTreeMap<usize, (PathBuf, Tree)>,
    known: BTreeMap<String, Known>,
    secrets: Vec<Key>,
    violation: Option<String>,
    compared: u64,
    changes: u64,
}

/// The model.
#[derive(Debug, Default)]
pub struct Model {
    state: Mutex<State>,
}

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client backs up from now on.
    pub fn source(&self, client: usize, root: &Path, tree: &Tree) {
        self.state().sources.insert(client, (root.to_owned(), tree.clone()));
    }

    /// A client sends a record.
    pub fn sent(&self, session: &str, client: usize) {
        let mut state = self.state();
        if let Some((root, tree)) = state.sources.get(&client).cloned() {
            state.known.entry(session.to_owned()).or_insert(Known { root, tree, ..Known::default() });
        }
    }

    /// A secret that may open the repository from now on.
    pub fn learn_secret(&self, secret: Key) {
        self.state().secrets.push(secret);
    }

    /// All secrets, the newest first.
    pub fn secrets(&self) -> Vec<Key> {
        self.state().secrets.iter().rev().cloned().collect()
    }

    /// Somebody begins to forget these.
    pub fn forgetting(&self, sessions: &[String]) {
        self.each(sessions, |known| known.forgetting = true);
    }

    /// Somebody was told that these are forgotten.
    pub fn forgotten(&self, sessions: &[String]) {
        self.each(sessions, |known| known.forgotten = true);
    }

    fn each(&self, sessions: &[String], change: impl Fn(&mut Known)) {
        let mut state = self.state();
        for session in sessions {
            state.known.get_mut(session).into_iter().for_each(&change);
        }
    }

    /// A writer was told that this one is stored.
    pub fn reported(&self, session: &str) {
        self.each(&[session.to_owned()], |known| known.reported = true);
        if !self.state().known.contains_key(session) {
            self.blame(format!("{session} was reported as stored, and no record was ever sent"));
        }
    }

    /// A writer was told that its session will never have a snapshot.
    pub fn failed(&self, client: usize, sessions_before: &BTreeSet<String>) {
        let mut state = self.state();
        let root = state.sources.get(&client).map(|(root, _)| root.clone());
        let own = state
            .known
            .iter_mut()
            .filter(|(name, known)| !sessions_before.contains(*name) && Some(&known.root) == root.as_ref());
        own.for_each(|(_, known)| known.failed = true);
    }

    /// All sessions that sent a record so far.
    pub fn sessions(&self) -> BTreeSet<String> {
        self.state().known.keys().cloned().collect()
    }

    /// Whether somebody has begun to forget this one.
    pub fn is_forgetting(&self, session: &str) -> bool {
        self.state().known.get(session).is_some_and(|known| known.forgetting)
    }

    /// What a snapshot must hold: the directory and its tree.
    pub fn expected(&self, session: &str) -> Option<(PathBuf, Tree)> {
        self.state().known.get(session).map(|known| (known.root.clone(), known.tree.clone()))
    }

    /// Something does not hold. The first one counts.
    pub fn blame(&self, what: String) {
        self.state().violation.get_or_insert(what);
    }

    /// The first thing that did not hold.
    pub fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    /// How many snapshots were read and compared.
    pub fn compared(&self) -> u64 {
        self.state().compared
    }

    /// Looks at everything that a change of the store can have harmed.
    pub async fn after(&self, store: &Arc<MemStore>, changes: &[Change]) {
        for change in changes {
            for session in self.touched(change) {
                self.look_at(store, &session, &format!("{change:?}"), false).await;
            }
        }
    }

    /// Those that a change can have harmed: by a move all of them, because each may be read by it, and now and then all
    /// whatever it is.
    fn touched(&self, change: &Change) -> Vec<String> {
        let mut state = self.state();
        state.changes += 1;
        let are_all = state.changes.is_multiple_of(CHANGES_BETWEEN_LOOKS)
            || matches!(change, Change::Created(name) if name.starts_with("snapshots/r"));
        let touches = |session: &str, known: &Known| match change {
            Change::Created(name) => name.contains(session) || known.last.has_sending_of(name),
            Change::Deleted(name) => name.contains(session) || known.last.support.contains(name),
        };
        let known = state.known.iter().filter(|(session, known)| are_all || touches(session, known));
        known.map(|(session, _)| session.clone()).collect()
    }

    /// A snapshot that was reported just now must be there.
    pub async fn after_report(&self, store: &Arc<MemStore>, session: &str) {
        self.look_at(store, session, "it was reported as stored", false).await;
    }

    /// Looks at all of them, also at those whose forgetting was broken off.
    pub async fn look_at_all(&self, store: &Arc<MemStore>) {
        for session in self.sessions() {
            self.look_at(store, &session, "the end", true).await;
        }
    }

    async fn look_at(&self, store: &Arc<MemStore>, session: &str, why: &str, at_the_end: bool) {
        let Some(known) = self.state().known.get(session).cloned() else { return };
        let visible = is_visible(store, session).await;
        if known.forgotten && visible {
            self.blame(format!("{session} was forgotten and is visible again, after: {why}"));
        }
        if known.failed && visible {
            self.blame(format!("{session} was reported as failed for ever and is visible, after: {why}"));
        }
        if known.forgetting && !at_the_end {
            return;
        }
        if !visible {
            self.each(&[session.to_owned()], |known| known.last = Reading::default());
            if known.reported && !known.forgetting {
                self.blame(format!("{session} was reported as stored and is not visible, after: {why}"));
            }
            return;
        }
        match read_back(store, &self.secrets(), session, &known.root, &known.tree).await {
            Ok(reading) => {
                self.state().compared += 1;
                self.each(&[session.to_owned()], |known| known.last = reading.clone());
            }
            Err(error) => {
                let error = error.in_one_line();
                self.blame(format!("{session} is visible and does not restore, after: {why}: {error}"));
            }
        }
    }

    /// Objects that the visible snapshots were read from the last time.
    pub fn needed(&self) -> BTreeSet<String> {
        let state = self.state();
        state.known.values().flat_map(|known| known.last.support.iter().cloned()).collect()
    }

    /// Parts of packs that the visible snapshots name, or find by moves.
    pub(super) fn places(&self) -> BTreeSet<Place> {
        let state = self.state();
        state.known.values().flat_map(|known| known.last.places.iter().copied()).collect()
    }
}

impl Reading {
    fn of(calls: Vec<Call>) -> Self {
        let mut reading = Self::default();
        for call in calls {
            let Operation::Get(range) = call.operation else { continue };
            if let (Some((pack, _)), ByteRange::Slice { offset, length }) =
                (parse_pack_object(&call.name), range)
            {
                reading.places.insert((pack, offset, offset + length));
            }
            if call.error.is_none() && !call.name.starts_with("keys/") {
                reading.support.insert(call.name);
            }
        }
        reading
    }

    /// Whether it read the pack of this object, under whichever name.
    fn has_sending_of(&self, name: &str) -> bool {
        let Some((pack, _)) = parse_pack_object(name) else { return false };
        self.places.iter().any(|(read, ..)| *read == pack)
    }
}

/// V, in the simplest words.
async fn is_visible(store: &Arc<MemStore>, session: &str) -> bool {
    let has = async |prefix: &str| match store.list(prefix, None).await {
        Ok(page) => !page.objects.is_empty(),
        Err(_) => false,
    };
    has(&format!("sessions/{session}")).await
        && !has(&format!("forgotten/{session}")).await
        && match store.get(&format!("snapshots/{session}"), carrack_mover::store::ByteRange::All).await {
            Ok(body) => matches!(
                carrack_mover::format::records::decode_record(session, &body),
                Ok((carrack_mover::format::records::RecordKind::Snapshot, _))
            ),
            Err(_) => false,
        }
}

/// Opens with whichever secret opens.
pub async fn open(store: &Arc<dyn ObjectStore>, secrets: &[Key]) -> Result<Repository> {
    let mut last = Error::denied("there is no secret");
    for secret in secrets {
        match Repository::open(Arc::clone(store), World::system(), &Unlock::Secret(secret.clone())).await {
            Ok(repository) => return Ok(repository),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads a snapshot from the bare store and compares it; answers what that took.
async fn read_back(
    store: &Arc<MemStore>,
    secrets: &[Key],
    session: &str,
    root: &Path,
    tree: &Tree,
) -> Result<Reading> {
    let bare: Arc<dyn ObjectStore> = Arc::clone(store) as _;
    let recorded = Arc::new(RecordStore::new(bare));
    let repository = open(&(Arc::clone(&recorded) as _), secrets).await?;
    let name = session.parse().map_err(|_| Error::internal("a session without a name"))?;
    let snapshot = repository.snapshot(name).await?;
    compare(&SnapshotReader::new(repository, snapshot), root, tree).await?;
    Ok(Reading::of(recorded.take()))
}

/// Compares a snapshot with what it must hold: names of everything, times and bytes of files.
pub async fn compare(reader: &SnapshotReader, root: &Path, tree: &Tree) -> Result<()> {
    let below = |path: PathBuf| path.strip_prefix("/").unwrap_or(&path).to_string_lossy().into_owned();
    let mut files: BTreeMap<String, &File> =
        tree.iter().map(|(name, file)| (below(root.join(name)), file)).collect();
    let folder = root.join(FOLDER);
    let mut directories: BTreeSet<String> =
        folder.ancestors().map(|path| below(path.to_owned())).filter(|path| !path.is_empty()).collect();
    let mut walk = TreeWalk::new(reader, Part::all())?;
    while let Some(leaf) = walk.next_leaf().await? {
        for entry in leaf {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            match entry.kind {
                Kind::Directory if directories.remove(&path) => {}
                Kind::File => {
                    let file = files.remove(&path);
                    let file = file.ok_or_else(|| wrong(&path, "it should not be there"))?;
                    same(reader, &path, &entry, file).await?;
                }
                _ => return Err(wrong(&path, "it should not be there")),
            }
        }
    }
    match files.keys().chain(&directories).next() {
        Some(path) => Err(wrong(path, "it is missing")),
        None => Ok(()),
    }
}

async fn same(reader: &SnapshotReader, name: &str, entry: &Entry, file: &File) -> Result<()> {
    let time = entry.metadata.mtime;
    if u64::try_from(time.seconds) != Ok(file.modified.as_secs())
        || time.nanoseconds != file.modified.subsec_nanos()
    {
        return Err(wrong(name, "it has another time"));
    }
    let Content::Inline(runs) = &entry.content else {
        return Err(wrong(name, "its chunks are not in the entry"));
    };
    let (mut at, wanted) = (0, content(file.content));
    for run in runs {
        let length = usize::try_from(run.length()).unwrap_or(usize::MAX);
        let wanted = wanted.get(at..at + length).ok_or_else(|| wrong(name, "it is longer"))?;
        let is_same = match run {
            Run::Chunk(chunk) => reader.chunk(chunk).await? == wanted,
            Run::Hole(_) => wanted.iter().all(|byte| *byte == 0),
        };
        if !is_same {
            return Err(wrong(name, "it has other bytes"));
        }
        at += length;
    }
    if at < wanted.len() {
        return Err(wrong(name, "it is shorter"));
    }
    Ok(())
}

fn wrong(name: &str, how: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("{name} is not as it was: {how}"))
}
