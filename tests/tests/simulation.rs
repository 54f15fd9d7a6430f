//! The real engine in a simulated world: see `carrack_tests::simulation`.

use std::time::{Duration, Instant};

use carrack_mover::clock::World;
use carrack_tests::simulation::{
    Setting,
    faults::{Broken, Figures},
};

/// Seeds that every run has in common, and how many more are drawn.
const FIXED: u64 = 12;
const FRESH: u64 = 6;

fn run(setting: Setting) -> Figures {
    let outcome = setting.run().unwrap();
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
    for seed in 0..FIXED {
        sum.add(&run(Setting::of_seed(seed)));
    }
    let until = std::env::var("CARRACK_SIMULATION_SECONDS").ok().map(|seconds| {
        Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds"))
    });
    let mut fresh = 0;
    while fresh < FRESH || until.is_some_and(|until| Instant::now() < until) {
        let seed = u64::from_le_bytes(World::system().random());
        sum.add(&run(Setting::of_seed(seed)));
        fresh += 1;
    }
    println!("simulation: {sum}; {fresh} of the seeds are fresh");
}

#[test]
fn a_broken_promise_is_noticed() {
    for broken in [Broken::ListsHidden, Broken::OldSessions, Broken::ConditionsIgnored, Broken::DeletesForgotten] {
        let noticed = (0..20).find_map(|seed| {
            let setting = Setting { broken, ..Setting::of_seed(seed) };
            setting.run().unwrap().violation.map(|what| (seed, what))
        });
        let (seed, what) = noticed.unwrap_or_else(|| panic!("{broken:?} is not noticed"));
        println!("{broken:?}: seed {seed}: {}", what.lines().next().unwrap_or_default());
    }
}
