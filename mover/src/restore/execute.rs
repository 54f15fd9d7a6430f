//! Fetches ranges of packs and hands them to the workers, within a budget of bytes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    batch::{Batch, Fetch, FileTask, Range},
    compare, worker_count,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    monitor::{Monitor, Progress},
    reader::SnapshotReader,
    store::ByteRange,
    target::tree::{Made, TargetTree},
};

/// Requests under way at once at most, whatever the store prefers.
const REQUESTS_MAX: usize = 32;
/// Jobs that wait for a worker at most. Workers are threads of their own, so a sender that waits for them stops
/// nothing that they need.
const JOBS_WAITING: usize = 1024;
/// Bytes in flight for each worker when they come from a directory: they shall be in the processor's cache still when
/// their turn comes, and nobody has to be asked long before.
const LOCAL_BYTES_A_WORKER: u64 = 4 << 20;
/// Unit of the budget of bytes in flight: semaphores count to 2^29 or so.
const BUDGET_UNIT: u64 = 1024;

/// What planner, fetchers and workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub reader: SnapshotReader,
    pub tree: Option<TargetTree>,
    /// Whether a device's present contents are read before they are written.
    pub compare_block: bool,
    pub monitor: Arc<dyn Monitor>,
    pub cancel: Cancel,
    /// Files with several names that are complete, by device and inode of the source.
    pub made: Mutex<HashMap<(u64, u64), Made>>,
    pub written: AtomicU64,
    pub fetched: AtomicU64,
    failed: AtomicU64,
    /// What ended everything: a full disk.
    fatal: Mutex<Option<Error>>,
    stop: Cancel,
}

impl Shared {
    pub(crate) fn new(
        reader: &SnapshotReader,
        tree: Option<TargetTree>,
        monitor: Arc<dyn Monitor>,
        cancel: Cancel,
    ) -> Self {
        Self {
            reader: reader.clone(),
            tree,
            compare_block: false,
            monitor,
            cancel,
            made: Mutex::default(),
            written: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            fatal: Mutex::default(),
            stop: Cancel::default(),
        }
    }

    /// Reports a file that cannot be restored, once. A full disk ends everything.
    pub(crate) fn fail(&self, task: &FileTask, error: &Error) {
        self.end_if_full(error);
        let quiet = error.kind() == ErrorKind::Cancelled || self.stop.is_cancelled();
        if task.fail() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            if quiet {
                return;
            }
            super::report(&*self.monitor, &task.path, error);
        }
    }

    /// Reports what is not a file and cannot be restored. A full disk ends everything.
    pub(crate) fn report(&self, path: &[u8], error: &Error) {
        self.end_if_full(error);
        if !self.stop.is_cancelled() {
            super::report(&*self.monitor, path, error);
        }
    }

    fn end_if_full(&self, error: &Error) {
        if error.kind() != ErrorKind::NoSpace {
            return;
        }
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        if fatal.is_none() {
            let hint = "free space there and restore again: what is complete is not written twice";
            *fatal = Some(Error::no_space(error.in_one_line()).with_hint(hint));
        }
        self.stop.cancel();
    }

    /// How many files could not be restored.
    pub(crate) fn failed_files(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Fails once somebody asked to stop, or nothing more can be written.
    pub(crate) fn check(&self) -> Result<()> {
        if self.stop.is_cancelled()
            && let Some(error) = self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Err(error);
        }
        self.cancel.check()
    }

    /// Whether workers only drain what is left.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.cancel.is_cancelled()
    }
}

/// Something for a worker.
#[derive(Debug)]
pub(crate) enum Job {
    /// A fetched range.
    Range {
        batch: Arc<Batch>,
        range: Range,
        bytes: Result<Bytes>,
        /// Its bytes of the budget, given back when the job is done.
        _budget: OwnedSemaphorePermit,
    },
    /// A range whose pack was moved: frames that were found one by one.
    Frames { batch: Arc<Batch>, range: Range, frames: Vec<Result<Bytes>> },
    /// A file that has no pieces left.
    Complete(Arc<FileTask>),
}

/// Workers and the way to them.
#[derive(Debug)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    workers: Vec<JoinHandle<()>>,
    fetch: Fetch,
    budget: Arc<Semaphore>,
    budget_units: u32,
    requests: Arc<Semaphore>,
}

impl Executor {
    /// Starts workers that keep `in_flight_bytes` of stored bytes between them and the store.
    pub(crate) fn start(shared: Arc<Shared>, threads: usize, in_flight_bytes: u64) -> Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(JOBS_WAITING);
        let spawn = |index: usize| {
            let (shared, queue): (_, Receiver<Job>) = (Arc::clone(&shared), queue.clone());
            std::thread::Builder::new()
                .name(format!("restore-{index}"))
                .spawn(move || super::work::run(&shared, &queue))
                .map_err(|error| Error::io(error, "start a worker thread"))
        };
        let workers = (0..worker_count(threads)).map(spawn).collect::<Result<_>>()?;
        let access = shared.reader.access();
        let most = worker_count(threads) as u64 * LOCAL_BYTES_A_WORKER;
        let in_flight_bytes = if access.is_local() { in_flight_bytes.min(most) } else { in_flight_bytes };
        let fetch = Fetch::suited(access.is_local(), in_flight_bytes);
        let budget_units = u32::try_from(in_flight_bytes / BUDGET_UNIT).unwrap_or(u32::MAX / 8).max(1);
        let requests = access.parallel_reads().clamp(1, REQUESTS_MAX);
        Ok(Self {
            shared,
            jobs,
            workers,
            fetch,
            budget: Arc::new(Semaphore::new(budget_units as usize)),
            budget_units,
            requests: Arc::new(Semaphore::new(requests)),
        })
    }

    /// Sends a batch on its way; comes back when all of it is fetched or being fetched.
    pub(crate) async fn run(&self, mut batch: Batch) -> Result<()> {
        if batch.compares {
            let shared = Arc::clone(&self.shared);
            batch = tokio::task::spawn_blocking(move || {
                compare::drop_present(&mut batch, &shared);
                batch
            })
            .await
            .map_err(|error| Error::internal("comparing did not finish").with_source(error))?;
        }
        for task in std::mem::take(&mut batch.complete) {
            self.send(Job::Complete(task))?;
        }
        let (batch, ranges) = batch.into_ranges(&self.shared.reader, &self.fetch);
        let batch = Arc::new(batch);
        for range in ranges {
            self.shared.check()?;
            let units = u32::try_from(range.length().div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
            let units = units.clamp(1, self.budget_units);
            let closed = |error| Error::internal("the budget was closed").with_source(error);
            let budget = Arc::clone(&self.budget).acquire_many_owned(units).await.map_err(closed)?;
            let request = Arc::clone(&self.requests).acquire_owned().await.map_err(closed)?;
            let (shared, jobs, batch) = (Arc::clone(&self.shared), self.jobs.clone(), Arc::clone(&batch));
            tokio::spawn(async move {
                let job = fetch(&shared, batch, range, budget).await;
                // The last worker's end must find nobody else holding on to the target.
                drop((request, shared));
                // Nobody receives any more only when the restore has failed already.
                jobs.send(job).unwrap_or_default();
            });
        }
        Ok(())
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::internal("the workers of a restore are gone"))
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result<()> {
        let Self { shared, jobs, workers, .. } = self;
        drop(jobs);
        tokio::task::spawn_blocking(move || workers.into_iter().try_for_each(JoinHandle::join))
            .await
            .map_err(|error| Error::internal("the workers did not finish").with_source(error))?
            .map_err(|_| Error::internal("a worker of the restore panicked"))?;
        shared.check()
    }
}

async fn fetch(shared: &Shared, batch: Arc<Batch>, range: Range, budget: OwnedSemaphorePermit) -> Job {
    let slice = ByteRange::Slice { offset: range.start, length: range.length() };
    let bytes = match shared.cancel.check() {
        Ok(()) => shared.reader.access().read_pack(range.pack, slice).await,
        Err(error) => Err(error),
    };
    match bytes {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // RESTORE: each frame may have gone somewhere else.
            let mut frames = Vec::with_capacity(range.parts.len());
            for part in &range.parts {
                frames.push(shared.reader.stored_frame(&part.place).await);
            }
            Job::Frames { batch, range, frames }
        }
        bytes => {
            if let Ok(bytes) = &bytes {
                shared.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Progress::add(&shared.monitor.progress().bytes_stored, bytes.len() as u64);
            }
            Job::Range { batch, range, bytes, _budget: budget }
        }
    }
}
