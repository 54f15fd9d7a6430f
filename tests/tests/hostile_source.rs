//! Sources that do harm: sizes at the end of what a file system can hold, things that must not be opened, files that
//! change while they are read, file systems that never answer, and those of the kernel. None of them hangs or ends a
//! backup.
//!
//! Needs root, FUSE, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use carrack_tests::{
    hostile::measured,
    images::{in_private_mounts, run},
    program::{Program, signal, wait, wait_until},
    stalled::StalledFs,
    trees::noise,
};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, XattrFlags},
    mount::UnmountFlags,
    process::Signal,
};

/// A guard against what never ends; seen: some seconds.
const SECONDS: u32 = 100;

fn program() -> Program {
    Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository")
}

fn in_memory(at: &Path) {
    fs::create_dir_all(at).expect("makes");
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(at)).expect("mounts");
}

fn unmount(at: &Path) {
    rustix::mount::unmount(at, UnmountFlags::DETACH).expect("unmounts");
}

/// As long as a file can be, with a few bytes here and there, the last one among them.
#[test]
fn a_sparse_file_of_8_eib_takes_no_time() {
    in_private_mounts(|| {
        let carrack = program();
        let (source, target) = (carrack.path("source"), carrack.path("target"));
        in_memory(&source);
        in_memory(&target);
        let length = i64::MAX.unsigned_abs();
        let file = File::create(source.join("sparse")).expect("makes");
        file.set_len(length).expect("as long as it can be");
        let places = [0, 1 << 40, (1 << 62) + 12_345, length - 5000];
        for (seed, at) in places.into_iter().enumerate() {
            file.write_all_at(&noise(seed as u64, 5000), at).expect("writes");
        }
        drop(file);
        carrack.run(["backup".as_ref(), source.as_os_str()], 0);
        // Once more, unchanged and changed.
        carrack.run(["backup".as_ref(), source.as_os_str()], 0);
        let file = File::options().write(true).open(source.join("sparse")).expect("opens");
        file.write_all_at(b"changed", 1 << 50).expect("writes");
        drop(file);
        carrack.run(["backup".as_ref(), source.as_os_str()], 0);
        carrack.run(["check", "--read-data"], 0);
        let restored = carrack.restored(&source, &target, 0).join("sparse");
        let file = File::open(&restored).expect("it is there");
        assert_eq!(file.metadata().expect("looks").len(), length);
        assert!(file.metadata().expect("looks").blocks() < 1000, "its holes take room");
        for (seed, at) in places.into_iter().enumerate() {
            let mut bytes = vec![0; 5000];
            file.read_exact_at(&mut bytes, at).expect("reads");
            assert!(bytes == noise(seed as u64, 5000), "at {at}");
        }
        unmount(&source);
        unmount(&target);
    });
}

/// Names of the greatest length in every byte that a name may have, and what must never be opened.
#[test]
fn names_and_nodes_of_every_kind() {
    let carrack = program();
    let source = carrack.path("source");
    fs::create_dir(&source).expect("makes");
    for first in (1..=255_u8).filter(|byte| *byte != b'/') {
        let name: Vec<u8> =
            (0..255_u32).map(|at| if at == 0 { first } else { b"\n\xff\\*"[at as usize % 4] }).collect();
        fs::write(source.join(OsStr::from_bytes(&name)), [first]).expect("writes");
    }
    for (name, kind) in [("fifo", FileType::Fifo), ("null", FileType::CharacterDevice)] {
        let device = if name == "null" { rustix::fs::makedev(1, 3) } else { 0 };
        rustix::fs::mknodat(CWD, source.join(name), kind, Mode::RUSR, device).expect("makes");
    }
    // Endless, and one that would rewind what it is: neither is read.
    rustix::fs::mknodat(
        CWD,
        source.join("zero"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 5),
    )
    .expect("makes");
    let _listening = UnixListener::bind(source.join("socket")).expect("listens");
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    let restored = carrack.restored(&source, &carrack.path("target"), 0);
    assert_eq!(carrack_tests::trees::rsync_differences(&source, &restored, &[]).expect("rsync runs"), "");
}

/// Anybody can nest directories beyond every path that a tree keeps, and root attributes beyond every page.
#[test]
fn what_no_tree_can_keep_is_named_and_the_rest_is_kept() {
    in_private_mounts(|| {
        let carrack = program();
        let (source, target) = (carrack.path("source"), carrack.path("target"));
        in_memory(&source);
        in_memory(&target);
        fs::write(source.join("file"), b"contents").expect("writes");
        fs::write(source.join("marked"), b"contents").expect("writes");
        for number in 0..200 {
            let name = format!("trusted.{number:03}");
            rustix::fs::setxattr(source.join("marked"), name, &noise(number, 60_000), XattrFlags::empty())
                .expect("sets");
        }
        let name = "n".repeat(255);
        let mut directory = File::open(&source).expect("opens");
        for _ in 0..600 {
            rustix::fs::mkdirat(&directory, &name, Mode::RWXU).expect("makes");
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).expect("opens").into();
        }
        drop(directory);
        for _ in 0..2 {
            let said = carrack.run(["backup".as_ref(), source.as_os_str()], 3).err;
            assert!(said.contains("is longer than the 131072 that are kept"), "{said:.3000}");
            assert!(said.contains("trusted.1") && said.contains("more than the 8 MiB"), "{said:.3000}");
        }
        carrack.run(["check", "--read-data"], 0);
        carrack.run(["prune"], 0);
        let restored = carrack.restored(&source, &target, 0);
        assert_eq!(fs::read(restored.join("marked")).expect("reads"), b"contents");
        unmount(&source);
        unmount(&target);
    });
}

/// Writers that never rest: files grow, shrink, are replaced and vanish, and directories become files.
#[test]
fn files_that_change_all_the_time_end_no_backup() {
    let carrack = program();
    let source = carrack.path("source");
    fs::create_dir_all(source.join("still")).expect("makes");
    let still = noise(9, 3_000_000);
    fs::write(source.join("still/large"), &still).expect("writes");
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let (ended, source, rounds) = (&done, &source, &rounds);
        scope.spawn(move || disturb(source, ended, rounds));
        // Also where a backup ends as it must not.
        let _done = Done(&done);
        // A reader that is held up between two looks at a file is told of changes only.
        for number in 0..40 {
            if number >= 8 && seen.has_both() {
                break;
            }
            let output = carrack.command(["backup".as_ref(), source.as_os_str()]).output().expect("runs");
            let code = output.status.code();
            let told = String::from_utf8_lossy(&output.stderr);
            // Done, or done in part with words for it.
            assert!(
                code == Some(0) || (code == Some(3) && told.contains("source/moving")),
                "{code:?} {told}"
            );
            let restored = carrack.restored(source, &carrack.path(&format!("target {number}")), 0);
            assert!(fs::read(restored.join("still/large")).expect("reads") == still);
            seen.look(&restored.join("moving"), &told, rounds.load(Ordering::SeqCst));
        }
    });
    assert!(seen.has_both(), "nothing that moved was backed up: {seen:?}");
    carrack.run(["check", "--read-data"], 0);
}

/// How often a file that moves came back, as it was at some moment.
#[derive(Debug, Default)]
struct Seen {
    replaced: u32,
    grown: u32,
}

impl Seen {
    fn has_both(&self) -> bool {
        self.replaced > 0 && self.grown > 0
    }

    /// Compares with the states that there were up to this round. What was named may be a mixture of some.
    fn look(&mut self, moving: &Path, told: &str, rounds: u64) {
        let content = |name: &str| fs::read(moving.join(name)).ok().filter(|bytes| !bytes.is_empty());
        // Replaced in one step, so no reader has ever seen anything between.
        if let Some(bytes) = content("replaced") {
            let existed = (0..=rounds).any(|round| bytes == noise(round, 3_000));
            assert!(existed, "{} bytes that never were in one file; {told}", bytes.len());
            self.replaced += 1;
        }
        if let Some(bytes) = content("grows").filter(|_| !told.contains("moving/grows")) {
            let begins = &bytes[..bytes.len().min(64)];
            let round = (0..=rounds).find(|round| noise(*round, begins.len()) == begins);
            // None: it begins as it never did.
            let existed = round.is_some_and(|round| grown(round).starts_with(&bytes));
            assert!(existed, "a mixture that nobody told of: {round:?}; {told}");
            self.grown += 1;
        }
        for (name, whole) in [("directory/below/file", &b"short"[..]), ("directory", b"a file by now")] {
            let found = content(name).filter(|_| !told.contains(&format!("moving/{name}")));
            assert!(found.is_none_or(|bytes| bytes == whole), "{name}; {told}");
        }
    }
}

/// What `grows` has at the height of a round; before, it had the beginning of it.
fn grown(round: u64) -> Vec<u8> {
    let mut bytes = noise(round, 2_000_000);
    bytes.extend(noise(round, 100_000).repeat(20));
    bytes
}

/// Ends the other thread.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn disturb(source: &Path, done: &AtomicBool, rounds: &AtomicU64) {
    let at = |name: &str| source.join("moving").join(name);
    for round in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        rounds.store(round, Ordering::SeqCst);
        // All of these may fail on what another round left.
        fs::create_dir_all(at("directory/below")).ok();
        fs::write(at("directory/below/file"), b"short").ok();
        fs::write(at("grows"), noise(round, 2_000_000)).ok();
        if let Ok(file) = File::options().append(true).open(at("grows")) {
            for _ in 0..20 {
                std::io::Write::write_all(&mut &file, &noise(round, 100_000)).ok();
            }
            file.set_len(1_200_000).ok();
        }
        fs::write(at("new"), noise(round, 3_000)).ok();
        fs::rename(at("new"), at("replaced")).ok();
        fs::remove_dir_all(at("directory")).ok();
        fs::write(at("directory"), b"a file by now").ok();
        fs::remove_file(at("directory")).ok();
        std::os::unix::fs::symlink("/etc", at("directory")).ok();
        fs::remove_file(at("directory")).ok();
    }
}

/// Whoever waits for a file system that does not answer is told for which path, and can end it.
#[test]
fn a_file_system_that_never_answers_is_named_and_can_be_left() {
    in_private_mounts(|| {
        let carrack = program();
        let source = carrack.path("source");
        fs::create_dir_all(source.join("mounted")).expect("makes");
        fs::write(source.join("file"), b"contents").expect("writes");
        let stalled = StalledFs::mount(&source.join("mounted")).expect("mounts");
        let mut child = carrack.start(["backup".as_ref(), source.as_os_str()]);
        let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut told = String::new();
        let mut read_until = |words: &str| {
            while !told.contains(words) {
                let mut line = String::new();
                assert!(err.read_line(&mut line).expect("reads") > 0, "it ended: {told}");
                told.push_str(&line);
            }
            told.clone()
        };
        let waits = read_until("waiting for");
        assert!(waits.contains(&format!("{}/mounted/never", source.display())), "{waits}");
        // The first asks, the second ends it whatever it waits for: two that come before it looks are one.
        signal(&child, Signal::INT).expect("sends");
        read_until("stopping at a safe point");
        signal(&child, Signal::INT).expect("sends");
        wait(child, 130);
        drop(stalled);
        // What it was about to read answers no more, and the rest is backed up.
        wait_until(|| fs::read_dir(source.join("mounted")).is_ok_and(|names| names.count() == 0))
            .expect("it is gone");
        carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    });
}

/// Files of the kernel have no true size, some never end, and some wait for something to happen.
#[test]
fn file_systems_of_the_kernel_end_no_backup() {
    in_private_mounts(|| {
        let carrack = program();
        for place in ["/proc/self", "/proc/sys", "/proc/kmsg", "/sys/kernel", "/sys/class"] {
            assert!(Path::new(place).exists(), "{place} is not there to be backed up");
            let outcome = measured(&carrack, &["backup", place], SECONDS).expect("it ends");
            assert!(matches!(outcome.code, Some(0 | 3)), "{place}: {outcome:?}");
        }
        carrack.run(["check", "--read-data"], 0);
    });
}

/// All of `/proc` but the memory of the machine, in a process namespace of its own, so that nobody else's processes come
/// and go in it. It comes back as the kernel says that it is.
#[test]
fn all_of_proc_is_backed_up_and_comes_back() {
    let carrack = program();
    let command = carrack.command(["backup", "/proc", "--exclude", "/proc/kcore"]);
    let mut alone = Command::new("timeout");
    alone.args([&SECONDS.to_string(), "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    alone.arg(command.get_program()).args(command.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
    alone.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = alone.output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    // Some of it nobody can read, and that is told.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?} {told}", output.status);
    assert!(output.status.code() == Some(0) || told.contains("/proc/"), "{told}");
    carrack.run(["check", "--read-data"], 0);
    let restored = carrack.restored(Path::new("/proc"), &carrack.path("target"), 0);
    // Of most the kernel says that they have no bytes, whatever comes when they are read: that is what is kept.
    for name in ["version", "filesystems", "cmdline", "sys/kernel/ostype", "sys/kernel/hostname"] {
        let file = Path::new("/proc").join(name);
        let (said, bytes) = (fs::metadata(&file).expect("looks").len(), fs::read(&file).expect("reads"));
        let kept = fs::read(restored.join(name)).unwrap_or_else(|error| panic!("{name}: {error}; {told}"));
        assert_eq!(kept.len() as u64, said.min(bytes.len() as u64), "{name}; {told}");
        assert!(bytes.starts_with(&kept), "{name}");
    }
    // The program itself was the first process of it.
    assert!(restored.join("1/status").exists(), "{told}");
    let entries = fs::read_dir(&restored).expect("lists").count();
    assert!(entries > 30, "{entries} entries; {told}");
}
