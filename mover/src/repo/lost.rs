//! Ends without their session, and sessions that committed and are without their end: what a store has lost of the
//! two objects that make a snapshot visible.
//!
//! Clean-up leaves neither: it takes the session away first, and puts a fence where the end was, so that no late PUT of
//! that end can land. So an end that is a record, and whose session object is gone, was lost, and nobody may take
//! it for a snapshot that was to go.

use std::collections::{BTreeMap, BTreeSet};

use super::{Repository, ends::is_doubt, survey::Survey};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        records::{self, Fenced, Mark, RecordKind},
        session::{SessionKind, SessionName},
    },
};

#[cfg(test)]
mod tests;

/// How long a tombstone stays, in seconds: longer than any request is on its way, or a writer stalls before its commit.
/// Each costs every listing of snapshots one read.
const TOMBSTONE_SECONDS: i64 = 30 * 86_400;
/// The same for what was committed, and cleaned up later: there are as many as snapshots that were forgotten, and only
/// a writer that missed the answer to its commit sends that once more.
const BURIED_SECONDS: i64 = 3 * 86_400;

/// What an end without a session object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphan {
    /// Nothing that was lost: a tombstone, what a clean-up is about to take, or gone by now.
    Explained,
    /// It opens with none of these keys: rubbish, or of a key that this process does not hold.
    Unknown,
    /// What it committed is out of view.
    Lost,
    /// Its session object was missing and is there: what was listed is not of one moment (AGAIN).
    Back,
}

/// What seems lost.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// What is, with what is to be said of it.
    pub(crate) found: Vec<(SessionName, Error)>,
    /// Something was missing when it was listed, and is there by now, or the other way round: who decides by a survey
    /// needs another one (AGAIN).
    pub(crate) has_changed: bool,
    /// There is what these keys do not open: who decides looks whether they changed (KEYS).
    pub(crate) has_unknown: bool,
}

impl Repository {
    /// Ends whose session object is lost.
    pub(crate) async fn lost_sessions(&self, survey: &Survey) -> Result<Lost> {
        let mut lost = Lost::default();
        for (session, orphan) in self.orphans_of(survey).await? {
            match orphan {
                Orphan::Explained => {}
                Orphan::Unknown => lost.has_unknown = true,
                Orphan::Back => lost.has_changed = true,
                Orphan::Lost => lost.found.push((session, without_session(session))),
            }
        }
        Ok(lost)
    }

    /// DOUBT: repacks whose session object is lost, so that what they moved seems to lie at its old side. What opens with
    /// none of these keys is one only if there are others by now (KEYS).
    pub(super) async fn lost_repacks(&self, survey: &Survey) -> Result<Vec<(SessionName, Error)>> {
        let mut repacks = self.orphans_of(survey).await?;
        repacks.retain(|session, _| session.kind == SessionKind::Repack);
        let is_unknown = repacks.values().any(|orphan| *orphan == Orphan::Unknown);
        let keys_changed = is_unknown && !self.are_keys_unchanged().await?;
        repacks.retain(|_, orphan| match orphan {
            Orphan::Explained => false,
            Orphan::Lost | Orphan::Back => true,
            Orphan::Unknown => keys_changed,
        });
        Ok(repacks.into_keys().map(|session| (session, without_session(session))).collect())
    }

    async fn orphans_of(&self, survey: &Survey) -> Result<BTreeMap<SessionName, Orphan>> {
        let orphans: Vec<SessionName> = survey.orphans().collect();
        self.each_of(&orphans, |repository, name| async move { repository.orphan(name).await }).await
    }

    /// Sessions that committed, because a parent or a mark says so, and whose end is lost. C4 may have shut such a session
    /// out since: `shut_out` are those in view that have a fence which no clean-up put there (SHUTOUT).
    pub(crate) async fn lost_ends(
        &self,
        survey: &Survey,
        mut committed: BTreeSet<SessionName>,
        marks: &[Mark],
        shut_out: &[SessionName],
    ) -> Result<Lost> {
        committed.extend(marks.iter().map(|mark| mark.session));
        let mut lost = Lost::default();
        for session in survey.open().filter(|session| committed.contains(session)) {
            if self.exists(&session.end_object()).await? {
                lost.has_changed = true;
                continue;
            }
            // A clean-up takes the session first: seen after its end is gone, it was no clean-up.
            let gone = self.exists(&session.session_object()).await? && !self.is_forgotten(session).await?;
            if gone {
                lost.found.push((session, without_end(session, "missing")));
            }
        }
        for session in shut_out.iter().filter(|session| committed.contains(session)) {
            if self.exists(&session.session_object()).await? && !self.is_forgotten(*session).await? {
                lost.found.push((*session, without_end(*session, "lost, and was shut out since")));
            }
        }
        Ok(lost)
    }

    /// AGAIN: whether a session that was listed as visible, and of which an object is missing now, was not cleaned up
    /// meanwhile. The marker of a clean-up goes after its fence is there.
    pub(super) async fn vanished(&self, session: SessionName) -> Result<bool> {
        Ok(!self.is_forgotten(session).await? && !self.has_tombstone(session).await?)
    }

    /// Whether a snapshot is out of view because it was forgotten: its marker says so, and after its clean-up, for some
    /// days, the fence in the place of its end. Both are signed, and the marker goes after the fence is there.
    pub async fn was_forgotten(&self, session: SessionName) -> Result<bool> {
        if self.is_forgotten(session).await? {
            return Ok(true);
        }
        let name = session.end_object();
        let Some(bytes) = self.there(&name).await? else { return Ok(false) };
        // A session that was shut out may have lost its end before: that is no word of a forget.
        let fence = self.open_signed::<Fenced>(&name, RecordKind::Fenced, &bytes);
        Ok(fence.is_ok_and(|fence| fence.cleaned_up && fence.session == session))
    }

    async fn orphan(&self, session: SessionName) -> Result<Orphan> {
        let Some(bytes) = self.there(&session.end_object()).await? else { return Ok(Orphan::Explained) };
        if self.tombstone(session, &bytes).is_some() {
            return Ok(Orphan::Explained);
        }
        // A clean-up that is under way has its marker or its list until the end is gone.
        let is_condemned = session.kind == SessionKind::Repack && self.absent().await?.condemns(session);
        if is_condemned || self.is_forgotten(session).await? {
            return Ok(Orphan::Explained);
        }
        if self.exists(&session.session_object()).await? {
            return Ok(Orphan::Back);
        }
        let has_record = self.has_record(session).await?;
        Ok(match self.there(&session.end_object()).await? == Some(bytes) {
            false => Orphan::Explained,
            true if has_record => Orphan::Lost,
            true => Orphan::Unknown,
        })
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
            None if self.has_record(session).await? => Ok(false),
            None => {
                self.check_keys_unchanged().await?;
                Ok(true)
            }
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

fn without_session(session: SessionName) -> Error {
    let (session_object, end) = (session.session_object(), session.end_object());
    Error::corrupt(format!("object {session_object} is missing: what {end} committed is out of view"))
        .with_hint(bring_back(session, true))
}

fn without_end(session: SessionName, what: &str) -> Error {
    let end = session.end_object();
    Error::corrupt(format!("object {end} is {what}, and a parent or a mark says that it was there"))
        .with_hint(bring_back(session, false))
}

fn bring_back(session: SessionName, can_be_made: bool) -> String {
    let make = if can_be_made { format!(", or carrack repo revive {session}") } else { String::new() };
    format!("bring that object back from a copy{make}; or give the snapshot up: carrack forget {session}")
}
