//! Volumes as Kubernetes gives them: file systems with `lost+found`, devices, and a container that is read-only.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::{fs::MetadataExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use carrack_proto::{Output, Place as Volume, Source, Task};
use carrack_tests::{
    images::{FileSystem, LoopDevice, Mounted, in_private_mounts, run},
    program::{ended, install},
    trees::{noise, rsync_differences, set_mtime},
};

use crate::place::{HOST, Place, directory, of, session, to};

#[test]
fn from_one_ext4_to_another() {
    in_private_mounts(|| {
        let (from, other) = (
            Mounted::new(FileSystem::Ext4, 64).expect("a file system"),
            Mounted::new(FileSystem::Ext4, 64).expect("a file system"),
        );
        let (source, target) = (from.path(), other.path());
        let place = Place::new();
        place.initialised();
        fs::write(source.join("file"), noise(1, 100_000)).expect("writes");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o2770)).expect("sets");
        std::os::unix::fs::chown(&source, Some(999), Some(998)).expect("gives away");
        set_mtime(&source, 1_500_000_000, 1).expect("sets");
        let volume = |path: &std::path::Path| Source { host: HOST.to_owned(), place: directory(path) };
        let keys = place.bundle(volume(&source));
        let told = place.run_with(keys.clone(), Task::Backup(of(volume(&source))), 0);
        let Some(Output::Backup(done)) = &told.output else { panic!("no counts: {told:?}") };
        assert_eq!((done.files, done.excluded), (1, 1));

        // The inode of the file system's own directory stays what it was.
        let own = fs::metadata(target.join("lost+found")).expect("mkfs makes it");
        fs::write(target.join("stray"), "x").expect("writes");
        let mut task = to(directory(&target));
        task.target.delete = true;
        place.run(Task::Restore(task), 0);
        let kept = fs::metadata(target.join("lost+found")).expect("it stays");
        assert_eq!((kept.ino(), kept.mode(), kept.mtime()), (own.ino(), own.mode(), own.mtime()));
        assert_eq!(rsync_differences(&source, &target, &["/lost+found"]).expect("rsync runs"), "");
        let look = |path: &std::path::Path| {
            let found = fs::metadata(path).expect("it is there");
            (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec())
        };
        assert_eq!(look(&source), look(&target));

        // What was found is part of the contents.
        fs::write(source.join("lost+found/#12"), "found").expect("writes");
        let told = place.run_with(keys, Task::Backup(of(volume(&source))), 0);
        let Some(Output::Backup(done)) = &told.output else { panic!("no counts: {told:?}") };
        assert_eq!((done.files, done.excluded), (2, 0));
        other.unmount().expect("unmounts");
        FileSystem::Ext4.check(&other.image()).expect("it is whole");
    });
}

#[test]
fn from_device_to_device() {
    const BYTES: u64 = 16 << 20;
    let device = |bytes| LoopDevice::new(bytes).expect("loop devices need root: run the tests as root");
    let (source, target, small) = (device(BYTES), device(BYTES), device(BYTES / 2));
    let volume = |device: &LoopDevice| Volume::Device(device.path().display().to_string());
    let write = |device: &LoopDevice, at, seed| {
        let mut file = fs::File::options().write(true).open(device.path()).expect("opens");
        file.seek(SeekFrom::Start(at)).expect("seeks");
        file.write_all(&noise(seed, 3 << 20)).expect("writes");
        file.sync_all().expect("arrives");
    };
    write(&source, 0, 1);
    write(&source, 12 << 20, 2);
    write(&target, 6 << 20, 3);
    let place = Place::new();
    place.initialised();
    let from = Source { host: HOST.to_owned(), place: volume(&source) };
    let keys = place.bundle(from.clone());
    let mut task = of(from);
    task.cloned = true;
    let first = session(&place.run_with(keys, Task::Backup(task), 0));
    let mut back = to(volume(&target));
    back.target.delete = true;
    let told = place.run(Task::Restore(back), 0);
    let Some(Output::Restore(done)) = &told.output else { panic!("no counts: {told:?}") };
    assert_eq!((&done.snapshot, done.bytes, done.verified_files), (&first, BYTES, 1));
    let read = |device: &LoopDevice| fs::read(device.path()).expect("reads");
    assert!(read(&source) == read(&target), "the devices differ");

    let told = place.run(Task::Restore(to(volume(&small))), 2);
    assert!(told.message.contains(small.path().to_str().expect("UTF-8")), "{told:?}");
    // A device does not fit into a directory, nor a tree onto a device, be it one file only.
    fs::write(place.path("data/only"), "x").expect("writes");
    place.run(Task::Restore(to(directory(&place.path("data")))), 2);
    place.backup(place.password(), 0);
    place.run(Task::Restore(to(volume(&target))), 2);
    assert!(read(&source) == read(&target), "it was written to");
}

#[test]
fn a_target_that_is_too_small() {
    in_private_mounts(|| {
        let small = Mounted::new(FileSystem::Ext4, 8).expect("a file system");
        let place = Place::new();
        fs::write(place.path("data/large"), noise(1, 24 << 20)).expect("writes");
        place.initialised().backup(place.password(), 0);
        let told = place.run(Task::Restore(to(directory(&small.path()))), 15);
        assert!(told.next.is_some(), "{told:?}");
    });
}

/// A pod of any user, without a home, in which nothing but /tmp and what is mounted can be written.
#[test]
fn a_container_that_is_read_only() {
    in_private_mounts(|| {
        let place = Place::new();
        let base = place.path(".");
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(place.path("data/file"), noise(1, 300_000)).expect("writes");
        let program = place.path("carrack");
        install(&assert_cmd::cargo::cargo_bin("carrack"), &program).expect("copies");
        fs::create_dir(place.path("target")).expect("makes");
        const USER: u32 = 1_234_567;
        run(Command::new("chown").args(["-R", &format!("{USER}:{USER}")]).arg(&base)).expect("gives away");
        let mount =
            |arguments: &[&str]| run(Command::new("mount").args(arguments)).map(drop).expect("mounts");
        let base = base.canonicalize().expect("a path").display().to_string();
        mount(&["--bind", &base, &base]);
        mount(&["-o", "remount,ro,bind", "/"]);
        let work = |task, code| {
            let command = place.command(&place.job(place.password(), task));
            let mut bare = Command::new(&program);
            bare.args(command.get_args().skip(2)).env_clear().current_dir("/").uid(USER).gid(USER);
            let printed = ended(&mut bare, code);
            (place.told(&printed, code), printed)
        };
        drop(fs::write(outside.path().join("x"), "").expect_err("nothing else can be written"));
        work(Task::Connect { initialise: true }, 0);
        for _ in 0..2 {
            let (told, printed) = work(Task::Backup(of(place.source())), 0);
            assert_eq!((told.problems, printed.err.as_str()), (0, ""), "{told:?}");
        }
        let (told, _) = work(Task::Restore(to(directory(&place.path("target")))), 0);
        assert_eq!(told.problems, 0, "{told:?}");
        let (told, _) = work(Task::Maintain(crate::place::keep_last(1)), 0);
        assert_eq!(told.problems, 0, "{told:?}");
        run(Command::new("mount").args(["-o", "remount,rw,bind", "/"])).expect("mounts");
    });
}
