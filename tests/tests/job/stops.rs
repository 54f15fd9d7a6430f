//! A job that is asked to stop, or killed, and the same job again.

use std::{fs, net::TcpListener, time::Duration};

use carrack_proto::{JobResult, Output, Task};
use carrack_tests::{
    program::{ended, signal, wait_until},
    trees::{noise, rsync_differences},
};
use rustix::process::Signal;

use crate::place::{Place, directory, of, to};

const MIB: usize = 1 << 20;

/// A place with much to back up, and with bundle and repository.
fn prepared() -> Place {
    let place = Place::new();
    place.initialised();
    for number in 0..6 {
        fs::write(place.path("data").join(format!("file{number}")), noise(number, 8 * MIB)).expect("writes");
    }
    place
}

/// The packs that are stored.
fn packs(place: &Place) -> usize {
    let below = |path: std::path::PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    below(place.path("repository/packs"))
        .map(|entry| if entry.path().is_dir() { below(entry.path()).count() } else { 1 })
        .sum()
}

fn added_bytes(told: &JobResult) -> u64 {
    match &told.output {
        Some(Output::Backup(done)) => done.added_bytes,
        other => panic!("no backup: {other:?}"),
    }
}

fn comes_back(place: &Place) {
    fs::create_dir(place.path("target")).expect("makes");
    place.run(Task::Restore(to(directory(&place.path("target")))), 0);
    let differences = rsync_differences(&place.path("data"), &place.path("target"), &[]);
    assert_eq!(differences.expect("rsync runs"), "");
}

#[test]
fn a_backup_that_is_asked_to_stop_goes_on_the_next_time() {
    let place = prepared();
    let bundle = place.bundle(place.source());
    let mut job = place.job(bundle.clone(), Task::Backup(of(place.source())));
    job.repository.limit_upload = Some(8 * MIB as u64);
    job.resources.memory_bytes = Some(64 * MIB as u64);
    let running = place.start(&job);
    wait_until(|| packs(&place) >= 2).expect("packs arrive");
    signal(&running, Signal::TERM).expect("a signal");
    let told = place.stopped(running);
    assert!(told.message.contains("stop") && told.next.is_some(), "{told:?}");
    assert_eq!(told.output, None);
    let (told, _) = place.backup(bundle, 0);
    // Without a last checkpoint nobody would know what is stored already.
    assert!(added_bytes(&told) < 45 * MIB as u64, "it goes on where it was: {told:?}");
    comes_back(&place);
}

#[test]
fn a_backup_that_is_killed_has_no_result_and_can_be_done_again() {
    let place = prepared();
    // What an earlier run has left says nothing of this one.
    fs::write(place.path("result"), r#"{"version":1,"outcome":"completed","exitCode":0}"#).expect("writes");
    let mut job = place.job(place.password(), Task::Backup(of(place.source())));
    job.repository.limit_upload = Some(8 * MIB as u64);
    let mut running = place.start(&job);
    wait_until(|| packs(&place) >= 1).expect("packs arrive");
    running.kill().expect("it runs still");
    running.wait().expect("it ends");
    assert_eq!(place.result(), None);
    place.backup(place.password(), 0);
    comes_back(&place);
}

#[test]
fn a_restore_that_is_stopped_or_killed_comes_to_its_end_the_next_time() {
    let place = prepared();
    fs::set_permissions(place.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o2750))
        .expect("sets");
    place.backup(place.password(), 0);
    let target = place.path("target");
    fs::create_dir(&target).expect("makes");
    let mut job = place.job(place.password(), Task::Restore(to(directory(&target))));
    job.repository.limit_download = Some(8 * MIB as u64);
    for kill in [false, true] {
        // Its own empty result says that a run has begun.
        drop(fs::remove_file(place.path("result")));
        let mut running = place.start(&job);
        let count = || fs::read_dir(&target).map_or(0, Iterator::count);
        wait_until(|| count() >= 1 && place.path("result").exists()).expect("files arrive");
        std::thread::sleep(Duration::from_millis(500));
        if kill {
            running.kill().expect("it runs still");
            running.wait().expect("it ends");
            assert_eq!(place.result(), None);
        } else {
            signal(&running, Signal::TERM).expect("a signal");
            place.stopped(running);
        }
    }
    ended(&mut place.command(&place.job(place.password(), Task::Restore(to(directory(&target))))), 0);
    assert_eq!(rsync_differences(&place.path("data"), &target, &[]).expect("rsync runs"), "");
    let time = |path| fs::metadata(path).expect("it is there").modified().expect("a time");
    assert_eq!(time(place.path("data")), time(target));
}

/// What does not look at the request by itself has a result too.
#[test]
fn a_connection_that_hangs_is_given_up_with_a_result() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut place = Place::new();
    place.repository.url = "s3://carrack/fleet".to_owned();
    place.repository.endpoint = Some(format!("http://{}", silent.local_addr().expect("an address")));
    place.variable("AWS_ACCESS_KEY_ID", "nobody");
    place.variable("AWS_SECRET_ACCESS_KEY", "nothing");
    let job = place.job(place.password(), Task::Connect { initialise: true });
    let running = place.start(&job);
    let (_connection, _) = silent.accept().expect("it asks");
    signal(&running, Signal::TERM).expect("a signal");
    let told = place.stopped(running);
    assert!(told.message.contains("stopped"), "{told:?}");
}
