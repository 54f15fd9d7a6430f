//! Which tests come to a change, and whether one of them notices it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::tree::{Mutant, Programs};

/// Unit tests that run together at first; twice as many each time after that, because a program runs all that it was given,
/// also after one has failed.
const FIRST: usize = 6;
/// How much longer than usual tests may take, and how much at least.
const PATIENCE: u32 = 5;
const LEAST: Duration = Duration::from_secs(5);
/// Bytes that tests want for what they write, several at a time. A container has 64 MiB in memory if nothing else is said, and
/// whether two large tests came together there would be chance.
const ROOM: u64 = 2 << 30;
/// How long a test may take without any change.
const HANGS: Duration = Duration::from_secs(600);

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A unit test failed, or did not come to its end.
    Noticed,
    /// No unit test did, but one of the whole engine or of the program.
    NoticedOutside,
    /// All that were asked passed.
    Survived,
    /// None comes to it.
    Unreached,
}

#[derive(Debug)]
struct Test {
    /// 0 has the unit tests.
    program: usize,
    name: String,
    took: Duration,
}

/// The tests of all programs.
#[derive(Debug)]
pub(crate) struct Judge {
    programs: Programs,
    tests: Vec<Test>,
    /// Which tests come to a change: unit tests first, and the quickest first.
    reaches: HashMap<usize, Vec<usize>>,
    /// How many changes each test has noticed by itself: what has noticed many is asked first.
    noticed: Vec<AtomicUsize>,
    /// For how long of their time the tests that are not unit tests try one change.
    tried: Duration,
}

impl Judge {
    /// Runs each test once without any change. All unit tests try a change; outside of them, those that take no longer than
    /// `longest` do, and as many as take `tried` together.
    ///
    /// # Errors
    ///
    /// One fails.
    pub(crate) fn of(programs: Programs, longest: Duration, tried: Duration, work: &Path) -> Result<Self> {
        let mut judge =
            Self { programs, tests: Vec::new(), reaches: HashMap::new(), noticed: Vec::new(), tried };
        let mut names = Vec::new();
        for program in 0..judge.programs.paths.len() {
            let path = &judge.programs.paths[program];
            let listed = Command::new(path).args(["--list", "--format", "terse"]).output()?;
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            let before = names.len();
            names.extend(
                text.lines()
                    .filter_map(|line| line.strip_suffix(": test"))
                    .map(|name| (program, name.to_owned())),
            );
            ensure!(names.len() > before, "{} has no tests", path.display());
        }
        let seen = in_threads(names.len(), |index| {
            let (program, name) = &names[index];
            let file = work.join(format!("seen-{index}"));
            drop(fs::remove_file(&file));
            // Ordinary users write to it, too.
            File::create(&file)?.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
            let start = Instant::now();
            let passed =
                judge.run(*program, &[name], ("CARRACK_MUTANTS_SEEN", &file.display().to_string()), HANGS)?;
            ensure!(passed == Some(true) || *program > 0, "test {name} fails without any change");
            let took = start.elapsed();
            let text = fs::read_to_string(&file).unwrap_or_default();
            drop(fs::remove_file(&file));
            let seen = text.lines().filter_map(|line| line.parse().ok()).collect::<BTreeSet<usize>>();
            Ok(if passed == Some(true) {
                (took, seen)
            } else {
                writeln!(std::io::stderr(), "test {name} fails without any change, and is left out")?;
                (Duration::MAX, seen)
            })
        })?;
        let mut tests: Vec<(Test, BTreeSet<usize>)> = names
            .into_iter()
            .zip(seen)
            .map(|((program, name), (took, seen))| (Test { program, name, took }, seen))
            .collect();
        let all = tests.len();
        tests.retain(|(test, _)| test.program == 0 || test.took <= longest);
        writeln!(
            std::io::stderr(),
            "{} of {all} tests, those outside of {longest:?} each at most",
            tests.len()
        )?;
        tests.sort_by_key(|(test, _)| (test.program > 0, test.took));
        for (index, (test, seen)) in tests.into_iter().enumerate() {
            seen.into_iter().for_each(|mutant| judge.reaches.entry(mutant).or_default().push(index));
            judge.tests.push(test);
            judge.noticed.push(AtomicUsize::new(0));
        }
        Ok(judge)
    }

    /// Tries all changes but those that are known, and writes down what became of each as soon as it is known.
    ///
    /// # Errors
    ///
    /// A test cannot be started, or a result not written.
    pub(crate) fn try_all(
        &self,
        mutants: &[Mutant],
        known: &mut BTreeMap<usize, Fate>,
        results: &Path,
    ) -> Result<()> {
        let file = Mutex::new(File::options().append(true).create(true).open(results)?);
        let open: Vec<&Mutant> =
            mutants.iter().filter(|mutant| !known.contains_key(&mutant.number)).collect();
        let done = AtomicUsize::new(0);
        let fates = in_threads(open.len(), |index| {
            let fate = self.fate(open[index])?;
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(file, "{} {fate:?}", open[index].number)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(100) {
                writeln!(std::io::stderr(), "{done} of {} changes", open.len())?;
            }
            Ok(fate)
        })?;
        known.extend(open.iter().map(|mutant| mutant.number).zip(fates));
        Ok(())
    }

    fn fate(&self, mutant: &Mutant) -> Result<Fate> {
        let Some(tests) = self.reaches.get(&mutant.number) else { return Ok(Fate::Unreached) };
        let (unit, outside) = tests.split_at(tests.partition_point(|test| self.tests[*test].program == 0));
        let mut unit = unit.to_vec();
        // Those of the same module know it best.
        unit.sort_by_key(|test| std::cmp::Reverse(shared(&module(&mutant.file), &self.tests[*test].name)));
        let (mut rest, mut count) = (unit.as_slice(), FIRST);
        while !rest.is_empty() {
            let (some, later) = rest.split_at(rest.len().min(count));
            if self.is_noticed(mutant.number, some)? {
                return Ok(Fate::Noticed);
            }
            (rest, count) = (later, count * 2);
        }
        let mut outside = outside.to_vec();
        outside.sort_by_key(|test| std::cmp::Reverse(self.noticed[*test].load(Ordering::Relaxed)));
        let mut left = self.tried;
        for test in outside {
            let Some(after) = left.checked_sub(self.tests[test].took) else { continue };
            left = after;
            if self.is_noticed(mutant.number, &[test])? {
                self.noticed[test].fetch_add(1, Ordering::Relaxed);
                return Ok(Fate::NoticedOutside);
            }
        }
        Ok(Fate::Survived)
    }

    /// Whether one of these tests, all of one program, fails or hangs with the change.
    fn is_noticed(&self, mutant: usize, tests: &[usize]) -> Result<bool> {
        let program = self.tests[tests[0]].program;
        let names: Vec<&str> = tests.iter().map(|index| self.tests[*index].name.as_str()).collect();
        let usual: Duration = tests.iter().map(|index| self.tests[*index].took).sum();
        let limit = usual * PATIENCE + LEAST;
        Ok(self.run(program, &names, ("CARRACK_MUTANT", &mutant.to_string()), limit)? != Some(true))
    }

    /// Whether these tests pass; nothing if they do not end in time. What they leave behind goes.
    fn run(
        &self,
        program: usize,
        tests: &[impl AsRef<str>],
        (name, value): (&str, &str),
        limit: Duration,
    ) -> Result<Option<bool>> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let place = scratch().join(format!("carrack-mutants-{}-{run}", std::process::id()));
        fs::create_dir(&place)?;
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        let mut command = Command::new(&self.programs.paths[program]);
        command.args(["--exact", "--test-threads=1", "--quiet"]).args(tests.iter().map(AsRef::as_ref));
        command.current_dir(&self.programs.directories[program]).env("TMPDIR", &place).env(name, value);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let ended = ended(command.spawn().context("a test")?, limit);
        if let Err(error) = fs::remove_dir_all(&place) {
            writeln!(std::io::stderr(), "{} stays: {error}", place.display())?;
        }
        ended
    }
}

/// Where tests write: in memory if there is room, where nothing waits for a disk.
fn scratch() -> &'static Path {
    static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
        let memory = Path::new("/dev/shm");
        let is_large = free(memory).is_some_and(|bytes| bytes >= ROOM);
        if is_large { memory.to_owned() } else { std::env::temp_dir() }
    });
    &SCRATCH
}

/// Bytes that are free on the file system of a directory, if it is there.
fn free(directory: &Path) -> Option<u64> {
    let said = Command::new("df").args(["--block-size=1", "--output=avail"]).arg(directory).output().ok()?;
    String::from_utf8(said.stdout).ok()?.lines().last()?.trim().parse().ok()
}

/// The module of a file below `mover/src`.
fn module(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.replace('/', "::")
}

/// How many parts of their paths two modules share.
fn shared(one: &str, other: &str) -> usize {
    one.split("::").zip(other.split("::")).take_while(|(one, other)| one == other).count()
}

/// Whether a test ended well; nothing if it did not end in time. Whatever it has started ends with it.
fn ended(mut child: Child, limit: Duration) -> Result<Option<bool>> {
    let start = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status.success());
        }
        if start.elapsed() > limit {
            child.kill()?;
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let group = format!("-{}", child.id());
    Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status()?;
    child.wait()?;
    Ok(ended)
}

/// The results of work on each of so many things, on all processors.
fn in_threads<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let made = Mutex::new(Vec::with_capacity(count));
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                        break;
                    }
                    match work(index) {
                        Ok(done) => made.lock().unwrap_or_else(PoisonError::into_inner).push((index, done)),
                        Err(error) => *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_by_key(|(index, _)| *index);
    Ok(made.into_iter().map(|(_, done)| done).collect())
}
