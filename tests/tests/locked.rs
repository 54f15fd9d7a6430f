//! A bucket with object lock in compliance mode, from `init` to the last byte that is freed. Nobody, the owner of the
//! service included, frees an object before its retention ends; so `prune` waits for that, and says what it waits for.
//!
//! The least default retention of a bucket is a day. So the bucket has none, and the test gives each pack one that ends
//! some seconds later, as a default of days would have done at its upload.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime};

use aws_sdk_s3::{
    primitives::DateTime,
    types::{ChecksumMode, ObjectLockRetention, ObjectLockRetentionMode},
};
use carrack_tests::{bucket::Bucket, stage::Stage};

const BUCKET: &str = "locked";

fn lock(bucket: &Bucket, name: &str, until: SystemTime) {
    let retention = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Compliance)
        .retain_until_date(DateTime::from(until))
        .build();
    let put =
        bucket.client().put_object_retention().bucket(BUCKET).key(bucket.key(name)).retention(retention);
    bucket.run(put.send()).unwrap();
}

/// Bytes of packs that the bucket keeps in all versions.
fn kept_bytes(bucket: &Bucket) -> i64 {
    let list = bucket.client().list_object_versions().bucket(BUCKET).prefix(bucket.key("packs/"));
    let listed = bucket.run(list.send()).unwrap();
    listed.versions().iter().filter_map(|version| version.size()).sum()
}

#[test]
fn a_locked_bucket_goes_through_the_whole_life_cycle() {
    let mut stage = Stage::empty(BUCKET, |bucket| {
        let make = bucket.client().create_bucket().bucket(BUCKET).object_lock_enabled_for_bucket(true);
        bucket.run(make.send())?;
        Ok(())
    })
    .unwrap();
    stage.change("db1", 1).unwrap();
    let source = stage.source("db1").display().to_string();
    let backup = ["backup", "--json", "--host", "db1", "--upload-checksum", &source];
    let printed = stage.run(&backup, 0);
    let first = printed.message("summary")["session"].as_str().unwrap().to_owned();
    // What a bucket with a default retention demands at AWS: each object came with its checksum.
    for name in stage.owner.names("sessions/").unwrap().iter().chain(&stage.owner.names("packs/").unwrap()) {
        let head = stage.owner.client().head_object().bucket(BUCKET).key(stage.owner.key(name));
        let head = stage.owner.run(head.checksum_mode(ChecksumMode::Enabled).send()).unwrap();
        assert!(head.checksum_crc32_c().is_some(), "{name} came without a checksum");
    }
    let packs = stage.owner.names("packs/").unwrap();
    stage.change("db1", 2).unwrap();
    std::fs::remove_file(stage.source("db1").join("deep/random 1")).unwrap();
    stage.backup("db1").unwrap();
    stage.all_come_back().unwrap();
    stage.run(&["forget", &first], 0);
    let bytes = kept_bytes(&stage.owner);
    let until = SystemTime::now() + Duration::from_secs(30);
    packs.iter().for_each(|pack| lock(&stage.owner, pack, until));

    // Nobody frees it now, and prune does not try: it names what is held, and until when.
    let waiting = stage.run(&["prune", "--json", "--max-unused", "unlimited"], 0);
    let plan = waiting.message("prune_plan");
    let held: Vec<&str> =
        plan["locked"].as_array().unwrap().iter().map(|pack| pack.as_str().unwrap()).collect();
    assert!(!held.is_empty() && plan["locked_until"].is_string(), "{plan}");
    assert!(held.iter().all(|held| packs.iter().any(|pack| pack.ends_with(held))), "{held:?} of {packs:?}");
    let text = stage.run(&["prune", "--max-unused", "unlimited"], 0).out;
    assert!(text.contains("locked") && text.contains(held[0]), "{text}");
    assert!(packs.iter().all(|pack| stage.owner.get(pack).is_ok()), "a pack that is held is hidden");
    assert_eq!(kept_bytes(&stage.owner), bytes);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();

    while SystemTime::now() <= until {
        std::thread::sleep(Duration::from_millis(200));
    }
    let freed = stage.run(&["prune", "--json", "--max-unused", "unlimited"], 0);
    assert!(freed.message("prune_plan")["locked"].as_array().unwrap().is_empty());
    assert!(kept_bytes(&stage.owner) < bytes, "the bytes of the versions are still there");
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

/// Somebody who may put may put over: in a bucket with versions, that hides an object and loses nothing.
#[test]
fn what_was_put_over_is_named_and_its_version_brings_it_back() {
    let mut stage = Stage::empty(BUCKET, |bucket| {
        let make = bucket.client().create_bucket().bucket(BUCKET).object_lock_enabled_for_bucket(true);
        bucket.run(make.send())?;
        Ok(())
    })
    .unwrap();
    stage.change("db1", 1).unwrap();
    let session = stage.backup("db1").unwrap();
    let pack = stage.owner.names("packs/").unwrap().remove(0);
    for name in [format!("snapshots/{session}"), pack] {
        stage.owner.put(&name, b"overwritten").unwrap();
        let checked = stage.run(&["check", "--read-data"], 14);
        assert!(checked.out.contains(&name), "{}", checked.out);
        let list = stage.owner.client().list_object_versions().bucket(BUCKET).prefix(stage.owner.key(&name));
        let versions = stage.owner.run(list.send()).unwrap();
        let latest = versions.versions().iter().find(|version| version.is_latest() == Some(true)).unwrap();
        let delete = stage.owner.client().delete_object().bucket(BUCKET).key(stage.owner.key(&name));
        stage.owner.run(delete.version_id(latest.version_id().unwrap()).send()).unwrap();
        stage.run(&["check", "--read-data"], 0);
        stage.all_come_back().unwrap();
    }
}
