//! Trees with every attribute, on real ext4 and xfs images: all of it comes back, and from one to the other. On btrfs, what
//! only an empty file takes.
//!
//! Needs root, the program beside the tests (`cargo build -p carrack-mover`), and the programs that
//! `tests/setup.sh test` installs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use carrack_tests::{
    images::{FileSystem, Mounted, in_private_mounts, run},
    program::Program,
    trees::{differences, make_everything, read, rsync_differences},
};

/// Paths that are too long for `rsync`; the comparer here looks at them.
const TOO_LONG: &str = "/deep";
/// Size of an image; the least that `mkfs.xfs` takes is 300 MiB.
const MIB: u64 = 512;

fn program() -> Program {
    Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository")
}

/// Fails with everything that differs, by `rsync` in both directions and by the comparer here.
fn assert_equal(source: &[PathBuf], restored: &[PathBuf]) {
    let found = differences(&read(source).expect("reads"), &read(restored).expect("reads"));
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
    for (source, restored) in source.iter().zip(restored) {
        assert_eq!(rsync_differences(source, restored, &[TOO_LONG]).expect("rsync runs"), "");
    }
}

fn below(target: &Path, sources: &[PathBuf]) -> Vec<PathBuf> {
    sources.iter().map(|source| target.join(source.strip_prefix("/").expect("absolute"))).collect()
}

/// Backs up from one file system and restores to another, twice: the second time onto what the first one made.
fn round_trip(from: FileSystem, to: FileSystem) {
    in_private_mounts(|| {
        let (source, target) =
            (Mounted::new(from, MIB).expect("an image"), Mounted::new(to, MIB).expect("an image"));
        let sources = make_everything(&source.path(), [from, to]).expect("a tree");
        let carrack = program();
        carrack.run(["backup".as_ref(), sources[0].as_os_str(), sources[1].as_os_str()], 0);
        let restore = ["restore", "latest", "--json", "--verify", "--delete", "--target"];
        let place = target.path().join("restored");
        let arguments = restore.map(std::ffi::OsStr::new).into_iter().chain([place.as_os_str()]);
        carrack.run(arguments.clone(), 0);
        let restored = below(&place, &sources);
        assert_equal(&sources, &restored);

        let again = carrack.run(arguments, 0).message("summary");
        assert_eq!(again["deleted"], 0, "{again}");
        assert_equal(&sources, &restored);
    });
}

#[test]
fn everything_comes_back_on_ext4() {
    round_trip(FileSystem::Ext4, FileSystem::Ext4);
}

#[test]
fn everything_comes_back_on_xfs() {
    round_trip(FileSystem::Xfs, FileSystem::Xfs);
}

#[test]
fn everything_goes_from_ext4_to_xfs() {
    round_trip(FileSystem::Ext4, FileSystem::Xfs);
}

#[test]
fn everything_goes_from_xfs_to_ext4() {
    round_trip(FileSystem::Xfs, FileSystem::Ext4);
}

/// Btrfs takes it of empty files only, and says yes for all.
#[test]
fn files_that_are_written_in_place_stay_so_on_btrfs() {
    in_private_mounts(|| {
        let (source, target) = (btrfs(), btrfs());
        let names = ["small", "large", "other", "other-large"];
        for name in names {
            let path = source.path().join(name);
            fs::File::create(&path).expect("a file");
            if !name.starts_with("other") {
                run(Command::new("chattr").arg("+C").arg(&path)).expect("chattr");
            }
            fs::write(&path, vec![7; if name.ends_with("large") { 3 << 20 } else { 5000 }])
                .expect("contents");
        }
        let carrack = program();
        carrack.run(["backup".as_ref(), source.path().as_os_str()], 0);
        let restore = |place: &Path, code| {
            let tree = format!("latest:{}", source.path().display());
            carrack.run(["restore", &tree, "--verify", "--target", place.to_str().expect("text")], code);
            names.map(|name| is_written_in_place(&place.join(name)))
        };
        let plain = target.path().join("plain");
        assert_eq!(restore(&plain, 0), [true, true, false, false]);
        // New files of such a directory are so by themselves.
        let own = target.path().join("own");
        fs::create_dir(&own).expect("a directory");
        run(Command::new("chattr").arg("+C").arg(&own)).expect("chattr");
        fs::write(own.join("theirs"), "so that it keeps its attributes").expect("contents");
        assert_eq!(restore(&own, 0), [true, true, false, false]);
        // What holds something already stays as it is, and is named.
        fs::write(plain.join("small"), "").expect("emptied");
        run(Command::new("chattr").arg("-C").arg(plain.join("small"))).expect("chattr");
        fs::write(plain.join("small"), "something else").expect("contents");
        assert_eq!(restore(&plain, 3), [false, true, false, false]);
    });
}

fn btrfs() -> Mounted {
    Mounted::new(FileSystem::Btrfs, MIB).expect("an image")
}

fn is_written_in_place(file: &Path) -> bool {
    let listed = run(Command::new("lsattr").arg(file)).expect("lsattr");
    listed.split(' ').next().is_some_and(|flags| flags.contains('C'))
}
