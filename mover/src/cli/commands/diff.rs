//! `carrack diff`: compares two snapshots.

use clap::Args;

/// Compare two snapshots
///
/// One line for each path that differs: + added, - removed, M contents changed, T another kind of thing, and
/// U attributes only (with --metadata).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack diff 4fd1a7c2 latest
  carrack diff 4fd1a7c2:/etc latest:/etc --metadata")]
pub(crate) struct DiffArgs {
    /// The older snapshot and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) from: String,
    /// The newer snapshot and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) to: String,
    /// Show paths too whose attributes alone differ
    #[arg(long)]
    pub(crate) metadata: bool,
}
