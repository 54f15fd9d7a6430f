//! `carrack key`: the keys that open a repository.

use std::{os::unix::ffi::OsStringExt as _, path::PathBuf};

use carrack_mover::{
    error::{Error, Result},
    keys::WriterBundle,
    monitor::Problem,
    repo::{CreateOptions, KeyEntry, Repository, RotatePlan, Unlock},
    source::roots::absolute,
};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::backup;
use crate::cli::{
    config::SecretSource,
    context::Context,
    dry_run, engine,
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
  carrack key remove 4fd1a7c2 --dry-run
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
        /// Say what would go and what would open the repository afterwards, and remove nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
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

impl KeyWhat {
    /// The words that it is typed with.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::List => "key list",
            Self::Add { .. } => "key add",
            Self::Remove { .. } => "key remove",
            Self::Rotate { .. } => "key rotate",
            Self::Bundle { .. } => "key bundle",
        }
    }
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
        KeyWhat::Remove { key, dry_run, .. } => remove(context, key.as_deref(), *dry_run).await,
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
            context.output.line(in_words(key))?;
        }
    }
    if context.output.is_json() {
        context.output.message("summary", &serde_json::json!({ "keys": keys.len() }))?;
    }
    problems.iter().for_each(|problem| context.output.problem(&problem.what, &problem.message));
    Ok(Outcome::of_problems(problems.len() as u64))
}

/// Body of `plan` of `key remove`.
#[derive(Debug, Serialize)]
struct Removal<'k> {
    /// Keys that go.
    remove: Vec<&'k KeyEntry>,
    /// Objects that go because this repository did not sign them.
    unproven: Vec<&'k str>,
    /// Keys that are there afterwards.
    stay: Vec<&'k KeyEntry>,
}

impl<'k> Removal<'k> {
    /// Of the key that was typed, or of what the repository did not sign.
    fn plan(typed: Option<&str>, keys: &'k [KeyEntry], unsigned: &'k [Problem]) -> Result<Self> {
        let Some(typed) = typed else {
            let name = |object: &'k Problem| object.what.trim_start_matches("object ");
            let unproven = unsigned.iter().map(name).collect();
            return Ok(Self { remove: Vec::new(), unproven, stay: keys.iter().collect() });
        };
        let (remove, stay) = keys.iter().partition::<Vec<_>, _>(|key| key.id.to_hex().starts_with(typed));
        if remove.len() != 1 {
            return Err(Error::not_found(format!("{typed:?} is not the beginning of exactly one key's id"))
                .with_hint("see: carrack key list"));
        }
        Ok(Self { remove, unproven: Vec::new(), stay })
    }

    fn show(&self, context: &Context) -> Result<()> {
        let out = &context.output;
        if out.is_json() {
            return out.message("plan", self);
        }
        self.remove.iter().try_for_each(|key| out.remark(format_args!("remove  {}", in_words(key))))?;
        self.unproven.iter().try_for_each(|name| {
            out.remark(format_args!("remove  {name}, which this repository did not sign"))
        })?;
        self.stay.iter().try_for_each(|key| out.remark(format_args!("stays   {}", in_words(key))))
    }
}

async fn remove(context: &Context, typed: Option<&str>, dry_run: bool) -> Result<Outcome> {
    let repository = dry_run::open(context, dry_run).await?;
    let (keys, unsigned) = repository.list_keys().await?;
    let plan = Removal::plan(typed, &keys, &unsigned)?;
    plan.show(context)?;
    let removed = match plan.remove.first() {
        Some(key) => repository.remove_key(key.id).await.map(|()| 1)?,
        None => repository.remove_unproven_keys().await?,
    };
    if context.output.is_json() {
        let removed = if dry_run { 0 } else { removed };
        context.output.message("summary", &Changed { removed, dry_run, ..Changed::default() })?;
        return Ok(Outcome::Done);
    }
    let objects = units::count(removed as u64, "object", "objects");
    match (dry_run, plan.remove.first()) {
        (true, _) => context.output.remark("nothing was removed")?,
        (false, Some(key)) => context.output.remark(format_args!("removed key {}", key.id.short()))?,
        (false, None) => {
            context.output.remark(format_args!("removed {objects} that this repository did not sign"))?;
        }
    }
    Ok(Outcome::Done)
}

/// A key in a list for people.
fn in_words(key: &KeyEntry) -> String {
    format!("{}  {}  {:10}  {}", key.id.short(), units::moment(key.created), key.kind, key.label)
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
    plan.remove.iter().try_for_each(|key| context.output.remark(in_words(key)))
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
