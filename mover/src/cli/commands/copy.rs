//! `carrack copy`: copies snapshots into another repository.

use std::{path::PathBuf, time::Duration};

use carrack_mover::{
    backup::BackupReport,
    copy::{self, CopyOptions, CopyPlan},
    error::{Error, ErrorKind, Result},
    format::{records::Snapshot, session::SessionKind},
    limits,
    repo::Repository,
};
use clap::Args;
use serde::Serialize;

use super::snapshots;
use crate::cli::{
    args::{FilterArgs, FromStoreArgs},
    config::{Config, FromArgs, Place},
    context::{Context, environment},
    engine,
    exit::Outcome,
    units,
};

/// Copy snapshots from another repository into this one
///
/// Data is decrypted, and encrypted again with this repository's keys. What is here already is not stored again, and
/// a snapshot that was copied before (or comes from here) is passed over. A copy keeps host, user, paths, tags and
/// times, and says where it comes from. Pins and marks of checks are not copied: they speak of the other repository.
///
/// A file that the other repository cannot give whole is left out and named, and the exit code is then 3. Stopping
/// is safe at any moment: run the same command again, and it goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack -r s3://bucket/copy copy --from-repo /srv/backup --from-password-file old.txt
  carrack -r /mnt/usb copy --from-repo /srv/backup --host db1 latest")]
pub(crate) struct CopyArgs {
    /// Snapshots to copy [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Say what would be copied, and copy nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Least time between two checkpoints, from which a retry goes on after a kill
    #[arg(long, value_name = "SECONDS", default_value_t = limits::CHECKPOINT_INTERVAL.as_secs())]
    #[arg(value_parser = units::parse_count::<u64>, allow_negative_numbers = true, hide_short_help = true)]
    pub(crate) checkpoint_interval: u64,
    #[command(flatten)]
    pub(crate) from: FromRepositoryArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// Which repository is copied from, and what opens it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Copied from")]
pub(crate) struct FromRepositoryArgs {
    /// Repository to copy from [env: CARRACK_FROM_REPOSITORY]
    #[arg(long, value_name = "PLACE")]
    pub(crate) from_repo: Option<String>,
    /// File whose first line is its password [env: CARRACK_FROM_PASSWORD_FILE, or the password in CARRACK_FROM_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_password_file: Option<PathBuf>,
    /// Command that prints its password [env: CARRACK_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", conflicts_with = "from_password_file")]
    pub(crate) from_password_command: Option<String>,
    /// File with its 256-bit secret [env: CARRACK_FROM_KEY_FILE]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_password_file", "from_password_command"])]
    pub(crate) from_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: FromStoreArgs,
}

pub(crate) async fn run(context: &Context, args: &CopyArgs) -> Result<Outcome> {
    let config = context.config()?;
    let from_place = from_place(&args.from)?;
    let to = engine::open_place(context, engine::store(&config).await?, &config.place).await?;
    let from = open_from(context, &args.from, &config, &from_place).await?;
    let (plan, unreadable) = plan(context, args, &from, &to).await?;
    if args.dry_run {
        return dry_run(context, &plan, unreadable);
    }
    let mut totals = Totals { problems: unreadable, ..Totals::default() };
    let started = context.world.clock.monotonic();
    let options = CopyOptions {
        cipher: engine::cipher(config.cipher),
        compression: engine::compression(config.compression),
        memory_bytes: config.memory_bytes,
        threads: context.threads(),
        checkpoint_interval: Duration::from_secs(args.checkpoint_interval),
    };
    let mut first_error = None;
    for snapshot in &plan.copy {
        let watch = context.watch("copy");
        let done = copy::copy(&from, &to, snapshot, &options, watch.monitor(), context.cancel.clone()).await;
        drop(watch);
        match done {
            Ok(report) => totals.take(context, snapshot, &report)?,
            // The others may be whole, and need no repack that cannot be believed.
            Err(error)
                if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Denied) =>
            {
                totals.failed += 1;
                let error =
                    error.context(format!("snapshot {} was not copied", snapshot.session.nonce.short()));
                if totals.failed > 1 || plan.copy.len() > 1 {
                    context.output.problem("copy", &error.to_string());
                }
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = first_error.filter(|_| totals.copied == 0) {
        return Err(error);
    }
    let elapsed = context.world.clock.monotonic().saturating_sub(started);
    show(context, &totals, plan.present.len(), elapsed)?;
    Ok(Outcome::of_problems(totals.problems + totals.failed))
}

fn from_place(args: &FromRepositoryArgs) -> Result<Place> {
    let from = FromArgs {
        repo: args.from_repo.as_deref(),
        password_file: args.from_password_file.as_deref(),
        password_command: args.from_password_command.as_deref(),
        key_file: args.from_key_file.as_deref(),
    };
    Place::resolve_from(from, &environment)
}

/// Opens the repository that is copied from. Two are open, so an error says which one it speaks of.
async fn open_from(
    context: &Context,
    args: &FromRepositoryArgs,
    config: &Config,
    place: &Place,
) -> Result<Repository> {
    let options = config.store_from(&args.store, &environment)?;
    let opened =
        async { engine::open_place(context, engine::store_at(&place.url, &options).await?, place).await };
    opened.await.map_err(|error| {
        let error = error.context(format!("the repository to copy from, {}", place.url));
        match error.kind() {
            ErrorKind::Denied => error
                .with_hint("its password is another one: --from-password-file or CARRACK_FROM_PASSWORD_FILE"),
            ErrorKind::NotFound => error.with_hint("check --from-repo or CARRACK_FROM_REPOSITORY"),
            _ => error,
        }
    })
}

/// What is to be copied, and how many snapshots of either side nobody can tell anything of.
async fn plan(
    context: &Context,
    args: &CopyArgs,
    from: &Repository,
    to: &Repository,
) -> Result<(CopyPlan, u64)> {
    let list = from.snapshots().await?;
    // Who names snapshots does not ask for others.
    let mut unreadable = match args.snapshots.is_empty() {
        true => snapshots::tell_unreadable(&context.output, &list) as u64,
        false => 0,
    };
    let filter = engine::filter(&args.filter)?;
    let chosen = match snapshots::choose(from, &list, &args.snapshots, &filter).await {
        // A copy of nothing looks like a success to a script; of a repository that has nothing it is one.
        Ok(chosen) if chosen.is_empty() && !list.snapshots.is_empty() => Err(filter.no_match()),
        chosen => chosen,
    };
    let chosen = chosen.map_err(|error| error.context(format!("in {}", from.store().describe())))?;
    let there = to.snapshots().await?;
    // Of repacks the target speaks by itself, as soon as it is written to.
    let snapshots = there.unreadable.iter().filter(|(session, _)| session.kind == SessionKind::Backup);
    for (session, error) in snapshots {
        let what = format!("snapshot {} in {}", session.nonce.short(), to.store().describe());
        context.output.problem(&what, &format!("{error}; what it is a copy of may be copied again"));
        unreadable += 1;
    }
    Ok((copy::plan(from, to, chosen, &there)?, unreadable))
}

/// A snapshot that would be copied.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    session: String,
    time: String,
    hostname: &'a str,
    paths: &'a [String],
    bytes: u64,
}

impl<'a> Planned<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            session: snapshot.session.to_string(),
            time: snapshot.started.to_string(),
            hostname: &snapshot.host,
            paths: &snapshot.paths,
            bytes: snapshot.statistics.bytes_total,
        }
    }
}

/// Body of `plan`.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    copy: Vec<Planned<'a>>,
}

fn dry_run(context: &Context, plan: &CopyPlan, unreadable: u64) -> Result<Outcome> {
    let out = &context.output;
    let outcome = Outcome::of_problems(unreadable);
    if out.is_json() {
        out.message("plan", &Plan { copy: plan.copy.iter().map(Planned::of).collect() })?;
        let present = plan.present.len();
        out.message(
            "summary",
            &Summary { dry_run: true, present, problems: unreadable, ..Summary::default() },
        )?;
        return Ok(outcome);
    }
    for snapshot in &plan.copy {
        out.line(format_args!(
            "copy  {}  {}  {}  {}  {}",
            snapshot.session.nonce.short(),
            units::moment(snapshot.started),
            snapshot.host,
            units::size(snapshot.statistics.bytes_total),
            snapshot.paths.join(", ")
        ))?;
    }
    out.remark(format_args!(
        "dry run    {} would be copied, {} already here",
        units::count(plan.copy.len() as u64, "snapshot", "snapshots"),
        plan.present.len()
    ))?;
    Ok(outcome)
}

/// What all copies come to.
#[derive(Debug, Default)]
struct Totals {
    copied: u64,
    failed: u64,
    problems: u64,
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
}

/// Body of `copied`.
#[derive(Debug, Serialize)]
struct Copied<'a> {
    from: String,
    snapshot_id: String,
    session: String,
    time: String,
    hostname: &'a str,
    paths: &'a [String],
    problems: u64,
    bytes_read: u64,
    data_added: u64,
    data_added_packed: u64,
}

impl Totals {
    /// Adds one copy, and says so.
    fn take(&mut self, context: &Context, from: &Snapshot, report: &BackupReport) -> Result<()> {
        let Some(snapshot) = &report.snapshot else {
            return Err(Error::internal("a copy ended without a snapshot"));
        };
        let counts = &snapshot.statistics;
        self.copied += 1;
        self.problems += report.problems + report.doubts;
        self.bytes_read += counts.bytes_read;
        self.bytes_new += counts.bytes_new;
        self.bytes_stored += counts.bytes_stored;
        let out = &context.output;
        if out.is_json() {
            let copied = Copied {
                from: from.session.to_string(),
                snapshot_id: snapshot.session.nonce.short(),
                session: snapshot.session.to_string(),
                time: snapshot.started.to_string(),
                hostname: &snapshot.host,
                paths: &snapshot.paths,
                problems: report.problems,
                bytes_read: counts.bytes_read,
                data_added: counts.bytes_new,
                data_added_packed: counts.bytes_stored,
            };
            return out.message("copied", &copied);
        }
        out.line(format_args!(
            "{} -> {}  {}  {}  {} read, {} new, {} stored",
            from.session.nonce.short(),
            snapshot.session.nonce.short(),
            units::moment(snapshot.started),
            snapshot.host,
            units::size(counts.bytes_read),
            units::size(counts.bytes_new),
            units::size(counts.bytes_stored),
        ))
    }
}

/// Body of `summary`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    dry_run: bool,
    copied: u64,
    present: usize,
    failed: u64,
    problems: u64,
    bytes_read: u64,
    data_added: u64,
    data_added_packed: u64,
    total_duration: f64,
}

fn show(context: &Context, totals: &Totals, present: usize, elapsed: Duration) -> Result<()> {
    let out = &context.output;
    if out.is_json() {
        let summary = Summary {
            dry_run: false,
            copied: totals.copied,
            present,
            failed: totals.failed,
            problems: totals.problems,
            bytes_read: totals.bytes_read,
            data_added: totals.bytes_new,
            data_added_packed: totals.bytes_stored,
            total_duration: elapsed.as_secs_f64(),
        };
        return out.message("summary", &summary);
    }
    out.remark(format_args!(
        "{} copied, {present} already here; {} read, {} new, {} stored; {}",
        units::count(totals.copied, "snapshot", "snapshots"),
        units::size(totals.bytes_read),
        units::size(totals.bytes_new),
        units::size(totals.bytes_stored),
        units::duration(elapsed),
    ))?;
    if totals.failed > 0 {
        out.line(format_args!("{} not copied", units::count(totals.failed, "snapshot", "snapshots")))?;
    }
    if totals.problems > 0 {
        out.line(format_args!(
            "{}: see the warnings above",
            units::count(totals.problems, "problem", "problems")
        ))?;
    }
    Ok(())
}
