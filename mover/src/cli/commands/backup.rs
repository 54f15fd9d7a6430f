//! `carrack backup`: writes a snapshot.

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use carrack_mover::{
    backup::{BackupOptions, BackupReport, BackupSource, ParentChoice, backup},
    error::{Error, Result},
    limits,
    repo::{Repository, SnapshotFilter},
    source::{exclude::Exclude, walk::WalkOptions},
};
use clap::Args;
use serde::Serialize;

use crate::cli::{
    context::{Context, environment},
    dry_run, engine,
    exit::Outcome,
    last_seen::{self, LastSeen, Seen},
    path_list,
    progress::Watch,
    units, user,
};

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

Patterns: * and ? stay within a name, ** crosses directories; a pattern without a slash at its
start matches at any depth, and !PATTERN takes a match back. The last match decides.")]
pub(crate) struct BackupArgs {
    /// Files and directories
    #[arg(value_name = "PATH", required_unless_present_any = ["files_from", "files_from_verbatim", "stdin", "device"])]
    #[arg(conflicts_with_all = ["stdin", "device"])]
    pub(crate) paths: Vec<PathBuf>,
    /// File with paths and patterns, one a line; lines that begin with # are comments; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin", "device"])]
    pub(crate) files_from: Vec<PathBuf>,
    /// The same with paths only, each taken as it stands (repeatable)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin", "device"])]
    pub(crate) files_from_verbatim: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) exclude: ExcludeArgs,
    #[command(flatten)]
    pub(crate) other: OtherSources,
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
    /// Tag for the snapshot, several separated by commas (repeatable)
    #[arg(long, value_name = "TAG[,TAG]", value_delimiter = ',', value_parser = parse_name)]
    pub(crate) tag: Vec<String>,
    /// Host name to record [default: this host's name]
    #[arg(short = 'H', long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) host: Option<String>,
    /// Say what would be stored, and store nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Write no snapshot if nothing differs from the parent, attributes of the directories above the paths included
    #[arg(long)]
    pub(crate) skip_if_unchanged: bool,
    /// Write no snapshot, and fail, if anything could not be read
    #[arg(long)]
    pub(crate) strict: bool,
    /// Least time between two checkpoints, from which a retry goes on after a kill
    #[arg(long, value_name = "SECONDS", default_value_t = limits::CHECKPOINT_INTERVAL.as_secs())]
    #[arg(value_parser = units::parse_count::<u64>, allow_negative_numbers = true, hide_short_help = true)]
    pub(crate) checkpoint_interval: u64,
    /// Leave out what takes longer than this to read, and of a mount all after the second: a file system that is gone may
    /// never answer
    #[arg(long, value_name = "SECONDS", default_value_t = limits::SOURCE_TIMEOUT.as_secs())]
    #[arg(value_parser = units::parse_count::<u64>, allow_negative_numbers = true, hide_short_help = true)]
    pub(crate) source_timeout: u64,
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
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, allow_hyphen_values = true)]
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
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME, requires = "stdin")]
    pub(crate) stdin_filename: String,
    /// Back up the blocks of this device or image file
    #[arg(long, value_name = "PATH")]
    pub(crate) device: Option<PathBuf>,
    /// Read only the extents listed here; the rest is as in the parent
    #[arg(long, value_name = "FILE", requires = "device")]
    pub(crate) changed_blocks: Option<PathBuf>,
    /// Name of this state of the device: kept for the next list of changed blocks, and how a retry knows that what
    /// it had read is still the same
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
    /// Do not read the contents of a file again only because its ctime differs (restored or cloned volumes)
    #[arg(long)]
    pub(crate) ignore_ctime: bool,
    /// Do not read a file again only because its inode number differs (network file systems)
    #[arg(long)]
    pub(crate) ignore_inode: bool,
}

/// What standard input is kept under.
const DEFAULT_NAME: &str = "stdin";

pub(crate) async fn run(context: &Context, args: &BackupArgs) -> Result<Outcome> {
    let config = context.config()?;
    let source = source(context, args)?;
    let repository = dry_run::open(context, args.dry_run).await?;
    let options = BackupOptions {
        host: host(args)?,
        user: user::name(),
        tags: tags(&args.tag),
        cipher: engine::cipher(config.cipher),
        compression: engine::compression(config.compression),
        memory_bytes: config.memory_bytes,
        parent: parent(&repository, &args.compare).await?,
        force: args.compare.force,
        ignore_ctime: args.compare.ignore_ctime,
        ignore_inode: args.compare.ignore_inode,
        threads: context.threads(),
        skip_if_unchanged: args.skip_if_unchanged,
        strict: args.strict,
        checkpoint_interval: Duration::from_secs(args.checkpoint_interval),
        source_timeout: Duration::from_secs(args.source_timeout),
        ..BackupOptions::new(source)
    };
    let mut memory = LastSeen::of(&repository);
    let missing = memory.missing(&repository).await?;
    for problem in missing.iter().map(last_seen::problem) {
        context.output.problem(&problem.what, &problem.message);
    }
    let watch = if args.other.stdin {
        // What feeds it may never say more, and then nobody would look at a request to stop: it ends at once.
        Watch::start("backup", &context.output, &context.world)
    } else {
        context.watch("backup")
    };
    let report = backup(&repository, options, watch.monitor(), context.cancel.clone()).await;
    let elapsed = watch.elapsed();
    drop(watch);
    let report = report?;
    if let Some(snapshot) = report.snapshot.as_ref().filter(|_| !args.dry_run) {
        memory.drop_all(missing.iter().map(|seen| &seen.session));
        memory.see([Seen { session: snapshot.session, started: snapshot.started }]);
        memory.keep();
    }
    let in_doubt = report.doubts + missing.len() as u64;
    show(context, args, &report, (elapsed, next_step(report.problems, in_doubt)))?;
    Ok(Outcome::of_problems(report.problems + in_doubt))
}

/// What to do about a backup that is done in part; what cannot be read weighs more than what is stored twice.
fn next_step(problems: u64, in_doubt: u64) -> Option<&'static str> {
    match (problems, in_doubt) {
        (1.., _) => Some(
            "mend what the warnings name (for files in use, back up a snapshot of their file system) and run the same \
             command again: it reads only what is missing or has changed; what is never to be kept goes with --exclude",
        ),
        (0, 1..) => Some(
            "see who may write to the store, and whether an old state of it was put back: carrack snapshots, carrack check",
        ),
        (0, 0) => None,
    }
}

fn source(context: &Context, args: &BackupArgs) -> Result<BackupSource> {
    let other = &args.other;
    if other.stdin {
        return Ok(BackupSource::Stdin { name: other.stdin_filename.clone() });
    }
    if let Some(path) = &other.device {
        let (changed, change_id) = (other.changed_blocks.clone(), other.change_id.clone());
        return Ok(BackupSource::Block { path: path.clone(), changed, change_id });
    }
    // The parser lets these pass beside paths, because paths and what these need exclude each other.
    if other.changed_blocks.is_some() || other.change_id.is_some() {
        return Err(Error::invalid("--changed-blocks and --change-id speak of a device, and none is given")
            .with_hint("name it with --device, and no other path"));
    }
    if other.stdin_filename != DEFAULT_NAME {
        return Err(Error::invalid("--stdin-filename needs --stdin")
            .with_hint("give --stdin and no path, or leave the name out"));
    }
    let mut roots = args.paths.clone();
    for list in &args.files_from {
        let listed = path_list::expanded(list)?;
        for pattern in &listed.unmatched {
            context.output.problem(pattern, "the pattern matches nothing");
        }
        roots.extend(listed.paths);
    }
    for list in &args.files_from_verbatim {
        roots.extend(path_list::verbatim(list)?);
    }
    if roots.is_empty() {
        return Err(
            Error::invalid("no path to back up: the list is empty").with_hint("name at least one path")
        );
    }
    roots.iter().try_for_each(|root| require_root(root))?;
    Ok(BackupSource::Files(WalkOptions {
        roots,
        one_file_system: args.exclude.one_file_system,
        exclude: exclude(&args.exclude)?,
        threads: context.threads(),
        ..WalkOptions::default()
    }))
}

/// A path to back up must be there, and hold what a backup of files can keep.
fn require_root(root: &Path) -> Result<()> {
    root.symlink_metadata().map_err(|error| {
        Error::io(error, format!("{} cannot be backed up", root.display()))
            .with_hint("name paths that exist; nothing was written")
    })?;
    // Behind a link too: that is how volumes are named, and the link alone is nothing that anybody means to keep.
    if root.metadata().is_ok_and(|found| found.file_type().is_block_device()) {
        let shown = root.display();
        return Err(Error::invalid(format!(
            "{shown} is a block device: as a path, its name would be kept and nothing of what is on it"
        ))
        .with_hint(format!("back up its contents with: carrack backup --device {shown}")));
    }
    Ok(())
}

fn exclude(args: &ExcludeArgs) -> Result<Exclude> {
    let mut exclude = Exclude::default();
    for file in &args.exclude_file {
        exclude.add_file(file, false)?;
    }
    for pattern in &args.exclude {
        exclude.add_pattern(pattern, false, "--exclude")?;
    }
    for pattern in &args.iexclude {
        exclude.add_pattern(pattern, true, "--iexclude")?;
    }
    for rule in &args.exclude_if_present {
        exclude.add_if_present(rule)?;
    }
    if args.exclude_caches {
        exclude.add_caches();
    }
    if let Some(bytes) = args.exclude_larger_than {
        exclude.set_larger_than(bytes);
    }
    Ok(exclude)
}

/// A name to record. An empty one tells nothing apart, and comes from a variable that was not set.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty: give a name, or leave the option out".into());
    }
    Ok(text.to_owned())
}

fn host(args: &BackupArgs) -> Result<String> {
    args.host.clone().map_or_else(this_host, Ok)
}

/// The name of this machine.
pub(crate) fn this_host() -> Result<String> {
    if let Some(name) = environment("CARRACK_HOST") {
        return Ok(name.to_string_lossy().into_owned());
    }
    let hint = "give it with --host";
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|error| Error::io(error, "the host's name cannot be found").with_hint(hint))?;
    match name.trim() {
        "" => Err(Error::invalid("this host has no name").with_hint(hint)),
        name => Ok(name.to_owned()),
    }
}

fn tags(typed: &[String]) -> Vec<String> {
    let mut tags = typed.to_vec();
    tags.sort();
    tags.dedup();
    tags
}

async fn parent(repository: &Repository, args: &CompareArgs) -> Result<ParentChoice> {
    match &args.parent {
        Some(text) => {
            let snapshot = repository.find_snapshot(text, &SnapshotFilter::default()).await?;
            Ok(ParentChoice::Session(snapshot.session))
        }
        None if args.force => Ok(ParentChoice::None),
        None => Ok(ParentChoice::Latest),
    }
}

/// Body of `summary`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// None if nothing was committed.
    snapshot_id: Option<String>,
    session: Option<String>,
    /// When it was begun.
    time: Option<String>,
    dry_run: bool,
    files_new: u64,
    files_changed: u64,
    files_unmodified: u64,
    directories: u64,
    others: u64,
    excluded: u64,
    problems: u64,
    /// When the checkpoint of an unfinished run was written that this one continued from.
    continued_from: Option<String>,
    /// Files and bytes that were not read again because of it.
    continued_files: u64,
    continued_bytes: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
    bytes_read: u64,
    /// Bytes of new chunks, before compression.
    data_added: u64,
    /// Bytes that were added to the repository.
    data_added_packed: u64,
    total_duration: f64,
    /// What to do about what is done in part.
    next: Option<&'static str>,
}

fn show(
    context: &Context,
    args: &BackupArgs,
    report: &BackupReport,
    (elapsed, next): (Duration, Option<&'static str>),
) -> Result<()> {
    let out = &context.output;
    let mut summary = Summary {
        dry_run: args.dry_run,
        problems: report.problems,
        continued_from: report.continued.written.map(|written| written.to_string()),
        continued_files: report.continued.files,
        continued_bytes: report.continued.bytes,
        total_duration: elapsed.as_secs_f64(),
        next,
        ..Summary::default()
    };
    if let Some(snapshot) = &report.snapshot {
        let counts = &snapshot.statistics;
        summary.snapshot_id = (!args.dry_run).then(|| snapshot.session.nonce.short());
        summary.session = (!args.dry_run).then(|| snapshot.session.to_string());
        summary.time = (!args.dry_run).then(|| snapshot.started.to_string());
        summary.files_new = counts.files_new;
        summary.files_changed = counts.files_changed;
        summary.files_unmodified = counts.files_unmodified;
        summary.directories = counts.directories;
        summary.others = counts.others;
        summary.excluded = counts.excluded;
        summary.total_files_processed = counts.files_new + counts.files_changed + counts.files_unmodified;
        summary.total_bytes_processed = counts.bytes_total;
        summary.bytes_read = counts.bytes_read;
        summary.data_added = counts.bytes_new;
        summary.data_added_packed = counts.bytes_stored;
    }
    if out.is_json() {
        return out.message("summary", &summary);
    }
    if report.snapshot.is_none() {
        out.remark("nothing differs from the last snapshot: none was written")?;
        return show_problems(context, &summary);
    }
    show_words(context, &summary, report, elapsed)
}

fn show_words(context: &Context, summary: &Summary, report: &BackupReport, elapsed: Duration) -> Result<()> {
    let out = &context.output;
    if let Some(written) = report.continued.written {
        out.remark(format_args!(
            "continued  from a checkpoint of {}: {}, {} not read again",
            units::moment(written),
            units::count(report.continued.files, "file", "files"),
            units::size(report.continued.bytes),
        ))?;
    }
    out.remark(format_args!(
        "files      {} new, {} changed, {} unmodified; {}",
        summary.files_new,
        summary.files_changed,
        summary.files_unmodified,
        units::count(summary.directories, "directory", "directories"),
    ))?;
    if summary.excluded > 0 {
        out.remark(format_args!(
            "left out   {} by rule",
            units::count(summary.excluded, "entry", "entries")
        ))?;
    }
    out.remark(format_args!(
        "contents   {}, of which {} read and {} new; {} stored",
        units::size(summary.total_bytes_processed),
        units::size(summary.bytes_read),
        units::size(summary.data_added),
        units::size(summary.data_added_packed),
    ))?;
    out.remark(format_args!(
        "time       {}, {}",
        units::duration(elapsed),
        units::rate(summary.total_bytes_processed, elapsed)
    ))?;
    show_problems(context, summary)?;
    match &summary.snapshot_id {
        Some(id) => out.line(format_args!("snapshot   {id} saved")),
        None => out.line("dry run    nothing was written"),
    }
}

fn show_problems(context: &Context, summary: &Summary) -> Result<()> {
    if summary.problems > 0 {
        context.output.line(format_args!(
            "problems   {}: the snapshot is not complete, see the warnings above",
            summary.problems
        ))?;
    }
    // As below an error.
    summary.next.map_or(Ok(()), |next| context.output.line(format_args!("  next: {next}")))
}
