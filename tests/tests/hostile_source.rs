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
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use carrack_tests::{
    hostile::measured,
    images::{in_private_mounts, run},
    program::{Program, signal, wait, wait_until},
    stalled::StalledFs,
    trees::noise,
};
use rustix::{
    fs::{CWD, FileType, Mode},
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

/// Writers that never rest: files grow, shrink, are replaced and vanish, and directories become files.
#[test]
fn files_that_change_all_the_time_end_no_backup() {
    let carrack = program();
    let source = carrack.path("source");
    fs::create_dir_all(source.join("still")).expect("makes");
    let still = noise(9, 3_000_000);
    fs::write(source.join("still/large"), &still).expect("writes");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ended, source) = (&done, &source);
        scope.spawn(move || disturb(source, ended));
        // Also where a backup ends as it must not.
        let _done = Done(&done);
        for _ in 0..6 {
            let output = carrack.command(["backup".as_ref(), source.as_os_str()]).output().expect("runs");
            let code = output.status.code();
            let told = String::from_utf8_lossy(&output.stderr);
            // Done, or done in part with words for it.
            assert!(
                code == Some(0) || (code == Some(3) && told.contains("source/moving")),
                "{code:?} {told}"
            );
        }
    });
    carrack.run(["check", "--read-data"], 0);
    let restored = carrack.restored(&source, &carrack.path("target"), 0);
    assert!(fs::read(restored.join("still/large")).expect("reads") == still);
}

/// Ends the other thread.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn disturb(source: &Path, done: &AtomicBool) {
    let at = |name: &str| source.join("moving").join(name);
    for round in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
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
        while !told.contains("waiting for") {
            let mut line = String::new();
            assert!(err.read_line(&mut line).expect("reads") > 0, "it ended: {told}");
            told.push_str(&line);
        }
        assert!(told.contains(&format!("{}/mounted/never", source.display())), "{told}");
        // The first asks, the second ends it whatever it waits for.
        for _ in 0..2 {
            signal(&child, Signal::INT).expect("sends");
            thread::sleep(Duration::from_millis(300));
        }
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
        // A process namespace of others would change all the time; this one is small, and real.
        let places: Vec<PathBuf> = ["/proc/self", "/proc/sys", "/proc/kmsg", "/sys/kernel", "/sys/class"]
            .into_iter()
            .map(PathBuf::from)
            .filter(|path| path.exists())
            .collect();
        for place in places {
            let place = place.to_str().expect("UTF-8");
            let outcome = measured(&carrack, &["backup", place], SECONDS).expect("it ends");
            assert!(matches!(outcome.code, Some(0 | 3)), "{place}: {outcome:?}");
        }
        carrack.run(["check", "--read-data"], 0);
    });
}
