//! `carrack forget`: takes snapshots out of view.

use carrack_mover::{
    error::{Error, Result},
    format::{records::Snapshot, session::SessionName},
    repo::{
        Decision, ForgetPlan, GroupBy as EngineGroupBy, KeepPolicy, PINNED, Repository, SnapshotList,
        plan_forget,
    },
};
use clap::Args;
use jiff::{Span, tz::TimeZone};
use serde::Serialize;

use super::{
    prune::{PruneHow, Pruned, prune},
    snapshots::{self, GroupBy},
};
use crate::cli::{
    args::FilterArgs,
    context::Context,
    engine,
    exit::Outcome,
    last_seen::{LastSeen, refuse_missing},
    units,
};

#[cfg(test)]
mod tests;

/// Take snapshots out of view, by rule or by name
///
/// Prints which snapshots stay and why, and which go. Their data is freed by the next prune. Pinned snapshots stay,
/// and so does the last verified snapshot of every source. Rules that would leave nothing of a host and its paths (of a
/// group, with --group-by) are refused, and then nothing is forgotten.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  carrack forget --keep-within 30d --host db1 --prune
  carrack forget 4fd1a7c2 9c01d2aa
  carrack forget --pin latest --host db1")]
pub(crate) struct ForgetArgs {
    /// Snapshots to forget (or to pin); without rules
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Snapshots that a rule looks at together
    #[arg(short, long, value_name = "BY", value_delimiter = ',', default_value = "host,path")]
    pub(crate) group_by: Vec<GroupBy>,
    /// Let rules forget all snapshots of a group
    #[arg(long, conflicts_with = "snapshots")]
    pub(crate) allow_forget_all: bool,
    /// Give up all that cannot be read or believed; what was pinned or verified stays
    #[arg(long, conflicts_with_all = ["snapshots", "pin", "unpin"])]
    pub(crate) unreadable: bool,
    /// Protect the named snapshots from being forgotten
    #[arg(long, requires = "snapshots", conflicts_with_all = ["unpin", "prune"])]
    pub(crate) pin: bool,
    /// Take that protection away
    #[arg(long, requires = "snapshots", conflicts_with = "prune")]
    pub(crate) unpin: bool,
    /// Free the data too, as carrack prune does
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) how: PruneHow,
    /// Say what would be forgotten, and forget nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// The rules of what stays.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What stays")]
pub(crate) struct KeepArgs {
    /// The last so many
    #[arg(short = 'l', long, value_name = "COUNT", value_parser = units::parse_count::<u32>, allow_negative_numbers = true)]
    pub(crate) keep_last: Option<u32>,
    /// The last of each hour, for the last so many hours that have one
    #[arg(long, value_name = "COUNT", value_parser = units::parse_count::<u32>, allow_negative_numbers = true)]
    pub(crate) keep_hourly: Option<u32>,
    /// The same by day
    #[arg(short = 'd', long, value_name = "COUNT", value_parser = units::parse_count::<u32>, allow_negative_numbers = true)]
    pub(crate) keep_daily: Option<u32>,
    /// The same by week (from Monday)
    #[arg(short = 'w', long, value_name = "COUNT", value_parser = units::parse_count::<u32>, allow_negative_numbers = true)]
    pub(crate) keep_weekly: Option<u32>,
    /// The same by month
    #[arg(short = 'm', long, value_name = "COUNT", value_parser = units::parse_count::<u32>, allow_negative_numbers = true)]
    pub(crate) keep_monthly: Option<u32>,
    /// The same by year
    #[arg(short = 'y', long, value_name = "COUNT", value_parser = units::parse_count::<u32>, allow_negative_numbers = true)]
    pub(crate) keep_yearly: Option<u32>,
    /// All within this time before the newest (1y6m3d12h: years, months, days, hours)
    #[arg(long, value_name = "SPAN", value_parser = units::parse_span, allow_hyphen_values = true)]
    pub(crate) keep_within: Option<Span>,
    /// All with all of these tags (repeatable: any of them)
    #[arg(long, value_name = "TAG[,TAG]", value_parser = units::parse_tags)]
    pub(crate) keep_tag: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: &ForgetArgs) -> Result<Outcome> {
    let policy = policy(&args.keep);
    let named = !args.snapshots.is_empty() || args.unreadable;
    if !named && policy.is_empty() {
        return Err(Error::invalid("nothing says what to forget").with_hint(
            "give rules such as --keep-daily 7, or name snapshots; --dry-run shows what would go",
        ));
    }
    if named && !policy.is_empty() {
        return Err(
            Error::invalid("rules and named snapshots do not go together").with_hint("give one of the two")
        );
    }
    let repository = engine::open(context).await?;
    let mut memory = LastSeen::of(&repository);
    if !args.dry_run && !args.pin && !args.unpin {
        refuse_missing(&repository, &mut memory).await?;
    }
    let list = repository.snapshots().await?;
    let unreadable_count = snapshots::tell_unreadable(&context.output, &list);
    // A snapshot whose record cannot be read has no short id: it is given up by its full name.
    let unreadable = |text: &String| list.unreadable.iter().find(|(name, _)| name.to_string() == *text);
    let mut given_up: Vec<SessionName> =
        args.snapshots.iter().filter_map(unreadable).map(|(name, _)| *name).collect();
    if args.unreadable {
        given_up = never_marked(&list).collect();
    }
    // What is given up is no problem any more.
    let bad = unreadable_count.saturating_sub(given_up.len());
    let named: Vec<String> =
        args.snapshots.iter().filter(|text| unreadable(text).is_none()).cloned().collect();
    let filter = engine::filter(&args.filter)?;
    let chosen = match named.is_empty() && (args.unreadable || !given_up.is_empty()) {
        true => Vec::new(),
        false => snapshots::choose(&repository, &list, &named, &filter).await?,
    };
    if given_up.is_empty() && !args.unreadable {
        snapshots::tell_no_match(&context.output, &list, &chosen, &filter);
    }
    if args.pin || args.unpin {
        mark(context, args, &repository, &chosen).await?;
        return Ok(Outcome::of_problems(bad as u64));
    }
    // Named snapshots go unless they are pinned; rules decide over the others.
    let gone = if args.snapshots.is_empty() && !args.unreadable {
        let zone = TimeZone::system();
        let by = groups(&args.group_by);
        let plan = plan_forget(&list.snapshots, &list.marks, &filter, &policy, by, &zone);
        show(context, &plan, &[])?;
        if !args.allow_forget_all {
            refuse_emptied(&plan)?;
        }
        plan.forget()
    } else {
        refuse_pinned(&list, &chosen)?;
        show(context, &all_of(&chosen), &given_up)?;
        chosen.iter().map(|snapshot| snapshot.session).chain(given_up).collect()
    };
    if !args.dry_run {
        memory.see(snapshots::seen(&list));
        memory.drop_all(&gone);
        memory.keep();
        repository.forget(&gone).await?;
    }
    let outcome = finish(context, args, &repository, &gone).await?;
    Ok(outcome.and(Outcome::of_problems(bad as u64)))
}

fn groups(by: &[GroupBy]) -> EngineGroupBy {
    EngineGroupBy {
        host: by.contains(&GroupBy::Host),
        paths: by.contains(&GroupBy::Path),
        tags: by.contains(&GroupBy::Tag),
    }
}

/// The plan of forgetting what was named: no rule keeps any of it.
fn all_of(chosen: &[Snapshot]) -> ForgetPlan {
    let decision = |snapshot: &Snapshot| Decision {
        session: snapshot.session,
        started: snapshot.started,
        host: snapshot.host.clone(),
        paths: snapshot.paths.clone(),
        reasons: Vec::new(),
    };
    ForgetPlan { decisions: chosen.iter().map(decision).collect(), ..ForgetPlan::default() }
}

fn refuse_pinned(list: &SnapshotList, chosen: &[Snapshot]) -> Result<()> {
    let Some(snapshot) = chosen.iter().find(|snapshot| list.is_marked(snapshot.session, PINNED)) else {
        return Ok(());
    };
    let id = snapshot.session.nonce.short();
    Err(Error::conflict(format!("snapshot {id} is pinned"))
        .with_hint(format!("carrack forget {id} --unpin takes the pin away")))
}

/// What is in doubt and carries no mark. A mark is signed: what has one was a snapshot once, is damaged now, and may
/// come back from a copy; so it is given up by name only.
fn never_marked(list: &SnapshotList) -> impl Iterator<Item = SessionName> {
    let names = list.unreadable.iter().map(|(name, _)| *name);
    names.filter(|name| list.marks.iter().all(|mark| mark.session != *name))
}

/// A rule that keeps nothing of a source is a slip, such as a misspelt tag, more often than a wish.
fn refuse_emptied(plan: &ForgetPlan) -> Result<()> {
    let Some(first) = plan.emptied.first() else { return Ok(()) };
    let others = match plan.emptied.len() {
        1 => String::new(),
        count => format!(", nor of {}", units::count(count as u64 - 1, "other group", "other groups")),
    };
    Err(Error::invalid(format!("these rules keep no snapshot of {first}{others}: nothing was forgotten"))
        .with_hint("add a rule such as --keep-last 1, or give --allow-forget-all if all of them are to go"))
}

/// Says what was done, and prunes if that was asked for too.
async fn finish(
    context: &Context,
    args: &ForgetArgs,
    repository: &Repository,
    gone: &[SessionName],
) -> Result<Outcome> {
    if !context.output.is_json() {
        let done = if args.dry_run { "would be forgotten" } else { "forgotten" };
        let gone = units::count(gone.len() as u64, "snapshot", "snapshots");
        context.output.remark(format_args!("{gone} {done}"))?;
    }
    let pruned = match args.prune {
        true => Some(prune(context, repository, &args.how, args.dry_run).await?),
        false => None,
    };
    let outcome = pruned.as_ref().map_or(Outcome::Done, Pruned::outcome);
    if context.output.is_json() {
        let forgotten = short(gone.iter());
        let summary = Summary { forgotten, prune: pruned, dry_run: args.dry_run, ..Summary::default() };
        context.output.message("summary", &summary)?;
    }
    Ok(outcome)
}

/// Body of `summary`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    dry_run: bool,
    forgotten: Vec<String>,
    pinned: Vec<String>,
    unpinned: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prune: Option<Pruned>,
}

fn short<'a>(sessions: impl Iterator<Item = &'a SessionName>) -> Vec<String> {
    sessions.map(|session| session.nonce.short()).collect()
}

fn policy(keep: &KeepArgs) -> KeepPolicy {
    KeepPolicy {
        last: keep.keep_last.unwrap_or_default(),
        hourly: keep.keep_hourly.unwrap_or_default(),
        daily: keep.keep_daily.unwrap_or_default(),
        weekly: keep.keep_weekly.unwrap_or_default(),
        monthly: keep.keep_monthly.unwrap_or_default(),
        yearly: keep.keep_yearly.unwrap_or_default(),
        within: keep.keep_within,
        tags: keep.keep_tag.clone(),
    }
}

async fn mark(
    context: &Context,
    args: &ForgetArgs,
    repository: &Repository,
    chosen: &[Snapshot],
) -> Result<()> {
    for snapshot in chosen.iter().filter(|_| !args.dry_run) {
        if args.pin {
            repository.mark_snapshot(snapshot.session, PINNED).await?;
        } else {
            repository.unmark_snapshot(snapshot.session, PINNED).await?;
        }
    }
    if context.output.is_json() {
        let names = short(chosen.iter().map(|snapshot| &snapshot.session));
        let (pinned, unpinned) = if args.pin { (names, Vec::new()) } else { (Vec::new(), names) };
        let summary = Summary { pinned, unpinned, dry_run: args.dry_run, ..Summary::default() };
        return context.output.message("summary", &summary);
    }
    for decision in &all_of(chosen).decisions {
        show_decision(context, if args.pin { "pin" } else { "unpin" }, decision)?;
    }
    let done = match (args.pin, args.dry_run) {
        (true, false) => "pinned",
        (true, true) => "would be pinned",
        (false, false) => "unpinned",
        (false, true) => "would be unpinned",
    };
    let snapshots = units::count(chosen.len() as u64, "snapshot", "snapshots");
    context.output.remark(format_args!("{snapshots} {done}"))
}

/// Body of `plan`.
#[derive(Serialize)]
struct Plan<'a> {
    #[serde(flatten)]
    plan: &'a ForgetPlan,
    /// What is given up although its record cannot be read.
    unreadable: &'a [SessionName],
}

fn show(context: &Context, plan: &ForgetPlan, unreadable: &[SessionName]) -> Result<()> {
    if context.output.is_json() {
        return context.output.message("plan", &Plan { plan, unreadable });
    }
    for decision in &plan.decisions {
        show_decision(context, if decision.reasons.is_empty() { "forget" } else { "keep" }, decision)?;
    }
    for session in unreadable {
        let id = session.nonce.short();
        context.output.remark(format_args!("forget  {id}  whose record cannot be read or believed"))?;
    }
    Ok(())
}

fn show_decision(context: &Context, verb: &str, decision: &Decision) -> Result<()> {
    let why = match decision.reasons.is_empty() {
        true => String::new(),
        false => format!("  ({})", decision.reasons.join(", ")),
    };
    context.output.remark(format_args!(
        "{verb:6}  {}  {}  {}  {}{why}",
        decision.session.nonce.short(),
        units::moment(decision.started),
        decision.host,
        decision.paths.join(", ")
    ))
}
