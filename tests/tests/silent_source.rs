//! A file system that never answers keeps nobody waiting for ever, and costs a backup no more than what is on it: that is left
//! out and named, and all else is kept.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use carrack_tests::{
    images::in_private_mounts,
    place,
    program::{Printed, Program, text, wait},
    stalled::{Stall, StalledFs},
};

/// As large as no file that shares its turn with others.
const LARGE: usize = 3 << 20;

/// A program, and a source with two files beside a directory to mount on. One of them is so old that its times can be believed.
fn scene() -> (Program, PathBuf) {
    let carrack = Program::new(place::program()).expect("a repository");
    let source = carrack.path("source");
    fs::create_dir_all(source.join("mounted")).expect("a directory");
    fs::write(source.join("a-large"), vec![7; LARGE]).expect("a file");
    let large = fs::File::options().write(true).open(source.join("a-large")).expect("it is there");
    large.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("a time");
    fs::write(source.join("file"), b"contents").expect("a file");
    (carrack, source)
}

/// A backup that waits five seconds for each read.
fn backup(carrack: &Program, more: &[&str], path: &Path, code: i32) -> Printed {
    let begun = Instant::now();
    let fixed = ["backup", "--source-timeout", "5", "--ignore-ctime"].map(OsStr::new).into_iter();
    let arguments = fixed.chain(more.iter().map(OsStr::new)).chain([path.as_os_str()]);
    let printed = carrack.run(arguments, code);
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    printed
}

/// All but what is mounted there comes back, and the repository is whole.
fn the_rest_is_kept(carrack: &Program, source: &Path, target: &str) -> PathBuf {
    carrack.run(["check", "--read-data"], 0);
    let restored = carrack.restored(source, &carrack.path(target), 0);
    assert_eq!(fs::read(restored.join("file")).expect("it is kept"), b"contents");
    assert_eq!(fs::read(restored.join("a-large")).expect("it is kept").len(), LARGE);
    restored
}

#[test]
fn what_never_answers_is_left_out_and_all_else_is_kept() {
    in_private_mounts(|| {
        let (carrack, source) = scene();
        let stalled = StalledFs::mount(&source.join("mounted")).expect("it mounts");
        let silent = source.join("mounted/never");

        let printed = backup(&carrack, &["--json"], &source, 3);
        let expected = format!("{} did not answer within", silent.display());
        assert!(printed.err.contains(&expected), "{}", printed.err);
        assert!(printed.err.contains("--source-timeout"), "the next step: {}", printed.err);
        let summary = printed.message("summary");
        assert_eq!(summary["problems"], 1, "{summary}");
        // What was read before somebody noticed is not read again.
        assert_eq!(summary["continued_files"], 1, "{summary}");
        assert_eq!(summary["continued_bytes"], LARGE, "{summary}");
        assert!(summary["bytes_read"].as_u64().expect("a number") < 1000, "{summary}");
        let listed = carrack.run(["snapshots", "--json"], 0).message("snapshot");
        assert!(listed.to_string().contains("\"problems\":1"), "it says that something is missing: {listed}");
        let restored = the_rest_is_kept(&carrack, &source, "restored");
        assert_eq!(fs::read_dir(restored.join("mounted")).expect("it is kept").count(), 0);

        // Each further backup names it again; who asks for it alone, or for all or nothing, gets no snapshot.
        let printed = backup(&carrack, &[], &source, 3);
        assert!(printed.err.contains(&expected), "{}", printed.err);
        let printed = backup(&carrack, &[], &silent, 12);
        let expected = format!("{} has not been read for", silent.display());
        assert!(printed.err.contains(&expected), "{}", printed.err);
        assert!(printed.err.contains("--source-timeout"), "the next step: {}", printed.err);
        backup(&carrack, &["--strict"], &source, 16);
        let left_out = ["--exclude", text(&source.join("mounted"))].map(str::to_owned);
        backup(&carrack, &left_out.each_ref().map(String::as_str), &source, 0);
        the_rest_is_kept(&carrack, &source, "again");
        drop(stalled);
    });
}

#[test]
fn a_mount_of_which_two_paths_do_not_answer_is_left_out() {
    in_private_mounts(|| {
        let (carrack, source) = scene();
        let mount = source.join("mounted");
        let names = vec![("never", Stall::Read), ("other", Stall::Read)];
        let stalled = StalledFs::of(&mount, names).expect("it mounts");

        let printed = backup(&carrack, &[], &source, 3);
        let expected = format!("{} did not answer within", mount.display());
        assert!(printed.err.contains(&expected), "{}", printed.err);
        assert!(printed.out.contains("problems   1:"), "{}", printed.out);
        let restored = the_rest_is_kept(&carrack, &source, "restored");
        assert!(!restored.join("mounted").exists());

        // The same mount as what was asked for: of it only what does not answer is missing.
        let printed = backup(&carrack, &[], &mount, 3);
        for name in ["never", "other"] {
            let expected = format!("{} did not answer within", mount.join(name).display());
            assert!(printed.err.contains(&expected), "{name}: {}", printed.err);
        }
        assert!(printed.out.contains("problems   2:"), "{}", printed.out);
        drop(stalled);
    });
}

/// The kernel lets no process go that waits for these, not even a dead one. By then the snapshot is there, and it has said so.
#[test]
fn names_and_lists_that_do_not_come_are_left_out_as_contents_are() {
    in_private_mounts(|| {
        let (carrack, source) = scene();
        let mount = source.join("mounted");
        let names = vec![("closed", Stall::List), ("lookup", Stall::Lookup)];
        let stalled = StalledFs::of(&mount, names).expect("it mounts");
        let fixed = ["backup", "--source-timeout", "5"].map(OsStr::new).into_iter();
        let mut child = carrack.start(fixed.chain([source.as_os_str()]));
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut told = String::new();
        while !told.contains(" saved") {
            assert!(out.read_line(&mut told).expect("it reads") > 0, "it ended: {told}");
        }
        assert!(told.contains("problems   1:"), "{told}");
        stalled.let_go();
        let printed = wait(child, 3);
        for path in [&mount, &mount.join("lookup")] {
            let expected = format!("{} did not answer within", path.display());
            assert!(printed.err.contains(&expected), "{}", printed.err);
        }
        let restored = the_rest_is_kept(&carrack, &source, "restored");
        assert!(!restored.join("mounted").exists());
        drop(stalled);
    });
}

#[test]
fn a_device_that_cannot_even_be_looked_at_ends_the_backup() {
    in_private_mounts(|| {
        let (carrack, source) = scene();
        let names = vec![("lookup", Stall::Lookup)];
        let stalled = StalledFs::of(&source.join("mounted"), names).expect("it mounts");
        let device = source.join("mounted/lookup");
        let fixed = ["backup", "--source-timeout", "5", "--device"].map(OsStr::new).into_iter();
        let mut child = carrack.start(fixed.chain([device.as_os_str()]));
        let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut told = String::new();
        while !told.contains(&format!("{} has not been read for", device.display())) {
            assert!(err.read_line(&mut told).expect("it reads") > 0, "it ended: {told}");
        }
        stalled.let_go();
        wait(child, 12);
        drop(stalled);
    });
}
