//! The real engine in a simulated world: see `carrack_tests::simulation`.
//!
//! `CARRACK_SIMULATION_SECONDS=7200 cargo test --locked -p carrack-tests --test simulation` draws fresh seeds for so long;
//! `make unit` gives it two minutes. They are drawn from `CARRACK_DRAW`, in the same order each time; `make unit` gives it the
//! commit.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use carrack_tests::{
    draw,
    simulation::{
        Outcome, Setting,
        faults::{Broken, Faults, Figures},
    },
};

/// Seeds that every run has in common, and how many more are drawn where nobody gives time for them.
const FIXED: u64 = 16;
const FRESH: u64 = 4;
/// Seeds that showed something once, before runs died at writes on purpose: a relocation that no reader looked through, because
/// its old pack stayed; a torn hint that a check named; a mark that came after its snapshot had gone; old keys that took fences
/// of newer ones for doubts.
const SHOWN: [u64; 4] = [12_992_304_889_475_027_888, 1010, 1041, 1053];
/// Seeds that showed something since: a pack that frames were moved to, which no reader looked into, because the old one stayed.
const SHOWN_SINCE: [u64; 1] = [6_319_800_805_931_163_724];
/// Runs of one seed at most, of which two must be the same.
const TRIES: u64 = 8;
/// Seeds in which a broken promise must show.
const TRIED: u64 = 40;
/// So many times as many seeds are tried where something rare did not happen in those that always are.
const MORE: u64 = 4;
/// Seeds in which most runs die, at least.
const DEADLY: u64 = 16;
/// Calls at which somebody must have died in them: each leaves behind what the protocol says others can live with.
const DEATHS: [&str; 15] = [
    "writer put sessions",
    "writer list gc",
    "writer list index",
    "writer get packs",
    "writer put packs",
    "writer put index",
    "writer put snapshots",
    "writer get sessions",
    "collector get snapshots",
    "collector put snapshots",
    "collector put gc",
    "collector delete packs",
    "collector delete gc",
    "forgetter put forgotten",
    "looker put marks",
];

/// Seeds in which segments of the index are joined, at least.
const JOINING: u64 = 12;
/// What must have happened to joined ones in them: put beside what they join, read in its place, and merged away.
const JOINED: [&str; 4] =
    ["writer put index", "writer get index", "collector get index", "collector delete index"];

fn honest(setting: Setting) -> Outcome {
    let outcome = setting.run().expect("the simulation runs");
    let (seed, news) = (setting.seed, if setting.news { "--news " } else { "" });
    assert!(
        outcome.violation.is_none(),
        "seed {seed}: {}\n\n{setting:?}; again, with the faults of the seed: \
         cargo run --locked -p carrack-tests --bin simulate -- {news}{seed}",
        outcome.violation.unwrap_or_default()
    );
    outcome
}

/// Lives through seeds until all that is wanted was counted, but through `least` at least; what was not counted, and all that was.
fn lived(
    least: u64,
    setting: impl Fn(u64) -> Setting,
    wanted: &[&'static str],
    counted: fn(&Figures) -> &BTreeMap<String, u64>,
) -> (Vec<&'static str>, BTreeMap<String, u64>) {
    let mut sum = Figures::default();
    let missing = |sum: &Figures| -> Vec<&'static str> {
        wanted.iter().copied().filter(|call| !counted(sum).contains_key(*call)).collect()
    };
    for seed in 0..MORE * least {
        if seed >= least && missing(&sum).is_empty() {
            break;
        }
        sum.add(&honest(setting(seed)).figures);
    }
    (missing(&sum), counted(&sum).clone())
}

#[test]
fn nothing_is_lost_and_nothing_stays() {
    let mut sum = Figures::default();
    for seed in (0..FIXED).chain(SHOWN_SINCE) {
        sum.add(&honest(Setting::of_seed(seed)).figures);
    }
    for seed in SHOWN {
        let faults = Faults { crash_writing: 0, ..Faults::of_seed(seed) };
        sum.add(&honest(Setting { faults: Some(faults), ..Setting::of_seed(seed) }).figures);
    }
    let until = std::env::var("CARRACK_SIMULATION_SECONDS")
        .ok()
        .map(|seconds| Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds")));
    let mut fresh = 0;
    while fresh < FRESH || until.is_some_and(|until| Instant::now() < until) {
        let seed = draw::dice(&[fresh]).bits();
        sum.add(&honest(Setting::of_seed(seed)).figures);
        fresh += 1;
    }
    // Not by a macro: what those print is not shown of a test that passes.
    let drawn = format!("drawn from {}={}", draw::VARIABLE, draw::origin());
    writeln!(io::stdout(), "simulation: {sum}; {fresh} of the seeds are {drawn}").expect("standard output");
    assert!(sum.faults() > 500 && sum.crashes > 0 && sum.landed > 0, "too little went wrong: {sum}");
}

#[test]
fn clients_die_at_every_kind_of_call_and_nothing_is_lost() {
    let faults = Faults {
        crash: 6000,
        crash_writing: 7500,
        lost: 50,
        stall: 20,
        stickiness: 5000,
        ..Faults::default()
    };
    let setting = |seed| Setting { faults: Some(faults), ..Setting::of_seed(seed) };
    let (missing, deaths) = lived(DEADLY, setting, &DEATHS, |sum| &sum.deaths);
    assert!(missing.is_empty(), "nobody died at {missing:?}, but at {deaths:?}");
}

/// Elsewhere a prune comes before there are enough small segments, or nothing is new any more.
#[test]
fn segments_are_joined_and_merged_and_nothing_is_lost() {
    let (missing, joined) = lived(JOINING, Setting::of_news, &JOINED, |sum| &sum.joined);
    assert!(missing.is_empty(), "of joined segments there was no {missing:?}, but {joined:?}");
}

/// On a machine with much else to do a thread may seem to wait that does not, and a run goes another way: seen once in some
/// hundred. So a seed has more than one try, but two of its runs must be the same.
#[test]
fn a_seed_goes_the_same_way_again() {
    for seed in 0..4 {
        let mut runs = Vec::new();
        let is_seen_again = (0..TRIES).any(|_| {
            let run = honest(Setting::of_seed(seed));
            let way = (run.trace, run.figures);
            let is_known = runs.contains(&way);
            runs.push(way);
            is_known
        });
        assert!(is_seen_again, "seed {seed}: {runs:?}");
    }
}

/// The simulation must see it when the store breaks a promise, or a rule of the protocol is lost on the way to it.
fn is_noticed(broken: Broken, faults: Faults, hours: u64) {
    let violation = |seed, broken| {
        let setting = Setting { faults: Some(faults), broken, hours, ..Setting::of_seed(seed) };
        setting.run().expect("the simulation runs").violation
    };
    let seed = (0..TRIED).find(|seed| violation(*seed, broken).is_some());
    assert!(seed.is_some(), "{broken:?} is not noticed in {TRIED} seeds");
    // It is that which was noticed, and nothing else.
    let unbroken = seed.and_then(|seed| violation(seed, Broken::Nothing));
    assert_eq!(unbroken, None, "seed {seed:?}");
}

fn slow() -> Faults {
    Faults { stall: 60, stickiness: 5000, ..Faults::default() }
}

/// Writers come between a final and its deletes, or are at work when something is condemned, and want what is to go.
fn paused() -> Faults {
    Faults { pause: 8000, ..Faults::default() }
}

#[test]
fn a_collector_that_sees_nobody_at_work_is_noticed() {
    is_noticed(Broken::SessionsHidden, paused(), 5);
}

#[test]
fn a_store_that_ignores_conditions_is_noticed() {
    is_noticed(Broken::ConditionsIgnored, slow(), 20);
}

#[test]
fn a_store_that_forgets_deletes_is_noticed() {
    is_noticed(Broken::DeletesForgotten, slow(), 20);
}

#[test]
fn writers_that_see_no_condemned_lists_are_noticed() {
    is_noticed(Broken::ListsHidden, paused(), 5);
}

#[test]
fn listings_that_lag_are_noticed() {
    is_noticed(Broken::ListingsLag, paused(), 5);
}
