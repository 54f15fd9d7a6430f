//! Kopia. It compresses nothing by default; its maintenance keeps safety margins of hours unless told not to.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Location, PASSWORD, Place, Tool};

#[derive(Debug)]
pub(super) struct Kopia;

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command();
    command.env("KOPIA_PASSWORD", PASSWORD).env("KOPIA_CHECK_FOR_UPDATES", "false");
    command.env("KOPIA_CONFIG_PATH", place.home.join("repository.config"));
    command
        .env("KOPIA_CACHE_DIRECTORY", place.home.join("cache"))
        .env("KOPIA_LOG_DIR", place.home.join("logs"));
    command.args(words);
    command
}

impl Tool for Kopia {
    fn init(&self, place: &Place) -> Result<Vec<Command>> {
        let mut create = command(place, &["repository", "create"]);
        match &place.location {
            Location::Local(dir) => create.args(["filesystem", "--path"]).arg(dir),
            Location::S3(s3) => create.args([
                "s3",
                "--disable-tls",
                &format!("--endpoint={}", s3.address),
                &format!("--bucket={}", s3.bucket),
                &format!("--prefix={}/", s3.prefix),
                &format!("--region={}", s3.region),
                &format!("--access-key={}", s3.access_key),
                &format!("--secret-access-key={}", s3.secret_key),
            ]),
        };
        Ok(vec![create, command(place, &["policy", "set", "--global", "--compression=zstd"])])
    }

    fn backup(&self, place: &Place, source: &Path) -> Command {
        let mut command = command(place, &["snapshot", "create", "--no-progress"]);
        command.arg(source);
        command
    }

    fn restore(&self, place: &Place, source: &Path, target: &Path) -> Command {
        let mut command = command(place, &["snapshot", "restore", "--no-progress"]);
        command.arg(source).arg(target);
        command
    }

    fn check_all(&self, place: &Place) -> Command {
        command(place, &["snapshot", "verify", "--verify-files-percent=100"])
    }

    fn forget_prune(&self, place: &Place, source: &Path) -> Vec<Command> {
        let keep = [
            "policy",
            "set",
            "--keep-latest=1",
            "--keep-hourly=0",
            "--keep-daily=0",
            "--keep-weekly=0",
            "--keep-monthly=0",
            "--keep-annual=0",
        ];
        let mut policy = command(place, &keep);
        policy.arg(source);
        let mut expire = command(place, &["snapshot", "expire", "--delete"]);
        expire.arg(source);
        vec![policy, expire, command(place, &["maintenance", "run", "--full", "--safety=none"])]
    }
}
