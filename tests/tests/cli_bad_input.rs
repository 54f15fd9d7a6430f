//! Wrong input at the command line: each has a message with the next step and its own exit code, and leaves the
//! repository whole.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{fs, path::Path};

use assert_cmd::{Command, assert::Assert};
use tempfile::TempDir;

/// The program in an empty environment with a password.
fn carrack(repository: &Path) -> Command {
    let mut command = Command::cargo_bin("carrack").expect("the program was built");
    command.env_clear().env("CARRACK_PASSWORD", "correct").env("CARRACK_REPOSITORY", repository);
    command
}

/// A repository with one snapshot, and a directory for more.
fn repository() -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    fs::create_dir(place.path().join("source")).expect("makes");
    fs::write(place.path().join("source/file"), b"contents").expect("writes");
    let at = place.path().join("repository");
    carrack(&at).arg("init").assert().code(0);
    carrack(&at).arg("backup").arg(place.path().join("source")).assert().code(0);
    place
}

/// Standard error of a run that must have ended with this code.
fn refused(command: &mut Command, code: i32) -> String {
    let assert: Assert = command.assert().code(code);
    let text = String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8");
    assert!(text.contains("next: "), "no next step in: {text}");
    text
}

#[test]
fn what_does_not_exist_is_not_found() {
    let place = tempfile::tempdir().expect("a directory");
    let text = refused(carrack(&place.path().join("none")).arg("snapshots"), 10);
    assert!(text.contains("init"), "{text}");
    let place = repository();
    let at = place.path().join("repository");
    refused(carrack(&at).args(["ls", "00000000"]), 10);
    refused(carrack(&at).args(["ls", "latest:/no/such/path"]), 10);
    refused(carrack(&at).args(["backup", "/no/such/path"]), 10);
}

#[test]
fn passwords_are_checked() {
    let place = repository();
    let at = place.path().join("repository");
    refused(carrack(&at).env("CARRACK_PASSWORD", "wrong").arg("snapshots"), 13);
    refused(carrack(&at).env_remove("CARRACK_PASSWORD").arg("snapshots"), 13);
    refused(carrack(&at).args(["--password-command", "exit 3", "snapshots"]), 13);
    let file = place.path().join("password");
    fs::write(&file, "correct\n").expect("writes");
    carrack(&at).env_remove("CARRACK_PASSWORD").arg("-p").arg(&file).arg("snapshots").assert().code(0);
}

#[test]
fn an_init_does_not_touch_what_is_there() {
    let place = repository();
    let at = place.path().join("repository");
    refused(carrack(&at).arg("init"), 11);
    carrack(&at).args(["ls", "latest"]).assert().code(0);
}

/// Older contents in the place of the newest look like success: whoever wants them says so.
#[test]
fn an_older_snapshot_is_not_the_latest_because_the_newest_cannot_be_read() {
    let place = repository();
    let at = place.path().join("repository");
    let ends = || {
        let entries = fs::read_dir(at.join("snapshots")).expect("lists").flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let old = ends().pop().expect("a snapshot");
    carrack(&at).arg("backup").arg(place.path().join("source")).assert().code(0);
    let new = ends().into_iter().find(|end| *end != old).expect("another one");
    let id = |end: &Path| {
        let name = end.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        name.rsplit_once('-').map(|(_, nonce)| nonce[..8].to_owned()).expect("a session")
    };
    let whole = fs::read(&new).expect("reads");
    fs::write(&new, &whole[..whole.len() / 2]).expect("writes");
    let text = refused(carrack(&at).args(["ls", "latest"]), 14);
    assert!(text.contains(&id(&old)) && text.contains("carrack check"), "{text}");
    let target = place.path().join("target");
    refused(carrack(&at).args(["restore", "latest", "--target"]).arg(&target), 14);
    assert!(!target.exists());
    carrack(&at).args(["ls", &id(&old)]).assert().code(0);
    // One that is older stands in nobody's way.
    fs::write(&new, whole).expect("writes");
    fs::write(&old, b"CRKR").expect("writes");
    carrack(&at).args(["ls", "latest"]).assert().code(0);
}

/// A new repository in its place would take everything in it for garbage.
#[test]
fn an_init_does_not_touch_a_repository_that_lost_its_format() {
    let place = repository();
    let at = place.path().join("repository");
    let bytes = fs::read(at.join("format")).expect("reads");
    fs::remove_file(at.join("format")).expect("removes");
    for verb in ["init", "snapshots"] {
        let text = refused(carrack(&at).arg(verb), 14);
        assert!(text.contains("`format`") && text.contains("from a copy"), "{text}");
    }
    assert!(!at.join("format").exists());
    fs::write(at.join("format"), bytes).expect("writes");
    carrack(&at).args(["ls", "latest"]).assert().code(0);
}

#[test]
fn a_newer_or_damaged_repository_is_named() {
    let place = repository();
    let at = place.path().join("repository");
    let format = at.join("format");
    let bytes = fs::read(&format).expect("reads");
    let mut newer = bytes.clone();
    newer[4] = 99;
    replace(&format, &newer);
    carrack(&at).arg("snapshots").assert().failure();
    replace(&format, b"not a repository");
    let text = refused(carrack(&at).arg("snapshots"), 14);
    assert!(text.contains(at.to_str().expect("UTF-8")), "{text}");
    replace(&format, &bytes);
    carrack(&at).arg("snapshots").assert().code(0);
}

/// Objects may be read-only.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("removes");
    fs::write(path, bytes).expect("writes");
}

#[test]
fn wrong_usage_is_invalid() {
    let place = repository();
    let at = place.path().join("repository");
    let source = place.path().join("source");
    refused(carrack(&at).arg("backup").arg(&source).args(["--exclude", "["]), 2);
    refused(carrack(&at).args(["--memory", "1MiB", "snapshots"]), 2);
    refused(carrack(&at).args(["ls", "latest:/../etc"]), 2);
    refused(carrack(&at).args(["-r", "sftp:host:/x", "snapshots"]), 2);
    refused(carrack(&at).env_remove("CARRACK_REPOSITORY").arg("snapshots"), 2);
    carrack(&at).arg("bakcup").assert().code(2);
    let file = source.join("file");
    refused(carrack(&file).arg("snapshots"), 2);
    refused(carrack(&at).args(["restore", "latest", "--target"]).arg(&file), 2);
    refused(carrack(&at).args(["backup", "--change-id", "one"]).arg(&source), 2);
    refused(carrack(&at).args(["backup", "--stdin-filename", "name"]).arg(&source), 2);
}

/// Standard error of a command line that cannot be understood.
fn misread(repository: &Path, arguments: &[&str]) -> String {
    let assert = carrack(repository).args(arguments).assert().code(2);
    String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8")
}

/// A rule that keeps nothing is a slip: it must not cost the only snapshots of a source.
#[test]
fn rules_that_keep_nothing_are_refused() {
    let place = repository();
    let at = place.path().join("repository");
    let count = || {
        let output = carrack(&at).args(["snapshots", "--json"]).assert().code(0).get_output().stdout.clone();
        String::from_utf8_lossy(&output).matches("\"session\"").count()
    };
    for more in [&[][..], &["--dry-run"], &["--group-by", "host"], &["--prune"]] {
        let text = refused(carrack(&at).args(["forget", "--keep-tag", "typo"]).args(more), 2);
        assert!(text.contains("host ") && text.contains("--allow-forget-all"), "{text}");
        assert_eq!(count(), 1);
    }
    for span in ["13000y", "5000000d", "0d"] {
        carrack(&at).args(["forget", "--keep-within", span]).assert().code(0);
        assert_eq!(count(), 1, "{span}");
    }
    let meant = ["forget", "--keep-tag", "typo", "--allow-forget-all"];
    carrack(&at).args(meant).arg("--dry-run").assert().code(0);
    assert_eq!(count(), 1);
    carrack(&at).args(meant).assert().code(0);
    assert_eq!(count(), 0);
}

#[test]
fn empty_tags_are_refused() {
    let place = repository();
    let at = place.path().join("repository");
    for arguments in [
        &["forget", "--keep-tag", ""][..],
        &["forget", "--keep-last", "1", "--keep-tag", "a,"],
        &["forget", "--keep-last", "1", "--tag", ""],
        &["snapshots", "--tag", ""],
        &["snapshots", "--tag", "a,,b"],
        &["check", "--tag="],
    ] {
        let text = misread(&at, arguments);
        assert!(text.contains("a tag is empty: name tags such as nightly"), "{arguments:?}: {text}");
    }
}

/// The value is what is wrong, not that it looks like an option.
#[test]
fn values_below_zero_are_called_that() {
    let at = Path::new("/nowhere");
    for (arguments, said) in [
        (&["forget", "--keep-last", "-1"][..], "0 or more"),
        (&["forget", "-d", "-1"], "0 or more"),
        (&["snapshots", "--latest", "-2"], "0 or more"),
        (&["backup", "/", "--checkpoint-interval", "-2"], "0 or more"),
        (&["snapshots", "--max-requests", "-3"], "-3 is not in 1..=4096"),
        (&["snapshots", "--threads", "-3"], "-3 is not in 1..=512"),
        (&["snapshots", "--memory", "-64MiB"], "not a size"),
        (&["snapshots", "--limit-upload", "-1"], "not a size"),
        (&["prune", "--max-repack-size", "-1G"], "not a size"),
        (&["prune", "--max-unused", "-5%"], "not a percentage above 0"),
        (&["check", "--read-data-subset", "-5%"], "not a percentage above 0"),
        (&["prune", "--wait", "-5m"], "0 or more"),
        (&["prune", "--fence-after", "-5h"], "0 or more"),
        (&["prune", "--fence-after", "0"], "more than zero"),
        (&["prune", "--fence-after", "0h"], "more than zero"),
        (&["forget", "--keep-last", "1", "--prune", "--fence-after", "0d"], "more than zero"),
    ] {
        let text = misread(at, arguments);
        assert!(text.contains(said) && !text.contains("-- "), "{arguments:?}: {text}");
    }
}

/// What no path in a snapshot can be must not be committed: nobody could read it, and no prune could pass it.
#[test]
fn a_stream_needs_a_name() {
    let place = repository();
    let at = place.path().join("repository");
    for name in ["", "/", "..", "a/..", "dumps/", "dumps/.", "."] {
        refused(carrack(&at).args(["backup", "--stdin", "--stdin-filename", name]), 2);
    }
    carrack(&at).args(["backup", "--stdin", "--stdin-filename", "dumps/shop.sql"]).assert().code(0);
    carrack(&at).args(["cat", "file", "latest:/shop.sql"]).assert().code(0);
    carrack(&at).arg("prune").assert().code(0);
}

/// Files that options name, and keys that do not fit: each is called what it is.
#[test]
fn secrets_that_do_not_open_are_named() {
    let place = repository();
    let at = place.path().join("repository");
    let key = place.path().join("key");
    fs::write(&key, "00".repeat(32)).expect("writes");
    let mut with_key = carrack(&at);
    let text =
        refused(with_key.env_remove("CARRACK_PASSWORD").arg("--key-file").arg(&key).arg("snapshots"), 13);
    assert!(text.contains("--key-file") && !text.contains("password"), "{text}");
    refused(carrack(&at).args(["-p", "/no/such/file", "snapshots"]), 10);
}

/// A check that looked at nothing must not say that all is well, nor that what it may not read is damaged.
#[test]
fn a_check_that_cannot_look_says_so() {
    let place = repository();
    let at = place.path().join("repository");
    refused(carrack(&at).args(["check", "--host", "no such host"]), 10);
    let source = place.path().join("other");
    fs::create_dir(&source).expect("makes");
    let bundle = carrack(&at).args(["key", "bundle", "--path"]).arg(&source).assert().code(0);
    let file = place.path().join("bundle");
    fs::write(&file, &bundle.get_output().stdout).expect("writes");
    let mut check = carrack(&at);
    let check = check.env_remove("CARRACK_PASSWORD").arg("--writer-bundle").arg(&file).arg("check");
    let assert = check.assert().code(3);
    let text = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(text.contains("warning: snapshot"), "{text}");
}

/// A filter with a typing error finds nothing, and that is not passed over: lists stay empty and say why, and verbs that
/// would do nothing fail.
#[test]
fn a_filter_that_matches_nothing_is_named() {
    let place = repository();
    let at = place.path().join("repository");
    let typo = ["--host", "typo", "--tag", "a,b"];
    let words = "no snapshot matches host typo, tags a,b";
    let quietly = |arguments: &[&str]| {
        let assert = carrack(&at).args(arguments).args(typo).assert().code(0);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&assert.get_output().stdout), text(&assert.get_output().stderr))
    };
    let (out, err) = quietly(&["snapshots"]);
    assert!(out.is_empty() && err.contains(words), "{out}{err}");
    let (out, err) = quietly(&["snapshots", "--json"]);
    assert!(out.contains("\"snapshots\":0") && out.lines().count() == 1 && err.is_empty(), "{out}{err}");
    for arguments in [&["forget", "--keep-last", "1"][..], &["stats"], &["find", "file"]] {
        let (_, err) = quietly(arguments);
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
    for arguments in [&["ls", "latest"][..], &["check"], &["restore", "latest", "--target", "-"]] {
        let text = refused(carrack(&at).args(arguments).args(typo), 10);
        assert!(text.contains(words), "{arguments:?}: {text}");
    }

    let other = place.path().join("other");
    carrack(&other).arg("init").assert().code(0);
    let empty = carrack(&other).args(["snapshots"]).args(typo).assert().code(0);
    let text = String::from_utf8_lossy(&empty.get_output().stderr).into_owned();
    assert!(text.contains("there are no snapshots in this repository"), "{text}");
    for dry in [None, Some("-n")] {
        let mut copy = carrack(&other);
        copy.env("CARRACK_FROM_PASSWORD", "correct").arg("copy").args(dry).args(typo);
        let text = refused(copy.arg("--from-repo").arg(&at), 10);
        assert!(text.contains(words) && text.contains("next: see what there is"), "{text}");
        // There is nothing to copy, so nothing is missing.
        let mut back = carrack(&at);
        back.env("CARRACK_FROM_PASSWORD", "correct").arg("copy").args(dry).args(typo);
        back.arg("--from-repo").arg(&other).assert().code(0);
    }
}

/// Standard output of a run that must be well.
fn said(arguments: &[&str]) -> String {
    let assert = carrack(Path::new("/nowhere")).args(arguments).assert().code(0);
    String::from_utf8(assert.get_output().stdout.clone()).expect("UTF-8")
}

/// The verbs that a help lists; none for a verb without any of its own.
fn verbs_below(words: &[&str]) -> Vec<String> {
    let help = said(&[words, &["--help"]].concat());
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let (list, _) = list.split_once("\n\n").expect("the end of the list");
    // What goes on in a further line begins further right.
    let lines = list.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let verbs = lines.filter_map(|line| line.split(' ').next()).map(str::to_owned);
    verbs.filter(|verb| verb != "help").collect()
}

/// Each verb has a page with its names, its use and every one of its long options, and so has each verb of a verb.
#[test]
fn manual_pages_are_complete() {
    let place = tempfile::tempdir().expect("a directory");
    carrack(place.path()).args(["man", "--dir"]).arg(place.path()).assert().code(0);
    let mut pending: Vec<Vec<String>> = vec![Vec::new()];
    let mut pages = 0;
    while let Some(words) = pending.pop() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = [&["carrack"], &words[..]].concat().join("-");
        let text = fs::read_to_string(place.path().join(format!("{name}.1"))).expect("a page");
        for title in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS"] {
            assert!(text.contains(title), "{name} has no {title}");
        }
        let plain = text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "");
        assert!(plain.contains(&format!(".SH NAME\n{name} ")), "{name}: {plain}");
        let help = said(&[&words[..], &["--help"]].concat());
        let starts = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let options: Vec<&str> = starts
            .filter_map(|line| {
                let start = line.find("--")?;
                line[start..].split(|c: char| !c.is_ascii_alphabetic() && c != '-').next()
            })
            .collect();
        assert!(options.len() > 10 && options.contains(&"--json"), "{name}: {options:?}");
        for option in options {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '-');
            let mut found = plain.match_indices(option).map(|(at, _)| &plain[at + option.len()..]);
            assert!(found.any(ends), "{name}.1 does not have {option}");
        }
        pages += 1;
        let below = verbs_below(&words);
        pending.extend(
            below.into_iter().map(|verb| words.iter().map(|word| (*word).to_owned()).chain([verb]).collect()),
        );
    }
    assert!(pages > 25, "{pages} pages");
    // No page is left over from a verb that is not there any more.
    assert_eq!(fs::read_dir(place.path()).expect("lists").count(), pages);
    let first = said(&["man"]);
    assert_eq!(first, fs::read_to_string(place.path().join("carrack.1")).expect("reads"));
}

#[test]
fn completions_of_every_shell_have_every_verb() {
    let verbs = verbs_below(&[]);
    assert!(verbs.len() > 15, "{verbs:?}");
    let place = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        let mut words = script.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect::<Vec<_>>();
        words.sort_unstable();
        for verb in &verbs {
            assert!(words.binary_search(&verb.as_str()).is_ok(), "{shell} does not know {verb}");
        }
        for option in ["skip-if-unchanged", "keep-daily", "read-data-subset", "dry-run"] {
            assert!(script.contains(option), "{shell} does not know --{option}");
        }
        if shell == "bash" {
            let file = place.path().join("script");
            fs::write(&file, script).expect("writes");
            Command::new("bash").arg("-n").arg(&file).assert().code(0).stdout("").stderr("");
        }
    }
}

/// A program that asked for messages must not take a script or a page for one.
#[test]
fn what_has_no_messages_refuses_to_be_asked_for_them() {
    let place = tempfile::tempdir().expect("a directory");
    let pages = place.path().join("pages");
    let directory = pages.to_str().expect("UTF-8");
    for arguments in [&["completions", "bash"][..], &["man"], &["man", "--dir", directory]] {
        let assert = carrack(place.path()).args(arguments).arg("--json").assert().code(2).stdout("");
        let message: serde_json::Value =
            serde_json::from_slice(&assert.get_output().stderr).expect("one JSON line");
        assert_eq!((&message["message_type"], &message["code"]), (&"exit_error".into(), &2.into()));
        assert!(message["message"].as_str().is_some_and(|text| text.contains("no messages")), "{message}");
        assert_eq!(message["next"], "leave --json out");
    }
    assert!(!pages.exists(), "pages were written all the same");
}

#[test]
fn words_of_other_programs_get_an_answer() {
    let place = repository();
    let text = refused(carrack(&place.path().join("repository")).arg("unlock"), 2);
    assert!(text.contains("nothing to unlock"), "{text}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = repository();
    let at = place.path().join("repository");
    let before = carrack(&at).args(["stats", "--json"]).assert().code(0).get_output().stdout.clone();
    fs::write(place.path().join("source/new"), vec![7; 100_000]).expect("writes");
    carrack(&at).args(["backup", "-n"]).arg(place.path().join("source")).assert().code(0);
    let after = carrack(&at).args(["stats", "--json"]).assert().code(0).get_output().stdout.clone();
    assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&after));
}

#[test]
fn json_errors_are_json() {
    let place = tempfile::tempdir().expect("a directory");
    let assert = carrack(&place.path().join("none")).args(["snapshots", "--json"]).assert().code(10);
    let message: serde_json::Value =
        serde_json::from_slice(&assert.get_output().stderr).expect("one JSON line");
    assert_eq!(message["message_type"], "exit_error");
    assert_eq!(message["code"], 10);
    assert!(message["next"].as_str().is_some_and(|next| next.contains("init")), "{message}");
    for arguments in [&["--json", "bakcup"][..], &["ls", "--json", "--no-such"], &["--json"]] {
        let assert = carrack(place.path()).args(arguments).assert().code(2);
        let message: serde_json::Value =
            serde_json::from_slice(&assert.get_output().stderr).expect("one JSON line");
        assert_eq!((&message["message_type"], &message["code"]), (&"exit_error".into(), &2.into()));
        assert!(!message["message"].as_str().unwrap_or_default().is_empty(), "{message}");
    }
}
