//! `--json`: every line of every verb is a message that `mover/docs/json.md` describes, with every field, and the last
//! one is the summary; and every field that it describes is in a message, unless it says when.
//!
//! Needs root, FUSE, and the program beside the tests: `cargo build -p carrack-mover` first.

#![expect(clippy::panic, reason = "a test says what it expects by failing")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use carrack_tests::{
    images::in_private_mounts,
    program::{Running, signal, text, wait, wait_until},
    server::NOWHERE,
    trees::{files_below, noise},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// What all verbs have in common, as the document calls it.
const COMMON: &str = "All verbs";

/// The document: what it says of all verbs, and of one.
struct Document(String);

impl Document {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mover/docs/json.md");
        Self(fs::read_to_string(path).expect("the document"))
    }

    /// Titles with what stands below them.
    fn sections(&self) -> Vec<(&str, &str)> {
        let sections = self.0.split("\n## ").skip(1);
        sections.map(|section| section.split_once('\n').expect("a title, and more")).collect()
    }

    /// Which messages a section describes, and in what words.
    fn messages<'d>(&self, section: &'d str) -> Vec<(&'d str, &'d str)> {
        let pieces = section.split("**`").skip(1);
        pieces.map(|piece| piece.split_once("`**").expect("the end of a title")).collect()
    }

    /// The title below which a message of a verb is described, and the words.
    fn message(&self, verb: &str, message_type: &str) -> (String, String) {
        // A forget may go on to prune.
        let further = if verb == "forget" { "prune" } else { "" };
        let sections = self.sections();
        for title in [verb, COMMON, further] {
            let section = sections.iter().find(|(name, _)| *name == title).map_or("", |(_, text)| text);
            let words: Vec<&str> = self
                .messages(section)
                .into_iter()
                .filter(|(name, _)| *name == message_type)
                .map(|(_, text)| text)
                .collect();
            if !words.is_empty() {
                return (title.to_owned(), words.concat());
            }
        }
        panic!("{verb} prints {message_type}, which json.md does not have");
    }

    /// Fields of each message of each section that must be in a message of some run: those of which it is not said when
    /// they are there.
    fn promised(&self) -> BTreeMap<(String, String), BTreeSet<String>> {
        let mut promised: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (title, section) in self.sections() {
            for (message_type, words) in self.messages(section) {
                let fields = promised.entry((title.to_owned(), message_type.to_owned())).or_default();
                let pieces: Vec<&str> = words.split('`').collect();
                for quoted in pieces.windows(2).skip(1).step_by(2) {
                    let is_name = |text: &str| {
                        text.chars().all(|c| c.is_ascii_alphabetic() || c == '_' || c.is_ascii_digit())
                    };
                    if is_name(quoted[0]) && !quoted[1].starts_with(" (only ") {
                        fields.insert(quoted[0].to_owned());
                    }
                }
            }
        }
        promised
    }
}

/// Fields of a message, those of what it contains among them.
fn fields_of(message: &Value, found: &mut BTreeSet<String>) {
    match message {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            fields_of(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| fields_of(value, found)),
        _ => {}
    }
}

struct Place {
    directory: TempDir,
    document: Document,
    /// Fields that were met, by the title and the type of their message.
    met: RefCell<BTreeMap<(String, String), BTreeSet<String>>>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, document: Document::read(), met: RefCell::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Compares a line with the document; gives its type.
    fn check(&self, verb: &str, line: &str) -> String {
        let message: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{verb}: {line}: {error}"));
        let fields = message.as_object().unwrap_or_else(|| panic!("{verb}: {line} is no object"));
        let message_type = fields["message_type"].as_str().expect("a type").to_owned();
        let (title, text) = self.document.message(verb, &message_type);
        // Records are described with the format.
        for name in fields.keys().filter(|name| *name != "message_type" && verb != "cat") {
            assert!(text.contains(&format!("`{name}`")), "{verb}: {message_type} has {name}, json.md not");
        }
        let mut met = self.met.borrow_mut();
        fields_of(&message, met.entry((title, message_type.clone())).or_default());
        message_type
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("carrack"));
        command.args(arguments).arg("--json").env_clear().env("CARRACK_PASSWORD", "correct");
        command.env("CARRACK_REPOSITORY", self.path("repository"));
        command
    }

    /// Runs a verb with `--json`; answers the messages of standard output.
    fn run(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let output =
            self.command(arguments).output().expect("the program was built: cargo build -p carrack-mover");
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        let types: Vec<String> = out.lines().map(|line| self.check(arguments[0], line)).collect();
        let errors: Vec<String> = err.lines().map(|line| self.check(arguments[0], line)).collect();
        if matches!(code, 0 | 3 | 14) {
            assert_eq!(types.last().map(String::as_str), Some("summary"), "{arguments:?}\n{out}");
            assert_eq!(types.iter().filter(|kind| *kind == "summary").count(), 1, "{arguments:?}\n{out}");
        } else {
            assert_eq!(errors.last().map(String::as_str), Some("exit_error"), "{arguments:?}\n{err}");
        }
        out.lines().map(|line| serde_json::from_str(line).expect("it was read before")).collect()
    }

    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        files_below(&self.path("repository").join(folder))
    }
}

/// Messages of one type.
fn of<'m>(messages: &'m [Value], message_type: &str) -> Vec<&'m Value> {
    messages.iter().filter(|message| message["message_type"] == message_type).collect()
}

#[test]
fn every_verb_speaks_as_documented_and_every_field_is_spoken() {
    let mut met: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for scenario in [verbs, check_and_damage, a_job, upkeep, long_work, a_mount] {
        let place = Place::new();
        scenario(&place);
        for (message, fields) in place.met.take() {
            met.entry(message).or_default().extend(fields);
        }
    }
    let mut unspoken = Vec::new();
    for ((title, message_type), promised) in Document::read().promised() {
        let fields = met.remove(&(title.clone(), message_type.clone())).unwrap_or_default();
        // Records are described with the format.
        if title != "cat" && (fields.is_empty() || !promised.is_subset(&fields)) {
            let missing: Vec<String> = promised.difference(&fields).cloned().collect();
            unspoken.push((title, message_type, missing));
        }
    }
    assert!(unspoken.is_empty(), "json.md promises what no run has printed: {unspoken:?}");
}

fn verbs(place: &Place) {
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
    fs::write(target.join("other"), "not in the snapshot").expect("writes");
    let dry = place.run(&["restore", "latest", "--target", text(&target), "--delete", "-n"], 0);
    assert_eq!(of(&dry, "would_delete").len(), 1, "{dry:?}");
    assert_eq!(of(&dry, "would_delete")[0]["item"], "other");
    one_file(place, &source);
    place.run(&["stats"], 0);
    place.run(&["repo", "info"], 0);
    place.run(&["repo", "merge-index"], 0);
    place.run(&["copy"], 2);
    copies_speak_as_documented(place, &source);
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
    let emptied = place.run(&["forget", "--keep-tag", "none", "--dry-run"], 2);
    assert_eq!(emptied[0]["emptied"][0]["source"], "files", "{emptied:?}");
    let named = place.run(&["forget", id(0), "--dry-run"], 0);
    assert_eq!(named[0]["decisions"].as_array().map(Vec::len), Some(1), "{named:?}");
    assert_eq!(
        (&named[0]["decisions"][0]["session"], &named[0]["decisions"][0]["paths"][0]),
        (&snapshots[0]["session"], &text(&source).into())
    );
    let gone = place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(gone.last().expect("a summary")["forgotten"], serde_json::json!([id(0)]));
    place.run(&["prune", "--dry-run"], 0);
    place.run(&["prune"], 0);
    place.run(&["key", "rotate", "--dry-run"], 0);
    place.run(&["key", "rotate"], 0);
    place.run(&["completions", "bash"], 2);
    place.run(&["man"], 2);
}

/// What has data on standard output has its messages beside it.
fn one_file(place: &Place, source: &Path) {
    let file = format!("latest:{}", source.join("file").display());
    for arguments in [&["cat", "file", &file][..], &["restore", &file, "--target", "-"]] {
        let output = place.command(arguments).output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout == "second ".repeat(1000).as_bytes(), "{arguments:?} prints something else");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        let types: Vec<String> = err.lines().map(|line| place.check(arguments[0], line)).collect();
        let summaries = types.iter().filter(|kind| *kind == "summary").count();
        assert_eq!(summaries, usize::from(arguments[0] == "restore"), "{err}");
    }
    place.run(&["cat", "file", "latest:/no/such/file"], 10);
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

fn check_and_damage(place: &Place) {
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
    let (damage, verdicts) = (of(&messages, "damage"), of(&messages, "verdict"));
    assert_eq!((damage.len(), verdicts.len()), (1, 2), "{messages:?}");
    assert_eq!(damage[0]["snapshots_touched"], 1);
    let (found, touched) = (of(&messages, "found"), of(&messages, "touched"));
    assert_eq!((found.len(), &found[0]["object"]), (1, &damage[0]["object"]));
    // It was the tree: nobody knows what was in it, so the stretch has no names and no number.
    assert_eq!((touched.len(), &touched[0]["entries"]), (1, &damage[0]["files_touched"]));
    let (one, all) = (&touched[0], &damage[0]["files"][0]);
    assert_eq!(
        ["snapshot", "path", "to"].map(|field| &one[field]),
        ["snapshot", "path", "to"].map(|field| &all[field])
    );
    let whole: Vec<&Value> = verdicts.iter().map(|verdict| &verdict["whole"]).collect();
    assert_eq!(whole, [false, true], "{verdicts:?}");
    place.run(&["check", "--host", "two"], 0);
    place.run(&["check", "--host", "one"], 14);
}

/// What is not the verbs' own is described with jobs, and the result is the last line whatever happens.
fn a_job(place: &Place) {
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
        let types: Vec<String> = own.map(|line| place.check("job", line)).collect();
        let wanted: &[&str] = if code == 0 { &["step", "result"] } else { &["result"] };
        assert_eq!(types, wanted, "{out}");
        assert!(out.lines().last().is_some_and(|line| line.contains("\"result\"")), "{out}");
    }
}

/// What is out of view and comes back, and the index.
fn upkeep(place: &Place) {
    let source = place.path("source");
    fs::create_dir(&source).expect("makes");
    fs::write(source.join("file"), "contents ".repeat(1000)).expect("writes");
    place.run(&["init"], 0);
    for dry in [&["--dry-run"][..], &[]] {
        place.run(&["backup", text(&source)], 0);
        for verb in ["merge-index", "repair-index"] {
            let done = place.run(&[&["repo", verb], dry].concat(), 0);
            let summary = done.last().expect("a summary");
            assert_eq!(summary["dry_run"], !dry.is_empty());
            assert_eq!(summary["rows"].as_u64() > Some(0), dry.is_empty(), "{verb}: {summary}");
        }
    }
    let listed = place.run(&["snapshots"], 0);
    place.run(&["forget", listed[0]["id"].as_str().expect("an id")], 0);
    let hidden = place.run(&["repo", "revive"], 0);
    assert_eq!((&hidden[0]["session"], &hidden[0]["forgotten"]), (&listed[0]["session"], &true.into()));
    let revived = place.run(&["repo", "revive", hidden[0]["id"].as_str().expect("an id")], 0);
    let summary = revived.last().expect("a summary");
    let from = &of(&revived, "revived")[0]["from"];
    assert_eq!((from, &summary["revived"]), (&hidden[0]["id"], &1.into()));
    assert_eq!(place.run(&["snapshots"], 0).last().expect("a summary")["snapshots"], 2);
    // What claims to take something out of view and cannot prove it.
    fs::create_dir_all(place.path("repository/forgotten")).expect("makes");
    let forged = format!("repository/forgotten/{}", listed[1]["session"].as_str().expect("a name"));
    fs::write(place.path(&forged), "forged").expect("writes");
    let plan = place.run(&["prune", "--dry-run"], 3);
    assert_eq!(of(&plan, "prune_plan")[0]["unproven"], 1, "{plan:?}");
}

/// So slow that it says how far it is, and a store that does not answer.
fn long_work(place: &Place) {
    let source = place.path("source");
    fs::create_dir(&source).expect("makes");
    place.run(&["init"], 0);
    for (seed, limit) in [(1, "1GiB"), (2, "4MiB")] {
        fs::write(source.join("file"), noise(seed, 16 << 20)).expect("writes");
        let said = place.run(&["backup", text(&source), "--limit-upload", limit], 0);
        if limit == "4MiB" {
            let guessed = of(&said, "status").iter().any(|status| status["seconds_remaining"].is_number());
            assert!(guessed, "nothing says how long it takes: {said:?}");
        }
    }
    let endpoint = format!("http://{NOWHERE}");
    let mut command = place.command(&["-r", "s3://bucket/prefix", "--endpoint", &endpoint, "snapshots"]);
    command
        .env("AWS_ACCESS_KEY_ID", "one")
        .env("AWS_SECRET_ACCESS_KEY", "two")
        .env("AWS_REGION", "us-east-1");
    let mut child = Running::start(command.stdin(Stdio::null()));
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("it says something");
    assert_eq!(place.check("snapshots", &line), "waiting");
}

fn a_mount(place: &Place) {
    let (source, point) = (place.path("source"), place.path("mounted"));
    fs::create_dir(&source).expect("makes");
    fs::create_dir(&point).expect("makes");
    place.run(&["init"], 0);
    place.run(&["backup", text(&source)], 0);
    let printed = in_private_mounts({
        let mut command = place.command(&["mount", text(&point)]);
        move || {
            let child = Running::start(command.stdin(Stdio::null()));
            wait_until(|| fs::symlink_metadata(point.join("latest")).is_ok()).expect("it is mounted");
            signal(&child, Signal::INT).expect("sends");
            wait(child, 0)
        }
    });
    let types: Vec<String> = printed.out.lines().map(|line| place.check("mount", line)).collect();
    assert_eq!(types, ["mounted", "summary"]);
}
