use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;

use super::*;
use crate::{
    clock::Clock as _,
    error::ErrorKind,
    format::{
        pack::pack_object,
        records::{Final, RecordKind},
    },
    id::RandomId,
    repo::{
        mark::{
            Needs,
            testing::{Stage, Watcher, backup},
        },
        testing::{self, Fate, moved, repack},
    },
    store::{Decorator, ObjectStore, mem::MemStore, record::Operation},
};

/// A store that lets everybody ask before it answers, and tells how many ask at once.
#[derive(Debug)]
pub(super) struct Crowd {
    inner: Arc<MemStore>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Crowd {
    pub(super) fn on(inner: &Arc<MemStore>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(inner), now: AtomicUsize::new(0), most: AtomicUsize::new(0) })
    }

    /// How many have asked at once, since this was asked last.
    pub(super) fn most(&self) -> usize {
        self.most.swap(0, Ordering::Relaxed)
    }

    async fn wait(&self) {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Decorator for Crowd {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.wait().await;
        self.inner.delete(name).await
    }

    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>> {
        self.wait().await;
        self.inner.locked_until(name).await
    }
}

fn pack(number: u8) -> PackId {
    PackId([number; 16])
}

fn session(number: u8) -> SessionName {
    testing::name(SessionKind::Backup, number)
}

/// Packs of so many bytes, of which so many of 128 parts are needed.
async fn table(packs: &[(u8, u32, u32)]) -> PackTable {
    let store = MemStore::new();
    for (number, bytes, _) in packs {
        store.tamper(&pack_object(pack(*number), 0), Some(vec![0; *bytes as usize].into()));
    }
    let mut table = PackTable::list(&store).await.unwrap();
    for (number, bytes, parts) in packs.iter().filter(|(.., parts)| *parts > 0) {
        table.frame(pack(*number), 0, bytes / 128 * parts);
    }
    table
}

#[tokio::test]
async fn no_more_frames_are_moved_than_writers_can_carry() {
    let table = table(&[(7, 1 << 20, 1)]).await;
    let options = PruneOptions::default();
    for (moved, is_full) in [(RELOCATED_FRAMES_MAX - 1, false), (RELOCATED_FRAMES_MAX, true)] {
        let mut plan = PrunePlan::new(&options);
        plan.take_packs(&table);
        plan.choose_repack(&table, &options, moved);
        assert_eq!(plan.repack_is_full, is_full, "{moved} frames were moved");
        assert_eq!(plan.repack, if is_full { Vec::new() } else { vec![pack(7)] });
    }
}

fn plan(table: &PackTable, max_unused: Option<Unused>, max_repack_bytes: Option<u64>) -> PrunePlan {
    let options = PruneOptions { max_unused, max_repack_bytes, ..PruneOptions::default() };
    let mut plan = PrunePlan::new(&options);
    plan.take_packs(table);
    plan.choose_repack(table, &options, 0);
    plan
}

/// Of a pack of 1 MiB, what is unused if half of it is needed, or one part.
const HALF_UNUSED: u64 = (1 << 20) - (512 << 10) - (128 << 10) - 4096;
const NEARLY_ALL_UNUSED: u64 = (1 << 20) - 8192 - (128 << 10) - 4096;

#[tokio::test]
async fn packs_are_moved_until_little_enough_is_unused() {
    let table = table(&[(1, 1 << 20, 64), (2, 1 << 20, 1), (3, 1 << 20, 0)]).await;
    let both = HALF_UNUSED + NEARLY_ALL_UNUSED;
    assert_eq!(plan(&table, None, None).repack, []);
    for (allowed, moved) in [
        (both, vec![]),
        (both - 1, vec![pack(2)]),
        (HALF_UNUSED, vec![pack(2)]),
        (HALF_UNUSED - 1, vec![pack(2), pack(1)]),
    ] {
        let plan = plan(&table, Some(Unused::Bytes(allowed)), None);
        assert_eq!((plan.repack, plan.unused_bytes), (moved, both), "{allowed}");
    }
    let all = plan(&table, Some(Unused::Bytes(0)), None);
    assert_eq!((all.repack_bytes, all.repack_unused_bytes), (8192 + (512 << 10), both));
    assert_eq!((all.delete, all.delete_bytes), (vec![pack(3)], 1 << 20));
    for (most, moved) in [(8191, 0), (8192, 1), (8191 + (512 << 10), 1), (8192 + (512 << 10), 2)] {
        let plan = plan(&table, Some(Unused::Bytes(0)), Some(most));
        assert_eq!(plan.repack.len(), moved, "{most} bytes at most");
    }
}

#[tokio::test]
async fn a_share_is_one_of_what_is_needed() {
    let table = table(&[(1, 1 << 20, 64)]).await;
    // Of half a MiB, exactly what is unused, and less.
    for (percent, moved) in [(74.218_75, 0), (74.2, 1), (0.0, 1)] {
        let plan = plan(&table, Some(Unused::Percent(percent)), None);
        assert_eq!(plan.repack.len(), moved, "{percent} %");
    }
}

#[tokio::test]
async fn the_emptiest_pack_is_moved_first_and_one_that_is_nearly_full_is_not() {
    // A half of a short one is needed, and a quarter of a long one.
    let ratio = table(&[(1, 1 << 20, 64), (2, 4 << 20, 32)]).await;
    assert_eq!(plan(&ratio, Some(Unused::Bytes(0)), None).repack, [pack(2), pack(1)]);
    // Of a pack of 2.5 MiB, 99 parts leave exactly one byte in ten.
    for (parts, moved) in [(99, 1), (100, 0)] {
        let full = table(&[(1, 5 << 19, parts)]).await;
        assert_eq!(plan(&full, Some(Unused::Bytes(0)), None).repack.len(), moved, "{parts} parts");
    }
}

#[tokio::test]
async fn packs_of_sessions_at_work_are_left_alone() {
    let table = table(&[(1, 1 << 20, 64), (2, 1 << 20, 64), (3, 1 << 20, 0), (4, 1 << 20, 0)]).await;
    let options = PruneOptions { max_unused: Some(Unused::Bytes(0)), ..PruneOptions::default() };
    let mut plan = PrunePlan::new(&options);
    (plan.open, plan.fence) = (vec![session(1)], vec![session(3)]);
    plan.take_packs(&table);
    plan.choose_repack(&table, &options, 0);
    assert_eq!((plan.packs, plan.bytes, plan.packs_in_progress), (4, 4 << 20, 2));
    assert_eq!((plan.delete, plan.delete_bytes, plan.repack), (vec![pack(4)], 1 << 20, vec![pack(2)]));
    assert_eq!(plan.unused_bytes, HALF_UNUSED);
}

#[test]
fn who_is_silent_for_a_day_is_shut_out_if_nothing_else_is_said() {
    let PruneOptions { fence_after, wait, .. } = PruneOptions::default();
    assert_eq!((fence_after.as_secs(), wait.as_secs()), (86_400, 60));
}

#[test]
fn a_plan_is_empty_only_if_there_is_nothing_to_do_at_all() {
    let empty = PrunePlan::new(&PruneOptions::default());
    assert!(empty.is_empty());
    let (packs, sessions) = (vec![pack(1)], vec![session(1)]);
    for plan in [
        PrunePlan { delete: packs.clone(), ..empty.clone() },
        PrunePlan { repack: packs.clone(), ..empty.clone() },
        PrunePlan { relocations: sessions.clone(), ..empty.clone() },
        PrunePlan { fence: sessions.clone(), ..empty.clone() },
        PrunePlan { clean_up: sessions.clone(), ..empty.clone() },
        PrunePlan { unfinished_lists: 1, ..empty.clone() },
        PrunePlan { unproven: 1, ..empty.clone() },
    ] {
        assert!(!plan.is_empty(), "{plan:?}");
    }
    assert!(PrunePlan { open: sessions, locked: packs, ..empty }.is_empty());
}

#[test]
fn a_list_and_a_round_of_lists_are_bounded() {
    let mut plan = PrunePlan::new(&PruneOptions::default());
    plan.relocations = vec![session(1); LISTS_PER_ROUND * limits::CONDEMNED_PACKS + 1];
    let rounds = plan.rounds(&PackTable::default());
    let lists: Vec<usize> = rounds.iter().map(Vec::len).collect();
    assert_eq!(lists, [LISTS_PER_ROUND, 1]);
    assert!(rounds[0].iter().all(|list| list.len() == limits::CONDEMNED_PACKS) && rounds[1][0].len() == 1);
}

#[test]
fn a_report_names_the_first_problems() {
    let problem = |number: usize| Problem { what: format!("object {number}"), message: "why".to_owned() };
    let kept = words(&(0..=PROBLEMS_KEPT).map(problem).collect::<Vec<_>>());
    assert_eq!(kept.len(), PROBLEMS_KEPT);
    assert_eq!(kept[7], ProblemRecord { path: "object 7".to_owned(), message: "why".to_owned() });
}

async fn planned(repository: &Repository) -> Result<PrunePlan> {
    let watcher = Watcher::default();
    repository.plan_prune(&PruneOptions::default(), &watcher.monitor, &watcher.cancel).await
}

async fn applied(repository: &Repository, plan: &PrunePlan) -> PruneReport {
    let watcher = Watcher::default();
    repository.apply_prune(plan, &watcher.monitor, &watcher.cancel).await.unwrap()
}

#[tokio::test]
async fn what_nothing_needs_goes_with_all_its_sendings() {
    let stage = Stage::new().await;
    backup(&stage.repository, &[(pack(1), 0)]).await;
    let tree = stage.names("packs/").await.remove(0);
    for (number, attempt, bytes) in [(1, 0, 5000), (2, 0, 70), (2, 3, 70), (3, 0, 400)] {
        stage.put_pack(number, attempt, bytes);
    }
    let plan = planned(&stage.repository).await.unwrap();
    assert_eq!((plan.delete.clone(), plan.delete_bytes), (vec![pack(2), pack(3)], 540));
    assert_eq!((plan.packs, plan.packs_in_progress, plan.is_empty()), (4, 0, false));
    let report = applied(&stage.repository, &plan).await;
    assert_eq!((report.deleted, report.deleted_bytes), (2, 540));
    assert_eq!((report.taken_back, report.postponed), (0, 0));
    let mut left = [tree, pack_object(pack(1), 0)];
    left.sort();
    assert_eq!(stage.names("packs/").await, left);
    assert_eq!((stage.names("gc/").await.len(), stage.clock.monotonic()), (0, Duration::ZERO));
    assert!(planned(&stage.repository).await.unwrap().is_empty());
}

#[tokio::test]
async fn while_a_backup_is_at_work_nothing_goes() {
    let stage = Stage::new().await;
    let open = testing::begin(&stage.repository).await;
    stage.put_pack(2, 0, 70);
    open.put_pack(open.new_pack(), vec![0; 10].into()).await.unwrap();
    let plan = planned(&stage.repository).await.unwrap();
    assert_eq!((plan.open.clone(), plan.delete.clone()), (vec![open.name()], vec![pack(2)]));
    assert_eq!((plan.packs_in_progress, plan.fence.len()), (1, 0));
    let report = applied(&stage.repository, &plan).await;
    assert_eq!(report, PruneReport { postponed: 1, ..PruneReport::default() });
    assert_eq!((stage.names("packs/").await.len(), stage.names("gc/").await.len()), (2, 0));
    assert_eq!(stage.clock.monotonic(), Duration::from_secs(plan.wait_seconds));
    open.abandon("it gives up").await.unwrap();
    let report = applied(&stage.repository, &plan).await;
    assert_eq!((report.deleted, report.deleted_bytes, report.postponed), (1, 70, 0));
}

#[tokio::test]
async fn what_somebody_needs_by_then_is_taken_back() {
    let stage = Stage::new().await;
    let repack = repack(&stage.repository, &[moved(8, 9)]).await;
    (2..=9).for_each(|number| stage.put_pack(number, 0, 70));
    stage.put_pack(3, 1, 0);
    let plan = planned(&stage.repository).await.unwrap();
    assert_eq!((plan.relocations.clone(), plan.delete.len()), (vec![repack], 8));
    backup(&stage.repository, &[(pack(2), 5), (pack(3), 0), (pack(8), 1)]).await;
    let report = applied(&stage.repository, &plan).await;
    assert_eq!((report.deleted, report.deleted_bytes, report.taken_back), (5, 350, 3));
    assert_eq!((report.relocations_dropped, stage.names("gc/").await.len()), (0, 0));
    for number in 2..=9 {
        let is_there = stage.repository.has_pack(pack(number)).await.unwrap();
        assert_eq!(is_there, matches!(number, 2 | 3 | 9), "pack {number}");
    }
    assert!(stage.repository.exists(&repack.session_object()).await.unwrap());
}

#[tokio::test]
async fn relocations_go_that_no_snapshot_is_read_through() {
    let stage = Stage::new().await;
    backup(&stage.repository, &[(pack(1), 1)]).await;
    let used = repack(&stage.repository, &[moved(1, 2)]).await;
    let unused = repack(&stage.repository, &[moved(8, 9)]).await;
    [1, 2].into_iter().for_each(|number| stage.put_pack(number, 0, 70));
    let plan = planned(&stage.repository).await.unwrap();
    assert_eq!((plan.relocations.clone(), plan.delete.clone()), (vec![unused], vec![pack(1)]));
    let report = applied(&stage.repository, &plan).await;
    assert_eq!((report.relocations_dropped, report.deleted, report.postponed), (1, 1, 0));
    assert!(!stage.repository.exists(&unused.session_object()).await.unwrap());
    assert!(stage.repository.has_tombstone(unused).await.unwrap());
    assert_eq!(stage.repository.relocations().await.unwrap().0.sessions(), [used]);
    assert!(planned(&stage.repository).await.unwrap().is_empty());
}

/// What another collector does to a list in the moment before its final is put.
#[derive(Clone, Copy)]
enum Other {
    MakesVoid,
    DropsList,
}

/// A prune of one pack, to whose first lists another one does something; how many lists it condemns.
async fn pruned_beside(stage: &Stage, other: Other, times: usize) -> (PruneReport, usize) {
    let plan = planned(&stage.repository).await.unwrap();
    let (signer, store, mut finals) = (stage.repository.clone(), stage.store.clone(), 0);
    let condemned = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&condemned);
    let meddled = stage.meddled(move |operation, name| {
        let list = name.strip_suffix(".final").filter(|_| operation == Operation::Put);
        count.fetch_add(
            usize::from(operation == Operation::Put && name.ends_with(".condemned")),
            Ordering::Relaxed,
        );
        finals += usize::from(list.is_some());
        match (list, other) {
            (Some(list), Other::DropsList) if finals <= times => {
                store.tamper(&format!("{list}.condemned"), None);
            }
            (Some(list), Other::MakesVoid) if finals <= times => {
                let collection = RandomId::from_hex(list.strip_prefix("gc/").unwrap()).unwrap();
                let void = Final { collection, packs: Vec::new(), relocations: Vec::new() };
                testing::put_signed(&signer, &store, name, RecordKind::Final, &void);
            }
            _ => {}
        }
        Fate::Passes
    });
    let report = applied(&meddled.await, &plan).await;
    (report, condemned.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_list_that_another_made_void_is_condemned_anew_for_some_time() {
    for other in [Other::MakesVoid, Other::DropsList] {
        for (times, deleted, lists) in [(0, 1, 1), (1, 1, 2), (3, 1, 4), (4, 0, 4), (usize::MAX, 0, 4)] {
            let stage = Stage::new().await;
            stage.put_pack(2, 0, 70);
            let (report, condemned) = pruned_beside(&stage, other, times).await;
            assert_eq!((report.deleted, report.postponed, condemned), (deleted, 1 - deleted, lists));
            assert_eq!(stage.names("packs/").await.len() as u64, 1 - deleted, "{times}");
            // What is left of a list that was dropped goes with the next prune, and takes nothing along.
            let plan = PrunePlan::new(&PruneOptions::default());
            applied(&stage.repository, &plan).await;
            assert_eq!(stage.names("gc/").await.len(), 0);
            assert_eq!(stage.names("packs/").await.len() as u64, 1 - deleted, "{times}");
        }
    }
}

#[tokio::test]
async fn nothing_goes_while_a_pack_is_missing_that_is_needed() {
    let stage = Stage::new().await;
    backup(&stage.repository, &[(pack(1), 0)]).await;
    let error = planned(&stage.repository).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&pack_object(pack(1), 0)), "{error}");
    // One that arrives when packs are listed already is not missing.
    let (store, name) = (stage.store.clone(), pack_object(pack(1), 0));
    let meddled = stage.meddled(move |_, prefix| {
        store.tamper(&name, (prefix != "packs/").then(|| vec![0; 10].into()));
        Fate::Passes
    });
    assert!(planned(&meddled.await).await.unwrap().delete.is_empty());
}

#[tokio::test]
async fn what_nobody_proves_is_swept_if_the_plan_knew_of_any() {
    let stage = Stage::new().await;
    let plan = planned(&stage.repository).await.unwrap();
    stage.store.tamper("marks/forged", Some("rubbish".into()));
    assert_eq!((plan.unproven, applied(&stage.repository, &plan).await.swept), (0, 0));
    let plan = planned(&stage.repository).await.unwrap();
    assert_eq!((plan.unproven, plan.problems.len(), plan.is_empty()), (1, 1, false));
    assert!(plan.problems[0].path.contains("marks/forged"), "{plan:?}");
    assert_eq!(applied(&stage.repository, &plan).await.swept, 1);
    assert_eq!(stage.names("marks/").await.len(), 0);
}

#[tokio::test]
async fn who_is_overdue_is_shut_out_and_then_cleaned_up() {
    let stage = Stage::new().await;
    let [old, late] = [testing::begin(&stage.repository).await, testing::begin(&stage.repository).await];
    let young = testing::begin(&stage.repository).await;
    for session in [&old, &late] {
        stage.set_started(session.name(), -24 * 3600).await;
    }
    stage.repository.condemn(&Doomed::default()).await.unwrap();
    stage.put_pack(2, 0, 70);
    let plan = planned(&stage.repository).await.unwrap();
    let mut overdue = vec![old.name(), late.name()];
    overdue.sort();
    assert_eq!(
        (plan.fence.clone(), plan.open.clone(), plan.unfinished_lists),
        (overdue, vec![young.name()], 1)
    );
    // One gives a sign of life after all.
    stage.set_started(late.name(), 0).await;
    let report = applied(&stage.repository, &plan).await;
    assert_eq!((report.fenced, report.postponed, report.cleaned_up), (1, 1, 0));
    assert!(!stage.repository.exists(&late.name().end_object()).await.unwrap());
    for session in [&late, &young] {
        session.abandon("it gives up").await.unwrap();
    }
    let plan = planned(&stage.repository).await.unwrap();
    assert_eq!((plan.clean_up.len(), plan.fence.len(), plan.open.len()), (3, 0, 0));
    let report = applied(&stage.repository, &plan).await;
    assert_eq!((report.cleaned_up, report.deleted), (3, 1));
    assert_eq!(stage.names("sessions/").await.len(), 0);
}
