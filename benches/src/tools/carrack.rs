//! Carrack itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Location, PASSWORD, Place, Tool};

#[derive(Debug)]
pub(super) struct Carrack {
    /// Options of every command: those given by `--carrack-option`, and the variant's own.
    extra: Vec<String>,
    mode: Mode,
}

/// What the source is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Files,
    Device,
    /// A device whose changes are known beforehand.
    ChangedList,
}

impl Carrack {
    pub(super) fn boxed(extra: &[String], own: Option<&str>, mode: Mode) -> Box<dyn Tool> {
        let extra = extra.iter().cloned().chain(own.map(str::to_owned)).collect();
        Box::new(Self { extra, mode })
    }

    /// The device of a dataset or of a restored tree; none in the mode for files.
    fn device(&self, place: &Place, dir: &Path) -> Option<PathBuf> {
        place.device.filter(|_| self.mode != Mode::Files).map(|name| dir.join(name))
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = place.command();
        command.env("CARRACK_PASSWORD", PASSWORD);
        match &place.location {
            Location::Local(dir) => {
                command.arg("-r").arg(dir);
            }
            Location::S3(s3) => {
                command.args(["-r", &format!("s3://{}/{}", s3.bucket, s3.prefix)]);
                command.args(["--endpoint", &format!("http://{}", s3.address)]);
            }
        }
        command.args(&self.extra);
        command
    }
}

impl Tool for Carrack {
    fn unsupported(&self, location: &Location) -> Option<&'static str> {
        match location {
            Location::S3(s3) if !s3.creates_if_absent => Some("the server ignores conditions on puts"),
            _ => None,
        }
    }

    fn init(&self, place: &Place) -> Result<Vec<Command>> {
        let mut command = self.command(place);
        command.arg("init");
        Ok(vec![command])
    }

    fn backup(&self, place: &Place, source: &Path) -> Command {
        let mut command = self.command(place);
        command.arg("backup");
        match self.device(place, source) {
            None => command.arg(source),
            Some(device) => command.arg("--device").arg(device),
        };
        if let (Mode::ChangedList, Some(list)) = (self.mode, &place.changed) {
            command.arg("--changed-blocks").arg(list);
        }
        command
    }

    fn restore(&self, place: &Place, _source: &Path, target: &Path) -> Command {
        let mut command = self.command(place);
        command.args(["restore", "latest", "--target"]);
        command.arg(self.device(place, target).unwrap_or_else(|| target.to_path_buf()));
        command
    }

    fn check_all(&self, place: &Place) -> Command {
        let mut command = self.command(place);
        command.args(["check", "--read-data"]);
        command
    }

    fn forget_prune(&self, place: &Place, _source: &Path) -> Vec<Command> {
        let mut command = self.command(place);
        command.args(["forget", "--keep-last", "1", "--prune"]);
        vec![command]
    }
}
