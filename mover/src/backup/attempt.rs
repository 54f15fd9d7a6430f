//! One attempt of a backup, on a thread that nobody has to wait for: what it reads may never answer, and a thread that waits
//! in the kernel cannot be called back.

use std::{sync::Arc, thread};

use tokio::{runtime::Handle, sync::mpsc};

use super::{
    BackupOptions, Noting,
    engine::{Outcome, Plan, Watched, run},
    silence::Silence,
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    repo::Repository,
    source::reads::Reads,
};

/// How an attempt came to its end.
pub(super) enum Ended {
    /// Everything was read, or it failed.
    Over(Box<Result<Outcome>>),
    /// It was given up, for this did not answer.
    Silent(Vec<Silence>),
}

/// Runs one attempt until it ends or is given up. A thread of the runtime would be waited for when that ends.
pub(super) async fn attempt(
    repository: &Repository,
    options: &Arc<BackupOptions>,
    plan: Plan,
    (monitor, reads): (Arc<Noting>, Arc<Reads>),
    cancel: &Cancel,
) -> Result<Ended> {
    // Only the first answer counts, and there are two at most.
    let (answer, mut answers) = mpsc::channel(2);
    let (repository, options, handle) = (repository.clone(), Arc::clone(options), Handle::current());
    let cancel = cancel.or(reads.given_up());
    let work = move || {
        let runtime = handle.clone();
        let _within = runtime.enter();
        // Nobody listens any more when whoever asked for the backup has gone.
        let on_silence = |silences| drop(answer.try_send(Ended::Silent(silences)));
        let watched = Watched { monitor, cancel, reads, on_silence: &on_silence };
        let outcome = run(&repository, &options, plan, handle, watched);
        drop(answer.try_send(Ended::Over(Box::new(outcome))));
    };
    let started = thread::Builder::new().name("backup".to_owned()).spawn(work);
    started.map_err(|error| Error::io(error, "cannot start a thread for the backup"))?;
    answers.recv().await.ok_or_else(|| Error::internal("the backup's threads broke"))
}
