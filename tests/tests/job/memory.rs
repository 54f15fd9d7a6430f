//! A pod is new and remembers nothing: what a cluster has seen of the repository stands in the job.

use std::{fs, process::Command};

use carrack_proto::{
    BackupOutput, JobResult, Keys, MaintainOutput, MaintainTask, Outcome, Output, SeenSnapshot, Task,
};
use carrack_tests::{program::ended, trees::files_below};

use crate::place::{Place, a_moment, directory, keep_last, of, to};

/// What is said of an old state.
const OLD: &str = "an old state of the store was put back";

/// Makes one directory what another is.
fn become_as(place: &Place, this: &str, other: &str) {
    fs::remove_dir_all(place.path(this)).ok();
    let done = Command::new("cp").arg("-a").arg(place.path(other)).arg(place.path(this)).status();
    assert!(done.expect("cp runs").success());
}

fn run(place: &Place, keys: Keys, task: Task, last_seen: &[&SeenSnapshot], code: i32) -> JobResult {
    let mut job = place.job(keys, task);
    job.last_seen = last_seen.iter().map(|&seen| seen.clone()).collect();
    place.told(&ended(&mut place.command(&job), code), code)
}

fn seen(told: &JobResult) -> SeenSnapshot {
    match told.output.clone() {
        Some(Output::Backup(BackupOutput { snapshot: Some(snapshot), started: Some(started), .. })) => {
            SeenSnapshot { snapshot, started }
        }
        other => panic!("no snapshot: {other:?}"),
    }
}

fn maintained(told: &JobResult) -> MaintainOutput {
    match &told.output {
        Some(Output::Maintain(done)) => done.clone(),
        other => panic!("no maintenance: {other:?}"),
    }
}

fn assert_noticed(told: &JobResult, session: &str) {
    assert_eq!(told.problems, 1, "{told:?}");
    let problem = &told.first_problems[0];
    let id = session.split_once('-').expect("two parts").1;
    assert!(problem.item.contains(&id[..8]) && problem.message.contains(OLD), "{told:?}");
}

/// A check that reads structure and sizes, and deletes nothing.
fn check() -> Task {
    Task::Maintain(MaintainTask { check_percent: Some(0), ..MaintainTask::default() })
}

fn prune() -> Task {
    Task::Maintain(MaintainTask { prune: true, ..MaintainTask::default() })
}

/// Two snapshots of which the newer is the only one left, and the state before it in `old`.
fn aged(place: &Place, bundle: &Keys) -> [SeenSnapshot; 2] {
    fs::write(place.path("data/file"), "one").expect("writes");
    let first = seen(&place.backup(bundle.clone(), 0).0);
    become_as(place, "old", "repository");
    a_moment();
    fs::write(place.path("data/file"), "two").expect("writes");
    let second = seen(&place.backup(bundle.clone(), 0).0);
    assert!(second.started > first.started);
    let told = run(place, place.password(), Task::Maintain(keep_last(1)), &[&second], 0);
    assert_eq!((maintained(&told).forgotten, maintained(&told).gone), (1, 0), "{told:?}");
    [first, second]
}

#[test]
fn an_old_state_that_is_put_back_is_noticed_by_what_the_job_says() {
    let place = Place::new();
    place.initialised();
    let bundle = place.bundle(place.source());
    let [first, second] = aged(&place, &bundle);
    // What rules forgot is no news: a newer one is there.
    let told = run(&place, place.password(), check(), &[&first], 0);
    assert_eq!((maintained(&told).gone, told.problems), (1, 0), "{told:?}");
    fs::create_dir(place.path("target")).expect("makes");
    let restore = || Task::Restore(to(directory(&place.path("target"))));
    run(&place, place.password(), restore(), &[&second], 0);
    assert_eq!(fs::read_to_string(place.path("target/file")).expect("reads"), "two");

    become_as(&place, "repository", "old");
    let told = run(&place, place.password(), restore(), &[&second], 3);
    assert_noticed(&told, &second.snapshot);
    assert_eq!(fs::read_to_string(place.path("target/file")).expect("reads"), "one");
    let told = run(&place, place.password(), check(), &[&second], 3);
    assert_noticed(&told, &second.snapshot);
    assert_eq!(maintained(&told).checked_snapshots, 1, "{told:?}");

    // Nothing is deleted before somebody could look.
    fs::remove_file(place.path("repository/snapshots").join(&first.snapshot)).expect("removes");
    fs::remove_file(place.path("repository/sessions").join(&first.snapshot)).expect("removes");
    let packs = || files_below(&place.path("repository/packs")).len();
    let before = packs();
    let told = run(&place, place.password(), prune(), &[&second], 11);
    assert_noticed(&told, &second.snapshot);
    assert_eq!((told.outcome, told.message.contains(OLD)), (Outcome::Failed, true), "{told:?}");
    let done = maintained(&told);
    assert_eq!((done.gone, done.missing, done.first_gone), (1, 1, vec![second.snapshot.clone()]));
    assert!(before > 0 && packs() == before, "{before} packs, and {} are left", packs());

    become_as(&place, "repository", "old");
    let told = run(&place, bundle.clone(), Task::Backup(of(place.source())), &[&second], 3);
    assert_noticed(&told, &second.snapshot);
    let third = seen(&told);
    // Who is told of what came after it is content.
    let told = run(&place, bundle, Task::Backup(of(place.source())), &[&third], 0);
    run(&place, place.password(), Task::Maintain(keep_last(1)), &[&seen(&told)], 0);
}

#[test]
fn what_was_forgotten_by_name_is_expected_no_more() {
    let place = Place::new();
    place.initialised();
    let (told, session) = place.backup(place.password(), 0);
    let only = seen(&told);
    place.run(Task::Forget { snapshot: session.clone() }, 0);
    // First by its marker, and after the clean-up by what is in the place of its end.
    for _ in 0..3 {
        let told = run(&place, place.password(), prune(), &[&only], 0);
        let done = maintained(&told);
        assert_eq!((done.gone, done.missing, told.problems), (1, 0, 0), "{told:?}");
        assert_eq!(done.first_gone, std::slice::from_ref(&session), "{told:?}");
    }
    run(&place, place.password(), Task::Backup(of(place.source())), &[&only], 0);
}
