//! The program itself on files that somebody has changed: the secret that opens a repository, what this machine has seen
//! of it, and jobs of a controller. It ends with a code of its own and says why, whatever is in them.
//!
//! Needs the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use carrack_fuzz::{Mutator, seed};
use tempfile::TempDir;

/// Changes of each file.
const ROUNDS: u64 = 60;

/// A repository that a key file opens, with one snapshot that this machine remembers.
struct Place {
    directory: TempDir,
    seed: u64,
}

impl Place {
    fn new() -> Self {
        let place =
            Self { directory: TempDir::with_prefix("carrack-fuzz-").expect("a directory"), seed: seed() };
        // An abort leaves no other word of it, and nothing that the harness has kept.
        writeln!(io::stderr(), "fuzz: CARRACK_FUZZ_SEED={}", place.seed).expect("it is written");
        fs::write(place.path("key"), "0123456789abcdef".repeat(4)).expect("writes");
        fs::create_dir_all(place.path("source")).expect("makes");
        fs::write(place.path("source/file"), b"contents").expect("writes");
        let source = place.path("source");
        for arguments in [&["init"][..], &["backup", source.to_str().expect("UTF-8")], &["snapshots"]] {
            assert_eq!(place.run(arguments).status.code(), Some(0), "{arguments:?}");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let tests = env::current_exe().expect("a path");
        let built = tests.parent().and_then(Path::parent).expect("it lies among what is built");
        let mut command = Command::new(built.join("carrack"));
        command.env_clear().env("CARRACK_STATE_DIR", self.path("state")).current_dir(self.directory.path());
        command
    }

    /// With what opens the repository.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.env("CARRACK_REPOSITORY", self.path("repository")).env("CARRACK_KEY_FILE", self.path("key"));
        command.args(arguments).output().expect("the program was built: cargo build -p carrack-mover")
    }

    /// The file in which the machine keeps what it has seen.
    fn last_seen(&self) -> PathBuf {
        let mut files =
            fs::read_dir(self.path("state")).expect("lists").map(|file| file.expect("reads").path());
        files.find(|path| path.extension().is_some_and(|name| name == "json")).expect("it was written")
    }

    /// Writes one change after the other of `inputs` to `file`, and runs the program on it: it ends with one of these
    /// codes. As it was, it ends with 0; tells how often it did afterwards.
    fn changed(&self, file: &Path, inputs: &[Vec<u8>], codes: &[i32], run: impl Fn() -> Output) -> u64 {
        let judged = |input: &[u8], codes: &[i32], what: String| {
            fs::write(file, input).expect("writes");
            let output = run();
            let (code, told) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
            let ended = code.is_some_and(|code| codes.contains(&code)) && !told.contains("panicked");
            assert!(ended, "{what}: {:?} {told}\n{}", output.status, hex::encode(input));
            // Whoever is refused is told why.
            assert!(
                code == Some(0) || told.contains("carrack: ") || told.contains("exit_error"),
                "{what}: {told}"
            );
            u64::from(code == Some(0))
        };
        for input in inputs {
            assert_eq!(judged(input, &[0], "as it was".to_owned()), 1);
        }
        let mut done = 0;
        for round in 0..ROUNDS {
            let mut mutator = Mutator::new(self.seed.wrapping_mul(1 << 32) + round);
            let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
            let input = mutator.change(&inputs[one], &inputs[other]);
            done += judged(&input, codes, format!("round {round} of CARRACK_FUZZ_SEED={}", self.seed));
        }
        done
    }
}

/// A key that is another one opens nothing; what is no key is refused as such.
#[test]
fn any_bytes_may_be_in_a_key_file() {
    let place = Place::new();
    let key = fs::read(place.path("key")).expect("reads");
    let inputs =
        [key.clone(), [&key[..], b"\n"].concat(), [&b" "[..], &key.to_ascii_uppercase(), b"\r\nx"].concat()];
    let file = place.path("key");
    let opened = place.changed(&file, &inputs, &[0, 2, 13], || place.run(&["snapshots"]));
    assert!(opened < ROUNDS, "every key opens it");
}

#[test]
fn any_bytes_may_be_in_a_password_file() {
    let place = Place::new();
    let file = place.path("password");
    fs::write(&file, b"correct").expect("writes");
    let name = file.to_str().expect("UTF-8");
    let run = |verb: &'static str| {
        let mut command = place.command();
        command.args(["-r", "other", "--password-file", name, verb]);
        command.output().expect("it was built")
    };
    assert_eq!(run("init").status.code(), Some(0));
    let inputs = [b"correct".to_vec(), b"correct\n".to_vec(), b"correct\r\nmore".to_vec()];
    let opened = place.changed(&file, &inputs, &[0, 2, 13], || run("snapshots"));
    assert!(opened < ROUNDS, "every password opens it");
}

/// What was remembered is a hint: at the worst, a warning that is not true.
#[test]
fn any_bytes_may_be_in_what_was_remembered() {
    let place = Place::new();
    let file = place.last_seen();
    let inputs = [fs::read(&file).expect("reads"), br#"{"newest":[]}"#.to_vec()];
    place.changed(&file, &inputs, &[0, 3], || place.run(&["snapshots"]));
}

/// Whatever the job, there is a result of it, which says the same as the exit code.
#[test]
fn any_bytes_may_be_in_a_job() {
    let place = Place::new();
    let (file, result) = (place.path("job"), place.path("result"));
    let job = |task: &str| {
        format!(
            r#"{{"version":1,"repository":{{"url":"repository","maxRequests":8}},"keys":{{"keyFile":"key"}},
                "resources":{{"memoryBytes":67108864,"threads":1}},"task":{task}}}"#
        )
        .into_bytes()
    };
    let inputs = [job(r#"{"connect":{"initialise":false}}"#), job(r#"{"maintain":{"checkPercent":0}}"#)];
    let codes = [0, 2, 3, 10, 11, 12, 13, 14, 15];
    place.changed(&file, &inputs, &codes, || {
        fs::remove_file(&result).ok();
        let mut command = place.command();
        let output = command.args(["job", "job", "--result", "result"]).output().expect("it was built");
        let text = fs::read(&result).expect("a result");
        let said: serde_json::Value = serde_json::from_slice(&text).expect("a result is JSON");
        assert_eq!(said["exitCode"].as_i64(), output.status.code().map(i64::from), "{said}");
        assert!(text.len() <= 4096 && said["outcome"].is_string(), "{said}");
        output
    });
}
