//! One tool in one run: its repository, what it was asked, and whether it can still be trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::aside::Aside;
use super::{Entry, Step};
use crate::dataset::Dataset;
use crate::measure::{self, Usage};
use crate::report::Outcome;
use crate::s3::Server;
use crate::tools::{self, Location, Name, Place, Tool};
use crate::verify;

#[derive(Debug)]
pub(super) struct Contender {
    name: Name,
    tool: Box<dyn Tool>,
    place: Place,
    /// Why later steps are not tried.
    out: Option<Outcome>,
    target: PathBuf,
    prefix: String,
}

impl Contender {
    pub(super) fn new(
        name: Name,
        program: Option<PathBuf>,
        dataset: Dataset,
        work: &Path,
        server: Option<&Server>,
        options: &[String],
    ) -> Self {
        let home = work.join(name.label());
        // Lower case, as bucket paths of some tools are.
        let prefix = name.label().to_lowercase();
        let location = match server {
            Some(server) => Location::S3(server.location(&prefix)),
            None => Location::Local(home.join("repository")),
        };
        let tool = tools::adapter(name, options);
        let mut out = tool.unsupported(&location).map(|why| Outcome::Unsupported(why.into()));
        if program.is_none() {
            out = Some(Outcome::Missing);
        }
        let place = Place {
            program: program.unwrap_or_default(),
            location,
            home: home.clone(),
            device: dataset.device(),
            changed: None,
        };
        Self { name, tool, place, out, target: home.join("restore"), prefix }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name.label()
    }

    /// Does `step`. After a failure no later step is tried, as it would measure something else.
    pub(super) fn step(
        &mut self,
        step: Step,
        source: &Path,
        wanted: &[Entry],
        aside: &Aside,
    ) -> (Outcome, Option<Usage>) {
        if let Some(out) = &self.out {
            return (out.clone(), None);
        }
        match self.attempt(step, source, wanted, aside) {
            Ok(usage) => (Outcome::Measured, Some(usage)),
            Err(error) => {
                let outcome = Outcome::Failed(format!("{error:#}"));
                self.out = Some(outcome.clone());
                (outcome, None)
            }
        }
    }

    /// Takes the list of what the next backup will find changed.
    pub(super) fn expect_changes(&mut self, list: &Path) {
        self.place.changed = Some(list.to_path_buf());
    }

    fn attempt(&self, step: Step, source: &Path, wanted: &[Entry], aside: &Aside) -> Result<Usage> {
        match step {
            Step::First => {
                fs::create_dir_all(&self.place.home)
                    .with_context(|| format!("create {}", self.place.home.display()))?;
                if let Location::Local(dir) = &self.place.location {
                    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
                }
                self.run("init", &self.tool.init(&self.place)?)?;
                self.run("first", &[self.tool.backup(&self.place, source)])
            }
            Step::Unchanged | Step::Changed | Step::Clone => {
                self.run("backup", &[self.tool.backup(&self.place, source)])
            }
            Step::Check => self.run("check", &[self.tool.check_all(&self.place)]),
            Step::Prune => self.run("prune", &self.tool.forget_prune(&self.place, source)),
            Step::Restore => {
                aside.put(&self.target)?;
                fs::create_dir_all(&self.target)
                    .with_context(|| format!("create {}", self.target.display()))?;
                let usage = self.run("restore", &[self.tool.restore(&self.place, source, &self.target)])?;
                // Only the first run has the summary; proving each one would double the time of a run.
                if !wanted.is_empty() {
                    verify::compare(wanted, source, &self.target)?;
                }
                aside.put(&self.target)?;
                Ok(usage)
            }
        }
    }

    fn run(&self, what: &str, commands: &[Command]) -> Result<Usage> {
        let mut total = Usage::default();
        for (number, command) in commands.iter().enumerate() {
            let usage = measure::run(command, &self.place.home.join(format!("{what}-{number}.log")))?;
            total.seconds += usage.seconds;
            total.cpu_seconds += usage.cpu_seconds;
            total.peak_mib = total.peak_mib.max(usage.peak_mib);
        }
        Ok(total)
    }

    /// Where its repository is, if that is a directory.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.place.location {
            Location::Local(dir) => Some(dir),
            Location::S3(_) => None,
        }
    }

    /// Bytes in the repository; none when there is none, or when the server cannot tell.
    pub(super) fn stored(&self, server: Option<&Server>) -> Option<u64> {
        if self.out.is_some() {
            return None;
        }
        match (&self.place.location, server) {
            (Location::Local(dir), _) => crate::walk::stored(dir).ok(),
            (Location::S3(_), Some(server)) => server.stored(&self.prefix),
            (Location::S3(_), None) => None,
        }
    }

    /// Removes what the repository takes.
    pub(super) fn clear(&self, server: Option<&Server>) -> Result<()> {
        server.map_or(Ok(()), |server| server.clear(&self.prefix))
    }
}
