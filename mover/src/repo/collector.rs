//! The collector: plans what can go, and deletes it by the rules C1 to C10. Any number may run at once.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Repository, ends::End, session::condemned_id};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        pack::{pack_object, parse_pack_object},
        records::{Condemned, Fenced, Final, RecordKind},
        session::SessionName,
    },
    id::{PackId, RandomId, SessionTag},
    limits,
    monitor::{Monitor, Progress},
    store::{ByteRange, Put, list_all},
};

/// How to prune.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// Sessions without an end that were begun longer ago than this are taken for dead and shut out. Time decides
    /// only how soon a slow writer is shut out, never what is deleted.
    pub fence_after: std::time::Duration,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { fence_after: std::time::Duration::from_secs(24 * 3600) }
    }
}

/// What a prune would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Packs that nothing needs, to be deleted.
    pub delete: Vec<PackId>,
    /// Their bytes.
    pub delete_bytes: u64,
    /// All packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes in the packs that stay which nothing needs.
    pub unused_bytes: u64,
    /// Packs of sessions that have not ended; they are not touched.
    pub packs_in_progress: u64,
    /// Sessions without an end that are overdue and will be shut out.
    pub fence: Vec<SessionName>,
    /// Sessions without an end that may be at work.
    pub open: Vec<SessionName>,
    /// Sessions that were forgotten or shut out, to be cleaned up.
    pub clean_up: Vec<SessionName>,
    /// Lists that another collector left unfinished.
    pub unfinished_lists: u64,
    /// Age in seconds from which a session without an end is overdue.
    pub fence_after_seconds: u64,
}

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PruneReport {
    /// Packs that were deleted.
    pub deleted: u64,
    /// Their bytes, as far as they were in the plan.
    pub deleted_bytes: u64,
    /// Packs that were condemned and taken back because somebody needed them meanwhile.
    pub taken_back: u64,
    /// Packs that wait because these sessions are still at work.
    pub postponed: u64,
    /// Sessions that were shut out.
    pub fenced: u64,
    /// Sessions that were cleaned up.
    pub cleaned_up: u64,
}

/// Packs by name, with the bytes and names of all their sendings.
type PackList = BTreeMap<PackId, (u64, Vec<String>)>;

impl Repository {
    /// Decides what can go: lists packs first (C1), then marks.
    pub async fn plan_prune(&self, options: &PruneOptions, monitor: &dyn Monitor) -> Result<PrunePlan> {
        self.check_maintainable()?;
        monitor.phase("listing packs");
        let packs = self.list_packs().await?;
        let unfinished = list_all(self.store().as_ref(), "gc/").await?;
        let ends = self.session_names("snapshots/", "").await?;
        let (forgotten, _) = self.marks("forgotten/", "").await?;
        let sessions = self.session_names("sessions/", "").await?;
        monitor.phase("finding what snapshots need");
        let needed = self.mark(monitor).await?;
        let mut plan = PrunePlan {
            delete: Vec::new(),
            delete_bytes: 0,
            packs: packs.len() as u64,
            bytes: packs.values().map(|(bytes, _)| bytes).sum(),
            unused_bytes: 0,
            packs_in_progress: 0,
            fence: Vec::new(),
            open: Vec::new(),
            clean_up: Vec::new(),
            unfinished_lists: unfinished.iter().filter(|object| condemned_id(&object.name).is_some()).count()
                as u64,
            fence_after_seconds: options.fence_after.as_secs(),
        };
        for session in sessions.iter().filter(|session| !ends.contains(session)) {
            match self.is_overdue(*session, options.fence_after.as_secs()).await? {
                true => plan.fence.push(*session),
                false => plan.open.push(*session),
            }
        }
        let busy: HashSet<SessionTag> =
            plan.open.iter().chain(&plan.fence).map(|session| session.nonce.tag()).collect();
        for (pack, (bytes, _)) in &packs {
            if busy.contains(&pack.tag()) {
                plan.packs_in_progress += 1;
            } else if needed.has(*pack) {
                plan.unused_bytes += bytes.saturating_sub(needed.live_bytes(*pack));
            } else {
                plan.delete.push(*pack);
                plan.delete_bytes += bytes;
            }
        }
        plan.clean_up = forgotten.iter().map(|mark| mark.session).collect();
        for (name, end) in self.ends_of(&ends.into_iter().collect::<Vec<_>>()).await? {
            if matches!(end, Ok(Some(End::Fenced))) {
                plan.clean_up.push(name);
            }
        }
        plan.clean_up.sort_unstable();
        plan.clean_up.dedup();
        Ok(plan)
    }

    /// Carries a plan out. Nothing of it is trusted: whatever is deleted was condemned, and marked again after that.
    pub async fn apply_prune(&self, plan: &PrunePlan, monitor: &dyn Monitor) -> Result<PruneReport> {
        self.check_maintainable()?;
        let mut report = PruneReport::default();
        let names = self.list_packs().await?;
        monitor.phase("finishing what others began");
        self.finish_abandoned(monitor).await?;
        for session in &plan.fence {
            if self.is_overdue(*session, plan.fence_after_seconds).await? {
                report.fenced += u64::from(self.fence(*session, "it was overdue").await?);
            }
        }
        monitor.phase("deleting packs");
        for packs in plan.delete.chunks(limits::CONDEMNED_PACKS) {
            self.collect(packs, plan, &names, monitor, &mut report).await?;
        }
        monitor.phase("cleaning up");
        for session in &plan.clean_up {
            report.cleaned_up += u64::from(self.clean_up(*session).await?);
        }
        self.drop_orphan_ends().await?;
        self.merge_index(&names).await?;
        self.store().flush().await?;
        Ok(report)
    }

    async fn list_packs(&self) -> Result<PackList> {
        let mut packs = PackList::new();
        for object in list_all(self.store().as_ref(), "packs/").await? {
            if let Some((pack, _)) = parse_pack_object(&object.name) {
                let entry = packs.entry(pack).or_default();
                entry.0 += object.size;
                entry.1.push(object.name);
            }
        }
        Ok(packs)
    }

    async fn is_overdue(&self, session: SessionName, fence_after_seconds: u64) -> Result<bool> {
        let now = self.world().clock.now();
        let Some(object) = self.session_object(session).await? else { return Ok(false) };
        let age = now.as_second().saturating_sub(object.started.as_second());
        Ok(age >= 0 && age.unsigned_abs() >= fence_after_seconds)
    }

    /// One condemned list, from C2 to C9.
    async fn collect(
        &self,
        packs: &[PackId],
        plan: &PrunePlan,
        names: &PackList,
        monitor: &dyn Monitor,
        report: &mut PruneReport,
    ) -> Result<()> {
        // C2.
        let collection = self.condemn(packs).await?;
        // C3 and C4: every session that exists now has an end, or the list is void.
        if !self.all_ended(plan.fence_after_seconds, report).await? {
            self.create_final(collection, Vec::new()).await?;
            self.drop_list(collection).await?;
            report.postponed += packs.len() as u64;
            return Ok(());
        }
        // C5: marked again, what is needed by now is taken back.
        let needed = self.mark(monitor).await?;
        let dead: Vec<PackId> = packs.iter().copied().filter(|pack| !needed.has(*pack)).collect();
        report.taken_back += (packs.len() - dead.len()) as u64;
        // C6: if there is a final already, that one counts.
        let dead = self.create_final(collection, dead).await?;
        // C7.
        if !self.exists(&condemned_object(collection)).await? {
            return Ok(());
        }
        // C8.
        for pack in &dead {
            self.delete_pack(*pack).await?;
            report.deleted += 1;
            report.deleted_bytes += names.get(pack).map_or(0, |(bytes, _)| *bytes);
            Progress::add(&monitor.progress().entries, 1);
        }
        // C9.
        self.drop_list(collection).await
    }

    async fn condemn(&self, packs: &[PackId]) -> Result<RandomId> {
        for _ in 0..limits::PACK_ATTEMPTS {
            let collection = RandomId(self.world().random());
            let list = Condemned { collection, created: self.world().clock.now(), packs: packs.to_vec() };
            let name = condemned_object(collection);
            let body = self.seal_signed(&name, RecordKind::Condemned, &list)?;
            match self.store().put_if_absent(&name, body.into()).await {
                Ok(Put::Created) => return Ok(collection),
                // N1: an unclear name is abandoned; C10 clears it away.
                Ok(Put::Exists) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::unavailable("a list of condemned packs could not be stored"))
    }

    /// C3 and C4: lists sessions, and sees each of them ended or gone. Overdue ones are shut out; if another is
    /// still at work, this collection has to wait for another run.
    async fn all_ended(&self, fence_after_seconds: u64, report: &mut PruneReport) -> Result<bool> {
        for session in self.session_names("sessions/", "").await? {
            if self.exists(&session.end_object()).await? || !self.exists(&session.session_object()).await? {
                continue;
            }
            if !self.is_overdue(session, fence_after_seconds).await? {
                return Ok(false);
            }
            report.fenced += u64::from(self.fence(session, "it was overdue").await?);
        }
        Ok(true)
    }

    /// Shuts a session out, unless it ended by itself; answers whether it was us. N2: may be sent again.
    async fn fence(&self, session: SessionName, reason: &str) -> Result<bool> {
        let name = session.end_object();
        let fenced = Fenced { session, created: self.world().clock.now(), reason: reason.to_owned() };
        let body = self.seal_signed(&name, RecordKind::Fenced, &fenced)?;
        Ok(self.store().put_if_absent(&name, body.into()).await? == Put::Created)
    }

    /// C6: creates the final; one that exists already counts instead. A final that does not verify makes the list
    /// void.
    async fn create_final(&self, collection: RandomId, packs: Vec<PackId>) -> Result<Vec<PackId>> {
        let name = final_object(collection);
        let list = Final { collection, packs };
        let body = self.seal_signed(&name, RecordKind::Final, &list)?;
        match self.store().put_if_absent(&name, body.into()).await? {
            Put::Created => Ok(list.packs),
            Put::Exists => self.read_final(collection).await,
        }
    }

    async fn read_final(&self, collection: RandomId) -> Result<Vec<PackId>> {
        let name = final_object(collection);
        let bytes = self.store().get(&name, ByteRange::All).await?;
        match self.open_signed::<Final>(&name, RecordKind::Final, &bytes) {
            Ok(list) if list.collection == collection => Ok(list.packs),
            Ok(_) => Ok(Vec::new()),
            Err(error) => {
                tracing::warn!(name, %error, "a final is not believed: its list is void");
                Ok(Vec::new())
            }
        }
    }

    /// C8 for one pack: every sending of it that is there now, each reply confirmed.
    async fn delete_pack(&self, pack: PackId) -> Result<()> {
        for object in list_all(self.store().as_ref(), &pack_object(pack, 0)).await? {
            if parse_pack_object(&object.name).is_some_and(|(found, _)| found == pack) {
                self.store().delete(&object.name).await?;
            }
        }
        Ok(())
    }

    /// C9: condemned first, then final.
    async fn drop_list(&self, collection: RandomId) -> Result<()> {
        self.store().delete(&condemned_object(collection)).await?;
        self.store().delete(&final_object(collection)).await?;
        Ok(())
    }

    /// C10: lists that another collector left. Two collectors that finish the same list do the same.
    async fn finish_abandoned(&self, monitor: &dyn Monitor) -> Result<()> {
        for object in list_all(self.store().as_ref(), "gc/").await? {
            if let Some(collection) = condemned_id(&object.name) {
                let packs = match self.exists(&final_object(collection)).await? {
                    true => self.read_final(collection).await?,
                    false => self.create_final(collection, Vec::new()).await?,
                };
                if !packs.is_empty() && self.exists(&object.name).await? {
                    self.finish_list(&object.name, &packs, monitor).await?;
                }
                self.drop_list(collection).await?;
            } else if let Some(collection) = final_id(&object.name)
                && !self.exists(&condemned_object(collection)).await?
            {
                self.store().delete(&object.name).await?;
            }
        }
        Ok(())
    }

    /// What a true final names is needed by nobody. If it is, somebody has put an old list back.
    async fn finish_list(&self, name: &str, packs: &[PackId], monitor: &dyn Monitor) -> Result<()> {
        let needed = self.mark(monitor).await?;
        if let Some(pack) = packs.iter().find(|pack| needed.has(**pack)) {
            return Err(Error::corrupt(format!("{name} would delete pack {pack}, which a snapshot needs"))
                .with_hint("somebody put an old list back: delete both objects of it by hand, and look who can write"));
        }
        for pack in packs {
            self.delete_pack(*pack).await?;
        }
        Ok(())
    }

    /// Clean-up of a session that was forgotten or shut out: session object, then end, then markers.
    async fn clean_up(&self, session: SessionName) -> Result<bool> {
        let (forgotten, _) = self.marks("forgotten/", &session.to_string()).await?;
        if forgotten.is_empty() && !matches!(self.end(session).await?, Some(End::Fenced)) {
            return Ok(false);
        }
        let existed = self.exists(&session.session_object()).await?;
        self.store().delete(&session.session_object()).await?;
        self.store().delete(&session.end_object()).await?;
        for folder in ["marks/", "forgotten/"] {
            for object in list_all(self.store().as_ref(), &format!("{folder}{session}.")).await? {
                self.store().delete(&object.name).await?;
            }
        }
        Ok(existed)
    }

    /// Ends whose session is gone: ends are listed first, then sessions.
    async fn drop_orphan_ends(&self) -> Result<()> {
        let ends = self.session_names("snapshots/", "").await?;
        let sessions = self.session_names("sessions/", "").await?;
        for session in ends.difference(&sessions) {
            self.store().delete(&session.end_object()).await?;
        }
        Ok(())
    }

    pub(super) async fn exists(&self, name: &str) -> Result<bool> {
        match self.store().get(name, ByteRange::Last(1)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl PrunePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
            && self.fence.is_empty()
            && self.clean_up.is_empty()
            && self.unfinished_lists == 0
    }
}

fn condemned_object(collection: RandomId) -> String {
    format!("gc/{collection}/condemned")
}

fn final_object(collection: RandomId) -> String {
    format!("gc/{collection}/final")
}

fn final_id(name: &str) -> Option<RandomId> {
    RandomId::from_hex(name.strip_prefix("gc/")?.strip_suffix("/final")?)
}
