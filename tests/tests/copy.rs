//! `carrack copy`: snapshots that go into another repository, by the program itself.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use carrack_tests::{
    hostile::Forger,
    minio::MinioServer,
    place::Place,
    program::text,
    trees::{files_below, noise, rsync_differences},
};
use serde_json::Value;

/// Where copies go.
struct Copies<'p> {
    place: &'p Place,
    repository: String,
}

impl<'p> Copies<'p> {
    /// A repository with another password, beside the place.
    fn beside(place: &'p Place) -> Self {
        Self::at(place, place.path("copies").display().to_string())
    }

    fn at(place: &'p Place, repository: String) -> Self {
        let copies = Self { place, repository };
        copies.run(&["init"], 0);
        copies
    }

    /// The program, with these copies as its repository.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("CARRACK_REPOSITORY", &self.repository).env("CARRACK_PASSWORD", "another");
        command
    }

    /// The program, copying from `from`.
    fn copying(&self, from: &str, more: &[&str]) -> Command {
        let mut command = self.command(&[&["copy", "--json", "--from-repo", from], more].concat());
        command.env("CARRACK_FROM_PASSWORD", "correct");
        command
    }

    fn run(&self, arguments: &[&str], code: i32) -> String {
        checked(&self.command(arguments).output().expect("starts"), code)
    }

    /// Copies from the repository of the place; answers the summary and what was said of problems.
    fn copy(&self, more: &[&str], code: i32) -> (Value, String) {
        let from = self.place.path("repository");
        let output = self.copying(text(&from), more).output().expect("starts");
        let out = checked(&output, code);
        (summary(&out), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn ids(&self) -> Vec<String> {
        let text = self.run(&["snapshots", "--json"], 0);
        let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        messages.filter_map(|message| message["id"].as_str().map(str::to_owned)).collect()
    }

    fn restore(&self, snapshot: &str, name: &str) -> PathBuf {
        let target = self.place.path(name);
        self.run(&["restore", snapshot, "--target", text(&target)], 0);
        target
    }

    /// Restores a copy and compares it with a tree; all that is stored is read and checked too.
    fn compare(&self, snapshot: &str, source: &Path, name: &str) {
        let target = self.restore(snapshot, name);
        assert_same(source, &target.join(self.place.source().strip_prefix("/").expect("absolute")));
        self.run(&["check", "--read-data"], 0);
    }
}

fn assert_same(source: &Path, restored: &Path) {
    assert_eq!(rsync_differences(source, restored, &[]).expect("rsync runs"), "");
}

fn checked(output: &Output, code: i32) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out.into_owned()
}

fn summary(out: &str) -> Value {
    let last = out.lines().last().unwrap_or_default();
    let message: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(message["message_type"], "summary", "{out}");
    message
}

fn number(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| unreachable!("{name} of {summary}"))
}

/// Times of what was written just now prove nothing.
fn let_it_age() {
    std::thread::sleep(Duration::from_millis(3200));
}

/// Files below a folder, the largest last.
fn by_size(folder: &Path) -> Vec<PathBuf> {
    let mut found = files_below(folder);
    found.sort_by_key(|file| fs::metadata(file).map_or(0, |metadata| metadata.len()));
    found
}

#[test]
fn copies_restore_as_the_originals_do() {
    let place = Place::local();
    let_it_age();
    place.backup();
    let before = place.path("before");
    assert!(
        Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(place.source())
            .arg(&before)
            .status()
            .expect("cp")
            .success()
    );
    fs::write(place.source().join("many/file 7"), "changed").expect("writes");
    fs::write(place.source().join("new"), noise(9, 2_000_000)).expect("writes");
    let_it_age();
    place.backup();

    let copies = Copies::beside(&place);
    let (planned, _) = copies.copy(&["--dry-run"], 0);
    assert_eq!((number(&planned, "copied"), copies.ids().len()), (0, 0));
    let (first, _) = copies.copy(&["latest"], 0);
    assert_eq!(number(&first, "copied"), 1);
    let (rest, _) = copies.copy(&[], 0);
    assert_eq!((number(&rest, "copied"), number(&rest, "present")), (1, 1));
    let stored = number(&rest, "data_added_packed");
    assert!(stored < 200_000, "the newer one has nearly all of it: {rest}");
    let (again, _) = copies.copy(&[], 0);
    assert_eq!((number(&again, "copied"), number(&again, "present")), (0, 2));
    assert_eq!(copies.ids().len(), 2);
    // Their order is that of the originals.
    copies.compare("latest", &place.source(), "restored latest");
    copies.compare(&copies.ids()[0], &before, "restored first");

    // Back to where they come from nothing goes.
    let mut back = place.command(&["copy", "--json", "--from-repo", &copies.repository]);
    let back = checked(&back.env("CARRACK_FROM_PASSWORD", "another").output().expect("starts"), 0);
    assert_eq!(number(&summary(&back), "present"), 2);
}

#[test]
fn only_what_changed_is_read_and_stored() {
    let place = Place::local();
    let_it_age();
    place.backup();
    let copies = Copies::beside(&place);
    let (first, _) = copies.copy(&[], 0);
    assert!(number(&first, "bytes_read") > 9_000_000, "{first}");
    fs::write(place.source().join("new"), noise(9, 2_000_000)).expect("writes");
    place.backup();
    let (second, _) = copies.copy(&[], 0);
    assert_eq!(number(&second, "bytes_read"), 2_000_000, "{second}");
    assert_eq!(number(&second, "data_added"), 2_000_000, "{second}");
    // A backup into the copies goes on from them.
    let_it_age();
    let out = copies.run(&["backup", "--json", text(&place.source())], 0);
    let native = summary(&out);
    assert!(number(&native, "bytes_read") <= 2_000_000, "{native}");
    assert_eq!(number(&native, "data_added"), 0, "{native}");
}

#[test]
fn what_a_backup_stored_there_is_not_stored_again() {
    let place = Place::local();
    place.backup();
    let copies = Copies::beside(&place);
    copies.run(&["backup", text(&place.source())], 0);
    let (copied, _) = copies.copy(&[], 0);
    assert_eq!(number(&copied, "data_added"), 0, "{copied}");
    assert!(number(&copied, "data_added_packed") < 100_000, "{copied}");
}

#[test]
fn a_damaged_pack_costs_what_lies_in_it() {
    let place = Place::local();
    place.backup();
    let known = by_size(&place.path("repository/packs"));
    fs::write(place.source().join("spoiled"), noise(9, 3_000_000)).expect("writes");
    place.backup();
    let packs = by_size(&place.path("repository/packs"));
    let spoiled = packs.into_iter().rfind(|pack| !known.contains(pack)).expect("a pack");
    let mut bytes = fs::read(&spoiled).expect("reads");
    bytes[1000] ^= 1;
    fs::remove_file(&spoiled).expect("removes");
    fs::write(&spoiled, bytes).expect("writes");
    let copies = Copies::beside(&place);
    let (summary, errors) = copies.copy(&[], 3);
    assert_eq!((number(&summary, "copied"), number(&summary, "problems")), (2, 1), "{errors}");
    assert!(errors.contains("/spoiled"), "{errors}");
    fs::remove_file(place.source().join("spoiled")).expect("removes");
    // The directory that it was in has another time by now; contents and names are what counts.
    let target = copies.restore("latest", "restored");
    let restored = target.join(place.source().strip_prefix("/").expect("absolute"));
    assert!(!restored.join("spoiled").exists());
    assert_same(&place.source().join("many"), &restored.join("many"));
}

#[test]
fn errors_say_which_repository_they_speak_of() {
    let place = Place::local();
    place.backup();
    let copies = Copies::beside(&place);
    let from = place.path("repository");
    let fails = |mut command: Command, code: i32, word: &str| {
        let output = command.output().expect("starts");
        checked(&output, code);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(word), "{word}: {errors}");
    };
    let mut wrong = copies.copying(text(&from), &[]);
    wrong.env("CARRACK_FROM_PASSWORD", "wrong");
    fails(wrong, 13, "--from-password-file");
    fails(copies.copying(text(&place.path("nowhere")), &[]), 10, "repository to copy from");
    fails(copies.copying(text(&from), &["00000000"]), 10, "00000000");
    let mut same = copies.copying(&copies.repository, &[]);
    same.env("CARRACK_FROM_PASSWORD", "another");
    fails(same, 2, "same repository");
    assert!(copies.ids().is_empty());
}

#[test]
fn a_killed_copy_goes_on() {
    let place = Place::local();
    for index in 0..100 {
        fs::write(place.source().join(format!("random {index}")), noise(100 + index, 1 << 20))
            .expect("writes");
    }
    let_it_age();
    place.backup();
    let copies = Copies::beside(&place);
    let from = place.path("repository");
    let slow = ["--limit-upload", "8MiB", "--memory", "64MiB", "--checkpoint-interval", "1"];
    let has_checkpoint = || {
        let mut names = fs::read_dir(place.path("copies/index")).into_iter().flatten().flatten();
        names.any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"c"))
    };
    let mut command = copies.copying(text(&from), &slow);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let start = Instant::now();
    while !has_checkpoint() {
        assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(copies.ids().is_empty());
    let (summary, _) = copies.copy(&[], 0);
    assert_eq!((number(&summary, "copied"), copies.ids().len()), (1, 1));
    // However little the checkpoint had, it had contents.
    let (whole, _) = Copies::at(&place, text(&place.path("undisturbed")).to_owned()).copy(&[], 0);
    let read = |summary: &Value| number(summary, "bytes_read");
    assert!(read(&summary) < read(&whole), "it did not go on from a checkpoint: {summary} {whole}");
    copies.compare("latest", &place.source(), "restored");
}

#[test]
fn copies_go_into_a_bucket_and_out_of_it() {
    let server = MinioServer::start().expect("MinIO: make tools");
    let place = Place::on(&server, "one");
    place.backup();
    // Out of the bucket.
    let copies = Copies::beside(&place);
    let out = copies.copying(&server.repository("one"), &[]).output().expect("starts");
    assert_eq!(number(&summary(&checked(&out, 0)), "copied"), 1);
    copies.compare("latest", &place.source(), "restored");
    // And into it.
    let third = Copies::at(&place, server.repository("three"));
    let mut command = third.copying(&copies.repository, &[]);
    let out = command.env("CARRACK_FROM_PASSWORD", "another").output().expect("starts");
    assert_eq!(number(&summary(&checked(&out, 0)), "copied"), 1);
    third.compare("latest", &place.source(), "restored again");
}

/// A backup that was told to read everything may have found other contents at the same times.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_times_do_not_mean_the_same_contents() {
    let place = Place::local();
    let repository = place.path("repository");
    for length in [5000, 3 << 20] {
        let path = format!("/source {length}");
        for contents in [1, 2, 2] {
            let mut forger = Forger::begin(&repository, "correct", Path::new(&path)).await.expect("begins");
            let file = forger.file(b"file", &noise(contents, length)).expect("seals");
            forger.commit_entries(vec![file]).await.expect("commits");
        }
    }
    let copies = Copies::beside(&place);
    let (summary, _) = copies.copy(&[], 0);
    let text = copies.run(&["snapshots", "--json", "--host", "hostile"], 0);
    let found: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ids: Vec<&str> = found.iter().filter_map(|message| message["id"].as_str()).collect();
    let wanted = [5000, 3 << 20].into_iter().flat_map(|length| [1, 2, 2].map(|seed| noise(seed, length)));
    assert_eq!(ids.len(), 6, "{text}");
    for (id, contents) in ids.into_iter().zip(wanted) {
        let output = copies.command(&["cat", "file", &format!("{id}:/file")]).output().expect("starts");
        assert!(output.stdout == contents, "{id}");
    }
    // What did not change is not fetched again.
    assert_eq!(number(&summary, "bytes_read"), 2 * (5000 + (3 << 20)), "{summary}");
}
