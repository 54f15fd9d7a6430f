//! `carrack stats`: counts and sizes.

use carrack_mover::{error::Result, store::for_each};
use clap::Args;
use serde::Serialize;

use super::snapshots;
use crate::cli::{args::FilterArgs, context::Context, engine, exit::Outcome, units};

/// Show counts and sizes of snapshots and of the repository
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack stats
  carrack stats --host db1
  carrack stats latest")]
pub(crate) struct StatsArgs {
    /// Snapshots to look at [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// Body of `summary`.
#[derive(Default, Serialize)]
struct Summary {
    snapshots_count: usize,
    /// Files of these snapshots, each counted in every snapshot that has it.
    total_file_count: u64,
    /// Contents of these snapshots, restored each by itself.
    restore_size: u64,
    /// What these snapshots added when they were written.
    added_size: u64,
    /// The whole repository.
    repository_size: u64,
    packs_count: usize,
    packs_size: u64,
    index_size: u64,
}

pub(crate) async fn run(context: &Context, args: &StatsArgs) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let list = repository.snapshots().await?;
    let bad = snapshots::tell_unreadable(&context.output, &list);
    let filter = engine::filter(&args.filter)?;
    let chosen = snapshots::choose(&repository, &list, &args.snapshots, &filter).await?;
    snapshots::tell_no_match(&context.output, &list, &chosen, &filter);
    let mut summary = Summary { snapshots_count: chosen.len(), ..Summary::default() };
    for counts in chosen.iter().map(|snapshot| &snapshot.statistics) {
        // Records of somebody hostile count what they like.
        for files in [counts.files_new, counts.files_changed, counts.files_unmodified] {
            summary.total_file_count = summary.total_file_count.saturating_add(files);
        }
        summary.restore_size = summary.restore_size.saturating_add(counts.bytes_total);
        summary.added_size = summary.added_size.saturating_add(counts.bytes_stored);
    }
    for_each(repository.store().as_ref(), "", |object| {
        summary.repository_size += object.size;
        if object.name.starts_with("packs/") {
            summary.packs_count += 1;
            summary.packs_size += object.size;
        } else if object.name.starts_with("index/") {
            summary.index_size += object.size;
        }
    })
    .await?;
    show(context, &summary)?;
    Ok(Outcome::of_problems(bad as u64))
}

fn show(context: &Context, summary: &Summary) -> Result<()> {
    let out = &context.output;
    if out.is_json() {
        return out.message("summary", summary);
    }
    let files = units::count(summary.total_file_count, "file", "files");
    out.line(format_args!("snapshots    {}, {files}", summary.snapshots_count))?;
    out.line(format_args!("to restore   {}", units::size(summary.restore_size)))?;
    out.line(format_args!("added        {}", units::size(summary.added_size)))?;
    out.line(format_args!(
        "repository   {}: {} in {}, {} of index",
        units::size(summary.repository_size),
        units::size(summary.packs_size),
        units::count(summary.packs_count as u64, "pack", "packs"),
        units::size(summary.index_size),
    ))
}
