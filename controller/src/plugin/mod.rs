//! `kubectl carrack`: makes the objects that people would write as YAML, and watches over them.

mod make;
mod show;
mod watch;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Backs up and restores volumes with Carrack
#[derive(Debug, Parser)]
#[command(name = "kubectl carrack", bin_name = "kubectl carrack", version)]
pub struct Program {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    access: Access,
}

/// The options of kubectl that say which cluster and namespace is meant.
#[derive(Debug, Args)]
struct Access {
    /// Namespace [default: that of the context]
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    context: Option<String>,
    /// Kubeconfig [default: as kubectl finds it]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Back up a claim, or a volume snapshot that exists
    Backup(make::BackupArgs),
    /// Restore into a claim
    Restore(make::RestoreArgs),
    /// List backups, with what they hold
    Ls(show::ListArgs),
    /// Show repositories, mover types, and what is under way
    Status(show::ListArgs),
    /// Stop a backup or a restore
    Cancel(make::CancelArgs),
}

/// A cluster and a namespace.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Runs the program. The exit code is 0 after all that was asked for, 3 if some things could not be read or restored, 1 if
/// it failed, 130 if it was stopped.
pub async fn run(program: Program) -> ExitCode {
    match dispatch(program).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody is left to tell if this cannot be written.
            drop(writeln!(io::stderr(), "kubectl carrack: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(program: Program) -> anyhow::Result<u8> {
    let place = place(&program.access).await?;
    match program.command {
        Command::Backup(args) => make::backup(&place, &args).await,
        Command::Restore(args) => make::restore(&place, &args).await,
        Command::Cancel(args) => make::cancel(&place, &args).await,
        Command::Ls(args) => show::backups(&place, &args).await.map(|()| 0),
        Command::Status(args) => show::status(&place, &args).await.map(|()| 0),
    }
}

async fn place(access: &Access) -> anyhow::Result<Place> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let config = match &access.kubeconfig {
        Some(path) => {
            let read =
                Kubeconfig::read_from(path).with_context(|| format!("{} cannot be read", path.display()))?;
            Config::from_custom_kubeconfig(read, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    let config = config.context("there is no cluster to speak to: give --kubeconfig or --context")?;
    let namespace = access.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok(Place { client: Client::try_from(config)?, namespace })
}

/// Prints a line of the answer.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("the answer cannot be printed")
}
