//! `carrack forget`: takes snapshots out of view.

use clap::Args;
use jiff::Span;

use super::{prune::PruneHow, snapshots::GroupBy};
use crate::cli::{args::FilterArgs, units};

/// Take snapshots out of view, by rule or by name
///
/// Prints which snapshots stay and why, and which go. Their data is freed by the next prune. Pinned snapshots stay,
/// and so does the last verified snapshot of every source.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  carrack forget --keep-within 30d --host db1 --prune
  carrack forget 4fd1a7c2 9c01d2aa
  carrack forget --pin latest --host db1")]
pub(crate) struct ForgetArgs {
    /// Snapshots to forget (or to pin); without rules
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Snapshots that a rule looks at together
    #[arg(short, long, value_name = "BY", value_delimiter = ',', default_value = "host,path")]
    pub(crate) group_by: Vec<GroupBy>,
    /// Protect the named snapshots from being forgotten
    #[arg(long, requires = "snapshots", conflicts_with_all = ["unpin", "prune"])]
    pub(crate) pin: bool,
    /// Take that protection away
    #[arg(long, requires = "snapshots", conflicts_with = "prune")]
    pub(crate) unpin: bool,
    /// Free the data too, as carrack prune does
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) how: PruneHow,
    /// Say what would be forgotten, and forget nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// The rules of what stays.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What stays")]
pub(crate) struct KeepArgs {
    /// The last so many
    #[arg(short = 'l', long, value_name = "COUNT")]
    pub(crate) keep_last: Option<u32>,
    /// The last of each hour, for the last so many hours that have one
    #[arg(long, value_name = "COUNT")]
    pub(crate) keep_hourly: Option<u32>,
    /// The same by day
    #[arg(short = 'd', long, value_name = "COUNT")]
    pub(crate) keep_daily: Option<u32>,
    /// The same by week (from Monday)
    #[arg(short = 'w', long, value_name = "COUNT")]
    pub(crate) keep_weekly: Option<u32>,
    /// The same by month
    #[arg(short = 'm', long, value_name = "COUNT")]
    pub(crate) keep_monthly: Option<u32>,
    /// The same by year
    #[arg(short = 'y', long, value_name = "COUNT")]
    pub(crate) keep_yearly: Option<u32>,
    /// All within this time before the newest (1y6m3d12h)
    #[arg(long, value_name = "SPAN", value_parser = units::parse_span, allow_hyphen_values = true)]
    pub(crate) keep_within: Option<Span>,
    /// All with all of these tags (repeatable: any of them)
    #[arg(long, value_name = "TAG[,TAG]")]
    pub(crate) keep_tag: Vec<String>,
}
