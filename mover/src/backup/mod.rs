//! Backing up: a source becomes a snapshot.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{
        records::{ProblemRecord, Snapshot, SourceKind, Statistics},
        session::{SessionKind, SessionName},
    },
    id::LineageId,
    limits,
    monitor::{CollectMonitor, Monitor, Problem, Progress, escape_path},
    repo::{Repository, Session},
    source::reads::Reads,
};

/// What is said of a file that was not the same from beginning to end.
pub(crate) const CHANGED_WHILE_READ: &str =
    "it changed while it was read: the backup holds a mixture of before and after";

mod allowance;
mod assemble;
mod attempt;
mod changes;
mod checkpoint;
mod compare;
mod copied;
mod dispatch;
mod earlier;
mod engine;
mod extents;
mod fetch;
mod hints;
mod image;
mod memory;
mod options;
mod parent;
mod queue;
mod repeats;
mod resume;
mod silence;
#[cfg(test)]
mod tests;
mod vouch;
mod worker;

use attempt::{Ended, attempt};
use engine::{Outcome, Plan};
pub use options::{BackupOptions, BackupSource, CipherChoice, CompressionChoice, ParentChoice};
use options::{settle_paths, source_kind, source_paths, suite};
pub use resume::Continued;
use silence::{LeftOut, Silence};

/// What came of it.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot; none if nothing was committed because nothing had changed.
    pub snapshot: Option<Snapshot>,
    /// Things that could not be read or kept. More than none makes the result partial.
    pub problems: u64,
    /// Objects of the repository that could not be believed, so that everything was stored again.
    pub doubts: u64,
    /// What the checkpoint of an earlier run that did not finish saved.
    pub continued: Continued,
}

/// Backs up a source. What of a tree of files does not answer in time is left out, in a further attempt that goes on from what
/// the one before had done.
pub async fn backup(
    repository: &Repository,
    mut options: BackupOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<BackupReport> {
    if options.memory_bytes < limits::MEMORY_MIN {
        return Err(Error::invalid(format!(
            "a backup needs at least {} MiB of memory",
            limits::MEMORY_MIN >> 20
        )));
    }
    let started = copied::started(&options.source).unwrap_or_else(|| repository.world().clock.now());
    settle_paths(&mut options.source)?;
    let paths = source_paths(&options.source)?;
    let lineage = repository.lineage(&options.host, &paths);
    let mut left_out = LeftOut::of(&options.source, &paths);
    let (mut options, mut told, mut is_first) = (Arc::new(options), Vec::new(), true);
    loop {
        let session = Arc::new(repository.begin(SessionKind::Backup, lineage, suite(options.cipher)).await?);
        let watch =
            Watch { monitor: Arc::clone(&monitor), cancel: cancel.clone(), is_first, told: &mut told };
        let doubts = watch.doubts(&session);
        let done = run_session(repository, &options, &session, (started, &paths), watch).await;
        let reason = match &done {
            Ok(Done::Committed(_)) => None,
            Ok(Done::Silent(_)) => Some("a part of its source did not answer"),
            Err(_) => Some("the backup failed"),
        };
        // So that maintenance need not wait for it. Where this does not arrive, it is shut out when it is overdue.
        if let Some(reason) = reason
            && let Err(error) = session.abandon(reason).await
        {
            tracing::info!(%error, "the session has no end");
        }
        match done? {
            Done::Committed(report) => return Ok(BackupReport { doubts, ..*report }),
            Done::Silent(silences) => left_out.add(silences).map_err(Silence::into_error)?,
        }
        left_out.apply(&mut Arc::make_mut(&mut options).source);
        is_first = false;
    }
}

/// What became of one session.
enum Done {
    /// The backup is done.
    Committed(Box<BackupReport>),
    /// It was given up, for this did not answer.
    Silent(Vec<Silence>),
}

/// Who hears of one session, and may stop it.
struct Watch<'w> {
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
    /// Whether it is the first one of its backup.
    is_first: bool,
    /// What earlier sessions of the same backup told, which nobody has to hear again.
    told: &'w mut Vec<Problem>,
}

impl Watch<'_> {
    /// Tells what cannot be believed; answers how much that is.
    fn doubts(&self, session: &Session) -> u64 {
        let doubts: Vec<Problem> = session.doubts().collect();
        let new = doubts.iter().filter(|doubt| !self.told.contains(doubt));
        new.for_each(|doubt| self.monitor.problem(doubt.clone()));
        doubts.len() as u64
    }
}

/// The snapshot that a backup of this source by this host would be compared with, if it were begun now.
pub async fn parent_of(
    repository: &Repository,
    host: &str,
    source: &BackupSource,
) -> Result<Option<Snapshot>> {
    let lineage = repository.lineage(host, &source_paths(source)?);
    latest(repository, lineage, source_kind(source)).await
}

/// One attempt of a backup, within its session.
async fn run_session(
    repository: &Repository,
    options: &Arc<BackupOptions>,
    session: &Arc<Session>,
    (started, paths): (Timestamp, &[Vec<u8>]),
    watch: Watch<'_>,
) -> Result<Done> {
    let Watch { monitor, cancel, is_first, told } = watch;
    monitor.phase("reading what the repository knows");
    let plan = Plan::new(repository, options, Arc::clone(session), started).await?;
    let progress = monitor.progress();
    if is_first {
        expect(progress, &options.source, plan.parent());
    }
    let counted = [&progress.bytes, &progress.entries].map(|counter| (counter, Progress::get(counter)));
    let reads = Arc::new(Reads::default());
    let given_up = reads.given_up().clone();
    let (inner, kept) = (Arc::clone(&monitor), CollectMonitor::default());
    let noted = Arc::new(Noting { inner, kept, told: told.clone(), given_up });
    let ended = attempt(repository, options, plan, (Arc::clone(&noted), reads), &cancel).await?;
    // Asked to stop, nothing is committed; and threads that stopped each other speak with one voice.
    cancel.check()?;
    match ended {
        Ended::Over(outcome) => {
            let report = finish((*outcome)?, options, &noted, started, paths).await?;
            Ok(Done::Committed(Box::new(report)))
        }
        Ended::Silent(silences) => {
            counted.iter().for_each(|(counter, amount)| Progress::take_back(counter, *amount));
            told.extend(session.doubts());
            told.extend(noted.kept.problems());
            Ok(Done::Silent(silences))
        }
    }
}

/// How much there will be, as far as known: of a source that nobody counts first, as much as the last time. Devices
/// and snapshots say their size themselves.
fn expect(progress: &Progress, source: &BackupSource, parent: Option<&Snapshot>) {
    let uncounted = matches!(source, BackupSource::Files(_) | BackupSource::Stdin { .. });
    if let Some(Snapshot { statistics, .. }) = parent.filter(|_| uncounted) {
        // The numbers of a snapshot may be any.
        let entries = [
            statistics.files_new,
            statistics.files_changed,
            statistics.files_unmodified,
            statistics.directories,
            statistics.others,
        ];
        Progress::add(&progress.bytes_expected, statistics.bytes_total);
        Progress::add(&progress.entries_expected, entries.into_iter().fold(0, u64::saturating_add));
    }
}

async fn finish(
    outcome: Outcome,
    options: &BackupOptions,
    noted: &Noting,
    started: Timestamp,
    paths: &[Vec<u8>],
) -> Result<BackupReport> {
    let Outcome { session, assembled, continued, keys, segment, join, parent, source, grid } = outcome;
    let problems = Progress::get(&noted.kept.progress().problems);
    let same_tree = parent.as_ref().is_some_and(|parent| parent.root == assembled.root);
    if options.skip_if_unchanged && same_tree && problems == 0 {
        session.abandon("nothing had changed").await?;
        return Ok(BackupReport { snapshot: None, problems, doubts: 0, continued });
    }
    if options.strict && problems > 0 {
        return Err(incomplete(problems, noted.kept.problems().first()));
    }
    noted.phase("committing");
    session.put_joined(join, &segment).await?;
    let mut snapshot = Snapshot {
        version: 1,
        session: session.name(),
        source,
        host: options.host.clone(),
        user: options.user.clone(),
        paths: paths.iter().map(|path| escape_path(path)).collect(),
        tags: options.tags.clone(),
        started,
        finished: session.world().clock.now(),
        parent: parent.map(|parent| parent.session),
        grid,
        change_id: match &options.source {
            BackupSource::Block { change_id, .. } => change_id.clone(),
            _ => None,
        },
        root: assembled.root,
        depth: assembled.depth,
        sessions: keys,
        statistics: Statistics { problems, ..assembled.statistics },
        problems: noted
            .kept
            .problems()
            .into_iter()
            .take(PROBLEMS_RECORDED)
            .map(|problem| ProblemRecord { path: problem.what, message: problem.message })
            .collect(),
        program: concat!("carrack ", env!("CARGO_PKG_VERSION")).to_owned(),
        copied_from: None,
    };
    copied::keep_record(&mut snapshot, &options.source);
    session.commit(&snapshot).await?;
    Ok(BackupReport { snapshot: Some(snapshot), problems, doubts: 0, continued })
}

/// Why there is no snapshot, though all of it was read that could be.
fn incomplete(problems: u64, first: Option<&Problem>) -> Error {
    let first = first.map(|problem| format!(", first of all {}: {}", problem.what, problem.message));
    Error::new(
        ErrorKind::Incomplete,
        format!("no snapshot is written: not all could be read{}", first.unwrap_or_default()),
    )
    .with_hint(format!("put right what is named ({problems} in all), or leave --strict out"))
}

/// Problems that a snapshot lists; its statistics have the number of all.
const PROBLEMS_RECORDED: usize = 100;

/// What a backup is compared with.
async fn parent(
    repository: &Repository,
    options: &BackupOptions,
    lineage: LineageId,
) -> Result<Option<Snapshot>> {
    match options.parent {
        ParentChoice::None => Ok(None),
        ParentChoice::Latest => latest(repository, lineage, source_kind(&options.source)).await,
        ParentChoice::Session(name) => repository.snapshot(name).await.map(Some),
    }
}

/// The newest snapshot of the same kind of source: an image and a file under the same path have nothing in common
/// but their name.
async fn latest(repository: &Repository, lineage: LineageId, kind: SourceKind) -> Result<Option<Snapshot>> {
    // A parent only saves work: one that cannot be read, or is gone by now, is passed over and named.
    let tell = |name: SessionName, error: &Error| {
        tracing::warn!(snapshot = %name, %error, "it does not serve as parent");
    };
    repository.newest(&format!("b{lineage}"), |snapshot| snapshot.source == kind, tell).await
}

/// Passes everything on, and keeps the problems for the snapshot's record.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn Monitor>,
    kept: CollectMonitor,
    /// What an earlier attempt told: it belongs into the record, and nobody has to hear it again.
    told: Vec<Problem>,
    /// Whether this attempt is given up: what its threads still meet concerns nobody.
    given_up: Cancel,
}

impl Monitor for Noting {
    fn progress(&self) -> &Progress {
        self.inner.progress()
    }

    fn phase(&self, name: &str) {
        self.inner.phase(name);
    }

    fn problem(&self, problem: Problem) {
        if self.given_up.is_cancelled() {
            return;
        }
        self.kept.problem(problem.clone());
        if !self.told.contains(&problem) {
            self.inner.problem(problem);
        }
    }

    fn slow_source(&self, path: &[u8], seconds: u64) {
        self.inner.slow_source(path, seconds);
    }
}
