//! `carrack snapshots`: lists snapshots.

use clap::{Args, ValueEnum};

use crate::cli::args::FilterArgs;

/// List snapshots
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack snapshots
  carrack snapshots --host db1 --tag nightly --latest 3
  carrack snapshots --json | jq -r 'select(.message_type == \"snapshot\") | .id'")]
pub(crate) struct SnapshotsArgs {
    /// Snapshots, or latest [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Only the last so many of each host and paths
    #[arg(long, value_name = "COUNT")]
    pub(crate) latest: Option<usize>,
    /// Group the list
    #[arg(short, long, value_name = "BY", value_delimiter = ',')]
    pub(crate) group_by: Vec<GroupBy>,
}

/// What belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum GroupBy {
    #[value(alias = "hosts")]
    Host,
    #[value(alias = "paths")]
    Path,
    #[value(name = "tag", alias = "tags")]
    Tag,
}
