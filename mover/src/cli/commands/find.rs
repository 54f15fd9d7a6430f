//! `carrack find`: looks for names in snapshots.

use clap::Args;

use crate::cli::args::FilterArgs;

/// Look for names in snapshots
///
/// Says in which snapshots something is whose name or path matches one of the patterns.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack find passwd
  carrack find '*.sql' --host db1
  carrack find -i 'report*' --snapshot latest --long")]
pub(crate) struct FindArgs {
    /// Names or paths; * and ? stay within a name, ** crosses directories
    #[arg(value_name = "PATTERN", required = true)]
    pub(crate) patterns: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Look into this snapshot only (repeatable)
    #[arg(short, long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Vec<String>,
    /// Without regard to case
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    pub(crate) long: bool,
}
