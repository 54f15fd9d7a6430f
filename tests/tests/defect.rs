//! An internal contradiction ends the command with a report that can be sent, and leaves the repository whole.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::fs;

use carrack_tests::{place::program, program::Program};

/// Nothing of this may stand in a report: it is what the user typed.
const TELLTALE: &str = "a-name-that-nobody-else-may-see";

fn source(program: &Program, changed: &str) -> std::path::PathBuf {
    let source = program.path(TELLTALE);
    fs::create_dir_all(&source).unwrap();
    for file in 0..20 {
        fs::write(source.join(format!("file{file}")), format!("{changed} {file}").repeat(5000)).unwrap();
    }
    source
}

/// Runs `arguments` with the defect at the first changes and at ever later ones, until a run comes to its end; gives how
/// many changes that had at least.
fn until_none_is_met(program: &Program, kind: &str, arguments: &[&str]) -> u64 {
    for at in [0, 1, 2, 3].into_iter().chain((2..).map(|power| (1 << power) + 1)) {
        let mut command = program.command(arguments);
        command.env("CARRACK_DEFECT", format!("{kind}:{at}")).env("RUST_BACKTRACE", "0");
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return at;
        }
        assert_eq!(output.status.code(), Some(70), "{kind}:{at}: {words}");
        assert!(words.contains("please report") && words.contains("next:"), "{words}");
        assert!(words.contains("asked for"), "{words}");
        if kind == "panic" {
            for part in ["version:", "system:", "thread:", "place: mover/src/", "backtrace:"] {
                assert!(words.contains(part), "{part} is missing: {words}");
            }
        }
        for secret in [program.password.as_str(), TELLTALE] {
            assert!(!words.contains(secret), "{secret}: {words}");
        }
        program.run(["check", "--read-data"], 0);
    }
    unreachable!("it ends with the last change")
}

#[test]
fn a_defect_at_any_change_is_reported_without_secrets_and_leaves_the_repository_whole() {
    for kind in ["panic", "contradiction"] {
        let program = Program::new(program()).unwrap();
        let first = source(&program, "first");
        let path = first.to_str().unwrap().to_owned();
        assert!(until_none_is_met(&program, kind, &["backup", &path]) >= 3, "session, pack and end");
        source(&program, "second");
        program.run(["backup", &path], 0);
        // The sessions of those that ended so are not waited for.
        let prune = ["forget", "--keep-last", "1", "--prune", "--fence-after", "1s"];
        assert!(until_none_is_met(&program, kind, &prune) >= 3);
        let restored = program.restored(&first, &program.path("restored"), 0);
        for file in 0..20 {
            let name = format!("file{file}");
            assert_eq!(fs::read(first.join(&name)).unwrap(), fs::read(restored.join(&name)).unwrap());
        }
    }
}
