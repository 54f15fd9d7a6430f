//! `carrack repo`: the repository itself.

use carrack_mover::error::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::revive;
use crate::cli::{context::Context, engine, exit::Outcome, units};

/// Show and mend the repository itself
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack repo info
  carrack repo merge-index --dry-run
  carrack repo repair-index --dry-run
  carrack repo revive
  carrack repo revive 4fd1a7c2")]
pub(crate) struct RepoArgs {
    #[command(subcommand)]
    pub(crate) what: RepoWhat,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoWhat {
    /// Say what it is: id, version, cuts, features, and what this key may do
    Info,
    /// Merge index segments, so that backups begin faster
    MergeIndex {
        /// Say what would be merged, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Write the index anew from the footers of all packs
    ///
    /// The index only saves storing things twice; nothing needs it to restore.
    RepairIndex {
        /// Say what would be written, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Bring back snapshots that were forgotten, or whose session object is lost or damaged
    ///
    /// Without names it lists them. What is brought back has a new id, and is as whole as its data: a prune may have
    /// freed some of it. Says which packs are missing.
    Revive {
        /// Snapshots to bring back, by the beginning of their id or by their full name
        #[arg(value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
    },
}

impl RepoWhat {
    /// The words that it is typed with.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Info => "repo info",
            Self::MergeIndex { .. } => "repo merge-index",
            Self::RepairIndex { .. } => "repo repair-index",
            Self::Revive { .. } => "repo revive",
        }
    }
}

/// Body of `summary`.
#[derive(Serialize)]
struct Info<'a> {
    #[serde(flatten)]
    format: &'a carrack_mover::format::records::RepositoryFormat,
    place: String,
    key_generation: u32,
    can_read_data: bool,
}

pub(crate) async fn run(context: &Context, args: &RepoArgs) -> Result<Outcome> {
    match &args.what {
        RepoWhat::Info => info(context).await,
        RepoWhat::MergeIndex { dry_run } => index(context, false, *dry_run).await,
        RepoWhat::RepairIndex { dry_run } => index(context, true, *dry_run).await,
        RepoWhat::Revive { snapshots } => revive::run(context, snapshots).await,
    }
}

/// Body of `summary` of what changes the index; zeros after a dry run.
#[derive(Serialize)]
struct Changed {
    dry_run: bool,
    rows: u64,
    unreadable_packs: u64,
}

async fn index(context: &Context, repair: bool, dry_run: bool) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let out = &context.output;
    let plan = repository.plan_index().await?;
    if out.is_json() {
        out.message("plan", &plan)?;
    } else {
        out.remark(format_args!(
            "index    {} in {}; {}",
            units::size(plan.bytes),
            units::count(plan.segments, "segment", "segments"),
            units::count(plan.packs, "pack", "packs")
        ))?;
    }
    if dry_run {
        match out.is_json() {
            true => out.message("summary", &Changed { dry_run, rows: 0, unreadable_packs: 0 })?,
            false => out.remark("dry run  nothing was written")?,
        }
        return Ok(Outcome::Done);
    }
    let watch = context.watch("index");
    let report = match repair {
        true => repository.repair_index(watch.monitor().as_ref(), &context.cancel).await?,
        false => repository.merge_whole_index(&context.cancel).await?,
    };
    drop(watch);
    if out.is_json() {
        let (rows, unreadable_packs) = (report.rows, report.unreadable_packs);
        out.message("summary", &Changed { dry_run, rows, unreadable_packs })?;
    } else {
        out.remark(format_args!(
            "written  {}; {} could not be read",
            units::count(report.rows, "row", "rows"),
            units::count(report.unreadable_packs, "pack", "packs")
        ))?;
    }
    Ok(Outcome::of_problems(report.unreadable_packs))
}

async fn info(context: &Context) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let format = repository.format();
    let keys = repository.keys();
    let out = &context.output;
    let place = repository.store().describe();
    if out.is_json() {
        let (key_generation, can_read_data) = (keys.newest(), keys.can_read_data());
        out.message("summary", &Info { format, place, key_generation, can_read_data })?;
        return Ok(Outcome::Done);
    }
    out.line(format_args!("place        {place}"))?;
    out.line(format_args!("id           {}", format.repository))?;
    out.line(format_args!("made         {}", units::moment(format.created)))?;
    out.line(format_args!("format       {}", format.version))?;
    let [least, average, most] =
        [format.cut.minimum, format.cut.average, format.cut.maximum].map(|bytes| units::size(bytes.into()));
    out.line(format_args!("cuts         {average} on average, {least} to {most}"))?;
    let features = [&format.read_features, &format.write_features, &format.maintain_features];
    let features: Vec<&str> = features.into_iter().flatten().map(String::as_str).collect();
    out.line(format_args!(
        "features     {}",
        if features.is_empty() { "none".into() } else { features.join(", ") }
    ))?;
    out.line(format_args!("generation   {} of the keys", keys.newest()))?;
    let rights = if keys.can_read_data() { "read and write" } else { "write one source only" };
    out.line(format_args!("this key     may {rights}"))?;
    Ok(Outcome::Done)
}
