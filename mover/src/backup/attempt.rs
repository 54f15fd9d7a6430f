//! One attempt of a backup, on a thread that nobody has to wait for: what it reads may never answer, and a thread that waits
//! in the kernel cannot be called back.

use std::{sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    BackupOptions, BackupSource, Noting,
    engine::{Held, Outcome, Plan, Watched, run},
    image,
    silence::Silence,
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    limits,
    monitor::Monitor,
    repo::{ImageState, Repository},
    source::reads::{Lookout, Reads},
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
    // Only the first answer counts: who is left behind may give one more, and nobody waits for it.
    let (answer, mut answers) = mpsc::channel(1);
    let (repository, options, handle) = (repository.clone(), Arc::clone(options), Handle::current());
    let cancel = cancel.or(reads.given_up());
    let work = move || {
        let runtime = handle.clone();
        let _within = runtime.enter();
        // Nobody listens any more when whoever asked for the backup has gone.
        let on_end = |ended| drop(answer.try_send(ended));
        let watched = Watched { monitor, cancel, reads, on_end: &on_end };
        let outcome = run(&repository, &options, plan, handle, watched);
        drop(answer.try_send(Ended::Over(Box::new(outcome))));
    };
    let started = thread::Builder::new().name("backup".to_owned()).spawn(work);
    started.map_err(|error| Error::io(error, "cannot start a thread for the backup"))?;
    answers.recv().await.ok_or_else(|| Error::internal("the backup's threads broke"))
}

/// What a device or image is like before it is read; it may never answer to that either.
pub(super) fn examine(
    options: &BackupOptions,
    parent_grid: u32,
    reads: &Reads,
    monitor: &dyn Monitor,
    on_end: &(dyn Fn(Ended) + Sync),
) -> Result<Option<ImageState>> {
    if !matches!(options.source, BackupSource::Block { .. }) {
        return Ok(None);
    }
    let stop = Cancel::default();
    thread::scope(|scope| {
        let lookout = scope.spawn(|| {
            let silences = look_out(reads, monitor, &stop, options.source_timeout);
            if !silences.is_empty() {
                reads.given_up().cancel();
                on_end(Ended::Silent(silences));
            }
        });
        let image = image::state(&options.source, parent_grid, &reads.reader());
        stop.cancel();
        lookout.thread().unpark();
        reads.given_up().check()?;
        image
    })
}

/// Tells of reads that take long, until everything is read, or some of it was waited for long enough: all that was.
pub(super) fn look_out(
    reads: &Reads,
    monitor: &dyn Monitor,
    stop: &Cancel,
    patience: Duration,
) -> Vec<Silence> {
    let mut lookout = Lookout::default();
    while !stop.is_cancelled() {
        thread::park_timeout(LOOK_INTERVAL);
        for (path, seconds) in lookout.look(reads, SLOW_LOOKS) {
            monitor.slow_source(&path, seconds);
        }
        let silent = lookout.silent(reads, patience.as_secs().max(1));
        if !silent.is_empty() {
            return silent.into_iter().map(|(path, seconds)| Silence { path, seconds }).collect();
        }
    }
    Vec::new()
}

/// Gives the attempt up if anything was silent. The threads that still can come to their end, as when somebody asks to stop,
/// with a last checkpoint for the attempt after this one; the rest is left behind, and holds as little as can be.
pub(super) fn give_up(
    silences: Vec<Silence>,
    reads: &Reads,
    held: &Held,
    assembled: Receiver<()>,
    on_end: &(dyn Fn(Ended) + Sync),
) {
    if silences.is_empty() {
        return;
    }
    reads.given_up().cancel();
    // Nothing is ever sent: the other end goes away when the last checkpoint is written, or cannot be.
    if assembled.recv_timeout(limits::GIVE_UP_PATIENCE) == Err(RecvTimeoutError::Timeout) {
        tracing::info!("the tree of what is given up is stuck as well");
    }
    held.release();
    on_end(Ended::Silent(silences));
}

/// Tells an error at once if a worker does not end: what it reads may never answer. What it still has to do is for nobody.
pub(super) fn leave_behind(
    error: &Error,
    reads: &Reads,
    held: &Held,
    workers: &Receiver<()>,
    on_end: &(dyn Fn(Ended) + Sync),
) {
    reads.given_up().cancel();
    // Nothing is ever sent: the other end goes away with the last of them.
    if workers.recv_timeout(WORKERS_PATIENCE) == Err(RecvTimeoutError::Timeout) {
        tracing::info!("a worker of what failed is stuck");
        held.release();
        on_end(Ended::Over(Box::new(Err(error.again()))));
    }
}

/// One look a second, so that looks are counted instead of time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many looks at the same read, and it is told of: no disk takes so long.
const SLOW_LOOKS: u64 = 10;
/// So long the workers of an attempt that failed may take for what they are at: a read and one segment, unless they are stuck.
const WORKERS_PATIENCE: Duration = Duration::from_secs(5);
