//! `carrack mount`: shows snapshots as a file system.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::FilterArgs;

/// Show snapshots as a read-only file system
///
/// A directory for each snapshot, until the command is stopped (ctrl-C) or the directory is unmounted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mkdir /tmp/snapshots && carrack mount /tmp/snapshots
  carrack mount /tmp/snapshots --host db1 --allow-other")]
pub(crate) struct MountArgs {
    /// Empty directory to mount on
    #[arg(value_name = "DIR")]
    pub(crate) mountpoint: PathBuf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Let other users look too; needs user_allow_other in /etc/fuse.conf unless you are root
    #[arg(long)]
    pub(crate) allow_other: bool,
}
