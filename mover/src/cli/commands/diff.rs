//! `carrack diff`: compares two snapshots.

use std::{cmp::Ordering, collections::VecDeque};

use carrack_mover::{
    error::Result,
    format::{
        entry::{Content, Entry, Run},
        metadata::Metadata,
        order::compare_paths,
    },
    monitor::escape_path,
    reader::{
        SnapshotReader,
        runs::RunWalk,
        walk::{Part, TreeWalk},
    },
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
    let mut comparison = Comparison {
        context,
        args,
        from: Side::new(&from_reader, from.path).await?,
        to: Side::new(&to_reader, to.path).await?,
        summary: Summary::default(),
    };
    comparison.run().await?;
    let summary = comparison.summary;
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
struct Change {
    path: String,
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

/// One of the two trees, entry by entry in tree order.
struct Side<'r> {
    reader: &'r SnapshotReader,
    walk: TreeWalk,
    leaf: VecDeque<Entry>,
    prefix: Vec<u8>,
}

impl<'r> Side<'r> {
    async fn new(reader: &'r SnapshotReader, prefix: Vec<u8>) -> Result<Self> {
        if !prefix.is_empty() {
            reader.find(&prefix).await?;
        }
        Ok(Self { reader, walk: reader.entries(Part::below(&prefix))?, leaf: VecDeque::new(), prefix })
    }

    /// The path below the one that was asked for, of the next entry.
    async fn next_path(&mut self) -> Result<Option<Vec<u8>>> {
        while self.leaf.is_empty() {
            match self.walk.next_leaf().await? {
                Some(leaf) => self.leaf.extend(leaf),
                None => return Ok(None),
            }
        }
        Ok(self.leaf.front().map(|entry| self.relative(&entry.path).to_vec()))
    }

    fn relative<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        if self.prefix.is_empty() { path } else { path.get(self.prefix.len() + 1..).unwrap_or_default() }
    }

    fn take(&mut self) -> Entry {
        self.leaf.pop_front().expect("the path of this entry was just asked for")
    }
}

struct Comparison<'c> {
    context: &'c Context,
    args: &'c DiffArgs,
    from: Side<'c>,
    to: Side<'c>,
    summary: Summary,
}

impl Comparison<'_> {
    async fn run(&mut self) -> Result<()> {
        loop {
            let order = match (self.from.next_path().await?, self.to.next_path().await?) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(from), Some(to)) => compare_paths(&from, &to),
            };
            match order {
                Ordering::Less => {
                    let entry = self.from.take();
                    self.summary.removed += 1;
                    self.summary.bytes_removed += entry.metadata.size;
                    self.tell('-', &entry)?;
                }
                Ordering::Greater => {
                    let entry = self.to.take();
                    self.summary.added += 1;
                    self.summary.bytes_added += entry.metadata.size;
                    self.tell('+', &entry)?;
                }
                Ordering::Equal => self.compare().await?,
            }
        }
    }

    async fn compare(&mut self) -> Result<()> {
        let (old, new) = (self.from.take(), self.to.take());
        if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
            self.summary.kind_changed += 1;
            return self.tell('T', &new);
        }
        // Of one kind, and not equal: a link's target, a device's numbers.
        let changed = old.kind != new.kind
            || old.metadata.size != new.metadata.size
            || differ(self.from.reader, &old.content, self.to.reader, &new.content).await?;
        if changed {
            self.summary.modified += 1;
            return self.tell('M', &new);
        }
        if attributes(&old.metadata) != attributes(&new.metadata) {
            self.summary.metadata_changed += 1;
            if self.args.metadata {
                return self.tell('U', &new);
            }
        }
        Ok(())
    }

    fn tell(&self, modifier: char, entry: &Entry) -> Result<()> {
        let path = format!("/{}", escape_path(&entry.path));
        if self.context.output.is_json() {
            return self.context.output.message("change", &Change { path, modifier });
        }
        self.context.output.line(format_args!("{modifier}    {path}"))
    }
}

/// What a restore would set: not the inode, its device, links and ctime.
fn attributes(metadata: &Metadata) -> Metadata {
    let ctime = Default::default();
    Metadata { ctime, inode: 0, device: 0, links: 0, ..metadata.clone() }
}

/// Whether two contents of the same size differ. Where chunks lie does not count, only what they are.
async fn differ(
    old_reader: &SnapshotReader,
    old: &Content,
    new_reader: &SnapshotReader,
    new: &Content,
) -> Result<bool> {
    if old == new {
        return Ok(false);
    }
    let mut sides = (Runs::new(old_reader, old), Runs::new(new_reader, new));
    loop {
        let (old, new) = (sides.0.next().await?, sides.1.next().await?);
        match (old, new) {
            (None, None) => return Ok(false),
            (Some(Run::Chunk(old)), Some(Run::Chunk(new))) if old.id == new.id => {}
            (Some(Run::Hole(old)), Some(Run::Hole(new))) if old == new => {}
            _ => return Ok(true),
        }
    }
}

/// The runs of a content, one by one.
struct Runs {
    walk: RunWalk,
    piece: VecDeque<Run>,
}

impl Runs {
    fn new(reader: &SnapshotReader, content: &Content) -> Self {
        Self { walk: reader.runs(content), piece: VecDeque::new() }
    }

    async fn next(&mut self) -> Result<Option<Run>> {
        while self.piece.is_empty() {
            match self.walk.next_piece().await? {
                Some((_, runs)) => self.piece.extend(runs),
                None => return Ok(None),
            }
        }
        Ok(self.piece.pop_front())
    }
}
