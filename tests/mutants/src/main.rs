//! Changes the engine in thousands of ways, each of which must fail a test: are the tests awake?
//!
//! All changes are compiled into one program, and a variable of the environment says which one is on. So the engine is
//! compiled once, and not once for each change. Each test is run once to see which changes it comes to; a change is
//! then tried by those tests only, the quickest first.

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
};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    judge::{Fate, Judge},
    tree::{Mutant, Tree},
};

/// Changes the engine in thousands of ways, each of which must fail a test
#[derive(Debug, Parser)]
struct Arguments {
    /// Files to change: those whose paths below mover/src begin with one of these, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "format/,pipeline/,reader/,repack/,repo/,restore/")]
    parts: Vec<String>,
    /// Where the changed engine is built, and what is known so far is kept
    #[arg(long, default_value = "target/mutants")]
    work: PathBuf,
    /// Survivors that are explained: a file, what is changed and why it need not be noticed, separated by bars, in each line
    #[arg(long, default_value = "tests/mutants/explained.txt")]
    explained: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    fs::create_dir_all(&arguments.work)?;
    let work = arguments.work.canonicalize()?;
    let explained = fs::read_to_string(&arguments.explained)
        .with_context(|| format!("what is explained: {}", arguments.explained.display()))?;
    let mut tree = Tree::of(&repository, &work, &arguments.parts)?;
    let (program, mutants) = tree.build()?;
    writeln!(std::io::stderr(), "{} changes; each test is run once without any", mutants.len())?;
    let judge = Judge::of(&program, &work.join("tree/mover"), &work)?;
    let results = work.join(format!("results-{:016x}", hash(&mutants, &program)?));
    let mut fates = known(&results);
    judge.try_all(&mutants, &mut fates, &results)?;
    let open = report(&mutants, &fates, &explained)?;
    Ok(if open == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Changes with the engine, its tests and what is changed.
fn hash(mutants: &[Mutant], program: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    mutants.iter().for_each(|mutant| (&mutant.file, mutant.line, &mutant.words).hash(&mut hasher));
    fs::read(program)?.hash(&mut hasher);
    Ok(hasher.finish())
}

/// What an earlier run that was broken off has found out.
fn known(results: &Path) -> BTreeMap<usize, Fate> {
    let text = fs::read_to_string(results).unwrap_or_default();
    let fate = |word: &str| match word {
        "Noticed" => Some(Fate::Noticed),
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
fn report(mutants: &[Mutant], fates: &BTreeMap<usize, Fate>, explained: &str) -> Result<usize> {
    let mut out = std::io::stdout().lock();
    let mut counts =
        BTreeMap::from([("noticed", 0), ("explained", 0), ("survived", 0), ("reached by no test", 0)]);
    for mutant in mutants {
        let is_explained = explained.lines().any(|line| {
            let mut fields = line.split('|').map(str::trim);
            fields.next() == Some(&mutant.file) && fields.next() == Some(&mutant.words)
        });
        let kind = match fates.get(&mutant.number) {
            Some(Fate::Noticed) => "noticed",
            _ if is_explained => "explained",
            Some(Fate::Unreached) => "reached by no test",
            Some(Fate::Survived) | None => "survived",
        };
        *counts.entry(kind).or_default() += 1;
        if !matches!(kind, "noticed" | "explained") {
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
