//! `carrack backup`: writes a snapshot.

use std::path::PathBuf;

use clap::Args;

use crate::cli::units;

/// Back up files, a device or a stream
///
/// Writes one snapshot of all the paths together. What did not change since the last snapshot of the same host and
/// paths is not read again; what the repository has already is not stored again. What cannot be read is named, and
/// the exit code is then 3.
///
/// Stopping is safe at any moment: run the same command again, and it goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack backup ~/work /etc
  carrack backup / --one-file-system --exclude-caches --exclude '/var/tmp/*' --exclude '*.iso'
  carrack backup /home --tag nightly --host files.example --skip-if-unchanged
  pg_dump shop | carrack backup --stdin --stdin-filename shop.sql
  carrack backup --device /dev/vg0/snapshot --changed-blocks changed.json

Patterns: * and ? stay within a name, ** crosses directories; a pattern without a slash at its start matches at
any depth, and !PATTERN takes a match back. The last match decides.")]
pub(crate) struct BackupArgs {
    /// Files and directories
    #[arg(value_name = "PATH", required_unless_present_any = ["files_from", "stdin", "device"])]
    #[arg(conflicts_with_all = ["stdin", "device"])]
    pub(crate) paths: Vec<PathBuf>,
    /// File with paths to back up, one a line; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin", "device"])]
    pub(crate) files_from: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) exclude: ExcludeArgs,
    #[command(flatten)]
    pub(crate) other: OtherSources,
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
    /// Tag for the snapshot, several separated by commas (repeatable)
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',')]
    pub(crate) tag: Vec<String>,
    /// Host name to record [default: this host's name]
    #[arg(short = 'H', long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Say what would be stored, and store nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Write no snapshot if nothing differs from the parent
    #[arg(long)]
    pub(crate) skip_if_unchanged: bool,
}

/// What is left out.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What is left out")]
pub(crate) struct ExcludeArgs {
    /// Leave out what matches (repeatable)
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// The same without regard to case (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) iexclude: Vec<String>,
    /// File with patterns, one a line; lines that begin with # are comments (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,
    /// Leave out the contents of directories that contain this file, or this file with this first line (repeatable)
    #[arg(long, value_name = "NAME[:HEADER]")]
    pub(crate) exclude_if_present: Vec<String>,
    /// Leave out the contents of directories marked as caches (CACHEDIR.TAG)
    #[arg(long)]
    pub(crate) exclude_caches: bool,
    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub(crate) exclude_larger_than: Option<u64>,
    /// Do not go into other file systems
    #[arg(short = 'x', long)]
    pub(crate) one_file_system: bool,
}

/// Sources that are not trees of files.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Other sources")]
pub(crate) struct OtherSources {
    /// Back up what standard input gives
    #[arg(long, conflicts_with = "device")]
    pub(crate) stdin: bool,
    /// Name to keep standard input under
    #[arg(long, value_name = "NAME", default_value = "stdin", requires = "stdin")]
    pub(crate) stdin_filename: String,
    /// Back up the blocks of this device or image file
    #[arg(long, value_name = "PATH")]
    pub(crate) device: Option<PathBuf>,
    /// Read only the extents listed here; the rest is as in the parent
    #[arg(long, value_name = "FILE", requires = "device")]
    pub(crate) changed_blocks: Option<PathBuf>,
    /// Change identifier to keep with the snapshot, for the next list of changed blocks
    #[arg(long, value_name = "TEXT", requires = "device")]
    pub(crate) change_id: Option<String>,
}

/// What a source is compared with.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What it is compared with")]
pub(crate) struct CompareArgs {
    /// Snapshot to compare with [default: the latest of the same host and paths]
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "force")]
    pub(crate) parent: Option<String>,
    /// Read everything, as if there were no parent
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Do not read a file again only because its ctime differs (restored or cloned volumes)
    #[arg(long)]
    pub(crate) ignore_ctime: bool,
    /// Do not read a file again only because its inode number differs (network file systems)
    #[arg(long)]
    pub(crate) ignore_inode: bool,
}
