//! `carrack job`: does what a file says, and leaves a result that a program reads.
//!
//! Every task is one or several of the other verbs: `plan` writes their command lines, and the same types read them as
//! those that a person types.

use std::{path::PathBuf, sync::Arc};

use carrack_mover::error::{Error, Result};
use clap::Args;

use self::{report::Report, tasks::Tasks};
use crate::cli::{
    args::{EngineArgs, GlobalArgs, RepositoryArgs, StoreArgs},
    context::Context,
    exit::Outcome,
    record::Record,
    signals,
};

mod changes;
mod memory;
mod place;
mod plan;
mod read;
mod report;
mod tasks;

/// Do what a file says, as a program asks for it
///
/// The file holds one task (connect, bundle, backup, restore, maintain or forget), where the repository is and which
/// file opens it, as JSON. What happens is told by messages, as with --json, and the result goes to a file of its own, at
/// most 4096 bytes long, whatever becomes of the task. In a pod that file is the termination message of the container.
/// Options of the repository, the store and the resources stand in the job.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack job /etc/carrack/job.json
  carrack job backup.json --result result.json")]
pub(crate) struct JobArgs {
    /// File with the job
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// File for the result [default: /dev/termination-log, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) result: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: &JobArgs) -> Result<Outcome> {
    let record = Arc::new(Record::default());
    let report = Report::open(args.result.as_deref(), &context.output, &record)?;
    let mut output = None;
    let done = match refuse_options(&context.global).and_then(|()| read::job(&args.file)) {
        Ok(job) => Tasks::new(context, &record, &job).run(&mut output).await.map_err(signals::explain),
        Err(error) => Err(error),
    };
    // Whoever asks to stop now gets the result all the same.
    context.begin_graceful();
    report.write(report::result(&done, output, &record));
    done
}

/// Two that say where the repository is would have to agree.
fn refuse_options(global: &GlobalArgs) -> Result<()> {
    let GlobalArgs { repository, store, engine, output: _ } = global;
    if (repository, store, engine)
        == (&RepositoryArgs::default(), &StoreArgs::default(), &EngineArgs::default())
    {
        return Ok(());
    }
    Err(Error::invalid("repository, keys, store and resources stand in the job, and options name them too")
        .with_hint("leave those options out"))
}
