//! Which tests come to a change, and whether one of them notices it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::tree::Mutant;

/// Tests that run together at first: most changes are noticed by one of the quickest.
const FIRST: usize = 6;
/// How much longer than usual tests may take, and how much at least.
const PATIENCE: u32 = 5;
const LEAST: Duration = Duration::from_secs(5);

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A test failed, or did not come to its end.
    Noticed,
    /// All that come to it passed.
    Survived,
    /// None comes to it.
    Unreached,
}

/// The tests of a program.
#[derive(Debug)]
pub(crate) struct Judge {
    program: PathBuf,
    directory: PathBuf,
    /// Name and time of each.
    tests: Vec<(String, Duration)>,
    /// Which tests come to a change, the quickest first.
    reaches: HashMap<usize, Vec<usize>>,
}

impl Judge {
    /// Runs each test once without any change.
    ///
    /// # Errors
    ///
    /// One fails.
    pub(crate) fn of(program: &Path, directory: &Path, work: &Path) -> Result<Self> {
        let listed = Command::new(program).args(["--list", "--format", "terse"]).output()?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let names: Vec<String> =
            text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
        ensure!(!names.is_empty(), "{} has no tests", program.display());
        let mut judge = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            tests: vec![],
            reaches: HashMap::new(),
        };
        let seen = in_threads(names.len(), |index| {
            let file = work.join(format!("seen-{index}"));
            drop(fs::remove_file(&file));
            let start = Instant::now();
            let mut command = judge.command(&[&names[index]]);
            let passed = ended(command.env("CARRACK_MUTANTS_SEEN", &file), Duration::from_secs(600))?;
            ensure!(passed == Some(true), "test {} fails without any change", names[index]);
            let took = start.elapsed();
            let text = fs::read_to_string(&file).unwrap_or_default();
            drop(fs::remove_file(&file));
            Ok((took, text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<usize>>()))
        })?;
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|index| seen[*index].0);
        for index in order {
            for mutant in &seen[index].1 {
                judge.reaches.entry(*mutant).or_default().push(index);
            }
        }
        judge.tests = names.into_iter().zip(seen.into_iter().map(|(took, _)| took)).collect();
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
            let fate = self.fate(open[index].number)?;
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

    fn fate(&self, mutant: usize) -> Result<Fate> {
        let Some(tests) = self.reaches.get(&mutant) else { return Ok(Fate::Unreached) };
        let (first, rest) = tests.split_at(tests.len().min(FIRST));
        for some in [first, rest].into_iter().filter(|some| !some.is_empty()) {
            let names: Vec<&str> = some.iter().map(|index| self.tests[*index].0.as_str()).collect();
            let usual: Duration = some.iter().map(|index| self.tests[*index].1).sum();
            let mut command = self.command(&names);
            command.env("CARRACK_MUTANT", mutant.to_string());
            if ended(&mut command, usual * PATIENCE + LEAST)? != Some(true) {
                return Ok(Fate::Noticed);
            }
        }
        Ok(Fate::Survived)
    }

    fn command(&self, tests: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--exact", "--test-threads=1", "--quiet"]).args(tests).current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Whether a command ended well; nothing if it did not end in time.
fn ended(command: &mut Command, limit: Duration) -> Result<Option<bool>> {
    let mut child = command.spawn().context("a test")?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
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
