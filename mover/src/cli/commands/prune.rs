//! `carrack prune`: frees what no snapshot needs.

use std::time::Duration;

use carrack_mover::{
    error::Result,
    repo::{PruneOptions, PrunePlan, PruneReport, Repository},
};
use clap::Args;
use serde::Serialize;

use crate::cli::{context::Context, engine, exit::Outcome, units};

/// Free the data that no snapshot needs
///
/// Plans first, and shows the plan. Backups may run meanwhile: nothing is locked. While one of them has not ended,
/// nothing is deleted: the packs are counted as postponed, and a later prune takes them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack prune --dry-run
  carrack prune --fence-after 7d")]
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
    /// Shut out sessions that began longer ago than this and never ended, so that their packs can go too (7d, 36h)
    #[arg(long, value_name = "SPAN", value_parser = units::parse_days)]
    pub(crate) fence_after: Option<Duration>,
}

pub(crate) async fn run(context: &Context, args: &PruneArgs) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let report = prune(context, &repository, &args.how, args.dry_run).await?;
    if context.output.is_json() {
        context.output.message("summary", &Summary { dry_run: args.dry_run, report })?;
    }
    Ok(Outcome::Done)
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    /// All zero after a dry run.
    #[serde(flatten)]
    report: PruneReport,
}

/// Plans, shows the plan, and carries it out. The report is for the caller's summary.
pub(crate) async fn prune(
    context: &Context,
    repository: &Repository,
    how: &PruneHow,
    dry_run: bool,
) -> Result<PruneReport> {
    let mut options = PruneOptions::default();
    if let Some(span) = how.fence_after {
        options.fence_after = span;
    }
    let watch = context.watch("prune");
    let monitor = watch.monitor();
    let plan = repository.plan_prune(&options, monitor.as_ref()).await?;
    show_plan(context, &plan)?;
    if dry_run {
        return Ok(PruneReport::default());
    }
    context.cancel.check()?;
    let report = repository.apply_prune(&plan, monitor.as_ref()).await?;
    drop(watch);
    if !context.output.is_json() {
        context.output.remark(format_args!(
            "freed      {} in {} packs; {} postponed",
            units::size(report.deleted_bytes),
            report.deleted,
            report.postponed
        ))?;
    }
    Ok(report)
}

fn show_plan(context: &Context, plan: &PrunePlan) -> Result<()> {
    let out = &context.output;
    if out.is_json() {
        return out.message("prune_plan", plan);
    }
    out.remark(format_args!("packs      {}, {}", plan.packs, units::size(plan.bytes)))?;
    out.remark(format_args!("to delete  {} packs, {}", plan.delete.len(), units::size(plan.delete_bytes)))?;
    out.remark(format_args!("unused     {} inside packs that stay", units::size(plan.unused_bytes)))?;
    out.remark(format_args!("sessions   {} open, {} overdue and shut out", plan.open.len(), plan.fence.len()))
}
