//! Where a restore goes: devices and images, directories that are not empty, parts of a snapshot, standard output.
//!
//! Needs root, the program beside the tests (`cargo build -p carrack-mover`), and the programs that
//! `tests/setup.sh test` installs.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use carrack_tests::{
    images::{FileSystem, LoopDevice, Mounted, in_private_mounts, run},
    program::{Printed, Program},
    trees::{noise, rsync_differences, set_mtime},
};

const DEVICE_BYTES: u64 = 320 << 20;

fn program() -> Program {
    Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository")
}

fn words<'a>(words: &'a [&'a str], paths: &'a [&'a Path]) -> Vec<&'a OsStr> {
    words.iter().map(OsStr::new).chain(paths.iter().map(|path| path.as_os_str())).collect()
}

/// Restores something to a target, with more options.
fn restore(carrack: &Program, what: &str, target: &Path, options: &[&str], code: i32) -> Printed {
    let start = ["restore", what, "--json", "--target"].map(OsString::from);
    let options = options.iter().map(OsString::from);
    carrack.run(start.into_iter().chain([target.as_os_str().to_owned()]).chain(options), code)
}

/// A number of the summary.
fn counted(printed: &Printed, name: &str) -> u64 {
    printed.message("summary")[name].as_u64().expect("it is in the summary")
}

/// A device with a file system that holds something; unmounted again.
fn filled_device(kind: FileSystem) -> LoopDevice {
    let device = LoopDevice::new(DEVICE_BYTES).expect("a device");
    kind.make(device.path()).expect("makes a file system");
    let point = tempfile::tempdir().expect("a directory");
    run(Command::new("mount").arg(device.path()).arg(point.path())).expect("mounts");
    fs::write(point.path().join("file"), noise(1, 12_000_000)).expect("writes");
    fs::create_dir(point.path().join("directory")).expect("makes");
    fs::write(point.path().join("directory/zeros"), vec![0; 5_000_000]).expect("writes");
    rustix::mount::unmount(point.path(), rustix::mount::UnmountFlags::empty()).expect("unmounts");
    device
}

fn same_bytes(one: &Path, other: &Path) {
    run(Command::new("cmp").args([one, other])).expect("every byte is the same");
}

fn device_round_trip(kind: FileSystem) {
    in_private_mounts(|| {
        let source = filled_device(kind);
        let carrack = program();
        carrack.run(words(&["backup", "--device"], &[source.path()]), 0);
        // A larger device that is full of something else: holes are zeros there too.
        let target = LoopDevice::new(DEVICE_BYTES + (1 << 20)).expect("a device");
        let file = File::options().write(true).open(target.path()).expect("opens");
        file.write_all_at(&noise(2, 80 << 20), 0).expect("writes");
        file.sync_all().expect("syncs");
        drop(file);
        restore(&carrack, "latest", target.path(), &[], 0);
        run(Command::new("cmp").arg("-n").arg(DEVICE_BYTES.to_string()).args([source.path(), target.path()]))
            .expect("every byte is the same");
        kind.check(target.path()).expect("a whole file system");

        let image = carrack.path("image");
        restore(&carrack, "latest", &image, &[], 0);
        same_bytes(source.path(), &image);
        kind.check(&image).expect("a whole file system");
        let (kept, most) =
            (std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image).expect("looks")) * 512, 90 << 20);
        assert!(kept < most, "the holes of the image take {kept} bytes");
    });
}

#[test]
fn an_ext4_device_comes_back_whole() {
    device_round_trip(FileSystem::Ext4);
}

#[test]
fn an_xfs_device_comes_back_whole() {
    device_round_trip(FileSystem::Xfs);
}

#[test]
fn only_what_differs_is_written_to_a_device() {
    in_private_mounts(|| {
        let source = filled_device(FileSystem::Ext4);
        let carrack = program();
        carrack.run(words(&["backup", "--device"], &[source.path()]), 0);
        let target = LoopDevice::new(DEVICE_BYTES).expect("a device");
        let dry = restore(&carrack, "latest", target.path(), &["--dry-run"], 0);
        assert_eq!(counted(&dry, "target_room"), DEVICE_BYTES);
        assert!(counted(&dry, "bytes_written") > 12_000_000, "{}", dry.out);
        let printed = restore(&carrack, "latest", target.path(), &["--verify"], 0);
        assert_eq!(counted(&printed, "files_verified"), 1);
        let first = counted(&printed, "bytes_written");
        assert!(first > 12_000_000, "{first} bytes");
        let again = counted(&restore(&carrack, "latest", target.path(), &[], 0), "bytes_written");
        assert_eq!(again, 0);
        let file = File::options().read(true).write(true).open(target.path()).expect("opens");
        let (mut block, mut at) = (vec![0; 4096], 0);
        // Some block that is not zeros.
        while block.iter().all(|byte| *byte == 0) {
            at += 1 << 20;
            file.read_exact_at(&mut block, at).expect("reads");
        }
        file.write_all_at(&noise(3, 4096), at).expect("writes");
        file.sync_all().expect("syncs");
        drop(file);
        let repaired = counted(&restore(&carrack, "latest", target.path(), &[], 0), "bytes_written");
        assert!((1..2 << 20).contains(&repaired), "{repaired} bytes");
        same_bytes(source.path(), target.path());
    });
}

#[test]
fn a_device_that_does_not_fit_is_refused_before_anything_is_written() {
    in_private_mounts(|| {
        let source = filled_device(FileSystem::Ext4);
        let carrack = program();
        carrack.run(words(&["backup", "--device"], &[source.path()]), 0);
        let refused = |target: &Path, options: &[&str], code, word: &str| {
            let printed = restore(&carrack, "latest", target, options, code);
            assert!(printed.err.contains(word) && printed.err.contains("\"next\""), "{}", printed.err);
        };
        let small = LoopDevice::new(DEVICE_BYTES - 4096).expect("a device");
        let before = noise(4, 8192);
        let file = File::options().read(true).write(true).open(small.path()).expect("opens");
        file.write_all_at(&before, 0).expect("writes");
        refused(small.path(), &[], 2, "too small");
        refused(small.path(), &["--dry-run"], 2, "too small");
        let mut after = vec![0; before.len()];
        file.read_exact_at(&mut after, 0).expect("reads");
        assert!(after == before, "something was written");
        drop(file);

        // In use.
        let busy = filled_device(FileSystem::Xfs);
        let point = tempfile::tempdir().expect("a directory");
        run(Command::new("mount").arg(busy.path()).arg(point.path())).expect("mounts");
        refused(busy.path(), &[], 11, "in use");
        assert_eq!(fs::metadata(point.path().join("file")).expect("it is there").len(), 12_000_000);
        rustix::mount::unmount(point.path(), rustix::mount::UnmountFlags::empty()).expect("unmounts");

        let image = carrack.path("image");
        fs::write(&image, b"mine").expect("writes");
        refused(&image, &["--overwrite", "never"], 11, "exists");
        refused(&image, &["--delete"], 2, "--delete");
        refused(&image, &["--overwrite", "if-newer"], 2, "if-newer");
        refused(&carrack.path("source/none/below/a file"), &[], 10, "cannot");
        assert_eq!(fs::read(&image).expect("reads"), b"mine");
        // A full disk says so.
        let disk = Mounted::new(FileSystem::Ext4, 16).expect("an image");
        refused(&disk.path().join("image"), &[], 15, "space");
    });
}

/// A tree of several files, backed up.
fn backed_up() -> (Program, PathBuf) {
    let carrack = program();
    let source = carrack.path("source");
    for (index, name) in ["a", "b/one", "b/two", "b/c/three", "large"].into_iter().enumerate() {
        let path = source.join(name);
        fs::create_dir_all(path.parent().expect("below the source")).expect("makes");
        fs::write(&path, noise(index as u64, if name == "large" { 6_000_000 } else { 5_000 }))
            .expect("writes");
    }
    fs::hard_link(source.join("a"), source.join("b/a again")).expect("links");
    symlink("a", source.join("link")).expect("links");
    let sparse = File::create(source.join("sparse")).expect("makes");
    sparse.set_len(3 << 20).expect("sets");
    sparse.write_all_at(b"middle", 1 << 20).expect("writes");
    carrack.run(words(&["backup"], &[&source]), 0);
    (carrack, source)
}

/// What names the source in the snapshot, as the directory that becomes the target itself.
fn whole(source: &Path) -> String {
    format!("latest:{}", source.display())
}

/// The target itself keeps the time that whoever made it gave to it; all in it must be equal.
fn same(source: &Path, target: &Path) {
    run(Command::new("touch").arg("-r").args([source, target])).expect("sets the time");
    assert_eq!(rsync_differences(source, target, &[]).expect("rsync runs"), "");
}

#[test]
fn a_directory_that_is_not_empty_becomes_as_it_was() {
    let (carrack, source) = backed_up();
    let target = carrack.path("target");
    let snapshot = whole(&source);
    restore(&carrack, &snapshot, &target, &["--verify"], 0);
    same(&source, &target);

    // In place: only the ranges that differ are written.
    let large = File::options().write(true).open(target.join("large")).expect("opens");
    large.write_all_at(b"changed", 3_000_000).expect("writes");
    drop(large);
    let sparse = File::options().write(true).open(target.join("sparse")).expect("opens");
    sparse.write_all_at(b"in the hole", 2 << 20).expect("writes");
    drop(sparse);
    fs::write(target.join("b/one"), b"shorter").expect("writes");
    fs::write(target.join("b/new"), b"new").expect("writes");
    fs::create_dir_all(target.join("new/below")).expect("makes");
    fs::write(target.join("new/below/file"), b"new").expect("writes");
    fs::remove_file(target.join("link")).expect("removes");
    fs::create_dir(target.join("link")).expect("makes");
    fs::remove_dir_all(target.join("b/c")).expect("removes");
    fs::write(target.join("b/c"), b"a file in the place of a directory").expect("writes");
    // A dry run counts the same, and does nothing.
    let dry = restore(&carrack, &snapshot, &target, &["--delete", "--dry-run"], 0);
    assert_eq!((counted(&dry, "deleted"), counted(&dry, "files_new")), (4, 1), "{}", dry.out);
    let messages = dry.out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let named: Vec<String> = messages
        .filter(|message| message["message_type"] == "would_delete")
        .filter_map(|message| message["item"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(named, ["new/below/file", "new/below", "new", "b/new"]);
    assert!(target.join("new/below/file").exists());
    let without = restore(&carrack, &snapshot, &target, &["--verify"], 0);
    assert_eq!(counted(&without, "deleted"), 0);
    assert!(target.join("b/new").exists() && target.join("new/below/file").exists());
    let written = counted(&without, "bytes_written");
    assert!((7..1 << 20).contains(&written), "{written} bytes");
    assert!(counted(&dry, "bytes_written") >= written, "{}", dry.out);
    let with = restore(&carrack, &snapshot, &target, &["--delete", "--verify"], 0);
    assert_eq!(counted(&with, "deleted"), 4);
    same(&source, &target);
}

/// What was there before and is not in the snapshot stays, and is not passed over.
#[test]
fn a_restore_says_what_else_its_target_holds() {
    let (carrack, source) = backed_up();
    let (target, snapshot) = (carrack.path("target"), whole(&source));
    let told = |options: &[&str], held: bool, others: Option<u64>| {
        let summary = restore(&carrack, &snapshot, &target, options, 0).message("summary");
        assert_eq!(summary["target_held"], held, "{options:?}: {summary}");
        assert_eq!(summary["target_others"].as_u64(), others, "{options:?}: {summary}");
    };
    let words = |what: &str| {
        let arguments = ["restore", what, "--target", &target.display().to_string()].map(str::to_owned);
        let printed = carrack.run(arguments, 0).out;
        printed.lines().find(|line| line.starts_with("target ")).unwrap_or_default().to_owned()
    };
    told(&[], false, None);
    told(&[], true, Some(0));
    assert_eq!(words(&snapshot), "target     held entries already: the snapshot has all of them");
    fs::create_dir_all(target.join("new/below")).expect("makes");
    for name in ["new/below/file", "b/c/new", "b/new"] {
        fs::write(target.join(name), b"new").expect("writes");
    }
    fs::write(target.join("b/one"), b"the snapshot has one of this name").expect("writes");
    told(&["--dry-run"], true, Some(5));
    told(&[], true, Some(5));
    told(&["--verify", "--overwrite", "never"], true, Some(5));
    // Of what the patterns do not choose, nothing is said: --delete would leave it, too.
    told(&["--include", "b"], true, Some(2));
    assert!(words(&snapshot).ends_with("5 that the snapshot does not have stay (--delete removes them)"));
    // One file is no directory that could be compared.
    let one = format!("{snapshot}/b/one");
    assert!(words(&one).ends_with("stay, and were not counted"), "{}", words(&one));
    fs::remove_file(target.join("one")).expect("it was restored beside the others");
    assert!(target.join("new/below/file").exists() && target.join("b/new").exists());
    told(&["--delete"], true, None);
    assert!(!target.join("new").exists());
    same(&source, &target);
    // What a file system makes itself is nobody's, and a stream has no target to speak of.
    let empty = carrack.path("empty");
    fs::create_dir_all(empty.join("lost+found")).expect("makes");
    let summary = restore(&carrack, &snapshot, &empty, &[], 0).message("summary");
    assert_eq!(summary["target_held"], false);
}

#[test]
fn patterns_choose_what_is_restored() {
    let (carrack, source) = backed_up();
    let snapshot = whole(&source);
    let listed = |target: &Path| {
        let found =
            run(Command::new("find").args([".", "-not", "-type", "d"]).current_dir(target)).expect("lists");
        let mut names: Vec<String> = found.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let target = carrack.path("included");
    restore(&carrack, &snapshot, &target, &["--include", "b/c", "--include", "large"], 0);
    assert_eq!(listed(&target), ["./b/c/three", "./large"]);
    let target = carrack.path("excluded");
    restore(&carrack, &snapshot, &target, &["--exclude", "b", "--iexclude", "LARGE", "--verify"], 0);
    assert_eq!(listed(&target), ["./a", "./link", "./sparse"]);
    // What was not chosen is not deleted either.
    fs::write(target.join("extra"), b"extra").expect("writes");
    fs::write(target.join("large"), b"not chosen").expect("writes");
    restore(&carrack, &snapshot, &target, &["--exclude", "large", "--delete"], 0);
    assert_eq!(fs::read(target.join("large")).expect("it stays"), b"not chosen");
    assert!(!target.join("extra").exists());
}

#[test]
fn overwrite_says_what_happens_to_files_that_are_there() {
    let (carrack, source) = backed_up();
    let snapshot = whole(&source);
    let (older, newer) = (1_000_000_000, 4_000_000_000);
    let cases = [
        ("always", [true, true, true]),
        ("if-changed", [true, true, false]),
        ("if-newer", [true, false, false]),
        ("never", [false, false, false]),
    ];
    for (when, rewritten) in cases {
        let target = carrack.path(when);
        fs::create_dir_all(target.join("b")).expect("makes");
        // An older one, a newer one, and one of the same size and time.
        let seconds =
            std::os::unix::fs::MetadataExt::mtime(&fs::metadata(source.join("b/two")).expect("looks"));
        let nanoseconds =
            std::os::unix::fs::MetadataExt::mtime_nsec(&fs::metadata(source.join("b/two")).expect("looks"));
        let files = [("large", older, 0), ("b/one", newer, 0), ("b/two", seconds, nanoseconds)];
        for (name, seconds, nanoseconds) in files {
            fs::write(target.join(name), vec![7; 5_000]).expect("writes");
            set_mtime(&target.join(name), seconds, nanoseconds).expect("sets");
        }
        restore(&carrack, &snapshot, &target, &["--overwrite", when], 0);
        for ((name, ..), rewritten) in files.into_iter().zip(rewritten) {
            let now = fs::read(target.join(name)).expect("reads");
            let wanted = if rewritten { fs::read(source.join(name)).expect("reads") } else { vec![7; 5_000] };
            assert!(now == wanted, "{name} with --overwrite {when}");
        }
        // What was not there came in any case.
        assert_eq!(fs::read(target.join("a")).expect("reads"), fs::read(source.join("a")).expect("reads"));
    }
    restore(&carrack, &snapshot, &carrack.path("wrong"), &["--overwrite", "sometimes"], 2);
}

/// Names of one inode of which some are there already: those stay, the others come, and nothing is a problem.
#[test]
fn hard_links_go_around_files_that_stay() {
    let (carrack, source) = backed_up();
    let snapshot = whole(&source);
    for (when, present) in
        [("never", "a"), ("never", "b/a again"), ("if-newer", "a"), ("if-newer", "b/a again")]
    {
        let target = tempfile::tempdir().expect("a directory");
        fs::create_dir(target.path().join("b")).expect("makes");
        let kept = target.path().join(present);
        fs::write(&kept, b"kept").expect("writes");
        set_mtime(&kept, 4_000_000_000, 0).expect("sets");
        restore(&carrack, &snapshot, target.path(), &["--overwrite", when], 0);
        assert_eq!(fs::read(&kept).expect("reads"), b"kept");
        let other = target.path().join(if present == "a" { "b/a again" } else { "a" });
        assert!(fs::read(other).expect("reads") == fs::read(source.join("a")).expect("reads"));
        // All of them are there now.
        restore(&carrack, &snapshot, target.path(), &["--overwrite", when], 0);
    }
}

#[test]
fn verify_finds_what_the_target_lost() {
    let (carrack, source) = backed_up();
    let target = carrack.path("target");
    let snapshot = whole(&source);
    restore(&carrack, &snapshot, &target, &[], 0);
    // Same size and time, so that `if-changed` believes it; only reading finds these.
    for (name, at) in [("large", 100), ("sparse", 2 << 20)] {
        let path = target.join(name);
        let before = fs::metadata(&path).expect("looks");
        let file = File::options().write(true).open(&path).expect("opens");
        file.write_all_at(b"lost", at).expect("writes");
        drop(file);
        let (seconds, nanoseconds) = (
            std::os::unix::fs::MetadataExt::mtime(&before),
            std::os::unix::fs::MetadataExt::mtime_nsec(&before),
        );
        set_mtime(&path, seconds, nanoseconds).expect("sets");
    }
    let printed = restore(&carrack, &snapshot, &target, &["--overwrite", "if-changed", "--verify"], 3);
    assert_eq!(counted(&printed, "problems"), 2, "{}", printed.err);
    assert!(printed.err.contains("large") && printed.err.contains("sparse"), "{}", printed.err);
    let repaired = restore(&carrack, &snapshot, &target, &["--verify"], 0);
    assert!(counted(&repaired, "files_verified") > 4, "{}", repaired.out);
    same(&source, &target);
}

#[test]
fn one_file_goes_to_standard_output() {
    let (carrack, source) = backed_up();
    for name in ["large", "sparse", "a", "b/a again"] {
        let what = format!("{}/{name}", whole(&source));
        let output = carrack.command(["restore", &what, "--target", "-"]).output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == fs::read(source.join(name)).expect("reads"), "{name} differs");
    }
    carrack.run(["restore", "latest", "--target", "-"], 2);
    let directory = format!("{}/b", whole(&source));
    carrack.run(["restore", &directory, "--target", "-"], 2);
    let verified = ["restore", &format!("{}/a", whole(&source)), "--target", "-", "--verify"];
    carrack.run(verified, 2);
}

/// Links in the target are replaced or refused, never followed.
#[test]
fn links_in_the_target_lead_nowhere() {
    let (carrack, source) = backed_up();
    let (target, outside) = (carrack.path("target"), carrack.path("outside"));
    fs::create_dir_all(&target).expect("makes");
    fs::create_dir_all(outside.join("c")).expect("makes");
    fs::write(outside.join("precious"), b"precious").expect("writes");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o711)).expect("sets");
    symlink(&outside, target.join("b")).expect("links");
    symlink(outside.join("precious"), target.join("large")).expect("links");
    fs::hard_link(outside.join("precious"), target.join("a")).expect("links");
    restore(&carrack, &whole(&source), &target, &["--delete"], 0);
    same(&source, &target);
    assert_eq!(fs::read(outside.join("precious")).expect("reads"), b"precious");
    assert_eq!(fs::read_dir(&outside).expect("lists").count(), 2);
    assert_eq!(fs::metadata(&outside).expect("looks").permissions().mode() & 0o7777, 0o711);
}

/// What `--overwrite` leaves alone was not to be as in the snapshot: it is counted, and not compared.
#[test]
fn what_is_kept_is_not_verified() {
    let (carrack, source) = backed_up();
    let (target, snapshot) = (carrack.path("target"), whole(&source));
    let printed = restore(&carrack, &snapshot, &target, &["--verify"], 0);
    let all = counted(&printed, "files_verified");
    fs::write(target.join("large"), b"mine").expect("writes");
    fs::remove_file(target.join("sparse")).expect("removes");
    let printed = restore(&carrack, &snapshot, &target, &["--verify", "--overwrite", "if-newer"], 0);
    assert!(counted(&printed, "files_verified") > 0, "{}", printed.out);
    assert_eq!(counted(&printed, "files_verified") + counted(&printed, "files_skipped"), all);
    let printed = restore(&carrack, &snapshot, &target, &["--verify", "--overwrite", "never"], 0);
    assert_eq!((counted(&printed, "files_verified"), counted(&printed, "files_skipped")), (0, all));
    assert_eq!(fs::read(target.join("large")).expect("reads"), b"mine");
    restore(&carrack, &snapshot, &target, &["--verify"], 0);
    same(&source, &target);
}

/// A file system in memory, where nobody else sees it.
fn mounted_in_memory(at: &Path, options: &str) {
    fs::create_dir_all(at).expect("makes");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at)).expect("mounts");
}

#[test]
fn a_full_target_ends_a_restore_with_one_word() {
    in_private_mounts(|| {
        let (carrack, source) = backed_up();
        let target = carrack.path("target");
        for index in 0..300 {
            fs::create_dir_all(source.join(format!("directories/{index}/below"))).expect("makes");
        }
        carrack.run(words(&["backup"], &[&source]), 0);
        for options in ["nr_inodes=40", "size=2m"] {
            mounted_in_memory(&target, options);
            let printed = restore(&carrack, &whole(&source), &target, &[], 15);
            assert_eq!(printed.err.lines().count(), 1, "{}", printed.err);
            assert!(printed.err.contains("No space left") && printed.err.contains("next"), "{}", printed.err);
            rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).expect("unmounts");
        }
        mounted_in_memory(&target, "ro");
        let printed = restore(&carrack, &whole(&source), &target, &[], 13);
        assert_eq!(printed.err.lines().count(), 1, "{}", printed.err);
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).expect("unmounts");
        restore(&carrack, &whole(&source), &target, &["--verify"], 0);
        carrack.run(["check", "--read-data"], 0);
    });
}

#[test]
fn a_device_does_not_fit_into_a_directory() {
    let carrack = program();
    fs::write(carrack.path("image"), noise(9, 3_000_000)).expect("writes");
    carrack.run(words(&["backup", "--device"], &[&carrack.path("image")]), 0);
    fs::create_dir(carrack.path("target")).expect("makes");
    let printed = restore(&carrack, "latest", &carrack.path("target"), &[], 2);
    assert!(printed.err.contains("/image"), "{}", printed.err);
    restore(&carrack, "latest", &carrack.path("target/image"), &[], 0);
    same_bytes(&carrack.path("image"), &carrack.path("target/image"));
}
