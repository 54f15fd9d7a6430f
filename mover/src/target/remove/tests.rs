use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::error::ErrorKind;
use crate::target::tree::TargetOptions;

/// Somebody who owns nothing.
const NOBODY: u32 = 65534;

fn open(root: &Path) -> TargetTree {
    TargetTree::open(root, TargetOptions::default()).unwrap()
}

/// A directory of many files and of many directories that are not empty; how many entries it has with itself.
fn populate(top: &Path) -> u64 {
    fs::create_dir(top).unwrap();
    fs::write(top.join("first"), "").unwrap();
    for number in 0..1500 {
        fs::hard_link(top.join("first"), top.join(format!("file-{number}"))).unwrap();
    }
    for number in 0..60 {
        let directory = top.join(format!("directory-{number}"));
        fs::create_dir_all(directory.join("empty")).unwrap();
        fs::create_dir_all(directory.join("one/two")).unwrap();
        fs::hard_link(top.join("first"), directory.join("one/two/file")).unwrap();
        symlink("/", directory.join("link")).unwrap();
    }
    1 + 1501 + 60 * 6
}

#[test]
fn many_names_are_counted_and_removed_with_little_memory() {
    for waiting in [0, 100, WAITING] {
        let dir = tempfile::tempdir().unwrap();
        let entries = populate(&dir.path().join("top"));
        let target = open(dir.path());
        assert_eq!(target.bottom_up(b"top", false, waiting).unwrap(), entries, "{waiting}");
        assert_eq!(target.bottom_up(b"top", true, waiting).unwrap(), entries, "{waiting}");
        assert!(target.is_empty().unwrap());
    }
}

#[test]
fn a_deep_tree_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(100);
    let target = open(dir.path());
    let mut path = name.clone().into_bytes();
    for _ in 0..150 {
        // Longer than any path that the kernel takes at once.
        target.create_directory(&path).unwrap();
        path.extend_from_slice(format!("/{name}").as_bytes());
    }
    assert_eq!(target.count(name.as_bytes()).unwrap(), 150);
    assert_eq!(target.remove(name.as_bytes()).unwrap(), 150);
}

#[test]
fn a_name_that_cannot_be_removed_is_named_and_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    populate(&dir.path().join("top"));
    let kept = dir.path().join("top/directory-7");
    let root = rustix::process::geteuid().is_root();
    let everyone = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    everyone(dir.path());
    everyone(&dir.path().join("top"));
    for number in 0..60 {
        let directory = dir.path().join(format!("top/directory-{number}"));
        ["one/two", "one", "empty", ""].iter().for_each(|below| everyone(&directory.join(below)));
    }
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o555)).unwrap();
    let target = open(dir.path());
    let remove = || {
        if root {
            let nobody = rustix::process::Uid::from_raw(NOBODY);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        target.bottom_up(b"top", true, 100).unwrap_err()
    };
    // In a thread of its own, which alone becomes somebody else.
    let error = std::thread::scope(|scope| scope.spawn(remove).join().unwrap());
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("cannot remove top/directory-7/"), "{error}");
    assert!(kept.join("link").is_symlink());
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o755)).unwrap();
    target.remove(b"top").unwrap();
}

#[test]
fn what_somebody_else_removes_meanwhile_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    let entries = populate(&top);
    let others = || {
        let mut gone = 0;
        for number in (0..1500).rev() {
            gone += u64::from(fs::remove_file(top.join(format!("file-{number}"))).is_ok());
        }
        gone
    };
    let target = open(dir.path());
    let (gone, removed) = std::thread::scope(|scope| {
        let others = scope.spawn(others);
        (target.bottom_up(b"top", true, 100), others.join().unwrap())
    });
    assert_eq!(gone.unwrap() + removed, entries);
    assert!(!top.exists());
}

#[test]
fn a_directory_that_is_filled_meanwhile_does_not_hold_it_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    populate(&top);
    let (over, outside) = (AtomicBool::new(false), dir.path().join("outside"));
    fs::write(&outside, "").unwrap();
    // Names alone: to make inodes again and again is slow where they were removed a moment ago.
    let fill = || {
        let mut number = 0_u64;
        while !over.load(Ordering::Relaxed) {
            number += 1;
            // Fails when the directory is gone at last.
            fs::hard_link(&outside, top.join(format!("new-{number}"))).unwrap_or_default();
        }
    };
    let target = open(dir.path());
    let removed = std::thread::scope(|scope| {
        scope.spawn(fill);
        let removed = target.bottom_up(b"top", true, 100);
        over.store(true, Ordering::Relaxed);
        removed
    });
    match removed {
        Ok(_) => assert!(!top.exists()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            target.remove(b"top").unwrap();
        }
    }
}

/// Protects whatever has this name.
#[derive(Debug)]
struct Named(&'static str);

impl Protection for Named {
    fn protects(&self, path: &[u8]) -> bool {
        split_path(path).1 == self.0.as_bytes()
    }
}

#[test]
fn what_is_protected_stays_with_the_directories_that_it_is_in() {
    for waiting in [0, 100, WAITING] {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        populate(&top);
        // More directories that stay than any further pass may meet names.
        for number in 0..600 {
            let directory = top.join(format!("stays-{number}/deep/er"));
            fs::create_dir_all(&directory).unwrap();
            fs::hard_link(top.join("first"), directory.join("kept")).unwrap();
            fs::hard_link(top.join("first"), directory.join("goes")).unwrap();
            fs::create_dir(top.join(format!("stays-{number}/goes"))).unwrap();
        }
        let mut target = open(dir.path());
        target.protect(Box::new(Named("kept")));
        assert!(target.keeps_something(b"top").unwrap());
        assert!(!target.keeps_something(b"top/directory-7").unwrap());
        let gone = 1501 + 60 * 6 + 600 * 2;
        let mut listed = Vec::new();
        assert_eq!(target.list(b"top", |path| listed.push(path.to_vec())).unwrap(), gone, "{waiting}");
        assert_eq!(target.bottom_up(b"top", false, waiting).unwrap(), gone, "{waiting}");
        assert!(listed.iter().all(|path| !path.ends_with(b"/kept") && !path.ends_with(b"/er")));
        assert_eq!(listed.len() as u64, gone);
        assert_eq!(target.bottom_up(b"top", true, waiting).unwrap(), gone, "{waiting}");
        for number in 0..600 {
            let stays = top.join(format!("stays-{number}"));
            assert!(stays.join("deep/er/kept").is_file(), "{number}");
            assert_eq!(fs::read_dir(&stays).unwrap().count(), 1);
            assert_eq!(fs::read_dir(stays.join("deep/er")).unwrap().count(), 1);
        }
        assert_eq!(fs::read_dir(&top).unwrap().count(), 600);
        // Whoever restores once more finds nothing to remove.
        assert_eq!(target.remove(b"top").unwrap(), 0);
    }
}
