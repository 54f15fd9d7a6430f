//! Changes the engine in thousands of ways, each of which must fail a test: are the tests awake?
//!
//! All changes are compiled into one program, and a variable of the environment says which one is on. So the engine is
//! compiled once, and not once for each change, which takes minutes each and is why this is not cargo-mutants. Each test is
//! run once to see which changes it comes to; a change is then tried by those tests only: those of its module first, and the
//! quickest of them.

mod explained;
mod judge;
mod place;
mod tree;

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    explained::Explained,
    judge::{Fate, Judge},
    tree::{Mutant, Programs, Tree},
};

/// Tests of the whole engine and of the program that need no server and no mounts: what hangs is killed, and would leave these.
const OUTSIDE: &str = "cli_bad_input,copy,damage_matrix,defect,golden_vectors,hostile_repository,job,json,keys,look,\
    losses,moved_meanwhile,prune_safety,random_trees,recovery,repack,resume,rollback,round_trip,simulated_year,simulation,sources,targets";

/// Changes the engine in thousands of ways, each of which must fail a test
#[derive(Debug, Parser)]
struct Arguments {
    /// Files to change: those whose paths below mover/src begin with one of these, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "format/,pipeline/,reader/,repack/,repo/,restore/")]
    parts: Vec<String>,
    /// Only every so-manieth place is changed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    every: u16,
    /// Test programs of the package carrack-tests that try what the unit tests do not notice, separated by commas
    #[arg(long, value_delimiter = ',', default_value = OUTSIDE)]
    outside: Vec<String>,
    /// How many seconds one test may take to be among them
    #[arg(long, default_value_t = 2)]
    longest: u64,
    /// For how many seconds of tests of those programs one change is tried; those that noticed much come first
    #[arg(long, default_value_t = 60)]
    tried: u64,
    /// Where the changed engine is built, and what is known so far is kept
    #[arg(long, default_value = "target/mutants")]
    work: PathBuf,
    /// Survivors that are explained: a file, what is changed (at how many places, if not one: × 2) and why it need not be noticed,
    /// separated by bars, in each line
    #[arg(long, default_value = "tests/mutants/explained.txt")]
    explained: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    fs::create_dir_all(&arguments.work)?;
    let work = arguments.work.canonicalize()?;
    let place = || format!("what is explained: {}", arguments.explained.display());
    let text = fs::read_to_string(&arguments.explained).with_context(place)?;
    let explained = Explained::read(&text).with_context(place)?;
    let mut tree = Tree::of(&repository, &work, &arguments.parts, arguments.every.into())?;
    let outside: Vec<String> = arguments.outside.into_iter().filter(|name| !name.is_empty()).collect();
    let (programs, mutants) = tree.build(&outside)?;
    writeln!(std::io::stderr(), "{} changes; each test is run once without any", mutants.len())?;
    list(&mutants, &work.join("changes.txt"))?;
    let results = work
        .join(format!("results-{:016x}", hash(&mutants, &programs, (arguments.longest, arguments.tried))?));
    let (longest, tried) = (Duration::from_secs(arguments.longest), Duration::from_secs(arguments.tried));
    let judge = Judge::of(programs, longest, tried, &work)?;
    let mut fates = known(&results);
    judge.try_all(&mutants, &mut fates, &results)?;
    let open = report(&mutants, &fates, &explained)?;
    Ok(if open == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes down what each number stands for: `CARRACK_MUTANT=NUMBER` turns it on in a program of tests below `target`.
fn list(mutants: &[Mutant], file: &Path) -> Result<()> {
    let line = |mutant: &Mutant| {
        format!("{} mover/src/{}:{}: {}\n", mutant.number, mutant.file, mutant.line, mutant.words)
    };
    Ok(fs::write(file, mutants.iter().map(line).collect::<String>())?)
}

/// Changes with the engine, its tests, which of them are run, and what is changed.
fn hash(mutants: &[Mutant], programs: &Programs, limits: (u64, u64)) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    limits.hash(&mut hasher);
    mutants.iter().for_each(|mutant| (&mutant.file, mutant.line, &mutant.words).hash(&mut hasher));
    for path in &programs.paths {
        fs::read(path)?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// What an earlier run that was broken off has found out.
fn known(results: &Path) -> BTreeMap<usize, Fate> {
    let text = fs::read_to_string(results).unwrap_or_default();
    let fate = |word: &str| match word {
        "Noticed" => Some(Fate::Noticed),
        "NoticedOutside" => Some(Fate::NoticedOutside),
        "Survived" => Some(Fate::Survived),
        "Unreached" => Some(Fate::Unreached),
        _ => None,
    };
    text.lines()
        .filter_map(|line| {
            let (number, word) = line.split_once(' ')?;
            Some((number.parse().ok()?, fate(word)?))
        })
        .collect()
}

/// Prints what was not noticed and is not explained, and how many there are of everything; gives the number of the former.
fn report(mutants: &[Mutant], fates: &BTreeMap<usize, Fate>, explained: &Explained<'_>) -> Result<usize> {
    let mut out = std::io::stdout().lock();
    let kinds = ["noticed by unit tests", "noticed by others", "explained", "survived", "reached by no test"];
    let mut counts = BTreeMap::from(kinds.map(|kind| (kind, 0)));
    let explained = explained.among(mutants);
    for mutant in mutants {
        let is_explained = explained.contains(&(mutant.file.as_str(), mutant.words.as_str()));
        let kind = match fates.get(&mutant.number) {
            Some(Fate::Noticed) => "noticed by unit tests",
            Some(Fate::NoticedOutside) => "noticed by others",
            _ if is_explained => "explained",
            Some(Fate::Unreached) => "reached by no test",
            Some(Fate::Survived) | None => "survived",
        };
        *counts.entry(kind).or_default() += 1;
        if matches!(kind, "survived" | "reached by no test") {
            writeln!(out, "mover/src/{}:{}: {} ({kind})", mutant.file, mutant.line, mutant.words)?;
        }
    }
    writeln!(
        out,
        "{} changes: {}",
        mutants.len(),
        counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
    )?;
    Ok(counts["survived"] + counts["reached by no test"])
}
