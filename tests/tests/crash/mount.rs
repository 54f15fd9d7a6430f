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

use anyhow::{Context as _, Result, bail, ensure};
use carrack_tests::{
    disk::{Ran, State, Steps},
    images::{in_private_mounts, is_mounted, run},
    program::{Running, wait_until},
};
use rustix::mount::{UnmountFlags, unmount};

use crate::{
    ground::{Ground as _, Local},
    judge,
    world::{World, chosen, ended, is_whole_matrix},
};

/// Steps between the first and the last that CI tries.
const SHARE: u64 = 2;

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

/// A mount at work, and somebody who reads the files that it shows of the source and then takes it away. One that is killed
/// stays as it is left.
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
    // Who was killed ends by himself; who answers wrongly does not.
    let stays = || seen.is_ok() || wait_until(|| ended.load(Ordering::Relaxed)).is_err();
    if !ended.load(Ordering::Relaxed) && stays() {
        unmount(point, UnmountFlags::DETACH).context("unmount")?;
    }
    seen
}

/// Takes a dead mount away, if there is one; fails if anything else is left.
pub(crate) fn clear(point: &Path) -> Result<()> {
    if is_mounted(point) {
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
    take_away(point, &mut command(world, ground, &["mount", &shown])).expect("it is told how");
}

/// Takes a dead mount away, as the next one says that is to be mounted there.
fn take_away(point: &Path, next: &mut Command) -> Result<()> {
    wait_until(|| fs::read_dir(point).is_err()).context("is it dead?")?;
    let Err(said) = ended(&next.output()?, &[0], "mount") else { bail!("a dead mount is in nobody's way") };
    let said = format!("{said:#}");
    let advice = said.lines().find_map(|line| line.trim().split_once("first: ")).context(said.clone())?.1;
    let mut words = advice.split(' ');
    run(Command::new(words.next().context("a program")?).args(words)).context("the advice")?;
    ensure!(fs::read_dir(point)?.count() == 0, "something is left in {}", point.display());
    Ok(())
}

/// A repository on a disk that kept all of it, and what a mount of it shows.
struct Scene {
    world: World,
    place: PathBuf,
    point: PathBuf,
    base: State,
    /// Everything on the disk, and what is in the repository.
    before: (Vec<String>, Files),
    wanted: Files,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (place, point) = (world.path("place"), world.path("point"));
        fs::create_dir(&point).expect("makes");
        let mut ground = Local::new(State::default(), &place);
        let source = world.source().display().to_string();
        succeed(&world, &ground, &["init"]);
        succeed(&world, &ground, &["backup", &source]);
        ground.lose_power();
        let base = ground.disk().state();
        let before = (ground.names(""), files(&place.join("repository")).expect("reads"));
        drop(ground);
        let wanted = files(&world.source()).expect("reads");
        Self { world, place, point, base, before, wanted }
    }

    fn mount(&self, ground: &Local<'_>) -> Command {
        command(&self.world, ground, &["mount", &self.point.display().to_string()])
    }

    /// A mount that somebody reads, killed at a step; and what he has seen.
    fn read(&self, ground: &Local<'_>, end_at: Option<u64>) -> Result<(Ran, Result<Files>)> {
        let mut mount = self.mount(ground);
        watched(&self.point, &self.world.source(), || ground.disk().run(&mut mount, Steps::All, end_at))
    }

    /// A mount shows everything; how many steps it takes.
    fn shows_all(&self, ground: &Local<'_>, what: &str) -> Result<u64> {
        let (ran, seen) = self.read(ground, None)?;
        ended(&ran.output, &[0], what)?;
        ensure!(seen? == self.wanted, "{what}: it shows something else");
        Ok(ran.steps)
    }

    /// Steps of a mount that is taken away before anybody reads anything.
    fn opening(&self, ground: &Local<'_>) -> Result<u64> {
        let (mut mount, point) = (self.mount(ground), &self.point);
        let ran = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                wait_until(|| fs::read_link(point.join("latest")).is_ok())?;
                unmount(point, UnmountFlags::DETACH).context("unmount")
            });
            let ran = ground.disk().run(&mut mount, Steps::All, None);
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(ran)
        });
        Ok(ran?.steps)
    }

    /// Kills a mount at a step; whether it was, and whether something stayed mounted. The next one is as if nothing had been.
    fn kill_at(&self, step: u64) -> Result<(bool, bool)> {
        let ground = Local::new(self.base.clone(), &self.place);
        let (ran, seen) = self.read(&ground, Some(step))?;
        if !ran.killed {
            ended(&ran.output, &[0], "a run with fewer steps")?;
            ensure!(seen? == self.wanted, "it shows something else");
        }
        let stayed = is_mounted(&self.point);
        if stayed {
            take_away(&self.point, &mut self.mount(&ground))?;
        }
        let now = (ground.names(""), files(&self.place.join("repository"))?);
        ensure!(now == self.before, "a mount has changed what it reads: {:?}", now.0);
        ensure!(ran.state.after_power_loss(None).paths("") == now.0, "a mount has changed what was synced");
        self.shows_all(&ground, "the next mount")?;
        Ok((ran.killed, stayed))
    }
}

#[test]
fn a_killed_mount_leaves_the_repository_as_it_was() {
    in_private_mounts(|| {
        let scene = Scene::new();
        // At once, while somebody reads, and when somebody has read all.
        for (seed, read) in [0, 300_000, 1 << 20].into_iter().enumerate() {
            let ground = Local::new(scene.base.clone(), &scene.place);
            kill_after(read, &scene.world, &ground, &scene.point);
            let killed = ground.disk().state();
            drop(ground);
            let torn = killed.after_power_loss(Some(seed as u64));
            for state in [killed.after_power_loss(None), torn, killed] {
                let ground = Local::new(state, &scene.place);
                assert_eq!(ground.names(""), scene.before.0, "killed after {read} bytes");
                scene.shows_all(&ground, "the next mount").expect("as if nothing had been");
                succeed(&scene.world, &ground, &["check", "--read-data"]);
            }
        }
    });
}

#[test]
fn a_mount_that_somebody_reads() {
    in_private_mounts(|| {
        let scene = Scene::new();
        let ground = Local::new(scene.base.clone(), &scene.place);
        let steps = scene.shows_all(&ground, "undisturbed").expect("it succeeds");
        let opening = scene.opening(&ground).expect("it opens");
        drop(ground);
        // The first that only a reader brings about is taken by every run.
        let reading = Some(opening + 1).filter(|_| !is_whole_matrix());
        let (mut tried, mut killed, mut stayed, mut failed) = (0, 0, 0, Vec::new());
        for step in chosen(steps, SHARE).into_iter().chain(reading) {
            tried += 1;
            match scene.kill_at(step) {
                Ok((was_killed, has_stayed)) => {
                    killed += u64::from(was_killed);
                    stayed += u64::from(has_stayed);
                }
                Err(error) => {
                    clear(&scene.point).expect("nothing else is left");
                    failed.push(format!("{:#}", error.context(format!("killed at step {step} of {steps}"))));
                }
            }
        }
        println!("mount: {steps} steps, {killed} of {tried} runs killed, {stayed} dead mounts");
        failed.truncate(5);
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
        // The first step comes before there is a mount.
        assert!(
            (killed > stayed && stayed > 0) || is_whole_matrix(),
            "{killed} killed, {stayed} dead mounts"
        );
    });
}
