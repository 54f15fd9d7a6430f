//! A backup that is killed with the whole program, and the one after it.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use carrack_tests::trees::{noise, rsync_differences};
use serde_json::{Value, json};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A place with a source and a repository.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        assert!(place.command(&["init"]).output().expect("starts").status.success());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("carrack"));
        command
            .args(arguments)
            .env_clear()
            .env("CARRACK_PASSWORD", "correct")
            .env("CARRACK_REPOSITORY", self.path("repository"))
            .stdin(Stdio::null());
        command
    }

    /// Starts a backup that the store takes slowly, and waits until it has left two checkpoints: one behind the first two
    /// megabytes, at the earliest, and one behind the next.
    fn start(&self, source: &[&str]) -> Child {
        let slow = ["backup", "--limit-upload", "4MiB", "--memory", "64MiB", "--checkpoint-interval", "0"];
        let child = self
            .command(&[&slow[..], source].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program was built: cargo build -p carrack-mover");
        let start = Instant::now();
        while self.checkpoints() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "no two checkpoints");
            std::thread::sleep(Duration::from_millis(50));
        }
        child
    }

    fn kill(&self, source: &[&str]) {
        let mut child = self.start(source);
        child.kill().expect("it runs still");
        assert!(!child.wait().expect("it ends").success());
    }

    fn checkpoints(&self) -> usize {
        let names = fs::read_dir(self.path("repository/index")).into_iter().flatten().flatten();
        names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"c")).count()
    }

    /// Backs up and answers the summary.
    fn backup(&self, source: &[&str]) -> Value {
        let output = self.command(&[&["backup", "--json"], source].concat()).output().expect("starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
        let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        messages.rev().find(|message| message["message_type"] == "summary").expect("a summary")
    }

    fn compare(&self, source: &Path) {
        let target = self.path("target");
        let arguments = ["restore", "latest", "--target", target.to_str().expect("UTF-8")];
        assert!(self.command(&arguments).output().expect("starts").status.success());
        let restored = target.join(source.strip_prefix("/").expect("absolute"));
        assert_eq!(rsync_differences(source, &restored, &[]).expect("rsync runs"), "");
        assert!(self.command(&["check", "--read-data"]).output().expect("starts").status.success());
    }
}

/// Forty files of one MiB, and a large one behind them; older than any run.
fn make_tree(source: &Path, large: u64) {
    fs::create_dir_all(source.join("z")).expect("makes");
    for index in 0..40 {
        fs::write(source.join(format!("file {index:02}")), noise(index + 1, MIB as usize)).expect("writes");
    }
    fs::write(source.join("z/large"), noise(100, large as usize)).expect("writes");
    // The times of what was written just now prove nothing.
    std::thread::sleep(Duration::from_millis(3200));
}

#[test]
fn a_killed_backup_goes_on_where_it_was() {
    let place = Place::new();
    let source = place.path("source");
    make_tree(&source, 40 * MIB);
    let arguments = [source.to_str().expect("UTF-8")];
    place.kill(&arguments);
    // What changed in between is read again, and what is new is found.
    fs::write(source.join("file 00"), noise(200, MIB as usize)).expect("writes");
    fs::write(source.join("file 005"), noise(201, MIB as usize)).expect("writes");
    fs::remove_file(source.join("file 01")).expect("removes");
    // However slow this machine is, they were written just before each of the runs.
    for name in ["file 00", "file 005"] {
        let file = fs::File::options().write(true).open(source.join(name)).expect("opens");
        file.set_modified(SystemTime::now() + Duration::from_secs(600)).expect("sets");
    }

    let summary = place.backup(&arguments);
    let number = |name: &str| summary[name].as_u64().expect(name);
    assert!(summary["continued_from"].is_string(), "{summary}");
    // Of the four megabytes that the checkpoints have at least, two are no longer the same.
    assert!(number("continued_bytes") >= 2 * MIB, "{summary}");
    assert_eq!(number("continued_bytes") + number("bytes_read"), 80 * MIB, "{summary}");
    assert!(number("data_added") <= number("bytes_read"), "{summary}");
    assert_eq!((number("problems"), number("files_new")), (0, 41), "{summary}");
    place.compare(&source);

    let next = place.backup(&arguments);
    assert_eq!(next["continued_from"], Value::Null, "{next}");
    // What was written just before is read again, and is as it was.
    assert_eq!((&next["files_unmodified"], &next["bytes_read"]), (&json!(41), &json!(2 * MIB)), "{next}");
}

#[test]
fn packs_of_a_checkpoint_that_are_gone_are_stored_again() {
    let place = Place::new();
    let source = place.path("source");
    make_tree(&source, 40 * MIB);
    let arguments = [source.to_str().expect("UTF-8")];
    place.kill(&arguments);
    fs::remove_dir_all(place.path("repository/packs")).expect("removes");
    let summary = place.backup(&arguments);
    assert_eq!((summary["continued_files"].as_u64(), summary["problems"].as_u64()), (Some(0), Some(0)));
    place.compare(&source);
}

#[test]
fn an_image_goes_on_in_the_middle() {
    let place = Place::new();
    let image = place.path("image");
    fs::write(&image, noise(7, 96 * MIB as usize)).expect("writes");
    std::thread::sleep(Duration::from_millis(3200));
    let arguments = ["--device", image.to_str().expect("UTF-8")];
    place.kill(&arguments);
    let summary = place.backup(&arguments);
    let number = |name: &str| summary[name].as_u64().expect(name);
    assert!(number("continued_bytes") >= 4 * MIB, "{summary}");
    assert_eq!(number("continued_bytes") + number("bytes_read"), 96 * MIB, "{summary}");
    let target = place.path("restored");
    let arguments = ["restore", "latest", "--target", target.to_str().expect("UTF-8")];
    let output = place.command(&arguments).output().expect("starts");
    assert!(output.status.success(), "{output:?}");
    let restored = if target.is_dir() { target.join("image") } else { target };
    assert!(fs::read(restored).expect("reads") == fs::read(image).expect("reads"));
}

#[test]
fn a_backup_that_is_interrupted_leaves_a_last_checkpoint() {
    let place = Place::new();
    let source = place.path("source");
    make_tree(&source, 160 * MIB);
    let arguments = [source.to_str().expect("UTF-8")];
    let mut child = place.start(&arguments);
    let before = place.checkpoints();
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let start = Instant::now();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(place.checkpoints() >= before);
    let summary = place.backup(&arguments);
    assert!(summary["continued_bytes"].as_u64() >= Some(4 * MIB), "{summary}");
    place.compare(&source);
}
