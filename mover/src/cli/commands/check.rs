//! `carrack check`: looks for damage.

use carrack_mover::{
    check::{CheckLevel, CheckOptions, CheckReport, DAMAGE_LISTED, Damage, Sample, Verdict, check},
    error::Result,
};
use clap::Args;

use super::snapshots;
use crate::cli::{args::FilterArgs, context::Context, engine, exit::Outcome, progress::in_words, units};

/// Look for damage
///
/// Without options: every record, page and reference. The other levels include it. Names what is damaged, which
/// files of which snapshots that touches (the first 20 of each object; with -v all of them), and which snapshots
/// restore in full; the exit code is 14 if anything is damaged.
///
/// A check with --read-data marks every snapshot that is whole as verified; `forget` keeps the last verified
/// snapshot of every source. Damaged packs are noted: later backups store again what was in them, as far as their
/// sources still have it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack check
  carrack check --read-data-subset 5%
  carrack check --read-data
  carrack check --read-data latest --host db1

A sample of 5 of 100 packs finds damage in a single pack with a probability of 5 %, damage in ten
of them with 42 %, and in twenty with 68 %; the summary says what this run's sample is worth.")]
pub(crate) struct CheckArgs {
    /// Snapshots to check, with what they need [default: everything]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Read the footer of every pack and compare it with the size that the store tells
    #[arg(long)]
    pub(crate) sizes: bool,
    /// Read, decrypt and compare all data
    #[arg(long, conflicts_with_all = ["sizes", "read_data_subset"])]
    pub(crate) read_data: bool,
    /// The same for a share of the packs, drawn at random
    #[arg(long, value_name = "PERCENT", value_parser = units::parse_percent, conflicts_with = "sizes")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) read_data_subset: Option<f64>,
    /// Write nothing: neither mark snapshots as verified nor note which packs are damaged
    #[arg(long)]
    pub(crate) no_mark: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

pub(crate) async fn run(context: &Context, args: &CheckArgs) -> Result<Outcome> {
    let memory_bytes = context.config()?.memory_bytes;
    let level = match (args.read_data, args.read_data_subset, args.sizes) {
        (true, ..) => CheckLevel::Data,
        (_, Some(percent), _) => CheckLevel::Sample(percent),
        (_, None, true) => CheckLevel::Sizes,
        (_, None, false) => CheckLevel::Structure,
    };
    let repository = engine::open(context).await?;
    let filter = engine::filter(&args.filter)?;
    let all = args.snapshots.is_empty() && filter.is_empty();
    let only = if all {
        None
    } else {
        let list = repository.snapshots().await?;
        let chosen = snapshots::choose(&repository, &list, &args.snapshots, &filter).await?;
        if chosen.is_empty() {
            return Err(filter.no_match().context("nothing was checked"));
        }
        Some(chosen.iter().map(|snapshot| snapshot.session).collect())
    };
    let (threads, mark) = (context.threads(), !args.no_mark);
    let options = CheckOptions { level, memory_bytes, threads, only, mark };
    let watch = context.watch("check");
    let report = check(&repository, &options, watch.monitor(), context.cancel.clone()).await;
    let elapsed = watch.elapsed();
    drop(watch);
    let report = report?;
    if context.output.is_json() {
        report.damage.iter().try_for_each(|damage| context.output.message("damage", damage))?;
        report.verdicts.iter().try_for_each(|verdict| context.output.message("verdict", verdict))?;
        context.output.message("summary", &report)?;
    } else {
        show(context, &report)?;
        context.output.remark(format_args!("time       {}", units::duration(elapsed)))?;
    }
    Ok(if report.is_clean() {
        Outcome::of_problems(report.not_readable + report.unproven)
    } else {
        Outcome::Damaged
    })
}

fn show(context: &Context, report: &CheckReport) -> Result<()> {
    let out = &context.output;
    out.remark(format_args!(
        "looked at  {} snapshots, {} pages, {} packs; sizes of {}, all data of {} ({})",
        report.snapshots,
        report.pages,
        report.packs,
        report.packs_sized,
        report.packs_read,
        units::size(report.bytes_read)
    ))?;
    if let Some(sample) = &report.sample {
        show_sample(context, sample)?;
    }
    if report.spoiled_copies > 0 {
        let copies = units::count(report.spoiled_copies, "copy", "copies");
        out.line(format_args!("spoiled    {copies} of packs that have a whole one too"))?;
    }
    if report.marked > 0 {
        let marked = units::count(report.marked, "snapshot", "snapshots");
        out.remark(format_args!("verified   {marked} marked"))?;
    }
    if let Some(problem) = &report.mark_problem {
        out.note(format_args!("not every whole snapshot is marked as verified: {problem}"));
    }
    if let Some(problem) = &report.unmark_problem {
        out.note(format_args!("a damaged snapshot is still marked as verified: {problem}"));
    }
    if report.noted > 0 {
        let packs = units::count(report.noted, "pack", "packs");
        out.line(format_args!(
            "noted      {packs}: later backups store again what was in them, as far as their sources have it"
        ))?;
    }
    if let Some(problem) = &report.note_problem {
        out.note(format_args!(
            "later backups will rely on what is damaged, it could not be noted: {problem}"
        ));
    }
    if report.unproven > 0 {
        let objects = units::count(report.unproven, "object", "objects");
        out.line(format_args!("unproven   {objects}: ignored; see who may write to the store"))?;
    }
    if report.is_clean() {
        return out.remark("nothing is damaged");
    }
    report.damage.iter().try_for_each(|damage| show_damage(context, damage))?;
    if report.damages > DAMAGE_LISTED as u64 {
        out.line(format_args!("           and {} more objects", report.damages - DAMAGE_LISTED as u64))?;
    }
    report.verdicts.iter().try_for_each(|verdict| show_verdict(context, verdict))?;
    out.line(format_args!(
        "found      {} damaged, {} touched; {} of {} restore whole",
        units::count(report.damages, "object", "objects"),
        units::count(report.affected_files, "entry", "entries"),
        report.whole.len(),
        units::count((report.whole.len() + report.damaged.len()) as u64, "snapshot", "snapshots"),
    ))
}

fn show_sample(context: &Context, sample: &Sample) -> Result<()> {
    let (packs, drawn) = (sample.packs, sample.drawn);
    let percent = |share: f64| share * 100.0;
    context.output.remark(format_args!(
        "sample     {drawn} of {packs} packs: finds damage in one pack with {:.1} %, in 1 % of the packs with \
         {:.1} %, in 10 % with {:.1} %",
        percent(sample.finds_one),
        percent(sample.finds_one_percent),
        percent(sample.finds_ten_percent),
    ))?;
    match (sample.fewer_than_95, sample.fewer_than_99) {
        (Some(likely), Some(surely)) => context.output.remark(format_args!(
            "           fewer than {likely} packs are damaged with 95 % certainty, fewer than {surely} with 99 %"
        )),
        _ => Ok(()),
    }
}

fn show_damage(context: &Context, damage: &Damage) -> Result<()> {
    let out = &context.output;
    let more = match damage.problems {
        0 | 1 => String::new(),
        problems => format!(" (and {})", units::count(problems - 1, "more problem", "more problems")),
    };
    out.line(format_args!("damaged    {}: {}{more}", damage.object, damage.problem))?;
    if damage.files_touched == 0 {
        return Ok(());
    }
    let hidden = damage.snapshots_touched - damage.snapshots.len() as u64;
    let more = if hidden > 0 { format!(" and {hidden} more") } else { String::new() };
    out.line(format_args!(
        "touches    {} in {}: {}{more}",
        units::count(damage.files_touched, "entry", "entries"),
        units::count(damage.snapshots_touched, "snapshot", "snapshots"),
        damage.snapshots.join(", "),
    ))?;
    for file in &damage.files {
        out.line(format_args!("           {}", in_words(file)))?;
    }
    // Of entries whose names cannot be read only the first and last are known, so there is nothing to count down.
    let hidden = damage.files_touched.saturating_sub(damage.files.len() as u64);
    if hidden > 0 && damage.files.iter().all(|file| file.to.is_none()) {
        out.line(format_args!("           and {hidden} more"))?;
    }
    Ok(())
}

fn show_verdict(context: &Context, verdict: &Verdict) -> Result<()> {
    let what = match (verdict.whole, verdict.entries_damaged) {
        (true, _) => "restores whole".to_owned(),
        (false, 0) => "does not restore whole".to_owned(),
        (false, damaged) => {
            format!("{damaged} of {} entries do not restore whole, the rest does", verdict.entries)
        }
    };
    context.output.line(format_args!(
        "snapshot   {} of {}, {} {}: {what}",
        verdict.snapshot,
        units::moment(verdict.time),
        verdict.hostname,
        verdict.paths.join(", ")
    ))
}
