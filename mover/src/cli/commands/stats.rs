//! `carrack stats`: counts and sizes.

use clap::Args;

use crate::cli::args::FilterArgs;

/// Show counts and sizes of snapshots and of the repository
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack stats
  carrack stats --host db1
  carrack stats latest")]
pub(crate) struct StatsArgs {
    /// Snapshots to look at [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}
