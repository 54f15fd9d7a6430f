//! Looks at a backup, with an API server in memory.

use std::{collections::BTreeMap, sync::Arc};

use carrack_controller_api::{
    BackupPhase as Phase, DataMoverBackup, DataMoverBackupStatus, annotation, finalizer, label, reason,
};
use carrack_proto::Outcome;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::Api;
use serde_json::json;

use super::{LINEAGE, WRITTEN, now, result, seen};
use crate::{
    backup::{decide::Decision, reconcile, report},
    fake::Fake,
    objects,
    pod::PodState,
    slots,
};

/// Where the API server has the backup.
const PATH: &str = "/apis/carrack.dev/v1alpha1/namespaces/market/datamoverbackups/nightly";

#[tokio::test]
async fn a_backup_is_held_and_reported_on_in_one_look_and_gives_its_slot_back_once_it_is_not_held() {
    let fake = Fake::default();
    let context = Arc::new(fake.context().await);
    let mut backup = seen(Phase::Pending).backup;
    backup.metadata.namespace = Some("market".into());
    (backup.metadata.finalizers, backup.status) = (None, None);
    fake.put(PATH, serde_json::to_value(&backup).expect("an object"));
    reconcile(Arc::new(backup.clone()), context.clone()).await.expect("no conflict with itself");
    let found = fake.get(PATH);
    assert_eq!(found["metadata"]["finalizers"][0], finalizer::CLEAN_UP);
    assert_eq!(found["status"]["conditions"][0]["reason"], reason::MOVER_TYPE_NOT_FOUND);

    backup.metadata.deletion_timestamp = Some(Time(now()));
    fake.put(PATH, serde_json::to_value(&backup).expect("an object"));
    context.slots.occupy(&slots::request(&backup), "standard");
    reconcile(Arc::new(backup), context.clone()).await.expect("looked at");
    assert_eq!(context.slots.taken(), 0, "nobody looks at it again");
}

#[tokio::test]
async fn a_volume_is_not_read_itself_while_it_is_restored_into() {
    const OWN: &str = "/api/v1/persistentvolumes/backup-mine";
    let fake = Fake::default();
    fake.put_world();
    let context = Arc::new(fake.context().await);
    let alias = |uid: &str| {
        let kind = if uid == "mine" { "datamoverbackup" } else { "datamoverrestore" };
        let labels =
            json!({ label::MANAGED_BY: label::MANAGER, label::OWNER_UID: uid, label::OWNER_KIND: kind });
        json!({ "metadata": { "name": format!("backup-{uid}"), "labels": labels,
            "annotations": { annotation::ALIAS_OF: "volume" } } })
    };
    fake.put("/api/v1/persistentvolumes/backup-theirs", alias("theirs"));
    let mut backup = seen(Phase::Pending).backup;
    backup.spec.source_claim_ref.name = "goods".into();
    (backup.metadata.namespace, backup.metadata.uid) = (Some("market".into()), Some("mine".into()));
    fake.put(PATH, serde_json::to_value(&backup).expect("an object"));
    let backup = Arc::new(backup);
    // No slot is free: who waits for the volume asks for none.
    for other in ["a", "b", "c", "d"] {
        let other = DataMoverBackup::new(other, backup.spec.clone());
        context.slots.occupy(&slots::request(&other), "standard");
    }
    let told = |fake: &Fake| fake.get(PATH)["status"]["conditions"][0]["reason"].clone();
    reconcile(backup.clone(), context.clone()).await.expect("looked at");
    assert_eq!(told(&fake), reason::SOURCE_IN_USE);

    // As if it had made its alias at the same moment.
    context.slots.forget_all();
    fake.put(OWN, alias("mine"));
    reconcile(backup, context.clone()).await.expect("looked at");
    assert_eq!((told(&fake), fake.get(OWN)), (json!(reason::SOURCE_IN_USE), json!(null)), "given back");
    assert_eq!((&fake.get(PATH)["status"]["phase"], context.slots.taken()), (&json!("Pending"), 0));
}

#[tokio::test]
async fn the_slot_of_a_backup_is_free_when_its_end_is_written_and_not_before() {
    let fake = Fake::default();
    let context = Arc::new(fake.context().await);
    let api: Api<DataMoverBackup> = Api::namespaced(context.client.clone(), "market");
    let mut backup = seen(Phase::Running).backup;
    backup.metadata.namespace = Some("market".into());
    let put = || fake.put(PATH, serde_json::to_value(&backup).expect("an object"));
    let find = || async { objects::find(&api, "nightly").await.expect("an answer").expect("a backup") };
    context.slots.occupy(&slots::request(&backup), "standard");
    put();
    let stale = find().await;
    put();
    let status = DataMoverBackupStatus { phase: Phase::Completed, ..DataMoverBackupStatus::default() };
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

#[tokio::test]
async fn a_mover_is_believed_what_the_keys_beside_its_pod_can_write() {
    const POD: &str = "/api/v1/namespaces/carrack/pods/backup-mine-0";
    const FILES: &str = "/api/v1/namespaces/carrack/secrets/backup-mine-0-job";
    let keys = ByteString(json!({ "lineage": LINEAGE }).to_string().into_bytes());
    let files =
        Secret { data: Some(BTreeMap::from([("bundle.json".to_owned(), keys)])), ..Secret::default() };
    let of_another = WRITTEN.replace(LINEAGE, "fedcba9876543210");
    for (named, has_files, phase) in
        [(WRITTEN, true, "Completed"), (of_another.as_str(), true, "Failed"), (WRITTEN, false, "Failed")]
    {
        let fake = Fake::default();
        fake.put_world();
        let context = Arc::new(fake.context().await);
        let mut backup = seen(Phase::Running).backup;
        (backup.metadata.namespace, backup.metadata.uid) = (Some("market".into()), Some("mine".into()));
        fake.put(PATH, serde_json::to_value(&backup).expect("an object"));
        let PodState::Finished { result, .. } = result(Outcome::Completed, 0, Some(named)) else {
            panic!("it is finished");
        };
        let ended = json!({ "exitCode": 0, "message": result.to_message() });
        let container = json!({ "name": "mover", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "terminated": ended } });
        fake.put(
            POD,
            json!({ "metadata": { "name": "backup-mine-0", "namespace": "carrack" },
                "status": { "phase": "Succeeded", "containerStatuses": [container] } }),
        );
        if has_files {
            fake.put(FILES, serde_json::to_value(&files).expect("an object"));
        }
        reconcile(Arc::new(backup), context).await.expect("looked at");
        let status = fake.get(PATH)["status"].clone();
        let snapshot = if phase == "Completed" { json!(WRITTEN) } else { json!(null) };
        assert_eq!((&status["phase"], &status["snapshotID"]), (&json!(phase), &snapshot), "{named}");
    }
}
