//! `carrack restore`: brings a snapshot back.

use std::{
    io::{self, Write},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use carrack_mover::{
    error::{Error, ErrorKind, Result},
    format::records::{Snapshot, SourceKind},
    monitor::{CollectMonitor, Monitor as _, Progress},
    reader::SnapshotReader,
    restore::{Existing, RestoreOptions, RestoreReport, Selection, TargetAttributes, image, restore, stream},
    source::exclude::Exclude,
    target::stdout::StreamTarget,
};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{
    args::FilterArgs,
    config::Config,
    context::Context,
    engine::{self, SnapshotPath},
    exit::{Outcome, OutputClosed},
    output::Output,
    progress::Watch,
    units,
};

/// Bring back a snapshot, or a part of it
///
/// Into a directory, onto a device, or to standard output. Only what differs from the target is written; what else
/// a directory holds stays, and is counted. Owners, modes, times, attributes, links and holes come back too; what
/// cannot be set is named, and the exit code is then 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack restore latest --target /tmp/restored
  carrack restore latest:/etc/nginx --target /etc/nginx --delete
  carrack restore 4fd1a7c2 --target / --include '/home/ada/**' --verify
  carrack restore latest --path /srv/db --host db1 --target /srv/db --dry-run
  carrack restore latest:/shop.sql --target - | psql shop
  carrack restore latest --target /dev/vg0/new

The path after the colon becomes the target itself: if the target is new, or empty but for lost+found, it gets
the owner, mode, times and other attributes of that directory; if it holds anything else, it keeps its own.
Patterns are those of carrack backup; with a slash in front they begin at that path. If nothing matches them, the
exit code is 10.")]
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
    /// When the target gets owner, mode, times and other attributes of the directory that becomes it
    #[arg(long, value_name = "WHEN", default_value = "if-unused", hide_short_help = true)]
    pub(crate) target_attributes: TargetAttributesArg,
    /// Read everything back from the target and compare; but for files that --overwrite if-newer or never left alone
    #[arg(long)]
    pub(crate) verify: bool,
    /// Make holes where the snapshot has zeros; this is so without the option too
    #[arg(long, hide = true)]
    pub(crate) sparse: bool,
    /// Say what would be written, name what would be deleted, and do nothing
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
    /// Leave files alone that are as new as in the snapshot, or newer; write the others as always does
    IfNewer,
    /// Leave every file alone that is there
    Never,
}

/// When the target gets the attributes of the directory that becomes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetAttributesArg {
    /// If it is new, or empty but for lost+found
    #[default]
    IfUnused,
    /// Whatever it holds, as what an earlier run of the same restore has written
    Always,
}

pub(crate) async fn run(context: &Context, args: &RestoreArgs) -> Result<Outcome> {
    let wanted = SnapshotPath::parse(&args.snapshot)?;
    let selection = selection(&args.select, &wanted)?;
    let config = context.config()?;
    let to_stdout = args.target.as_os_str().as_bytes() == b"-";
    let output = if to_stdout { context.output.beside_data() } else { context.output.clone() };
    let repository = engine::open(context).await?;
    let (snapshot, reader) = engine::read(&repository, &wanted.snapshot, &args.filter).await?;
    let watch = Watch::start("restore", &output, &context.world);
    context.begin_graceful();
    let mut before = Before::default();
    let done = if to_stdout {
        refuse_tree_options(args, "standard output")?;
        refuse_reading_back(args)?;
        to_stream(context, &reader, &wanted, &watch, config.memory_bytes).await
    } else if is_image_target(args, &snapshot)? {
        refuse_tree_options(args, "a device or image file")?;
        to_image(context, args, &reader, &wanted, &config, &watch).await
    } else {
        to_directory(context, args, (&reader, selection.clone()), &config, &watch, &mut before).await
    };
    let elapsed = watch.elapsed();
    drop(watch);
    let report = done?;
    if report.is_of_nothing(&selection) {
        return Err(Error::not_found("nothing in the snapshot matches the patterns: nothing was restored")
            .with_hint(
                "see what is there: carrack ls SNAPSHOT[:PATH]; patterns with a slash in front begin at PATH",
            ));
    }
    show(&output, args, &snapshot, (&report, before), elapsed)?;
    Ok(Outcome::of_problems(report.problems))
}

fn selection(args: &SelectArgs, wanted: &SnapshotPath) -> Result<Selection> {
    let include = patterns(&args.include, &args.iinclude, &args.include_file, "include")?;
    let exclude = patterns(&args.exclude, &args.iexclude, &args.exclude_file, "exclude")?;
    Ok(Selection { path: wanted.path.clone(), include, exclude })
}

fn patterns(exact: &[String], any_case: &[String], files: &[PathBuf], name: &str) -> Result<Exclude> {
    let mut patterns = Exclude::default();
    for file in files {
        patterns.add_file(file, false)?;
    }
    for pattern in exact {
        patterns.add_pattern(pattern, false, &format!("--{name}"))?;
    }
    for pattern in any_case {
        patterns.add_pattern(pattern, true, &format!("--i{name}"))?;
    }
    Ok(patterns)
}

/// Options that only a directory has are not ignored in silence.
fn refuse_tree_options(args: &RestoreArgs, target: &str) -> Result<()> {
    let select = &args.select;
    let selects = [&select.include, &select.iinclude, &select.exclude, &select.iexclude]
        .iter()
        .any(|list| !list.is_empty())
        || !select.include_file.is_empty()
        || !select.exclude_file.is_empty();
    let newer = args.overwrite == OverwriteArg::IfNewer;
    if selects || args.delete || newer {
        return Err(Error::invalid(format!(
            "patterns, --delete and --overwrite if-newer do not go with {target} as the target"
        ))
        .with_hint("leave them out, or restore to a directory"));
    }
    Ok(())
}

/// What went to standard output cannot be read back, nor looked at before.
fn refuse_reading_back(args: &RestoreArgs) -> Result<()> {
    if args.verify || args.dry_run {
        let said = "--verify and --dry-run do not go with standard output as the target";
        return Err(
            Error::invalid(said).with_hint("leave them out, or restore to a directory, device or file")
        );
    }
    Ok(())
}

/// Whether one content is written to a device or a file, instead of a tree to a directory.
fn is_image_target(args: &RestoreArgs, snapshot: &Snapshot) -> Result<bool> {
    match std::fs::metadata(&args.target) {
        Ok(found) if found.file_type().is_block_device() => Ok(true),
        Ok(found) if found.is_dir() && snapshot.source == SourceKind::Block => {
            let place = args.target.display();
            Err(Error::invalid(format!("target {place} is a directory, and the snapshot holds a device"))
                .with_hint(format!("name a device or a new file, such as {place}/image")))
        }
        Ok(found) if found.is_dir() => Ok(false),
        Ok(_) if snapshot.source == SourceKind::Files => {
            Err(Error::invalid(format!("target {} is not a directory", args.target.display()))
                .with_hint("name a directory, a device, or - for standard output"))
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(snapshot.source != SourceKind::Files),
        Err(error) => Err(Error::io(error, format!("target {}", args.target.display()))),
    }
}

/// Writes one file to standard output.
pub(crate) async fn to_stream(
    context: &Context,
    reader: &SnapshotReader,
    wanted: &SnapshotPath,
    watch: &Watch,
    memory_bytes: u64,
) -> Result<RestoreReport> {
    let entry = image::choose(reader, &wanted.path).await?;
    let target = StreamTarget::new(StandardOutput(io::stdout()));
    let bytes =
        stream::dump(reader, &entry, target, memory_bytes, watch.monitor(), context.cancel.clone()).await?;
    Ok(RestoreReport { files: 1, bytes, bytes_written: bytes, ..RestoreReport::default() })
}

/// Standard output whose broken pipe is told apart from a broken connection.
struct StandardOutput(io::Stdout);

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(name_closed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(name_closed)
    }
}

fn name_closed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, OutputClosed),
        _ => error,
    }
}

async fn to_image(
    context: &Context,
    args: &RestoreArgs,
    reader: &SnapshotReader,
    wanted: &SnapshotPath,
    config: &Config,
    watch: &Watch,
) -> Result<RestoreReport> {
    let options = image::ImageOptions {
        target: args.target.clone(),
        path: wanted.path.clone(),
        replace: args.overwrite != OverwriteArg::Never,
        known_zero: false,
        compare: Path::new(&args.target).exists(),
        verify: args.verify,
        dry_run: args.dry_run,
        memory_bytes: config.memory_bytes,
        threads: context.threads(),
    };
    image::restore_image(reader, &options, watch.monitor(), context.cancel.clone()).await
}

/// What a directory held before something was restored into it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Before {
    /// Whether it held anything; of other targets nothing is said.
    target_held: Option<bool>,
    /// How much of that the snapshot does not have, and stays. None if it was not counted.
    target_others: Option<u64>,
}

/// Whether somebody uses a directory already. Of one that cannot be listed the restore itself speaks.
fn holds_something(target: &Path) -> bool {
    let made_by_its_file_system = |name: &std::ffi::OsStr| name == "lost+found";
    let mut entries = std::fs::read_dir(target).into_iter().flatten().flatten();
    entries.any(|entry| !made_by_its_file_system(&entry.file_name()))
}

/// How much of what the target holds the snapshot does not have: what the same restore with `--delete` would remove
/// now. Where that cannot be told (one file was restored, or a directory cannot be listed), nothing is claimed.
async fn count_others(
    context: &Context,
    reader: &SnapshotReader,
    options: &RestoreOptions,
) -> Result<Option<u64>> {
    let options = RestoreOptions {
        existing: Existing::Trust,
        delete: true,
        verify: false,
        dry_run: true,
        ..options.clone()
    };
    let monitor = Arc::new(CollectMonitor::default());
    match restore(reader, &options, monitor.clone(), context.cancel.clone()).await {
        Ok(report) => Ok((Progress::get(&monitor.progress().problems) == 0).then_some(report.deleted)),
        Err(error) if error.kind() == ErrorKind::Internal => Err(error),
        Err(error) => {
            tracing::info!(%error, "what else the target holds was not counted");
            Ok(None)
        }
    }
}

async fn to_directory(
    context: &Context,
    args: &RestoreArgs,
    (reader, selection): (&SnapshotReader, Selection),
    config: &Config,
    watch: &Watch,
    before: &mut Before,
) -> Result<RestoreReport> {
    let existing = match args.overwrite {
        OverwriteArg::Always => Existing::Compare,
        OverwriteArg::IfChanged => Existing::Trust,
        OverwriteArg::IfNewer => Existing::KeepNewer,
        OverwriteArg::Never => Existing::Keep,
    };
    let options = RestoreOptions {
        selection,
        existing,
        delete: args.delete,
        take_over: args.target_attributes == TargetAttributesArg::Always,
        verify: args.verify,
        dry_run: args.dry_run,
        memory_bytes: config.memory_bytes,
        threads: context.threads(),
        ..RestoreOptions::to(&args.target)
    };
    let held = holds_something(&args.target);
    let report = restore(reader, &options, watch.monitor(), context.cancel.clone()).await?;
    before.target_held = Some(held);
    if held && !args.delete {
        watch.monitor().phase("what else the target holds");
        before.target_others = count_others(context, reader, &options).await?;
    }
    Ok(report)
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary<'a> {
    snapshot_id: String,
    dry_run: bool,
    total_duration: f64,
    #[serde(flatten)]
    report: &'a RestoreReport,
    #[serde(flatten)]
    before: Before,
}

fn show(
    out: &Output,
    args: &RestoreArgs,
    snapshot: &Snapshot,
    (report, before): (&RestoreReport, Before),
    elapsed: Duration,
) -> Result<()> {
    let snapshot_id = snapshot.session.nonce.short();
    if out.is_json() {
        let (dry_run, total_duration) = (args.dry_run, elapsed.as_secs_f64());
        return out.message("summary", &Summary { snapshot_id, dry_run, total_duration, report, before });
    }
    let names = (
        units::count(report.files, "file", "files"),
        units::count(report.directories, "directory", "directories"),
    );
    out.remark(format_args!("entries    {}, {}, {} others", names.0, names.1, report.others))?;
    if report.files_skipped + report.deleted > 0 || args.dry_run {
        out.remark(format_args!(
            "           {} new, {} left as they were, {} deleted",
            report.files_new, report.files_skipped, report.deleted
        ))?;
    }
    let (bytes, written) = (units::size(report.bytes), units::size(report.bytes_written));
    let most = if args.dry_run { "at most " } else { "" };
    out.remark(format_args!("contents   {bytes}, of which {most}{written} written"))?;
    if before.target_held == Some(true) && !args.delete {
        out.remark(format_args!(
            "target     held entries already: {}",
            others_in_words(before.target_others)
        ))?;
    }
    if let Some(room) = report.target_room {
        out.remark(format_args!("target     has room for {}", units::size(room)))?;
    }
    if report.files_verified > 0 {
        let verified = units::count(report.files_verified, "file", "files");
        out.remark(format_args!("verified   {verified} read back and compared"))?;
    }
    out.remark(format_args!(
        "time       {}, {}",
        units::duration(elapsed),
        units::rate(report.bytes, elapsed)
    ))?;
    if report.target_attributes == Some(TargetAttributes::Left) {
        out.note(format_args!(
            "{} held something already and keeps its own owner, mode and times",
            args.target.display()
        ));
    }
    if report.problems > 0 {
        out.line(format_args!("problems   {}: see the warnings above", report.problems))?;
    }
    let verb = if args.dry_run { "dry run    nothing was written; snapshot" } else { "restored   snapshot" };
    out.remark(format_args!("{verb} {snapshot_id} to {}", args.target.display()))
}

fn others_in_words(others: Option<u64>) -> String {
    match others {
        None => "those that the snapshot does not have stay, and were not counted".to_owned(),
        Some(0) => "the snapshot has all of them".to_owned(),
        Some(1) => "1 that the snapshot does not have stays (--delete removes it)".to_owned(),
        Some(count) => format!("{count} that the snapshot does not have stay (--delete removes them)"),
    }
}
