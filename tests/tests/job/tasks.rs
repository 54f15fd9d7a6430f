//! What each task does.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

use carrack_proto::{JobResult, MaintainTask, Outcome, Output, Progress, Task};
use carrack_tests::{
    minio::MinioServer,
    program::{Running, ended, wait},
    trees::{noise, rsync_differences, set_mtime, set_xattr},
};

use crate::place::{HOST, Place, a_moment, directory, keep_last, of, session, to};

/// A volume with attributes of its own at the top.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).expect("makes");
    for (name, bytes) in [("file", 300_000), ("deep/other", 10), ("deep/er/data", 70_000)] {
        fs::write(root.join(name), noise(bytes as u64, bytes)).expect("writes");
    }
    std::os::unix::fs::symlink("file", root.join("link")).expect("links");
    fs::hard_link(root.join("file"), root.join("deep/same")).expect("links");
    fs::set_permissions(root, fs::Permissions::from_mode(0o2751)).expect("sets");
    if rustix::process::getuid().is_root() {
        chown(root.join("file"), Some(1234), Some(99)).expect("gives away");
        chown(root, Some(4321), Some(77)).expect("gives away");
        fs::set_permissions(root, fs::Permissions::from_mode(0o2751)).expect("sets");
        set_xattr(root, "user.of-the-volume", b"kept").expect("sets");
    }
    set_mtime(&root.join("deep"), 1_600_000_000, 5).expect("sets");
    set_mtime(root, 1_500_000_000, 123_456_789).expect("sets");
}

fn look(path: &Path) -> (u32, u32, u32, i64, i64) {
    let found = fs::metadata(path).expect("it is there");
    (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec())
}

fn assert_same(left: &Path, right: &Path) {
    assert_eq!(rsync_differences(left, right, &[]).expect("rsync runs"), "");
    assert_eq!(look(left), look(right));
}

fn restored(told: &JobResult) -> carrack_proto::RestoreOutput {
    match &told.output {
        Some(Output::Restore(done)) => done.clone(),
        other => panic!("no restore: {other:?}"),
    }
}

/// From nothing to a volume that came back, as the controller goes about it.
fn whole_life(place: &Place) {
    let none = place.run(Task::Connect { initialise: false }, 10);
    assert_eq!((none.outcome, none.output), (Outcome::Failed, None));
    let Some(Output::Connect(made)) = place.run(Task::Connect { initialise: true }, 0).output else {
        panic!("no id")
    };
    assert!(made.initialised && made.id.len() == 32, "{made:?}");
    for initialise in [true, false] {
        let Some(Output::Connect(there)) = place.run(Task::Connect { initialise }, 0).output else {
            panic!("no id")
        };
        assert_eq!((there.id, there.initialised), (made.id.clone(), false));
    }
    fill(&place.path("data"));
    let bundle = place.bundle(place.source());
    let (first, one) = place.backup(bundle.clone(), 0);
    assert_eq!((first.outcome, first.message.as_str(), first.problems), (Outcome::Completed, "", 0));
    let Some(Output::Backup(counts)) = first.output else { panic!("no counts") };
    // One of them has two names.
    assert_eq!((counts.files, counts.logical_bytes, counts.added_bytes), (4, 670_010, 370_010), "{counts:?}");
    assert!(counts.read_bytes >= 370_010 && counts.stored_bytes >= 300_000, "{counts:?}");

    fs::create_dir(place.path("target")).expect("makes");
    let told = place.run(Task::Restore(to(directory(&place.path("target")))), 0);
    let done = restored(&told);
    assert_eq!((done.snapshot, done.files, done.verified_files), (one.clone(), 4, 4), "{told:?}");
    assert!(done.fetched_bytes > 0 && done.bytes >= 370_010);
    assert_same(&place.path("data"), &place.path("target"));
    // Who has only the bundle brings nothing back.
    let stolen = place.run_with(bundle.clone(), Task::Restore(to(directory(&place.path("target")))), 13);
    assert_eq!(stolen.outcome, Outcome::Failed);

    fs::write(place.path("data/file"), noise(7, 200_000)).expect("writes");
    let (second, two) = place.backup(bundle, 0);
    let Some(Output::Backup(counts)) = second.output else { panic!("no counts") };
    assert!(counts.added_bytes == 200_000 && two != one, "only what changed is stored: {counts:?}");
    maintained(place, &one, &two);
}

fn maintained(place: &Place, one: &str, two: &str) {
    let told = place.run(Task::Maintain(keep_last(1)), 0);
    let Some(Output::Maintain(done)) = told.output else { panic!("no counts") };
    assert_eq!((done.forgotten, done.checked_snapshots, done.damaged_objects), (1, 1, 0), "{done:?}");
    assert!(done.repository_bytes.is_some_and(|bytes| bytes > 200_000), "{done:?}");
    let forget = |session: &str| match place.run(Task::Forget { snapshot: session.to_owned() }, 0).output {
        Some(Output::Forget { forgotten }) => forgotten,
        other => panic!("no count: {other:?}"),
    };
    assert_eq!((forget(one), forget(two), forget(two)), (0, 1, 0));
    place.run(Task::Forget { snapshot: "latest".into() }, 2);
    let gone = place.run(Task::Restore(to(directory(&place.path("target")))), 10);
    assert!(gone.message.contains(HOST), "{gone:?}");
    let nothing = place.run(Task::Maintain(MaintainTask::default()), 0);
    assert_eq!((nothing.outcome, nothing.output), (Outcome::Completed, None));
}

#[test]
fn a_whole_life_in_a_directory() {
    whole_life(&Place::new());
}

#[test]
fn a_whole_life_in_a_bucket() {
    let server = MinioServer::start().expect("MinIO starts");
    whole_life(&Place::in_bucket(&server));
}

#[test]
fn two_that_make_the_same_repository_get_the_same_one() {
    let server = MinioServer::start().expect("MinIO starts");
    for place in [Place::new(), Place::in_bucket(&server)] {
        let job = place.job(place.password(), Task::Connect { initialise: true });
        place.write(&job);
        let names = ["a", "b", "c", "d"];
        let running = names.map(|name| Running::start(&mut place.command_to(name)));
        running.into_iter().for_each(|child| drop(wait(child, 0)));
        let id = |name| match place.result_in(name).expect("a result").output {
            Some(Output::Connect(connected)) => (connected.id, connected.initialised),
            other => panic!("no id: {other:?}"),
        };
        let told = names.map(id);
        let ids: BTreeSet<&String> = told.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 1, "{told:?}");
        assert_eq!(told.iter().filter(|(_, made)| *made).count(), 1, "{told:?}");
        place.backup(place.password(), 0);
        let told = place.run(Task::Maintain(keep_last(1)), 0);
        assert_eq!(told.problems, 0, "{told:?}");
    }
}

#[test]
fn which_snapshot_is_meant() {
    let place = Place::new();
    place.initialised();
    let mut sessions = Vec::new();
    for number in 0..3 {
        fs::write(place.path("data/number"), number.to_string()).expect("writes");
        sessions.push(place.backup(place.password(), 0).1);
        a_moment();
    }
    let mut other = of(place.source());
    other.source.host = "west/shop/data".to_owned();
    fs::write(place.path("data/number"), "another").expect("writes");
    let others = session(&place.run(Task::Backup(other), 0));
    let between = place.run(Task::Restore(to(directory(&place.path("data")))), 0);
    assert_eq!(restored(&between).snapshot, sessions[2]);

    let printed = ended(
        std::process::Command::new(assert_cmd::cargo::cargo_bin("carrack"))
            .args(["snapshots", "--json", "--host", HOST, "-r", &place.text("repository")])
            .args(["--password-file", &place.text("password")]),
        0,
    );
    let times: Vec<jiff::Timestamp> = printed
        .out
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).ok()?["time"].as_str()?.parse().ok()
        })
        .collect();
    assert_eq!(times.len(), 3);
    let ask = |as_of, previous, code| {
        let task = carrack_proto::RestoreTask { as_of, previous, ..to(directory(&place.path("data"))) };
        place.run(Task::Restore(task), code)
    };
    let chosen = |as_of, previous| restored(&ask(as_of, previous, 0)).snapshot;
    assert_eq!(chosen(Some(times[1]), None), sessions[1]);
    assert_eq!(fs::read_to_string(place.path("data/number")).expect("reads"), "1");
    assert_eq!(chosen(Some(times[1]), Some(1)), sessions[0]);
    assert_eq!(chosen(None, Some(2)), sessions[0]);
    ask(None, Some(3), 10);
    ask(Some(times[0] - jiff::SignedDuration::from_secs(1)), None, 10);

    let named = |snapshot: &str, host: Option<&str>, code| {
        let (snapshot, host) = (snapshot.to_owned(), host.map(str::to_owned));
        let task = carrack_proto::RestoreTask { snapshot, host, ..to(directory(&place.path("data"))) };
        place.run(Task::Restore(task), code)
    };
    let id = sessions[0].split_once('-').expect("two parts").1;
    assert_eq!(restored(&named(&id[..8], Some(HOST), 0)).snapshot, sessions[0]);
    assert_eq!(restored(&named(&others, None, 0)).snapshot, others);
    // What belongs to somebody else is not found, even by its name.
    named(&others, Some(HOST), 10);
    named("latest", None, 2);
}

#[test]
fn patterns_begin_at_the_root_of_the_volume() {
    let place = Place::new();
    place.initialised();
    // The place of the volume has the name of something in it.
    for name in ["keep", "data", "sub/data", "sub/tmp", "tmp/x", "a.iso", "sub/b.iso"] {
        let path = place.path("data").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
        fs::write(path, name).expect("writes");
    }
    let mut task = of(place.source());
    task.exclude = ["/tmp", "*.iso", "data"].map(str::to_owned).to_vec();
    let told = place.run(Task::Backup(task), 0);
    let Some(Output::Backup(done)) = &told.output else { panic!("no counts") };
    assert_eq!((done.files, done.excluded), (2, 5), "{done:?}");
    fs::create_dir(place.path("target")).expect("makes");
    let mut task = to(directory(&place.path("target")));
    task.exclude = vec!["/sub/t*".to_owned()];
    place.run(Task::Restore(task), 0);
    assert!(place.path("target/keep").exists() && place.path("target/sub").exists());
    assert!(!place.path("target/sub/tmp").exists());
}

/// A volume that held something, and a restore that was killed in the middle.
#[test]
fn a_target_becomes_the_source_whatever_it_holds() {
    let place = Place::new();
    fill(&place.path("data"));
    place.initialised().backup(place.password(), 0);
    let target = place.path("target");
    fs::create_dir_all(target.join("lost+found")).expect("makes");
    fs::create_dir_all(target.join("stray/deep")).expect("makes");
    fs::write(target.join("file"), "other").expect("writes");
    let mut task = to(directory(&target));
    place.run(Task::Restore(task.clone()), 0);
    assert!(target.join("stray/deep").exists());
    task.target.delete = true;
    place.run(Task::Restore(task.clone()), 0);
    assert!(target.join("lost+found").exists());
    fs::remove_dir(target.join("lost+found")).expect("it is still empty");
    place.run(Task::Restore(task.clone()), 0);
    assert_same(&place.path("data"), &target);

    // The source was emptied: so is the target.
    fs::remove_dir_all(place.path("data")).expect("removes");
    fs::create_dir(place.path("data")).expect("makes");
    place.backup(place.password(), 0);
    place.run(Task::Restore(task), 0);
    assert_same(&place.path("data"), &target);
}

#[test]
fn what_is_said_meanwhile() {
    let place = Place::new();
    fs::write(place.path("data/large"), noise(3, 24 << 20)).expect("writes");
    place.initialised();
    let mut job = place.job(place.password(), Task::Backup(of(place.source())));
    job.repository.limit_upload = Some(8 << 20);
    let printed = ended(&mut place.command(&job), 0);
    let progress: Vec<Progress> = printed.out.lines().filter_map(Progress::read).collect();
    assert!(!progress.is_empty(), "{}", printed.out);
    assert!(
        progress.iter().all(|status| !status.phase.is_empty() && status.bytes_done <= 24 << 20),
        "{progress:?}"
    );
    let step = printed.message("step");
    assert_eq!(step["arguments"][0], "backup", "{}", printed.out);
}
