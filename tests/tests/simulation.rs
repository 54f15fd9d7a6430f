//! The real engine in a simulated world: see `carrack_tests::simulation`.
//!
//! `CARRACK_SIMULATION_SECONDS=7200 cargo test --locked -p carrack-tests --test simulation -- --nocapture` draws fresh
//! seeds for so long.

use std::time::{Duration, Instant};

use carrack_mover::clock::World;
use carrack_tests::simulation::{
    Setting,
    faults::{Broken, Faults, Figures},
};

/// Seeds that every run has in common, and how many more are drawn.
const FIXED: u64 = 16;
const FRESH: u64 = 4;
/// Seeds that showed something once: a relocation that no reader looked through, because its old pack stayed; a torn hint
/// that a check named; a mark that came after its snapshot had gone; old keys that took fences of newer ones for doubts.
const SHOWN: [u64; 4] = [12_992_304_889_475_027_888, 1010, 1041, 1053];
/// Seeds in which a broken promise must show.
const TRIED: u64 = 20;

fn run(setting: Setting) -> Figures {
    let outcome = setting.run().expect("the simulation runs");
    let seed = setting.seed;
    assert!(
        outcome.violation.is_none(),
        "seed {seed}: {}\n\nagain: cargo run --locked -p carrack-tests --bin simulate {seed}",
        outcome.violation.unwrap_or_default()
    );
    outcome.figures
}

#[test]
fn nothing_is_lost_and_nothing_stays() {
    let mut sum = Figures::default();
    for seed in (0..FIXED).chain(SHOWN) {
        sum.add(&run(Setting::of_seed(seed)));
    }
    let until = std::env::var("CARRACK_SIMULATION_SECONDS")
        .ok()
        .map(|seconds| Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds")));
    let mut fresh = 0;
    while fresh < FRESH || until.is_some_and(|until| Instant::now() < until) {
        let seed = u64::from_le_bytes(World::system().random());
        sum.add(&run(Setting::of_seed(seed)));
        fresh += 1;
    }
    println!("simulation: {sum}; {fresh} of the seeds are fresh");
    assert!(sum.faults() > 500 && sum.crashes > 0 && sum.landed > 0, "too little went wrong: {sum}");
}

/// The simulation must see it when the store breaks a promise, or a rule of the protocol is lost on the way to it.
fn is_noticed(broken: Broken) {
    let faults = Faults { stall: 60, stickiness: 5000, ..Faults::default() };
    let violation = |seed, broken| {
        let setting = Setting { seed, faults: Some(faults), broken };
        setting.run().expect("the simulation runs").violation
    };
    let seed = (0..TRIED).find(|seed| violation(*seed, broken).is_some());
    assert!(seed.is_some(), "{broken:?} is not noticed in {TRIED} seeds");
    // It is that which was noticed, and nothing else.
    let unbroken = seed.and_then(|seed| violation(seed, Broken::Nothing));
    assert_eq!(unbroken, None, "seed {seed:?}");
}

#[test]
fn a_collector_that_sees_old_sessions_is_noticed() {
    is_noticed(Broken::OldSessions);
}

#[test]
fn a_store_that_ignores_conditions_is_noticed() {
    is_noticed(Broken::ConditionsIgnored);
}

#[test]
fn a_store_that_forgets_deletes_is_noticed() {
    is_noticed(Broken::DeletesForgotten);
}
