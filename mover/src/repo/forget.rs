//! Retention: which snapshots go, decided by a pure function, and the markers that take them out of view.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::{Span, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{Repository, SnapshotFilter, snapshots::carries};
use crate::{
    error::Result,
    format::{
        records::{Mark, RecordKind, Snapshot, SourceKind},
        session::SessionName,
    },
    store::list_all,
};

#[cfg(test)]
mod tests;

/// What to keep. Everything that no rule keeps is forgotten; without any rule nothing is.
#[derive(Debug, Clone, Default)]
pub struct KeepPolicy {
    /// So many of the newest.
    pub last: u32,
    /// The newest of each of so many hours that have one.
    pub hourly: u32,
    /// The same by day.
    pub daily: u32,
    /// The same by ISO week.
    pub weekly: u32,
    /// The same by month.
    pub monthly: u32,
    /// The same by year.
    pub yearly: u32,
    /// All that are at most so much older than the newest.
    pub within: Option<Span>,
    /// All with all tags of one of these comma-separated lists.
    pub tags: Vec<String>,
}

impl KeepPolicy {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().all(|count| *count == 0) && self.within.is_none() && self.tags.is_empty()
    }
}

/// What makes snapshots one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The paths.
    pub paths: bool,
    /// The tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

/// One snapshot in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The snapshot.
    pub session: SessionName,
    /// When it was begun.
    pub started: Timestamp,
    /// Its host.
    pub host: String,
    /// Its paths.
    pub paths: Vec<String>,
    /// Why it is kept; nothing means that it is forgotten.
    pub reasons: Vec<String>,
}

/// What a forget would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ForgetPlan {
    /// Every snapshot that was looked at, by series and then by time, newest first.
    pub decisions: Vec<Decision>,
    /// Series of which nothing that was looked at would stay: rarely what anybody wants.
    pub emptied: Vec<Series>,
}

impl ForgetPlan {
    /// Those that go.
    pub fn forget(&self) -> Vec<SessionName> {
        let gone = self.decisions.iter().filter(|decision| decision.reasons.is_empty());
        gone.map(|decision| decision.session).collect()
    }
}

/// What the snapshots of a series have in common, as far as it tells series apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Series {
    /// Their host.
    pub host: Option<String>,
    /// Their paths.
    pub paths: Option<Vec<String>>,
    /// With paths: what is at them was taken as. An image file can be backed up as a file, too.
    pub source: Option<SourceKind>,
    /// Their tags, sorted.
    pub tags: Option<Vec<String>>,
}

impl Series {
    fn of(snapshot: &Snapshot, by: GroupBy) -> Self {
        let mut tags = by.tags.then(|| snapshot.tags.clone());
        tags.iter_mut().for_each(|tags| tags.sort());
        let host = by.host.then(|| snapshot.host.clone());
        let (paths, source) = (by.paths.then(|| snapshot.paths.clone()), by.paths.then_some(snapshot.source));
        Self { host, paths, source, tags }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_ref().map(|host| format!("host {host}"));
        let paths = self.paths.as_ref().map(|paths| format!("paths {}", paths.join(", ")));
        let tags = self.tags.as_ref().map(|tags| match tags.as_slice() {
            [] => "no tags".to_owned(),
            tags => format!("tags {}", tags.join(", ")),
        });
        let parts: Vec<String> = [host, paths, tags].into_iter().flatten().collect();
        if parts.is_empty() { f.write_str("any source") } else { f.write_str(&parts.join("; ")) }
    }
}

/// Decides what stays of `snapshots`, which are all that the repository has: of those that the filter lets through.
/// Pins hold whatever the rules say, and so does the last verified snapshot of every source.
pub fn plan_forget(
    snapshots: &[Snapshot],
    marks: &[Mark],
    filter: &SnapshotFilter,
    policy: &KeepPolicy,
    group_by: GroupBy,
    zone: &TimeZone,
) -> ForgetPlan {
    let protected = Protected::of(snapshots, marks);
    let mut groups: BTreeMap<Series, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| filter.matches(snapshot)) {
        groups.entry(Series::of(snapshot, group_by)).or_default().push(snapshot);
    }
    let mut plan = ForgetPlan::default();
    for (series, mut group) in groups {
        group.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.started, snapshot.session)));
        let decisions = decide(&group, &protected, policy, zone);
        if decisions.iter().all(|decision| decision.reasons.is_empty()) {
            plan.emptied.push(series);
        }
        plan.decisions.extend(decisions);
    }
    plan
}

/// What stays whatever the rules say.
struct Protected {
    pinned: BTreeSet<SessionName>,
    /// One of each source that has any, however the rules group snapshots and whatever is filtered out.
    last_verified: BTreeSet<SessionName>,
}

impl Protected {
    fn of(snapshots: &[Snapshot], marks: &[Mark]) -> Self {
        let marked = |word: &str| -> BTreeSet<SessionName> {
            marks.iter().filter(|mark| mark.word == word).map(|mark| mark.session).collect()
        };
        let verified = marked(VERIFIED);
        let mut last: BTreeMap<Series, (Timestamp, SessionName)> = BTreeMap::new();
        for snapshot in snapshots.iter().filter(|snapshot| verified.contains(&snapshot.session)) {
            let this = (snapshot.started, snapshot.session);
            // The default is what makes a source: host and paths.
            let newest = last.entry(Series::of(snapshot, GroupBy::default())).or_insert(this);
            *newest = this.max(*newest);
        }
        let last_verified = last.into_values().map(|(_, session)| session).collect();
        Self { pinned: marked(PINNED), last_verified }
    }
}

/// The mark of a snapshot that no rule forgets.
pub const PINNED: &str = "pinned";

/// The mark of a snapshot that a check found whole when it had read all of it.
pub const VERIFIED: &str = "verified";

/// One kind of period: how many, its name, and which period a moment is in.
type Period = (u32, &'static str, fn(&jiff::Zoned) -> (i16, i64));

fn decide(group: &[&Snapshot], protected: &Protected, policy: &KeepPolicy, zone: &TimeZone) -> Vec<Decision> {
    let periods: [Period; 5] = [
        // When its hour began: at the end of summer time two hours have one name.
        (policy.hourly, "hourly", |at| {
            let since = i64::from(at.minute()) * 60 + i64::from(at.second());
            (at.year(), at.timestamp().as_second() - since)
        }),
        (policy.daily, "daily", |at| (at.year(), at.day_of_year().into())),
        (policy.weekly, "weekly", |at| {
            let week = at.date().iso_week_date();
            (week.year(), week.week().into())
        }),
        (policy.monthly, "monthly", |at| (at.year(), at.month().into())),
        (policy.yearly, "yearly", |at| (at.year(), 0)),
    ];
    let oldest_within = policy.within.zip(group.first()).map(|(within, newest)| {
        // A span that reaches back beyond the calendar holds every snapshot that there can be.
        let oldest = newest.started.to_zoned(zone.clone()).checked_sub(within);
        oldest.map_or(Timestamp::MIN, |at| at.timestamp())
    });
    let mut seen: [BTreeSet<(i16, i64)>; 5] = Default::default();
    group
        .iter()
        .enumerate()
        .map(|(index, snapshot)| {
            let mut reasons = Vec::new();
            let mut keep = |applies: bool, reason: &str| applies.then(|| reasons.push(reason.to_owned()));
            keep(policy.is_empty(), "no rule");
            keep(protected.pinned.contains(&snapshot.session), "pinned");
            keep(protected.last_verified.contains(&snapshot.session), "last verified");
            keep(index < policy.last as usize, "last");
            let at = snapshot.started.to_zoned(zone.clone());
            for ((count, name, period), seen) in periods.iter().zip(&mut seen) {
                keep(seen.len() < *count as usize && seen.insert(period(&at)), name);
            }
            keep(oldest_within.is_some_and(|oldest| snapshot.started >= oldest), "within");
            keep(policy.tags.iter().any(|list| carries(snapshot, list)), "tag");
            Decision {
                session: snapshot.session,
                started: snapshot.started,
                host: snapshot.host.clone(),
                paths: snapshot.paths.clone(),
                reasons,
            }
        })
        .collect()
}

impl Repository {
    /// Takes snapshots out of view (FORGET). Their data stays until a prune; their ends stay, because a writer's late
    /// retry would only bring them back.
    pub async fn forget(&self, sessions: &[SessionName]) -> Result<()> {
        for session in sessions {
            self.put_mark("forgotten/", RecordKind::Forgotten, *session, "forgotten").await?;
        }
        self.store().flush().await
    }

    /// Marks a snapshot as `pinned` or `verified`.
    pub async fn mark_snapshot(&self, session: SessionName, word: &str) -> Result<()> {
        self.put_mark("marks/", RecordKind::Mark, session, word).await
    }

    /// Takes marks of this word off a snapshot; answers how many there were.
    pub async fn unmark_snapshot(&self, session: SessionName, word: &str) -> Result<u64> {
        self.check_maintenance_known()?;
        let mut count = 0;
        for object in list_all(self.store().as_ref(), &format!("marks/{session}.{word}.")).await? {
            self.store().delete(&object.name).await?;
            count += 1;
        }
        Ok(count)
    }

    /// The name has a random part; any mark that verifies counts.
    async fn put_mark(&self, folder: &str, kind: RecordKind, session: SessionName, word: &str) -> Result<()> {
        let what = format!("the mark `{word}` of {session}");
        let made = self.put_signed_anew(kind, &what, |random| {
            let name = match kind {
                RecordKind::Forgotten => format!("{folder}{session}.{random}"),
                _ => format!("{folder}{session}.{word}.{random}"),
            };
            (name, Mark { session, word: word.to_owned(), created: self.world().clock.now() })
        });
        made.await.map(|_random| ())
    }
}
