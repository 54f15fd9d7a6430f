use carrack_controller_api::{
    BackupPhase as Phase, BackupType, ClaimRef, Consistency, DataMoverBackup, DataMoverBackupSpec,
    DataMoverBackupStatus, DataMoverType, DataMoverTypeSpec, DeletionPolicy, Location, RepositoryRef,
    finalizer, reason,
};
use carrack_proto::{BackupOutput, Changes, JobResult, Outcome, Output, SeenSnapshot};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::PersistentVolume, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    decide::{self, Decision, Step, decide},
    observe::{Observed, Origin},
};
use crate::{
    access::{Access, Resolution, SecretData},
    bundle::Bundle,
    error::Obstacle,
    live::Live,
    pod::{Lost, PodState},
    snapshot::kinds::{
        VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotContentSpec, VolumeSnapshotContentStatus,
        VolumeSnapshotSpec, VolumeSnapshotStatus,
    },
};

mod left;
mod reconciled;

/// The lineage of the volume's keys.
const LINEAGE: &str = "0123456789abcdef";
/// A snapshot that was written with them.
const WRITTEN: &str = "b0123456789abcdef-000102030405060708090a0b0c0d0e0f";

fn now() -> Timestamp {
    "2026-11-29T12:00:00Z".parse().expect("a time")
}

fn ready() -> Resolution {
    Resolution::Ready(Box::new(Access {
        mover_type: DataMoverType::new("standard", DataMoverTypeSpec::default()),
        repository: RepositoryRef { name: "main".into(), ..RepositoryRef::default() },
        repository_id: "id".into(),
        location: Location::default(),
        credentials: SecretData::new(),
        key: SecretData::new(),
    }))
}

/// A backup that was accepted, in a phase, with nothing else there.
fn seen(phase: Phase) -> Observed {
    let spec = DataMoverBackupSpec {
        backup_type: BackupType::Claim,
        source_claim_ref: ClaimRef { name: "data".into(), namespace: None },
        ..DataMoverBackupSpec::default()
    };
    let mut backup = DataMoverBackup::new("nightly", spec);
    backup.metadata.finalizers = Some(vec![finalizer::CLEAN_UP.into()]);
    backup.status = Some(DataMoverBackupStatus {
        phase,
        accepted_timestamp: (phase != Phase::Pending).then(|| Time(now())),
        ..DataMoverBackupStatus::default()
    });
    Observed {
        now: now(),
        backup,
        resolution: ready(),
        origin: Ok(Origin {
            claim: "data".into(),
            snapshot_class: Some("class".into()),
            ..Origin::default()
        }),
        snapshot: None,
        content: None,
        temporary: None,
        exposed: false,
        bundle: None,
        pod: PodState::Missing,
        lineage: Some(LINEAGE.into()),
        progress: None,
        forgets: PodState::Missing,
        slot: true,
        crowded: false,
        contested: None,
        misplaced: false,
        clean: false,
    }
}

fn with_snapshot(mut seen: Observed) -> Observed {
    let mut snapshot = VolumeSnapshot::new("snapshot", VolumeSnapshotSpec::default());
    snapshot.status = Some(VolumeSnapshotStatus::default());
    let mut content = VolumeSnapshotContent::new("content", VolumeSnapshotContentSpec::default());
    content.status = Some(VolumeSnapshotContentStatus {
        snapshot_handle: Some("handle".into()),
        ready_to_use: Some(true),
        ..VolumeSnapshotContentStatus::default()
    });
    seen.snapshot = Some(snapshot);
    seen.content = Some(content);
    seen
}

fn result(outcome: Outcome, exit_code: u8, snapshot: Option<&str>) -> PodState {
    let output = snapshot
        .map(|id| Output::Backup(BackupOutput { snapshot: Some(id.into()), ..BackupOutput::default() }));
    let problems = u64::from(outcome == Outcome::Partial);
    let result = JobResult {
        version: 1,
        outcome,
        exit_code,
        message: "words".into(),
        next: Some("do this".into()),
        problems,
        first_problems: vec![],
        output,
    };
    PodState::Finished { result: Box::new(result), node: None, started: None }
}

fn next(seen: &Observed) -> Decision {
    decide(seen).expect("it is ours")
}

fn reason_of(decision: &Decision) -> &str {
    decision
        .status
        .conditions
        .iter()
        .find(|found| found.type_ == "Succeeded")
        .map_or("", |found| found.reason.as_str())
}

#[test]
fn what_is_somebody_elses_is_not_touched_in_any_phase() {
    for phase in [Phase::Pending, Phase::Running, Phase::Completed] {
        let mut seen = seen(phase);
        seen.resolution = Resolution::Foreign;
        seen.backup.spec.cancel = true;
        assert!(decide(&seen).is_none());
    }
}

#[test]
fn a_wait_for_a_slot_is_no_time_out() {
    let mut seen = seen(Phase::Pending);
    seen.slot = false;
    seen.now = now() + SignedDuration::from_hours(1000);
    let decision = next(&seen);
    assert_eq!((decision.status.phase, decision.steps), (Phase::Pending, vec![]));
    assert_eq!(decision.status.conditions[0].reason, reason::QUEUED);
}

#[test]
fn the_way_goes_from_snapshot_over_volume_and_keys_to_the_pod() {
    let mut first = seen(Phase::Pending);
    first.backup.metadata.finalizers = None;
    let decision = next(&first);
    assert_eq!(decision.steps, [Step::Hold, Step::MakeSnapshot], "held before anything is made");
    assert_eq!(decision.status.phase, Phase::Snapshotting);

    let mut cut = with_snapshot(seen(Phase::Snapshotting));
    cut.content.as_mut().expect("a content").status = None;
    let decision = next(&cut);
    assert_eq!((decision.status.phase, decision.steps), (Phase::Snapshotting, vec![]), "it is not ready");

    let mut exposed = with_snapshot(seen(Phase::Snapshotting));
    exposed.bundle = Some(Bundle::Working);
    let decision = next(&exposed);
    assert_eq!((decision.status.phase, decision.steps), (Phase::Preparing, vec![Step::Expose]));

    exposed.bundle = Some(Bundle::Ready(vec![]));
    assert_eq!(next(&exposed).steps, [Step::Expose, Step::Start]);

    exposed.pod = PodState::Running { node: Some("node".into()), since: now() };
    let decision = next(&exposed);
    assert_eq!((decision.status.phase, decision.status.node.as_deref()), (Phase::Running, Some("node")));
}

#[test]
fn what_has_no_snapshots_is_read_itself_and_says_so() {
    let mut first = seen(Phase::Pending);
    let live = Live { volume: PersistentVolume::default(), users: Vec::new() };
    first.origin = Ok(Origin { live: Some(Box::new(live)), ..first.origin.expect("a volume") });
    first.bundle = Some(Bundle::Ready(vec![]));
    let decision = next(&first);
    assert_eq!(decision.steps, [Step::Expose, Step::Start], "and no snapshot is made");
    assert_eq!(
        (decision.status.phase, decision.status.consistency),
        (Phase::Preparing, Some(Consistency::Live))
    );
    let marked = decision.status.conditions.iter().find(|found| found.type_ == "Consistent");
    assert!(marked.is_some_and(|found| found.status == "False" && found.reason == reason::LIVE));
}

#[test]
fn a_wait_for_a_node_is_no_time_out() {
    let mut crowded = with_snapshot(seen(Phase::Preparing));
    crowded.bundle = Some(Bundle::Ready(vec![]));
    for minutes in [1, 16, 31, 46, 61] {
        crowded.now = now() + SignedDuration::from_mins(minutes);
        let mut decision = next(&crowded);
        assert_eq!(decision.steps, [Step::Expose, Step::Start], "after {minutes} minutes");
        decide::crowded(&crowded, &mut decision);
        assert!(decision.status.message.as_ref().is_some_and(|message| message.contains("perNode")));
        crowded.backup.status = Some(decision.status);
    }
    crowded.pod =
        PodState::Waiting { since: now(), because: Some("no node".into()), avoided: vec!["a".into()] };
    assert_eq!(next(&crowded).steps, [Step::Expose]);
    crowded.misplaced = true;
    assert_eq!(
        next(&crowded).steps,
        [Step::Expose, Step::Stop { at_once: true }],
        "another pod may go there"
    );
}

#[test]
fn preparation_has_its_limit_and_says_what_was_in_the_way() {
    let mut late = with_snapshot(seen(Phase::Preparing));
    late.pod = PodState::Waiting {
        since: now(),
        because: Some("ErrImagePull: no such image".into()),
        avoided: Vec::new(),
    };
    let decision = next(&late);
    assert_eq!(decision.status.message.as_deref(), Some("ErrImagePull: no such image"));
    late.backup.status = Some(decision.status);
    late.now = now() + SignedDuration::from_mins(31);
    let decision = next(&late);
    assert_eq!((decision.status.phase, reason_of(&decision)), (Phase::Failed, reason::TIMED_OUT));
    assert!(decision.status.message.expect("a message").contains("no such image"));
}

#[test]
fn the_snapshot_of_a_block_volume_stays_once_its_driver_was_asked() {
    let told = |changes| {
        let output = BackupOutput {
            snapshot: Some(WRITTEN.into()),
            read_bytes: 7,
            changes,
            ..BackupOutput::default()
        };
        let PodState::Finished { mut result, .. } = result(Outcome::Completed, 0, Some(WRITTEN)) else {
            panic!("it is finished");
        };
        result.output = Some(Output::Backup(output));
        PodState::Finished { result, node: None, started: None }
    };
    let base_after = |pod: PodState, mode: &str, backup_type| {
        let mut done = seen(Phase::Running);
        done.pod = pod;
        done.backup.spec.backup_type = backup_type;
        let status = done.backup.status.get_or_insert_default();
        (status.volume_mode, status.repository_id) = (Some(mode.into()), Some("id".into()));
        let status = next(&done).status;
        done.backup.status = Some(status.clone());
        match next(&done).steps.as_slice() {
            [Step::Sweep { base }] => (base.clone().map(|base| (base.claim, base.kept)), status),
            other => panic!("{other:?}"),
        }
    };
    let listed = || told(Some(Changes::Listed { bytes: 5 }));
    let (base, status) = base_after(listed(), "Block", BackupType::Claim);
    assert_eq!(base, Some(("data".to_owned(), true)));
    assert_eq!(status.changed_blocks.expect("what it said").bytes, Some(5));
    assert_eq!(status.read_bytes, Some(7));
    let first = told(Some(Changes::Unknown { because: "it is the first snapshot".into() }));
    let (base, status) = base_after(first, "Block", BackupType::Claim);
    assert_eq!(base, Some(("data".to_owned(), true)));
    assert_eq!(
        status.changed_blocks.and_then(|told| told.unknown).as_deref(),
        Some("it is the first snapshot")
    );
    // Nobody was asked: what stayed until now goes.
    assert_eq!(base_after(told(None), "Block", BackupType::Claim).0, Some(("data".to_owned(), false)));
    let partial = result(Outcome::Partial, 3, Some(WRITTEN));
    assert_eq!(base_after(partial, "Block", BackupType::Claim).0, Some(("data".to_owned(), false)));
    assert_eq!(base_after(listed(), "Filesystem", BackupType::Claim).0, None);
    assert_eq!(base_after(listed(), "Block", BackupType::VolumeSnapshot).0, None);
    assert_eq!(base_after(result(Outcome::Failed, 13, None), "Block", BackupType::Claim).0, None);
}

#[test]
fn a_result_is_kept_before_anything_is_deleted() {
    let cases = [
        (result(Outcome::Completed, 0, Some(WRITTEN)), Phase::Completed, reason::SUCCEEDED),
        (result(Outcome::Partial, 3, Some(WRITTEN)), Phase::PartiallyCompleted, reason::PARTIAL),
        (result(Outcome::Completed, 0, None), Phase::Failed, reason::MOVER_FAILED),
        (result(Outcome::Failed, 13, None), Phase::Failed, reason::DENIED),
        (result(Outcome::Failed, 14, None), Phase::Failed, reason::CORRUPT),
    ];
    for (pod, phase, why) in cases {
        let mut done = seen(Phase::Running);
        done.pod = pod;
        let decision = next(&done);
        assert_eq!((decision.status.phase, reason_of(&decision)), (phase, why));
        assert_eq!(decision.steps, [], "{phase:?}");
        assert_eq!(decision.status.snapshot_id.is_some(), phase != Phase::Failed);
        let mut after = done;
        after.backup.status = Some(decision.status);
        assert_eq!(next(&after).steps, [Step::Sweep { base: None }]);
        after.clean = true;
        assert!(
            next(&after)
                .status
                .conditions
                .iter()
                .any(|found| found.type_ == "CleanedUp" && found.status == "True")
        );
    }
}

#[test]
fn a_mover_that_names_what_it_cannot_have_written_is_not_believed() {
    let of_another = "bfedcba9876543210-000102030405060708090a0b0c0d0e0f";
    let longer = format!("{WRITTEN}0");
    let cases = [
        (Some(LINEAGE), of_another),
        (Some(LINEAGE), longer.as_str()),
        (Some(LINEAGE), "latest"),
        (Some(LINEAGE), ""),
        (None, WRITTEN),
    ];
    for (lineage, named) in cases {
        for (outcome, code) in
            [(Outcome::Completed, 0), (Outcome::Partial, 3), (Outcome::Failed, 12), (Outcome::Cancelled, 130)]
        {
            let mut done = seen(Phase::Running);
            done.lineage = lineage.map(str::to_owned);
            done.pod = result(outcome, code, Some(named));
            let decision = next(&done);
            assert_eq!((decision.status.phase, reason_of(&decision)), (Phase::Failed, reason::MOVER_FAILED));
            assert_eq!((decision.status.snapshot_id, decision.steps), (None, vec![]), "{named} {outcome:?}");
            assert!(decision.status.message.is_some_and(|message| message.contains("taken it over")));
        }
    }
    let mut stopped = seen(Phase::Canceling);
    stopped.backup.spec.cancel = true;
    stopped.pod = result(Outcome::Completed, 0, Some(of_another));
    let status = next(&stopped).status;
    assert_eq!((status.phase, status.snapshot_id), (Phase::Failed, None));
}

#[test]
fn a_snapshot_is_remembered_before_the_end_is_told() {
    let written = SeenSnapshot { snapshot: WRITTEN.into(), started: now() };
    for (outcome, code, steps) in [
        (Outcome::Completed, 0, vec![Step::Remember(written.clone())]),
        (Outcome::Partial, 3, vec![Step::Remember(written)]),
        (Outcome::Failed, 13, vec![]),
    ] {
        let PodState::Finished { mut result, .. } = result(outcome, code, None) else {
            panic!("it is finished");
        };
        let output =
            BackupOutput { snapshot: Some(WRITTEN.into()), started: Some(now()), ..BackupOutput::default() };
        result.output = Some(Output::Backup(output));
        let mut done = seen(Phase::Running);
        done.pod = PodState::Finished { result, node: None, started: None };
        assert_eq!(next(&done).steps, steps, "{outcome:?}");
    }
}

#[test]
fn a_lost_pod_and_an_absent_store_are_tried_again_but_not_for_ever() {
    let lost = || {
        PodState::Lost(Lost {
            message: "gone with its node".into(),
            node: None,
            will_recur: false,
            needs_host_users: false,
        })
    };
    for pod in [
        lost,
        || PodState::Missing,
        || result(Outcome::Failed, 12, None),
        || result(Outcome::Cancelled, 130, None),
    ] {
        let mut again = with_snapshot(seen(Phase::Running));
        again.bundle = Some(Bundle::Ready(vec![]));
        for time in 1..=5 {
            again.pod = pod();
            let decision = next(&again);
            assert_eq!((decision.status.phase, decision.status.retries), (Phase::Preparing, Some(time)));
            again.backup.status = Some(decision.status);
            again.pod = PodState::Missing;
            assert_eq!(next(&again).steps, [Step::Expose], "it waits a little first");
            again.now += SignedDuration::from_secs(300);
            assert_eq!(next(&again).steps, [Step::Expose, Step::Start]);
            again.backup.status.as_mut().expect("a status").phase = Phase::Running;
        }
        again.pod = pod();
        assert_eq!(next(&again).status.phase, Phase::Failed);
    }
}

#[test]
fn what_would_end_the_same_way_is_tried_once_more_only() {
    let mut hungry = seen(Phase::Running);
    hungry.pod = PodState::Lost(Lost {
        message: "killed for its memory".into(),
        node: None,
        will_recur: true,
        needs_host_users: false,
    });
    let decision = next(&hungry);
    assert_eq!((decision.status.phase, decision.status.retries), (Phase::Preparing, Some(1)));
    hungry.backup.status = Some(decision.status);
    let decision = next(&hungry);
    assert_eq!(
        (decision.status.phase, decision.status.message.as_deref()),
        (Phase::Failed, Some("killed for its memory"))
    );
}

#[test]
fn cancel_stops_the_pod_first_and_is_too_late_after_a_result() {
    for phase in [Phase::Pending, Phase::Snapshotting, Phase::Preparing] {
        let mut early = seen(phase);
        early.backup.spec.cancel = true;
        assert_eq!(next(&early).status.phase, Phase::Canceled);
    }
    let mut running = seen(Phase::Running);
    running.backup.spec.cancel = true;
    running.pod = PodState::Running { node: None, since: now() };
    let decision = next(&running);
    assert_eq!(
        (decision.status.phase, decision.steps),
        (Phase::Canceling, vec![Step::Stop { at_once: false }])
    );
    running.backup.status = Some(decision.status);
    running.pod = PodState::Ending { deadline: now() };
    assert_eq!(next(&running).steps, [], "it has its time");
    running.now += SignedDuration::from_secs(31);
    assert_eq!(next(&running).steps, [Step::Stop { at_once: true }], "its node is lost");
    running.pod = result(Outcome::Completed, 0, Some(WRITTEN));
    assert_eq!(next(&running).status.phase, Phase::Completed);
    running.pod = PodState::Missing;
    assert_eq!(next(&running).status.phase, Phase::Canceled);
}

#[test]
fn a_deleted_backup_is_stopped_cleaned_up_and_then_let_go() {
    let mut gone = seen(Phase::Running);
    gone.backup.metadata.deletion_timestamp = Some(Time(now()));
    gone.pod = PodState::Running { node: None, since: now() };
    assert_eq!(next(&gone).steps, [Step::Stop { at_once: false }]);
    gone.pod = PodState::Missing;
    let decision = next(&gone);
    assert_eq!(decision.status.phase, Phase::Canceled);
    gone.backup.status = Some(decision.status);
    assert_eq!(next(&gone).steps, [Step::Sweep { base: None }]);
    gone.clean = true;
    assert_eq!(next(&gone).steps, [Step::LetGo]);
    gone.backup.spec.deletion_policy = DeletionPolicy::Delete;
    assert_eq!(next(&gone).steps, [Step::LetGo], "no snapshot was written");
    let status = gone.backup.status.as_mut().expect("a status");
    status.snapshot_id = Some("id".into());
    status.repository_id = Some("id".into());
    gone.clean = false;
    assert_eq!(next(&gone).steps, [Step::Forget], "before the sweep, which would take its pod away");
    gone.forgets = PodState::Running { node: None, since: now() };
    assert_eq!(next(&gone).steps, []);
    gone.forgets = result(Outcome::Failed, 13, None);
    assert_eq!(next(&gone).steps, [], "it is still there, and expected to be");
    gone.forgets = result(Outcome::Completed, 0, None);
    let decision = next(&gone);
    assert_eq!(decision.steps, [Step::Disregard("id".into())]);
    assert!(
        decision.status.conditions.iter().any(|found| found.type_ == "Forgotten" && found.status == "True")
    );
    gone.backup.status = Some(decision.status);
    gone.forgets = PodState::Missing;
    assert_eq!(next(&gone).steps, [Step::Sweep { base: None }], "once");
    gone.clean = true;
    assert_eq!(next(&gone).steps, [Step::LetGo]);
    gone.backup.metadata.finalizers = None;
    assert!(decide(&gone).is_none());
}

#[test]
fn an_obstacle_is_waited_for_or_ends_it() {
    let mut blocked = seen(Phase::Pending);
    blocked.origin = Err(Obstacle::passing(reason::CLAIM_NOT_FOUND, "there is no claim"));
    let decision = next(&blocked);
    assert_eq!(
        (decision.status.phase, decision.status.message.as_deref()),
        (Phase::Pending, Some("there is no claim"))
    );
    blocked.origin = Err(Obstacle::lasting(reason::NO_SNAPSHOT_CLASS, "no class"));
    let decision = next(&blocked);
    assert_eq!((decision.status.phase, reason_of(&decision)), (Phase::Failed, reason::NO_SNAPSHOT_CLASS));
    let mut lost = seen(Phase::Snapshotting);
    lost.origin = Err(Obstacle::passing(reason::CLAIM_NOT_FOUND, "the claim was deleted"));
    assert_eq!(next(&lost).status.phase, Phase::Failed, "it was there when the backup began");
}
