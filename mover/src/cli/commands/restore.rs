//! `carrack restore`: brings a snapshot back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::FilterArgs;

/// Bring back a snapshot, or a part of it
///
/// Into a directory, onto a device, or to standard output. Only what differs from the target is written. Owners,
/// modes, times, attributes, links and holes come back too; what cannot be set is named, and the exit code is
/// then 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack restore latest --target /tmp/restored
  carrack restore latest:/etc/nginx --target /etc/nginx --delete
  carrack restore 4fd1a7c2 --target / --include '/home/ada/**' --verify
  carrack restore latest --path /srv/db --host db1 --target /srv/db --dry-run
  carrack restore latest:/shop.sql --target - | psql shop
  carrack restore latest --target /dev/vg0/new

The path after the colon becomes the target itself. Patterns are those of carrack backup.")]
pub(crate) struct RestoreArgs {
    /// Snapshot: an id, the beginning of one, or latest; and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) snapshot: String,
    /// Directory or device to write to; - is standard output
    #[arg(short, long, value_name = "DIR|DEVICE|-")]
    pub(crate) target: PathBuf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Delete what is in the target and not in the snapshot
    #[arg(long)]
    pub(crate) delete: bool,
    /// What to do with files that are there already
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pub(crate) overwrite: OverwriteArg,
    /// Read everything back from the target and compare
    #[arg(long)]
    pub(crate) verify: bool,
    /// Make holes where the snapshot has zeros; this is so without the option too
    #[arg(long, hide = true)]
    pub(crate) sparse: bool,
    /// Say what would be written and deleted, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// What of the snapshot is wanted.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What of it")]
pub(crate) struct SelectArgs {
    /// Restore only what matches (repeatable)
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// The same without regard to case (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) iinclude: Vec<String>,
    /// File with patterns to include, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) include_file: Vec<PathBuf>,
    /// Leave out what matches (repeatable)
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// The same without regard to case (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) iexclude: Vec<String>,
    /// File with patterns to leave out, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,
}

/// What to do with files that are there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverwriteArg {
    /// Compare contents and write the ranges that differ
    #[default]
    Always,
    /// Believe size and modification time, and leave files alone where both agree
    IfChanged,
    /// Write only what is newer in the snapshot
    IfNewer,
    /// Leave every file alone that is there
    Never,
}
