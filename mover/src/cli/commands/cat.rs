//! `carrack cat`: prints one file of a snapshot, or a record of the repository.

use clap::{Args, Subcommand};

use crate::cli::args::FilterArgs;

/// Print a file of a snapshot, or a record of the repository
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack cat file latest:/etc/fstab
  carrack cat snapshot latest
  carrack cat config")]
pub(crate) struct CatArgs {
    #[command(subcommand)]
    pub(crate) what: CatWhat,
}

/// What to print.
#[derive(Debug, Subcommand)]
pub(crate) enum CatWhat {
    /// The contents of one file, image or stream
    File {
        /// Snapshot and the path in it
        #[arg(value_name = "SNAPSHOT:PATH")]
        file: String,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// The record of a snapshot, as JSON
    Snapshot {
        /// An id, the beginning of one, or latest
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// What the repository says of itself, as JSON
    Config,
}
