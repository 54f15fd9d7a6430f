//! A repository on real file systems whose disk loses power at any of its writes: nothing that the disk was not told to
//! keep is there afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use carrack_tests::{
    disk::{Disk, State},
    images::{FileSystem, in_private_mounts, run},
};

use crate::{
    ground::Ground,
    judge::Judge,
    repository::{Planned, conclude, planned, prepare},
    world::{World, chosen, ended},
};

/// Writes between the first and the last that CI tries.
const SHARE: u64 = 1;

/// A file system in a file on a disk that can lose its power.
#[derive(Debug)]
struct OnDisk<'a> {
    disk: Option<Disk>,
    place: &'a Path,
    top: &'a Path,
}

impl<'a> OnDisk<'a> {
    fn new(state: State, place: &'a Path, top: &'a Path) -> Self {
        let mut made = Self { disk: None, place, top };
        made.mount(state);
        made
    }

    /// The disk with an empty file system.
    fn made(kind: FileSystem, world: &World, place: &Path) -> State {
        let image = world.path("file system");
        // The least that mkfs.xfs takes.
        fs::File::create(&image).and_then(|file| file.set_len(320 << 20)).expect("makes");
        kind.make(&image).expect("makes a file system");
        let disk = Disk::mount(State::default(), place).expect("mounts");
        run(Command::new("cp").arg("--sparse=always").arg(&image).arg(place.join("image"))).expect("copies");
        disk.state().settled()
    }

    fn mount(&mut self, state: State) {
        self.disk = Some(Disk::mount(state, self.place).expect("mounts"));
        let image = self.place.join("image");
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(self.top)).expect("mounts");
    }

    fn unmount(&mut self) {
        if self.disk.is_some() {
            run(Command::new("umount").arg(self.top)).expect("unmounts");
            self.disk = None;
        }
    }
}

impl Drop for OnDisk<'_> {
    fn drop(&mut self) {
        self.unmount();
    }
}

impl Ground for OnDisk<'_> {
    fn address(&self, repository: &str) -> String {
        self.top.join(repository).display().to_string()
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn names(&self, repository: &str) -> Vec<String> {
        let mut names = Vec::new();
        collect(&self.top.join(repository), "", &mut names);
        names
    }

    fn lose_power(&mut self) {
        let state = self.disk.as_ref().expect("it is mounted").state();
        self.unmount();
        self.mount(state.after_power_loss(None));
    }

    fn wait_two_days(&mut self) {
        let touch = ["-type", "f", "-exec", "touch", "-d", "2 days ago", "{}", "+"];
        run(Command::new("find").arg(self.top).args(touch)).expect("ages");
    }
}

fn collect(directory: &Path, path: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let inside = format!("{path}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            names.push(format!("{inside}/"));
            collect(&entry.path(), &format!("{inside}/"), names);
        } else {
            names.push(inside);
        }
    }
}

fn power_fails(kind: FileSystem, names: &[&str]) {
    in_private_mounts(|| {
        let world = World::new();
        let (place, top): (PathBuf, PathBuf) = (world.path("place"), world.path("top"));
        fs::create_dir(&top).expect("makes");
        let empty = OnDisk::made(kind, &world, &place);
        for name in names {
            let Planned { before, complete, mut case } = planned(name);
            let mut ground = OnDisk::new(empty.clone(), &place, &top);
            prepare(&world, &ground, before, &mut case, complete);
            ground.lose_power();
            let base = ground.disk.as_ref().expect("it is mounted").state();
            let whole = ground.disk.as_ref().expect("it is mounted");
            let whole = whole.run(&mut case.command(&world, &ground), None).expect("runs");
            ended(&whole.output, &[0], name).expect("it succeeds undisturbed");
            drop(ground);
            let (mut tried, mut failed) = (0, Vec::new());
            for step in chosen(whole.steps, SHARE) {
                let ground = OnDisk::new(base.clone(), &place, &top);
                let disk = ground.disk.as_ref().expect("it is mounted");
                let ran = disk.run(&mut case.command(&world, &ground), Some(step)).expect("runs");
                drop(ground);
                for (what, torn) in [("without power", None), ("torn", Some(step))] {
                    tried += 1;
                    let mut ground = OnDisk::new(ran.state.after_power_loss(torn), &place, &top);
                    let judge =
                        Judge { world: &world, ground: &mut ground, case: &case, crashed: Instant::now() };
                    let judged = judge.judge();
                    failed.extend(judged.err().map(|error| {
                        error
                            .context(format!("{name} on {kind:?}, {what} at write {step} of {}", whole.steps))
                    }));
                }
            }
            println!("{name} on {kind:?}: {} steps, {tried} crashes", whole.steps);
            conclude(&case, tried, &failed);
        }
    });
}

#[test]
fn on_ext4() {
    power_fails(FileSystem::Ext4, &["next backup", "prune"]);
}

#[test]
fn on_xfs() {
    power_fails(FileSystem::Xfs, &["next backup", "prune"]);
}
