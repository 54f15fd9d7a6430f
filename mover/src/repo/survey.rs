//! What the small objects of a repository say together, read in the one order that is safe (V).

use std::collections::BTreeSet;

use super::Repository;
use crate::{
    error::Result,
    format::session::{SessionKind, SessionName},
};

#[cfg(test)]
mod tests;

/// Ends, markers and sessions, listed in this order: whoever reads them in another can take a snapshot for visible
/// that is being cleaned up.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    ends: BTreeSet<SessionName>,
    forgotten: BTreeSet<SessionName>,
    sessions: BTreeSet<SessionName>,
}

impl Repository {
    /// Lists ends, then markers, then sessions. A listing that fails, or fails half-way, fails the survey.
    pub(crate) async fn survey(&self) -> Result<Survey> {
        let ends = self.session_names("snapshots/", "").await?;
        self.survey_behind(ends, "").await
    }

    /// The same of names that begin so; of sessions without an end it says nothing if none there has one.
    pub(crate) async fn survey_of(&self, prefix: &str) -> Result<Survey> {
        let ends = self.session_names("snapshots/", prefix).await?;
        if ends.is_empty() {
            return Ok(Survey::default());
        }
        self.survey_behind(ends, prefix).await
    }

    /// What comes behind the ends in that order.
    pub(super) async fn survey_behind(&self, ends: BTreeSet<SessionName>, prefix: &str) -> Result<Survey> {
        let (forgotten, _) = self.marks("forgotten/", prefix).await?;
        let sessions = self.session_names("sessions/", prefix).await?;
        let forgotten = forgotten.into_iter().map(|mark| mark.session).collect();
        Ok(Survey { ends, forgotten, sessions })
    }
}

impl Survey {
    /// Sessions of this kind whose end, if it can be believed, is visible.
    pub(crate) fn visible(&self, kind: SessionKind) -> Vec<SessionName> {
        self.in_view().into_iter().filter(|name| name.kind == kind).collect()
    }

    /// The same of both kinds.
    pub(crate) fn in_view(&self) -> Vec<SessionName> {
        let is_in_view = |name: &&SessionName| self.sessions.contains(name) && !self.forgotten.contains(name);
        self.ends.iter().filter(is_in_view).copied().collect()
    }

    /// Ends whose session is gone, and that no marker speaks of.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = SessionName> {
        self.ends.difference(&self.sessions).filter(|name| !self.forgotten.contains(name)).copied()
    }

    /// Sessions that have not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = SessionName> {
        self.sessions.difference(&self.ends).copied()
    }

    /// Sessions with a forgotten marker.
    pub(crate) fn forgotten(&self) -> impl Iterator<Item = SessionName> {
        self.forgotten.iter().copied()
    }
}
