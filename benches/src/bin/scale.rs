//! Measures what only size shows: `cargo run --release -p carrack-benches --bin scale -- --help`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use carrack_benches::scale::{self, Device, Files, Index, Setup, Stream};
use clap::{Parser, Subcommand};

/// Measures time and peak memory at a quarter, a half and all of a size.
#[derive(Debug, Parser)]
struct Options {
    /// The program.
    #[arg(long, global = true, default_value = "target/release/carrack")]
    carrack: PathBuf,
    /// Directory of sources and repositories.
    #[arg(long, global = true, default_value = ".cache/bench/scale")]
    cache: PathBuf,
    /// The memory cap in MiB.
    #[arg(long, global = true, default_value_t = 256)]
    memory_mib: u64,
    /// Leave sources and repositories there.
    #[arg(long, global = true)]
    keep: bool,
    /// Also keep the figures as JSON in this file, written anew after each point.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Trees of ever more files.
    Files(Files),
    /// A sparse image with ever more data in it, and lists of changed blocks.
    Device(Device),
    /// Repositories with ever longer indexes.
    Index(Index),
    /// Streams of different blocks, which no disk has to hold.
    Stream(Stream),
    /// Writes the contents of such a stream.
    #[command(hide = true)]
    Generate {
        #[arg(long)]
        gib: u64,
    },
    /// Backs such a stream up into memory that forgets it.
    #[command(hide = true)]
    Engine {
        #[arg(long)]
        gib: u64,
    },
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.subject {
        Subject::Files(args) => scale::files(&setup(&options)?, *args),
        Subject::Device(args) => scale::device(&setup(&options)?, *args),
        Subject::Index(args) => scale::index(&setup(&options)?, *args),
        Subject::Stream(args) => scale::stream(&setup(&options)?, *args),
        Subject::Generate { gib } => scale::generate(*gib),
        Subject::Engine { gib } => scale::engine(*gib, options.memory_mib),
    }
}

fn setup(options: &Options) -> Result<Setup> {
    let (cache, carrack) = (&options.cache, &options.carrack);
    std::fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    Ok(Setup {
        carrack: carrack.canonicalize().with_context(|| format!("--carrack {}", carrack.display()))?,
        dir: cache.canonicalize().with_context(|| format!("--cache {}", cache.display()))?,
        memory_mib: options.memory_mib,
        keep: options.keep,
        json: options.json.clone(),
    })
}
