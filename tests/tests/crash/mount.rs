//! A mount that is killed: at most a dead mount stays, which the command takes away that the program names; the
//! repository is as it was, with power and without.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use carrack_tests::{
    disk::{Ran, State},
    images::{in_private_mounts, run},
    program::{Running, wait_until},
};
use rustix::mount::{UnmountFlags, unmount};

use crate::{
    ground::{Ground as _, Local},
    judge,
    world::{World, ended},
};

/// What is in files, by their paths.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All files below a directory.
pub(crate) fn files(below: &Path) -> Result<Files> {
    let (mut files, mut pending) = (Files::new(), vec![below.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                files.insert(path.strip_prefix(below)?.to_owned(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

/// A mount at work, and somebody who reads the files that it shows of the source and then takes it away.
pub(crate) fn watched(
    point: &Path,
    source: &Path,
    mount: impl FnOnce() -> Result<Ran>,
) -> Result<(Ran, Result<Files>)> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| look(point, source, &ended));
        let ran = mount();
        ended.store(true, Ordering::Relaxed);
        let seen = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((ran?, seen))
    })
}

fn look(point: &Path, source: &Path, ended: &AtomicBool) -> Result<Files> {
    let shown = point.join("latest").join(source.strip_prefix("/")?);
    wait_until(|| ended.load(Ordering::Relaxed) || shown.exists())?;
    let seen = files(&shown);
    if !ended.load(Ordering::Relaxed) {
        unmount(point, UnmountFlags::DETACH).context("unmount")?;
    }
    seen
}

/// Takes a dead mount away, if there is one; fails if anything else is left.
pub(crate) fn clear(point: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == point.to_str()) {
        run(Command::new("fusermount3").args(["-u", "-z"]).arg(point))?;
    }
    ensure!(fs::read_dir(point)?.count() == 0, "something is left in {}", point.display());
    Ok(())
}

fn command(world: &World, ground: &Local<'_>, arguments: &[&str]) -> Command {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    judge::run(world, ground, "repository", "first", &arguments)
}

fn succeed(world: &World, ground: &Local<'_>, arguments: &[&str]) {
    let output = command(world, ground, arguments).output().expect("starts");
    ended(&output, &[0], &arguments.join(" ")).expect("it succeeds");
}

/// Kills a mount of which so many bytes of a file were read, and takes it away as the program says.
fn kill_after(read: usize, world: &World, ground: &Local<'_>, point: &Path) {
    let shown = point.display().to_string();
    let mut child = Running::start(&mut command(world, ground, &["mount", &shown]));
    let mut line = String::new();
    let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
    err.read_line(&mut line).expect("reads");
    assert!(line.contains("until ctrl-C or umount"), "{line}");
    let source = world.source();
    let below = source.strip_prefix("/").expect("absolute");
    let mut file = File::open(point.join("latest").join(below).join("large 0")).expect("opens");
    let mut bytes = vec![0; read];
    file.read_exact(&mut bytes).expect("reads");
    child.kill().expect("kills");
    child.wait().expect("ends");
    wait_until(|| fs::read_dir(point).is_err()).expect("it is dead");
    let said = command(world, ground, &["mount", &shown]).output().expect("starts");
    let said = format!("{:#}", ended(&said, &[0], "mount").expect_err("a dead mount is in the way"));
    let advice = said.lines().find_map(|line| line.trim().split_once("first: ")).expect("a command").1;
    let mut words = advice.split(' ');
    run(Command::new(words.next().expect("a program")).args(words)).expect("the advice works");
    assert_eq!(fs::read_dir(point).expect("it answers").count(), 0);
}

#[test]
fn a_killed_mount_leaves_the_repository_as_it_was() {
    in_private_mounts(|| {
        let world = World::new();
        let (place, point) = (world.path("place"), world.path("point"));
        fs::create_dir(&point).expect("makes");
        let mut ground = Local::new(State::default(), &place);
        let source = world.source().display().to_string();
        succeed(&world, &ground, &["init"]);
        succeed(&world, &ground, &["backup", &source]);
        ground.lose_power();
        let base = ground.disk().state();
        let (before, wanted) = (ground.names(""), files(&world.source()).expect("reads"));
        drop(ground);
        // At once, while somebody reads, and when somebody has read all.
        for (seed, read) in [0, 300_000, 1 << 20].into_iter().enumerate() {
            let ground = Local::new(base.clone(), &place);
            kill_after(read, &world, &ground, &point);
            let killed = ground.disk().state();
            drop(ground);
            let torn = killed.after_power_loss(Some(seed as u64));
            for state in [killed.after_power_loss(None), torn, killed] {
                let ground = Local::new(state, &place);
                assert_eq!(ground.names(""), before, "killed after {read} bytes");
                let mut again = command(&world, &ground, &["mount", &point.display().to_string()]);
                let shown = watched(&point, &world.source(), || ground.disk().run(&mut again, None));
                let (ran, seen) = shown.expect("runs");
                ended(&ran.output, &[0], "the next mount").expect("it succeeds");
                assert!(seen.expect("reads") == wanted, "the next mount shows something else");
                succeed(&world, &ground, &["check", "--read-data"]);
            }
        }
    });
}
