//! Runs the model with one rule switched off, or with all of them on, and prints what it found.

use carrack_protocol_model::{model::Scenario, rules::Rules, search::search};
use clap::Parser;
use std::io::Write;

#[derive(Debug, Parser)]
struct Args {
    /// Rule to switch off; none by default.
    #[arg(long)]
    without: Option<String>,
    /// Collectors, one or two.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    collectors: u8,
    /// Reuse through the parent instead of a hint.
    #[arg(long)]
    parent: bool,
    /// Session that may be forgotten, 0 or 1.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    forget: u8,
    /// Run clean-up.
    #[arg(long)]
    cleanup: bool,
    /// States to visit at most.
    #[arg(long, default_value_t = 3_000_000)]
    limit: usize,
}

fn main() -> anyhow::Result<()> {
    let a = Args::parse();
    let rules = match &a.without {
        None => Rules::all(),
        Some(name) => Rules::without(name).ok_or_else(|| anyhow::anyhow!("no rule is named {name}"))?,
    };
    let scenario = Scenario {
        collectors: a.collectors.into(),
        parent: a.parent,
        forget: a.forget.into(),
        cleanup: a.cleanup,
    };
    let found = search(scenario, rules, a.limit);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} states, exhausted: {}", found.states, found.exhausted)?;
    if let Some((broken, steps)) = found.violation {
        writeln!(out, "{broken}, {} steps", steps.len())?;
        for step in steps {
            writeln!(out, "  {step}")?;
        }
    }
    Ok(())
}
