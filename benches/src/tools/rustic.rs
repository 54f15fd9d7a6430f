//! rustic.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Location, PASSWORD, Place, Tool, write};

#[derive(Debug)]
pub(super) struct Rustic;

/// rustic takes the options of an S3 store from a profile only; it looks for it in its configuration folder.
fn profile(place: &Place) -> String {
    let repository = match &place.location {
        Location::Local(dir) => format!("repository = {:?}\n", dir.display().to_string()),
        Location::S3(s3) => format!(
            "repository = \"opendal:s3\"\n[repository.options]\nendpoint = \"http://{}\"\nbucket = {:?}\nroot = \"/{}\"\n\
             region = {:?}\naccess_key_id = {:?}\nsecret_access_key = {:?}\n",
            s3.address, s3.bucket, s3.prefix, s3.region, s3.access_key, s3.secret_key
        ),
    };
    format!("[repository]\n{repository}")
}

fn command(place: &Place) -> Command {
    let mut command = place.command();
    command.env("RUSTIC_PASSWORD", PASSWORD).arg("--no-progress");
    command
}

impl Tool for Rustic {
    fn init(&self, place: &Place) -> Result<Vec<Command>> {
        write(&place.home.join("config/rustic/rustic.toml"), &profile(place))?;
        let mut command = command(place);
        command.arg("init");
        Ok(vec![command])
    }

    fn backup(&self, place: &Place, source: &Path) -> Command {
        let mut command = command(place);
        command.arg("backup").arg(source);
        command
    }

    fn restore(&self, place: &Place, _source: &Path, target: &Path) -> Command {
        let mut command = command(place);
        command.args(["restore", "latest"]).arg(target);
        command
    }

    fn check_all(&self, place: &Place) -> Command {
        let mut command = command(place);
        command.args(["check", "--read-data"]);
        command
    }

    fn forget_prune(&self, place: &Place, _source: &Path) -> Vec<Command> {
        // Without --instant-delete rustic marks packs and deletes them a day later: then nothing would be
        // freed here, and the step would not be the one that others do. Nor would it with the default --max-repack:
        // packs that are used in part stay as they are when they hold more than 10 % of the repository.
        let mut command = command(place);
        command.args(["forget", "--keep-last", "1", "--prune", "--instant-delete"]);
        command.args(["--max-repack", "unlimited"]);
        vec![command]
    }
}
