use carrack_controller_api::{
    ClaimRef, DataMoverRestore, DataMoverRestoreSpec, DataMoverRestoreStatus, DataMoverType,
    DataMoverTypeSpec, ExistingVolume, Location, NewVolume, RepositoryRef, RestorePhase as Phase,
    RestoreSource, annotation, finalizer, reason,
};
use carrack_proto::{JobResult, Outcome, Output, RestoreOutput};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeClaimStatus, PersistentVolumeSpec,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use super::{
    decide::{Decision, Step, decide},
    handover::{self, Next, Step as HandOver},
    observe::{Observed, Source},
};
use crate::{
    access::{Access, Resolution, SecretData},
    error::Obstacle,
    live::{Live, User},
    pod::PodState,
};

fn now() -> Timestamp {
    "2026-11-29T12:00:00Z".parse().expect("a time")
}

/// A restore into a claim that is to be made, in a phase, with nothing else there.
fn seen(phase: Phase) -> Observed {
    let spec = DataMoverRestoreSpec {
        destination_claim_ref: ClaimRef { name: "goods".into(), namespace: None },
        source: RestoreSource { snapshot_id: Some("0123456789abcdef".into()), ..RestoreSource::default() },
        new_volume: Some(NewVolume::default()),
        ..DataMoverRestoreSpec::default()
    };
    let mut restore = DataMoverRestore::new("first", spec);
    restore.metadata.namespace = Some("market".into());
    restore.metadata.finalizers = Some(vec![finalizer::CLEAN_UP.into()]);
    restore.status = Some(DataMoverRestoreStatus {
        phase,
        accepted_timestamp: Some(Time(now())),
        volume_name: (phase == Phase::Binding).then(|| "volume".into()),
        ..DataMoverRestoreStatus::default()
    });
    Observed {
        now: now(),
        restore,
        resolution: Resolution::Ready(Box::new(Access {
            mover_type: DataMoverType::new("standard", DataMoverTypeSpec::default()),
            repository: RepositoryRef::default(),
            repository_id: "id".into(),
            location: Location::default(),
            credentials: SecretData::new(),
            key: SecretData::new(),
        })),
        source: Ok(Source { volume_bytes: Some(1 << 30), ..Source::default() }),
        destination: None,
        existing: None,
        temporary: None,
        volume: None,
        pod: PodState::Missing,
        progress: None,
        slot: true,
        crowded: false,
        misplaced: false,
        clean: false,
    }
}

fn claim(name: &str, volume: Option<&str>, phase: &str) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid of {name}")),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            volume_name: volume.map(Into::into),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: Some(PersistentVolumeClaimStatus {
            phase: Some(phase.into()),
            ..PersistentVolumeClaimStatus::default()
        }),
    }
}

fn volume(kept: bool, claim: Option<(&str, Option<&str>)>) -> PersistentVolume {
    let kept = kept.then(|| [(annotation::RECLAIM_POLICY.to_owned(), "Delete".to_owned())].into());
    PersistentVolume {
        metadata: ObjectMeta { name: Some("volume".into()), annotations: kept, ..ObjectMeta::default() },
        spec: Some(PersistentVolumeSpec {
            claim_ref: claim.map(|(name, uid)| ObjectReference {
                name: Some(name.into()),
                namespace: Some("market".into()),
                uid: uid.map(Into::into),
                ..ObjectReference::default()
            }),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn next(seen: &Observed) -> Decision {
    decide(seen).expect("it is ours")
}

fn finished(outcome: Outcome) -> PodState {
    let result = JobResult {
        version: 1,
        outcome,
        exit_code: 0,
        message: String::new(),
        next: None,
        problems: 0,
        first_problems: vec![],
        output: Some(Output::Restore(RestoreOutput::default())),
    };
    PodState::Finished { result: Box::new(result), node: None, started: None }
}

#[test]
fn the_hand_over_goes_on_from_wherever_it_was_left() {
    let step = |seen: &Observed| handover::next(seen, seen.restore.status.as_ref().expect("a status"));
    let mut way = seen(Phase::Binding);
    way.pod = finished(Outcome::Completed);
    way.temporary = Some(claim("temporary", Some("volume"), "Bound"));
    way.volume = Some(volume(false, Some(("temporary", Some("uid of temporary")))));
    assert_eq!(step(&way), Next::Step(HandOver::Keep), "kept before anything that holds it goes");
    way.volume = Some(volume(true, Some(("temporary", Some("uid of temporary")))));
    assert_eq!(step(&way), Next::Step(HandOver::DropPod));
    way.pod = PodState::Missing;
    assert_eq!(step(&way), Next::Step(HandOver::DropClaim));
    way.temporary.as_mut().expect("a claim").metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(step(&way), Next::Wait);
    way.temporary = None;
    assert_eq!(step(&way), Next::Step(HandOver::Give), "given by name before there is a claim");
    way.volume = Some(volume(true, Some(("goods", None))));
    assert_eq!(step(&way), Next::Step(HandOver::MakeDestination));
    way.destination = Some(claim("goods", Some("volume"), "Pending"));
    assert_eq!(step(&way), Next::Wait);
    way.volume = Some(volume(true, Some(("goods", Some("uid of goods")))));
    way.destination = Some(claim("goods", Some("volume"), "Bound"));
    assert_eq!(step(&way), Next::Step(HandOver::Release));
    way.volume = Some(volume(false, Some(("goods", Some("uid of goods")))));
    assert_eq!(step(&way), Next::Done);
    assert_eq!(next(&way).status.phase, Phase::Completed);
}

#[test]
fn a_volume_that_cannot_be_handed_over_is_kept_and_named() {
    let mut taken = seen(Phase::Binding);
    taken.volume = Some(volume(true, Some(("goods", None))));
    taken.destination = Some(claim("goods", Some("another"), "Bound"));
    let decision = next(&taken);
    assert_eq!(
        (decision.status.phase, decision.status.volume_name.as_deref()),
        (Phase::Failed, Some("volume"))
    );
    assert!(decision.status.message.expect("a message").contains("PersistentVolume volume"));
    let mut deleted = seen(Phase::Binding);
    deleted.restore.spec.new_volume = None;
    deleted.volume = Some(volume(true, None));
    assert_eq!(next(&deleted).status.phase, Phase::Failed, "the claim was deleted while it was filled");
}

#[test]
fn a_cancel_comes_too_late_once_the_volume_is_on_its_way() {
    let mut late = seen(Phase::Binding);
    late.restore.spec.cancel = true;
    late.volume = Some(volume(false, None));
    late.temporary = Some(claim("temporary", Some("volume"), "Bound"));
    assert_eq!(next(&late).steps, [Step::HandOver(HandOver::Keep)]);
    let mut early = seen(Phase::Running);
    early.restore.spec.cancel = true;
    early.pod = PodState::Running { node: None, since: now() };
    assert_eq!(next(&early).steps, [Step::Stop { at_once: false }]);
    early.pod = PodState::Missing;
    assert_eq!(next(&early).status.phase, Phase::Canceled);
}

#[test]
fn what_failed_or_was_stopped_never_reaches_the_claim() {
    for outcome in [Outcome::Failed, Outcome::Cancelled] {
        let mut failed = seen(Phase::Running);
        failed.pod = finished(outcome);
        assert_ne!(next(&failed).status.phase, Phase::Binding, "{outcome:?}");
    }
    let mut done = seen(Phase::Running);
    done.pod = finished(Outcome::Completed);
    done.temporary = Some(claim("temporary", Some("volume"), "Bound"));
    let decision = next(&done);
    assert_eq!(
        (decision.status.phase, decision.status.volume_name.as_deref()),
        (Phase::Binding, Some("volume"))
    );
}

#[test]
fn a_destination_that_cannot_be_filled_is_refused_or_waited_for() {
    let reason = |seen: &Observed| {
        let decision = next(seen);
        let found = decision.status.conditions.first().map_or("", |found| found.reason.as_str()).to_owned();
        (decision.status.phase, found)
    };
    let mut bound = seen(Phase::Pending);
    bound.destination = Some(claim("goods", Some("other"), "Bound"));
    assert_eq!(reason(&bound), (Phase::Failed, reason::DESTINATION_IN_USE.into()));
    let mut nowhere = seen(Phase::Pending);
    nowhere.restore.spec.new_volume = None;
    assert_eq!(reason(&nowhere), (Phase::Pending, reason::CLAIM_NOT_FOUND.into()));
    let mut sizeless = seen(Phase::Pending);
    sizeless.source = Ok(Source::default());
    assert_eq!(reason(&sizeless), (Phase::Failed, reason::INVALID.into()));
    let mut stranger = seen(Phase::Pending);
    stranger.restore.spec.destination_claim_ref.namespace = Some("other".into());
    assert_eq!(reason(&stranger), (Phase::Failed, reason::INVALID.into()));
    let mut early = seen(Phase::Pending);
    early.source = Err(Obstacle::passing(reason::SOURCE_NOT_FOUND, "no snapshot yet"));
    early.now += SignedDuration::from_hours(100);
    assert_eq!(reason(&early), (Phase::Pending, reason::SOURCE_NOT_FOUND.into()));
}

#[test]
fn a_volume_that_is_there_is_written_only_when_asked_and_while_nobody_uses_it() {
    let mut bound = seen(Phase::Pending);
    bound.restore.spec.existing_volume = ExistingVolume::Merge;
    bound.destination = Some(claim("goods", Some("volume"), "Bound"));
    let user = User { pod: "web".into(), node: None };
    bound.existing = Some(Ok(Live { volume: volume(false, None), users: vec![user.clone()] }));
    let decision = next(&bound);
    assert_eq!(decision.status.phase, Phase::Pending, "it waits for web to stop");
    assert!(decision.status.message.expect("a message").contains("used by web"));

    bound.existing = Some(Ok(Live { volume: volume(false, None), users: vec![] }));
    let decision = next(&bound);
    assert_eq!((decision.steps, decision.status.phase), (vec![Step::Claim, Step::Start], Phase::Preparing));
    assert_eq!(decision.status.volume_name.as_deref(), Some("volume"));
    bound.restore.status = Some(decision.status);

    bound.pod = PodState::Running { node: None, since: now() };
    bound.temporary = Some(claim("temporary", Some("alias"), "Bound"));
    bound.existing = Some(Ok(Live { volume: volume(false, None), users: vec![user] }));
    let decision = next(&bound);
    assert!(decision.status.message.as_ref().is_some_and(|message| message.contains("not whole yet")));
    bound.restore.status = Some(decision.status);

    bound.pod = finished(Outcome::Completed);
    let decision = next(&bound);
    assert_eq!(decision.status.phase, Phase::Completed, "nothing is handed over");
    assert_eq!(decision.status.volume_name.as_deref(), Some("volume"), "and not its second name");

    bound.restore.spec.cancel = true;
    bound.pod = PodState::Missing;
    let decision = next(&bound);
    assert_eq!(decision.status.phase, Phase::Canceled);
    assert!(decision.status.message.expect("a message").contains("volume holds a part of it"));
}
