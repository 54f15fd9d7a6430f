//! What a task means, as command lines of the other verbs.
//!
//! Every value stands behind an equals sign or behind `--`, so that none is taken for an option.

use std::path::Path;

use carrack_mover::error::{Error, Result};
use carrack_proto::{
    BackupTask, Job, Keys, MaintainTask, Place, RepositoryAccess, Resources, RestoreTask, Source,
};
use clap::Parser as _;

use super::changes::ChangeList;
use crate::cli::args::Cli;

#[cfg(test)]
mod tests;

/// Reads a command line as if it had been typed.
pub(super) fn parse(job: &Job, verb: &[String]) -> Result<Cli> {
    let words = std::iter::once("carrack".to_owned()).chain(access(job)).chain(verb.iter().cloned());
    Cli::try_parse_from(words).map_err(|error| {
        let text = error.render().to_string();
        // What is wrong; how the command is used follows behind an empty line.
        let said: Vec<&str> =
            text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
        Error::invalid(format!("the job cannot be done: {}", said.join(" ").trim_start_matches("error: ")))
            .with_hint("correct that value in the resource that the job was made from")
    })
}

/// Where the repository is, what opens it, how it is reached, and what may be used for it.
fn access(job: &Job) -> Vec<String> {
    let RepositoryAccess {
        url,
        endpoint,
        region,
        path_style,
        ca_file,
        storage_class,
        server_side_encryption,
        upload_checksum,
        limit_upload,
        limit_download,
        max_requests,
    } = &job.repository;
    let Resources { memory_bytes, threads, compression, cipher } = &job.resources;
    let mut words = vec!["--json".to_owned(), format!("--repo={url}")];
    words.push(match &job.keys {
        Keys::PasswordFile(file) => format!("--password-file={file}"),
        Keys::KeyFile(file) => format!("--key-file={file}"),
        Keys::WriterBundle(file) => format!("--writer-bundle={file}"),
    });
    let when = |always: &bool| if *always { "always" } else { "never" }.to_owned();
    // A plain number is KiB/s on the command line.
    let rate = |bytes: &Option<u64>| bytes.map(|bytes| format!("{bytes}B"));
    let options = [
        ("endpoint", endpoint.clone()),
        ("region", region.clone()),
        ("path-style", path_style.as_ref().map(when)),
        ("ca-file", ca_file.clone()),
        ("storage-class", storage_class.clone()),
        ("server-side-encryption", server_side_encryption.clone()),
        ("limit-upload", rate(limit_upload)),
        ("limit-download", rate(limit_download)),
        ("max-requests", max_requests.map(|count| count.to_string())),
        ("memory", memory_bytes.map(|bytes| bytes.to_string())),
        ("threads", threads.map(|count| count.to_string())),
        ("compression", compression.clone()),
        ("cipher", cipher.clone()),
    ];
    words.extend(options.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?))));
    words.extend(upload_checksum.then(|| "--upload-checksum".to_owned()));
    words
}

/// Makes a repository.
pub(super) fn init() -> Vec<String> {
    vec!["init".to_owned()]
}

/// The writer bundle of a source.
pub(super) fn bundle(source: &Source) -> Vec<String> {
    let (host, path) = (&source.host, source.place.path());
    vec!["key".to_owned(), "bundle".to_owned(), format!("--host={host}"), format!("--path={path}")]
}

/// Writes a snapshot: without a directory that is not part of its contents; of a device, by a list of what has changed on it.
pub(super) fn backup(
    task: &BackupTask,
    left_out: Option<&Path>,
    list: Option<&ChangeList>,
) -> Result<Vec<String>> {
    let BackupTask { source, tags, exclude, cloned, force, strict, changes } = task;
    let mut words = vec!["backup".to_owned(), format!("--host={}", source.host)];
    for tag in tags {
        if tag.contains(',') {
            return Err(Error::invalid(format!("tag {tag:?} has a comma"))
                .with_hint("write it as two tags, or without the comma"));
        }
        words.push(format!("--tag={tag}"));
    }
    words.extend(
        cloned.then(|| ["--ignore-ctime", "--ignore-inode"].map(str::to_owned)).into_iter().flatten(),
    );
    words.extend(force.then(|| "--force".to_owned()));
    words.extend(strict.then(|| "--strict".to_owned()));
    match &source.place {
        Place::Directory(root) => {
            if changes.is_some() {
                return Err(Error::invalid(format!("changed blocks say nothing of the directory {root}"))
                    .with_hint("ask for them of a device only"));
            }
            words.push("--one-file-system".to_owned());
            for pattern in exclude {
                words.push(format!("--exclude={}", rooted(pattern, root)?));
            }
            let left_out = left_out.map(|path| literal(&path.display().to_string()));
            words.extend(left_out.map(|pattern| format!("--exclude={pattern}")));
            words.extend(["--".to_owned(), root.clone()]);
        }
        Place::Device(path) => {
            if !exclude.is_empty() {
                return Err(Error::invalid(format!("patterns say nothing of the device {path}"))
                    .with_hint("leave the patterns out"));
            }
            words.push(format!("--device={path}"));
            words.extend(changes.as_ref().map(|changes| format!("--change-id={}", changes.state.to_text())));
            if let Some(list) = list {
                words.push(format!("--changed-blocks={}", list.path().display()));
                words.push(format!("--parent={}", list.parent()));
            }
        }
    }
    Ok(words)
}

/// Brings a snapshot back; `root` is the directory in it that becomes the target.
pub(super) fn restore(task: &RestoreTask, session: &str, root: &str) -> Vec<String> {
    let RestoreTask { target, verify, include, exclude, .. } = task;
    let mut words = vec!["restore".to_owned(), format!("--target={}", target.place.path())];
    words.extend(verify.then(|| "--verify".to_owned()));
    words.extend(include.iter().map(|pattern| format!("--include={pattern}")));
    words.extend(exclude.iter().map(|pattern| format!("--exclude={pattern}")));
    words.push("--".to_owned());
    match &target.place {
        Place::Directory(_) => {
            // What an earlier run of the same job has written is in the target already.
            words.insert(1, "--target-attributes=always".to_owned());
            words.splice(1..1, target.delete.then(|| "--delete".to_owned()));
            words.push(if root.is_empty() { session.to_owned() } else { format!("{session}:{root}") });
        }
        // All of a device is written: nothing that was on it before is left to delete.
        Place::Device(_) => words.push(session.to_owned()),
    }
    words
}

/// Forgets by rules, frees, checks, in this order.
pub(super) fn maintain(task: &MaintainTask) -> Result<Vec<Vec<String>>> {
    let MaintainTask { keep, prune, check_percent } = task;
    let mut verbs = Vec::new();
    if !keep.is_empty() {
        let mut words = vec!["forget".to_owned()];
        for (span, count) in keep {
            if !SPANS.contains(&span.as_str()) {
                return Err(Error::invalid(format!("{span:?} is no span to keep snapshots by"))
                    .with_hint(format!("use {}", SPANS.join(", "))));
            }
            words.push(format!("--keep-{span}={count}"));
        }
        verbs.push(words);
    }
    verbs.extend(prune.then(|| vec!["prune".to_owned()]));
    let check = check_percent.map(|percent| {
        let how = match percent {
            0 => "--sizes".to_owned(),
            100 => "--read-data".to_owned(),
            percent => format!("--read-data-subset={percent}%"),
        };
        vec!["check".to_owned(), how]
    });
    verbs.extend(check);
    Ok(verbs)
}

/// Spans that a rule can keep snapshots by.
const SPANS: [&str; 7] = ["last", "hourly", "daily", "weekly", "monthly", "yearly", "within"];

/// Takes one snapshot out of view.
pub(super) fn forget(snapshot: &str) -> Vec<String> {
    vec!["forget".to_owned(), "--".to_owned(), snapshot.to_owned()]
}

/// A pattern of a volume that is mounted at `root`. It begins there with a slash in front, and is meant at any depth
/// below it without; the place itself is not to match, which may be called as something in it. A pattern that names
/// nothing in the volume would be the volume itself, and the backup an empty one.
fn rooted(pattern: &str, root: &str) -> Result<String> {
    let (sign, rest) = pattern.strip_prefix('!').map_or(("", pattern), |rest| ("!", rest));
    if rest.split('/').all(|name| matches!(name, "" | "." | "**")) {
        return Err(Error::invalid(format!("pattern {pattern:?} names nothing in the volume"))
            .with_hint("leave the pattern out, or name what is in the volume: /* is all of it"));
    }
    let between = if rest.starts_with('/') { "" } else { "/**/" };
    Ok(format!("{sign}{}{between}{rest}", literal(root.trim_end_matches('/'))))
}

/// A path as a pattern that matches it and nothing else.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
