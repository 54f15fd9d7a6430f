//! The command line: arguments as typed (`args`), what they mean (`config`), one file for each verb (`commands`),
//! what is shown (`output`, `progress`, `json`), and how it ends (`exit`, `signals`, `panic`, `contradiction`).

use std::{ffi::OsString, process::ExitCode, time::Duration};

use carrack_mover::error::{Error, Result};
use clap::Parser as _;

use self::{
    args::{Cli, Command},
    context::Context,
    exit::Outcome,
};

mod args;
mod commands;
mod config;
mod context;
mod contradiction;
#[cfg(debug_assertions)]
mod defect;
mod dry_run;
mod engine;
mod exit;
mod json;
mod last_seen;
mod node;
mod output;
pub(crate) mod panic;
mod password;
mod path_list;
mod progress;
mod record;
mod signals;
mod units;
mod usage;
mod user;

#[cfg(test)]
mod tests;

/// How long tasks may take to notice that the program ends.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs the program.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage::explain(&error, &args)),
    };
    // Whoever writes jobs is a program.
    cli.global.output.json |= matches!(cli.command, Command::Job(_));
    panic::speak_json(cli.global.output.json);
    let context = Context::new(cli.global);
    context.output.start_log();
    let result = signals::install(&context).and_then(|()| execute(&context, cli.command));
    ExitCode::from(match result {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            context.output.fatal(&error);
            exit::code(&error)
        }
    })
}

fn execute(context: &Context, command: Command) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(context.threads().clamp(2, 8))
        .enable_all()
        .build()
        .map_err(|error| Error::io(error, "threads for requests cannot be started"))?;
    let result = runtime.block_on(dispatch(context, command));
    panic::is_over();
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

async fn dispatch(context: &Context, command: Command) -> Result<Outcome> {
    contradiction::begins(command.words());
    let result = match command {
        Command::Init(args) => commands::init::run(context, &args).await,
        Command::Backup(args) => commands::backup::run(context, &args).await,
        Command::Restore(args) => commands::restore::run(context, &args).await,
        Command::Snapshots(args) => commands::snapshots::run(context, &args).await,
        Command::Ls(args) => commands::ls::run(context, &args).await,
        Command::Find(args) => commands::find::run(context, &args).await,
        Command::Diff(args) => commands::diff::run(context, &args).await,
        Command::Cat(args) => commands::cat::run(context, &args).await,
        Command::Stats(args) => commands::stats::run(context, &args).await,
        Command::Repo(args) => commands::repo::run(context, &args).await,
        Command::Key(args) => commands::key::run(context, &args).await,
        Command::Completions(args) => commands::completions::run(&context.output, &args),
        Command::Man(args) => commands::man::run(&context.output, &args),
        Command::Mount(args) => commands::mount::run(context, &args).await,
        Command::Check(args) => commands::check::run(context, &args).await,
        Command::Forget(args) => commands::forget::run(context, &args).await,
        Command::Prune(args) => commands::prune::run(context, &args).await,
        Command::Copy(args) => commands::copy::run(context, &args).await,
        Command::Job(args) => commands::job::run(context, &args).await,
    };
    result.map_err(signals::explain)
}
