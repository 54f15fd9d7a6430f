//! Options that choose what is kept, what comes back and what goes: each through the program, with what it must not do
//! beside what it does.
//!
//! Needs root, FUSE, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use carrack_tests::{
    images::{in_private_mounts, run},
    program::{Printed, Program},
    trees::noise,
};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

const CACHE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\nmore\n";

fn program() -> Program {
    Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository")
}

/// A tree in which every option finds something to leave out and something like it to keep.
fn tree(carrack: &Program) -> PathBuf {
    let source = carrack.path("source");
    let files: [(&str, &[u8]); 19] = [
        ("a.txt", b"a"),
        ("b.o", b"b"),
        ("keep.o", b"kept"),
        ("deep/c.o", b"c"),
        ("deep/d.txt", b"d"),
        ("Photos/IMG.JPG", b"picture"),
        ("cache/CACHEDIR.TAG", CACHE),
        ("cache/blob", b"blob"),
        ("no cache/CACHEDIR.TAG", b"Signature: of somebody else"),
        ("no cache/blob", b"blob"),
        ("skipped/.nobackup", b""),
        ("skipped/x", b"x"),
        ("marked/mark", b"skip me, please"),
        ("marked/x", b"x"),
        ("unmarked/mark", b"keep me"),
        ("unmarked/x", b"x"),
        ("listed/one", b"1"),
        ("listed/two", b"2"),
        ("large", &[7; 20 << 10]),
    ];
    for (name, contents) in files {
        let path = source.join(name);
        fs::create_dir_all(path.parent().expect("a directory above")).expect("makes");
        fs::write(path, contents).expect("writes");
    }
    source
}

/// Everything below the source in the newest snapshot.
fn kept(carrack: &Program, source: &Path) -> BTreeSet<String> {
    let listed = carrack.run(["ls", "latest", "-R", "--json"], 0);
    let messages = listed.out.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let prefix = format!("{}/", source.display());
    messages
        .filter_map(|message: serde_json::Value| {
            message["path"].as_str()?.strip_prefix(&prefix).map(str::to_owned)
        })
        .collect()
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_rule_leaves_out_what_it_says_and_nothing_else() {
    in_private_mounts(|| {
        let carrack = program();
        let source = tree(&carrack);
        let mounted = source.join("mounted");
        fs::create_dir(&mounted).expect("makes");
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mounted)).expect("mounts");
        fs::write(mounted.join("inside"), b"inside").expect("writes");
        let list = carrack.path("list").display().to_string();
        fs::write(&list, "# a comment\n\nlisted/one\n  *.txt  \n!a.txt\n").expect("writes");
        let deep = source.join("deep").display().to_string();
        let cases: [(&[&str], &[&str]); 18] = [
            (&[], &[]),
            (&["--exclude", "*.o"], &["b.o", "keep.o", "deep/c.o"]),
            (&["-e", "*.o", "-e", "!keep.o"], &["b.o", "deep/c.o"]),
            (&["-e", "!keep.o", "-e", "*.o"], &["b.o", "keep.o", "deep/c.o"]),
            (&["--exclude", "deep/*.o"], &["deep/c.o"]),
            (&["--exclude", "/deep"], &[]),
            (&["--exclude", &deep], &["deep", "deep/c.o", "deep/d.txt"]),
            (&["--exclude", "?.o"], &["b.o", "deep/c.o"]),
            (&["--exclude", "*.jpg"], &[]),
            (&["--iexclude", "*.jpg"], &["Photos/IMG.JPG"]),
            (&["--exclude-file", &list], &["listed/one", "deep/d.txt"]),
            (&["--exclude-caches"], &["cache/blob"]),
            (&["--exclude-if-present", ".nobackup"], &["skipped/x"]),
            (&["--exclude-if-present", "mark:skip me"], &["marked/x"]),
            (&["--exclude-if-present", "mark"], &["marked/x", "unmarked/x"]),
            (&["--exclude-larger-than", "20479B"], &["large"]),
            (&["--exclude-larger-than", "20KiB"], &[]),
            (&["--one-file-system"], &["mounted/inside"]),
        ];
        let mut all = BTreeSet::new();
        for (options, gone) in cases {
            let arguments = ["backup", &source.display().to_string(), "--json"].map(str::to_owned);
            let arguments = arguments.into_iter().chain(options.iter().map(|option| (*option).to_owned()));
            let printed = carrack.run(arguments, 0);
            let found = kept(&carrack, &source);
            if options.is_empty() {
                all = found.clone();
                assert!(all.len() > 25, "{all:?}");
            }
            let left_out: BTreeSet<String> = all.difference(&found).cloned().collect();
            assert_eq!(left_out, names(gone), "{options:?}");
            assert!(found.is_subset(&all), "{options:?}");
            let counted = printed.message("summary")["excluded"].as_u64().expect("a number");
            assert_eq!(counted > 0, !gone.is_empty(), "{options:?}: {counted} counted as left out");
        }
        // What is mounted can be named beside it.
        let both = [source.as_os_str(), mounted.as_os_str()].map(OsStr::to_owned);
        carrack.run(["backup", "-x"].map(OsString::from).into_iter().chain(both), 0);
        assert_eq!(kept(&carrack, &source), all);
    });
}

/// The attributes of the directories above count too, so this is no place where others make directories meanwhile.
#[test]
fn an_unchanged_source_gets_no_further_snapshot() {
    in_private_mounts(|| {
        let carrack = program();
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/mnt"])).expect("mounts");
        let file = Path::new("/mnt/source/file");
        fs::create_dir("/mnt/source").expect("makes");
        fs::write(file, b"one").expect("writes");
        let backup = |more: &[&str]| {
            let arguments = ["backup", "/mnt/source", "--skip-if-unchanged"];
            carrack.run(arguments.iter().chain(more), 0)
        };
        assert!(backup(&["--json"]).message("summary")["snapshot_id"].is_string(), "there was none");
        let again = backup(&["--json"]).message("summary");
        assert!(again["snapshot_id"].is_null() && again["session"].is_null(), "{again}");
        let words = backup(&[]).out;
        assert!(words.contains("nothing differs") && !words.contains("saved"), "{words}");
        fs::write(file, b"two").expect("writes");
        assert!(backup(&["--json"]).message("summary")["snapshot_id"].is_string(), "a file has changed");
        // Without the option there is one each time.
        carrack.run(["backup", "/mnt/source"], 0);
        let listed = carrack.run(["snapshots", "--json"], 0).message("summary");
        assert_eq!(listed["snapshots"], 3);
    });
}

/// Files below a directory; directories alone do not count.
fn files(target: &Path) -> BTreeSet<String> {
    let found = run(Command::new("find").args([".", "-type", "f"]).current_dir(target)).expect("lists");
    found.lines().filter_map(|line| line.strip_prefix("./")).map(str::to_owned).collect()
}

#[test]
fn each_pattern_of_a_restore_brings_back_what_it_says_and_nothing_else() {
    let carrack = program();
    let source = tree(&carrack);
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    let all = files(&source);
    let list = carrack.path("list").display().to_string();
    fs::write(&list, "# a comment\n\n*.o\n!keep.o\n").expect("writes");
    let objects: &[&str] = &["b.o", "keep.o", "deep/c.o"];
    let without = |gone: &[&str]| &all - &names(gone);
    let cases: [(&[&str], BTreeSet<String>); 12] = [
        (&[], all.clone()),
        (&["--include", "*.o"], names(objects)),
        (&["-i", "b.o", "-i", "/deep"], names(&["b.o", "deep/c.o", "deep/d.txt"])),
        (&["--include", "*.o", "--exclude", "deep"], names(&["b.o", "keep.o"])),
        (&["--iinclude", "img.*"], names(&["Photos/IMG.JPG"])),
        (&["--include-file", &list], names(&["b.o", "deep/c.o"])),
        (&["--include", "deep/**", "--include", "!c.o"], names(&["deep/d.txt"])),
        (&["--exclude", "*.o"], without(objects)),
        (&["--exclude", "*.jpg"], all.clone()),
        (&["--iexclude", "*.jpg"], without(&["Photos/IMG.JPG"])),
        (&["--exclude-file", &list], without(&["b.o", "deep/c.o"])),
        (
            &["-e", "/listed", "--iexclude", "PHOTOS"],
            without(&["listed/one", "listed/two", "Photos/IMG.JPG"]),
        ),
    ];
    let restore = |target: &Path, options: &[&str], code| {
        let what = format!("latest:{}", source.display());
        let start = ["restore", &what, "--target", &target.display().to_string()].map(str::to_owned);
        carrack.run(start.into_iter().chain(options.iter().map(|option| (*option).to_owned())), code)
    };
    for (number, (options, wanted)) in cases.into_iter().enumerate() {
        let target = carrack.path(&format!("target {number}"));
        restore(&target, options, 0);
        assert_eq!(files(&target), wanted, "{options:?}");
        for name in wanted {
            let (old, new) = (fs::read(source.join(&name)), fs::read(target.join(&name)));
            assert!(old.expect("reads") == new.expect("reads"), "{options:?}: {name} differs");
        }
    }
    let nothing = restore(&carrack.path("nothing"), &["--include", "img.*"], 10);
    assert!(nothing.err.contains("nothing in the snapshot matches"), "{}", nothing.err);
}

#[test]
fn patterns_that_cannot_be_understood_are_named_before_anything_is_done() {
    let carrack = program();
    let source = tree(&carrack);
    let path = source.display().to_string();
    carrack.run(["backup", &path], 0);
    let (wrong, none) = (carrack.path("wrong"), carrack.path("none"));
    fs::write(&wrong, "good\n# [\n[\n").expect("writes");
    let (wrong, none) = (wrong.display().to_string(), none.display().to_string());
    let third = format!("{wrong}:3: invalid pattern \"[\"");
    let missing = format!("cannot read the patterns in {none}");
    let invalid = |option: &str| format!("{option}: invalid pattern \"[\"");
    let refused = |verb: &[&str], option: &[&str], code, words: &str| {
        let printed = carrack.run(verb.iter().chain(option), code);
        assert!(printed.err.contains(words), "{verb:?} {option:?}: {}", printed.err);
        // What the parser of the command line refuses, it explains in its own words.
        assert!(printed.err.contains("next: ") || printed.err.contains("--help"), "{}", printed.err);
        assert_eq!(printed.out, "", "{verb:?} {option:?}");
    };
    let target = carrack.path("target");
    let shown = target.display().to_string();
    let backup: &[&str] = &["backup", &path];
    let restore: &[&str] = &["restore", "latest", "--target", &shown];
    for option in ["--exclude", "--iexclude"] {
        refused(backup, &[option, "["], 2, &invalid(option));
        refused(backup, &[option, "!"], 2, "it names nothing");
        refused(backup, &[option, "//"], 2, "it names nothing");
    }
    for option in ["--include", "--iinclude", "--exclude", "--iexclude"] {
        refused(restore, &[option, "["], 2, &invalid(option));
        refused(restore, &[option, ""], 2, "it names nothing");
    }
    for (verb, option) in
        [(backup, "--exclude-file"), (restore, "--exclude-file"), (restore, "--include-file")]
    {
        refused(verb, &[option, &wrong], 2, &third);
        refused(verb, &[option, &none], 10, &missing);
    }
    for rule in ["a/b", ":header", ""] {
        refused(backup, &["--exclude-if-present", rule], 2, "expected a file name");
    }
    refused(backup, &["--exclude-larger-than", "big"], 2, "is not a size");
    assert!(!target.exists(), "a restore has begun");
    assert_eq!(carrack.run(["snapshots", "--json"], 0).message("summary")["snapshots"], 1);
}

/// Files that are what somebody sees and not any more what he gets.
const MOVING: [&str; 4] = ["still", "vanished", "small", "large"];
const LARGE: usize = 5 << 20;

/// One directory: `vanished` is listed and cannot be opened, and each read of `small` and `large` changes their times.
#[derive(Debug)]
struct Moving {
    contents: [Vec<u8>; 4],
    reads: Arc<AtomicU64>,
}

fn moving_contents(name: &str) -> Vec<u8> {
    noise(name.len() as u64, if name == "large" { LARGE } else { 3000 })
}

impl Moving {
    fn attributes(&self, number: INodeNo) -> FileAttr {
        let index = number.0.checked_sub(2).map(|index| index as usize);
        let size = index.map_or(0, |index| self.contents[index].len() as u64);
        let moves = index.is_some_and(|index| matches!(MOVING[index], "small" | "large"));
        let reads = if moves { self.reads.load(Ordering::SeqCst) } else { 0 };
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000 + reads);
        FileAttr {
            ino: number,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if index.is_some() { FileType::RegularFile } else { FileType::Directory },
            perm: if index.is_some() { 0o644 } else { 0o755 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Moving {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match MOVING.iter().position(|known| OsStr::new(known) == name) {
            Some(index) => {
                let number = INodeNo(index as u64 + 2);
                reply.entry(&Duration::ZERO, &self.attributes(number), Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attributes(number));
    }

    fn readdir(
        &self,
        _req: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (at, name) in [".", ".."].into_iter().chain(MOVING).enumerate().skip(offset as usize) {
            let number = INodeNo((at as u64).max(1));
            let full = reply.add(number, at as u64 + 1, self.attributes(number).kind, name);
            if full {
                break;
            }
        }
        reply.ok();
    }

    fn open(&self, _req: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if number == INodeNo(3) {
            reply.error(Errno::ENOENT);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        }
    }

    fn read(
        &self,
        _req: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let contents = &self.contents[number.0 as usize - 2];
        self.reads.fetch_add(1, Ordering::SeqCst);
        let rest = contents.get(offset as usize..).unwrap_or_default();
        reply.data(&rest[..rest.len().min(size as usize)]);
    }
}

/// What is gone or changes between the look and the end of the read makes the backup partial; the rest is whole.
#[test]
fn files_that_vanish_or_change_are_named_and_the_others_are_kept() {
    in_private_mounts(|| {
        let carrack = program();
        let source = carrack.path("source");
        fs::create_dir_all(source.join("moving")).expect("makes");
        fs::write(source.join("beside"), b"beside").expect("writes");
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("moving".to_owned()), MountOption::RO];
        let reads = Arc::new(AtomicU64::new(0));
        let moving = Moving { contents: MOVING.map(moving_contents), reads: Arc::clone(&reads) };
        let session = fuser::spawn_mount(moving, source.join("moving"), &config).expect("mounts");
        let path = source.display().to_string();
        let changed = "it changed while it was read";
        for round in 0..2 {
            let printed = carrack.run(["backup", &path], 3);
            assert!(reads.load(Ordering::SeqCst) > 0);
            let warned = |name: &str, words: &str| {
                let path = format!("{path}/moving/{name}");
                let mut lines = printed.err.lines().filter(|line| line.contains(&path));
                assert!(lines.any(|line| line.contains(words)), "{round} {name}: {}", printed.err);
            };
            warned("vanished", "No such file");
            warned("small", changed);
            warned("large", changed);
            assert!(!printed.err.contains("moving/still"), "{}", printed.err);
            assert!(printed.out.contains("problems   3"), "{}", printed.out);
            let next = printed.out.lines().find(|line| line.starts_with("  next: "));
            assert!(next.is_some_and(|line| line.contains("run the same command again")), "{}", printed.out);
        }
        let summary = carrack.run(["backup", &path, "--json"], 3).message("summary");
        assert_eq!(summary["problems"], 3);
        assert!(summary["next"].as_str().is_some_and(|next| next.contains("snapshot")), "{summary}");
        let strict = carrack.run(["backup", &path, "--strict"], 16);
        assert!(strict.err.contains("moving/vanished"), "{}", strict.err);
        drop(session);
        carrack.run(["check", "--read-data"], 0);
        let restored = carrack.restored(&source, &carrack.path("target"), 0);
        assert_eq!(files(&restored), names(&["beside", "moving/still", "moving/small", "moving/large"]));
        for name in ["still", "small", "large"] {
            let found = fs::read(restored.join("moving").join(name)).expect("reads");
            assert!(found == moving_contents(name), "{name} differs");
        }
        let whole = carrack.run(["backup", &path, "--json"], 0).message("summary");
        assert!(whole["next"].is_null(), "{whole}");
    });
}

/// The ids of all snapshots, oldest first.
fn ids(carrack: &Program) -> Vec<String> {
    let listed = carrack.run(["snapshots", "--json"], 0);
    let messages = listed.out.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    messages.filter_map(|message: serde_json::Value| Some(message["id"].as_str()?.to_owned())).collect()
}

#[test]
fn a_forget_by_name_shows_which_snapshots_go_before_they_do() {
    let carrack = program();
    let source = tree(&carrack).display().to_string();
    for host in ["one", "two", "three"] {
        carrack.run(["backup", &source, "--host", host], 0);
    }
    let all = ids(&carrack);
    let shown = |printed: &Printed, verb: &str, of: usize| {
        let line = printed.out.lines().nth(of).unwrap_or_default();
        let wanted = [verb, &all[of], ["one", "two", "three"][of], &source];
        assert!(wanted.iter().all(|word| line.contains(word)), "{wanted:?}: {}", printed.out);
        assert!(line.contains(':') && line.contains('-'), "no time in: {line}");
    };
    for (options, done) in [(&["-n"][..], "2 snapshots would be forgotten"), (&[], "2 snapshots forgotten")] {
        let printed = carrack.run(["forget", &all[0], &all[1]].iter().chain(options), 0);
        shown(&printed, "forget", 0);
        shown(&printed, "forget", 1);
        assert_eq!(printed.out.lines().nth(2), Some(done));
        assert_eq!(ids(&carrack).len(), if options.is_empty() { 1 } else { 3 });
    }
    let pinned = || carrack.run(["snapshots", "--json"], 0).message("snapshot")["pinned"].clone();
    for (pin, verb, before) in [("--pin", "pin", false), ("--unpin", "unpin", true)] {
        let dry = carrack.run(["forget", pin, &all[2], "-n"], 0);
        assert!(dry.out.starts_with(&format!("{verb:6}  {}  ", all[2])), "{}", dry.out);
        assert!(dry.out.ends_with(&format!("1 snapshot would be {verb}ned\n")), "{}", dry.out);
        assert_eq!(pinned(), before, "a dry run");
        let done = carrack.run(["forget", pin, &all[2]], 0);
        assert!(done.out.ends_with(&format!("1 snapshot {verb}ned\n")), "{}", done.out);
        assert_eq!(pinned(), !before);
    }
}

/// Codes in the table of errors, in the help, and in the file that gives them.
#[test]
fn exit_codes_are_the_same_wherever_they_are_listed() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| fs::read_to_string(top.join(name)).expect("reads");
    let architecture = read("ARCHITECTURE.md");
    let (_, errors) = architecture.split_once("\n## Errors\n").expect("the section");
    let (errors, _) = errors.split_once("\n## ").expect("the next section");
    let rows = errors.lines().filter(|line| line.starts_with('|'));
    let table: Vec<u8> = rows.filter_map(|row| row.rsplit('|').nth(1)?.trim().parse().ok()).collect();
    let help = program().run(["--help"], 0).out;
    let (_, list) = help.split_once("Exit codes:\n").expect("a list");
    let (list, _) = list.split_once("\n\n").expect("its end");
    let listed: Vec<u8> = list.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let source = read("mover/src/cli/exit.rs");
    let given =
        source.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(' ').next()?.parse().ok());
    let given: BTreeSet<u8> = given.collect();
    assert!(given.contains(&16) && given.len() > 10, "{given:?}");
    for (place, codes) in [("ARCHITECTURE.md", table), ("carrack --help", listed)] {
        assert_eq!(codes.iter().copied().collect::<BTreeSet<_>>(), given, "{place}");
    }
}
