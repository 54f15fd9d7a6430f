//! The collector: plans what can go, and deletes it by the rules C1 to C10. Any number may run at once.

mod lists;
mod locked;
mod sessions;
mod table;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::{lists::Doomed, table::PackTable};
use super::{Repository, mark::Watch, session::condemned_id};
use crate::{
    cancel::Cancel,
    error::Result,
    format::{
        records::ProblemRecord,
        session::{SessionKind, SessionName},
    },
    id::{PackId, SessionTag},
    limits,
    monitor::{Monitor, PROBLEMS_KEPT, Problem},
    store::list_all,
};

/// How to prune.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// Sessions without an end that gave no sign of life for this long are taken for dead and shut out. Time
    /// decides only how soon a slow writer is shut out, never what is deleted.
    pub fence_after: Duration,
    /// How long to wait for backups that are at work, before what was condemned is put off to another run.
    pub wait: Duration,
    /// How much of the repository may be unused bytes in packs that are needed in part; beyond, packs are written
    /// anew. `None`: however much.
    pub max_unused: Option<Unused>,
    /// How many needed bytes are written anew at most. `None`: as many as `max_unused` asks for.
    pub max_repack_bytes: Option<u64>,
}

/// An amount of unused bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unused {
    /// In hundredths of what is needed.
    Percent(f64),
    /// In bytes.
    Bytes(u64),
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            fence_after: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(60),
            max_unused: Some(Unused::Percent(5.0)),
            max_repack_bytes: None,
        }
    }
}

/// What a prune would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Packs that nothing needs, to be deleted.
    pub delete: Vec<PackId>,
    /// Their bytes.
    pub delete_bytes: u64,
    /// Packs that are needed in part, whose needed frames are to be moved to new packs.
    pub repack: Vec<PackId>,
    /// Bytes in them that are needed, at most.
    pub repack_bytes: u64,
    /// Bytes in them that are not needed, at least.
    pub repack_unused_bytes: u64,
    /// Nothing more can be moved until old snapshots are forgotten: so many frames have been moved that they need.
    pub repack_is_full: bool,
    /// Packs that would go, or be moved, but that the bucket's object lock holds.
    pub locked: Vec<PackId>,
    /// Their bytes.
    pub locked_bytes: u64,
    /// When the first of them can go.
    pub locked_until: Option<Timestamp>,
    /// Repacks whose relocations no snapshot needs any more.
    pub relocations: Vec<SessionName>,
    /// All packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes in all packs that stay which nothing needs, at least; those to be moved included.
    pub unused_bytes: u64,
    /// Packs of sessions that have not ended; they are not touched.
    pub packs_in_progress: u64,
    /// Sessions without an end that are overdue and will be shut out.
    pub fence: Vec<SessionName>,
    /// Sessions without an end that may be at work.
    pub open: Vec<SessionName>,
    /// Sessions that were forgotten, shut out, or gave up, to be cleaned up.
    pub clean_up: Vec<SessionName>,
    /// Lists that another collector left unfinished.
    pub unfinished_lists: u64,
    /// Seconds without a sign of life from which a session without an end is overdue.
    pub fence_after_seconds: u64,
    /// Seconds to wait for sessions that are at work.
    pub wait_seconds: u64,
    /// Objects that claim something and cannot prove it, or that have no name of ours.
    pub unproven: u64,
    /// The first of them.
    pub problems: Vec<ProblemRecord>,
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
    /// Packs that wait because sessions are still at work, or another prune interfered.
    pub postponed: u64,
    /// Repacks whose relocations were dropped.
    pub relocations_dropped: u64,
    /// Sessions that were shut out.
    pub fenced: u64,
    /// Sessions that were cleaned up.
    pub cleaned_up: u64,
    /// Objects that were deleted because nobody with the maintenance key wrote them.
    pub swept: u64,
    /// Objects that claim something and cannot prove it: the first of them.
    pub problems: Vec<ProblemRecord>,
}

/// Lists that one mark serves: eight hold 160 000 packs, 5 TiB.
const LISTS_PER_ROUND: usize = 8;
/// How often a list is condemned anew after another collector made it void.
const LIST_ATTEMPTS: u32 = 4;
/// Frames that visible relocations may cover together: every writer holds a row of about 64 bytes for each, and a
/// row stays as long as a snapshot needs it.
const RELOCATED_FRAMES_MAX: usize = 256 << 10;
/// Least part of a pack that must be unused before it is worth writing the rest anew: one in so many.
const REPACK_MIN_UNUSED: u64 = 10;

impl Repository {
    /// Decides what can go: lists packs first (C1), then marks.
    pub async fn plan_prune(
        &self,
        options: &PruneOptions,
        monitor: &dyn Monitor,
        cancel: &Cancel,
    ) -> Result<PrunePlan> {
        self.check_maintainable()?;
        monitor.phase("listing packs");
        let store = self.store().as_ref();
        let (mut table, unfinished) = tokio::try_join!(PackTable::list(store), list_all(store, "gc/"))?;
        monitor.phase("finding what snapshots need");
        let marked = self.mark(&mut table, Watch { monitor, cancel }).await?;
        self.refuse_missing(&table).await?;
        let mut plan = PrunePlan::new(options);
        plan.unfinished_lists =
            unfinished.iter().filter(|object| condemned_id(&object.name).is_some()).count() as u64;
        (plan.fence, plan.open) =
            self.overdue_among(marked.survey.open().collect(), plan.fence_after_seconds).await?;
        plan.take_packs(&table);
        let in_view = marked.survey.visible(SessionKind::Repack);
        let unneeded = |repack: &&SessionName| {
            in_view.binary_search(repack).is_ok() && !marked.relocations_needed.contains(repack)
        };
        plan.relocations = marked.relocations.sessions().iter().filter(unneeded).copied().collect();
        plan.choose_repack(&table, options, marked.relocations.len());
        self.leave_locked(&mut plan, &table).await?;
        plan.clean_up = marked.survey.forgotten().chain(marked.fenced).collect();
        plan.clean_up.sort_unstable();
        plan.clean_up.dedup();
        let unproven = self.unproven().await?;
        (plan.unproven, plan.problems) = (unproven.len() as u64, words(&unproven));
        Ok(plan)
    }

    /// Carries a plan out. Nothing of it is trusted: whatever is deleted was condemned, and marked again after that.
    pub async fn apply_prune(
        &self,
        plan: &PrunePlan,
        monitor: &dyn Monitor,
        cancel: &Cancel,
    ) -> Result<PruneReport> {
        self.check_maintainable()?;
        let watch = Watch { monitor, cancel };
        let mut report = PruneReport::default();
        // Segments that exist before packs are listed name only packs that the listing has, or that are gone.
        let segments = self.segment_names().await?;
        let table = PackTable::list(self.store().as_ref()).await?;
        monitor.phase("finishing what others began");
        let mut problems = self.finish_abandoned(plan, watch).await?;
        for session in self.overdue_among(plan.fence.clone(), plan.fence_after_seconds).await?.0 {
            report.fenced += u64::from(self.fence(session, "it was overdue").await?);
        }
        for doomed in plan.rounds(&table) {
            monitor.phase("deleting packs");
            self.collect(doomed, plan, &table, watch, &mut report, &mut problems).await?;
        }
        monitor.phase("cleaning up");
        report.cleaned_up += self.clean_up(&plan.clean_up, watch).await?;
        self.drop_orphan_ends().await?;
        self.drop_orphan_marks().await?;
        if plan.unproven > 0 {
            report.swept = self.sweep_unsigned().await?;
        }
        cancel.check()?;
        self.merge_index(&segments, |pack| table.get(pack).is_some(), cancel).await?;
        // Last of all: who looks whether the keys changed is not to be told so by us.
        self.drop_void_keys().await?;
        self.store().flush().await?;
        report.problems = words(&problems);
        Ok(report)
    }

    /// What snapshots need and is not there may have been moved to where nobody finds it, so nothing may go. What arrived
    /// or was moved since packs were listed is not missing.
    async fn refuse_missing(&self, table: &PackTable) -> Result<()> {
        let mut unlisted = table.unlisted().peekable();
        if unlisted.peek().is_none() {
            return Ok(());
        }
        // The mark has refused what is in doubt.
        let (relocations, _) = self.relocations().await?;
        for (pack, offset) in unlisted {
            let (at, _) = relocations.lookup(pack, offset).unwrap_or((pack, offset));
            if !self.has_pack(at).await? {
                return Err(super::mark::missing(at));
            }
        }
        Ok(())
    }

    /// One round of lists, from C2 to C9; again if another collector made them void meanwhile.
    async fn collect(
        &self,
        lists: Vec<Doomed>,
        plan: &PrunePlan,
        table: &PackTable,
        watch: Watch<'_>,
        report: &mut PruneReport,
        problems: &mut Vec<Problem>,
    ) -> Result<()> {
        let mut waiting = lists;
        for _ in 0..LIST_ATTEMPTS {
            let mut condemned = Vec::new();
            for doomed in std::mem::take(&mut waiting) {
                condemned.push((self.condemn(&doomed).await?, doomed));
            }
            if !self.all_ended(plan, watch, report).await? {
                for (collection, doomed) in condemned {
                    self.create_final(collection, Doomed::default(), problems).await?;
                    self.drop_list(collection).await?;
                    report.postponed += doomed.pack_count();
                }
                return Ok(());
            }
            // C5: marked again, what is needed by now is taken back.
            let names = condemned.iter().flat_map(|(_, list)| &list.packs);
            let mut needed = PackTable::of(names.map(|sending| sending.pack));
            let marked = self.mark(&mut needed, watch).await?;
            for (collection, mut doomed) in condemned {
                let named = doomed.pack_count();
                doomed.packs.retain(|sending| !needed.needs(sending.pack));
                doomed.relocations.retain(|repack| !marked.relocations_needed.contains(repack));
                report.taken_back += named - doomed.pack_count();
                let done = self.finish(collection, doomed.clone(), table, watch, report, problems).await?;
                if !done {
                    waiting.push(doomed);
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
        }
        report.postponed += waiting.iter().map(Doomed::pack_count).sum::<u64>();
        Ok(())
    }

    /// C6 to C9 for one list; false if another collector made it void.
    async fn finish(
        &self,
        collection: crate::id::RandomId,
        doomed: Doomed,
        table: &PackTable,
        watch: Watch<'_>,
        report: &mut PruneReport,
        problems: &mut Vec<Problem>,
    ) -> Result<bool> {
        // C6: if there is a final already, that one counts.
        let decided = self.create_final(collection, doomed.clone(), problems).await?;
        // C7.
        let there = self.is_condemned(collection).await?;
        if there {
            self.carry_out(&decided, watch).await?;
            report.deleted += decided.pack_count();
            let packs = decided.packs.chunk_by(|one, next| one.pack == next.pack);
            let rows = packs.filter_map(|sendings| table.get(sendings[0].pack));
            report.deleted_bytes += rows.map(|row| row.bytes).sum::<u64>();
            report.relocations_dropped += decided.relocations.len() as u64;
            self.drop_list(collection).await?;
        }
        Ok(there && decided.len() >= doomed.len())
    }
}

impl PrunePlan {
    fn new(options: &PruneOptions) -> Self {
        Self {
            delete: Vec::new(),
            delete_bytes: 0,
            repack: Vec::new(),
            repack_bytes: 0,
            repack_unused_bytes: 0,
            repack_is_full: false,
            locked: Vec::new(),
            locked_bytes: 0,
            locked_until: None,
            relocations: Vec::new(),
            packs: 0,
            bytes: 0,
            unused_bytes: 0,
            packs_in_progress: 0,
            fence: Vec::new(),
            open: Vec::new(),
            clean_up: Vec::new(),
            unfinished_lists: 0,
            unproven: 0,
            fence_after_seconds: options.fence_after.as_secs(),
            wait_seconds: options.wait.as_secs(),
            problems: Vec::new(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
            && self.repack.is_empty()
            && self.relocations.is_empty()
            && self.fence.is_empty()
            && self.clean_up.is_empty()
            && self.unfinished_lists == 0
            && self.unproven == 0
    }

    /// C1: only packs whose session has ended or is gone.
    fn is_busy(&self) -> impl Fn(PackId) -> bool + use<> {
        let busy: HashSet<SessionTag> =
            self.open.iter().chain(&self.fence).map(|session| session.nonce.tag()).collect();
        move |pack: PackId| busy.contains(&pack.tag())
    }

    fn take_packs(&mut self, table: &PackTable) {
        let is_busy = self.is_busy();
        for row in table.rows() {
            self.packs += 1;
            self.bytes += row.bytes;
            if is_busy(row.pack) {
                self.packs_in_progress += 1;
            } else if row.is_needed() {
                self.unused_bytes += row.unused_bytes();
            } else {
                self.delete.push(row.pack);
                self.delete_bytes += row.bytes;
            }
        }
    }

    /// Packs that are worth writing anew, the emptiest first, until little enough is unused; none while as many
    /// frames have been moved as may be.
    fn choose_repack(&mut self, table: &PackTable, options: &PruneOptions, moved_frames: usize) {
        let is_busy = self.is_busy();
        let partly = |row: &&table::PackRow| row.is_needed() && !is_busy(row.pack);
        let needed: u64 = table.rows().iter().filter(partly).map(table::PackRow::needed_bytes).sum();
        let allowed = match options.max_unused {
            None => return,
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of bytes, for people"
            )]
            Some(Unused::Percent(percent)) => (needed as f64 * percent / 100.0) as u64,
            Some(Unused::Bytes(bytes)) => bytes,
        };
        let worth = |row: &&table::PackRow| row.unused_bytes() * REPACK_MIN_UNUSED >= row.bytes;
        let mut rows: Vec<&table::PackRow> = table.rows().iter().filter(partly).filter(worth).collect();
        rows.sort_by_key(|row| (row.needed_bytes() * 1000 / row.bytes.max(1), row.pack));
        for row in rows {
            let copied = self.repack_bytes + row.needed_bytes();
            if self.unused_bytes - self.repack_unused_bytes <= allowed
                || options.max_repack_bytes.is_some_and(|most| copied > most)
            {
                break;
            }
            if moved_frames >= RELOCATED_FRAMES_MAX {
                self.repack_is_full = true;
                break;
            }
            self.repack.push(row.pack);
            self.repack_bytes = copied;
            self.repack_unused_bytes += row.unused_bytes();
        }
    }

    /// What is condemned together: lists of bounded length, a few to a round.
    fn rounds(&self, table: &PackTable) -> Vec<Vec<Doomed>> {
        let mut lists: Vec<Doomed> = self
            .delete
            .chunks(limits::CONDEMNED_PACKS)
            .map(|packs| Doomed { packs: table.sendings(packs), relocations: Vec::new() })
            .collect();
        for relocations in self.relocations.chunks(limits::CONDEMNED_PACKS) {
            lists.push(Doomed { packs: Vec::new(), relocations: relocations.to_vec() });
        }
        lists.chunks(LISTS_PER_ROUND).map(<[Doomed]>::to_vec).collect()
    }
}

/// The first problems, for a report.
fn words(problems: &[Problem]) -> Vec<ProblemRecord> {
    let word =
        |problem: &Problem| ProblemRecord { path: problem.what.clone(), message: problem.message.clone() };
    problems.iter().take(PROBLEMS_KEPT).map(word).collect()
}
