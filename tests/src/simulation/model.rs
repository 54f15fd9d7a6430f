//! What must hold, and the reading that proves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use carrack_mover::{
    clock::World,
    error::{Error, Result},
    format::{
        entry::{Content, Run},
        metadata::Kind,
    },
    reader::{
        SnapshotReader,
        walk::{Part, TreeWalk},
    },
    repo::{Repository, Unlock},
    secret::Key,
    store::{
        ObjectStore,
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

use super::{
    net::Change,
    source::{Tree, content},
};

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
    /// What it was read from the last time: as long as all of that is there, it reads the same.
    support: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct State {
    /// What each client's source holds while it is backed up.
    sources: BTreeMap<usize, (PathBuf, Tree)>,
    known: BTreeMap<String, Known>,
    secrets: Vec<Key>,
    violation: Option<String>,
    compared: u64,
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
            let name = match change {
                Change::Created(name) | Change::Deleted(name) => name,
            };
            let touched: Vec<String> = {
                let state = self.state();
                let touches = |session: &str, known: &Known| {
                    name.contains(session)
                        || matches!(change, Change::Deleted(_)) && known.support.contains(name)
                };
                let known = state.known.iter().filter(|(session, known)| touches(session, known));
                known.map(|(session, _)| session.clone()).collect()
            };
            for session in touched {
                self.look_at(store, &session, &format!("{change:?}"), false).await;
            }
        }
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
            self.each(&[session.to_owned()], |known| known.support.clear());
            if known.reported && !known.forgetting {
                self.blame(format!("{session} was reported as stored and is not visible, after: {why}"));
            }
            return;
        }
        match read_back(store, &self.secrets(), session, &known.root, &known.tree).await {
            Ok(support) => {
                let mut state = self.state();
                state.compared += 1;
                state.known.get_mut(session).into_iter().for_each(|known| known.support.clone_from(&support));
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
        state.known.values().flat_map(|known| known.support.iter().cloned()).collect()
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

/// Reads a snapshot from the bare store and compares it; answers which objects that took.
async fn read_back(
    store: &Arc<MemStore>,
    secrets: &[Key],
    session: &str,
    root: &Path,
    tree: &Tree,
) -> Result<BTreeSet<String>> {
    let bare: Arc<dyn ObjectStore> = Arc::clone(store) as _;
    let recorded = Arc::new(RecordStore::new(bare));
    let repository = open(&(Arc::clone(&recorded) as _), secrets).await?;
    let name = session.parse().map_err(|_| Error::internal("a session without a name"))?;
    let snapshot = repository.snapshot(name).await?;
    compare(&SnapshotReader::new(repository, snapshot), root, tree).await?;
    let gets = recorded.take().into_iter().filter(|call| {
        matches!(call.operation, Operation::Get(_)) && call.error.is_none() && !call.name.starts_with("keys/")
    });
    Ok(gets.map(|call| call.name).collect())
}

/// Compares a snapshot with what it must hold, byte for byte.
pub async fn compare(reader: &SnapshotReader, root: &Path, tree: &Tree) -> Result<()> {
    let mut missing: BTreeSet<String> = tree.keys().cloned().collect();
    let root = root.to_string_lossy();
    let root = format!("{}/", root.trim_start_matches('/'));
    let mut walk = TreeWalk::new(reader, Part::all())?;
    while let Some(leaf) = walk.next_leaf().await? {
        for entry in leaf.iter().filter(|entry| entry.kind == Kind::File) {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let name = path.strip_prefix(&root).unwrap_or(&path).to_owned();
            let number = tree.get(&name).filter(|_| missing.remove(&name));
            let number = number.ok_or_else(|| wrong(&name, "it should not be there"))?;
            same(reader, &name, &entry.content, &content(*number)).await?;
        }
    }
    match missing.first() {
        Some(name) => Err(wrong(name, "it is missing")),
        None => Ok(()),
    }
}

async fn same(reader: &SnapshotReader, name: &str, found: &Content, wanted: &[u8]) -> Result<()> {
    let Content::Inline(runs) = found else { return Err(wrong(name, "its chunks are not in the entry")) };
    let mut at = 0;
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
    Error::internal(format!("the file {name} is not as it was: {how}"))
}
