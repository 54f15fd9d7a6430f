//! `carrack ls`: lists what is in a snapshot.

use carrack_mover::{error::Result, format::entry::Entry, reader::walk::Part};
use clap::Args;
use serde::Serialize;

use crate::cli::{
    args::FilterArgs,
    context::Context,
    engine::{self, SnapshotPath},
    exit::Outcome,
    json::{self, Tagged},
    node::{self, Node},
};

/// List what is in a snapshot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack ls latest
  carrack ls latest:/home/ada --long
  carrack ls 4fd1a7c2:/etc --recursive --human-readable")]
pub(crate) struct LsArgs {
    /// Snapshot and a path in it [default: everything]
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Sizes with units
    #[arg(long)]
    pub(crate) human_readable: bool,
    /// Below a path, its sub-directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

pub(crate) async fn run(context: &Context, args: &LsArgs) -> Result<Outcome> {
    let wanted = SnapshotPath::parse(&args.snapshot)?;
    let repository = engine::open(context).await?;
    let (snapshot, reader) = engine::read(&repository, &wanted.snapshot, &args.filter).await?;
    if !wanted.path.is_empty() {
        reader.find(&wanted.path).await?;
    }
    let shallow = !wanted.path.is_empty() && !args.recursive;
    let part = if shallow { Part::directory(&wanted.path) } else { Part::below(&wanted.path) };
    let out = &context.output;
    let mut walk = reader.entries(part)?;
    let mut entries = 0;
    while let Some(leaf) = walk.next_leaf().await? {
        entries += leaf.len();
        out.stdout(|out| leaf.iter().try_for_each(|entry| writeln!(out, "{}", line(context, args, entry))))?;
    }
    if out.is_json() {
        out.message("summary", &Summary { snapshot_id: snapshot.session.nonce.short(), entries })?;
    }
    Ok(Outcome::Done)
}

fn line(context: &Context, args: &LsArgs, entry: &Entry) -> String {
    if context.output.is_json() {
        json::line(&Tagged { message_type: "node", body: &Node::new(entry) })
    } else if args.long {
        node::long(entry, args.human_readable)
    } else {
        node::short(entry)
    }
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    snapshot_id: String,
    entries: usize,
}
