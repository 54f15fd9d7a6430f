//! The snapshots of a repository: listing them, choosing among them, and finding the one that a person means.

use std::fmt;

use jiff::Timestamp;

use super::{
    Repository,
    ends::{End, is_doubt, parent_of},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        records::{Mark, Snapshot},
        session::{SessionKind, SessionName},
    },
    monitor::Problem,
};

#[cfg(test)]
mod tests;

/// All snapshots that are visible, and what could not be read or believed.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// By the time they were begun, and without the keys that their trees refer to: of thousands of snapshots these
    /// are more than memory is for. [`Repository::snapshot`] reads one with them.
    pub snapshots: Vec<Snapshot>,
    /// Visible, but their record cannot be read. Repacks among them.
    pub unreadable: Vec<(SessionName, Error)>,
    /// Pins and verifications that carry a true signature.
    pub marks: Vec<Mark>,
    /// Objects that claim something and cannot prove it.
    pub problems: Vec<Problem>,
}

impl SnapshotList {
    /// Whether a snapshot has a mark of this word: [`PINNED`](super::PINNED) or [`VERIFIED`](super::VERIFIED).
    pub fn is_marked(&self, session: SessionName, word: &str) -> bool {
        self.marks.iter().any(|mark| mark.session == session && mark.word == word)
    }

    fn add(&mut self, name: SessionName, end: Result<Option<End>>) -> Result<()> {
        match end {
            Ok(Some(End::Committed(snapshot))) => {
                self.snapshots.push(Snapshot { sessions: Vec::new(), ..*snapshot });
            }
            Ok(Some(End::Void(problem))) => {
                let problem = format!("object {} cannot be believed: {problem}", name.end_object());
                self.unreadable.push((name, Error::corrupt(problem)));
            }
            Ok(_) => {}
            Err(error) if is_doubt(&error) => self.unreadable.push((name, error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Which snapshots are meant.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// One of these hosts; any if empty.
    pub hosts: Vec<String>,
    /// All tags of one of these comma-separated lists; any if empty.
    pub tags: Vec<String>,
    /// All of these paths; any if empty.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    /// Whether it lets every snapshot through.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// Whether the snapshot is meant.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let host = self.hosts.is_empty() || self.hosts.contains(&snapshot.host);
        let tags = self.tags.is_empty() || self.tags.iter().any(|list| carries(snapshot, list));
        host && tags && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }

    /// The error of a verb that needs a snapshot and finds none that is meant.
    pub fn no_match(&self) -> Error {
        let words = match self.is_empty() {
            true => "there is no snapshot".to_owned(),
            false => format!("no snapshot matches {self}"),
        };
        Error::not_found(words).with_hint("see what there is: carrack snapshots")
    }
}

/// In words: `host db1 or db2, tags nightly,db, path /srv`.
impl fmt::Display for SnapshotFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |what: &str, names: &[String], between: &str| {
            (!names.is_empty()).then(|| format!("{what} {}", names.join(between)))
        };
        let parts = [
            part("host", &self.hosts, " or "),
            part("tags", &self.tags, " or "),
            part("path", &self.paths, " and "),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Whether the snapshot has all tags of a comma-separated list.
pub(super) fn carries(snapshot: &Snapshot, list: &str) -> bool {
    list.split(',').all(|tag| snapshot.tags.iter().any(|own| own == tag))
}

impl Repository {
    /// Every visible snapshot with its record, and the marks that speak of them.
    pub async fn snapshots(&self) -> Result<SnapshotList> {
        let survey = self.survey().await?;
        let mut list = SnapshotList::default();
        let mut shut_out = Vec::new();
        for names in survey.visible(SessionKind::Backup).chunks(super::mark::ENDS_PER_ROUND) {
            for (name, end) in self.ends_of(names).await? {
                shut_out.extend(matches!(end, Ok(Some(End::Fenced { cleaned_up: false }))).then_some(name));
                list.add(name, end)?;
            }
        }
        list.snapshots.sort_by_key(|snapshot| (snapshot.started, snapshot.session));
        // A repack that nobody can read stops writers and maintenance alike, so it is named with the snapshots.
        for (name, end) in self.ends_of(&survey.visible(SessionKind::Repack)).await? {
            match end {
                Ok(Some(End::Void(problem))) => list.unreadable.push((name, Error::corrupt(problem))),
                Ok(_) => {}
                Err(error) if is_doubt(&error) => list.unreadable.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        list.unreadable.extend(self.lost_sessions(&survey).await?.found);
        let (marks, problems) = self.marks("marks/", "").await?;
        list.marks = marks;
        list.problems.extend(problems);
        let parents = list.snapshots.iter().filter_map(parent_of).collect();
        list.unreadable.extend(self.lost_ends(&survey, parents, &list.marks, &shut_out).await?.found);
        if !list.unreadable.is_empty() && self.keys().can_read_data() {
            self.check_keys_unchanged().await?;
        }
        Ok(list)
    }

    /// The snapshot that a person means, with its keys: `latest`, or the beginning of its id.
    pub async fn find_snapshot(&self, text: &str, filter: &SnapshotFilter) -> Result<Snapshot> {
        if text == "latest" {
            return self.latest(filter, None, 0).await;
        }
        if text.is_empty() {
            return Err(Error::invalid("an empty text names no snapshot")
                .with_hint("name one by the beginning of its id, or say latest"));
        }
        // Who says the whole name needs no list, which may be long.
        if let Ok(session) = text.parse::<SessionName>()
            && session.kind == SessionKind::Backup
            && let Some(snapshot) = self.known(session).await?.filter(|snapshot| filter.matches(snapshot))
        {
            return Ok(snapshot);
        }
        let list = self.snapshots().await?;
        let matching = list.snapshots.iter().filter(|snapshot| filter.matches(snapshot));
        let by_id = |snapshot: &&Snapshot| {
            snapshot.session.nonce.to_hex().starts_with(text) || snapshot.session.to_string() == text
        };
        let mut found = matching.filter(by_id);
        match (found.next(), found.next()) {
            (Some(snapshot), None) => self.snapshot(snapshot.session).await,
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "more than one snapshot begins with {text:?}; give more of the id"
            ))),
            (None, _) => {
                let of = if filter.is_empty() { String::new() } else { format!(" of {filter}") };
                Err(Error::not_found(format!("there is no snapshot {text:?}{of}"))
                    .with_hint("see what there is: carrack snapshots"))
            }
        }
    }

    /// The snapshot with this name, if there is one.
    async fn known(&self, session: SessionName) -> Result<Option<Snapshot>> {
        match self.snapshot(session).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The newest snapshot that was begun no later than `as_of`, or the one so many before it, with its keys.
    pub async fn latest(
        &self,
        filter: &SnapshotFilter,
        as_of: Option<Timestamp>,
        previous: usize,
    ) -> Result<Snapshot> {
        let list = self.snapshots().await?;
        let in_time = |snapshot: &&Snapshot| as_of.is_none_or(|as_of| snapshot.started <= as_of);
        let mut matching = list.snapshots.iter().filter(|snapshot| filter.matches(snapshot)).filter(in_time);
        let count = matching.clone().count();
        let latest = matching.nth_back(previous);
        if let Some((name, error)) = self.perhaps_newer(&list, latest, filter, as_of).await? {
            return Err(unclear_latest(name, error, latest));
        }
        let latest = latest.ok_or_else(|| match (as_of, count) {
            (None, 0) => filter.no_match(),
            (Some(as_of), 0) => {
                let until = as_of.strftime("%F %T UTC");
                filter.no_match().context(format!("there is nothing that was begun by {until}"))
            }
            (_, count) => filter
                .no_match()
                .context(format!("there is nothing {previous} before the newest of {count} that match")),
        })?;
        self.snapshot(latest.session).await
    }

    /// A snapshot that cannot be read, and that may be what is meant rather than the latest of those that can: of the
    /// same source, or of any if any will do.
    async fn perhaps_newer<'l>(
        &self,
        list: &'l SnapshotList,
        latest: Option<&Snapshot>,
        filter: &SnapshotFilter,
        as_of: Option<Timestamp>,
    ) -> Result<Option<(SessionName, &'l Error)>> {
        for (name, error) in &list.unreadable {
            let same = latest.is_some_and(|latest| latest.session.lineage == name.lineage);
            // What these keys are not for is another source's.
            let is_denied = error.kind() == ErrorKind::Denied && !self.keys().can_read_data();
            let may_match = filter.is_empty() && !is_denied;
            if name.kind != SessionKind::Backup || !(same || may_match) {
                continue;
            }
            let began = match self.session_object(*name).await {
                Ok(object) => object.map(|object| object.started),
                Err(error) if is_doubt(&error) => None,
                Err(error) => return Err(error),
            };
            if began.zip(as_of).is_some_and(|(began, as_of)| began > as_of) {
                continue;
            }
            if began.zip(latest).is_none_or(|(began, latest)| began > latest.started) {
                return Ok(Some((*name, error)));
            }
        }
        Ok(None)
    }
}

fn unclear_latest(name: SessionName, error: &Error, latest: Option<&Snapshot>) -> Error {
    let what =
        format!("which snapshot is the latest is not known: {name} cannot be read ({})", error.in_one_line());
    Error::new(error.kind(), what).with_hint(match latest {
        Some(latest) => format!(
            "look at it: carrack check; or name the latest that can be read, of {}: {}",
            latest.started.strftime("%F %T UTC"),
            latest.session.nonce.short()
        ),
        None => "look at it: carrack check".to_owned(),
    })
}
