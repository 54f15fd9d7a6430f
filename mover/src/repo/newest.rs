//! The newest snapshot of a source, without the records of all.
//!
//! When a snapshot was begun is in its record, which costs two requests and a signature. When the store took that record
//! is in the listing. A record arrives after its snapshot was begun, so what arrived before the newest one that was read
//! was *begun* is older, and need not be read. That is so as long as the clocks of the writer and of the store agree; by
//! as much as they do not, more are read, or a parent is chosen that is not the very newest. So nobody may use this where
//! more than work depends on it. And whoever claims to have begun in the future has begun when his record arrived: else he would
//! be everybody's parent until then.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use super::{
    Repository,
    ends::{End, is_doubt},
    mark::ENDS_PER_ROUND,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{records::Snapshot, session::SessionName},
    store::list_all,
};

#[cfg(test)]
mod tests;

/// Records that are read first, side by side; with each round four times as many. They grow with the number of sessions
/// that stored what is in the tree.
const FIRST_ROUND: usize = 2;

/// Snapshots that are visible by their names.
struct Candidates {
    /// When the store took their records.
    taken: BTreeMap<SessionName, Timestamp>,
    /// The same of those that are in view and were not read, the newest first.
    unread: Vec<(Reverse<Timestamp>, SessionName)>,
    /// When those were begun that were read and are wanted.
    read: BTreeSet<(Timestamp, SessionName)>,
}

impl Candidates {
    /// Whether one that was not read may be newer than all that were.
    fn may_be_newer(&self) -> bool {
        match (self.unread.first(), self.read.last()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((Reverse(taken), _)), Some((begun, _))) => taken > begun,
        }
    }

    fn keep(&mut self, name: SessionName, started: Timestamp) {
        let taken = self.taken.get(&name).copied().unwrap_or(Timestamp::MAX);
        self.read.insert((started.min(taken), name));
    }

    fn next(&mut self, count: usize) -> Vec<SessionName> {
        let rest = self.unread.split_off(count.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest).into_iter().map(|(_, name)| name).collect()
    }
}

impl Repository {
    /// The newest snapshot below `prefix` that is wanted, read once more in order V after all of them were looked at at
    /// once. What cannot be read or believed is passed over, and told.
    pub(crate) async fn newest(
        &self,
        prefix: &str,
        wanted: impl Fn(&Snapshot) -> bool,
        tell: impl Fn(SessionName, &Error),
    ) -> Result<Option<Snapshot>> {
        let mut candidates = self.candidates(prefix).await?;
        let mut round = FIRST_ROUND;
        loop {
            while candidates.may_be_newer() {
                for (name, end) in self.ends_of(&candidates.next(round)).await? {
                    match end {
                        Ok(Some(End::Committed(snapshot))) if wanted(&snapshot) => {
                            candidates.keep(name, snapshot.started);
                        }
                        Ok(Some(End::Void(problem))) => tell(name, &Error::corrupt(problem)),
                        Ok(_) => {}
                        Err(error) if is_doubt(&error) => tell(name, &error),
                        Err(error) => return Err(error),
                    }
                }
                round = (round * 4).min(ENDS_PER_ROUND);
            }
            let Some((_, name)) = candidates.read.pop_last() else { return Ok(None) };
            match self.snapshot(name).await {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_doubt(&error) => tell(name, &error),
                Err(error) => return Err(error),
            }
        }
    }

    /// V in bulk, in its order: ends first, then markers, then sessions.
    async fn candidates(&self, prefix: &str) -> Result<Candidates> {
        let listed = list_all(self.store().as_ref(), &format!("snapshots/{prefix}")).await?;
        let name = |name: &str| name.strip_prefix("snapshots/")?.parse().ok();
        let taken: BTreeMap<SessionName, Timestamp> = listed
            .iter()
            .filter_map(|end| Some((name(&end.name)?, end.modified.unwrap_or(Timestamp::MAX))))
            .collect();
        if taken.is_empty() {
            return Ok(Candidates { taken, unread: Vec::new(), read: BTreeSet::new() });
        }
        let survey = self.survey_behind(taken.keys().copied().collect(), prefix).await?;
        let in_view = survey.in_view().into_iter();
        let mut unread: Vec<_> = in_view.map(|name| (Reverse(taken[&name]), name)).collect();
        unread.sort_unstable();
        Ok(Candidates { taken, unread, read: BTreeSet::new() })
    }
}
