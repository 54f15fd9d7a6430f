//! What is wrong with a job, its files, the store or the source, as its result tells it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    os::unix::process::CommandExt as _,
    path::Path,
};

use carrack_proto::{Keys, Outcome, Place as Volume, Task};
use carrack_tests::{
    program::{NOBODY, ended, install},
    server::NOWHERE,
};

use crate::place::{Place, directory, of, to};

#[test]
fn what_is_no_job_is_told() {
    let place = Place::new();
    let job = place.job(place.password(), Task::Connect { initialise: true });
    let good = serde_json::to_string(&job).expect("JSON");
    for (text, said) in [
        ("garbage".to_owned(), "no JSON"),
        (String::new(), "no JSON"),
        ("\0".repeat(5000), "no JSON"),
        (good.replace("\"version\":1", "\"version\":2"), "version 2"),
        (good.replace("\"version\":1", "\"surprise\":0,\"version\":1"), "surprise"),
        (good.replace("\"connect\"", "\"dance\""), "dance"),
        (good.replace("\"threads\":2", "\"threads\":0"), "threads"),
        (good.replace("\"threads\":2", "\"cipher\":\"rot13\""), "rot13"),
        (good.replace(&place.text("repository"), ""), "empty"),
    ] {
        let told = place.run_text(&text, 2);
        assert!(told.message.contains(said) && told.next.is_some(), "{text}: {told:?}");
        assert_eq!((told.outcome, told.output), (Outcome::Failed, None));
    }
    assert!(!place.path("repository").exists());
    // What stands in the job is not said twice.
    place.write(&job);
    for option in [&["-r", "/elsewhere"][..], &["--threads", "2"], &["--region", "east"]] {
        let printed = ended(place.command_to("result").args(option), 2);
        assert!(place.told(&printed, 2).message.contains("stand in the job"));
    }
    fs::remove_file(place.path("job.json")).expect("removes");
    let printed = ended(&mut place.command_to("result"), 10);
    assert!(place.told(&printed, 10).message.contains("job.json"));
}

#[test]
fn where_the_result_cannot_go_nothing_is_done() {
    let place = Place::new();
    let job = place.job(place.password(), Task::Connect { initialise: true });
    place.write(&job);
    let printed = ended(&mut place.command_to("absent/result"), 10);
    assert!(printed.err.contains("absent/result") && !place.path("repository").exists(), "{}", printed.err);
}

#[test]
fn keys_that_are_missing_or_wrong() {
    let place = Place::new();
    place.initialised();
    let absent = |keys: Keys, code| {
        for initialise in [true, false] {
            let told = place.run_with(keys.clone(), Task::Connect { initialise }, code);
            assert!(told.message.contains("absent"), "{told:?}");
        }
    };
    let file = place.text("absent");
    absent(Keys::PasswordFile(file.clone()), 10);
    absent(Keys::KeyFile(file.clone()), 10);
    absent(Keys::WriterBundle(file.clone()), 10);
    fs::write(place.path("password"), "wrong\n").expect("writes");
    for initialise in [true, false] {
        let told = place.run(Task::Connect { initialise }, 13);
        assert!(told.message.contains("password") && told.next.is_some(), "{told:?}");
    }
    fs::write(place.path("password"), "correct\n").expect("writes");
    let task = |seal: &str| Task::Bundle { source: place.source(), seal_key_file: place.text(seal) };
    assert!(place.run(task("absent"), 10).message.contains("absent"));
    fs::write(place.path("seal"), "12").expect("writes");
    assert!(place.run(task("seal"), 2).message.contains("64 hexadecimal digits"));
    // A bundle is for one source.
    let bundle = place.bundle(place.source());
    let mut other = of(place.source());
    other.source.host = "west/shop/data".to_owned();
    place.run_with(bundle, Task::Backup(other), 13);
}

#[test]
fn a_store_that_does_not_answer() {
    let mut place = Place::new();
    place.repository.url = "s3://carrack/fleet".to_owned();
    place.repository.endpoint = Some(format!("http://{NOWHERE}"));
    place.variable("AWS_ACCESS_KEY_ID", "nobody");
    place.variable("AWS_SECRET_ACCESS_KEY", "nothing");
    let told = place.run(Task::Connect { initialise: true }, 12);
    assert!(told.message.contains(NOWHERE) && told.next.is_some(), "{told:?}");
    assert_eq!(told.outcome, Outcome::Failed);
}

#[test]
fn a_volume_that_is_not_there() {
    let place = Place::new();
    place.initialised();
    fs::write(place.path("file"), "x").expect("writes");
    for volume in [
        directory(&place.path("absent")),
        Volume::Device(place.text("absent")),
        directory(&place.path("file")),
        Volume::Device(place.text("data")),
    ] {
        let code = if volume.path().ends_with("absent") { 10 } else { 2 };
        let mut task = of(place.source());
        task.source.place = volume.clone();
        for task in [Task::Backup(task), Task::Restore(to(volume.clone()))] {
            let told = place.run(task, code);
            assert!(told.message.contains(volume.path()) && told.next.is_some(), "{told:?}");
        }
    }
    assert!(!place.path("absent").exists(), "nothing is made in the place of a volume");
}

/// As a pod that is not root: what it may not read is counted, and the first are named.
#[test]
fn what_cannot_be_read_is_counted_and_named() {
    let place = Place::new();
    fs::write(place.path("data/good"), "good").expect("writes");
    for number in 0..40 {
        let path = place.path("data").join(format!("{}{number:02}", "\u{1b}[31m\"ü".repeat(20)));
        fs::write(&path, "secret").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("sets");
    }
    for path in [".", "data", "password"] {
        chown(place.path(path), Some(NOBODY), Some(NOBODY)).expect("gives away");
    }
    let work = |task, code| {
        let job = place.job(place.password(), task);
        let mut command = place.command(&job);
        let program = place.path("carrack");
        if !program.exists() {
            // A checkout may lie where nobody else can go.
            install(&assert_cmd::cargo::cargo_bin("carrack"), &program).expect("copies");
        }
        let mut as_nobody = std::process::Command::new(&program);
        as_nobody.args(command.get_args().skip(2)).env_clear().current_dir("/").uid(NOBODY).gid(NOBODY);
        drop(fs::remove_file(place.path("result")));
        command = as_nobody;
        let printed = ended(&mut command, code);
        place.told(&printed, code)
    };
    work(Task::Connect { initialise: true }, 0);
    let told = work(Task::Backup(of(place.source())), 3);
    assert_eq!((told.outcome, told.problems), (Outcome::Partial, 40), "{told:?}");
    assert!(!told.first_problems.is_empty() && told.message.contains("40 problems"), "{told:?}");
    let first = &told.first_problems[0];
    assert!(Path::new(&first.item).starts_with("/") && first.item.contains("[31m"), "{told:?}");
    assert!(told.output.is_some());
}
