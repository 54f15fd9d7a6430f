//! `carrack cat`: prints one file of a snapshot, or a record of the repository.

use carrack_mover::error::{Error, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::restore;
use crate::cli::{
    args::FilterArgs,
    context::Context,
    engine::{self, SnapshotPath},
    exit::Outcome,
    progress::Watch,
};

/// Print a file of a snapshot, or a record of the repository
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack cat file latest:/etc/fstab
  carrack cat snapshot latest
  carrack cat config")]
pub(crate) struct CatArgs {
    #[command(subcommand)]
    pub(crate) what: CatWhat,
}

/// What to print.
#[derive(Debug, Subcommand)]
pub(crate) enum CatWhat {
    /// The contents of one file, image or stream
    File {
        /// Snapshot and the path in it
        #[arg(value_name = "SNAPSHOT:PATH")]
        file: String,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// The record of a snapshot, as JSON
    Snapshot {
        /// An id, the beginning of one, or latest
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// What the repository says of itself, as JSON
    Config,
}

impl CatWhat {
    /// The words that it is typed with.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::File { .. } => "cat file",
            Self::Snapshot { .. } => "cat snapshot",
            Self::Config => "cat config",
        }
    }
}

pub(crate) async fn run(context: &Context, args: &CatArgs) -> Result<Outcome> {
    match &args.what {
        CatWhat::File { file, filter } => cat_file(context, file, filter).await?,
        CatWhat::Snapshot { snapshot, filter } => {
            let repository = engine::open(context).await?;
            let snapshot = repository.find_snapshot(snapshot, &engine::filter(filter)?).await?;
            pretty(context, &snapshot)?;
        }
        CatWhat::Config => pretty(context, engine::open(context).await?.format())?,
    }
    Ok(Outcome::Done)
}

async fn cat_file(context: &Context, file: &str, filter: &FilterArgs) -> Result<()> {
    let wanted = SnapshotPath::parse(file)?;
    let memory_bytes = context.config()?.memory_bytes;
    let repository = engine::open(context).await?;
    let (_, reader) = engine::read(&repository, &wanted.snapshot, filter).await?;
    let watch = Watch::start("cat", &context.output.beside_data(), &context.world);
    context.begin_graceful();
    restore::to_stream(context, &reader, &wanted, &watch, memory_bytes).await?;
    Ok(())
}

fn pretty(context: &Context, value: &impl Serialize) -> Result<()> {
    if context.output.is_json() {
        return context.output.message("summary", value);
    }
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Error::internal("a record cannot be shown").with_source(error))?;
    context.output.line(text)
}
