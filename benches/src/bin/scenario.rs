//! Runs whole-program scenarios: `cargo run --release -p carrack-benches --bin scenario -- --help`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use carrack_benches::dataset::Dataset;
use carrack_benches::limit::Cipher;
use carrack_benches::report::{Outcome, Report};
use carrack_benches::runner::{self, Observer, Plan, Store};
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
    #[arg(long, value_enum, value_delimiter = ',', default_value = TOOLS)]
    tools: Vec<Name>,
    /// A tool's program where it is not on PATH, as NAME=PATH; may be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    tool_path: Vec<String>,
    /// Where the repositories are kept.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "local")]
    store: Vec<Store>,
    /// The S3 server to start for `--store s3`: minio=PATH, garage=PATH or versitygw=PATH.
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
    /// Also write the figures as JSON into this file, after each scenario.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the tables into this file instead of standard output, after each scenario.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Go on where a run with the same options and `--json` file was broken off.
    #[arg(long, requires = "json")]
    resume: bool,
}

/// All of them; what is missing stands in the tables as such.
const TOOLS: &str = "carrack,carrack-96MiB,carrack-device,carrack-list,restic,rustic,borg,kopia";

/// Writes what is known after each scenario.
struct Files<'a> {
    json: Option<&'a Path>,
    markdown: Option<&'a Path>,
}

impl Observer for Files<'_> {
    fn progress(&mut self, line: &str) {
        // Progress is a courtesy; a closed terminal must not end the run.
        drop(writeln!(std::io::stderr(), "{line}"));
    }

    fn save(&mut self, report: &Report) -> Result<()> {
        if let Some(path) = self.json {
            write(path, &serde_json::to_string_pretty(report)?)?;
        }
        self.markdown.map_or(Ok(()), |path| write(path, &report.markdown()))
    }
}

/// Replaces a file at once, so that a run broken off at this moment leaves the older one.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
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
    let mut report = match &options.json {
        Some(path) if options.resume => earlier(path, facts(&plan))?,
        _ => Report { facts: facts(&plan), ..Report::default() },
    };
    let mut files = Files { json: options.json.as_deref(), markdown: options.markdown.as_deref() };
    runner::run(&plan, &mut report, &mut files)?;
    // Once more for a run that had nothing left to do.
    report.judge();
    files.save(&report)?;
    if options.markdown.is_none() {
        std::io::stdout().write_all(report.markdown().as_bytes())?;
    }
    let failed = report.cells.iter().any(|cell| matches!(cell.outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a run that was broken off has measured; it must have been the same run.
fn earlier(path: &Path, facts: Vec<(String, String)>) -> Result<Report> {
    if !path.exists() {
        return Ok(Report { facts, ..Report::default() });
    }
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let report: Report = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    if let Some((old, new)) = report.facts.iter().zip(&facts).find(|(old, new)| old != new) {
        anyhow::bail!(
            "{} is of another run ({} was {}, and is {}): move it away, or leave --resume out",
            path.display(),
            old.0,
            old.1,
            new.1
        );
    }
    Ok(report)
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
        if name.label() == name.program() {
            let version =
                program.as_ref().map_or_else(|| "missing".into(), |program| tools::version(*name, program));
            facts.push((name.label().into(), version));
        }
    }
    facts
}
