//! `carrack diff`: compares two snapshots.

use carrack_mover::{
    diff::{self, Change, Tree},
    error::Result,
    monitor::escape_path,
};
use clap::Args;
use serde::Serialize;

use crate::cli::{
    args::FilterArgs,
    context::Context,
    engine::{self, SnapshotPath},
    exit::Outcome,
    units,
};

/// Compare two snapshots
///
/// One line for each path that differs: + added, - removed, M contents changed, T another kind of thing, and
/// U attributes only (with --metadata).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack diff 4fd1a7c2 latest
  carrack diff 4fd1a7c2:/etc latest:/etc --metadata")]
pub(crate) struct DiffArgs {
    /// The older snapshot and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) from: String,
    /// The newer snapshot and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) to: String,
    /// Show paths too whose attributes alone differ
    #[arg(long)]
    pub(crate) metadata: bool,
}

pub(crate) async fn run(context: &Context, args: &DiffArgs) -> Result<Outcome> {
    let (from, to) = (SnapshotPath::parse(&args.from)?, SnapshotPath::parse(&args.to)?);
    let repository = engine::open(context).await?;
    let any = FilterArgs::default();
    let (_, from_reader) = engine::read(&repository, &from.snapshot, &any).await?;
    let (_, to_reader) = engine::read(&repository, &to.snapshot, &any).await?;
    for (reader, path) in [(&from_reader, &from.path), (&to_reader, &to.path)] {
        if !path.is_empty() {
            reader.find(path).await?;
        }
    }
    let mut summary = Summary::default();
    let old = Tree { reader: &from_reader, path: &from.path };
    let new = Tree { reader: &to_reader, path: &to.path };
    diff::diff(old, new, &mut |change| summary.take(context, args, &change)).await?;
    if context.output.is_json() {
        context.output.message("summary", &summary)?;
    } else {
        context.output.remark(format_args!(
            "{} added ({}), {} removed ({}), {} changed, {} of another kind, {} in attributes only",
            summary.added,
            units::size(summary.bytes_added),
            summary.removed,
            units::size(summary.bytes_removed),
            summary.modified,
            summary.kind_changed,
            summary.metadata_changed,
        ))?;
    }
    Ok(Outcome::Done)
}

/// Body of `change`.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    modifier: char,
}

/// Body of `summary`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    added: u64,
    removed: u64,
    modified: u64,
    kind_changed: u64,
    metadata_changed: u64,
    bytes_added: u64,
    bytes_removed: u64,
}

impl Summary {
    fn take(&mut self, context: &Context, args: &DiffArgs, change: &Change) -> Result<()> {
        let (modifier, entry, count) = match change {
            Change::Removed(entry) => ('-', entry, &mut self.removed),
            Change::Added(entry) => ('+', entry, &mut self.added),
            Change::Kind(entry) => ('T', entry, &mut self.kind_changed),
            Change::Modified(entry) => ('M', entry, &mut self.modified),
            Change::Attributes(entry) => ('U', entry, &mut self.metadata_changed),
        };
        *count += 1;
        match modifier {
            '-' => self.bytes_removed = self.bytes_removed.saturating_add(entry.metadata.size),
            '+' => self.bytes_added = self.bytes_added.saturating_add(entry.metadata.size),
            'U' if !args.metadata => return Ok(()),
            _ => {}
        }
        let path = format!("/{}", escape_path(&entry.path));
        if context.output.is_json() {
            return context.output.message("change", &Line { path: &path, modifier });
        }
        context.output.line(format_args!("{modifier}    {path}"))
    }
}
