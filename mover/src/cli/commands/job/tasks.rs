//! The tasks: each runs the verbs that `plan` names, and reads what came out of them in their summaries.

use std::sync::Arc;

use carrack_mover::{
    error::{Error, ErrorKind, Result},
    format::{
        records::{Snapshot, SourceKind},
        session::SessionName,
    },
    monitor::{Problem, unescape_path},
    repo::{Repository, SnapshotFilter},
};
use carrack_proto::{
    BackupOutput, BackupTask, ChangeTracking, Changes, ConnectOutput, Job, MaintainOutput, MaintainTask,
    NAMED_GONE, Output, Place, RestoreOutput, RestoreTask, Source, Task,
};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    changes::{self, ChangeList},
    memory, place, plan, read,
};
use crate::cli::{
    args::Command,
    commands::key::{self, KeyArgs, KeyWhat},
    context::Context,
    dispatch, engine,
    exit::Outcome,
    last_seen::{self, Gone},
    password::{self, Ask},
    record::Record,
};

/// The word for the newest snapshot.
const LATEST: &str = "latest";

/// One job at work.
#[derive(Debug)]
pub(super) struct Tasks<'j> {
    context: &'j Context,
    record: &'j Arc<Record>,
    job: &'j Job,
}

/// Body of `step`.
#[derive(Debug, Serialize)]
struct Step<'s> {
    arguments: &'s [String],
}

impl<'j> Tasks<'j> {
    pub(super) fn new(context: &'j Context, record: &'j Arc<Record>, job: &'j Job) -> Self {
        Self { context, record, job }
    }

    /// Does what the job asks for; what came out of it is in `output`, also of a part if the rest has failed.
    pub(super) async fn run(&self, output: &mut Option<Output>) -> Result<Outcome> {
        match &self.job.task {
            Task::Connect { initialise } => {
                *output = Some(Output::Connect(self.connect(*initialise).await?));
                Ok(Outcome::Done)
            }
            Task::Bundle { source, seal_key_file } => {
                *output = Some(Output::Bundle { sealed: self.bundle(source, seal_key_file).await? });
                Ok(Outcome::Done)
            }
            Task::Backup(task) => self.backup(task, output).await,
            Task::Restore(task) => self.restore(task, output).await,
            Task::Maintain(task) => self.maintain(task, output).await,
            Task::Forget { snapshot } => self.forget(snapshot, output).await,
        }
    }

    /// The verb of a command line, and what it works with.
    fn prepare(&self, verb: &[String]) -> Result<(Context, Command)> {
        let cli = plan::parse(self.job, verb)?;
        Ok((self.context.of_part(cli.global, self.record), cli.command))
    }

    /// Runs a verb, on a repository that is open if there is one.
    async fn verb(&self, words: &[String], opened: Option<Repository>) -> Result<Outcome> {
        let (mut context, command) = self.prepare(words)?;
        context.opened = opened;
        self.context.cancel.check()?;
        // A reader that is gone is no reason to end a backup: the result is what counts.
        drop(self.context.output.message("step", &Step { arguments: words }));
        Box::pin(dispatch(&context, command)).await
    }

    async fn open(&self) -> Result<Repository> {
        // Any verb will do: how to open the repository is the same for all.
        engine::open(&self.prepare(&plan::init())?.0).await
    }

    /// What was seen by whoever wrote the job and is not there; what nothing explains is named.
    async fn look_back(&self, repository: &Repository) -> Result<Gone> {
        let gone = memory::of(&self.job.last_seen).gone(repository).await?;
        let (context, _) = self.prepare(&plan::init())?;
        for Problem { what, message } in gone.missing.iter().map(last_seen::problem) {
            context.output.problem(&what, &message);
        }
        Ok(gone)
    }

    async fn connect(&self, initialise: bool) -> Result<ConnectOutput> {
        let is_there = |repository: Repository| ConnectOutput {
            id: repository.format().repository.to_hex(),
            initialised: false,
        };
        let place = self.prepare(&plan::init())?.0.config()?.place;
        // A key that is not there does not mean that the repository is not.
        drop(password::obtain(&place.secret, &place.url, Ask::Once)?);
        match self.open().await {
            Ok(repository) => return Ok(is_there(repository)),
            Err(error) if initialise && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.verb(&plan::init(), None).await {
            Ok(_) => Ok(ConnectOutput { id: text(&self.record.take_summary(), "id"), initialised: true }),
            // Somebody else has made it meanwhile.
            Err(error) if error.kind() == ErrorKind::Conflict => self.open().await.map(is_there),
            Err(error) => Err(error),
        }
    }

    /// The sealed bundle; it is printed nowhere.
    async fn bundle(&self, source: &Source, seal_key_file: &str) -> Result<String> {
        let seal = read::seal_key(seal_key_file)?;
        let (context, command) = self.prepare(&plan::bundle(source))?;
        let Command::Key(KeyArgs { what: KeyWhat::Bundle { host, path } }) = command else {
            return Err(Error::internal("the command line of a bundle is that of another verb"));
        };
        let bundle = key::writer_bundle(&context, host.as_deref(), &path).await?;
        let text = serde_json::to_vec(&bundle)
            .map_err(|error| Error::internal("the bundle cannot be written").with_source(error))?;
        seal.seal(&Zeroizing::new(text))
            .map_err(|error| Error::internal("the bundle cannot be sealed").with_source(error))
    }

    async fn backup(&self, task: &BackupTask, output: &mut Option<Output>) -> Result<Outcome> {
        place::require(&task.source.place)?;
        let left_out = place::lost_and_found(&task.source.place);
        let (mut opened, mut changes) = self.changes(task).await?;
        let mut missing = 0;
        if !self.job.last_seen.is_empty() {
            let repository = match opened.take() {
                Some(repository) => repository,
                None => self.open().await?,
            };
            missing = self.look_back(&repository).await?.missing.len() as u64;
            opened = Some(repository);
        }
        let list = changes.as_ref().and_then(|known| known.as_ref().ok());
        let by_list = list.is_some();
        let mut done = self.verb(&plan::backup(task, left_out.as_deref(), list)?, opened).await;
        // Who goes by a list needs all of the parent; who reads everything does not.
        if let Err(error) = &done
            && by_list
            && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
        {
            changes = Some(Err(format!("by the list it failed: {error}")));
            done = self.verb(&plan::backup(task, left_out.as_deref(), None)?, None).await;
        }
        let outcome = done?;
        let summary = self.record.take_summary();
        if let Some(Ok(list)) = &changes
            && number(&summary, "files_new") > 0
        {
            changes = Some(Err(format!("snapshot {} could not be used", list.parent())));
        }
        *output = Some(Output::Backup(BackupOutput {
            snapshot: summary["session"].as_str().map(str::to_owned),
            started: summary["time"].as_str().and_then(|time| time.parse().ok()),
            logical_bytes: number(&summary, "total_bytes_processed"),
            read_bytes: number(&summary, "bytes_read"),
            added_bytes: number(&summary, "data_added"),
            stored_bytes: number(&summary, "data_added_packed"),
            files: number(&summary, "total_files_processed"),
            excluded: number(&summary, "excluded"),
            changes: changes.map(|known| match known {
                Ok(list) => Changes::Listed { bytes: list.bytes() },
                Err(because) => Changes::Unknown { because },
            }),
        }));
        Ok(outcome.and(Outcome::of_problems(missing)))
    }

    /// What the storage says has changed, if it is to be asked, and the repository that was opened for it.
    async fn changes(
        &self,
        task: &BackupTask,
    ) -> Result<(Option<Repository>, Option<Result<ChangeList, String>>)> {
        let (Some(ChangeTracking { state, list: Some(list) }), Place::Device(device)) =
            (&task.changes, &task.source.place)
        else {
            return Ok((None, None));
        };
        let repository = self.open().await?;
        let known = changes::ask(&repository, task, (state, list), device).await?;
        if let Err(because) = &known {
            tracing::info!(because, "all of the device is read");
        }
        Ok((Some(repository), Some(known)))
    }

    async fn restore(&self, task: &RestoreTask, output: &mut Option<Output>) -> Result<Outcome> {
        place::require(&task.target.place)?;
        let repository = self.open().await?;
        let missing = self.look_back(&repository).await?.missing.len() as u64;
        let snapshot = choose(&repository, task).await?;
        require_same_kind(&snapshot, &task.target.place)?;
        let session = snapshot.session.to_string();
        let words = plan::restore(task, &session, &root(&snapshot)?);
        let outcome = self.verb(&words, Some(repository)).await?;
        let summary = self.record.take_summary();
        *output = Some(Output::Restore(RestoreOutput {
            snapshot: session,
            files: number(&summary, "files"),
            bytes: number(&summary, "bytes"),
            fetched_bytes: number(&summary, "bytes_fetched"),
            verified_files: number(&summary, "files_verified"),
        }));
        if task.strict && outcome == Outcome::Partial {
            return Err(Error::new(ErrorKind::Incomplete, "restored, but not all of it").with_hint(
                "see what could not be, and restore again: what is there already is not written again",
            ));
        }
        Ok(outcome.and(Outcome::of_problems(missing)))
    }

    async fn maintain(&self, task: &MaintainTask, output: &mut Option<Output>) -> Result<Outcome> {
        let verbs = plan::maintain(task)?;
        let mut done = MaintainOutput::default();
        let mut outcome = Outcome::Done;
        if !self.job.last_seen.is_empty() {
            let gone = self.look_back(&self.open().await?).await?;
            done.gone = gone.all().count() as u64;
            done.missing = gone.missing.len() as u64;
            done.first_gone = gone.all().take(NAMED_GONE).map(|session| session.to_string()).collect();
            *output = Some(Output::Maintain(done.clone()));
            // What is left of them may be needed to bring them back.
            let deletes = task.prune || !task.keep.is_empty();
            if let Some(refusal) = last_seen::refusal(&gone.missing).filter(|_| deletes) {
                return Err(refusal.with_hint(
                    "nothing was deleted: see carrack snapshots, and who can write to the store; whoever expects those \
                     snapshots no more can run it again",
                ));
            }
            outcome = Outcome::of_problems(done.missing);
        }
        for words in verbs {
            outcome = outcome.and(self.verb(&words, None).await?);
            let summary = self.record.take_summary();
            match words[0].as_str() {
                "forget" => done.forgotten = length(&summary, "forgotten"),
                "prune" => {
                    done.freed_bytes = number(&summary, "deleted_bytes");
                    let before = number(&self.record.take_prune_plan(), "bytes");
                    let after = before.saturating_sub(done.freed_bytes) + number(&summary["repack"], "bytes");
                    done.repository_bytes = Some(after);
                }
                _ => {
                    done.checked_snapshots = number(&summary, "snapshots");
                    done.damaged_objects = number(&summary, "damages");
                }
            }
            *output = Some(Output::Maintain(done.clone()));
        }
        Ok(outcome)
    }

    async fn forget(&self, snapshot: &str, output: &mut Option<Output>) -> Result<Outcome> {
        let session: SessionName = snapshot.parse().map_err(|error: Error| {
            Error::invalid(format!("the job cannot be done: {error}"))
                .with_hint("give the full name of the snapshot's session")
        })?;
        let repository = self.open().await?;
        let list = repository.snapshots().await?;
        let known = list.snapshots.iter().any(|snapshot| snapshot.session == session)
            || list.unreadable.iter().any(|(name, _)| *name == session);
        if !known {
            // Whoever asked before was not told that it had been done.
            *output = Some(Output::Forget { forgotten: 0 });
            return Ok(Outcome::Done);
        }
        let outcome = self.verb(&plan::forget(snapshot), Some(repository)).await?;
        *output = Some(Output::Forget { forgotten: length(&self.record.take_summary(), "forgotten") });
        Ok(outcome)
    }
}

/// The snapshot that a restore means.
async fn choose(repository: &Repository, task: &RestoreTask) -> Result<Snapshot> {
    let filter = SnapshotFilter { hosts: task.host.iter().cloned().collect(), ..SnapshotFilter::default() };
    if task.snapshot == LATEST {
        if filter.is_empty() {
            return Err(Error::invalid("the latest snapshot is meant, and not said of which host")
                .with_hint("give the host, or the session of a snapshot"));
        }
        let previous = task.previous.unwrap_or_default() as usize;
        return repository.latest(&filter, task.as_of, previous).await;
    }
    if task.as_of.is_some() || task.previous.is_some() {
        return Err(Error::invalid("asOf and previous go with the latest snapshot, and one is named")
            .with_hint("leave them out, or ask for latest"));
    }
    repository.find_snapshot(&task.snapshot, &filter).await
}

/// A verb would write the only file of a tree onto a device: people do that on purpose, and programs by mistake.
fn require_same_kind(snapshot: &Snapshot, place: &Place) -> Result<()> {
    let (holds, wanted) = match (snapshot.source, place) {
        (SourceKind::Block, Place::Directory(_)) => ("a device", "a raw block volume"),
        (SourceKind::Files | SourceKind::Stdin, Place::Device(_)) => ("files", "a volume with a file system"),
        _ => return Ok(()),
    };
    let path = place.path();
    Err(Error::invalid(format!(
        "snapshot {} holds {holds}, and {path} is no place for that",
        snapshot.session
    ))
    .with_hint(format!("restore it to {wanted}")))
}

/// The directory of a snapshot that becomes the target: its only source, or all of it if it has several.
fn root(snapshot: &Snapshot) -> Result<String> {
    let [only] = snapshot.paths.as_slice() else { return Ok(String::new()) };
    unescape_path(only).and_then(|path| String::from_utf8(path).ok()).ok_or_else(|| {
        Error::invalid(format!("the path {only} of snapshot {} is not UTF-8", snapshot.session))
            .with_hint("restore it with: carrack restore")
    })
}

fn number(message: &Value, field: &str) -> u64 {
    message[field].as_u64().unwrap_or_default()
}

fn length(message: &Value, field: &str) -> u64 {
    message[field].as_array().map_or(0, |list| list.len() as u64)
}

fn text(message: &Value, field: &str) -> String {
    message[field].as_str().unwrap_or_default().to_owned()
}
