//! `carrack prune`: frees what no snapshot needs.

use std::time::Duration;

use carrack_mover::{
    error::Result,
    format::records::ProblemRecord,
    monitor::Progress,
    repack::{RepackReport, repack},
    repo::{PruneOptions, PrunePlan, PruneReport, Repository, Unused},
};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{
    context::Context,
    engine,
    exit::Outcome,
    last_seen::{LastSeen, refuse_missing},
    units,
};

/// Free the data that no snapshot needs
///
/// Plans first, and shows the plan. Packs that nothing needs are deleted; what is needed of packs that are mostly
/// unused is moved to new ones, until little enough is wasted. Backups may run meanwhile: nothing is locked. Those
/// that are at work are waited for a while; if one goes on, what it may still need is postponed to a later prune.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack prune --dry-run
  carrack prune --max-unused 10%
  carrack prune --fence-after 7d --wait 10m")]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) how: PruneHow,
    /// Say what would be freed, and free nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// How to prune; of `carrack forget --prune` too, with these defaults.
#[derive(Debug, Clone, Args)]
pub(crate) struct PruneHow {
    /// Shut out sessions that gave no sign of life for this long and never ended, so that their packs can go too
    /// (7d, 36h, 90m: days, hours, minutes) [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, allow_hyphen_values = true)]
    pub(crate) fence_after: Option<Duration>,
    /// How long to wait for backups that are at work (0, 90s, 10m, 2h: seconds, minutes, hours)
    /// [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_wait, allow_hyphen_values = true)]
    pub(crate) wait: Option<Duration>,
    /// How much may stay unused inside packs: a share of what is needed (5%), a size, or unlimited [default: 5%]
    #[arg(long, value_name = "LIMIT", value_parser = parse_unused, allow_hyphen_values = true)]
    pub(crate) max_unused: Option<MaxUnused>,
    /// Move at most so many bytes
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, allow_hyphen_values = true)]
    pub(crate) max_repack_size: Option<u64>,
}

/// What stays unused; `None`: however much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MaxUnused(Option<Unused>);

fn parse_unused(text: &str) -> std::result::Result<MaxUnused, String> {
    let text = text.trim();
    Ok(MaxUnused(match text {
        "unlimited" => None,
        "0" | "0%" => Some(Unused::Bytes(0)),
        _ if text.ends_with('%') => Some(Unused::Percent(units::parse_percent(text)?)),
        _ => Some(Unused::Bytes(units::parse_size(text)?)),
    }))
}

impl PruneHow {
    fn options(&self) -> PruneOptions {
        let default = PruneOptions::default();
        PruneOptions {
            fence_after: self.fence_after.unwrap_or(default.fence_after),
            wait: self.wait.unwrap_or(default.wait),
            max_unused: self.max_unused.map_or(default.max_unused, |MaxUnused(unused)| unused),
            max_repack_bytes: self.max_repack_size,
        }
    }
}

pub(crate) async fn run(context: &Context, args: &PruneArgs) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let pruned = prune(context, &repository, &args.how, args.dry_run).await?;
    let outcome = pruned.outcome();
    if context.output.is_json() {
        context.output.message("summary", &Summary { dry_run: args.dry_run, pruned })?;
    }
    Ok(outcome)
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    /// All zero after a dry run.
    #[serde(flatten)]
    pruned: Pruned,
}

/// What a prune did, for a summary.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Pruned {
    #[serde(flatten)]
    report: PruneReport,
    repack: RepackReport,
    #[serde(skip)]
    problem_count: u64,
}

impl Pruned {
    /// Whether something could not be believed or moved.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of_problems(self.problem_count)
    }
}

/// Plans, shows the plan, and carries it out. The report is for the caller's summary.
pub(crate) async fn prune(
    context: &Context,
    repository: &Repository,
    how: &PruneHow,
    dry_run: bool,
) -> Result<Pruned> {
    let memory_bytes = context.config()?.memory_bytes;
    if !dry_run {
        refuse_missing(repository, &mut LastSeen::of(repository)).await?;
    }
    let watch = context.watch("prune");
    let monitor = watch.monitor();
    let mut plan = repository.plan_prune(&how.options(), monitor.as_ref(), &context.cancel).await?;
    show_plan(context, &plan)?;
    let mut problems = tell(context, &plan.problems);
    let unnamed = plan.unproven.saturating_sub(plan.problems.len() as u64);
    if unnamed > 0 {
        let objects = units::count(unnamed, "more object", "more objects");
        context.output.problem(&objects, "they are ignored, like those before");
    }
    if dry_run {
        return Ok(Pruned { problem_count: problems, ..Pruned::default() });
    }
    context.cancel.check()?;
    let moved = repack(repository, &mut plan, memory_bytes, watch.monitor(), &context.cancel).await?;
    let report = repository.apply_prune(&plan, monitor.as_ref(), &context.cancel).await?;
    // What the plan named already, a list of somebody else's for one, is no second problem.
    let new =
        report.problems.iter().filter(|problem| plan.problems.iter().all(|known| known.path != problem.path));
    problems += tell(context, new);
    problems += Progress::get(&monitor.progress().problems);
    drop(watch);
    if !context.output.is_json() {
        show_report(context, &moved, &report)?;
    }
    Ok(Pruned { report, repack: moved, problem_count: problems })
}

/// Locked packs that are named; the plan in JSON has all.
const LOCKED_NAMED: usize = 20;

fn tell<'p>(context: &Context, problems: impl IntoIterator<Item = &'p ProblemRecord>) -> u64 {
    let tell = |problem: &ProblemRecord| context.output.problem(&problem.path, &problem.message);
    problems.into_iter().map(tell).count() as u64
}

fn show_plan(context: &Context, plan: &PrunePlan) -> Result<()> {
    let out = &context.output;
    if out.is_json() {
        return out.message("prune_plan", plan);
    }
    out.remark(format_args!("packs      {}, {}", plan.packs, units::size(plan.bytes)))?;
    out.remark(format_args!("to delete  {} packs, {}", plan.delete.len(), units::size(plan.delete_bytes)))?;
    out.remark(format_args!("unused     {} inside packs that are needed", units::size(plan.unused_bytes)))?;
    if !plan.repack.is_empty() {
        out.remark(format_args!(
            "to move    {} out of {} packs, which frees {}",
            units::size(plan.repack_bytes),
            plan.repack.len(),
            units::size(plan.repack_unused_bytes)
        ))?;
    }
    if plan.repack_is_full {
        out.remark(
            "to move    nothing: old snapshots find as many moved frames as they may; forget some of them to free more",
        )?;
    }
    if let Some(until) = plan.locked_until {
        let (packs, bytes) =
            (units::count(plan.locked.len() as u64, "pack", "packs"), units::size(plan.locked_bytes));
        let until = if until == Timestamp::MAX { "a hold is lifted".into() } else { units::moment(until) };
        out.line(format_args!("locked     {packs}, {bytes}, by the bucket's object lock, the first until {until}: prune again then"))?;
        for pack in plan.locked.iter().take(LOCKED_NAMED) {
            out.line(format_args!("           pack {pack}"))?;
        }
    }
    out.remark(format_args!("sessions   {} open, {} overdue and shut out", plan.open.len(), plan.fence.len()))
}

fn show_report(context: &Context, moved: &RepackReport, report: &PruneReport) -> Result<()> {
    let out = &context.output;
    if moved.frames > 0 || moved.left > 0 {
        out.remark(format_args!(
            "moved      {} into new packs; {} packs left as they are",
            units::size(moved.bytes),
            moved.left
        ))?;
    }
    out.remark(format_args!(
        "freed      {} in {} packs; {} postponed, {} taken back",
        units::size(report.deleted_bytes),
        report.deleted,
        report.postponed,
        report.taken_back
    ))?;
    if report.swept > 0 {
        let objects = units::count(report.swept, "object", "objects");
        out.remark(format_args!(
            "swept      {objects} that maintenance did not write: see who may write to the store"
        ))?;
    }
    if report.postponed > 0 {
        out.remark(format_args!(
            "a backup that has not ended may still need what was postponed: prune again later, or see --fence-after"
        ))?;
    }
    Ok(())
}
