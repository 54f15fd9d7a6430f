//! `--json`: every line of every verb is a message that `mover/docs/json.md` describes, with every field, and the last
//! one is the summary.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

#![expect(clippy::panic, reason = "a test says what it expects by failing")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

/// The document: what it says of all verbs, and of one.
struct Document(String);

impl Document {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mover/docs/json.md");
        Self(fs::read_to_string(path).expect("the document"))
    }

    /// What stands below a title; nothing for a verb without a section of its own.
    fn section(&self, title: &str) -> &str {
        let Some(start) = self.0.find(&format!("\n## {title}\n")) else { return "" };
        let text = &self.0[start + 4..];
        &text[..text.find("\n## ").unwrap_or(text.len())]
    }

    /// What is said of one kind of message of a verb.
    fn message(&self, verb: &str, message_type: &str) -> String {
        let title = format!("**`{message_type}`**");
        // A forget may go on to prune.
        let further = if verb == "forget" { "prune" } else { "" };
        let paragraphs =
            [verb, "All verbs", further].into_iter().flat_map(|title| self.section(title).split("\n\n"));
        if let Some(text) = paragraphs.into_iter().find(|text| text.contains(&title)) {
            return text.to_owned();
        }
        panic!("{verb} prints {message_type}, which json.md does not have");
    }

    fn check(&self, verb: &str, line: &str) -> String {
        let message: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{verb}: {line}: {error}"));
        let fields = message.as_object().unwrap_or_else(|| panic!("{verb}: {line} is no object"));
        let message_type = fields["message_type"].as_str().expect("a type").to_owned();
        let text = self.message(verb, &message_type);
        // Records are described with the format.
        for name in fields.keys().filter(|name| *name != "message_type" && verb != "cat") {
            assert!(text.contains(&format!("`{name}`")), "{verb}: {message_type} has {name}, json.md not");
        }
        message_type
    }
}

struct Place {
    directory: TempDir,
    document: Document,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, document: Document::read() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a verb with `--json`; answers the messages of standard output.
    fn run(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let output = Command::new(assert_cmd::cargo::cargo_bin("carrack"))
            .args(arguments)
            .arg("--json")
            .env_clear()
            .env("CARRACK_PASSWORD", "correct")
            .env("CARRACK_REPOSITORY", self.path("repository"))
            .output()
            .expect("the program was built: cargo build -p carrack-mover");
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        let types: Vec<String> = out.lines().map(|line| self.document.check(arguments[0], line)).collect();
        let errors: Vec<String> = err.lines().map(|line| self.document.check(arguments[0], line)).collect();
        if matches!(code, 0 | 3 | 14) {
            assert_eq!(types.last().map(String::as_str), Some("summary"), "{arguments:?}\n{out}");
            assert_eq!(types.iter().filter(|kind| *kind == "summary").count(), 1, "{arguments:?}\n{out}");
        } else {
            assert_eq!(errors.last().map(String::as_str), Some("exit_error"), "{arguments:?}\n{err}");
        }
        out.lines().map(|line| serde_json::from_str(line).expect("it was read before")).collect()
    }

    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        fn below(path: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                match entry.path() {
                    directory if directory.is_dir() => below(&directory, found),
                    file => found.push(file),
                }
            }
        }
        let mut found = Vec::new();
        below(&self.path("repository").join(folder), &mut found);
        found
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn every_verb_speaks_as_documented() {
    let place = Place::new();
    let (source, target, second) = (place.path("source"), place.path("target"), place.path("second"));
    fs::create_dir(&source).expect("makes");
    fs::write(source.join("file"), "first ".repeat(1000)).expect("writes");
    std::os::unix::fs::symlink("file", source.join("link")).expect("links");
    fs::write(&second, "another").expect("writes");
    place.run(&["snapshots"], 10);
    place.run(&["init"], 0);
    place.run(&["backup", text(&source)], 0);
    fs::write(source.join("file"), "second ".repeat(1000)).expect("writes");
    place.run(&["backup", text(&source), "--dry-run"], 0);
    place.run(&["backup", text(&source)], 0);
    let snapshots = place.run(&["snapshots"], 0);
    let id = |index: usize| snapshots[index]["id"].as_str().expect("an id");
    place.run(&["ls", "latest"], 0);
    let found = place.run(&["find", "file"], 0);
    assert_eq!((found.len(), &found[2]["matches"]), (3, &Value::from(2)));
    let changes = place.run(&["diff", id(0), id(1), "--metadata"], 0);
    assert!(changes.iter().any(|change| change["modifier"] == "M"), "{changes:?}");
    place.run(&["cat", "snapshot", "latest"], 0);
    place.run(&["cat", "config"], 0);
    place.run(&["restore", "latest", "--target", text(&target), "--verify"], 0);
    place.run(&["stats"], 0);
    place.run(&["repo", "info"], 0);
    place.run(&["repo", "merge-index"], 0);
    place.run(&["copy"], 2);
    copies_speak_as_documented(&place, &source);
    let added = place.run(&["key", "add", "--label", "second", "--new-password-file", text(&second)], 0);
    place.run(&["key", "list"], 0);
    place.run(&["key", "remove", added[0]["key"].as_str().expect("an id")], 0);
    place.run(&["key", "remove", "nothing"], 10);
    place.run(&["key", "bundle", "--host", "one", "--path", "/srv"], 0);
    place.run(&["forget", "--pin", id(0)], 0);
    assert_eq!(place.run(&["snapshots"], 0)[0]["pinned"], true);
    place.run(&["forget", id(0)], 11);
    place.run(&["forget", "--unpin", id(0)], 0);
    place.run(&["forget", "--keep-last", "1", "--dry-run"], 0);
    let gone = place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(gone.last().expect("a summary")["forgotten"], serde_json::json!([id(0)]));
    place.run(&["prune", "--dry-run"], 0);
    place.run(&["prune"], 0);
    place.run(&["key", "rotate", "--dry-run"], 0);
    place.run(&["key", "rotate"], 0);
}

/// From the repository into a second one.
fn copies_speak_as_documented(place: &Place, source: &Path) {
    let (copies, password) = (place.path("copies"), place.path("password"));
    fs::write(&password, "correct").expect("writes");
    let copy = ["copy", "-r", text(&copies), "--from-repo", text(&place.path("repository"))]
        .map(str::to_owned)
        .into_iter()
        .chain(["--from-password-file".to_owned(), text(&password).to_owned()])
        .collect::<Vec<_>>();
    let copy = |more: &[&str], code| {
        let arguments: Vec<&str> = copy.iter().map(String::as_str).chain(more.iter().copied()).collect();
        place.run(&arguments, code)
    };
    copy(&[], 10);
    place.run(&["init", "-r", text(&copies)], 0);
    let planned = copy(&["--dry-run"], 0);
    assert_eq!(planned[0]["copy"].as_array().map(Vec::len), Some(2), "{planned:?}");
    assert_eq!(planned[0]["copy"][0]["paths"][0], text(source));
    let copied = copy(&[], 0);
    let kinds: Vec<&str> = copied
        .iter()
        .filter_map(|message| message["message_type"].as_str())
        .filter(|kind| *kind != "status")
        .collect();
    assert_eq!(kinds, ["copied", "copied", "summary"]);
    let again = copy(&[], 0);
    assert_eq!(
        again.last().map(|summary| (&summary["copied"], &summary["present"])),
        Some((&0.into(), &2.into()))
    );
}

#[test]
fn a_check_names_damage_and_marks_what_is_whole() {
    let place = Place::new();
    for source in ["one", "two"] {
        fs::create_dir(place.path(source)).expect("makes");
        fs::write(place.path(source).join("file"), source.repeat(10_000)).expect("writes");
    }
    place.run(&["init"], 0);
    place.run(&["backup", text(&place.path("one")), "--host", "one"], 0);
    let packs = place.objects("packs");
    place.run(&["backup", text(&place.path("two")), "--host", "two"], 0);
    let sample = place.run(&["check", "--read-data-subset", "50%"], 0);
    assert!(sample.last().expect("a summary")["sample"]["drawn"].as_u64() > Some(0), "{sample:?}");
    place.run(&["check", "--sizes"], 0);
    place.run(&["check", "--read-data", "--no-mark"], 0);
    assert_eq!(place.run(&["snapshots"], 0)[0]["verified"], Value::Null);
    let checked = place.run(&["check", "--read-data", "--host", "two"], 0);
    let summary = checked.last().expect("a summary");
    assert_eq!((&summary["snapshots"], &summary["marked"]), (&Value::from(1), &Value::from(1)));
    let verified: Vec<bool> =
        place.run(&["snapshots"], 0)[..2].iter().map(|snapshot| snapshot["verified"].is_string()).collect();
    assert_eq!(verified, [false, true]);
    fs::write(place.path("two/file"), "changed").expect("writes");
    place.run(&["backup", text(&place.path("two")), "--host", "two"], 0);
    let kept = place.run(&["forget", "--keep-last", "1", "--dry-run"], 0);
    assert_eq!(kept[1]["forgotten"], serde_json::json!([]), "the last verified one stays: {kept:?}");
    let latest = place.run(&["snapshots", "latest", "--host", "two"], 0);
    place.run(&["forget", latest[0]["id"].as_str().expect("an id")], 0);

    fs::remove_file(
        packs.iter().max_by_key(|pack| fs::metadata(pack).expect("a size").len()).expect("a pack"),
    )
    .expect("removes");
    let messages = place.run(&["check"], 14);
    let of =
        |kind: &str| messages.iter().filter(|message| message["message_type"] == kind).collect::<Vec<_>>();
    let (damage, verdicts) = (of("damage"), of("verdict"));
    assert_eq!((damage.len(), verdicts.len()), (1, 2), "{messages:?}");
    assert_eq!(damage[0]["snapshots_touched"], 1);
    let whole: Vec<&Value> = verdicts.iter().map(|verdict| &verdict["whole"]).collect();
    assert_eq!(whole, [false, true], "{verdicts:?}");
    place.run(&["check", "--host", "two"], 0);
    place.run(&["check", "--host", "one"], 14);
}

/// What is not the verbs' own is described with jobs, and the result is the last line whatever happens.
#[test]
fn a_job_speaks_as_documented() {
    let place = Place::new();
    let (job, password) = (place.path("job"), place.path("password"));
    fs::write(&password, "correct").expect("writes");
    let repository = place.path("repository");
    let task = |name: &str| format!(r#""task":{{"connect":{{"{name}":true}}}}"#);
    for (name, code) in [("initialise", 0), ("surprise", 2)] {
        let text = format!(
            r#"{{"version":1,"repository":{{"url":"{}"}},"keys":{{"passwordFile":"{}"}},{}}}"#,
            text(&repository),
            text(&password),
            task(name)
        );
        fs::write(&job, text).expect("writes");
        let output = Command::new(assert_cmd::cargo::cargo_bin("carrack"))
            .arg("job")
            .arg(&job)
            .arg("--result")
            .arg(place.path("result"))
            .env_clear()
            .output()
            .expect("the program was built: cargo build -p carrack-mover");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let own =
            out.lines().filter(|line| ["\"step\"", "\"result\""].iter().any(|kind| line.contains(kind)));
        let types: Vec<String> = own.map(|line| place.document.check("job", line)).collect();
        let wanted: &[&str] = if code == 0 { &["step", "result"] } else { &["result"] };
        assert_eq!(types, wanted, "{out}");
        assert!(out.lines().last().is_some_and(|line| line.contains("\"result\"")), "{out}");
    }
}
