//! The program in the hands of a person: questions, progress, ctrl-C, and readers that go away.
//!
//! Needs the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use carrack_tests::{
    program::{Printed, Program, Running, signal, wait, wait_for_handler, wait_until},
    terminal::Terminal,
    trees::{differences, noise, read},
};
use rustix::process::Signal;

const LARGE: usize = 100 << 20;
/// Slow, and with little room for what was read: a backup or restore of the large file takes half a minute.
const SLOW: [&str; 3] = ["--limit-upload=4MiB", "--limit-download=4MiB", "--memory=64MiB"];

fn built() -> PathBuf {
    assert_cmd::cargo::cargo_bin("carrack")
}

fn prepared() -> (Program, PathBuf) {
    let carrack = Program::new(built()).expect("a repository");
    let source = carrack.path("source");
    fs::create_dir(&source).expect("makes");
    fs::write(source.join("small"), b"small").expect("writes");
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    fs::write(source.join("large"), noise(1, LARGE)).expect("writes");
    (carrack, source)
}

/// Runs the program on a terminal, without a password in its environment.
fn on_terminal(carrack: &Program, arguments: &str) -> Terminal {
    let mut like = carrack.command([""; 0]);
    like.env_remove("CARRACK_PASSWORD");
    Terminal::start(&format!("{} {arguments}", built().display()), &like).expect("a terminal")
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let (carrack, _) = prepared();
    for (password, expected) in [("correct", 0), ("mistaken", 13)] {
        let mut terminal = on_terminal(&carrack, "snapshots");
        terminal.wait_for("password for").expect("a question");
        terminal.wait_for_no_echo().expect("it is not shown");
        terminal.type_in(&format!("{password}\n")).expect("types");
        let (code, screen) = terminal.end().expect("ends");
        assert_eq!(code, Some(expected), "{screen}");
        assert!(!screen.contains(password), "the password is on the screen: {screen}");
    }
}

#[test]
fn a_new_password_is_asked_for_twice() {
    let (carrack, _) = prepared();
    for (again, expected) in [("new one", 0), ("another", 2)] {
        let repository = carrack.path(again).display().to_string().replace(' ', "-");
        let mut terminal = on_terminal(&carrack, &format!("-r {repository} init"));
        for (question, answer) in [("new password for", "new one"), ("the same again", again)] {
            terminal.wait_for(question).expect("a question");
            terminal.wait_for_no_echo().expect("it is not shown");
            terminal.type_in(&format!("{answer}\n")).expect("types");
        }
        let (code, screen) = terminal.end().expect("ends");
        assert_eq!(code, Some(expected), "{screen}");
    }
}

#[test]
fn ctrl_c_at_the_question_gives_the_terminal_back() {
    let (carrack, _) = prepared();
    let mut terminal = on_terminal(&carrack, "snapshots; echo code $?; stty --all");
    terminal.wait_for("password for").expect("a question");
    terminal.wait_for_no_echo().expect("it is not shown");
    terminal.type_in("\x03").expect("types");
    let (_, screen) = terminal.end().expect("ends");
    assert!(screen.contains("code 130"), "{screen}");
    assert!(screen.contains(" echo ") && !screen.contains("-echo "), "the echo is still off: {screen}");
}

#[test]
fn a_terminal_gets_a_bar_and_a_log_gets_lines() {
    let (carrack, source) = prepared();
    let shown = source.display();
    let password = carrack.path("password");
    fs::write(&password, "correct").expect("writes");
    let options = format!("-p {} --limit-upload=100MiB --limit-download=100MiB", password.display());
    let terminal = on_terminal(&carrack, &format!("{options} backup --force {shown}"));
    let (code, screen) = terminal.end().expect("ends");
    assert_eq!(code, Some(0), "{screen}");
    // Drawn again and again in one line, and then gone.
    assert!(screen.matches("backing up: ").count() > 1 && screen.contains("\x1b[2K"), "{screen}");
    assert!(screen.contains("MiB/s") && screen.contains("saved"), "{screen}");
    let target = carrack.path("restored").display().to_string();
    let terminal = on_terminal(&carrack, &format!("{options} restore latest --target {target}"));
    let (code, screen) = terminal.end().expect("ends");
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains(" %") && screen.contains("[="), "how far it is: {screen}");

    let quiet = on_terminal(&carrack, &format!("{options} --quiet backup --force {shown}"));
    let (code, screen) = quiet.end().expect("ends");
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("backing up"), "{screen}");

    // New contents, because what is there already is not slow.
    fs::write(source.join("large"), noise(3, LARGE)).expect("writes");
    let plain = carrack.run(["backup", "--limit-upload=16MiB", &shown.to_string()], 0);
    let lines =
        plain.err.lines().filter(|line| line.starts_with("carrack: ") && line.contains("MiB")).count();
    assert!(lines > 0, "no line in: {}", plain.err);
    // How much there will be is known from the snapshot before.
    let share = |line: &str| Some(line.split_once("backing up: ")?.1.split(' ').nth(1)? == "%");
    assert!(plain.err.lines().filter_map(share).any(|told| told), "{}", plain.err);
    assert!(!plain.err.contains(['\x1b', '\r']), "{}", plain.err.escape_debug());
}

/// Starts long work, waits until it is at it, and sends a signal; it must say so and end with 130.
fn stopped(carrack: &Program, arguments: &[&str], kind: Signal, begun: impl Fn() -> bool) -> Printed {
    let child = carrack.start(SLOW.iter().chain(arguments));
    wait_until(begun).expect("it begins");
    signal(&child, kind).expect("sends");
    let printed = wait(child, 130);
    assert!(printed.err.contains("safe point") && printed.err.contains("next: "), "{}", printed.err);
    printed
}

fn packs(carrack: &Program) -> usize {
    let found = Command::new("find").arg(carrack.path("repository/packs")).args(["-type", "f"]).output();
    found.expect("find runs").stdout.split(|byte| *byte == b'\n').count()
}

fn snapshots(carrack: &Program) -> usize {
    carrack.run(["snapshots", "--json"], 0).out.matches("\"message_type\":\"snapshot\"").count()
}

#[test]
fn a_stopped_backup_commits_nothing_and_the_next_one_does() {
    let (carrack, source) = prepared();
    let backup = ["backup", &source.display().to_string()];
    let sessions = || std::fs::read_dir(carrack.path("repository/sessions")).map_or(0, Iterator::count);
    for kind in [Signal::INT, Signal::TERM, Signal::HUP] {
        let before = sessions();
        stopped(&carrack, &backup, kind, || sessions() > before);
        assert_eq!(snapshots(&carrack), 1);
    }
    carrack.run(backup, 0);
    assert_eq!(snapshots(&carrack), 2);
    let target = carrack.path("restored");
    let restored = carrack.restored(&source, &target, 0);
    assert_eq!(differences(&read(&[&source]).expect("reads"), &read(&[&restored]).expect("reads")), [""; 0]);
    carrack.run(["check", "--read-data"], 0);
    assert!(packs(&carrack) > 0);
}

#[test]
fn a_stopped_restore_goes_on_the_next_time() {
    let (carrack, source) = prepared();
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    let target = carrack.path("restored");
    let restored = target.join(source.strip_prefix("/").expect("absolute"));
    let place = target.display().to_string();
    let begun = || restored.join("large").exists();
    stopped(&carrack, &["restore", "latest", "--target", &place], Signal::INT, begun);
    carrack.restored(&source, &target, 0);
    assert_eq!(differences(&read(&[&source]).expect("reads"), &read(&[&restored]).expect("reads")), [""; 0]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (carrack, source) = prepared();
    let backup = ["backup", &source.display().to_string()];
    let child = carrack.start(SLOW.iter().chain(&backup));
    wait_for_handler(&child, Signal::INT).expect("it starts");
    for _ in 0..2 {
        signal(&child, Signal::INT).expect("sends");
        std::thread::sleep(Duration::from_millis(50));
    }
    wait(child, 130);
    carrack.run(backup, 0);
}

/// What comes from a pipe may never come: the request to stop must not wait for it.
#[test]
fn a_backup_that_waits_for_its_input_can_be_stopped() {
    let (carrack, _) = prepared();
    let mut child = Running::start(carrack.command(["backup", "--stdin"]).stdin(Stdio::piped()));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&noise(2, 100_000)).expect("writes");
    wait_for_handler(&child, Signal::INT).expect("it starts");
    signal(&child, Signal::INT).expect("sends");
    wait(child, 130);
    drop(input);
    assert_eq!(snapshots(&carrack), 1);
}

/// As `nohup` starts it: the end of the terminal is not its end.
#[test]
fn a_backup_survives_a_hangup_that_is_ignored() {
    let (carrack, _) = prepared();
    let like = carrack.command(["backup", "--stdin"]);
    let mut command = Command::new("/usr/bin/env");
    command.arg("--ignore-signal=HUP").args(like.get_args().skip(1)).env_clear().stdin(Stdio::piped());
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = Running::start(&mut command);
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&noise(2, 100_000)).expect("writes");
    wait_for_handler(&child, Signal::INT).expect("it starts");
    signal(&child, Signal::HUP).expect("sends");
    std::thread::sleep(Duration::from_millis(300));
    drop(input);
    wait(child, 0);
    assert_eq!(snapshots(&carrack), 2);
}

/// A terminal of its own for a program, which is closed as soon as it shows this; prints the exit code. The program
/// takes the end of the terminal as its own, or has it ignored, as nohup does.
const CLOSED: &str = "import os, pty, signal, sys\n\
    child, screen = pty.fork()\n\
    if child == 0:\n\
    \x20   signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == 'ignored' else signal.SIG_DFL)\n\
    \x20   os.execv(sys.argv[3], sys.argv[3:])\n\
    shown = b''\n\
    while sys.argv[2].encode() not in shown:\n\
    \x20   shown += os.read(screen, 4096)\n\
    os.close(screen)\n\
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))";

/// The window is closed, or the connection lost, while the bar is drawn: the program ends, or goes on to its end, and
/// what it has written is whole.
#[test]
fn a_terminal_that_is_closed_under_the_bar_leaves_nothing_broken() {
    let (carrack, source) = prepared();
    // The terminal that is gone cannot be written to: code 1, as of any output that nobody reads.
    for (hangup, code, saved) in [("taken", 130, 1), ("ignored", 1, 2)] {
        let like = carrack.command([""; 0]);
        let mut command = Command::new("python3");
        command.args(["-c", CLOSED, hangup, "backing up: "]).arg(built()).env_clear();
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
        command.arg("--limit-upload=16MiB").arg("backup").arg(&source).stdin(Stdio::null());
        let printed = wait(Running::start(&mut command), 0);
        assert_eq!(printed.out.trim(), code.to_string(), "{hangup}: {}", printed.err);
        assert_eq!(snapshots(&carrack), saved, "{hangup}");
        carrack.run(["check", "--read-data"], 0);
        // Nothing is locked, and nothing has to be waited for.
        carrack.run(["prune", "--wait", "0"], 0);
    }
    let restored = carrack.restored(&source, &carrack.path("restored"), 0);
    assert_eq!(differences(&read(&[&source]).expect("reads"), &read(&[&restored]).expect("reads")), [""; 0]);
}

/// Runs the program with a reader of its output that takes a little and goes.
fn reader_goes(carrack: &Program, arguments: &[&str], take: usize) -> (Running, Vec<u8>) {
    let mut child = carrack.start(arguments);
    let mut some = vec![0; take];
    let mut out = child.stdout.take().expect("a pipe");
    let count = out.read(&mut some).expect("reads");
    some.truncate(count);
    (child, some)
}

#[test]
fn a_reader_that_goes_away_is_no_defect() {
    let (carrack, source) = prepared();
    for index in 0..3000 {
        fs::write(source.join(format!("a name of some length, number {index}")), b"").expect("writes");
    }
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    let large = format!("latest:{}", source.join("large").display());
    let many: [&[&str]; 5] = [
        &["ls", "latest", "-R"],
        &["ls", "latest", "-R", "--json"],
        &["find", "*"],
        &["restore", &large, "--target", "-"],
        &["cat", "file", &large],
    ];
    for arguments in many {
        let (child, some) = reader_goes(&carrack, arguments, 100);
        assert!(!some.is_empty(), "{arguments:?}");
        let printed = wait(child, 1);
        assert_eq!(printed.err, "", "{arguments:?}");
    }
    let without = |redirection: &str, arguments: &str| {
        let mut command = Command::new("sh");
        let line = format!("{} {arguments} {redirection}", built().display());
        let like = carrack.command([""; 0]);
        command.args(["-c", &line]).envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().expect("runs").status.code()
    };
    assert_eq!(without(">/dev/full", "ls latest"), Some(15));
    for redirection in [">&-", "2>&-", ">&- 2>&- <&-"] {
        assert_eq!(without(redirection, "ls latest"), Some(0), "{redirection}");
        assert_eq!(without(redirection, "-vv check"), Some(0), "{redirection}");
    }
    // A result counts although nobody reads what is said on the way.
    assert_eq!(without("-vv 2>/dev/full", &format!("backup --force {}", source.display())), Some(0));
    let mut child = carrack.start(["-vv", "backup", "--force", &source.display().to_string()]);
    drop(child.stderr.take());
    assert_eq!(child.wait_with_output().status.code(), Some(0));
    assert_eq!(snapshots(&carrack), 4);
}
