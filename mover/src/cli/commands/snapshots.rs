//! `carrack snapshots`: lists snapshots.

use std::collections::BTreeMap;

use carrack_mover::{
    error::Result,
    format::records::{Mark, Snapshot, SourceKind},
    repo::{PINNED, Repository, SnapshotFilter, SnapshotList, VERIFIED},
};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{
    args::FilterArgs,
    context::Context,
    engine,
    exit::Outcome,
    last_seen::{self, LastSeen, Seen},
    output::Output,
    units,
};

/// List snapshots
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack snapshots
  carrack snapshots --host db1 --tag nightly --latest 3
  carrack snapshots --json | jq -r 'select(.message_type == \"snapshot\") | .id'")]
pub(crate) struct SnapshotsArgs {
    /// Snapshots, or latest [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Only the last so many of each host and paths
    #[arg(long, value_name = "COUNT", value_parser = units::parse_count::<usize>, allow_negative_numbers = true)]
    pub(crate) latest: Option<usize>,
    /// Group the list
    #[arg(short, long, value_name = "BY", value_delimiter = ',')]
    pub(crate) group_by: Vec<GroupBy>,
}

/// What belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum GroupBy {
    #[value(alias = "hosts")]
    Host,
    #[value(alias = "paths")]
    Path,
    #[value(name = "tag", alias = "tags")]
    Tag,
}

pub(crate) async fn run(context: &Context, args: &SnapshotsArgs) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let list = repository.snapshots().await?;
    let mut memory = LastSeen::of(&repository);
    let missing = memory.missing(&repository).await?;
    for problem in missing.iter().map(last_seen::problem) {
        context.output.problem(&problem.what, &problem.message);
    }
    memory.see(seen(&list));
    memory.keep();
    let bad = tell_unreadable(&context.output, &list) + missing.len();
    let filter = engine::filter(&args.filter)?;
    let mut chosen = choose(&repository, &list, &args.snapshots, &filter).await?;
    tell_no_match(&context.output, &list, &chosen, &filter);
    if let Some(count) = args.latest {
        keep_latest(&mut chosen, count);
    }
    let out = &context.output;
    if out.is_json() {
        for snapshot in &chosen {
            out.message("snapshot", &Line::new(snapshot, &list.marks))?;
        }
        out.message("summary", &Summary { snapshots: chosen.len(), unreadable: bad })?;
    } else {
        for (title, group) in grouped(chosen, &args.group_by) {
            if !title.is_empty() {
                out.line(format_args!("{title}"))?;
            }
            table(out, &group, &list.marks)?;
        }
    }
    Ok(Outcome::of_problems(bad as u64))
}

/// What there is to remember of a list.
pub(crate) fn seen(list: &SnapshotList) -> impl Iterator<Item = Seen> {
    list.snapshots.iter().map(|snapshot| Seen { session: snapshot.session, started: snapshot.started })
}

/// Names what cannot be read; the rest can be used.
pub(crate) fn tell_unreadable(out: &Output, list: &SnapshotList) -> usize {
    for (session, error) in &list.unreadable {
        out.problem(&format!("snapshot {}", session.nonce.short()), &error.to_string());
    }
    for problem in &list.problems {
        out.problem(&problem.what, &problem.message);
    }
    list.unreadable.len() + list.problems.len()
}

/// An empty result looks the same for a typing error and for a repository that is new: says which it is.
pub(crate) fn tell_no_match(out: &Output, list: &SnapshotList, chosen: &[Snapshot], filter: &SnapshotFilter) {
    if !chosen.is_empty() {
        return;
    }
    match (list.snapshots.is_empty(), list.unreadable.is_empty()) {
        (true, true) => out.note("there are no snapshots in this repository"),
        // Those that cannot be read were named.
        (true, false) => {}
        (false, _) => out.note(filter.no_match()),
    }
}

/// The snapshots that were named, or all that the filter lets through.
pub(crate) async fn choose(
    repository: &Repository,
    list: &SnapshotList,
    names: &[String],
    filter: &SnapshotFilter,
) -> Result<Vec<Snapshot>> {
    if names.is_empty() {
        return Ok(list.snapshots.iter().filter(|snapshot| filter.matches(snapshot)).cloned().collect());
    }
    let mut chosen: Vec<Snapshot> = Vec::with_capacity(names.len());
    for name in names {
        let snapshot = repository.find_snapshot(name, filter).await?;
        if chosen.iter().all(|known| known.session != snapshot.session) {
            chosen.push(snapshot);
        }
    }
    Ok(chosen)
}

fn keep_latest(chosen: &mut Vec<Snapshot>, count: usize) {
    // An image, a stream and a tree under the same path have nothing in common but their name.
    let mut seen: BTreeMap<(String, Vec<String>, SourceKind), usize> = BTreeMap::new();
    chosen.reverse();
    chosen.retain(|snapshot| {
        let number =
            seen.entry((snapshot.host.clone(), snapshot.paths.clone(), snapshot.source)).or_default();
        *number += 1;
        *number <= count
    });
    chosen.reverse();
}

/// What snapshots have in common, in words.
pub(crate) fn group_title(snapshot: &Snapshot, by: &[GroupBy]) -> String {
    let mut by = by.to_vec();
    by.sort();
    by.dedup();
    let part = |by: &GroupBy| match by {
        GroupBy::Host => format!("host {}", snapshot.host),
        GroupBy::Path => format!("paths {}", snapshot.paths.join(", ")),
        GroupBy::Tag => format!("tags {}", snapshot.tags.join(",")),
    };
    by.iter().map(part).collect::<Vec<_>>().join("; ")
}

fn grouped(snapshots: Vec<Snapshot>, by: &[GroupBy]) -> BTreeMap<String, Vec<Snapshot>> {
    let mut groups: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        groups.entry(group_title(&snapshot, by)).or_default().push(snapshot);
    }
    groups
}

/// What marks say of one snapshot.
struct Marked {
    pinned: bool,
    /// When a check last read all of it.
    verified: Option<Timestamp>,
}

impl Marked {
    fn of(snapshot: &Snapshot, marks: &[Mark]) -> Self {
        let with = |word: &'static str| {
            marks.iter().filter(move |mark| mark.session == snapshot.session && mark.word == word)
        };
        let verified = with(VERIFIED).map(|mark| mark.created).max();
        Self { pinned: with(PINNED).next().is_some(), verified }
    }
}

/// Body of `snapshot`.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    pinned: bool,
    verified: Option<String>,
    #[serde(flatten)]
    snapshot: Brief<'a>,
}

#[derive(Serialize)]
struct Brief<'a> {
    session: String,
    time: String,
    finished: String,
    source: SourceKind,
    hostname: &'a str,
    username: &'a str,
    paths: &'a [String],
    tags: &'a [String],
    parent: Option<String>,
    change_id: Option<&'a str>,
    program_version: &'a str,
    summary: carrack_mover::format::records::Statistics,
}

impl<'a> Line<'a> {
    fn new(snapshot: &'a Snapshot, marks: &[Mark]) -> Self {
        let Marked { pinned, verified } = Marked::of(snapshot, marks);
        Self {
            id: snapshot.session.nonce.short(),
            pinned,
            verified: verified.map(|time| time.to_string()),
            snapshot: Brief {
                session: snapshot.session.to_string(),
                time: snapshot.started.to_string(),
                finished: snapshot.finished.to_string(),
                source: snapshot.source,
                hostname: &snapshot.host,
                username: &snapshot.user,
                paths: &snapshot.paths,
                tags: &snapshot.tags,
                parent: snapshot.parent.map(|parent| parent.nonce.short()),
                change_id: snapshot.change_id.as_deref(),
                program_version: &snapshot.program,
                summary: snapshot.statistics,
            },
        }
    }
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    snapshots: usize,
    unreadable: usize,
}

fn table(out: &Output, snapshots: &[Snapshot], marks: &[Mark]) -> Result<()> {
    let wide = |text: fn(&Snapshot) -> usize| snapshots.iter().map(text).max().unwrap_or_default();
    let host = wide(|snapshot| snapshot.host.chars().count()).max(4);
    let tags = wide(|snapshot| snapshot.tags.join(",").chars().count()).max(4);
    out.line(format_args!(
        "{:8}  {:19}  {:host$}  {:tags$}  {:>10}  {:6}  {:10}  Paths",
        "ID", "Time", "Host", "Tags", "Size", "Pinned", "Verified"
    ))?;
    for snapshot in snapshots {
        let Marked { pinned, verified } = Marked::of(snapshot, marks);
        let verified = verified.map(units::moment).unwrap_or_default();
        out.line(format_args!(
            "{:8}  {:19}  {:host$}  {:tags$}  {:>10}  {:6}  {:10}  {}",
            snapshot.session.nonce.short(),
            units::moment(snapshot.started),
            snapshot.host,
            snapshot.tags.join(","),
            units::size(snapshot.statistics.bytes_total),
            if pinned { "yes" } else { "" },
            // The day is enough for people.
            verified.get(..10).unwrap_or_default(),
            snapshot.paths.join(", "),
        ))?;
    }
    out.remark(units::count(snapshots.len() as u64, "snapshot", "snapshots"))
}
