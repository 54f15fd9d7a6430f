//! Runs whole-program scenarios: `cargo run --release -p carrack-benches --bin scenario -- --help`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use carrack_benches::dataset::Dataset;
use carrack_benches::limit::Cipher;
use carrack_benches::report::Outcome;
use carrack_benches::runner::{self, Plan, Store};
use carrack_benches::s3::Program;
use carrack_benches::tools::{self, Name};
use clap::Parser;

/// Compares backup tools with each other and with what the machine can do at best.
#[derive(Debug, Parser)]
struct Options {
    /// Datasets to run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "random,vm,tree,small,db")]
    datasets: Vec<Dataset>,
    /// Tools to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "carrack,restic,rustic,borg,kopia")]
    tools: Vec<Name>,
    /// A tool's program where it is not on PATH, as NAME=PATH; may be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    tool_path: Vec<String>,
    /// Where the repositories are kept.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "local")]
    store: Vec<Store>,
    /// The S3 server to start for `--store s3`: minio=PATH or garage=PATH.
    #[arg(long)]
    s3_server: Option<Program>,
    /// Size of the datasets; 0.05 is a smoke run.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Seed of the datasets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often everything is measured; the tables show medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Cipher of the limit; should be the one that `carrack` takes on this machine.
    #[arg(long, value_enum, default_value = "aes256-gcm")]
    limit_cipher: Cipher,
    /// An option added to every command of Carrack, such as --memory=96MiB; may be repeated.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    carrack_option: Vec<String>,
    /// Directory of datasets, repositories and restored trees.
    #[arg(long, default_value = ".cache/bench")]
    cache: PathBuf,
    /// Also write the figures as JSON into this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let cache = &options.cache;
    std::fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let plan = Plan {
        tools: programs(&options)?,
        datasets: options.datasets,
        stores: options.store,
        scale: options.scale,
        seed: options.seed,
        runs: options.runs,
        cache: cache.canonicalize()?,
        server: options.s3_server,
        cipher: options.limit_cipher,
        carrack_options: options.carrack_option,
    };
    let mut report = runner::run(&plan, &mut |line| {
        // Progress is a courtesy; a closed terminal must not end the run.
        drop(writeln!(std::io::stderr(), "{line}"));
    })?;
    report.facts = facts(&plan);
    std::io::stdout().write_all(report.markdown().as_bytes())?;
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    let failed = report.cells.iter().any(|cell| matches!(cell.outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn programs(options: &Options) -> Result<Vec<(Name, Option<PathBuf>)>> {
    let mut given = Vec::new();
    for pair in &options.tool_path {
        let (name, path) =
            pair.split_once('=').with_context(|| format!("--tool-path {pair}: expected NAME=PATH"))?;
        let path = PathBuf::from(path);
        given.push((name, path.canonicalize().with_context(|| format!("--tool-path {pair}"))?));
    }
    if let Some((name, _)) =
        given.iter().find(|(name, _)| !options.tools.iter().any(|tool| tool.program() == *name))
    {
        anyhow::bail!("--tool-path {name}: not among --tools");
    }
    Ok(options
        .tools
        .iter()
        .map(|&tool| {
            let named = given.iter().find(|(name, _)| *name == tool.program()).map(|(_, path)| path.clone());
            (tool, named.or_else(|| tools::find(tool.program())))
        })
        .collect())
}

fn facts(plan: &Plan) -> Vec<(String, String)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut facts = vec![
        ("machine".into(), format!("{}, {cores} cores", model.trim_start_matches(['\t', ' ', ':']))),
        ("scale, seed, runs".into(), format!("{}, {}, {}", plan.scale, plan.seed, plan.runs)),
        ("limit".into(), format!("zstd 3, {:?}, Gear 16/64/256 KiB, keyed BLAKE3", plan.cipher)),
    ];
    if !plan.carrack_options.is_empty() {
        facts.push(("options of carrack".into(), plan.carrack_options.join(" ")));
    }
    for (name, program) in &plan.tools {
        let version =
            program.as_ref().map_or_else(|| "missing".into(), |program| tools::version(*name, program));
        facts.push((name.program().into(), version));
    }
    facts
}
