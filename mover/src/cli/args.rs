//! The command line as it was typed.
//!
//! What it means together with the environment is decided in `config`; the options of one verb stand in its file
//! under `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{commands, units};

const REPOSITORY: &str = "Repository";
const STORE: &str = "Store";
const ENGINE: &str = "Resources";
const OUTPUT: &str = "Output";

const ABOUT: &str = "Backs up files and devices into a deduplicated, compressed, encrypted repository";

const EXAMPLES: &str = "\
Examples:
  # Make a repository in a directory, back up, look, restore
  carrack -r /srv/backup init
  carrack -r /srv/backup backup ~/work
  carrack -r /srv/backup snapshots
  carrack -r /srv/backup restore latest --target /tmp/restored

  # The same in a bucket, with the password in a file
  export CARRACK_REPOSITORY=s3://bucket/prefix CARRACK_PASSWORD_FILE=/etc/carrack/password
  export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
  carrack init
  carrack backup /home --exclude-caches

Exit codes:
  0 done          2 invalid usage   3 done in part        10 not found   11 conflict
  12 unavailable  13 denied         14 damaged            15 no space left
  16 not done, for not all could be read (--strict)
  70 internal error                 130 stopped           1 anything else

Each verb teaches itself: carrack backup --help";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "carrack", version, about = ABOUT, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(commands::init::InitArgs),
    Backup(Box<commands::backup::BackupArgs>),
    Restore(Box<commands::restore::RestoreArgs>),
    Snapshots(commands::snapshots::SnapshotsArgs),
    Ls(commands::ls::LsArgs),
    Find(commands::find::FindArgs),
    Diff(commands::diff::DiffArgs),
    Cat(commands::cat::CatArgs),
    Mount(commands::mount::MountArgs),
    Check(commands::check::CheckArgs),
    Forget(Box<commands::forget::ForgetArgs>),
    Prune(commands::prune::PruneArgs),
    Key(commands::key::KeyArgs),
    Copy(Box<commands::copy::CopyArgs>),
    Stats(commands::stats::StatsArgs),
    Repo(commands::repo::RepoArgs),
    Job(commands::job::JobArgs),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::man::ManArgs),
}

impl Command {
    /// The words that it is typed with, without anything that was typed behind them.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Snapshots(_) => "snapshots",
            Self::Ls(_) => "ls",
            Self::Find(_) => "find",
            Self::Diff(_) => "diff",
            Self::Cat(args) => args.what.words(),
            Self::Mount(_) => "mount",
            Self::Check(_) => "check",
            Self::Forget(_) => "forget",
            Self::Prune(_) => "prune",
            Self::Key(args) => args.what.words(),
            Self::Copy(_) => "copy",
            Self::Stats(_) => "stats",
            Self::Repo(args) => args.what.words(),
            Self::Job(_) => "job",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }
}

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GlobalArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which repository, and what opens it.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = REPOSITORY)]
pub(crate) struct RepositoryArgs {
    /// Repository: a directory or s3://bucket/prefix [env: CARRACK_REPOSITORY]
    #[arg(short, long, global = true, value_name = "PLACE")]
    pub(crate) repo: Option<String>,
    /// File whose first line is the repository [env: CARRACK_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "repo", hide_short_help = true)]
    pub(crate) repository_file: Option<PathBuf>,
    /// File whose first line is the password [env: CARRACK_PASSWORD_FILE, or the password in CARRACK_PASSWORD]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Command that prints the password [env: CARRACK_PASSWORD_COMMAND]
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        conflicts_with = "password_file",
        hide_short_help = true
    )]
    pub(crate) password_command: Option<String>,
    /// File with a 256-bit secret (64 hexadecimal digits) instead of a password [env: CARRACK_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    #[arg(conflicts_with_all = ["password_file", "password_command"])]
    pub(crate) key_file: Option<PathBuf>,
    /// File with a writer bundle: may back up one source, nothing else [env: CARRACK_WRITER_BUNDLE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    #[arg(conflicts_with_all = ["password_file", "password_command", "key_file"])]
    pub(crate) writer_bundle: Option<PathBuf>,
}

/// How to reach the store. Credentials come from the environment, profiles, a web identity or the instance.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = STORE)]
pub(crate) struct StoreArgs {
    /// S3: base URL of a service that is not AWS [env: CARRACK_S3_ENDPOINT, AWS_ENDPOINT_URL_S3]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub(crate) endpoint: Option<String>,
    /// S3: region [env: AWS_REGION]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) region: Option<String>,
    /// S3: profile in the shared configuration files [env: AWS_PROFILE]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) profile: Option<String>,
    /// S3: PEM file with the authorities to trust instead of the system's [env: CARRACK_CA_FILE, AWS_CA_BUNDLE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// S3: bucket in the path of the URL (auto: with an endpoint yes, at AWS no)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "always", require_equals = true)]
    pub(crate) path_style: PathStyle,
    /// S3: storage class of packs, for example STANDARD_IA
    #[arg(long, global = true, value_name = "CLASS", hide_short_help = true)]
    pub(crate) storage_class: Option<String>,
    /// S3: let the server encrypt too: AES256, aws:kms or aws:kms:KEY
    #[arg(long, global = true, value_name = "HOW", hide_short_help = true)]
    pub(crate) server_side_encryption: Option<String>,
    /// S3: send a CRC-32C with each object, as AWS demands for buckets with object lock
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) upload_checksum: bool,
    /// Most bytes a second to the store: KiB/s, or with a unit (10MiB)
    #[arg(long, global = true, value_name = "RATE", value_parser = units::parse_rate, hide_short_help = true)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) limit_upload: Option<u64>,
    /// Most bytes a second from the store: KiB/s, or with a unit (10MiB)
    #[arg(long, global = true, value_name = "RATE", value_parser = units::parse_rate, hide_short_help = true)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) limit_download: Option<u64>,
    /// Most requests to the store at the same time [default: 64 for S3, no limit for a directory]
    #[arg(long, global = true, value_name = "COUNT", hide_short_help = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096), allow_negative_numbers = true)]
    pub(crate) max_requests: Option<u32>,
}

/// How to reach the store of a repository that is copied from, where it is another way than to the one copied into.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Copied from")]
pub(crate) struct FromStoreArgs {
    /// S3: its service, if it is another one [env: CARRACK_FROM_S3_ENDPOINT]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) from_endpoint: Option<String>,
    /// S3: its region, if it is another one
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) from_region: Option<String>,
    /// S3: the profile with its credentials, if it is another one
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) from_profile: Option<String>,
    /// S3: file with its credentials, if it is another one; without --from-profile, those of its default profile
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) from_credentials_file: Option<PathBuf>,
    /// S3: PEM file with the authorities to trust for it, if they are others [env: CARRACK_FROM_CA_FILE]
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) from_ca_file: Option<PathBuf>,
}

/// What the engine may use.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = ENGINE)]
pub(crate) struct EngineArgs {
    /// Memory to keep to [default: 256MiB, least: 64MiB] [env: CARRACK_MEMORY]
    #[arg(long, global = true, value_name = "SIZE", value_parser = units::parse_size, hide_short_help = true)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) memory: Option<u64>,
    /// Threads for cutting, compressing and encrypting [default: one for each processor]
    #[arg(long, global = true, value_name = "COUNT", hide_short_help = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=512), allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,
    /// Cipher for what is written (auto: the fastest on this processor)
    #[arg(long, global = true, value_name = "CIPHER", default_value = "auto", hide_short_help = true)]
    pub(crate) cipher: CipherArg,
    /// Compression: auto, off, a level from 1 to 19, or bounds for auto such as 1..6
    #[arg(long, global = true, value_name = "LEVEL", default_value = "auto", hide_short_help = true)]
    #[arg(value_parser = units::parse_compression, allow_negative_numbers = true)]
    pub(crate) compression: units::CompressionArg,
}

/// What is shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct OutputArgs {
    /// Print messages as JSON, one a line, each with a message_type
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors and results only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more; twice: what the engine does
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No colours and no progress bar [env: NO_COLOR]
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_color: bool,
}

/// Where the bucket's name goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathStyle {
    #[default]
    Auto,
    Always,
    Never,
}

/// Which cipher to write with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CipherArg {
    #[default]
    Auto,
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

/// Which snapshots a verb means.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct FilterArgs {
    /// Only snapshots of this host (repeatable)
    #[arg(short = 'H', long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// Only snapshots with all of these tags, separated by commas (repeatable: any of them)
    #[arg(long, value_name = "TAG[,TAG]", value_parser = units::parse_tags)]
    pub(crate) tag: Vec<String>,
    /// Only snapshots that contain this absolute path (repeatable: all of them)
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Vec<PathBuf>,
}
