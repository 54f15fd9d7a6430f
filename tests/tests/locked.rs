//! A bucket with object lock in compliance mode, through a whole life: backups, keys, copies out and in, forgetting, and
//! freeing what is moved or needed no more. Nobody, the owner of the service included, frees a version of an object
//! before its retention ends; so `prune` waits for that, and says what it waits for.
//!
//! The least default retention of a bucket is a day, which no test waits for. So one test has that, and goes up to the
//! last lock; the other has none, gives each object a retention of some seconds, and goes on after its end.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant, SystemTime},
};

use aws_sdk_s3::{
    error::ProvideErrorMetadata as _,
    primitives::DateTime,
    types::{
        ChecksumMode, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockMode,
        ObjectLockRetention, ObjectLockRetentionMode, ObjectLockRule,
    },
};
use carrack_tests::{
    bucket::Bucket,
    program::{Printed, ended},
    stage::Stage,
    trees::{noise, rsync_differences},
};

const BUCKET: &str = "locked";
/// The least retention that each object gets, again and again.
const RETENTION: Duration = Duration::from_secs(45);

fn make(bucket: &Bucket) -> anyhow::Result<()> {
    let make = bucket.client().create_bucket().bucket(BUCKET).object_lock_enabled_for_bucket(true);
    bucket.run(make.send())?;
    Ok(())
}

/// The same, and everything that comes into it is locked for a day.
fn make_with_default(bucket: &Bucket) -> anyhow::Result<()> {
    make(bucket)?;
    let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Compliance).days(1).build();
    let rule = ObjectLockRule::builder().default_retention(retention).build();
    let configuration =
        ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled).rule(rule).build();
    let put = bucket.client().put_object_lock_configuration().bucket(BUCKET);
    bucket.run(put.object_lock_configuration(configuration).send())?;
    Ok(())
}

/// Locks every object that is there, for so long from now on; gives when that ends.
fn lock_all(bucket: &Bucket, time: Duration) -> SystemTime {
    let until = SystemTime::now() + time;
    let retention = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Compliance)
        .retain_until_date(DateTime::from(until))
        .build();
    for name in bucket.names("").unwrap() {
        let put = bucket.client().put_object_retention().bucket(BUCKET).key(bucket.key(&name));
        bucket.run(put.retention(retention.clone()).send()).unwrap();
    }
    until
}

/// Versions of objects whose names begin so: key, version and bytes.
fn versions(bucket: &Bucket, start: &str) -> BTreeSet<(String, String, i64)> {
    let list = bucket.client().list_object_versions().bucket(BUCKET).prefix(bucket.key(start));
    let listed = bucket.run(list.send()).unwrap();
    assert_ne!(listed.is_truncated(), Some(true), "more versions than one page of a listing has");
    let row = |version: &aws_sdk_s3::types::ObjectVersion| {
        let (key, id) = (version.key().unwrap(), version.version_id().unwrap());
        (key.to_owned(), id.to_owned(), version.size().unwrap())
    };
    listed.versions().iter().map(row).collect()
}

/// Bytes of packs that the bucket keeps in all versions.
fn kept_bytes(bucket: &Bucket) -> i64 {
    versions(bucket, "packs/").iter().map(|(_, _, bytes)| bytes).sum()
}

/// The other repository of the stage, in a directory and with another password.
fn beside(stage: &Stage, arguments: &[&str], code: i32) -> Printed {
    let mut command = stage.command(arguments);
    command.env("CARRACK_REPOSITORY", stage.path("beside")).env("CARRACK_PASSWORD", "another");
    ended(command.env("CARRACK_FROM_PASSWORD", "correct"), code)
}

/// Everything but forgetting; after each step `lock` locks what came. Gives the snapshot to forget: of one of its
/// packs a part is needed later on, and other packs are needed by nobody else.
fn live(stage: &mut Stage, lock: &dyn Fn(&Bucket)) -> String {
    lock(&stage.owner);
    stage.change("db1", 1).unwrap();
    // Frames of a megabyte that go, in one pack with one that stays.
    fs::write(stage.source("db1").join("goes"), noise(100, 3_000_000)).unwrap();
    fs::write(stage.source("db1").join("stays"), noise(101, 200_000)).unwrap();
    let first = stage.backup("db1").unwrap();
    lock(&stage.owner);
    stage.change("db1", 2).unwrap();
    fs::remove_file(stage.source("db1").join("goes")).unwrap();
    stage.backup("db1").unwrap();
    lock(&stage.owner);

    // Keys come, and others go.
    let file = stage.path("second");
    fs::write(&file, "second\n").unwrap();
    let add = ["key", "add", "--json", "--new-password-file", file.to_str().unwrap()];
    stage.run(&add, 0);
    lock(&stage.owner);
    let with_second = |stage: &Stage, code: i32| {
        ended(stage.command(&["snapshots"]).env("CARRACK_PASSWORD", "second"), code);
    };
    with_second(stage, 0);
    stage.run(&["key", "rotate"], 0);
    lock(&stage.owner);
    with_second(stage, 13);
    let added = stage.run(&add, 0).message("summary")["key"].as_str().unwrap().to_owned();
    lock(&stage.owner);
    with_second(stage, 0);
    stage.run(&["key", "remove", &added], 0);
    with_second(stage, 13);
    stage.all_come_back().unwrap();

    // Out of it, with the keys of both generations.
    stage.change("db1", 3).unwrap();
    stage.backup("db1").unwrap();
    lock(&stage.owner);
    beside(stage, &["init"], 0);
    let copied = beside(stage, &["copy", "--json", "--from-repo", &stage.repository()], 0);
    assert_eq!(copied.message("summary")["copied"], 3, "{}", copied.out);
    beside(stage, &["check", "--read-data"], 0);
    let target = stage.path("from the copy");
    beside(stage, &["restore", "latest", "--target", target.to_str().unwrap()], 0);
    let source = stage.source("db1");
    let restored = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(rsync_differences(&source, &restored, &[]).unwrap(), "");

    // And into it.
    stage.change("elsewhere", 4).unwrap();
    let elsewhere = stage.source("elsewhere").display().to_string();
    beside(stage, &["backup", "--host", "elsewhere", &elsewhere], 0);
    let from = stage.path("beside").display().to_string();
    let mut command = stage.command(&["copy", "--json", "--host", "elsewhere", "--from-repo", &from]);
    let copied = ended(command.env("CARRACK_FROM_PASSWORD", "another"), 0);
    lock(&stage.owner);
    stage.keep(copied.message("copied")["session"].as_str().unwrap(), "elsewhere").unwrap();
    stage.all_come_back().unwrap();
    first
}

/// The packs of a plan by this name.
fn packs<'p>(plan: &'p serde_json::Value, field: &str) -> Vec<&'p str> {
    plan[field].as_array().unwrap().iter().map(|pack| pack.as_str().unwrap()).collect()
}

#[test]
fn a_bucket_that_locks_everything_for_a_day_goes_through_the_whole_life() {
    let mut stage = Stage::empty(BUCKET, make_with_default).unwrap();
    let first = live(&mut stage, &|_| {});
    let is_locked = |stage: &Stage| {
        for (key, version, _) in versions(&stage.owner, "") {
            let head = stage.owner.client().head_object().bucket(BUCKET).key(&key).version_id(&version);
            let head = stage.owner.run(head.send()).unwrap();
            assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance), "{key}");
            let delete = stage.owner.client().delete_object().bucket(BUCKET).key(&key).version_id(version);
            let refused = stage.owner.run(delete.send()).unwrap_err();
            assert!(refused.code().is_some(), "{key}: {refused:?}");
        }
    };
    is_locked(&stage);

    let before = versions(&stage.owner, "");
    let planned = stage.run(&["prune", "--json", "--max-unused", "0", "--dry-run"], 0);
    assert_eq!(packs(&planned.message("prune_plan"), "locked"), [""; 0], "everything is needed");
    stage.run(&["forget", &first], 0);
    stage.give_up(&first);
    for _ in 0..2 {
        let waiting = stage.run(&["prune", "--json", "--max-unused", "0"], 0);
        let (plan, summary) = (waiting.message("prune_plan"), waiting.message("summary"));
        assert!(packs(&plan, "locked").len() >= 2 && plan["locked_until"].is_string(), "{plan}");
        assert_eq!((packs(&plan, "delete"), packs(&plan, "repack")), (vec![], vec![]), "{plan}");
        assert_eq!((&summary["deleted"], &summary["repack"]["frames"]), (&0.into(), &0.into()), "{summary}");
        stage.run(&["check", "--read-data"], 0);
        stage.all_come_back().unwrap();
    }
    assert!(versions(&stage.owner, "").is_superset(&before), "a version was freed");
    is_locked(&stage);
}

#[test]
fn what_a_lock_has_held_is_freed_and_moved_once_the_retention_has_ended() {
    let mut stage = Stage::empty(BUCKET, make).unwrap();
    let first = live(&mut stage, &|bucket| {
        lock_all(bucket, RETENTION);
    });
    let begun = Instant::now();
    stage.run(&["forget", &first], 0);
    stage.give_up(&first);
    let (bytes, before) = (kept_bytes(&stage.owner), stage.owner.names("packs/").unwrap());
    lock_all(&stage.owner, RETENTION);
    // What is done under it takes a few times as long as this did, however slow this machine is.
    let until = lock_all(&stage.owner, RETENTION.max(10 * begun.elapsed()));

    // Nobody frees it now, and prune does not try: it names what is held, and until when.
    let waiting = stage.run(&["prune", "--json", "--max-unused", "0"], 0);
    let plan = waiting.message("prune_plan");
    let held: Vec<String> = packs(&plan, "locked").into_iter().map(str::to_owned).collect();
    assert!(held.len() >= 2 && plan["locked_until"].is_string(), "{plan}");
    assert!(held.iter().all(|held| before.iter().any(|pack| pack.ends_with(held))), "{held:?} of {before:?}");
    assert_eq!((packs(&plan, "delete"), packs(&plan, "repack")), (vec![], vec![]), "{plan}");
    let text = stage.run(&["prune", "--max-unused", "0"], 0).out;
    assert!(text.contains("locked") && text.contains(&held[0]), "{text}");
    assert!(SystemTime::now() < until, "the lock has ended meanwhile");
    assert!(before.iter().all(|pack| stage.owner.get(pack).is_ok()), "a pack that is held is hidden");
    assert_eq!(kept_bytes(&stage.owner), bytes);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();

    while SystemTime::now() <= until {
        std::thread::sleep(Duration::from_millis(200));
    }
    let freed = stage.run(&["prune", "--json", "--max-unused", "0"], 0);
    let (plan, summary) = (freed.message("prune_plan"), freed.message("summary"));
    assert_eq!(packs(&plan, "locked"), [""; 0], "{plan}");
    let (deleted, moved) = (packs(&plan, "delete"), packs(&plan, "repack"));
    assert!(!deleted.is_empty() && !moved.is_empty(), "{plan}");
    assert!(summary["repack"]["frames"].as_u64() > Some(0), "{summary}");
    let mut planned: Vec<&str> = deleted.into_iter().chain(moved).collect();
    planned.sort_unstable();
    assert_eq!(planned, held, "what was held is what goes, and nothing else");
    assert!(kept_bytes(&stage.owner) < bytes, "the bytes of the versions are still there");
    // To the last byte: nothing is left of a pack but that it was deleted.
    let there: BTreeSet<String> =
        stage.owner.names("packs/").unwrap().iter().map(|name| stage.owner.key(name)).collect();
    let kept: BTreeSet<String> =
        versions(&stage.owner, "packs/").into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(kept, there);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

/// What a bucket with a default retention demands at AWS.
#[test]
fn each_object_comes_with_its_checksum_where_that_is_asked_for() {
    let stage = Stage::empty(BUCKET, make).unwrap();
    stage.change("db1", 1).unwrap();
    let source = stage.source("db1").display().to_string();
    stage.run(&["backup", "--host", "db1", "--upload-checksum", &source], 0);
    let folders = ["sessions/", "packs/", "index/", "snapshots/"];
    let names: Vec<String> = folders.iter().flat_map(|folder| stage.owner.names(folder).unwrap()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let head = stage.owner.client().head_object().bucket(BUCKET).key(stage.owner.key(&name));
        let head = stage.owner.run(head.checksum_mode(ChecksumMode::Enabled).send()).unwrap();
        assert!(head.checksum_crc32_c().is_some(), "{name} came without a checksum");
    }
}

/// Somebody who may put may put over: in a bucket with versions, that hides an object and loses nothing.
#[test]
fn what_was_put_over_is_named_and_its_version_brings_it_back() {
    let mut stage = Stage::empty(BUCKET, make).unwrap();
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
