//! The tools under comparison: one adapter per tool, each run as its documentation tells a new user to.
//!
//! All tools get their default settings; an adapter adds only what the tool cannot do without (where the
//! repository is, its password, no questions asked) and keeps its cache in the runner's directory, so that
//! runs do not see each other or the user's own caches.

mod borg;
mod carrack;
mod kopia;
mod restic;
mod rustic;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use carrack::Mode;

use crate::dataset::Dataset;

/// Password of every repository here; the data is made up.
pub(crate) const PASSWORD: &str = "bench";

/// A tool's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// This project.
    Carrack,
    /// The same, told to keep to 96 MiB of memory.
    #[value(name = "carrack-96MiB")]
    CarrackSmall,
    /// The same, backing a dataset of one file up as a device.
    CarrackDevice,
    /// The same with a list of the changed blocks, as a storage system gives it.
    CarrackList,
    /// An earlier build of it, beside which no step may have become slower.
    CarrackBefore,
    /// restic.
    Restic,
    /// rustic.
    Rustic,
    /// BorgBackup.
    Borg,
    /// Kopia.
    Kopia,
}

impl Name {
    /// The name in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Carrack => "carrack",
            Self::CarrackSmall => "carrack-96MiB",
            Self::CarrackDevice => "carrack-device",
            Self::CarrackList => "carrack-list",
            Self::CarrackBefore => "carrack-before",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
            Self::Kopia => "kopia",
        }
    }

    /// The program's name on `PATH`.
    pub const fn program(self) -> &'static str {
        match self {
            Self::CarrackSmall | Self::CarrackDevice | Self::CarrackList => "carrack",
            other => other.label(),
        }
    }

    /// Whether it has a part in the scenario of `dataset`: Carrack's variants are compared with Carrack in a local
    /// directory, and a device is one file.
    pub const fn takes_part(self, dataset: Dataset, local: bool) -> bool {
        match self {
            Self::CarrackSmall => local,
            Self::CarrackDevice | Self::CarrackList => local && dataset.device().is_some(),
            _ => true,
        }
    }
}

/// An S3 endpoint that tools may use.
#[derive(Clone, Debug)]
pub struct S3 {
    /// `host:port`, plain HTTP.
    pub address: String,
    /// The bucket, which exists.
    pub bucket: String,
    /// Key prefix of this repository.
    pub prefix: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Region the server answers for.
    pub region: String,
    /// Whether a put with `If-None-Match: *` leaves an object that is there as it is.
    pub creates_if_absent: bool,
}

/// Where a tool keeps its repository.
#[derive(Clone, Debug)]
pub enum Location {
    /// A directory.
    Local(PathBuf),
    /// A bucket.
    S3(S3),
}

/// Everything one tool needs for one repository.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program.
    pub program: PathBuf,
    /// The repository.
    pub location: Location,
    /// The tool's own home, cache and configuration.
    pub home: PathBuf,
    /// Name of the one file of the dataset that can be taken for a device.
    pub device: Option<&'static str>,
    /// What changed since the last backup, as a list for tools that take one; none at the first.
    pub changed: Option<PathBuf>,
}

impl Place {
    /// The program with an environment of its own: nothing of the user's settings, the S3 keys if needed.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home).env("XDG_CACHE_HOME", self.home.join("cache"));
        command.env("XDG_CONFIG_HOME", self.home.join("config")).env("LC_ALL", "C.UTF-8");
        if let Location::S3(s3) = &self.location {
            command.env("AWS_ACCESS_KEY_ID", &s3.access_key).env("AWS_SECRET_ACCESS_KEY", &s3.secret_key);
            command.env("AWS_REGION", &s3.region).env("AWS_DEFAULT_REGION", &s3.region);
        }
        command
    }
}

/// How one tool is asked for each step. Each method returns the command; the runner measures it.
pub trait Tool: fmt::Debug {
    /// Says why the tool cannot use `location`; none when it can.
    fn unsupported(&self, _location: &Location) -> Option<&'static str> {
        None
    }

    /// Makes the repository. Not measured, but some tools need more than one command for it.
    fn init(&self, place: &Place) -> Result<Vec<Command>>;

    /// Backs up `source`.
    fn backup(&self, place: &Place, source: &Path) -> Command;

    /// Restores the newest snapshot into the empty directory `target`.
    fn restore(&self, place: &Place, source: &Path, target: &Path) -> Command;

    /// Checks the repository and reads all data.
    fn check_all(&self, place: &Place) -> Command;

    /// Forgets all but the newest snapshot, and frees what only those held. Tools that need several commands
    /// return several; their times add up.
    fn forget_prune(&self, place: &Place, source: &Path) -> Vec<Command>;
}

/// The adapter of `name`; `extra` are options of the user for Carrack's commands.
pub fn adapter(name: Name, extra: &[String]) -> Box<dyn Tool> {
    match name {
        Name::Carrack | Name::CarrackBefore => carrack::Carrack::boxed(extra, None, Mode::Files),
        Name::CarrackSmall => carrack::Carrack::boxed(extra, Some("--memory=96MiB"), Mode::Files),
        Name::CarrackDevice => carrack::Carrack::boxed(extra, None, Mode::Device),
        Name::CarrackList => carrack::Carrack::boxed(extra, None, Mode::ChangedList),
        Name::Restic => Box::new(restic::Restic),
        Name::Rustic => Box::new(rustic::Rustic),
        Name::Borg => Box::new(borg::Borg),
        Name::Kopia => Box::new(kopia::Kopia),
    }
}

/// Finds `program` on `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// First line of what the program says about its version, and the beginning of the program's own hash: builds of one
/// version are not one program.
pub fn version(name: Name, program: &Path) -> String {
    let word = if name == Name::Restic { "version" } else { "--version" };
    let output = Command::new(program).arg(word).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let version = text.lines().next().unwrap_or("version unknown");
    let hash =
        fs::read(program).map(|bytes| blake3::hash(&bytes).to_hex()[..12].to_owned()).unwrap_or_default();
    format!("{version} ({hash})")
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
