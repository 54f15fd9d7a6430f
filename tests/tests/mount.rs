//! `carrack mount`: what it shows is what was backed up, and nothing of it stays when it ends.
//!
//! Needs root, FUSE, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use carrack_tests::{
    images::{FileSystem, Mounted, in_private_mounts, is_mounted, run},
    program::{Program, Running, ended, signal, wait, wait_until},
    trees::{make_everything, noise, rsync_differences},
};
use rustix::{mount::UnmountFlags, process::Signal};

fn program() -> Program {
    Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository")
}

/// A repository with one small snapshot, and an empty directory.
fn prepared() -> (Program, PathBuf) {
    let carrack = program();
    fs::create_dir(carrack.path("source")).expect("makes");
    fs::write(carrack.path("source/file"), b"contents").expect("writes");
    carrack.run(["backup".as_ref(), carrack.path("source").as_os_str()], 0);
    let point = carrack.path("mounted");
    fs::create_dir(&point).expect("makes");
    (carrack, point)
}

/// Mounts, and waits until everybody can see it.
fn mounted(carrack: &Program, point: &Path) -> Running {
    let mut child = carrack.start(["mount".as_ref(), point.as_os_str()]);
    let mut line = String::new();
    let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
    err.read_line(&mut line).expect("reads");
    assert!(line.contains("until ctrl-C or umount"), "{line}");
    // The rest of it is small, and stays in the pipe.
    child.stderr = Some(err.into_inner());
    assert!(is_mounted(point));
    child
}

/// Nothing is mounted, and the directory is there as it was.
fn assert_gone(point: &Path) {
    assert!(!is_mounted(point), "{} is still mounted", point.display());
    assert_eq!(fs::read_dir(point).expect("a directory that answers").count(), 0);
}

#[test]
fn a_tree_looks_as_it_was_backed_up() {
    in_private_mounts(|| {
        let image = Mounted::new(FileSystem::Ext4, 400).expect("an image");
        let [one, _] = make_everything(&image.path(), [FileSystem::Ext4; 2]).expect("a tree");
        let (carrack, point) = prepared();
        carrack.run(["backup".as_ref(), one.as_os_str()], 0);
        let child = mounted(&carrack, &point);

        let names: Vec<_> =
            fs::read_dir(&point).expect("lists").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names.len(), 3, "two snapshots and the link: {names:?}");
        let latest = point.join("latest");
        assert!(fs::symlink_metadata(&latest).expect("looks").is_symlink());
        let shown = latest.join(one.strip_prefix("/").expect("absolute"));
        // Each name is an inode of its own there.
        let linked = ["/links", "* again"];
        assert_eq!(rsync_differences(&one, &shown, &linked).expect("rsync runs"), "");

        // Anywhere in a large file, across the ends of chunks and of the file.
        let wanted = fs::read(one.join("many/large")).expect("reads");
        let file = File::open(shown.join("many/large")).expect("opens");
        let mut seed = 12_345_usize;
        for _ in 0..200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, length) = ((seed >> 20) % (wanted.len() + 1000), (seed >> 8) % 300_000);
            let mut buffer = vec![0; length];
            let count = file.read_at(&mut buffer, at as u64).expect("reads");
            let rest = wanted.get(at..).unwrap_or_default();
            // A read may be shorter than asked for, but not where bytes follow within a page.
            assert!(count > 0 || rest.is_empty() || length == 0, "nothing at {at} of {length} bytes");
            assert_eq!(&buffer[..count], &rest[..count], "{length} bytes at {at}");
        }
        let refused = fs::write(shown.join("many/new"), b"new").expect_err("it is read-only");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        drop(file);
        signal(&child, Signal::INT).expect("sends");
        wait(child, 0);
        assert_gone(&point);
    });
}

#[test]
fn a_signal_unmounts() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        for kind in [Signal::INT, Signal::TERM, Signal::HUP] {
            let child = mounted(&carrack, &point);
            signal(&child, kind).expect("sends");
            wait(child, 0);
            assert_gone(&point);
        }
    });
}

#[test]
fn a_signal_unmounts_what_is_in_use() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        let child = mounted(&carrack, &point);
        let file = File::open(point.join("latest").join(below(&carrack.path("source/file")))).expect("opens");
        signal(&child, Signal::INT).expect("sends");
        wait(child, 0);
        assert_gone(&point);
        drop(file);
    });
}

fn below(path: &Path) -> &Path {
    path.strip_prefix("/").expect("absolute")
}

/// As `timeout` sends them: one to the program, and at once another one to its group.
#[test]
fn a_second_signal_leaves_no_dead_mount() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        for _ in 0..5 {
            let child = mounted(&carrack, &point);
            signal(&child, Signal::TERM).expect("sends");
            signal(&child, Signal::INT).expect("sends");
            let ended = child.wait_with_output().status.code();
            assert!(matches!(ended, Some(0 | 130)), "{ended:?}");
            assert_gone(&point);
        }
    });
}

#[test]
fn programs_are_told_when_it_is_there_and_when_it_has_ended() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        let mut child = carrack.start(["mount".as_ref(), point.as_os_str(), "--json".as_ref()]);
        let mut out = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut message = || -> serde_json::Value {
            serde_json::from_str(&out.next().expect("a line").expect("reads")).expect("JSON")
        };
        let begun = message();
        assert_eq!((&begun["message_type"], &begun["snapshots"]), (&"mounted".into(), &1.into()));
        assert!(is_mounted(&point));
        signal(&child, Signal::INT).expect("sends");
        let ended = message();
        assert_eq!(ended["message_type"], "summary");
        assert_eq!(ended["mount_point"], begun["mount_point"]);
        wait(child, 0);
        assert_gone(&point);
    });
}

#[test]
fn umount_ends_the_program() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        let child = mounted(&carrack, &point);
        rustix::mount::unmount(&point, UnmountFlags::empty()).expect("unmounts");
        wait(child, 0);
        assert_gone(&point);
    });
}

#[test]
fn a_place_that_cannot_be_mounted_on_is_explained() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        let mount = |at: &Path, code| {
            let printed = carrack.run(["mount".as_ref(), at.as_os_str()], code);
            assert!(printed.err.contains("next: "), "no next step in: {}", printed.err);
            printed.err
        };
        assert!(mount(&carrack.path("nowhere"), 10).contains("make the directory"));
        assert!(mount(&carrack.path("source/file"), 2).contains("not a directory"));
        assert!(mount(&carrack.path("source"), 11).contains("not empty"));
        assert_eq!(fs::read(carrack.path("source/file")).expect("it is not hidden"), b"contents");

        // One that was killed leaves a dead mount, and the next one says how to take it away.
        let mut child = mounted(&carrack, &point);
        child.kill().expect("kills");
        child.wait().expect("ends");
        wait_until(|| fs::read_dir(&point).is_err()).expect("it is dead");
        let text = mount(&point, 11);
        let advice = text.lines().find_map(|line| line.trim().split_once("first: ")).expect("a command").1;
        let mut words = advice.split(' ');
        run(Command::new(words.next().expect("a program")).args(words)).expect("the advice works");
        assert_gone(&point);
        let child = mounted(&carrack, &point);
        signal(&child, Signal::INT).expect("sends");
        wait(child, 0);
        assert_gone(&point);
    });
}

#[test]
fn an_ordinary_user_mounts_and_unmounts() {
    in_private_mounts(|| {
        let carrack = Program::as_nobody(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
        // Some systems let only root open the device; here is one for everybody, in this thread's mounts only.
        let device = carrack.path("fuse");
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(rustix::fs::CWD, &device, kind, mode, rustix::fs::makedev(10, 229))
            .expect("makes");
        fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("opens up");
        run(Command::new("mount").arg("--bind").arg(&device).arg("/dev/fuse")).expect("binds");
        carrack.run(["backup", "/etc/passwd"], 0);
        let point = carrack.path("mounted");
        ended(Command::new("install").args(["-d", "-o", "nobody"]).arg(&point), 0);
        let child = mounted(&carrack, &point);
        signal(&child, Signal::INT).expect("sends");
        wait(child, 0);
        assert_gone(&point);

        let child = mounted(&carrack, &point);
        signal(&child, Signal::INT).expect("sends");
        signal(&child, Signal::TERM).expect("sends");
        child.wait_with_output();
        assert_gone(&point);
    });
}

/// The kernel asks for pieces of its own size; the file is larger than what a program keeps open.
#[test]
fn many_readers_at_once_see_the_same() {
    in_private_mounts(|| {
        let (carrack, point) = prepared();
        let bytes = noise(3, 20_000_000);
        fs::write(carrack.path("source/large"), &bytes).expect("writes");
        carrack.run(["backup".as_ref(), carrack.path("source").as_os_str()], 0);
        let child = mounted(&carrack, &point);
        let file = point.join("latest").join(below(&carrack.path("source/large")));
        std::thread::scope(|scope| {
            for reader in 0..4 {
                let (file, bytes) = (File::open(&file).expect("opens"), &bytes);
                scope.spawn(move || {
                    for step in 0..40 {
                        let at = (step * 7 + reader * 13) % 40 * 500_000;
                        let mut buffer = vec![0; 400_000];
                        file.read_exact_at(&mut buffer, at as u64).expect("reads");
                        assert!(buffer == bytes[at..at + buffer.len()], "{} bytes at {at}", buffer.len());
                    }
                });
            }
        });
        signal(&child, Signal::TERM).expect("sends");
        wait(child, 0);
        assert_gone(&point);
    });
}
