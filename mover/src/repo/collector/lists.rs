//! Condemned lists and their finals: C2, and C6 to C10.

use std::collections::BTreeSet;

use super::{PrunePlan, PruneReport, table::PackTable};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        pack::PackSending,
        records::{Condemned, Final, RecordKind},
        session::SessionName,
    },
    id::RandomId,
    monitor::{Problem, Progress},
    repo::{Repository, ends::untrue, mark::Watch, session::condemned_id},
    store::{ByteRange, Put, list_all},
};

#[cfg(test)]
mod tests;

/// Deletes that are under way at once.
const PARALLEL_DELETES: usize = 16;

/// What a list names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) packs: Vec<PackSending>,
    pub(super) relocations: Vec<SessionName>,
}

impl Doomed {
    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.relocations.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.packs.len() + self.relocations.len()
    }

    /// Packs, each once however often it was sent.
    pub(super) fn pack_count(&self) -> u64 {
        self.packs.chunk_by(|one, next| one.pack == next.pack).count() as u64
    }
}

impl Repository {
    /// C2: says what is to go, under a name that was never used.
    pub(super) async fn condemn(&self, doomed: &Doomed) -> Result<RandomId> {
        // What an unclear name may have left, C10 clears away.
        let list = |collection| {
            let list = Condemned {
                collection,
                created: self.world().clock.now(),
                packs: doomed.packs.clone(),
                relocations: doomed.relocations.clone(),
            };
            (condemned_object(collection), list)
        };
        self.put_signed_anew(RecordKind::Condemned, "a list of condemned packs", list).await
    }

    /// C6: creates the final; one that exists already counts instead.
    pub(super) async fn create_final(
        &self,
        collection: RandomId,
        doomed: Doomed,
        problems: &mut Vec<Problem>,
    ) -> Result<Doomed> {
        let name = final_object(collection);
        let list = Final { collection, packs: doomed.packs.clone(), relocations: doomed.relocations.clone() };
        let body = self.seal_signed(&name, RecordKind::Final, &list)?;
        match self.store().put_if_absent(&name, body.into()).await? {
            Put::Created => Ok(doomed),
            Put::Exists => self.read_final(collection, problems).await,
        }
    }

    /// A final that is gone belongs to a list that was carried out and dropped (C9). One that does not verify makes
    /// its list void, unless this process may only hold older keys than whoever signed it.
    async fn read_final(&self, collection: RandomId, problems: &mut Vec<Problem>) -> Result<Doomed> {
        let name = final_object(collection);
        let bytes = match self.store().get(&name, ByteRange::All).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Doomed::default()),
            Err(error) => return Err(error),
        };
        match self.open_signed::<Final>(&name, RecordKind::Final, &bytes) {
            Ok(list) if list.collection == collection => {
                Ok(Doomed { packs: list.packs, relocations: list.relocations })
            }
            Ok(_) => Ok(Doomed::default()),
            Err(error) => {
                self.check_keys_unchanged().await?;
                problems.push(untrue(&name, &error.to_string()));
                Ok(Doomed::default())
            }
        }
    }

    /// C7: whether the condemned list is still there.
    pub(super) async fn is_condemned(&self, collection: RandomId) -> Result<bool> {
        self.exists(&condemned_object(collection)).await
    }

    /// C8 and SENDINGS: deletes the objects that a final names, and no others, until every name has a confirmed reply. A sending of
    /// a pack that lands later is not in it: somebody may have reused it since the list was dropped.
    pub(super) async fn carry_out(&self, doomed: &Doomed, watch: Watch<'_>) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        for sending in &doomed.packs {
            watch.cancel.check()?;
            while running.len() >= PARALLEL_DELETES {
                joined(running.join_next().await)?;
            }
            let (repository, object) = (self.clone(), sending.object());
            running.spawn(async move { repository.store().delete(&object).await.map(|_was_there| ()) });
            Progress::add(&watch.monitor.progress().entries, 1);
        }
        while !running.is_empty() {
            joined(running.join_next().await)?;
        }
        for repack in &doomed.relocations {
            // As in clean-up: the session first, confirmed, then its end.
            self.store().delete(&repack.session_object()).await?;
            self.bury(*repack).await?;
        }
        Ok(())
    }

    /// C9: condemned first, then final.
    pub(super) async fn drop_list(&self, collection: RandomId) -> Result<()> {
        self.store().delete(&condemned_object(collection)).await?;
        self.store().delete(&final_object(collection)).await?;
        Ok(())
    }

    /// C10: lists that another collector left, or is still at work on: it repeats what is made void here. Two
    /// collectors that finish the same list do the same. Answers with what could not be believed.
    pub(crate) async fn finish_abandoned(&self, plan: &PrunePlan, watch: Watch<'_>) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let objects = list_all(self.store().as_ref(), "gc/").await?;
        let names: BTreeSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        for name in &names {
            watch.cancel.check()?;
            if let Some(collection) = condemned_id(name) {
                problems.extend(self.doubt(name).await?);
                let doomed = match self.exists(&final_object(collection)).await? {
                    true => self.read_final(collection, &mut problems).await?,
                    false => self.create_final(collection, Doomed::default(), &mut problems).await?,
                };
                let is_open = !doomed.is_empty() && self.exists(name).await?;
                if is_open && !self.finish_list(name, &doomed, plan, watch).await? {
                    // Sessions are at work: what is decided stays decided, for the next prune.
                    continue;
                }
                self.drop_list(collection).await?;
            } else if let Some(collection) = final_id(name) {
                if !self.exists(&condemned_object(collection)).await? {
                    self.store().delete(name).await?;
                }
            } else {
                problems.push(untrue(name, "it has no name that maintenance gives"));
            }
        }
        Ok(problems)
    }

    /// What is to be said of a condemned list that nobody with the maintenance key wrote.
    async fn doubt(&self, name: &str) -> Result<Option<Problem>> {
        let bytes = match self.store().get(name, ByteRange::All).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Err(error) = self.open_signed::<Condemned>(name, RecordKind::Condemned, &bytes) else {
            return Ok(None);
        };
        self.check_keys_unchanged().await?;
        Ok(Some(untrue(name, &error.to_string())))
    }

    /// What a true final names is needed by nobody, and nobody who is at work reuses it. If it is needed, somebody has
    /// put an old list back (REPLAY); so sessions are waited for and everything is marked once more (C3 to C5) before anything
    /// goes. False: a session is still at work.
    async fn finish_list(
        &self,
        name: &str,
        doomed: &Doomed,
        plan: &PrunePlan,
        watch: Watch<'_>,
    ) -> Result<bool> {
        if !self.all_ended(plan, watch, &mut PruneReport::default()).await? {
            return Ok(false);
        }
        let mut table = PackTable::of(doomed.packs.iter().map(|sending| sending.pack));
        let marked = self.mark(&mut table, watch).await?;
        let needed = doomed.packs.iter().find(|sending| table.needs(sending.pack));
        let pack = needed.map(|sending| format!("pack {sending}"));
        let repack = doomed.relocations.iter().find(|repack| marked.relocations_needed.contains(repack));
        if let Some(needed) = pack.or_else(|| repack.map(|repack| format!("repack {repack}"))) {
            return Err(Error::corrupt(format!("{name} would delete {needed}, which a snapshot needs"))
                .with_hint("somebody put an old list back: delete both objects of it by hand, and look who can write"));
        }
        self.carry_out(doomed, watch).await?;
        Ok(true)
    }
}

fn joined(joined: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match joined {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Error::internal("a delete broke").with_source(error)),
    }
}

fn condemned_object(collection: RandomId) -> String {
    format!("gc/{collection}.condemned")
}

fn final_object(collection: RandomId) -> String {
    format!("gc/{collection}.final")
}

fn final_id(name: &str) -> Option<RandomId> {
    RandomId::from_hex(name.strip_prefix("gc/")?.strip_suffix(".final")?)
}
