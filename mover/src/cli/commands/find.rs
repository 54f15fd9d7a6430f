//! `carrack find`: looks for names in snapshots.

use carrack_mover::{
    error::Result,
    find::{self, Wanted},
    format::{entry::Entry, records::Snapshot},
    reader::{SnapshotReader, walk::Part},
    repo::Repository,
};
use clap::Args;
use serde::Serialize;

use super::snapshots;
use crate::cli::{
    args::FilterArgs,
    context::Context,
    engine,
    exit::Outcome,
    json::{self, Tagged},
    node::{self, Node},
};

/// Look for names in snapshots
///
/// Says in which snapshots something is whose name or path matches one of the patterns.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack find passwd
  carrack find '*.sql' --host db1
  carrack find '/home/ada/**' '!*.tmp'
  carrack find -i 'report*' --snapshot latest --long")]
pub(crate) struct FindArgs {
    /// Names or paths; * and ? stay within a name, ** crosses directories, ! in front takes matches back
    #[arg(value_name = "PATTERN", required = true)]
    pub(crate) patterns: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Look into this snapshot only (repeatable)
    #[arg(short, long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Vec<String>,
    /// Without regard to case
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    pub(crate) long: bool,
}

pub(crate) async fn run(context: &Context, args: &FindArgs) -> Result<Outcome> {
    let mut patterns = Wanted::default();
    for pattern in &args.patterns {
        patterns.add(pattern, args.ignore_case, "pattern")?;
    }
    let repository = engine::open(context).await?;
    let list = repository.snapshots().await?;
    let bad = snapshots::tell_unreadable(&context.output, &list);
    let filter = engine::filter(&args.filter)?;
    let chosen = snapshots::choose(&repository, &list, &args.snapshot, &filter).await?;
    snapshots::tell_no_match(&context.output, &list, &chosen, &filter);
    let (mut matches, looked) = (0, chosen.len());
    for snapshot in chosen {
        matches += look(context, args, &repository, snapshot, &patterns).await?;
    }
    if context.output.is_json() {
        context.output.message("summary", &Summary { matches, snapshots: looked })?;
    } else if matches == 0 {
        context.output.remark("nothing matches")?;
    }
    Ok(Outcome::of_problems(bad as u64))
}

async fn look(
    context: &Context,
    args: &FindArgs,
    repository: &Repository,
    snapshot: Snapshot,
    patterns: &Wanted,
) -> Result<u64> {
    let id = snapshot.session.nonce.short();
    let title = format!("snapshot {id} of {}", crate::cli::units::moment(snapshot.started));
    let reader = SnapshotReader::of(repository, snapshot.session).await?;
    let mut first = !context.output.is_json();
    let mut show = |entries: Vec<Entry>| {
        if std::mem::take(&mut first) {
            context.output.line(&title)?;
        }
        context.output.stdout(|out| {
            entries.iter().try_for_each(|entry| writeln!(out, "{}", line(context, args, &id, entry)))
        })
    };
    find::find(&reader, Part::all(), patterns, &mut show).await
}

fn line(context: &Context, args: &FindArgs, id: &str, entry: &Entry) -> String {
    if context.output.is_json() {
        let body = Match { snapshot_id: id, node: Node::new(entry) };
        json::line(&Tagged { message_type: "match", body: &body })
    } else if args.long {
        node::long(entry, false)
    } else {
        node::short(entry)
    }
}

/// Body of `match`.
#[derive(Serialize)]
struct Match<'a> {
    snapshot_id: &'a str,
    #[serde(flatten)]
    node: Node,
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    matches: u64,
    snapshots: usize,
}
