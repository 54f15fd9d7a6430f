//! The scenario itself: every step for every tool in turn, so that a drift of the machine meets all alike.

mod contender;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::dataset::{self, Dataset};
use crate::limit::{Cipher, Limit};
use crate::measure::{self, Usage};
use crate::report::{Cell, LIMIT, Outcome, Report};
use crate::s3::{Program, Server};
use crate::tools::Name;
use crate::verify::{self, Entry};
use contender::Contender;

/// What a tool is asked for, in the order of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Backup into an empty repository.
    First,
    /// Restore of that backup into an empty directory.
    Restore,
    /// Reading and checking all data of that backup.
    Check,
    /// Backup of the same tree.
    Unchanged,
    /// Backup after 2 % changed.
    Changed,
    /// Backup of the same contents with new ctimes.
    Clone,
    /// Forgetting all but the newest snapshot, and freeing the space.
    Prune,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Restore => "restore",
            Self::Check => "check",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Clone => "clone",
            Self::Prune => "prune",
        }
    }
}

/// Where repositories are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// A directory.
    Local,
    /// The S3 server.
    S3,
}

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// Datasets, one after the other.
    pub datasets: Vec<Dataset>,
    /// Tools with their programs; none for one that is missing.
    pub tools: Vec<(Name, Option<PathBuf>)>,
    /// Stores.
    pub stores: Vec<Store>,
    /// Size of the datasets.
    pub scale: f64,
    /// Seed of the datasets.
    pub seed: u64,
    /// How often all steps are done.
    pub runs: u32,
    /// All files of the run are below it.
    pub cache: PathBuf,
    /// The S3 server, for [`Store::S3`].
    pub server: Option<Program>,
    /// Cipher of the limit.
    pub cipher: Cipher,
    /// Options added to every command of Carrack.
    pub carrack_options: Vec<String>,
}

/// Runs `plan`; `progress` is told one line per step.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    measure::available()?;
    let mut report = Report::default();
    for &store in &plan.stores {
        for &dataset in &plan.datasets {
            progress(&format!("{}: making the dataset", dataset.name()));
            scenario(plan, store, dataset, &mut report, progress)?;
        }
    }
    Ok(report)
}

fn scenario(
    plan: &Plan,
    store: Store,
    dataset: Dataset,
    report: &mut Report,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let source = dataset::prepare(&plan.cache, dataset, plan.scale, plan.seed)?;
    let server = match (store, &plan.server) {
        (Store::Local, _) => None,
        (Store::S3, Some(program)) => Some(Server::start(program, &plan.cache.join("s3"))?),
        (Store::S3, None) => anyhow::bail!("--store s3 needs --s3-server minio=PATH or garage=PATH"),
    };
    let mut table = Table { dataset, store, cells: Vec::new() };
    for run in 0..plan.runs {
        let wanted = if run == 0 { verify::summary(&source)? } else { Vec::new() };
        let work = plan.cache.join("work");
        dataset::remove(&work)?;
        let mut limit = Limit::new(&work.join("limit"), plan.cipher)?;
        let mut contenders: Vec<Contender> = plan
            .tools
            .iter()
            .map(|(name, program)| {
                Contender::new(*name, program.clone(), &work, server.as_ref(), &plan.carrack_options)
            })
            .collect();
        for step in steps(dataset) {
            prepare_step(plan, step, dataset, &source, run)?;
            progress(&format!("{} {store:?} run {}: {}", dataset.name(), run + 1, step.name()));
            // The limit knows no network; beside S3 it stands for the work apart from that.
            rustix::fs::sync();
            if let Some(usage) = limit_step(&mut limit, step, &source, &work)? {
                table.add(step, LIMIT, Outcome::Measured, Some(usage), Some(limit.stored()));
            }
            // Each run begins with another tool, so that none is always behind the same neighbour.
            let first = run as usize % contenders.len().max(1);
            contenders.rotate_left(first);
            for contender in &mut contenders {
                rustix::fs::sync();
                let (outcome, usage) = contender.step(step, &source, &wanted);
                table.add(step, contender.name(), outcome, usage, contender.stored(server.as_ref()));
            }
            contenders.rotate_right(first);
        }
        limit.remove()?;
        for contender in &contenders {
            contender.clear(server.as_ref())?;
        }
        dataset::remove(&work)?;
    }
    report.cells.append(&mut table.cells);
    Ok(())
}

fn steps(dataset: Dataset) -> impl Iterator<Item = Step> {
    Step::value_variants().iter().copied().filter(move |step| *step != Step::Changed || dataset.changes())
}

fn prepare_step(plan: &Plan, step: Step, dataset: Dataset, source: &Path, run: u32) -> Result<()> {
    match step {
        Step::Changed => {
            dataset::spoil(&plan.cache, dataset)?;
            dataset::change(source, dataset, plan.seed, run)?;
        }
        Step::Clone => dataset::renew(source)?,
        _ => {}
    }
    Ok(())
}

/// Prune has no limit: nothing but deletion is needed at best, and that is nearly free.
fn limit_step(limit: &mut Limit, step: Step, source: &Path, work: &Path) -> Result<Option<Usage>> {
    let target = work.join("limit-restore");
    let usage = match step {
        Step::First | Step::Changed | Step::Clone => measure::inline(|| limit.backup(source))?.0,
        Step::Unchanged => measure::inline(|| Limit::unchanged(source))?.0,
        Step::Check => measure::inline(|| limit.check())?.0,
        Step::Restore => {
            std::fs::create_dir_all(&target).with_context(|| format!("create {}", target.display()))?;
            let usage = measure::inline(|| limit.restore(&target))?.0;
            dataset::remove(&target)?;
            usage
        }
        Step::Prune => return Ok(None),
    };
    Ok(Some(usage))
}

/// The cells of one dataset and store.
struct Table {
    dataset: Dataset,
    store: Store,
    cells: Vec<Cell>,
}

impl Table {
    fn add(&mut self, step: Step, tool: &str, outcome: Outcome, usage: Option<Usage>, stored: Option<u64>) {
        let before = self.cells.iter().rev().find(|cell| cell.tool == tool && cell.step != step.name());
        let before = before.and_then(|cell| cell.stored_bytes);
        let added = match step {
            Step::First => stored.map(|bytes| bytes as i64),
            _ => stored.zip(before).map(|(now, before)| now as i64 - before as i64),
        };
        let known = self.cells.iter_mut().find(|cell| cell.tool == tool && cell.step == step.name());
        if let Some(cell) = known {
            cell.runs.extend(usage);
            // One failure marks the whole cell: a median of the runs that happened to work would flatter.
            if matches!(cell.outcome, Outcome::Measured) {
                cell.outcome = outcome;
            }
            return;
        }
        self.cells.push(Cell {
            dataset: self.dataset.name().into(),
            store: format!("{:?}", self.store).to_lowercase(),
            step: step.name().into(),
            tool: tool.into(),
            outcome,
            runs: usage.into_iter().collect(),
            stored_bytes: stored,
            added_bytes: added,
        });
    }
}
