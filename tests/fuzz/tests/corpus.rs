//! Every decoder on the inputs that are kept for it, and on changes of them from a seed: a minute of each test run. The seed is
//! another one in each run, or for each commit if `CARRACK_DRAW` names it. `CARRACK_FUZZ_SEED` runs those of a seed again,
//! `CARRACK_FUZZ_ROUNDS` sets how many changes of each, and `CARRACK_FUZZ_SECONDS` for how long, over all of them.

use std::{
    env,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::{Duration, Instant},
};

use carrack_fuzz::{Mutator, Target, corpus, folder, seed, targets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long the run takes if nothing is said.
const SECONDS: u64 = 60;
/// Threads that it takes.
const THREADS: u32 = 2;
/// Changes for each target at least, however slow the machine.
const ROUNDS: u64 = 500;
/// What the whole run may map, in bytes: a decoder that takes more on the word of a few bytes ends it.
const ADDRESSES: u64 = 2 << 30;
/// What it may have in memory at its height, in KiB.
const PEAK_KIB: u64 = 400 << 10;

/// Which changes are made.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    /// So many, and not for a time.
    rounds: Option<u64>,
    /// For each target.
    time: Duration,
}

impl Plan {
    fn of_run() -> Self {
        let targets = u32::try_from(targets().count()).expect("a few");
        Self {
            seed: seed(),
            rounds: number("CARRACK_FUZZ_ROUNDS"),
            time: Duration::from_secs(number("CARRACK_FUZZ_SECONDS").unwrap_or(SECONDS)) * THREADS / targets,
        }
    }

    fn goes_on(&self, round: u64, since: Instant) -> bool {
        match self.rounds {
            Some(rounds) => round < rounds,
            None => round < ROUNDS || since.elapsed() < self.time,
        }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(target: Target, input: &[u8], what: impl FnOnce() -> String) {
    let done = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    assert!(done.is_ok(), "{} fails on {}:\n{}", target.name, what(), hex::encode(input));
}

fn run_all(target: Target, plan: Plan) {
    let inputs = corpus(target.name).unwrap_or_default();
    assert!(!inputs.is_empty(), "{} has no inputs in {}", target.name, folder(target.name).display());
    for (name, input) in &inputs {
        run(target, input, || name.clone());
    }
    let (start, seed) = (Instant::now(), plan.seed);
    let mut round = 0;
    while plan.goes_on(round, start) {
        let mut mutator = Mutator::new(seed.wrapping_mul(1 << 32) + round);
        let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
        let input = mutator.change(&inputs[one].1, &inputs[other].1);
        round += 1;
        run(target, &input, || {
            format!("a change; again with CARRACK_FUZZ_SEED={seed} CARRACK_FUZZ_ROUNDS={round}")
        });
    }
}

#[test]
fn decoders_bear_any_bytes() {
    let limit = Rlimit { current: Some(ADDRESSES), maximum: getrlimit(Resource::As).maximum };
    setrlimit(Resource::As, limit).expect("a limit");
    let plan = Plan::of_run();
    // An abort leaves no other word of it, and nothing that the harness has kept.
    writeln!(io::stderr(), "fuzz: CARRACK_FUZZ_SEED={}", plan.seed).expect("it is written");
    let waiting = Mutex::new(targets().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(target) = { waiting.lock().expect("nobody failed while holding it").pop() } {
                    run_all(target, plan);
                }
            });
        }
    });
    let peak = peak_kib();
    assert!(peak < PEAK_KIB, "{peak} KiB at its height");
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line of the height");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A target that nobody runs, or a folder that belongs to none, would go unnoticed.
#[test]
fn every_folder_of_inputs_has_its_target() {
    let names: Vec<&str> = targets().map(|target| target.name).collect();
    let all = folder("");
    for entry in std::fs::read_dir(&all).expect("lists") {
        let name = entry.expect("an entry").file_name();
        assert!(names.iter().any(|known| name == **known), "{name:?} in {}", all.display());
    }
}
