//! Reading what the controller has written: the job, and the key of a seal.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use carrack_mover::error::{Error, Result};
use carrack_proto::{Job, SealKey, VERSION};
use serde_json::Value;

#[cfg(test)]
mod tests;

/// Most bytes of a job: as many as Kubernetes keeps of an object.
const LIMIT: u64 = 1 << 20;

/// The job in a file.
pub(super) fn job(file: &Path) -> Result<Job> {
    let text = text(file, "job")?;
    parse(&text).map_err(|error| error.context(format!("job {}", file.display())))
}

fn parse(text: &str) -> Result<Job> {
    // The version first: a later one may have fields that would be told to be unknown.
    let garbage = |error: serde_json::Error| {
        Error::invalid(format!("it is no JSON: {error}")).with_hint("see mover/docs/job.md for its shape")
    };
    let version = serde_json::from_str::<Value>(text).map_err(garbage)?["version"].clone();
    if version != VERSION {
        let said = if version.is_null() { "no version".to_owned() } else { format!("version {version}") };
        return Err(Error::invalid(format!("it has {said}, and this program knows version {VERSION}"))
            .with_hint("let the controller and the image of its mover be of the same release"));
    }
    serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("it asks for what is not known: {error}"))
            .with_hint("let the controller and the image of its mover be of the same release")
    })
}

/// The key in a file.
pub(super) fn seal_key(file: &str) -> Result<SealKey> {
    let file = PathBuf::from(file);
    SealKey::from_text(&text(&file, "key of the seal")?).map_err(|error| {
        Error::invalid(format!("key of the seal {}: {error}", file.display()))
            .with_hint("it is made by the controller, for one job")
    })
}

fn text(file: &Path, what: &str) -> Result<String> {
    let named = |error| {
        Error::io(error, format!("{what} {} cannot be read", file.display()))
            .with_hint("see what is mounted there")
    };
    let mut text = String::new();
    File::open(file).map_err(named)?.take(LIMIT + 1).read_to_string(&mut text).map_err(named)?;
    if text.len() as u64 > LIMIT {
        return Err(Error::invalid(format!("{what} {} is longer than 1 MiB", file.display()))
            .with_hint("see what is mounted there"));
    }
    Ok(text)
}
