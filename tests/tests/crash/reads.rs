//! Verbs that only read, from a real service, killed before each of their requests and after the last, or before and after each
//! where all steps are tried: the repository is as it was, and the next run ends as if nothing had been.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Result, ensure};
use carrack_tests::{
    disk::Steps,
    gate::{End, Gate},
    images::in_private_mounts,
    minio::MinioServer,
};

use crate::{
    ground::{Bucket, Objects},
    judge,
    mount::{clear, files, watched},
    world::{World, chosen, ended, ends, in_a_runtime, is_whole_matrix},
};

fn command(world: &World, ground: &Bucket<'_>, arguments: &[&str]) -> Command {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    judge::run(world, ground, "repository", "first", &arguments)
}

/// A repository on a service with the newest version of the source and an image, reached through a gate.
fn on_a_service(work: impl FnOnce(&World, &Gate, &Bucket<'_>) -> Result<()>) {
    in_a_runtime(async {
        let server = MinioServer::start().expect("starts");
        let gate = Gate::start(server.address()).await.expect("starts");
        let world = World::new();
        let ground = Bucket::new(&server, server.url(), "reads".to_owned(), &Objects::new()).await;
        let source = world.source().display().to_string();
        let image = world.path("image").display().to_string();
        let backup = ["backup", "--tag", "v3", &source];
        let of_image = ["backup", "--tag", "image", "--device", &image];
        for arguments in [&["init"][..], &backup, &of_image] {
            let output = command(&world, &ground, arguments).output().expect("starts");
            ended(&output, &[0], &arguments.join(" ")).expect("it succeeds");
        }
        let before = ground.objects().await;
        let worked = tokio::task::block_in_place(|| work(&world, &gate, &ground.through(gate.url())));
        worked.expect("it reads as if nothing had been");
        assert!(ground.objects().await == before, "who only reads has changed the repository");
    });
}

/// Tries each request, for there are few; `attempt` says whether the run was killed there.
fn at_each(name: &str, requests: u64, mut attempt: impl FnMut(End) -> Result<bool>) -> Result<()> {
    let (mut tried, mut killed) = (0, 0);
    for end in ends(&chosen(requests, requests), requests) {
        tried += 1;
        let was_killed =
            attempt(end).map_err(|error| error.context(format!("{name}, {end:?} of {requests} requests")))?;
        killed += u64::from(was_killed);
    }
    println!("{name} from a service: {requests} requests, {killed} of {tried} runs killed");
    ensure!(killed > 0 || is_whole_matrix(), "{name}: no run was killed");
    Ok(())
}

fn remove(target: &Path) -> Result<()> {
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() => Ok(fs::remove_dir_all(target)?),
        Ok(_) => Ok(fs::remove_file(target)?),
        Err(_) => Ok(()),
    }
}

/// What is restored; over what, where it is in place.
fn restored(version: &str, before: Option<&str>, options: &[&str]) {
    on_a_service(|world, gate, ground| {
        let target = world.path("target");
        let shown = target.display().to_string();
        let what = match version {
            "image" => "latest".to_owned(),
            _ => format!("latest:{}", world.source().display()),
        };
        let fixed = ["restore", &what, "--tag", version, "--target", &shown];
        let arguments = [&fixed[..], options].concat();
        let run = |end| {
            remove(&target)?;
            if let Some(before) = before {
                world.lay_before(before, &target)?;
            }
            gate.run(&mut command(world, ground, &arguments), Steps::All, end)
        };
        let complete = |output: &Output, what: &str| {
            ended(output, &[0], what)?;
            world.compare(version, &target)
        };
        let whole = run(None)?;
        complete(&whole.output, "undisturbed")?;
        let place = if before.is_some() { " in place" } else { "" };
        at_each(&format!("restore of {version}{place}"), whole.steps, |end| {
            let ran = run(Some(end))?;
            if !ran.killed {
                complete(&ran.output, "a run with fewer requests")?;
            }
            let again = command(world, &ground.directly(), &arguments).output()?;
            complete(&again, "the same restore again")?;
            Ok(ran.killed)
        })
    });
}

#[test]
fn a_tree_from_a_service() {
    restored("v3", None, &[]);
}

#[test]
fn a_tree_from_a_service_in_place() {
    restored("v3", Some("v1"), &["--delete"]);
}

#[test]
fn an_image_from_a_service() {
    restored("image", None, &[]);
}

#[test]
fn an_image_from_a_service_in_place() {
    restored("image", Some("image"), &[]);
}

#[test]
fn a_mount_of_a_service() {
    in_private_mounts(|| {
        on_a_service(|world, gate, ground| {
            let point = world.path("point");
            fs::create_dir(&point)?;
            let (shown, wanted) = (point.display().to_string(), files(&world.version("v3"))?);
            let run = |end| {
                let mut mount = command(world, ground, &["mount", &shown, "--tag", "v3"]);
                watched(&point, &world.source(), || gate.run(&mut mount, Steps::All, end))
            };
            let shows_all = |what| {
                let (ran, seen) = run(None)?;
                ended(&ran.output, &[0], what)?;
                ensure!(seen? == wanted, "{what}: it shows something else");
                anyhow::Ok(ran.steps)
            };
            let requests = shows_all("undisturbed")?;
            at_each("mount", requests, |end| {
                let (ran, seen) = run(Some(end))?;
                if !ran.killed {
                    ended(&ran.output, &[0], "a run with fewer requests")?;
                    ensure!(seen? == wanted, "it shows something else");
                }
                clear(&point)?;
                shows_all("the same mount again")?;
                Ok(ran.killed)
            })
        });
    });
}
