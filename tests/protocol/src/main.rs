//! Explores one scenario, with all rules in force or without one, and prints what it found.

use carrack_protocol_model::{
    rules::{RULES, Rule, Rules},
    scenarios::{SCENARIOS, Scenario},
};
use clap::Parser;
use std::io::Write;

#[derive(Debug, Parser)]
struct Args {
    /// Scenario to explore; all small ones by default.
    #[arg(long)]
    scenario: Vec<String>,
    /// Rule to switch off; none by default.
    #[arg(long)]
    without: Option<Rule>,
    /// Which scenarios to explore if none is named: small ones, or large ones as well.
    #[arg(long, value_enum, default_value_t = Size::Small)]
    size: Size,
    /// States to visit at most in each scenario; a million need about 150 MiB.
    #[arg(long, default_value_t = 10_000_000)]
    limit: usize,
    /// Names scenarios and rules instead.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Size {
    Small,
    Large,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut out = std::io::stdout().lock();
    if args.list {
        for scenario in SCENARIOS {
            writeln!(out, "scenario {}: {}", scenario.name, scenario.about)?;
        }
        for (_, name, what) in RULES {
            writeln!(out, "rule {name}: {what}")?;
        }
        return Ok(());
    }
    let chosen: Vec<&Scenario> = if args.scenario.is_empty() {
        let is_meant =
            |scenario: &&Scenario| !scenario.corner && (scenario.small || args.size == Size::Large);
        SCENARIOS.iter().filter(is_meant).collect()
    } else {
        args.scenario.iter().map(|name| Scenario::named(name)).collect::<anyhow::Result<_>>()?
    };
    let rules = args.without.map_or(Rules::all(), Rules::without);
    for scenario in chosen {
        let found = scenario.run(rules, args.limit);
        let end = if found.exhausted { "exhausted" } else { "not exhausted" };
        write!(out, "{}: {} states, {end}", scenario.name, found.states)?;
        match &found.violation {
            None => writeln!(out)?,
            Some((broken, steps)) => {
                writeln!(out, "; {broken}, {} steps", steps.len())?;
                if !args.scenario.is_empty() {
                    steps.iter().try_for_each(|step| writeln!(out, "  {step}"))?;
                }
            }
        }
        out.flush()?;
    }
    Ok(())
}
