//! A repository with one honest snapshot and one that is not, things outside of the target that must stay as they are,
//! and every command that reads what somebody hostile has written.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use carrack_mover::format::records::Moved;
use rustix::mount::UnmountFlags;

mod single;

pub use self::single::Single;
use super::{Forger, Outcome, measured};
use crate::{
    images::{in_private_mounts, is_mounted},
    program::{Program, text},
    trees::{Tree, differences, noise, read},
};

/// A guard against what never ends; seen: two seconds.
const SECONDS: u32 = 100;
/// What may become of a command that meets something hostile: it is done, done in part, refused, not there, in
/// conflict, damaged, or does not fit. Never a fault of the program, a signal, or a panic.
pub const CODES: [i32; 7] = [0, 2, 3, 10, 11, 14, 15];

/// What a command may take, and the options that say so.
#[derive(Debug, Clone)]
struct Memory {
    options: Vec<String>,
    peak_kib: u64,
}

impl Memory {
    fn with<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        arguments.iter().copied().chain(self.options.iter().map(String::as_str)).collect()
    }

    /// One of these exit codes, and no more memory than this.
    fn judge(&self, arguments: &[&str], codes: &[i32], outcome: Outcome) -> Outcome {
        assert!(ends(&outcome, codes), "{arguments:?}: {outcome:?}");
        let (peak, limit) = (outcome.peak_kib, self.peak_kib);
        assert!(peak <= limit, "{arguments:?} took {peak} KiB of {limit}: {outcome:?}");
        outcome
    }
}

/// What `--memory` is when nothing is said.
pub const PEAK_KIB: u64 = 256 << 10;

/// The stage of one test.
#[derive(Debug)]
pub struct Scene {
    /// The program and the repository.
    pub carrack: Program,
    honest: String,
    /// What must stay as it is; hostile snapshots are of this path.
    pub outside: PathBuf,
    before: Tree,
}

impl Scene {
    /// With the honest snapshot.
    pub fn new(program: PathBuf) -> Self {
        let carrack = Program::new(program).expect("a repository");
        let source = carrack.path("source");
        fs::create_dir(&source).expect("makes");
        fs::write(source.join("file"), honest_contents()).expect("writes");
        carrack.run(["backup".as_ref(), source.as_os_str()], 0);
        let honest = carrack.run(["snapshots", "--json"], 0).message("snapshot")["id"].clone();
        let outside = carrack.path("outside");
        fs::create_dir_all(outside.join("directory")).expect("makes");
        fs::write(outside.join("victim"), b"mine").expect("writes");
        fs::write(outside.join("directory/inside"), b"mine").expect("writes");
        let before = read(&[&outside]).expect("reads");
        let key = carrack.path("key");
        fs::write(&key, "0123456789abcdef".repeat(4)).expect("writes");
        carrack.run(["key", "add", "--new-key-file", text(&key)], 0);
        Self { carrack, honest: honest.as_str().expect("an id").to_owned(), outside, before }
    }

    /// What there is when nothing is said, and the least that may be said. A password takes as much as that for itself,
    /// so it is a key then.
    fn memories(&self) -> [Memory; 2] {
        let key = self.carrack.path("key");
        let least = ["--memory", "64MiB", "--key-file", text(&key)].map(str::to_owned);
        [
            Memory { options: Vec::new(), peak_kib: PEAK_KIB },
            Memory { options: least.to_vec(), peak_kib: 64 << 10 },
        ]
    }

    /// Commits what `make` makes.
    pub fn forge(&self, make: impl AsyncFnOnce(Forger) -> anyhow::Result<()>) {
        let done = runtime().block_on(async { make(self.forger().await?).await });
        done.expect("it is written");
    }

    /// One more hostile session.
    pub async fn forger(&self) -> anyhow::Result<Forger> {
        Forger::begin(&self.carrack.path("repository"), &self.carrack.password, &self.outside).await
    }

    /// Commits relocations, as a repack does, wherever they lead.
    pub fn relocate(&self, moved: &[Moved]) {
        let (repository, password) = (self.carrack.path("repository"), &self.carrack.password);
        let done = runtime().block_on(super::relocate(&repository, password, moved));
        done.expect("it is written");
    }

    /// Runs a command with the memory that it has when nothing is said.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run_against(arguments);
        self.assert_outside();
        outcome
    }

    /// The same with this much memory.
    fn run_within(&self, memory: &Memory, arguments: &[&str]) -> Outcome {
        let outcome = self.run_against_within(memory, arguments);
        self.assert_outside();
        outcome
    }

    /// Runs a command while somebody works against it; what is outside is looked at by the caller.
    pub fn run_against(&self, arguments: &[&str]) -> Outcome {
        self.run_against_within(&Memory { options: Vec::new(), peak_kib: PEAK_KIB }, arguments)
    }

    fn run_against_within(&self, memory: &Memory, arguments: &[&str]) -> Outcome {
        let arguments = memory.with(arguments);
        let outcome = measured(&self.carrack, &arguments, SECONDS).expect("it runs");
        memory.judge(&arguments, &CODES, outcome)
    }

    /// Nothing outside of the target has changed.
    pub fn assert_outside(&self) {
        assert_eq!(differences(&self.before, &read(&[&self.outside]).expect("reads")), [""; 0]);
    }

    /// A path that is not there.
    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.carrack.path(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).expect("removes");
        } else if path.exists() {
            fs::remove_file(&path).expect("removes");
        }
        path
    }

    /// Restores into a new directory; gives it with what came of it.
    pub fn restore(&self) -> (PathBuf, Outcome) {
        let target = self.fresh("target");
        let outcome = self.run(&["restore", "latest", "--target", text(&target)]);
        (target, outcome)
    }

    /// Every command that meets the tree; each must end like this, in much memory and in little. Before the copies, what
    /// is outside is backed up: whatever its parent holds, that snapshot has what is there, and is the latest from then on.
    pub fn everything(&self, codes: &[i32]) {
        let memories = self.memories();
        memories.iter().for_each(|memory| self.reads(memory, codes));
        memories.iter().for_each(|memory| self.back_up_over(memory));
        for memory in &memories {
            let copied = self.copy(memory);
            // Of several snapshots, or of a tree, what is whole is copied.
            assert!(copied.code == Some(3) || ends(&copied, codes), "copy {memory:?}: {copied:?}");
        }
    }

    /// The same in much memory, without copies.
    pub fn everything_but_copies_with_plenty(&self, codes: &[i32]) {
        let [plenty, _] = self.memories();
        self.reads(&plenty, codes);
        self.back_up_over(&plenty);
    }

    /// Runs a command with the least memory that there is.
    pub fn run_with_least(&self, arguments: &[&str]) -> Outcome {
        let [_, least] = self.memories();
        self.run_within(&least, arguments)
    }

    fn reads(&self, memory: &Memory, codes: &[i32]) {
        let target = self.fresh("target");
        for arguments in [
            &["restore", "latest", "--target", text(&target)][..],
            &["ls", "latest", "--recursive"],
            &["find", "*x*", "--snapshot", "latest"],
            &["diff", self.honest.as_str(), "latest"],
            &["check", "--read-data", "--no-mark"],
        ] {
            let outcome = self.run_within(memory, arguments);
            assert!(ends(&outcome, codes), "{} {memory:?}: {outcome:?}", arguments[0]);
        }
        let mounted = self.mount(memory);
        assert!(ends(&mounted, &[0]), "mount {memory:?}: {mounted:?}");
    }

    /// Copies all into a new repository; the honest snapshot arrives whatever is beside it.
    fn copy(&self, memory: &Memory) -> Outcome {
        let (copies, key) = (self.fresh("copies"), self.carrack.path("key"));
        let at = ["-r", text(&copies), "--key-file", text(&key)];
        let there = |arguments: &[&str]| self.carrack.run([&at[..], arguments].concat(), 0);
        there(&["init"]);
        let from = self.carrack.path("repository");
        let from = ["copy", "--from-repo", text(&from), "--from-key-file", text(&key)];
        // The key opens both, so it is among the options of less memory already.
        let at = if memory.options.is_empty() { &at[..] } else { &at[..2] };
        let outcome = self.run_within(memory, &[at, &from].concat());
        there(&["check", "--read-data"]);
        let copied = there(&["find", "file", "--json"]);
        assert!(copied.out.contains("source/file"), "the honest one was not copied: {outcome:?}");
        outcome
    }

    /// Lists and reads what a mount shows, as far as it goes in a while.
    fn mount(&self, memory: &Memory) -> Outcome {
        let point = self.fresh("mounted");
        fs::create_dir(&point).expect("makes");
        let mut seen = Seen { left: 3_000, honest: false };
        // The mounts of a thread are those of the threads and programs that it starts.
        let outcome = in_private_mounts(|| {
            thread::scope(|scope| {
                let running = scope.spawn(|| self.run_within(memory, &["mount", text(&point)]));
                let start = Instant::now();
                while !is_mounted(&point) && !running.is_finished() {
                    assert!(start.elapsed() < Duration::from_secs(SECONDS.into()), "it is not mounted");
                    thread::sleep(Duration::from_millis(10));
                }
                if is_mounted(&point) {
                    seen.walk(&point, 0);
                    rustix::mount::unmount(&point, UnmountFlags::DETACH).expect("unmounts");
                }
                running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        });
        assert!(seen.honest, "the honest one was not shown whole: {outcome:?}");
        outcome
    }

    /// Backs up what the hostile snapshots say they are of.
    fn back_up_over(&self, memory: &Memory) {
        let arguments = ["backup", "--host", "hostile", text(&self.outside)];
        let outcome = self.run_within(memory, &arguments);
        assert!(matches!(outcome.code, Some(0 | 3)), "backup {memory:?}: {outcome:?}");
        let target = self.fresh("target");
        self.carrack.run(["restore", "latest", "--host", "hostile", "--target", text(&target)], 0);
        let restored = target.join(self.outside.strip_prefix("/").expect("absolute"));
        assert_eq!(differences(&self.before, &read(&[restored]).expect("reads")), [""; 0], "{outcome:?}");
    }
}

fn ends(outcome: &Outcome, codes: &[i32]) -> bool {
    outcome.code.is_some_and(|code| codes.contains(&code))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn honest_contents() -> Vec<u8> {
    noise(1, 100_000)
}

/// What somebody has seen who looks around in a mount.
struct Seen {
    /// Entries that are still looked at.
    left: usize,
    /// Whether the honest file was among them, as it was backed up.
    honest: bool,
}

impl Seen {
    /// What cannot be listed or read is passed over: whether it may be so, the program's own end says.
    fn walk(&mut self, at: &Path, depth: usize) {
        let Ok(names) = fs::read_dir(at) else { return };
        for entry in names.flatten() {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let path = entry.path();
            let Ok(kind) = fs::symlink_metadata(&path).map(|metadata| metadata.file_type()) else { continue };
            if kind.is_dir() && depth < 100 {
                self.walk(&path, depth + 1);
            } else if kind.is_symlink() {
                fs::read_link(&path).ok();
            } else if kind.is_file() {
                self.read(&path);
            }
        }
    }

    fn read(&mut self, path: &Path) {
        let mut bytes = Vec::new();
        let Ok(file) = File::open(path) else { return };
        let whole = file.take(4 << 20).read_to_end(&mut bytes).is_ok();
        self.honest |= whole && bytes == honest_contents();
    }
}
