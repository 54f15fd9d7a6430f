//! An internal contradiction ends a verb with a report that can be sent to anybody, and leaves the repository whole: at the
//! first and at ever later requests of most verbs, and of six of them on a real service.
//!
//! Needs root, FUSE, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use carrack_tests::{
    images::{in_private_mounts, is_mounted},
    minio::{MinioServer, SECRET_KEY},
    place::program,
    program::{Printed, Running, ended, signal, wait_until},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// It stands in whatever a user has named: the repository, the source, the target. Not in a report.
const NAME: &str = "a-name-of-nobody-else";
/// What nobody may read anywhere.
const PASSWORD: &str = "a password of nobody else";
const SECOND: &str = "a further password of nobody else";
/// What the program calls a defect of its own.
const INTERNAL: i32 = 70;

const CONTRADICTION: &str = "contradiction";
/// An error of the engine about itself, a panic whose message was put together, and one whose message is in the program.
const KINDS: &[&str] = &[CONTRADICTION, "words", "panic"];
/// Requests that change the repository, and those that read it.
const SIDES: [&str; 2] = ["change", "read"];
/// So many requests no verb here sends before one of them must be a defect.
const FAR: u64 = 5000;

/// Repositories next to each other, and what is backed up into them.
struct Stage {
    directory: TempDir,
    /// What the places of repositories begin with.
    base: String,
    /// How they are reached.
    variables: Vec<(&'static str, String)>,
    used: Cell<u32>,
}

impl Stage {
    fn local() -> Self {
        let directory = TempDir::with_prefix(format!("carrack-{NAME}-")).expect("a directory");
        let base = directory.path().display().to_string();
        Self::with(directory, base, Vec::new())
    }

    fn on(server: &MinioServer) -> Self {
        let variables = vec![
            ("CARRACK_S3_ENDPOINT", server.url()),
            ("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file().display().to_string()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        let directory = TempDir::with_prefix(format!("carrack-{NAME}-")).expect("a directory");
        Self::with(directory, server.repository(NAME), variables)
    }

    /// With three repositories, in one of which is a snapshot.
    fn with(directory: TempDir, base: String, variables: Vec<(&'static str, String)>) -> Self {
        let stage = Self { directory, base, variables, used: Cell::new(0) };
        fs::create_dir(stage.path("source")).expect("makes");
        fs::write(stage.path("password"), PASSWORD).expect("writes");
        fs::write(stage.path("second"), SECOND).expect("writes");
        for repository in ["main", "copies", "keys"] {
            stage.run(repository, &["init"], 0);
        }
        stage.back_up("main");
        stage.back_up("keys");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn place(&self, repository: &str) -> String {
        format!("{}/{repository}", self.base)
    }

    /// A name that was not used yet.
    fn fresh(&self, name: &str) -> String {
        self.used.set(self.used.get() + 1);
        format!("{name}-{}", self.used.get())
    }

    /// The program, not started yet.
    fn command<A: AsRef<str>>(&self, repository: &str, arguments: &[A]) -> Command {
        // Whoever runs the tests may have signals ignored, as nohup does, and programs inherit that.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal").arg(program());
        command.args(arguments.iter().map(<A as AsRef<str>>::as_ref)).env_clear().stdin(Stdio::null());
        command.envs(self.variables.iter().cloned()).env("CARRACK_PASSWORD", PASSWORD);
        command.env("CARRACK_REPOSITORY", self.place(repository));
        command
    }

    fn run(&self, repository: &str, arguments: &[&str], code: i32) -> Printed {
        ended(&mut self.command(repository, arguments), code)
    }

    /// Has something new in the source.
    fn write(&self) {
        let contents = format!("{} ", self.fresh("contents")).repeat(5000);
        for file in 0..5 {
            fs::write(self.path("source").join(format!("{file}")), format!("{file} {contents}"))
                .expect("writes");
        }
    }

    fn back_up(&self, repository: &str) {
        self.write();
        self.run(repository, &["backup", &self.text("source")], 0);
    }

    fn is_whole(&self, repository: &str) {
        self.run(repository, &["check", "--read-data", "--no-mark"], 0);
    }
}

/// A command line, and the repository that it works on.
struct Trial {
    repository: String,
    arguments: Vec<String>,
}

/// A verb that is to meet defects.
struct Verb<'s> {
    name: &'static str,
    changes: bool,
    /// Codes with which the same command line ends after a defect: what was to be done may have been done already.
    next: &'static [i32],
    /// Has something for it to do.
    prepare: Box<dyn Fn() -> Trial + 's>,
}

impl<'s> Verb<'s> {
    /// One that changes the repository.
    fn writing(
        name: &'static str,
        next: &'static [i32],
        prepare: impl Fn() -> (String, Vec<String>) + 's,
    ) -> Self {
        let prepare = Box::new(move || {
            let (repository, arguments) = prepare();
            Trial { repository, arguments }
        });
        Self { name, changes: true, next, prepare }
    }

    /// One that only reads it, and does the same again.
    fn reading(name: &'static str, prepare: impl Fn() -> (String, Vec<String>) + 's) -> Self {
        Self { changes: false, ..Self::writing(name, &[0], prepare) }
    }
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| (*word).to_owned()).collect()
}

/// Verbs that write what is new.
fn writers(stage: &Stage) -> Vec<Verb<'_>> {
    vec![
        Verb::writing("init", &[0, 11], move || (stage.fresh("new"), words(&["init"]))),
        Verb::writing("backup", &[0], move || {
            stage.write();
            ("main".to_owned(), words(&["backup", &stage.text("source")]))
        }),
        Verb::writing("copy", &[0], move || {
            stage.back_up("main");
            let from = ["copy", "--from-repo", &stage.place("main")];
            let password = ["--from-password-file", &stage.text("password")];
            ("copies".to_owned(), words(&[&from[..], &password].concat()))
        }),
    ]
}

/// Verbs that take something away, and those that put in order.
fn keepers(stage: &Stage) -> Vec<Verb<'_>> {
    vec![
        Verb::writing("forget", &[0], move || {
            stage.back_up("main");
            // The sessions of those that ended so are not waited for.
            let prune = ["forget", "--keep-last", "1", "--prune", "--fence-after", "1s"];
            ("main".to_owned(), words(&prune))
        }),
        Verb::writing("prune", &[0], move || {
            stage.back_up("main");
            stage.run("main", &["forget", "--keep-last", "1"], 0);
            ("main".to_owned(), words(&["prune", "--fence-after", "1s"]))
        }),
        Verb::writing("check", &[0], move || {
            stage.back_up("main");
            ("main".to_owned(), words(&["check", "--read-data"]))
        }),
        Verb::writing("repo repair-index", &[0], move || {
            stage.back_up("main");
            ("main".to_owned(), words(&["repo", "repair-index"]))
        }),
    ]
}

fn keys(stage: &Stage) -> Vec<Verb<'_>> {
    let add = move || ["key", "add", "--new-password-file", &stage.text("second")].map(str::to_owned);
    vec![
        Verb::writing("key add", &[0], move || {
            // Each key costs whoever opens the repository some time; this leaves one.
            stage.run("keys", &["key", "rotate"], 0);
            ("keys".to_owned(), add().to_vec())
        }),
        Verb::writing("key remove", &[0, 10], move || {
            stage.run("keys", &["key", "rotate"], 0);
            let added = ended(stage.command("keys", &add()).arg("--json"), 0).message("summary");
            ("keys".to_owned(), words(&["key", "remove", added["key"].as_str().expect("an id")]))
        }),
        Verb::writing("key rotate", &[0], move || ("keys".to_owned(), words(&["key", "rotate"]))),
    ]
}

fn readers(stage: &Stage) -> Vec<Verb<'_>> {
    let of = |arguments: &'static [&'static str]| move || ("main".to_owned(), words(arguments));
    vec![
        Verb::reading("restore", move || {
            let target = stage.text(&stage.fresh("target"));
            ("main".to_owned(), words(&["restore", "latest", "--target", &target, "--verify"]))
        }),
        Verb::reading("snapshots", of(&["snapshots"])),
        Verb::reading("find", of(&["find", "4"])),
        Verb::reading("stats", of(&["stats"])),
        Verb::reading("key list", of(&["key", "list"])),
    ]
}

/// Each of the first requests, then ever later ones.
fn places() -> impl Iterator<Item = u64> {
    [0, 1, 2].into_iter().chain((1..).map(|power| (1 << power) + 1))
}

/// Has a verb meet a defect at the first request of a side and at ever later ones, until one comes to its end without any;
/// gives how many of them ended with a report. Of each place comes one kind in turn, and all of them of the first if it is so
/// wanted.
fn meet(stage: &Stage, verb: &Verb<'_>, side: &str, all_kinds: bool) -> usize {
    let mut reports = 0;
    for (index, at) in places().enumerate() {
        let in_turn = index % KINDS.len();
        let kinds = if all_kinds && index == 0 { KINDS } else { &KINDS[in_turn..=in_turn] };
        for kind in kinds {
            let Trial { repository, arguments } = (verb.prepare)();
            let mut command = stage.command(&repository, &arguments);
            let output =
                command.env("CARRACK_DEFECT", format!("{kind}:{side}:{at}")).output().expect("it runs");
            if output.status.success() {
                // What only saves work is done without where it fails in whatever way; nothing stops a panic.
                if *kind == CONTRADICTION && at < FAR {
                    continue;
                }
                stage.is_whole(&repository);
                return reports;
            }
            is_reported(verb.name, kind, &output);
            reports += 1;
            let again = stage.command(&repository, &arguments).output().expect("it runs");
            let code = again.status.code().expect("it ends by itself");
            assert!(verb.next.contains(&code), "{} after {kind}:{side}:{at}: {again:?}", verb.name);
            // Behind defects of reading it is looked at once, at the end.
            if side == "change" {
                stage.is_whole(&repository);
            }
        }
    }
    unreachable!("it ends with the last request")
}

/// A report in words, and nothing that is secret.
fn is_reported(verb: &str, kind: &str, output: &Output) {
    let (out, err) = printed(output);
    assert_eq!(output.status.code(), Some(INTERNAL), "{verb}, {kind}: {out}\n{err}");
    let heading = "Please report the lines below.";
    assert!(err.contains(heading), "{verb}, {kind}: {err}");
    let (above, report) = err.split_once(heading).expect("it is there");
    assert!(above.contains("asked for") && above.contains("next: "), "{verb}, {kind}: {err}");
    assert!(above.contains("please send the report"), "{verb}, {kind}: {err}");
    // What was put together is told to whom it belongs.
    assert!(kind == "panic" || above.contains(NAME), "{verb}, {kind}: {err}");
    can_be_sent(verb, kind, report);
}

/// Everything that was printed, without a secret in it.
fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for secret in [PASSWORD, SECOND, SECRET_KEY] {
        assert!(!out.contains(secret) && !err.contains(secret), "{secret} is printed: {out}\n{err}");
    }
    (out, err)
}

fn can_be_sent(verb: &str, kind: &str, report: &str) {
    let message = match kind {
        "panic" => "message: a defect was asked for",
        "words" => "message: left out",
        _ => "message: a contradiction was asked for",
    };
    let verb = format!("verb: {verb}\n");
    for part in ["version: ", "system: ", &verb, "place: mover/src/cli/defect.rs:", message] {
        assert!(report.contains(part), "{part} is missing, {kind}: {report}");
    }
    for part in ["thread: ", "backtrace: "] {
        assert_eq!(report.contains(part), kind != CONTRADICTION, "{part} of {kind}: {report}");
    }
    assert!(!report.contains(NAME), "{report}");
}

/// Both sides of these verbs.
fn all_meet(stage: &Stage, verbs: &[Verb<'_>], all_kinds: bool) {
    for verb in verbs {
        for side in SIDES {
            let reports = meet(stage, verb, side, all_kinds && side == "change");
            let is_met = side == "read" || verb.changes;
            assert_eq!(reports > 0, is_met, "{} met {reports} at a {side}", verb.name);
        }
    }
}

#[test]
fn a_defect_of_a_verb_that_writes_leaves_the_repository_whole() {
    let stage = Stage::local();
    all_meet(&stage, &writers(&stage), true);
}

#[test]
fn a_defect_of_a_verb_that_takes_away_leaves_the_repository_whole() {
    let stage = Stage::local();
    all_meet(&stage, &keepers(&stage), false);
}

#[test]
fn a_defect_of_a_change_of_keys_shuts_nobody_out() {
    let stage = Stage::local();
    all_meet(&stage, &keys(&stage), true);
}

#[test]
fn a_defect_of_a_verb_that_reads_is_reported_too() {
    let stage = Stage::local();
    all_meet(&stage, &readers(&stage), false);
}

#[test]
fn the_same_on_a_real_service() {
    let server = MinioServer::start().expect("a server");
    let stage = Stage::on(&server);
    let all = [writers(&stage), keepers(&stage), keys(&stage), readers(&stage)].into_iter().flatten();
    let some = ["init", "backup", "copy", "forget", "key rotate", "restore"];
    let verbs: Vec<Verb<'_>> = all.filter(|verb| some.contains(&verb.name)).collect();
    assert_eq!(verbs.len(), some.len());
    all_meet(&stage, &verbs, false);
}

/// The last line on standard error is a message with the report in it, and so is every other line.
fn is_told_to_programs(verb: &str, kind: &str, output: &Output) {
    let (out, err) = printed(output);
    assert_eq!(output.status.code(), Some(INTERNAL), "{verb}, {kind}: {out}\n{err}");
    let messages: Vec<Value> =
        err.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let last = messages.last().expect("a message");
    assert_eq!((&last["message_type"], &last["code"]), (&json!("exit_error"), &json!(INTERNAL)), "{err}");
    let message = last["message"].as_str().expect("a message");
    assert!(message.contains("asked for") && (kind == "panic" || message.contains(NAME)), "{err}");
    assert!(last["next"].as_str().is_some_and(|next| next.contains("please send the report")), "{err}");
    can_be_sent(verb, kind, last["report"].as_str().expect("a report"));
}

#[test]
fn programs_and_jobs_get_the_report_in_a_message() {
    let stage = Stage::local();
    let source = stage.text("source");
    let job = json!({
        "version": 1,
        "repository": { "url": stage.place("main") },
        "keys": { "passwordFile": stage.text("password") },
        "task": { "backup": {
            "source": { "host": "east", "place": { "directory": source } }, "tags": [], "exclude": [], "cloned": false
        } }
    });
    fs::write(stage.path("job"), job.to_string()).expect("writes");
    let (file, result) = (stage.text("job"), stage.path("result"));
    let by_job = ["job", &file, "--result", &stage.text("result")];
    for side in SIDES {
        for kind in KINDS {
            stage.write();
            let defect = format!("{kind}:{side}:0");
            let mut command = stage.command("main", &["backup", "--json", &source]);
            let output = command.env("CARRACK_DEFECT", &defect).output().expect("it runs");
            is_told_to_programs("backup", kind, &output);

            // A job says itself where its repository is.
            let mut command = stage.command("main", &by_job);
            command.env_remove("CARRACK_REPOSITORY").env_remove("CARRACK_PASSWORD");
            let output = command.env("CARRACK_DEFECT", &defect).output().expect("it runs");
            is_told_to_programs("job, backup", kind, &output);
            let told: Value =
                serde_json::from_slice(&fs::read(&result).expect("a result")).expect("a result in JSON");
            assert_eq!((&told["outcome"], &told["exitCode"]), (&json!("failed"), &json!(INTERNAL)), "{told}");
            assert!(told["message"].as_str().is_some_and(|message| message.contains("asked for")), "{told}");
            assert!(told["next"].as_str().is_some_and(|next| next.contains("the report")), "{told}");
            stage.is_whole("main");
            ended(command.env_remove("CARRACK_DEFECT"), 0);
        }
    }
    stage.is_whole("main");
}

/// Reads whatever can be read below a directory.
fn read_all(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => read_all(&entry.path()),
            Ok(kind) if kind.is_file() => drop(fs::read(entry.path())),
            _ => {}
        }
    }
}

/// Mounts with a defect, reads, and ends the mount if it is there still; whether it was there at all.
fn mounts(stage: &Stage, point: &Path, defect: &str) -> (bool, Output) {
    let mut command = stage.command("main", &["mount", point.to_str().expect("UTF-8")]);
    let mut child = Running::start(command.env("CARRACK_DEFECT", defect));
    let has_ended = |child: &mut Running| child.try_wait().is_ok_and(|ended| ended.is_some());
    wait_until(|| is_mounted(point) || has_ended(&mut child)).expect("it mounts, or ends");
    let was_mounted = is_mounted(point);
    if was_mounted {
        let below = point.to_owned();
        // What is mounted and answers nobody would hold whoever reads until its program is killed: a test that fails does that.
        let reading = thread::spawn(move || read_all(&below));
        wait_until(|| reading.is_finished()).expect("what is mounted answers");
        if is_mounted(point) {
            signal(&child, Signal::INT).expect("sends");
        }
    }
    wait_until(|| has_ended(&mut child)).expect("it ends");
    (was_mounted, child.wait_with_output())
}

#[test]
fn a_defect_ends_a_mount_and_leaves_nothing_of_it() {
    in_private_mounts(|| {
        let stage = Stage::local();
        let point = stage.path("mounted");
        fs::create_dir(&point).expect("makes");
        for kind in KINDS {
            let (mut before, mut behind) = (0, 0);
            for at in places() {
                let (was_mounted, output) = mounts(&stage, &point, &format!("{kind}:read:{at}"));
                assert!(!is_mounted(&point), "{kind}:read:{at} leaves a dead mount");
                assert_eq!(fs::read_dir(&point).expect("a directory that answers").count(), 0);
                if output.status.success() {
                    if *kind == CONTRADICTION && at < FAR {
                        continue;
                    }
                    break;
                }
                is_reported("mount", kind, &output);
                *(if was_mounted { &mut behind } else { &mut before }) += 1;
            }
            assert!(before > 0 && behind > 0, "{kind}: {before} before it was mounted, {behind} behind that");
        }
    });
}
