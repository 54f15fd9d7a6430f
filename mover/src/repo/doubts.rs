//! What claims something and cannot prove it, and what should be there and is not.

use std::collections::HashSet;

use serde::de::IgnoredAny;
use tokio::task::JoinSet;

use super::{Repository, ends::untrue, key_files::KeyFiles, session::condemned_id, survey::Survey};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{records::RecordKind, session::SessionName},
    limits,
    monitor::Problem,
    store::{ByteRange, list_all},
};

/// Folders of which every object is signed with the maintenance key, but that of lists, which has two kinds.
const SIGNED: [(&str, RecordKind); 3] =
    [("damaged/", RecordKind::Damaged), ("forgotten/", RecordKind::Forgotten), ("marks/", RecordKind::Mark)];
/// Objects that are read at once.
const PARALLEL_READS: usize = 16;

/// An object, and what is wrong with it.
type Doubt = (String, Error);

impl Repository {
    /// Everything of the small objects that nobody with the maintenance key wrote, or that has no name of ours.
    pub(crate) async fn unproven(&self) -> Result<Vec<Problem>> {
        let mut doubts = self.unsigned().await?;
        for object in list_all(self.store().as_ref(), "gc/").await? {
            let kind = match condemned_id(&object.name) {
                Some(_) => RecordKind::Condemned,
                None => RecordKind::Final,
            };
            doubts.extend(self.doubt_of(object.name, kind).await?);
        }
        doubts.extend(KeyFiles::read(self.store(), self.format()).await?.unproven);
        if !doubts.is_empty() {
            self.check_keys_unchanged().await?;
        }
        let mut problems: Vec<Problem> =
            doubts.iter().map(|(name, error)| untrue(name, &error.to_string())).collect();
        for folder in ["sessions/", "snapshots/"] {
            let foreign = |name: &String| {
                name.strip_prefix(folder).is_some_and(|name| name.parse::<SessionName>().is_err())
            };
            let listed = list_all(self.store().as_ref(), folder).await?;
            let names = listed.into_iter().map(|object| object.name).filter(foreign);
            problems.extend(names.map(|name| {
                untrue(&name, "it is not the name of a session; delete it by hand if you do not know it")
            }));
        }
        Ok(problems)
    }

    /// Deletes what `unproven` finds in folders where only the maintenance key has a word, and answers how much that
    /// was. They count as absent already; but every reader reads them, and they would be named for ever.
    pub(super) async fn sweep_unsigned(&self) -> Result<u64> {
        let doubts = self.unsigned().await?;
        // Of what a newer program wrote nobody here can tell.
        let forged = |(_, error): &&Doubt| matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Denied);
        let mut swept = 0;
        if doubts.iter().any(|doubt| forged(&doubt)) {
            self.check_keys_unchanged().await?;
        }
        for (name, _) in doubts.iter().filter(forged) {
            self.store().delete(name).await?;
            swept += 1;
        }
        Ok(swept)
    }

    async fn unsigned(&self) -> Result<Vec<Doubt>> {
        let mut doubts = Vec::new();
        for (folder, kind) in SIGNED {
            let mut running: JoinSet<Result<Option<Doubt>>> = JoinSet::new();
            let mut names = list_all(self.store().as_ref(), folder).await?.into_iter();
            loop {
                while running.len() < PARALLEL_READS
                    && let Some(object) = names.next()
                {
                    let repository = self.clone();
                    running.spawn(async move { repository.doubt_of(object.name, kind).await });
                }
                let Some(joined) = running.join_next().await else { break };
                let doubt = joined
                    .map_err(|error| Error::internal("reading a record broke").with_source(error))??;
                doubts.extend(doubt);
            }
        }
        doubts.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(doubts)
    }

    /// Why an object does not prove what it says; none if it does, or is gone.
    async fn doubt_of(&self, name: String, kind: RecordKind) -> Result<Option<Doubt>> {
        let range = ByteRange::Last(limits::SIGNED_RECORD_LIMIT as u64 + 1);
        let bytes = match self.store().get(&name, range).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() > limits::SIGNED_RECORD_LIMIT {
            return Ok(Some((
                name.clone(),
                Error::corrupt(format!("object {name}: it is longer than any of its kind")),
            )));
        }
        Ok(self.open_signed::<IgnoredAny>(&name, kind, &bytes).err().map(|error| (name, error)))
    }

    /// Snapshots that were visible once, and of which the end or the session object is lost: a later snapshot names
    /// them as its parent, or a mark that was signed speaks of them. Whoever deletes takes the session first, then the
    /// end, then marks, and the forgotten marker last; so neither half stands alone without a marker.
    pub(super) async fn lost(
        &self,
        survey: &Survey,
        parents: &HashSet<SessionName>,
    ) -> Result<Vec<(SessionName, Error)>> {
        let (mut lost, halves) = (Vec::new(), survey.halves().collect::<Vec<_>>());
        if halves.is_empty() {
            return Ok(lost);
        }
        let listed = list_all(self.store().as_ref(), "marks/").await?.into_iter();
        let marked: HashSet<SessionName> = listed.filter_map(|object| marked_session(&object.name)).collect();
        for name in halves {
            let seen = if parents.contains(&name) {
                "a later snapshot names it as its parent"
            } else if marked.contains(&name) && !self.marks("marks/", &format!("{name}.")).await?.0.is_empty()
            {
                "it was pinned or verified"
            } else {
                continue;
            };
            // Both may have changed since they were listed. In this order clean-up cannot look like a loss.
            let forgotten = self.is_forgotten(name).await?;
            let has_end = self.exists(&name.end_object()).await?;
            let has_session = self.exists(&name.session_object()).await?;
            if forgotten || has_end == has_session {
                continue;
            }
            let object = if has_end { name.session_object() } else { name.end_object() };
            let error = Error::corrupt(format!("object {object} is lost: {seen}"));
            lost.push((
                name,
                error.with_hint(format!(
                    "an old state of the store may have been put back: bring that object back from a copy, or give \
                     the snapshot up: carrack forget {name}"
                )),
            ));
        }
        Ok(lost)
    }
}

/// The session that a mark's name speaks of.
fn marked_session(name: &str) -> Option<SessionName> {
    name.strip_prefix("marks/")?.split('.').next()?.parse().ok()
}
