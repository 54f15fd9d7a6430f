//! Runs simulations by hand: those of the seeds that are named, or fresh ones for so many seconds. With `--news` each backup has
//! something new and prunes are rare.
//!
//! `CARRACK_SIMULATION_LOG` names a file for everything that happened in the last one.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use carrack_mover::clock::World;
use carrack_tests::simulation::{Setting, faults::Figures};

const USAGE: &str = "usage: simulate [--news] SEED… | simulate [--news] --seconds NUMBER";

fn main() -> io::Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let has_news = arguments.first().is_some_and(|first| first == "--news");
    if has_news {
        arguments.remove(0);
    }
    let setting: fn(u64) -> Setting = if has_news { Setting::of_news } else { Setting::of_seed };
    let mut time = Duration::ZERO;
    if arguments.first().is_some_and(|first| first == "--seconds") {
        let seconds = arguments.get(1).and_then(|seconds| seconds.parse().ok());
        time = Duration::from_secs(seconds.ok_or_else(|| io::Error::other(USAGE))?);
        arguments.clear();
    }
    let named: Result<Vec<u64>, _> = arguments.iter().map(|seed| seed.parse()).collect();
    let named = named.map_err(|_| io::Error::other(USAGE))?;
    let (mut sum, mut failed, begin) = (Figures::default(), 0, Instant::now());
    for seed in named {
        failed += u32::from(!one(setting(seed), &mut sum)?);
    }
    while begin.elapsed() < time {
        failed += u32::from(!one(setting(u64::from_le_bytes(World::system().random())), &mut sum)?);
    }
    writeln!(io::stdout(), "simulation: {sum}; {failed} seeds failed; {} s", begin.elapsed().as_secs())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One seed; answers whether everything held.
fn one(setting: Setting, sum: &mut Figures) -> io::Result<bool> {
    let (seed, outcome) = (setting.seed, setting.run()?);
    sum.add(&outcome.figures);
    let mut out = io::stdout();
    writeln!(out, "seed {seed}: trace {:016x}, {} store calls", outcome.trace, outcome.figures.calls)?;
    if let Some(violation) = &outcome.violation {
        writeln!(out, "seed {seed} FAILED: {violation}")?;
    }
    Ok(outcome.violation.is_none())
}
