//! What every verb does in a cell of the matrix, and what must hold of it.

use std::{collections::BTreeSet, sync::Arc};

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
    store::{ObjectStore, mem::MemStore},
};

use super::{
    harm::{Cell, Harm, Kind},
    restored::{Restored, is_covered, restored},
    scene::{
        IMAGE, MEMORY_BYTES, OTHER_SECRET, OWN_SECRET, Scene, Tree, back_up, create, open, planned, prune,
    },
    support::Stretch,
};

/// What must see the harm: the least that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// `check`.
    Structure,
    /// `check --sizes`.
    Sizes,
    /// `check --read-data`.
    Data,
    /// Nothing has to, for this reason; and so everything must restore.
    Never(&'static str),
}

/// Whom the repository opens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// As before.
    ForAll,
    /// Not with the key in use, in words; with the other one as before.
    ForOthers,
    /// For nobody, in words.
    ForNobody,
}

/// What a prune makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    /// It names the harm, whether it stops or not.
    Named,
    /// It does its work as ever, and has no reason to see the harm: this one.
    Unseen(&'static str),
    /// It takes the harmed object away, which nothing needs, for this reason.
    Removed(&'static str),
    /// It names the harm if it stops; whether it meets it is chance, for this reason.
    Perhaps(&'static str),
}

/// What is right in a cell.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Whom it opens for.
    pub opens: Opens,
    /// What check sees.
    pub seen: Seen,
    /// What prune sees.
    pub pruned: Pruned,
    /// Why a copy of a snapshot that needs what was harmed is denied, where that is right.
    pub denied: Option<&'static str>,
    /// What is said where the harmed object cannot be named.
    pub instead: Option<&'static str>,
}

/// Levels of check, least first.
const LEVELS: [(Seen, CheckLevel); 3] = [
    (Seen::Structure, CheckLevel::Structure),
    (Seen::Sizes, CheckLevel::Sizes),
    (Seen::Data, CheckLevel::Data),
];

/// Works through one cell; answers with what does not hold.
pub async fn judge(scene: &Scene, cell: &Cell, expected: Expected) -> Vec<String> {
    let mut judge =
        Judge { scene, cell, expected, secret: OWN_SECRET, harmed: cell.harmed(), wrong: Vec::new() };
    match (open(&cell.inflicted(scene), OWN_SECRET, 0).await, expected.opens) {
        (Ok(repository), Opens::ForAll) => judge.all_verbs(&repository).await,
        (Ok(_), _) => judge.wrong("opening", "it is not refused"),
        (Err(error), Opens::ForAll) => judge.wrong("opening", &error.in_one_line()),
        (Err(error), Opens::ForNobody) => {
            judge.refusal(&error);
            match open(&cell.inflicted(scene), OTHER_SECRET, 0).await {
                Err(error) => judge.refusal(&error),
                Ok(_) => judge.wrong("opening", "it opens with the other key"),
            }
        }
        (Err(error), Opens::ForOthers) => {
            judge.refusal(&error);
            judge.secret = OTHER_SECRET;
            match open(&cell.inflicted(scene), OTHER_SECRET, 0).await {
                Ok(repository) => judge.all_verbs(&repository).await,
                Err(error) => judge.wrong("opening with the other key", &error.in_one_line()),
            }
        }
    }
    judge.wrong
}

struct Judge<'s> {
    scene: &'s Scene,
    cell: &'s Cell,
    expected: Expected,
    secret: u8,
    harmed: Vec<Stretch>,
    wrong: Vec<String>,
}

/// An error that says what is wrong with what is stored.
fn is_loud(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Invalid)
}

impl Judge<'_> {
    fn wrong(&mut self, verb: &str, what: &str) {
        self.wrong.push(format!("{:?} {:?}: {verb}: {what}", self.cell.kind, self.cell.harm));
    }

    async fn all_verbs(&mut self, repository: &Repository) {
        self.look(repository).await;
        self.compare(repository).await;
        self.copy(repository).await;
        self.back_up(false).await;
        self.back_up(true).await;
        self.prune().await;
    }

    /// Whether a text names an object that was harmed, or says what is said instead.
    fn names_object(&self, text: &str) -> bool {
        self.cell.objects().iter().any(|name| text.contains(name))
            || self.expected.instead.is_some_and(|words| text.contains(words))
    }

    /// The same, or its id, where the words are about a pack or a snapshot.
    fn names_it(&self, text: &str) -> bool {
        self.names_object(text) || self.cell.objects().iter().any(|name| text.contains(tail(name)))
    }

    fn is_harmed(&self, name: &str) -> bool {
        self.cell.objects().contains(name)
    }

    /// Whether an error of a copy is right: names cannot be read, and what was below a page that is lost nobody knows;
    /// or the harm is one of those for which a copy is denied.
    fn may_refuse_copy(&self, session: SessionName, error: &Error) -> bool {
        let denies = self.expected.denied.is_some() && error.kind() == ErrorKind::Denied;
        is_loud(error)
            && (self.scene.support.hides_names(session, &self.harmed)
                || denies && !self.touched(session).is_empty())
    }

    /// Whoever cannot open it is told which object is the reason.
    fn refusal(&mut self, error: &Error) {
        let text = format!("{} {}", error.in_one_line(), error.hint().unwrap_or_default());
        if !is_loud(error) || !self.names_object(&text) {
            self.wrong("opening", &text);
        }
    }

    /// Files of a snapshot that the harm may have changed; none if nothing has to see it.
    fn touched(&self, session: SessionName) -> BTreeSet<String> {
        match self.expected.seen {
            Seen::Never(_) => BTreeSet::new(),
            _ => self.scene.support.touched(session, &self.harmed),
        }
    }

    /// The visible snapshots of the scene; each other one needs what was harmed, and is named as unreadable.
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
            } else if session != forgotten {
                if !self.scene.support.hides(*session, &self.harmed) {
                    self.wrong("snapshots", &format!("{session} is gone, and needs nothing that was harmed"));
                }
                let named = list.unreadable.iter().any(|(name, _)| name == session);
                if !named && !self.is_untold(*session) {
                    self.wrong("snapshots", &format!("{session} is gone, and nothing says so"));
                }
            }
        }
        visible
    }

    /// Nothing but a memory of its own can tell that the newest snapshot of a source is gone, which no parent and no
    /// mark speaks of: the program keeps one for each machine.
    fn is_untold(&self, session: SessionName) -> bool {
        (self.cell.kind, self.cell.harm) == (Kind::Snapshot, Harm::Replayed) && session == self.scene.unmarked
    }

    async fn look(&mut self, repository: &Repository) {
        let visible = self.visible(repository).await;
        let mut back = Vec::new();
        for (session, truth) in &visible {
            match restored(repository, *session, truth).await {
                Ok(restored) if !restored.silent.is_empty() => {
                    self.wrong("restore", &format!("{session}: in silence {:?}", restored.silent));
                }
                Ok(restored) => {
                    self.contained("restore", *session, &restored);
                    back.push((*session, restored));
                }
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
            if seen >= self.expected.seen && !told.iter().any(|text| self.names_object(text)) {
                self.wrong("check", &format!("{level:?} does not name it, but {told:?}"));
            }
            if matches!(level, CheckLevel::Data) {
                self.agree(&report, &back);
            }
        }
    }

    /// Whatever does not need the bytes that were harmed is as it was.
    fn contained(&mut self, verb: &str, session: SessionName, restored: &Restored) {
        let touched = self.touched(session);
        let beyond: BTreeSet<&String> = restored.lost.difference(&touched).collect();
        if !beyond.is_empty() || touched.is_empty() && restored.error.is_some() {
            let error = &restored.error;
            self.wrong(verb, &format!("{session}: {beyond:?} need nothing that was harmed; {error:?}"));
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
        let hides_names = |session| self.scene.support.hides_names(session, &self.harmed);
        let (may_refuse, may_differ) = (hides_names(self.scene.last), hides_names(self.scene.moved));
        match names(&new).await {
            Ok(names) => {
                let truth = &self.scene.truth[&self.scene.last];
                if truth.keys().any(|path| !names.contains(path)) {
                    self.wrong("ls", "a name is missing in silence");
                }
            }
            Err(error) if may_refuse && is_loud(&error) => {}
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
            Err(error) if (may_refuse || may_differ) && is_loud(&error) => {}
            other => self.wrong("diff", &format!("{other:?} {changed:?}")),
        }
    }

    /// Whatever a copy leaves out needs what was harmed, and is named; few are refused.
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
                Err(error) if self.may_refuse_copy(snapshot.session, &error) => continue,
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
            self.contained("copy", snapshot.session, &back);
        }
    }

    /// A backup commits whatever was harmed: it stores again what it misses, or loses no more than was lost and lets
    /// check say so. After a check with notes there is nothing that it may lose.
    async fn back_up(&mut self, noted: bool) {
        let verb = if noted { "backup after a check" } else { "backup" };
        let Ok(repository) = open(&self.cell.inflicted(self.scene), self.secret, 0).await else { return };
        if noted && let Err(error) = self.check(&repository, CheckLevel::Data, None, true).await {
            self.wrong(verb, &format!("check: {}", error.in_one_line()));
            return;
        }
        let hosts: &[&str] = match self.cell.kind {
            Kind::ImagePack | Kind::ImageTreePack => &["one", "two", IMAGE],
            _ => &["one", "two"],
        };
        for host in hosts.iter().copied() {
            let source = self.scene.source(host);
            let session = match back_up(&repository, &source, host).await {
                Ok(report) => report.snapshot.expect("it commits").session,
                Err(error) => {
                    self.wrong(verb, &error.in_one_line());
                    continue;
                }
            };
            let truth = self.scene.tree(host).expect("the source can be read");
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
            let earlier = self.scene.truth.keys().flat_map(|session| self.touched(*session));
            let earlier: BTreeSet<String> = earlier.collect();
            if !back.lost.is_subset(&earlier) {
                self.wrong(verb, &format!("{host}: loses what needs nothing that was harmed: {back:?}"));
            }
            match self.check(&repository, CheckLevel::Data, Some(vec![session]), false).await {
                Ok((report, _)) if report.damaged == [session] => self.agree(&report, &[(session, back)]),
                other => self.wrong(verb, &format!("{host}: {back:?}, but check: {other:?}")),
            }
        }
    }

    /// Whatever a prune does: it says what it saw, and once the harm is undone, everything is there.
    async fn prune(&mut self) {
        let store = self.cell.inflicted(self.scene);
        for is_first in [true, false] {
            let repository = match open(&store, self.secret, 3).await {
                Ok(repository) => repository,
                Err(error) => return self.wrong("prune", &format!("opening: {}", error.in_one_line())),
            };
            match (prune(&repository).await, self.expected.pruned) {
                (Ok(told), Pruned::Named) if is_first => {
                    let text = format!("{:?}", told.problems());
                    if !self.names_it(&text) {
                        self.wrong("prune", &format!("ends without the name: {text}"));
                    }
                }
                (Ok(_), _) => {}
                (Err(error), Pruned::Named | Pruned::Perhaps(_)) if is_loud(&error) => {
                    // What the plan names is told before anything is done.
                    let told = planned(&repository).await;
                    let text = format!("{} {} {told}", error.in_one_line(), error.hint().unwrap_or_default());
                    if !self.names_it(&text) {
                        self.wrong("prune", &format!("stops without the name: {text}"));
                    }
                }
                (Err(error), _) => self.wrong("prune", &format!("stops: {}", error.in_one_line())),
            }
        }
        if matches!(self.expected.pruned, Pruned::Removed(_)) {
            let names = Scene::names(&store).await.expect("memory lists");
            let left: Vec<&String> = names.iter().filter(|name| self.is_harmed(name)).collect();
            if !left.is_empty() {
                self.wrong("prune", &format!("nothing needs {left:?}"));
            }
        }
        self.cell.heal(&store);
        let repository = match open(&store, OWN_SECRET, 3).await {
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
