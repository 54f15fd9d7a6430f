//! `carrack repo`: the repository itself.

use clap::{Args, Subcommand};

/// Show and mend the repository itself
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack repo info
  carrack repo merge-index --dry-run
  carrack repo repair-index --dry-run")]
pub(crate) struct RepoArgs {
    #[command(subcommand)]
    pub(crate) what: RepoWhat,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoWhat {
    /// Say what it is: id, version, features, cuts, ciphers
    Info,
    /// Merge index segments, so that backups begin faster
    MergeIndex {
        /// Say what would be merged, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Write the index anew from the footers of all packs
    ///
    /// The index only saves storing things twice; nothing needs it to restore.
    RepairIndex {
        /// Say what would be written, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}
