//! Sessions as the collector meets them: waiting for their ends, shutting them out, cleaning up after them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{PrunePlan, PruneReport};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        records::{Fenced, RecordKind},
        session::SessionName,
    },
    repo::{Repository, ends::End, mark::Watch},
    store::{Put, list_all},
};

#[cfg(test)]
mod tests;

/// First and longest pause between two looks at a session that has not ended.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a late end is deleted before its place is taken.
const BURY_ATTEMPTS: u32 = 4;
/// Sessions that are cleaned up at once.
const PARALLEL_SESSIONS: usize = 16;

impl Repository {
    /// C3 and C4: lists sessions, and sees each of them ended or gone. Overdue ones are shut out; the others are
    /// waited for as long as the plan says. False: one of them is still at work.
    pub(super) async fn all_ended(
        &self,
        plan: &PrunePlan,
        watch: Watch<'_>,
        report: &mut PruneReport,
    ) -> Result<bool> {
        let sessions = self.session_names("sessions/", "").await?;
        let ends = self.session_names("snapshots/", "").await?;
        let mut open: BTreeSet<SessionName> = sessions.difference(&ends).copied().collect();
        let clock = &self.world().clock;
        let deadline = clock.monotonic() + Duration::from_secs(plan.wait_seconds);
        let mut pause = PAUSE;
        loop {
            watch.cancel.check()?;
            let seconds = plan.fence_after_seconds;
            let looked =
                self.each_of(&open, move |repository, name| repository.has_ended(name, seconds)).await?;
            for (session, ended) in looked {
                report.fenced += u64::from(ended == Some(true));
                if ended.is_some() {
                    open.remove(&session);
                }
            }
            let now = clock.monotonic();
            if open.is_empty() || now >= deadline {
                return Ok(open.is_empty());
            }
            watch.monitor.phase("waiting for backups that are at work");
            self.world().sleep(pause.min(deadline - now)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Sessions without an end: those that are overdue, and those that may be at work.
    pub(super) async fn overdue_among(
        &self,
        sessions: Vec<SessionName>,
        fence_after_seconds: u64,
    ) -> Result<(Vec<SessionName>, Vec<SessionName>)> {
        let ask = move |repository: Self, name| async move {
            repository.is_overdue(name, fence_after_seconds).await
        };
        let (fence, open): (Vec<_>, Vec<_>) =
            self.each_of(&sessions, ask).await?.into_iter().partition(|(_, overdue)| *overdue);
        let names = |rows: Vec<(SessionName, bool)>| rows.into_iter().map(|(name, _)| name).collect();
        Ok((names(fence), names(open)))
    }

    /// Asks the same of many sessions, some at once; answers in the order of their names.
    pub(in crate::repo) async fn each_of<
        's,
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    >(
        &self,
        sessions: impl IntoIterator<Item = &'s SessionName>,
        ask: impl Fn(Self, SessionName) -> F,
    ) -> Result<BTreeMap<SessionName, T>> {
        let mut running = tokio::task::JoinSet::new();
        let mut answers = BTreeMap::new();
        let mut sessions = sessions.into_iter();
        loop {
            while running.len() < PARALLEL_SESSIONS
                && let Some(name) = sessions.next().copied()
            {
                let asked = ask(self.clone(), name);
                running.spawn(async move { asked.await.map(|answer| (name, answer)) });
            }
            let Some(joined) = running.join_next().await else { return Ok(answers) };
            let (name, answer) = joined
                .map_err(|error| Error::internal("looking at a session broke").with_source(error))??;
            answers.insert(name, answer);
        }
    }

    /// Whether a session has ended or is gone, or is overdue and was shut out just now; true if that was us.
    async fn has_ended(self, session: SessionName, fence_after_seconds: u64) -> Result<Option<bool>> {
        if self.exists(&session.end_object()).await? || !self.exists(&session.session_object()).await? {
            return Ok(Some(false));
        }
        if !self.is_overdue(session, fence_after_seconds).await? {
            return Ok(None);
        }
        self.fence(session, "it was overdue").await.map(Some)
    }

    /// Whether a session gave no sign of life for so long: its checkpoints are such signs. One whose object cannot
    /// be read is overdue at once, because nothing that it commits could be believed. (A newer version than this one's
    /// would be named in `format`.)
    pub(super) async fn is_overdue(&self, session: SessionName, fence_after_seconds: u64) -> Result<bool> {
        let began = match self.session_object(session).await {
            Ok(Some(object)) => object.started,
            Ok(None) => return Ok(false),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => return Ok(true),
            Err(error) => return Err(error),
        };
        let now = self.world().clock.now();
        // What lies as far ahead is no sign of life either: it would hold everything up until then.
        let silent_since = |at: jiff::Timestamp| {
            now.as_second().saturating_sub(at.as_second()).unsigned_abs() >= fence_after_seconds
        };
        if !silent_since(began) {
            return Ok(false);
        }
        let last = self.last_checkpoint(session).await?;
        Ok(last.is_none_or(silent_since))
    }

    /// Shuts a session out, unless it ended by itself; answers whether it was us.
    pub(super) async fn fence(&self, session: SessionName, reason: &str) -> Result<bool> {
        let created = self.world().clock.now();
        self.put_fence(Fenced { session, created, reason: reason.to_owned(), cleaned_up: false }).await
    }

    /// N2: may be sent again.
    async fn put_fence(&self, fenced: Fenced) -> Result<bool> {
        let name = fenced.session.end_object();
        let body = self.seal_signed(&name, RecordKind::Fenced, &fenced)?;
        Ok(self.store().put_if_absent(&name, body.into()).await? == Put::Created)
    }

    /// Cleans up sessions that were forgotten, shut out, or gave up; answers how many there still were.
    pub(super) async fn clean_up(&self, sessions: &[SessionName], watch: Watch<'_>) -> Result<u64> {
        let mut running = tokio::task::JoinSet::new();
        let mut cleaned = 0;
        let mut sessions = sessions.iter();
        loop {
            watch.cancel.check()?;
            while running.len() < PARALLEL_SESSIONS
                && let Some(session) = sessions.next()
            {
                let (repository, session) = (self.clone(), *session);
                running.spawn(async move { repository.clean_up_one(session).await });
            }
            let Some(joined) = running.join_next().await else { return Ok(cleaned) };
            let existed =
                joined.map_err(|error| Error::internal("a clean-up broke").with_source(error))??;
            cleaned += u64::from(existed);
        }
    }

    /// CLEANUP: session object, confirmed, then end, then markers. A fence takes the place of the end: whatever PUT of it
    /// is still on its way finds that, and no end without a session is left but what was lost. An end that is none, of
    /// a session that was shut out or gave up, is such a tombstone already.
    async fn clean_up_one(&self, session: SessionName) -> Result<bool> {
        let (forgotten, _) = self.marks("forgotten/", &session.to_string()).await?;
        if forgotten.is_empty() && !matches!(self.end(session).await?, Some(End::Fenced { .. })) {
            return Ok(false);
        }
        let existed = self.exists(&session.session_object()).await?;
        self.store().delete(&session.session_object()).await?;
        if !forgotten.is_empty() {
            self.bury(session).await?;
        }
        for folder in ["marks/", "forgotten/"] {
            for object in list_all(self.store().as_ref(), &format!("{folder}{session}.")).await? {
                self.store().delete(&object.name).await?;
            }
        }
        Ok(existed)
    }

    /// Puts a fence where the end of a session was, whose object is gone.
    pub(super) async fn bury(&self, session: SessionName) -> Result<()> {
        for _ in 0..BURY_ATTEMPTS {
            if self.has_tombstone(session).await? {
                return Ok(());
            }
            self.store().delete(&session.end_object()).await?;
            let (created, reason) = (self.world().clock.now(), "it was cleaned up".to_owned());
            if self.put_fence(Fenced { session, created, reason, cleaned_up: true }).await? {
                return Ok(());
            }
        }
        // Its end lands as often as it is deleted; the next prune sees it with its marker.
        Err(Error::unavailable(format!("the end of session {session} comes back again and again")))
    }

    /// Marks of snapshots that are gone: whoever pinned or verified one may have come too late. Marks are listed first, then
    /// sessions, whose names never come back.
    pub(super) async fn drop_orphan_marks(&self) -> Result<()> {
        let marks = list_all(self.store().as_ref(), "marks/").await?;
        let sessions = self.session_names("sessions/", "").await?;
        for object in marks {
            let marked = object.name.strip_prefix("marks/").and_then(|name| name.split('.').next());
            if let Some(session) = marked.and_then(|name| name.parse::<SessionName>().ok())
                && !sessions.contains(&session)
                && self.is_buried(session).await?
            {
                self.store().delete(&object.name).await?;
            }
        }
        Ok(())
    }

    /// ORPHANS: rubbish, and tombstones that nobody's late PUT needs any more. Ends are listed first, then sessions. Time decides only
    /// how long they stay: an end that lands after that counts as one that lost its session.
    pub(super) async fn drop_orphan_ends(&self) -> Result<()> {
        let ends = self.session_names("snapshots/", "").await?;
        let sessions = self.session_names("sessions/", "").await?;
        let orphans: Vec<SessionName> = ends.difference(&sessions).copied().collect();
        let ask = |repository: Self, name| async move { repository.may_go(name).await };
        for (session, may_go) in self.each_of(&orphans, ask).await? {
            if may_go {
                self.store().delete(&session.end_object()).await?;
            }
        }
        Ok(())
    }

    pub(in crate::repo) async fn exists(&self, name: &str) -> Result<bool> {
        match self.store().get(name, crate::store::ByteRange::Last(1)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
