//! The scenario itself: every step for every tool in turn, so that a drift of the machine meets all alike.

mod aside;
mod bare;
mod contender;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::dataset::{self, Dataset};
use crate::limit::{Cipher, Limit};
use crate::measure::{self, Usage};
use crate::report::{Cell, LIMIT, Outcome, Report, SERVER};
use crate::s3::{Program, Server};
use crate::tools::Name;
use crate::verify::{self, Entry};
use crate::walk;
use aside::Aside;
use bare::Bare;
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

    /// Whether the source is touched before it.
    const fn is_after_change(self) -> bool {
        matches!(self, Self::Changed | Self::Clone)
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

impl Store {
    const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
        }
    }
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

/// Who hears how a run goes.
pub trait Observer {
    /// One line per step.
    fn progress(&mut self, line: &str);
    /// A scenario is complete: what is known so far, to be kept in case the run is broken off.
    fn save(&mut self, report: &Report) -> Result<()>;
}

/// Runs `plan` and adds to `report`; a scenario that is in it already, without a failure, is not run again.
pub fn run(plan: &Plan, report: &mut Report, observer: &mut dyn Observer) -> Result<()> {
    measure::available()?;
    let aside = Aside::new(&plan.cache);
    for &store in &plan.stores {
        for &dataset in &plan.datasets {
            let place = (dataset.name(), store.name());
            if report.is_complete(place.0, place.1) {
                observer.progress(&format!("{} {}: done before", place.0, place.1));
                continue;
            }
            observer.progress(&format!("{}: making the dataset", place.0));
            report.cells.retain(|cell| (cell.dataset.as_str(), cell.store.as_str()) != place);
            scenario(plan, store, dataset, &aside, report, &mut |line| observer.progress(line))?;
            report.judge();
            observer.save(report)?;
        }
    }
    aside.clear()
}

fn scenario(
    plan: &Plan,
    store: Store,
    dataset: Dataset,
    aside: &Aside,
    report: &mut Report,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let source = dataset::prepare(&plan.cache, dataset, plan.scale, plan.seed)?;
    let server = match (store, &plan.server) {
        (Store::Local, _) => None,
        (Store::S3, Some(program)) => Some(Server::start(program, &plan.cache.join("s3"))?),
        (Store::S3, None) => {
            anyhow::bail!("--store s3 needs --s3-server minio=PATH, garage=PATH or versitygw=PATH")
        }
    };
    let mut table = Table { dataset, store, cells: Vec::new() };
    for run in 0..plan.runs {
        one_run(plan, run, &source, server.as_ref(), aside, &mut table, progress)?;
    }
    report.cells.append(&mut table.cells);
    Ok(())
}

/// Memory that is touched before each command, in bytes: what all tools but one take at most.
const TOUCHED_BYTES: usize = 1 << 30;

fn one_run(
    plan: &Plan,
    run: u32,
    source: &Path,
    server: Option<&Server>,
    aside: &Aside,
    table: &mut Table,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let dataset = table.dataset;
    let wanted = if run == 0 { verify::summary(source)? } else { Vec::new() };
    let work = plan.cache.join("work");
    aside.put(&work)?;
    let mut limit = Limit::new(&work.join("limit"), plan.cipher)?;
    let taking_part = plan.tools.iter().filter(|(name, _)| name.takes_part(dataset, server.is_none()));
    let contender = |(name, program): &(Name, Option<PathBuf>)| {
        Contender::new(*name, program.clone(), dataset, &work, server, &plan.carrack_options)
    };
    let mut contenders: Vec<Contender> = taking_part.map(contender).collect();
    let (mut stored, mut bare) = (Stored::default(), None);
    for step in steps(dataset) {
        let changed = prepare_step(plan, step, dataset, source, run)?;
        if step == Step::Unchanged || step.is_after_change() {
            let list = write_list(&work, &changed)?;
            contenders.iter_mut().for_each(|contender| contender.expect_changes(&list));
        }
        progress(&format!("{} {} run {}: {}", dataset.name(), table.store.name(), run + 1, step.name()));
        // The limit knows no network; beside S3 it stands for the work apart from that.
        settle(&[source, &work.join("limit")])?;
        if let Some(usage) = limit_step(&mut limit, step, source, &work, aside)? {
            let sizes = stored.after(LIMIT, step, Some(limit.stored()));
            table.add(step, LIMIT, Outcome::Measured, Some(usage), sizes);
        }
        if let Some(server) = server
            && let Some(usage) = bare_step(&mut bare, server, &work, step)?
        {
            table.add(step, SERVER, Outcome::Measured, Some(usage), (None, None));
        }
        // Each run begins with another tool, so that none is always behind the same neighbour.
        let first = run as usize % contenders.len().max(1);
        contenders.rotate_left(first);
        for contender in &mut contenders {
            let repository = contender.directory();
            settle(&[&[source], repository.as_slice()].concat())?;
            let (outcome, usage) = contender.step(step, source, &wanted, aside);
            let sizes = stored.after(contender.name(), step, contender.stored(server));
            table.add(step, contender.name(), outcome, usage, sizes);
        }
        contenders.rotate_right(first);
    }
    bare.map_or(Ok(()), |bare: Bare<'_>| bare.clear())?;
    for contender in &contenders {
        contender.clear(server)?;
    }
    aside.put(&work)
}

/// What a command begins with: nothing left to write, what it reads in the page cache, whoever wrote it how, and free
/// memory that the host of a virtual machine has backed.
fn settle(read: &[&Path]) -> Result<()> {
    rustix::fs::sync();
    read.iter().filter(|path| path.exists()).try_for_each(|path| walk::warm(path))?;
    measure::touch_memory(TOUCHED_BYTES);
    Ok(())
}

fn steps(dataset: Dataset) -> impl Iterator<Item = Step> {
    Step::value_variants().iter().copied().filter(move |step| *step != Step::Changed || dataset.changes())
}

/// Does to the source what the step is about; the ranges of bytes that it changed.
fn prepare_step(
    plan: &Plan,
    step: Step,
    dataset: Dataset,
    source: &Path,
    run: u32,
) -> Result<Vec<(u64, u64)>> {
    match step {
        Step::Changed => {
            dataset::spoil(&plan.cache, dataset)?;
            return dataset::change(source, dataset, plan.seed, run);
        }
        Step::Clone => dataset::renew(source)?,
        _ => {}
    }
    Ok(Vec::new())
}

/// Writes the list of changed blocks that a storage system would give.
fn write_list(work: &Path, changed: &[(u64, u64)]) -> Result<PathBuf> {
    let path = work.join("changed-blocks");
    let text: String = changed.iter().map(|(offset, length)| format!("{offset} {length}\n")).collect();
    crate::tools::write(&path, &text)?;
    Ok(path)
}

/// Prune has no limit: nothing but deletion is needed at best, and that is nearly free.
fn limit_step(
    limit: &mut Limit,
    step: Step,
    source: &Path,
    work: &Path,
    aside: &Aside,
) -> Result<Option<Usage>> {
    let target = work.join("limit-restore");
    let usage = match step {
        Step::First | Step::Changed | Step::Clone => measure::inline(|| limit.backup(source))?.0,
        Step::Unchanged => measure::inline(|| Limit::unchanged(source))?.0,
        Step::Check => measure::inline(|| limit.check())?.0,
        Step::Restore => {
            std::fs::create_dir_all(&target).with_context(|| format!("create {}", target.display()))?;
            let usage = measure::inline(|| limit.restore(&target))?.0;
            aside.put(&target)?;
            usage
        }
        Step::Prune => return Ok(None),
    };
    Ok(Some(usage))
}

/// The server alone, with what the limit has stored before.
fn bare_step<'s>(
    bare: &mut Option<Bare<'s>>,
    server: &'s Server,
    work: &Path,
    step: Step,
) -> Result<Option<Usage>> {
    if bare.is_none() {
        *bare = Some(Bare::new(server, &work.join("limit"))?);
    }
    rustix::fs::sync();
    bare.as_ref().map_or(Ok(None), |bare| bare.step(step))
}

/// Bytes in each repository after its last step of this run.
#[derive(Debug, Default)]
struct Stored(HashMap<&'static str, u64>);

/// Bytes in a repository, and how many of them the step added.
type Sizes = (Option<u64>, Option<i64>);

impl Stored {
    fn after(&mut self, tool: &'static str, step: Step, now: Option<u64>) -> Sizes {
        let before = if step == Step::First { Some(0) } else { self.0.get(tool).copied() };
        match now {
            Some(now) => self.0.insert(tool, now),
            None => self.0.remove(tool),
        };
        (now, now.zip(before).map(|(now, before)| now as i64 - before as i64))
    }
}

/// The cells of one dataset and store.
struct Table {
    dataset: Dataset,
    store: Store,
    cells: Vec<Cell>,
}

impl Table {
    fn add(
        &mut self,
        step: Step,
        tool: &str,
        outcome: Outcome,
        usage: Option<Usage>,
        (stored_bytes, added_bytes): Sizes,
    ) {
        let known = self.cells.iter_mut().find(|cell| cell.tool == tool && cell.step == step.name());
        if let Some(cell) = known {
            cell.runs.extend(usage);
            (cell.stored_bytes, cell.added_bytes) = (stored_bytes, added_bytes);
            // One failure marks the whole cell: a median of the runs that happened to work would flatter.
            if matches!(cell.outcome, Outcome::Measured) {
                cell.outcome = outcome;
            }
            return;
        }
        self.cells.push(Cell {
            dataset: self.dataset.name().into(),
            store: self.store.name().into(),
            step: step.name().into(),
            tool: tool.into(),
            outcome,
            runs: usage.into_iter().collect(),
            stored_bytes,
            added_bytes,
        });
    }
}
