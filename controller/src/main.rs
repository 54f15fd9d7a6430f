//! `carrack-controller`: the operator, and the kinds that it serves.

use std::process::ExitCode;

use carrack_controller::{context::Context, run, settings::Settings};
use clap::{Parser, Subcommand};

/// Carrack's controllers
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers until asked to stop
    Run(Settings),
    /// Print the kinds as YAML, for kubectl apply
    Crd,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("CARRACK_LOG")
                .unwrap_or_else(|_| "info,kube=warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let ended = match Program::parse().command {
        Command::Crd => run::print_kinds(),
        Command::Run(settings) => serve(settings).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let client = kube::Client::try_default().await?;
    let context = Context::new(client, settings).await?;
    run::until_stopped(context).await
}
