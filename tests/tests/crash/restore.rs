//! Restores that are killed, or lose power, at each change of their target: the next one goes on, and ends as if
//! nothing had been.

use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use carrack_tests::{
    disk::{Disk, State, Steps},
    images::in_private_mounts,
};

use crate::world::{World, chosen, ended, is_whole_matrix};

/// Changes between the first and the last that CI tries.
const SHARE: u64 = 2;

/// A repository in an ordinary directory, with the newest version of the source and an image.
fn world() -> World {
    let world = World::new();
    let source = world.source().display().to_string();
    let image = world.path("image").display().to_string();
    carrack(&world, &["init"]);
    carrack(&world, &["backup", "--tag", "v3", &source]);
    carrack(&world, &["backup", "--tag", "image", "--device", &image]);
    world
}

fn command(world: &World, arguments: &[&str]) -> Command {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let mut command = world.command("first", &arguments);
    command.env("CARRACK_REPOSITORY", world.path("repository"));
    command
}

fn carrack(world: &World, arguments: &[&str]) {
    let output = command(world, arguments).output().expect("starts");
    ended(&output, &[0], &arguments.join(" ")).expect("it succeeds");
}

/// What is restored, and how.
struct Restore {
    name: &'static str,
    /// What lies in the target before.
    before: Option<&'static str>,
    version: &'static str,
    options: &'static [&'static str],
}

impl Restore {
    fn command(&self, world: &World, more: &[&str]) -> Command {
        let target = world.path("place/target").display().to_string();
        let what = match self.version {
            "image" => "latest".to_owned(),
            _ => format!("latest:{}", world.source().display()),
        };
        let fixed = ["restore", &what, "--tag", self.version, "--target", &target];
        command(world, &[&fixed[..], self.options, more].concat())
    }

    /// The disk before it begins.
    fn base(&self, world: &World) -> State {
        let place = world.path("place");
        let disk = Disk::mount(State::default(), &place).expect("mounts");
        if let Some(before) = self.before {
            world.lay_before(before, &place.join("target")).expect("lays it out");
        }
        disk.state().settled()
    }

    /// The restore again, over what a crash has left.
    fn again(&self, world: &World, state: State, more: &[&str]) -> Result<()> {
        let place = world.path("place");
        let disk = Disk::mount(state, &place)?;
        ended(&self.command(world, more).output()?, &[0], "the same restore again")?;
        world.compare(self.version, &place.join("target"))?;
        // A device or image is promised to be on the medium; a tree when that is asked for.
        if self.version == "image" {
            let state = disk.state().after_power_loss(None);
            drop(disk);
            let _disk = Disk::mount(state, &place)?;
            world.compare(self.version, &place.join("target")).context("after the power failed once more")?;
        }
        Ok(())
    }

    /// A run with fewer steps than the first one has succeeded, and left everything.
    fn complete(&self, world: &World, output: &Output, state: State) -> Result<()> {
        ended(output, &[0], "a restore with fewer steps")?;
        let place = world.path("place");
        let _disk = Disk::mount(state, &place)?;
        world.compare(self.version, &place.join("target"))
    }

    fn matrix(&self) {
        in_private_mounts(|| {
            let world = world();
            let base = self.base(&world);
            let disk = Disk::mount(base.clone(), &world.path("place")).expect("mounts");
            let whole = disk.run(&mut self.command(&world, &[]), Steps::Changes, None).expect("runs");
            ended(&whole.output, &[0], self.name).expect("it succeeds undisturbed");
            drop(disk);
            let (mut tried, mut killed, mut failed) = (0, 0, Vec::new());
            for step in chosen(whole.steps, SHARE) {
                let disk = Disk::mount(base.clone(), &world.path("place")).expect("mounts");
                let ran = disk.run(&mut self.command(&world, &[]), Steps::Changes, Some(step)).expect("runs");
                let state = ran.state;
                drop(disk);
                if ran.killed {
                    killed += 1;
                } else if let Err(error) = self.complete(&world, &ran.output, state.clone()) {
                    failed.push(error.context(format!("{}, not killed at step {step}", self.name)));
                }
                let mut crashes: Vec<(&str, State, &[&str])> =
                    vec![("killed", state.clone(), &[]), ("torn", state.after_power_loss(Some(step)), &[])];
                if self.version != "image" {
                    // What is half written is not taken for right by its size and time.
                    crashes.push(("killed, and believed", state.clone(), &["--overwrite", "if-changed"]));
                }
                if ran.synced_last || step == 1 || !is_whole_matrix() {
                    crashes.push(("without power", state.after_power_loss(None), &[]));
                }
                for (what, state, more) in crashes {
                    tried += 1;
                    let again = self.again(&world, state, more);
                    let place = || format!("{}, {what} at step {step} of {}", self.name, whole.steps);
                    failed.extend(again.err().map(|error| error.context(place())));
                }
            }
            println!("restore {}: {} steps, {tried} crashes of {killed} kills", self.name, whole.steps);
            assert!(killed > 0 || is_whole_matrix(), "restore {}: no run was killed", self.name);
            let shown: Vec<String> = failed.iter().take(5).map(|error| format!("{error:#}")).collect();
            assert!(failed.is_empty(), "{} of {tried} failed\n\n{}", failed.len(), shown.join("\n\n"));
        });
    }
}

#[test]
fn a_tree() {
    Restore { name: "a tree", before: None, version: "v3", options: &[] }.matrix();
}

#[test]
fn a_tree_in_place() {
    Restore { name: "in place", before: Some("v1"), version: "v3", options: &["--delete"] }.matrix();
}

#[test]
fn an_image() {
    Restore { name: "an image", before: None, version: "image", options: &[] }.matrix();
}

#[test]
fn an_image_in_place() {
    Restore { name: "an image in place", before: Some("image"), version: "image", options: &[] }.matrix();
}
