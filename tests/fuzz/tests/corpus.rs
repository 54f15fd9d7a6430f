//! Every decoder on the inputs that are kept for it, and on a fixed number of changes of them: some seconds of each
//! test run. `CARRACK_FUZZ_ROUNDS` sets how many changes, `CARRACK_FUZZ_SEED` where they begin.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
};

use carrack_fuzz::{Mutator, Target, corpus, folder, targets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Changes of the inputs of each target.
const ROUNDS: u64 = 5_000;
/// What the whole run may map, in bytes: a decoder that takes more on the word of a few bytes ends it.
const ADDRESSES: u64 = 2 << 30;
/// What it may have in memory at its height, in KiB.
const PEAK_KIB: u64 = 400 << 10;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn run(target: Target, input: &[u8], what: &str) {
    let done = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    assert!(done.is_ok(), "{} fails on {what}:\n{}", target.name, hex::encode(input));
}

fn run_all(target: Target) {
    let inputs = corpus(target.name).unwrap_or_default();
    assert!(!inputs.is_empty(), "{} has no inputs in {}", target.name, folder(target.name).display());
    for (name, input) in &inputs {
        run(target, input, name);
    }
    let (rounds, seed) = (number("CARRACK_FUZZ_ROUNDS", ROUNDS), number("CARRACK_FUZZ_SEED", 1));
    for round in 0..rounds {
        let mut mutator = Mutator::new(seed.wrapping_mul(1 << 32) + round);
        let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
        let input = mutator.change(&inputs[one].1, &inputs[other].1);
        run(target, &input, &format!("change {round} from seed {seed}"));
    }
}

#[test]
fn decoders_bear_any_bytes() {
    let limit = Rlimit { current: Some(ADDRESSES), maximum: getrlimit(Resource::As).maximum };
    setrlimit(Resource::As, limit).expect("a limit");
    let waiting = Mutex::new(targets().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(target) = { waiting.lock().expect("nobody failed while holding it").pop() } {
                    run_all(target);
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
