//! What every verb does in a cell of the matrix, and what must hold of it.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use carrack_mover::{
    cancel::Cancel,
    check::{CheckLevel, CheckOptions, CheckReport, check},
    copy::{CopyOptions, copy},
    diff::{Change, Tree as DiffTree, diff},
    error::{Error, ErrorKind, Result},
    format::session::SessionName,
    monitor::CollectMonitor,
    reader::{SnapshotReader, walk::Part},
    repo::Repository,
    restore::{RestoreOptions, restore},
    store::{ObjectStore, mem::MemStore},
};

use super::{
    harm::Cell,
    scene::{MEMORY_BYTES, Scene, Tree, back_up, create, open, planned, prune, tree_of},
};

/// What must see the harm: the least that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Nothing opens, in words.
    Opening,
    /// `check`.
    Structure,
    /// `check --sizes`.
    Sizes,
    /// `check --read-data`.
    Data,
    /// Nothing has to: nothing depends on it.
    Never,
}

/// Levels of check, least first.
const LEVELS: [(Seen, CheckLevel); 3] = [
    (Seen::Structure, CheckLevel::Structure),
    (Seen::Sizes, CheckLevel::Sizes),
    (Seen::Data, CheckLevel::Data),
];

/// Works through one cell; answers with what does not hold.
pub async fn judge(scene: &Scene, cell: &Cell, seen: Seen) -> Vec<String> {
    let mut judge = Judge { scene, cell, seen, wrong: Vec::new() };
    match open(&cell.inflicted(scene), 0).await {
        Err(error) if seen != Seen::Opening => judge.wrong("opening", &error.in_one_line()),
        Err(error) => judge.refusal(&error),
        Ok(_) if seen == Seen::Opening => judge.wrong("opening", "it is not refused"),
        Ok(repository) => {
            judge.look(&repository).await;
            judge.compare(&repository).await;
            judge.copy(&repository).await;
            judge.back_up(false).await;
            judge.back_up(true).await;
            judge.prune().await;
        }
    }
    judge.wrong
}

struct Judge<'s> {
    scene: &'s Scene,
    cell: &'s Cell,
    seen: Seen,
    wrong: Vec<String>,
}

/// What a restore gave back.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files that are not as they were, and were not named.
    pub silent: BTreeSet<String>,
    /// Files that are not as they were.
    pub lost: BTreeSet<String>,
    /// What ended it.
    pub error: Option<String>,
}

impl Restored {
    fn is_exact(&self) -> bool {
        self.lost.is_empty() && self.error.is_none()
    }
}

/// Restores a snapshot and compares it.
pub async fn restored(repository: &Repository, session: SessionName, truth: &Tree) -> Result<Restored> {
    let reader = SnapshotReader::new(repository.clone(), repository.snapshot(session).await?);
    let target = tempfile::tempdir().map_err(|error| Error::io(error, "a directory to restore to"))?;
    let options =
        RestoreOptions { memory_bytes: MEMORY_BYTES, threads: 1, ..RestoreOptions::to(target.path()) };
    let monitor = Arc::new(CollectMonitor::default());
    let done = restore(&reader, &options, monitor.clone(), Cancel::default()).await;
    let named: BTreeSet<String> = monitor.problems().into_iter().map(|problem| problem.what).collect();
    let mut found = Restored { error: done.err().map(|error| error.in_one_line()), ..Restored::default() };
    let back = below(target.path());
    for (path, contents) in truth {
        if back.get(path) != Some(contents) {
            found.lost.insert(path.clone());
            if found.error.is_none() && !is_covered(path, &named) {
                found.silent.insert(path.clone());
            }
        }
    }
    // What was never in it is as wrong as what is missing of it.
    let extra = back.keys().filter(|path| !truth.contains_key(*path)).cloned();
    found.silent.extend(extra);
    Ok(found)
}

fn below(target: &Path) -> Tree {
    let prefix = format!("{}/", target.display()).trim_start_matches('/').to_owned();
    let tree = tree_of(target).unwrap_or_default().into_iter();
    tree.filter_map(|(path, contents)| Some((path.strip_prefix(&prefix)?.to_owned(), contents))).collect()
}

/// Whether a path, or one above it, is named. A page that is lost has no single name: `/` stands for all of it.
fn is_covered(path: &str, named: &BTreeSet<String>) -> bool {
    named.iter().any(|name| {
        let name = name.trim_start_matches('/');
        name.is_empty() || path == name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
    })
}

/// An error that says what is wrong with what is stored.
fn is_loud(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Invalid)
}

impl Judge<'_> {
    fn wrong(&mut self, verb: &str, what: &str) {
        self.wrong.push(format!("{:?} {:?}: {verb}: {what}", self.cell.kind, self.cell.harm));
    }

    /// The error names the object; a key is named where it lies.
    fn refusal(&mut self, error: &Error) {
        let text = format!("{} {}", error.in_one_line(), error.hint().unwrap_or_default());
        let named = self.cell.objects().iter().any(|name| text.contains(name) || name.starts_with("keys/"));
        if !is_loud(error) || !named {
            self.wrong("opening", &text);
        }
    }

    /// The visible snapshots of the scene; each other one must be named as unreadable.
    async fn visible(&mut self, repository: &Repository) -> Vec<(SessionName, Tree)> {
        let list = match repository.snapshots().await {
            Ok(list) => list,
            Err(error) => {
                self.wrong("snapshots", &error.in_one_line());
                return Vec::new();
            }
        };
        let mut visible = Vec::new();
        let (forgotten, tree) = &self.scene.forgotten;
        for (session, truth) in self.scene.truth.iter().chain([(forgotten, tree)]) {
            if list.snapshots.iter().any(|snapshot| snapshot.session == *session) {
                visible.push((*session, truth.clone()));
            } else if session != forgotten && !list.unreadable.iter().any(|(name, _)| name == session) {
                self.wrong("snapshots", &format!("{session} is gone, and nothing says so"));
            }
        }
        visible
    }

    async fn look(&mut self, repository: &Repository) {
        let visible = self.visible(repository).await;
        let mut back = Vec::new();
        for (session, truth) in &visible {
            match restored(repository, *session, truth).await {
                Ok(restored) if !restored.silent.is_empty() => {
                    self.wrong("restore", &format!("{session}: in silence {:?}", restored.silent));
                }
                Ok(restored) => back.push((*session, restored)),
                Err(error) => self.wrong("restore", &format!("{session}: {}", error.in_one_line())),
            }
        }
        for (seen, level) in LEVELS {
            let (report, told) = match self.check(repository, level, None, false).await {
                Ok(found) => found,
                Err(error) => {
                    self.wrong("check", &format!("{level:?} ends: {}", error.in_one_line()));
                    continue;
                }
            };
            let objects = self.cell.objects();
            if seen >= self.seen
                && !objects.iter().any(|object| told.iter().any(|text| text.contains(object)))
            {
                self.wrong("check", &format!("{level:?} does not name it, but {told:?}"));
            }
            if matches!(level, CheckLevel::Data) {
                self.agree(&report, &back);
            }
        }
    }

    /// What the check says of each snapshot is what a restore does.
    fn agree(&mut self, report: &CheckReport, back: &[(SessionName, Restored)]) {
        for (session, restored) in back {
            let says_whole = report.whole.contains(session);
            if says_whole != restored.is_exact() {
                self.wrong("check", &format!("{session} is whole: {says_whole}, but {restored:?}"));
            }
            let touched = report.damage.iter().flat_map(|damage| &damage.files);
            let touched = touched.filter(|file| file.snapshot == session.nonce.short());
            let named: BTreeSet<String> = touched
                .map(|file| if file.to.is_some() { String::new() } else { file.path.clone() })
                .collect();
            for path in restored.lost.iter().filter(|path| !is_covered(path, &named)) {
                self.wrong("check", &format!("{session}: {path} is lost and not named, but {named:?}"));
            }
        }
    }

    async fn check(
        &self,
        repository: &Repository,
        level: CheckLevel,
        only: Option<Vec<SessionName>>,
        mark: bool,
    ) -> Result<(CheckReport, Vec<String>)> {
        let options = CheckOptions { level, memory_bytes: MEMORY_BYTES, threads: 1, only, mark };
        let monitor = Arc::new(CollectMonitor::default());
        let report = check(repository, &options, monitor.clone(), Cancel::default()).await?;
        let problems = monitor.problems().into_iter();
        let told = problems.map(|problem| format!("{}: {}", problem.what, problem.message)).collect();
        Ok((report, told))
    }

    /// A listing and a diff say what is true, or fail.
    async fn compare(&mut self, repository: &Repository) {
        let (Ok(old), Ok(new)) =
            (repository.snapshot(self.scene.moved).await, repository.snapshot(self.scene.last).await)
        else {
            return;
        };
        let (old, new) =
            (SnapshotReader::new(repository.clone(), old), SnapshotReader::new(repository.clone(), new));
        match names(&new).await {
            Ok(names) => {
                let truth = &self.scene.truth[&self.scene.last];
                if truth.keys().any(|path| !names.contains(path)) {
                    self.wrong("ls", "a name is missing in silence");
                }
            }
            Err(error) if is_loud(&error) => {}
            Err(error) => self.wrong("ls", &error.in_one_line()),
        }
        let mut changed = Vec::new();
        let mut tell = |change| {
            if let Change::Modified(entry) | Change::Added(entry) | Change::Removed(entry) = change {
                changed.push(String::from_utf8_lossy(&entry.path).into_owned());
            }
            Ok(())
        };
        let (before, after) = (DiffTree { reader: &old, path: b"" }, DiffTree { reader: &new, path: b"" });
        let done = diff(before, after, &mut tell).await;
        match done {
            Ok(()) if changed.len() == 1 && changed[0].ends_with("small 7") => {}
            Err(error) if is_loud(&error) => {}
            other => self.wrong("diff", &format!("{other:?} {changed:?}")),
        }
    }

    /// What a copy leaves out, it names.
    async fn copy(&mut self, from: &Repository) {
        let Ok(list) = from.snapshots().await else { return };
        let to = create(Arc::new(MemStore::new()) as Arc<dyn ObjectStore>, 9).await;
        let to = to.expect("a repository in memory");
        for snapshot in &list.snapshots {
            let Some(truth) = self.scene.truth.get(&snapshot.session) else { continue };
            let monitor = Arc::new(CollectMonitor::default());
            let options = CopyOptions { memory_bytes: MEMORY_BYTES, threads: 1, ..CopyOptions::default() };
            let copied = match copy(from, &to, snapshot, &options, monitor.clone(), Cancel::default()).await {
                Ok(report) => report.snapshot.expect("a copy commits").session,
                Err(error) if is_loud(&error) => continue,
                Err(error) => {
                    self.wrong("copy", &error.in_one_line());
                    continue;
                }
            };
            let named = monitor.problems().into_iter().map(|problem| problem.what).collect();
            let back = restored(&to, copied, truth).await.expect("the copy is whole");
            for path in back.lost.iter().filter(|path| !is_covered(path, &named)) {
                self.wrong("copy", &format!("{path} was left out in silence, but {named:?}"));
            }
            if back.error.is_some() {
                self.wrong("copy", &format!("does not restore: {back:?}"));
            }
        }
    }

    /// A backup stores again what is needed, or fails, or loses no more than was lost and lets check say so. After a
    /// check with notes there is nothing that it may lose.
    async fn back_up(&mut self, noted: bool) {
        let verb = if noted { "backup after a check" } else { "backup" };
        let Ok(repository) = open(&self.cell.inflicted(self.scene), 0).await else { return };
        if noted && let Err(error) = self.check(&repository, CheckLevel::Data, None, true).await {
            self.wrong(verb, &format!("check: {}", error.in_one_line()));
            return;
        }
        for host in ["one", "two"] {
            let source = self.scene.source(host);
            let session = match back_up(&repository, &source, host).await {
                Ok(report) => report.snapshot.expect("it commits").session,
                Err(error) if is_loud(&error) => continue,
                Err(error) => {
                    self.wrong(verb, &error.in_one_line());
                    continue;
                }
            };
            let truth = tree_of(&source).expect("the source can be read");
            let back = match restored(&repository, session, &truth).await {
                Ok(back) => back,
                Err(error) => {
                    self.wrong(verb, &format!("{host}: {}", error.in_one_line()));
                    continue;
                }
            };
            if !back.silent.is_empty() || noted && !back.is_exact() {
                self.wrong(verb, &format!("{host}: {back:?}"));
            }
            if back.is_exact() {
                continue;
            }
            match self.check(&repository, CheckLevel::Data, Some(vec![session]), false).await {
                Ok((report, _)) if report.damaged == [session] => self.agree(&report, &[(session, back)]),
                other => self.wrong(verb, &format!("{host}: {back:?}, but check: {other:?}")),
            }
        }
    }

    /// Whatever a prune does: once the harm is undone, everything is there.
    async fn prune(&mut self) {
        let store = self.cell.inflicted(self.scene);
        for _ in 0..2 {
            let Ok(repository) = open(&store, 3).await else { return };
            match prune(&repository).await {
                Ok(_) => {}
                Err(error) if is_loud(&error) => {
                    // What the plan names is told before anything is done.
                    let told = planned(&repository).await;
                    let text = format!("{} {} {told}", error.in_one_line(), error.hint().unwrap_or_default());
                    let named = |name: &&str| text.contains(*name) || text.contains(tail(name));
                    if !self.cell.objects().iter().any(named) {
                        self.wrong("prune", &format!("stops without the name: {text}"));
                    }
                }
                Err(error) => self.wrong("prune", &error.in_one_line()),
            }
        }
        self.cell.heal(&store);
        let repository = match open(&store, 3).await {
            Ok(repository) => repository,
            Err(error) => return self.wrong("prune", &format!("healed: {}", error.in_one_line())),
        };
        for (session, truth) in &self.scene.truth {
            match restored(&repository, *session, truth).await {
                Ok(back) if back.is_exact() => {}
                other => self.wrong("prune", &format!("healed: {session}: {other:?}")),
            }
        }
    }
}

/// The id in a name.
fn tail(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

async fn names(reader: &SnapshotReader) -> Result<BTreeSet<String>> {
    let mut walk = reader.entries(Part::all())?;
    let mut names = BTreeSet::new();
    while let Some(leaf) = walk.next_leaf().await? {
        names.extend(leaf.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()));
    }
    Ok(names)
}
