//! `carrack check`: looks for damage.

use carrack_mover::{
    check::{CheckLevel, CheckOptions, CheckReport, check},
    error::Result,
};
use clap::Args;

use crate::cli::{context::Context, engine, exit::Outcome, units};

/// Look for damage
///
/// Without options: every record, footer, page and reference. The other levels include it. Names what is damaged,
/// which files of which snapshots that touches, and which snapshots restore in full; the exit code is 14 if
/// anything is damaged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack check
  carrack check --read-data-subset 5%
  carrack check --read-data

A sample of 5 % finds damage in one pack of a hundred packs with a probability of 5 %, and damage in twenty of
them with 65 %; the summary says what this run's sample is worth.")]
pub(crate) struct CheckArgs {
    /// Compare the size of every pack with what the store says
    #[arg(long)]
    pub(crate) sizes: bool,
    /// Read, decrypt and compare all data
    #[arg(long, conflicts_with_all = ["sizes", "read_data_subset"])]
    pub(crate) read_data: bool,
    /// The same for a share of the packs, drawn at random
    #[arg(long, value_name = "PERCENT", value_parser = units::parse_percent, conflicts_with = "sizes")]
    pub(crate) read_data_subset: Option<f64>,
}

pub(crate) async fn run(context: &Context, args: &CheckArgs) -> Result<Outcome> {
    let memory_bytes = context.config()?.memory_bytes;
    let level = match (args.read_data, args.read_data_subset, args.sizes) {
        (true, ..) => CheckLevel::Data,
        (_, Some(percent), _) => CheckLevel::Sample(percent),
        (_, None, true) => CheckLevel::Sizes,
        (_, None, false) => CheckLevel::Structure,
    };
    let repository = engine::open(context).await?;
    let watch = context.watch("check");
    let options = CheckOptions { level, memory_bytes };
    let report = check(&repository, options, watch.monitor(), context.cancel.clone()).await;
    let elapsed = watch.elapsed();
    drop(watch);
    let report = report?;
    if context.output.is_json() {
        context.output.message("summary", &report)?;
    } else {
        show(context, &report)?;
        context.output.remark(format_args!("time       {}", units::duration(elapsed)))?;
    }
    Ok(if report.is_clean() { Outcome::Done } else { Outcome::Damaged })
}

fn show(context: &Context, report: &CheckReport) -> Result<()> {
    let out = &context.output;
    out.remark(format_args!(
        "looked at  {} snapshots, {} pages, {} packs; of {} packs all data ({})",
        report.snapshots,
        report.pages,
        report.packs,
        report.packs_read,
        units::size(report.bytes_read)
    ))?;
    if let Some(share) = report.below_share_95 {
        out.remark(format_args!(
            "sample     with 95 % certainty less than {:.1} % of packs is damaged",
            share * 100.0
        ))?;
    }
    for file in &report.affected {
        out.line(format_args!("touched    {} in snapshot {}", file.path, file.snapshot))?;
    }
    for session in &report.damaged {
        out.line(format_args!("damaged    snapshot {}", session.nonce.short()))?;
    }
    if report.is_clean() {
        return out.remark("nothing is damaged");
    }
    out.line(format_args!(
        "found      {} damages, {} files touched; {} snapshots restore whole",
        report.damages,
        report.affected_files,
        report.whole.len()
    ))
}
