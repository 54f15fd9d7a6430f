//! `carrack copy`: copies snapshots into another repository.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::FilterArgs;

/// Copy snapshots from another repository into this one
///
/// Data is decrypted, and encrypted again with this repository's keys. What is here already is not copied again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack -r s3://bucket/copy copy --from-repo /srv/backup --from-password-file old.txt
  carrack -r /mnt/usb copy --from-repo /srv/backup --host db1 latest")]
pub(crate) struct CopyArgs {
    /// Snapshots to copy [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Repository to copy from [env: CARRACK_FROM_REPOSITORY]
    #[arg(long, value_name = "PLACE")]
    pub(crate) from_repo: Option<String>,
    /// File whose first line is its password [env: CARRACK_FROM_PASSWORD_FILE, or the password in CARRACK_FROM_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_password_file: Option<PathBuf>,
    /// Command that prints its password [env: CARRACK_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", conflicts_with = "from_password_file")]
    pub(crate) from_password_command: Option<String>,
    /// File with its 256-bit secret [env: CARRACK_FROM_KEY_FILE]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_password_file", "from_password_command"])]
    pub(crate) from_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Say what would be copied, and copy nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
