//! BorgBackup 1.x: local repositories only, archives need names.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Location, PASSWORD, Place, Tool};

#[derive(Debug)]
pub(super) struct Borg;

fn command(place: &Place, verb: &str) -> Command {
    let mut command = place.command();
    environment(place, &mut command);
    command.arg(verb);
    command
}

fn environment(place: &Place, command: &mut Command) {
    command.env("BORG_PASSPHRASE", PASSWORD).env("BORG_REPO", repository(place));
    command.env("BORG_BASE_DIR", &place.home).env("LC_ALL", "C.UTF-8");
}

fn repository(place: &Place) -> PathBuf {
    match &place.location {
        Location::Local(dir) => dir.clone(),
        Location::S3(_) => PathBuf::new(),
    }
}

impl Tool for Borg {
    fn unsupported(&self, location: &Location) -> Option<&'static str> {
        matches!(location, Location::S3(_)).then_some("borg 1 has no S3 store")
    }

    fn init(&self, place: &Place) -> Result<Vec<Command>> {
        let mut command = command(place, "init");
        // The mode that borg's own documentation names first; borg insists on a choice.
        command.args(["--encryption", "repokey-blake2"]);
        Ok(vec![command])
    }

    fn backup(&self, place: &Place, source: &Path) -> Command {
        let mut command = command(place, "create");
        command.arg("::{now:%Y-%m-%dT%H:%M:%S.%f}").arg(source);
        command
    }

    fn restore(&self, place: &Place, _source: &Path, target: &Path) -> Command {
        // borg extracts one named archive; a shell asks for the newest one's name, which costs one listing.
        let mut shell = Command::new("/bin/sh");
        environment(place, &mut shell);
        shell.args(["-c", "exec \"$0\" extract \"::$(\"$0\" list --last 1 --short)\""]).arg(&place.program);
        shell.current_dir(target);
        shell
    }

    fn check_all(&self, place: &Place) -> Command {
        let mut command = command(place, "check");
        command.arg("--verify-data");
        command
    }

    fn forget_prune(&self, place: &Place, _source: &Path) -> Vec<Command> {
        let mut prune = command(place, "prune");
        prune.args(["--keep-last", "1"]);
        vec![prune, command(place, "compact")]
    }
}
