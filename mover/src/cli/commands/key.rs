//! `carrack key`: the keys that open a repository.

use std::{os::unix::ffi::OsStringExt as _, path::PathBuf};

use carrack_mover::{
    error::{Error, Result},
    keys::WriterBundle,
    repo::{CreateOptions, Repository, RotatePlan, Unlock},
    source::roots::absolute,
};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::backup;
use crate::cli::{
    config::SecretSource,
    context::Context,
    engine,
    exit::Outcome,
    password::{self, Ask},
    units,
};

/// List, add, remove and rotate keys
///
/// Each key is a password (or a 256-bit secret) that opens the same repository.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack key list
  carrack key add --label laptop
  carrack key add --new-password-file /etc/carrack/second
  carrack key remove 4fd1a7c2
  carrack key rotate --dry-run
  carrack key bundle --host db1 --path /srv/db > writer.json")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) what: KeyWhat,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyWhat {
    /// List the keys
    List,
    /// Add another password or secret
    Add {
        /// What to call it
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
        #[command(flatten)]
        new: NewSecret,
    },
    /// Remove a key; the last one stays
    Remove {
        /// Id of the key, or the beginning of it
        #[arg(value_name = "KEY", required_unless_present = "unproven")]
        key: Option<String>,
        /// Remove everything beside the keys that this repository did not sign: it opens nothing
        #[arg(long, conflicts_with = "key")]
        unproven: bool,
    },
    /// Begin a new generation: what is written from now on has new keys
    ///
    /// Whoever knew the old root keys can still read what was written with them, and nothing newer. The other
    /// keys of the repository stop working and must be added again.
    Rotate {
        /// Say what would happen, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Print a writer bundle: enough to back up one source, not to read others or to delete
    Bundle {
        /// Host that the source belongs to [default: this host's name]
        #[arg(short = 'H', long, value_name = "NAME", value_parser = backup::parse_name)]
        host: Option<String>,
        /// Absolute path of the source (repeatable)
        #[arg(long, value_name = "PATH", required = true)]
        path: Vec<PathBuf>,
    },
}

/// Where a new password or secret comes from; asked for twice otherwise.
#[derive(Debug, Default, Args)]
pub(crate) struct NewSecret {
    /// File whose first line is the new password
    #[arg(long, value_name = "FILE")]
    pub(crate) new_password_file: Option<PathBuf>,
    /// Command that prints the new password
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_file")]
    pub(crate) new_password_command: Option<String>,
    /// File with a new 256-bit secret (64 hexadecimal digits)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_password_file", "new_password_command"])]
    pub(crate) new_key_file: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: &KeyArgs) -> Result<Outcome> {
    match &args.what {
        KeyWhat::Bundle { host, path } => bundle(context, host.as_deref(), path).await,
        KeyWhat::List => list(context).await,
        KeyWhat::Remove { key: Some(key), .. } => remove(context, key).await,
        KeyWhat::Remove { .. } => remove_unproven(context).await,
        KeyWhat::Add { label, new } => add(context, label, new).await,
        KeyWhat::Rotate { dry_run } => rotate(context, *dry_run).await,
    }
}

/// The keys that write the source of a host and its paths.
pub(crate) async fn writer_bundle(
    context: &Context,
    host: Option<&str>,
    paths: &[PathBuf],
) -> Result<WriterBundle> {
    let repository = engine::open(context).await?;
    let host = host.map_or_else(backup::this_host, |name| Ok(name.to_owned()))?;
    let full = |path: &PathBuf| absolute(path).map(|path| path.into_os_string().into_vec());
    let mut paths = paths.iter().map(full).collect::<Result<Vec<_>>>()?;
    // A backup names its source by the same sorted list.
    paths.sort();
    paths.dedup();
    let lineage = repository.lineage(&host, &paths);
    repository.keys().writer_bundle(repository.format().repository, lineage)
}

async fn bundle(context: &Context, host: Option<&str>, paths: &[PathBuf]) -> Result<Outcome> {
    let bundle = writer_bundle(context, host, paths).await?;
    if context.output.is_json() {
        context.output.message("summary", &serde_json::json!({ "bundle": bundle }))?;
        return Ok(Outcome::Done);
    }
    let text = serde_json::to_string_pretty(&bundle)
        .map_err(|error| Error::internal("the bundle cannot be written").with_source(error))?;
    context.output.line(text)?;
    context.output.note("keep the bundle secret: who has it can write backups of this source");
    Ok(Outcome::Done)
}

async fn list(context: &Context) -> Result<Outcome> {
    let (keys, problems) = engine::open(context).await?.list_keys().await?;
    for key in &keys {
        if context.output.is_json() {
            context.output.message("key", key)?;
        } else {
            let made = units::moment(key.created);
            context.output.line(format_args!(
                "{}  {made}  {:10}  {}",
                key.id.short(),
                key.kind,
                key.label
            ))?;
        }
    }
    if context.output.is_json() {
        context.output.message("summary", &serde_json::json!({ "keys": keys.len() }))?;
    }
    problems.iter().for_each(|problem| context.output.problem(&problem.what, &problem.message));
    Ok(Outcome::of_problems(problems.len() as u64))
}

async fn remove(context: &Context, typed: &str) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let (keys, _) = repository.list_keys().await?;
    let mut matching = keys.iter().filter(|key| key.id.to_hex().starts_with(typed));
    let (Some(key), None) = (matching.next(), matching.next()) else {
        return Err(Error::not_found(format!("{typed:?} is not the beginning of exactly one key's id"))
            .with_hint("see: carrack key list"));
    };
    repository.remove_key(key.id).await?;
    if context.output.is_json() {
        context.output.message("summary", &Changed { removed: 1, ..Changed::default() })?;
    } else {
        context.output.remark(format_args!("removed key {}", key.id.short()))?;
    }
    Ok(Outcome::Done)
}

async fn remove_unproven(context: &Context) -> Result<Outcome> {
    let removed = engine::open(context).await?.remove_unproven_keys().await?;
    if context.output.is_json() {
        context.output.message("summary", &Changed { removed, ..Changed::default() })?;
    } else {
        let objects = units::count(removed as u64, "object", "objects");
        context.output.remark(format_args!("removed {objects} that this repository did not sign"))?;
    }
    Ok(Outcome::Done)
}

async fn add(context: &Context, label: &str, new: &NewSecret) -> Result<Outcome> {
    let place = context.config()?.place;
    let (repository, current) = open_with_unlock(context).await?;
    let source = match (&new.new_password_file, &new.new_password_command, &new.new_key_file) {
        (Some(file), ..) => SecretSource::PasswordFile(file.clone()),
        (_, Some(command), _) => SecretSource::PasswordCommand(command.clone()),
        (.., Some(file)) => SecretSource::KeyFile(file.clone()),
        _ => SecretSource::Prompt,
    };
    let new = engine::unlock(password::obtain(&source, &place.url, Ask::Further)?);
    let options = CreateOptions { label: label.to_owned(), ..CreateOptions::default() };
    let id = repository.add_key(&current, &new, &options).await?;
    if context.output.is_json() {
        context.output.message("summary", &Changed { key: Some(id.to_hex()), ..Changed::default() })?;
    } else {
        context.output.remark(format_args!("added key {}", id.short()))?;
    }
    Ok(Outcome::Done)
}

/// The repository, and what opened it: new key files are made from the same.
async fn open_with_unlock(context: &Context) -> Result<(Repository, Unlock)> {
    let config = context.config()?;
    let store = engine::store(&config).await?;
    let secret = password::obtain(&config.place.secret, &config.place.url, Ask::Once)?;
    let current = engine::unlock(secret);
    let repository = Repository::open(store, context.world.clone(), &current).await?;
    Ok((repository, current))
}

async fn rotate(context: &Context, dry_run: bool) -> Result<Outcome> {
    let (repository, current) = open_with_unlock(context).await?;
    if matches!(current, Unlock::Bundle(_)) {
        return Err(Error::denied("a writer bundle cannot rotate keys")
            .with_hint("give the password or the secret of the repository"));
    }
    let plan = repository.plan_rotate().await?;
    show_rotation(context, &plan)?;
    if dry_run {
        if context.output.is_json() {
            context.output.message("summary", &Changed { dry_run, ..Changed::default() })?;
        }
        return Ok(Outcome::Done);
    }
    // The password stays the same, so a label goes on only if it is clear whose it was.
    let label = match plan.remove.as_slice() {
        [only] => only.label.clone(),
        _ => String::new(),
    };
    let options = CreateOptions { label, ..CreateOptions::default() };
    let id = repository.apply_rotate(&plan, &current, &current, &options).await?;
    if context.output.is_json() {
        let (key, removed) = (Some(id.to_hex()), plan.remove.len());
        context.output.message("summary", &Changed { key, removed, dry_run })?;
    } else {
        context.output.remark(format_args!("rotated; the only key is now {}", id.short()))?;
    }
    Ok(Outcome::Done)
}

fn show_rotation(context: &Context, plan: &RotatePlan) -> Result<()> {
    if context.output.is_json() {
        return context.output.message("plan", plan);
    }
    context.output.remark("a new key file under the password in use takes the place of:")?;
    for key in &plan.remove {
        let made = units::moment(key.created);
        context.output.remark(format_args!("{}  {made}  {:10}  {}", key.id.short(), key.kind, key.label))?;
    }
    Ok(())
}

/// Body of `summary` of what changes keys.
#[derive(Debug, Default, Serialize)]
struct Changed {
    /// The key that was added.
    key: Option<String>,
    /// Keys that no longer open the repository.
    removed: usize,
    dry_run: bool,
}
