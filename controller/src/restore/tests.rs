use std::sync::Arc;

use carrack_controller_api::{
    ClaimRef, DataMoverRestore, DataMoverRestoreSpec, DataMoverRestoreStatus, DataMoverType,
    DataMoverTypeSpec, ExistingVolume, Location, NewVolume, RepositoryRef, RestorePhase as Phase,
    RestoreSource, annotation, finalizer, reason,
};
use carrack_proto::{JobResult, Outcome, Output, RestoreOutput};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeClaimStatus, PersistentVolumeSpec, PersistentVolumeStatus,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, runtime::controller::Action};
use serde_json::json;

use super::{
    apply::temporary_claim,
    controller,
    decide::{Decision, Step, decide},
    failed,
    handover::{self, Next, Step as HandOver},
    observe::{Observed, Source},
    reconcile, report,
};
use crate::{
    access::{Access, Resolution, SecretData},
    error::{Error, Obstacle},
    fake::Fake,
    live::{Live, User},
    objects,
    pod::{Owner, PodState},
    retry, slots,
};

/// Where the API server has the restore.
const PATH: &str = "/apis/carrack.dev/v1alpha1/namespaces/market/datamoverrestores/first";

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
        contested: None,
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
fn a_restore_is_stopped_until_its_claim_has_the_volume() {
    let mut early = seen(Phase::Running);
    early.restore.spec.cancel = true;
    early.pod = PodState::Running { node: None, since: now() };
    assert_eq!(next(&early).steps, [Step::Stop { at_once: false }]);
    early.pod = PodState::Missing;
    assert_eq!(next(&early).status.phase, Phase::Canceled);

    let mut full = seen(Phase::Binding);
    full.restore.spec.cancel = true;
    full.pod = finished(Outcome::Completed);
    full.temporary = Some(claim("temporary", Some("volume"), "Bound"));
    full.volume = Some(volume(true, Some(("temporary", Some("uid of temporary")))));
    let decision = next(&full);
    assert_eq!(
        (decision.status.phase, decision.status.volume_name),
        (Phase::Canceled, None),
        "nothing stays"
    );

    let in_phase = |phase: &str| {
        let mut given = volume(true, Some(("goods", Some("uid of goods"))));
        given.status = Some(PersistentVolumeStatus { phase: Some(phase.into()), ..Default::default() });
        given
    };
    let mut late = seen(Phase::Binding);
    late.restore.spec.cancel = true;
    late.destination = Some(claim("goods", None, "Pending"));
    late.volume = Some(in_phase("Released"));
    assert_eq!(next(&late).steps, [Step::HandOver(HandOver::TakeBack)], "the claim does not bind");
    late.volume = Some(in_phase("Bound"));
    let decision = next(&late);
    assert_eq!((decision.steps, decision.status.phase), (vec![], Phase::Binding), "it is about to arrive");
    late.destination = Some(claim("goods", Some("volume"), "Bound"));
    assert_eq!(next(&late).steps, [Step::HandOver(HandOver::Release)], "it has arrived");
}

#[test]
fn a_restore_whose_claim_is_refused_can_be_stopped_and_deleted() {
    for deleted in [false, true] {
        let mut refused = seen(Phase::Binding);
        refused.volume = Some(volume(true, Some(("goods", None))));
        refused.volume.as_mut().expect("a volume").metadata.resource_version = Some("7".into());
        assert_eq!(next(&refused).steps, [Step::HandOver(HandOver::MakeDestination)], "tried until then");
        refused.restore.spec.cancel = !deleted;
        refused.restore.metadata.deletion_timestamp = deleted.then(|| Time(now()));
        let decision = next(&refused);
        assert_eq!(decision.steps, [Step::HandOver(HandOver::TakeBack)], "no claim may get it from here on");
        let owner = Owner { uid: "uid of the restore".into(), ..Owner::of(&refused.restore) };
        let patch = handover::taken_back(&owner, "carrack", refused.volume.as_ref().expect("a volume"));
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "unless a claim got it meanwhile");
        let spec = serde_json::from_value(patch["spec"].clone()).expect("a part of a volume");
        refused.volume.as_mut().expect("a volume").spec = Some(spec);
        let decision = next(&refused);
        assert_eq!((decision.status.phase, &decision.status.volume_name), (Phase::Canceled, &None));
        refused.restore.status = Some(decision.status);
        assert_eq!(next(&refused).steps, [Step::Sweep]);
    }
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
    let mut away = bound.clone();
    away.existing = Some(Err(Obstacle::passing(reason::CLAIM_NOT_FOUND, "it was made anew")));
    let decision = next(&away);
    assert_eq!(decision.status.phase, Phase::Failed, "the claim does not hold it");
    let message = decision.status.message.expect("a message");
    assert!(
        message.contains("no longer that of the claim") && !message.contains("a part of it"),
        "{message}"
    );
    let decision = next(&bound);
    assert_eq!(decision.status.phase, Phase::Completed, "nothing is handed over");
    assert_eq!(decision.status.volume_name.as_deref(), Some("volume"), "and not its second name");

    bound.restore.spec.cancel = true;
    bound.pod = PodState::Missing;
    let decision = next(&bound);
    assert_eq!(decision.status.phase, Phase::Canceled);
    assert!(decision.status.message.expect("a message").contains("volume holds a part of it"));
}

#[test]
fn the_temporary_volume_is_one_that_the_claim_can_bind_to() {
    let mut waiting = seen(Phase::Preparing);
    let mut destination = claim("goods", None, "Pending");
    let wanted = destination.spec.as_mut().expect("a spec");
    wanted.storage_class_name = Some("fast".into());
    wanted.volume_attributes_class_name = Some("gold".into());
    waiting.destination = Some(destination);
    let owner = Owner::of(&waiting.restore);
    let made = temporary_claim(&owner, "carrack", &waiting).spec.expect("a spec");
    assert_eq!(made.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(made.volume_attributes_class_name.as_deref(), Some("gold"), "or the two never bind");
}

#[tokio::test]
async fn a_restore_is_held_and_reported_on_in_one_look() {
    let fake = Fake::default();
    let mut restore = seen(Phase::Pending).restore;
    (restore.metadata.finalizers, restore.status) = (None, None);
    fake.put(PATH, serde_json::to_value(&restore).expect("an object"));
    let context = Arc::new(fake.context().await);
    reconcile(Arc::new(restore), context).await.expect("no conflict with itself");
    let found = fake.get(PATH);
    assert_eq!(found["metadata"]["finalizers"][0], finalizer::CLEAN_UP);
    assert_eq!(found["status"]["conditions"][0]["reason"], reason::MOVER_TYPE_NOT_FOUND);
}

#[tokio::test]
async fn a_restore_whose_finalizer_was_taken_off_gives_its_slot_back() {
    let fake = Fake::default();
    let mut restore = seen(Phase::Running).restore;
    restore.metadata.finalizers = Some(vec!["example.com/theirs".into()]);
    restore.metadata.deletion_timestamp = Some(Time(now()));
    fake.put(PATH, serde_json::to_value(&restore).expect("an object"));
    let context = Arc::new(fake.context().await);
    context.slots.occupy(&slots::request(&restore), "standard");
    reconcile(Arc::new(restore), context.clone()).await.expect("looked at");
    assert_eq!(context.slots.taken(), 0, "nobody looks at it again");
}

#[tokio::test]
async fn two_restores_into_one_volume_follow_each_other() {
    let fake = Fake::default();
    fake.put_world();
    let context = Arc::new(fake.context().await);
    let [first, second] = ["first", "second"].map(|name| {
        let mut restore = seen(Phase::Pending).restore;
        restore.spec.existing_volume = ExistingVolume::Replace;
        restore.metadata.name = Some(name.into());
        restore.metadata.uid = Some(format!("uid-{name}"));
        fake.put(&PATH.replace("first", name), serde_json::to_value(&restore).expect("an object"));
        Arc::new(restore)
    });
    let status = |name: &str| fake.get(&PATH.replace("first", name))["status"].clone();
    let pods = |name: &str| fake.get(&format!("/api/v1/namespaces/carrack/pods/restore-uid-{name}-0"));
    for look in ["at the same moment", "later"] {
        let both = tokio::join!(
            reconcile(first.clone(), context.clone()),
            reconcile(second.clone(), context.clone())
        );
        assert!(both.0.is_ok() && both.1.is_ok(), "{look}");
        assert_eq!(status("first")["phase"], "Preparing", "{look}");
        assert!(pods("first").is_object() && pods("second").is_null(), "one mover, {look}");
        let waiting = status("second");
        assert_eq!(waiting["phase"], "Pending", "{look}");
        assert_eq!(waiting["conditions"][0]["reason"], reason::DESTINATION_IN_USE, "{look}");
        assert_eq!(context.slots.taken(), 1, "who waits has no slot, {look}");
    }
    for other in ["a", "b", "c"] {
        context
            .slots
            .occupy(&slots::request(&DataMoverType::new(other, DataMoverTypeSpec::default())), "standard");
    }
    reconcile(second, context).await.expect("looked at");
    assert_eq!(
        status("second")["conditions"][0]["reason"],
        reason::DESTINATION_IN_USE,
        "it asks for no slot"
    );
}

#[tokio::test]
async fn a_restore_that_vanished_gives_its_slot_back() {
    let fake = Fake::default();
    let owner = Owner::of(&seen(Phase::Running).restore);
    let pod =
        json!({ "name": "restore-uid-0", "labels": owner.labels(), "annotations": owner.annotations() });
    fake.put("/api/v1/namespaces/carrack/pods/restore-uid-0", json!({ "metadata": pod }));
    let context = fake.context().await;
    context.slots.occupy(&slots::request(&seen(Phase::Running).restore), "standard");
    let missed = async {
        let looks = controller(&context);
        tokio::pin!(looks);
        while context.slots.taken() > 0 {
            looks.next().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    assert!(tokio::time::timeout(limit, missed).await.is_ok(), "its pod is seen, and no restore");
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_looked_at_again_soon() {
    let context = Arc::new(Fake::default().context().await);
    let status = kube::core::Status { code: 409, ..kube::core::Status::default() };
    let conflict =
        Error::api("DataMoverRestore first cannot be reported on")(kube::Error::Api(status.into()));
    let again = |error| failed(Arc::new(seen(Phase::Running).restore), error, context.clone());
    assert_eq!(again(&conflict), Action::requeue(retry::SOON));
    assert_ne!(again(&Error::Unexpected("ill".into())), Action::requeue(retry::SOON));
}

#[tokio::test]
async fn the_slot_of_a_restore_is_free_when_its_end_is_written_and_not_before() {
    let fake = Fake::default();
    let context = Arc::new(fake.context().await);
    let api: Api<DataMoverRestore> = Api::namespaced(context.client.clone(), "market");
    let restore = seen(Phase::Running).restore;
    let put = || fake.put(PATH, serde_json::to_value(&restore).expect("an object"));
    let find = || async { objects::find(&api, "first").await.expect("an answer").expect("a restore") };
    context.slots.occupy(&slots::request(&restore), "standard");
    put();
    let stale = find().await;
    put();
    let status = DataMoverRestoreStatus { phase: Phase::Completed, ..DataMoverRestoreStatus::default() };
    let ended = Decision { status, ..Decision::default() };
    let refused = report(&context, &api, &stale, &ended).await;
    assert!(refused.is_err_and(|error| error.is_conflict()), "somebody wrote meanwhile");
    assert_eq!(context.slots.taken(), 1, "it is at work, as far as others know");
    report(&context, &api, &find().await, &ended).await.expect("it is written");
    assert_eq!(context.slots.taken(), 0);

    // As if the answer had been lost; what is left of it may still be in the way.
    context.slots.occupy(&slots::request(&stale), "standard");
    reconcile(Arc::new(stale), context.clone()).await.ok();
    assert_eq!(context.slots.taken(), 0);
}
