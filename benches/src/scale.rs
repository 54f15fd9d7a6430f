//! What only size shows: memory that keeps its cap, and time that grows with what there is to do and not faster.
//!
//! Each subject is measured at a quarter, a half and all of the size that was asked for. Time for a unit should stay
//! the same from point to point, and peak memory should stay below the cap at every one.
//!
//! A run takes hours, so each point is shown and kept as soon as it is measured.

mod device;
mod files;
mod index;
mod stream;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::measure::{self, Usage};
use crate::tools::{self, Location, Name, Place, Tool};

pub use device::{Device, device};
pub use files::{Files, files};
pub use index::{Index, index};
pub use stream::{Stream, engine, generate, stream};

/// Time for a unit may grow by this factor between the first point and the last and still counts as linear: caches
/// grow cold, and a walk of more files finds fewer of them in memory.
const LINEAR: f64 = 1.25;

/// What every subject needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program.
    pub carrack: PathBuf,
    /// Directory for everything that is made.
    pub dir: PathBuf,
    /// The memory cap in MiB.
    pub memory_mib: u64,
    /// Leave what was made.
    pub keep: bool,
    /// The figures are kept in this file as JSON, too.
    pub json: Option<PathBuf>,
}

/// One command at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Which command.
    pub step: String,
    /// How much of `unit` there was.
    pub size: f64,
    /// What is counted.
    pub unit: &'static str,
    /// What it took.
    pub usage: Usage,
}

/// What a subject found out.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The subject.
    pub subject: &'static str,
    /// The memory cap in MiB.
    pub memory_mib: u64,
    /// All points.
    pub points: Vec<Point>,
}

/// The sizes at which a subject of size `whole` is measured; the same size once only.
fn sizes(whole: u64) -> Vec<u64> {
    let mut sizes = vec![whole.div_ceil(4), whole.div_ceil(2), whole];
    sizes.dedup();
    sizes
}

/// One repository, and the commands on it.
#[derive(Debug)]
struct Subject<'a> {
    setup: &'a Setup,
    outcome: Outcome,
    place: Place,
    unit: &'static str,
}

impl<'a> Subject<'a> {
    fn new(setup: &'a Setup, subject: &'static str, unit: &'static str) -> Result<Self> {
        measure::available()?;
        let home = setup.dir.join(subject);
        crate::dataset::remove(&home)?;
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let place = Place {
            program: setup.carrack.clone(),
            location: Location::Local(home.join("repository")),
            home,
            device: None,
            changed: None,
        };
        let outcome = Outcome { subject, memory_mib: setup.memory_mib, points: Vec::new() };
        show(&outcome.head())?;
        // A file that cannot be written is found out now, and not after the first hour.
        setup.json.as_deref().map_or(Ok(()), |path| outcome.save(path))?;
        Ok(Self { outcome, setup, place, unit })
    }

    fn tool(&self, name: Name) -> Box<dyn Tool> {
        tools::adapter(name, &[format!("--memory={}MiB", self.setup.memory_mib)])
    }

    fn repository(&self) -> PathBuf {
        self.place.home.join("repository")
    }

    /// Makes an empty repository in place of the one that is there.
    fn init(&self) -> Result<()> {
        crate::dataset::remove(&self.repository())?;
        for command in self.tool(Name::Carrack).init(&self.place)? {
            measure::run(&command, &self.place.home.join("init.log"))?;
        }
        Ok(())
    }

    /// Measures `command`; shows and keeps the figures.
    fn run(&mut self, step: &str, size: f64, command: &std::process::Command) -> Result<()> {
        rustix::fs::sync();
        let usage = measure::run(command, &self.place.home.join("command.log"))?;
        let point = Point { step: step.into(), size, unit: self.unit, usage };
        self.outcome.points.push(point.clone());
        show(&self.outcome.row(&point))?;
        self.setup.json.as_deref().map_or(Ok(()), |path| self.outcome.save(path))
    }

    /// Measures a backup of `source` as `name` makes it.
    fn backup(&mut self, step: &str, size: f64, name: Name, source: &Path) -> Result<()> {
        let command = self.tool(name).backup(&self.place, source);
        self.run(step, size, &command)
    }

    fn finish(self) -> Result<()> {
        if !self.setup.keep {
            crate::dataset::remove(&self.place.home)?;
        }
        Ok(())
    }
}

fn show(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write the table")
}

impl Outcome {
    /// The head of a table of all points.
    pub fn head(&self) -> String {
        let mut text = format!("\n## {}, memory cap {} MiB\n\n", self.subject, self.memory_mib);
        text.push_str("| step | size | seconds | seconds for one | processor | peak MiB | |\n");
        text.push_str("|---|---:|---:|---:|---:|---:|---|\n");
        text
    }

    /// The row of one point, with whether time is linear up to it and memory below the cap.
    pub fn row(&self, point: &Point) -> String {
        let Usage { seconds, cpu_seconds, peak_mib } = point.usage;
        let each = seconds / point.size;
        format!(
            "| {} | {:.3} {} | {seconds:.2} | {each:.3} | {cpu_seconds:.2} | {peak_mib:.0} | {} |\n",
            point.step,
            point.size,
            point.unit,
            self.verdict(point)
        )
    }

    /// Writes all points as JSON. What `path` held before stays until the new text is complete.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        let new = path.with_added_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
    }

    /// Whether memory kept its cap, and time grew no faster than the size since the smallest point of this step.
    fn verdict(&self, point: &Point) -> String {
        let memory = if point.usage.peak_mib <= self.memory_mib as f64 { "" } else { "**above the cap**" };
        let first = self.points.iter().find(|other| other.step == point.step);
        let growth = first
            .filter(|first| first.size < point.size)
            .map(|first| (point.usage.seconds / point.size) / (first.usage.seconds / first.size));
        let time = match growth {
            None => String::new(),
            Some(growth) if growth <= LINEAR => format!("× {growth:.2} for one: linear"),
            Some(growth) => format!("× {growth:.2} for one: **more than linear**"),
        };
        [memory, &time].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("; ")
    }
}
