//! The newest snapshot of each source that this machine has seen, or whoever gave it a job. A store cannot prove that it is
//! not an old state of itself; who remembers what was there can tell. The file is a hint: without it there is no warning, and
//! no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use carrack_mover::{
    error::{Error, Result},
    format::session::SessionName,
    id::LineageId,
    monitor::Problem,
    repo::Repository,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{config::Environment, context::environment, units};

/// How the name of a file begins that is being written, and no file of others: the directory may be theirs too.
const UNFINISHED: &str = ".carrack-new-";
/// Whoever began one so long ago was killed.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3600);

/// What is kept of one repository.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    newest: Vec<Seen>,
}

/// The newest snapshot of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) session: SessionName,
    pub(crate) started: Timestamp,
}

/// Snapshots that were seen and are not in view.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// Those that nobody forgot and that no newer one of their source follows.
    pub(crate) missing: Vec<Seen>,
    /// All others.
    pub(crate) explained: Vec<SessionName>,
}

impl Gone {
    /// All of them, first those that are missing: nobody needs to expect them any more.
    pub(crate) fn all(&self) -> impl Iterator<Item = SessionName> {
        self.missing.iter().map(|seen| seen.session).chain(self.explained.iter().copied())
    }
}

/// The memory of one repository.
#[derive(Debug)]
pub(crate) struct LastSeen {
    file: Option<PathBuf>,
    newest: BTreeMap<LineageId, Seen>,
}

impl LastSeen {
    /// As it was kept. What cannot be read is as good as nothing.
    pub(crate) fn of(repository: &Repository) -> Self {
        let name = format!("{}.json", repository.format().repository);
        let file = directory(&environment).map(|directory| directory.join(name));
        let kept = file.as_ref().and_then(|file| fs::read(file).ok());
        let kept: Kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let newest = kept.newest.into_iter().map(|seen| (seen.session.lineage, seen)).collect();
        Self { file, newest }
    }

    /// What somebody else has seen. It is kept nowhere.
    pub(crate) fn given(seen: impl IntoIterator<Item = Seen>) -> Self {
        let mut given = Self { file: None, newest: BTreeMap::new() };
        given.see(seen);
        given
    }

    /// Snapshots that were seen and are not there, without a trace of a forget and without a newer one of their
    /// source. Forgetting by rules leaves the newest; so these were given up by name and cleaned up days ago, or the store
    /// is an old state of itself.
    pub(crate) async fn missing(&self, repository: &Repository) -> Result<Vec<Seen>> {
        Ok(self.gone(repository).await?.missing)
    }

    /// The same, with those whose end is known.
    pub(crate) async fn gone(&self, repository: &Repository) -> Result<Gone> {
        let mut gone = Gone::default();
        let Some(prefix) = self.common_prefix() else { return Ok(gone) };
        let now = Timestamp::now();
        let visible: BTreeSet<SessionName> = repository.visible(&prefix).await?.into_iter().collect();
        for seen in self.newest.values().filter(|seen| !visible.contains(&seen.session)) {
            if repository.was_forgotten(seen.session).await? {
                gone.explained.push(seen.session);
                continue;
            }
            let mut newer = false;
            for name in repository.visible(&format!("b{}", seen.session.lineage)).await? {
                // One that cannot be read is named elsewhere, and proves nothing here.
                match repository.snapshot(name).await {
                    Ok(snapshot) => newer |= snapshot.started.min(now) >= seen.started.min(now),
                    Err(error) if error.is_of_the_run() => return Err(error),
                    Err(_) => {}
                }
            }
            if newer {
                gone.explained.push(seen.session);
            } else {
                gone.missing.push(*seen);
            }
        }
        Ok(gone)
    }

    /// What the names of all that were seen begin with: most hosts know of one source, and need no others listed.
    fn common_prefix(&self) -> Option<String> {
        let (first, last) = (self.newest.values().next()?, self.newest.values().next_back()?);
        let (first, last) = (first.session.to_string(), last.session.to_string());
        let same = first.bytes().zip(last.bytes()).take_while(|(one, other)| one == other).count();
        Some(first[..same].to_owned())
    }

    /// Keeps the newer of what was known and what is there now. A clock that was ahead, or a writer who says so, must not have
    /// one outlive all that come after it: what lies in the future is as of now, and what was kept of it makes way.
    pub(crate) fn see(&mut self, snapshots: impl IntoIterator<Item = Seen>) {
        let now = Timestamp::now();
        for seen in snapshots {
            let seen = Seen { started: seen.started.min(now), ..seen };
            let kept = self.newest.entry(seen.session.lineage).or_insert(seen);
            if kept.started > now || kept.started < seen.started {
                *kept = seen;
            }
        }
    }

    /// What was told once, or is to go, is not expected any more.
    pub(crate) fn drop_all<'s>(&mut self, sessions: impl IntoIterator<Item = &'s SessionName>) {
        for session in sessions {
            self.newest.retain(|_, seen| seen.session != *session);
        }
    }

    /// Writes it down, in one step that no loss of power tears. Where that does not work there is nothing to warn of later.
    pub(crate) fn keep(&self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = self.write(file) {
            tracing::info!(file = %file.display(), %error, "what was seen of the repository is not kept");
        }
    }

    fn write(&self, file: &Path) -> Result<()> {
        let failed = |error: std::io::Error| Error::io(error, format!("writing {}", file.display()));
        let directory = file.parent().ok_or_else(|| Error::internal("a file without a directory"))?;
        fs::create_dir_all(directory).map_err(failed)?;
        let kept = Kept { newest: self.newest.values().copied().collect() };
        let bytes = serde_json::to_vec(&kept)
            .map_err(|error| Error::internal("what was seen cannot be written").with_source(error))?;
        sweep(directory);
        let mut new = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory).map_err(failed)?;
        new.write_all(&bytes).map_err(failed)?;
        // A name can be on the medium before what it leads to: then neither the new nor the old memory were there.
        new.as_file().sync_all().map_err(failed)?;
        new.persist(file).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// Takes away what programs have left that were killed while they wrote.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let age = written.and_then(|at| at.elapsed().ok());
        if is_unfinished && age.is_some_and(|age| age >= UNFINISHED_AGE) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// Where programs keep what is neither settings nor data.
fn directory(environment: Environment<'_>) -> Option<PathBuf> {
    let path = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path("CARRACK_STATE_DIR")
        .or_else(|| path("XDG_STATE_HOME").map(|state| state.join("carrack")))
        .or_else(|| path("HOME").map(|home| home.join(".local/state/carrack")))
}

/// What is said of a snapshot that is missing.
pub(crate) fn problem(seen: &Seen) -> Problem {
    Problem {
        what: format!("snapshot {}", seen.session.nonce.short()),
        message: format!(
            "of {}: it was seen before, it is gone, and there is nothing newer of its source; unless somebody gave it \
             up by name, an old state of the store was put back",
            units::moment(seen.started)
        ),
    }
}

/// Fails before anything is deleted, once: whoever runs it again has looked.
pub(crate) async fn refuse_missing(repository: &Repository, memory: &mut LastSeen) -> Result<()> {
    let missing = memory.missing(repository).await?;
    let Some(refusal) = refusal(&missing) else { return Ok(()) };
    memory.drop_all(missing.iter().map(|seen| &seen.session));
    memory.keep();
    Err(refusal.with_hint(
        "see carrack snapshots, and who can write to the store; if all is well, run the same command again",
    ))
}

/// Why nothing is deleted; nothing if nothing is missing.
pub(crate) fn refusal(missing: &[Seen]) -> Option<Error> {
    let Problem { what, message } = problem(missing.first()?);
    let others = match missing.len() {
        1 => String::new(),
        count => format!(" ({} more)", count - 1),
    };
    Some(Error::conflict(format!("{what}{others} {message}")))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use carrack_mover::{format::session::SessionKind, id::SessionNonce};

    use super::*;

    #[test]
    fn no_more_is_listed_than_names_that_begin_as_what_was_seen() {
        let seen = |lineage| Seen {
            session: SessionName {
                kind: SessionKind::Backup,
                lineage: LineageId(lineage),
                nonce: SessionNonce([7; 16]),
            },
            started: Timestamp::UNIX_EPOCH,
        };
        let mut last_seen = LastSeen::given([]);
        assert_eq!(last_seen.common_prefix(), None);
        last_seen.see([seen([0x12; 8])]);
        assert_eq!(last_seen.common_prefix(), Some(seen([0x12; 8]).session.to_string()));
        last_seen.see([seen([0x12, 0x34, 0, 0, 0, 0, 0, 0])]);
        assert_eq!(last_seen.common_prefix().as_deref(), Some("b12"));
        last_seen.see([seen([0xff; 8])]);
        assert_eq!(last_seen.common_prefix().as_deref(), Some("b"));
    }

    #[test]
    fn what_lies_in_the_future_is_as_of_now_and_makes_way() {
        let lineage = LineageId([1; 8]);
        let seen = |nonce, started| Seen {
            session: SessionName { kind: SessionKind::Backup, lineage, nonce: SessionNonce([nonce; 16]) },
            started,
        };
        let ahead = seen(1, Timestamp::MAX);
        let given = LastSeen::given([ahead]).newest[&lineage];
        assert_eq!(given.session, ahead.session);
        assert!(given.started <= Timestamp::now());

        let mut kept = LastSeen { file: None, newest: BTreeMap::from([(lineage, ahead)]) };
        let [old, new] =
            [(2, 10), (3, 20)].map(|(nonce, second)| seen(nonce, Timestamp::from_second(second).unwrap()));
        for (next, newest) in [(old, old), (new, new), (old, new)] {
            kept.see([next]);
            assert_eq!(kept.newest[&lineage], newest);
        }
    }

    #[test]
    fn of_all_that_is_gone_the_missing_come_first() {
        let session = |nonce| SessionName {
            kind: SessionKind::Backup,
            lineage: LineageId([1; 8]),
            nonce: SessionNonce([nonce; 16]),
        };
        let missing = vec![Seen { session: session(2), started: Timestamp::UNIX_EPOCH }];
        let gone = Gone { missing, explained: vec![session(1), session(3)] };
        assert_eq!(gone.all().collect::<Vec<_>>(), [2, 1, 3].map(session));
    }

    #[test]
    fn what_a_killed_program_has_left_goes_after_a_day() {
        let directory = tempfile::tempdir().unwrap();
        for (name, days) in
            [(".carrack-new-old", 2_u32), (".carrack-new-young", 0), (".new-theirs", 2), ("other.json", 2)]
        {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - days * UNFINISHED_AGE).unwrap();
        }
        let file = directory.path().join("own.json");
        LastSeen { file: Some(file.clone()), newest: BTreeMap::new() }.keep();
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(
            names.collect::<BTreeSet<_>>(),
            BTreeSet::from([".carrack-new-young", ".new-theirs", "other.json", "own.json"].map(Into::into))
        );
        assert_eq!(fs::read(file).unwrap(), br#"{"newest":[]}"#);
    }
}
