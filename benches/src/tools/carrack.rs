//! Carrack itself.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Location, PASSWORD, Place, Tool};

#[derive(Debug)]
pub(super) struct Carrack {
    /// Options given by `--carrack-option`, such as `--memory=96MiB`, for budgets that name one.
    pub(super) extra: Vec<String>,
}

impl Carrack {
    fn command(&self, place: &Place) -> Command {
        let mut command = place.command();
        command.env("CARRACK_PASSWORD", PASSWORD);
        match &place.location {
            Location::Local(dir) => {
                command.arg("-r").arg(dir);
            }
            Location::S3(s3) => {
                command.args(["-r", &format!("s3://{}/{}", s3.bucket, s3.prefix)]);
                command.args(["--endpoint", &format!("http://{}", s3.address), "--s3-path-style"]);
            }
        }
        command.args(&self.extra);
        command
    }
}

impl Tool for Carrack {
    fn init(&self, place: &Place) -> Result<Vec<Command>> {
        let mut command = self.command(place);
        command.arg("init");
        Ok(vec![command])
    }

    fn backup(&self, place: &Place, source: &Path) -> Command {
        let mut command = self.command(place);
        command.arg("backup").arg(source);
        command
    }

    fn restore(&self, place: &Place, _source: &Path, target: &Path) -> Command {
        let mut command = self.command(place);
        command.args(["restore", "latest", "--target"]).arg(target);
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
