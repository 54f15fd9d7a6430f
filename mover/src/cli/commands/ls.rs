//! `carrack ls`: lists what is in a snapshot.

use clap::Args;

use crate::cli::args::FilterArgs;

/// List what is in a snapshot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack ls latest
  carrack ls latest:/home/ada --long
  carrack ls 4fd1a7c2:/etc --recursive --human-readable")]
pub(crate) struct LsArgs {
    /// Snapshot and a path in it [default: everything]
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Sizes with units
    #[arg(long)]
    pub(crate) human_readable: bool,
    /// Below a path, its sub-directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}
