//! What claims something and cannot prove it.

use serde::de::IgnoredAny;
use tokio::task::JoinSet;

use super::{
    Repository,
    ends::untrue,
    key_files::{self, KeyFiles},
    session::condemned_id,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{records::RecordKind, session::SessionName},
    limits,
    monitor::Problem,
    store::{ByteRange, list_all},
};

#[cfg(test)]
mod tests;

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
        let list = |folder| list_all(self.store().as_ref(), folder);
        let (mut doubts, lists, sessions, ends) =
            tokio::try_join!(self.unsigned(), list("gc/"), list("sessions/"), list("snapshots/"))?;
        for object in lists {
            let kind = match condemned_id(&object.name) {
                Some(_) => RecordKind::Condemned,
                None => RecordKind::Final,
            };
            doubts.extend(self.doubt_of(object.name, kind).await?);
        }
        let KeyFiles { unproven, newer, .. } = KeyFiles::read(self.store(), self.format()).await?;
        doubts.extend(unproven);
        doubts.extend(newer.into_iter().map(|(name, version)| {
            let error = key_files::unknown_version(&name, version);
            (name, error)
        }));
        if !doubts.is_empty() {
            self.check_keys_unchanged().await?;
        }
        let mut problems: Vec<Problem> =
            doubts.iter().map(|(name, error)| untrue(name, &error.to_string())).collect();
        for (folder, listed) in [("sessions/", sessions), ("snapshots/", ends)] {
            let foreign = |name: &String| {
                name.strip_prefix(folder).is_some_and(|name| name.parse::<SessionName>().is_err())
            };
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
        let list = |index: usize| list_all(self.store().as_ref(), SIGNED[index].0);
        let (damaged, forgotten, marks) = tokio::try_join!(list(0), list(1), list(2))?;
        for ((_, kind), listed) in SIGNED.into_iter().zip([damaged, forgotten, marks]) {
            let mut running: JoinSet<Result<Option<Doubt>>> = JoinSet::new();
            let mut names = listed.into_iter();
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
}
