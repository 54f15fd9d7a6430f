//! Ends without their session, and sessions that committed and are without their end: what a store has lost of the
//! two objects that make a snapshot visible.
//!
//! Clean-up leaves neither: it takes the session away first, and puts a fence where the end was, so that no late PUT of
//! that end can land. So an end that is a record, and whose session object is gone, was lost, and nobody may take
//! it for a snapshot that was to go.

use std::collections::BTreeSet;

use super::{Repository, ends::is_doubt, survey::Survey};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        records::{self, Fenced, Mark, RecordKind},
        session::{SessionKind, SessionName},
    },
};

/// How long a tombstone stays, in seconds: longer than any request is on its way, or a writer stalls before its commit.
/// Each costs every listing of snapshots one read.
const TOMBSTONE_SECONDS: i64 = 30 * 86_400;
/// The same for what was committed, and cleaned up later: there are as many as snapshots that were forgotten, and only
/// a writer that missed the answer to its commit sends that once more.
const BURIED_SECONDS: i64 = 3 * 86_400;

impl Repository {
    /// Ends whose session object is lost, each with what is to be said of it.
    pub(crate) async fn lost_sessions(&self, survey: &Survey) -> Result<Vec<(SessionName, Error)>> {
        let mut lost = Vec::new();
        let orphans: Vec<SessionName> = survey.orphans().collect();
        let ask = |repository: Self, name| async move { repository.is_orphan(name).await };
        for (session, is_lost) in self.each_of(&orphans, ask).await? {
            if is_lost {
                let error = Error::corrupt(format!(
                    "object {} is missing: what {} committed is out of view",
                    session.session_object(),
                    session.end_object()
                ));
                lost.push((session, error.with_hint(bring_back(session, true))));
            }
        }
        Ok(lost)
    }

    /// Sessions that committed, because a parent or a mark says so, and whose end is lost.
    pub(crate) async fn lost_ends(
        &self,
        survey: &Survey,
        mut committed: BTreeSet<SessionName>,
        marks: &[Mark],
    ) -> Result<Vec<(SessionName, Error)>> {
        committed.extend(marks.iter().map(|mark| mark.session));
        let mut lost = Vec::new();
        for session in survey.open().filter(|session| committed.contains(session)) {
            // A clean-up takes the session first: seen after its end is gone, it was no clean-up.
            let gone = !self.exists(&session.end_object()).await?
                && self.exists(&session.session_object()).await?
                && self.marks("forgotten/", &session.to_string()).await?.0.is_empty();
            if gone {
                let error = Error::corrupt(format!(
                    "object {} is missing, and a parent or a mark says that it was there",
                    session.end_object()
                ));
                lost.push((session, error.with_hint(bring_back(session, false))));
            }
        }
        Ok(lost)
    }

    /// Whether an end is a record, and no clean-up explains that its session is gone. What opens with none of the keys is
    /// none: whoever may create objects can put that there.
    async fn is_orphan(&self, session: SessionName) -> Result<bool> {
        let Some(bytes) = self.there(&session.end_object()).await? else { return Ok(false) };
        if self.tombstone(session, &bytes).is_some() {
            return Ok(false);
        }
        // A clean-up that is under way has its marker or its list until the end is gone.
        let is_going = match session.kind {
            SessionKind::Backup => !self.marks("forgotten/", &session.to_string()).await?.0.is_empty(),
            SessionKind::Repack => {
                let (forgotten, _) = self.marks("forgotten/", &session.to_string()).await?;
                !forgotten.is_empty() || self.absent().await?.condemns(session)
            }
        };
        if is_going || self.exists(&session.session_object()).await? || !self.has_record(session).await? {
            return Ok(false);
        }
        Ok(self.there(&session.end_object()).await? == Some(bytes))
    }

    async fn has_record(&self, session: SessionName) -> Result<bool> {
        match self.record_of(session).await {
            Ok(_) => Ok(true),
            Err(error) if is_doubt(&error) || error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether an end without a session stands for nothing any more: a tombstone that is old enough, or rubbish.
    pub(super) async fn may_go(&self, session: SessionName) -> Result<bool> {
        let Some(bytes) = self.there(&session.end_object()).await? else { return Ok(false) };
        match self.tombstone(session, &bytes) {
            Some(fence) => {
                let age = self.world().clock.now().as_second().saturating_sub(fence.created.as_second());
                Ok(age >= if fence.cleaned_up { BURIED_SECONDS } else { TOMBSTONE_SECONDS })
            }
            None => Ok(!self.has_record(session).await?),
        }
    }

    /// What an end says of a session that is gone: that it never counted, or counts no more.
    fn tombstone(&self, session: SessionName, bytes: &[u8]) -> Option<Fenced> {
        let name = session.end_object();
        let fenced = self.open_signed::<Fenced>(&name, RecordKind::Fenced, bytes).ok().or_else(|| {
            // Who could have signed it is gone. It stands for nothing that could be lost.
            let body = records::decode_kind(&name, bytes, RecordKind::Abandoned).ok()?;
            records::from_json(&name, body.get(records::SIGNATURE_LENGTH..)?).ok()
        })?;
        (fenced.session == session).then_some(fenced)
    }

    /// Whether no end of a session is left, or only a tombstone.
    pub(super) async fn is_buried(&self, session: SessionName) -> Result<bool> {
        let bytes = self.there(&session.end_object()).await?;
        Ok(bytes.is_none_or(|bytes| self.tombstone(session, &bytes).is_some()))
    }

    /// Whether this end is a tombstone, and not something else or gone.
    pub(super) async fn has_tombstone(&self, session: SessionName) -> Result<bool> {
        let bytes = self.there(&session.end_object()).await?;
        Ok(bytes.is_some_and(|bytes| self.tombstone(session, &bytes).is_some()))
    }
}

fn bring_back(session: SessionName, can_be_made: bool) -> String {
    let make = if can_be_made { format!(", or carrack repo revive {session}") } else { String::new() };
    format!("bring that object back from a copy{make}; or give the snapshot up: carrack forget {session}")
}
