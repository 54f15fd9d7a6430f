//! What an ordinary user cannot read or keep: named, counted, and the exit code says so; the rest comes back.
//!
//! Needs root, to make what an ordinary user may not read, and the program beside the tests
//! (`cargo build -p carrack-mover`).

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use carrack_tests::{
    images::{FileSystem, Mounted, in_private_mounts, open_up, run},
    program::{NOBODY, Printed, Program},
    trees::{Entry, Tree, read, set_flags, set_mtime, set_xattr},
};
use rustix::fs::{CWD, FileType, IFlags, Mode, makedev};

const MIB: u64 = 320;

fn built() -> PathBuf {
    assert_cmd::cargo::cargo_bin("carrack")
}

/// Problems that a run named, by the number in its summary, which must be that of its warnings.
fn problems(printed: &Printed) -> u64 {
    let summary = printed.message("summary");
    let named = printed.err.lines().filter(|line| line.contains("\"message_type\":\"error\"")).count();
    let counted = summary["problems"].as_u64().expect("a number of problems");
    assert_eq!(counted, named as u64, "{}\n{}", printed.out, printed.err);
    counted
}

fn is_named(printed: &Printed, what: &str) {
    assert!(printed.err.contains(what), "{what} is not named in:\n{}", printed.err);
}

/// Of this user and others, readable and not.
fn make_tree(at: &Path) {
    fs::create_dir(at).expect("makes");
    open_up(at).expect("opens");
    for name in ["readable", "of another", "set-id", "secret"] {
        fs::write(at.join(name), name).expect("writes");
        set_mtime(&at.join(name), 1_000_000_000, 123_456_789).expect("sets");
    }
    for name in ["open", "closed", "own"] {
        fs::create_dir(at.join(name)).expect("makes");
        fs::write(at.join(name).join("inside"), name).expect("writes");
    }
    symlink("nowhere", at.join("link")).expect("links");
    let mode = |name: &str, mode| {
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).expect("sets");
    };
    for name in ["readable", "own", "own/inside"] {
        chown(at.join(name), Some(NOBODY), Some(NOBODY)).expect("gives");
    }
    chown(at.join("of another"), Some(1234), Some(4321)).expect("gives");
    mode("set-id", 0o6755);
    mode("secret", 0o600);
    mode("closed", 0o700);
    mode("own", 0o500);
    set_xattr(&at.join("readable"), "user.kept", b"kept").expect("sets");
    set_xattr(&at.join("readable"), "trusted.hidden", b"from ordinary users").expect("sets");
}

fn entry<'t>(tree: &'t Tree, name: &str) -> &'t Entry {
    &tree.get(format!("0/{name}").as_bytes()).expect("it came back").0
}

#[test]
fn what_may_not_be_read_is_named_and_the_rest_comes_back() {
    in_private_mounts(|| {
        let place = Mounted::new(FileSystem::Ext4, MIB).expect("an image");
        let source = place.path().join("source");
        make_tree(&source);
        let carrack = Program::as_nobody(built()).expect("a repository");
        let printed = carrack.run(["backup".as_ref(), "--json".as_ref(), source.as_os_str()], 3);
        assert_eq!(problems(&printed), 2, "{}", printed.err);
        is_named(&printed, "secret");
        is_named(&printed, "closed");

        // The owner of another's file cannot be kept, nor its set-id bits.
        let target = carrack.path("restored");
        let restore = ["restore", "latest", "--json", "--target"].map(OsStr::new);
        let printed = carrack.run(restore.into_iter().chain([target.as_os_str()]), 3);
        assert!(problems(&printed) > 0);
        for what in ["of another", "set-id", "owner", "mode"] {
            is_named(&printed, what);
        }
        let restored = target.join(source.strip_prefix("/").expect("absolute"));
        let (before, after) = (read(&[&source]).expect("reads"), read(&[&restored]).expect("reads"));
        for name in ["readable", "own", "own/inside"] {
            let mut wanted = entry(&before, name).clone();
            // Nobody but root sees these.
            wanted.xattrs.remove(&b"trusted.hidden"[..]);
            assert_eq!(entry(&after, name), &wanted, "{name}");
        }
        for name in ["of another", "set-id", "open/inside"] {
            let (wanted, found) = (entry(&before, name), entry(&after, name));
            assert_eq!((found.contents, found.mtime), (wanted.contents, wanted.mtime), "{name}");
            assert_eq!(found.owner, (NOBODY, NOBODY), "{name}");
        }
        assert_eq!(entry(&after, "set-id").mode & 0o7777, 0o755, "the rights of root were not handed out");
        assert!(!after.contains_key(&b"0/secret"[..]), "a file without its contents was made");

        // Again onto what is there: the same is named, and nothing gets worse.
        let again = carrack.run(restore.into_iter().chain([target.as_os_str()]), 3);
        assert_eq!(problems(&again), problems(&printed), "{}\n{}", printed.err, again.err);
        assert_eq!(read(&[&restored]).expect("reads"), after);
    });
}

#[test]
fn what_only_root_may_make_is_named() {
    in_private_mounts(|| {
        let place = Mounted::new(FileSystem::Xfs, MIB).expect("an image");
        let source = place.path().join("source");
        fs::create_dir(&source).expect("makes");
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(CWD, source.join("null"), FileType::CharacterDevice, mode, makedev(1, 3))
            .expect("makes");
        rustix::fs::mknodat(CWD, source.join("fifo"), FileType::Fifo, mode, 0).expect("makes");
        fs::write(source.join("file"), b"plain").expect("writes");
        set_xattr(&source.join("file"), "trusted.hidden", b"from ordinary users").expect("sets");
        set_xattr(&source.join("file"), "security.carrack", b"by root").expect("sets");
        set_flags(&source.join("file"), IFlags::IMMUTABLE).expect("sets");
        for name in ["null", "fifo", "."] {
            chown(source.join(name), Some(NOBODY), Some(NOBODY)).expect("gives");
        }
        let root = Program::new(built()).expect("a repository");
        root.run(["backup".as_ref(), source.as_os_str()], 0);

        // The same repository, read by an ordinary user.
        let nobody = Program::as_nobody(built()).expect("a place");
        run(Command::new("cp").arg("-r").arg(root.path("repository")).arg(nobody.path("copy")))
            .expect("copies");
        let owner = format!("{NOBODY}:{NOBODY}");
        run(Command::new("chown").arg("-R").arg(owner).arg(nobody.path("copy"))).expect("gives");
        let (copy, target) = (nobody.path("copy"), nobody.path("restored"));
        let options = ["restore", "latest", "--json", "--target"].map(OsStr::new);
        let at = [target.as_os_str(), "-r".as_ref(), copy.as_os_str()];
        let printed = nobody.run(options.into_iter().chain(at), 3);
        problems(&printed);
        for what in ["null", "trusted.hidden", "security.carrack", "flags"] {
            is_named(&printed, what);
        }
        let restored = target.join(source.strip_prefix("/").expect("absolute"));
        let after = read(&[&restored]).expect("reads");
        assert!(entry(&after, "file").contents.is_some_and(|(length, _)| length == 5));
        assert!(after.contains_key(&b"0/fifo"[..]));
        assert!(!after.contains_key(&b"0/null"[..]));
    });
}
