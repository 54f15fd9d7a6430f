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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    batch::{Batch, Fetch, FileTask, FramePart, Range},
    compare, worker_count,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::frame::FrameKind,
    limits,
    monitor::{Monitor, Progress},
    reader::SnapshotReader,
    store::ByteRange,
    target::tree::{Made, TargetTree},
};

#[cfg(test)]
mod tests;

/// Requests under way at once at most, whatever the store prefers.
const REQUESTS_MAX: usize = 32;
/// Jobs that wait for a worker at most. Workers are threads of their own, so a sender that waits for them stops
/// nothing that they need.
const JOBS_WAITING: usize = 1024;
/// Bytes in flight for each worker when they come from a directory: they shall be in the processor's cache still when
/// their turn comes, and nobody has to be asked long before.
const LOCAL_BYTES_A_WORKER: u64 = 4 << 20;
/// Frames that were opened from another sending take this part of the bytes in flight beside them, and as much again while
/// they are opened; but one there is at least.
const OPENED_SHARE: u64 = 4;
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
    /// What ended everything: a full disk, or a defect of the program.
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

    /// Reports a file that cannot be restored, once. A full disk ends everything, and so does a defect.
    pub(crate) fn fail(&self, task: &FileTask, error: &Error) {
        self.end_if_fatal(error);
        let quiet = error.kind() == ErrorKind::Cancelled || self.stop.is_cancelled();
        if task.fail() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            if quiet {
                return;
            }
            super::report(&*self.monitor, &task.path, error);
        }
    }

    /// Reports what is not a file and cannot be restored. A full disk ends everything, and so does a defect.
    pub(crate) fn report(&self, path: &[u8], error: &Error) {
        self.end_if_fatal(error);
        if !self.stop.is_cancelled() {
            super::report(&*self.monitor, path, error);
        }
    }

    fn end_if_fatal(&self, error: &Error) {
        let ends = match error.kind() {
            ErrorKind::NoSpace => error
                .again()
                .with_hint("free space there and restore again: what is complete is not written twice"),
            ErrorKind::Internal => error.again(),
            _ => return,
        };
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ends);
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
    Range { batch: Arc<Batch>, range: Range, bytes: Result<Bytes>, back: WayBack },
    /// A range whose pack was moved: frames that were found one by one.
    Frames { batch: Arc<Batch>, range: Range, frames: Vec<Result<Bytes>>, back: WayBack },
    /// A frame that was spoiled at first, opened from another sending of its pack.
    Opened {
        batch: Arc<Batch>,
        part: FramePart,
        plain: Result<Vec<u8>>,
        /// The budget of the range that it was in.
        _budget: Arc<OwnedSemaphorePermit>,
        /// Its turn among those that are open.
        _turn: OwnedSemaphorePermit,
    },
    /// A file that has no pieces left.
    Complete(Arc<FileTask>),
}

/// How a worker gives spoiled frames back to whoever fetched them: it does not wait for a store.
#[derive(Debug)]
pub(crate) struct WayBack {
    answer: oneshot::Sender<Spoiled>,
    /// The range's bytes of the budget, given back when all of it is done.
    budget: OwnedSemaphorePermit,
}

/// Frames whose bytes are not what was stored.
#[derive(Debug)]
struct Spoiled {
    batch: Arc<Batch>,
    parts: Vec<(FramePart, Error)>,
    budget: OwnedSemaphorePermit,
}

impl WayBack {
    /// A range is done, but for these frames.
    pub(crate) fn give(self, batch: Arc<Batch>, parts: Vec<(FramePart, Error)>) {
        if !parts.is_empty() {
            let spoiled = Spoiled { batch, parts, budget: self.budget };
            // Nobody waits for it only when the restore has failed already.
            self.answer.send(spoiled).unwrap_or_default();
        }
    }
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
    elsewhere: Elsewhere,
}

/// Where frames are opened that workers found spoiled.
#[derive(Debug, Clone)]
struct Elsewhere {
    jobs: Sender<Job>,
    /// Frames that may be open and wait for a worker at once: a budget of stored bytes says nothing about those.
    turns: Arc<Semaphore>,
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
        let longest = limits::FRAME_LIMIT.max(limits::PAGE_LIMIT) as u64;
        let turns = usize::try_from(in_flight_bytes / OPENED_SHARE / longest).unwrap_or(usize::MAX);
        let turns = turns.clamp(1, worker_count(threads));
        let elsewhere = Elsewhere { jobs: jobs.clone(), turns: Arc::new(Semaphore::new(turns)) };
        Ok(Self {
            shared,
            jobs,
            workers,
            fetch,
            budget: Arc::new(Semaphore::new(budget_units as usize)),
            budget_units,
            requests: Arc::new(Semaphore::new(requests)),
            elsewhere,
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
            let (shared, batch) = (Arc::clone(&self.shared), Arc::clone(&batch));
            let elsewhere = self.elsewhere.clone();
            tokio::spawn(async move {
                let (reader, cancel) = (shared.reader.clone(), shared.cancel.clone());
                let (answer, spoiled) = oneshot::channel();
                let job = fetch(&shared, batch, range, WayBack { answer, budget }).await;
                // The last worker's end must find nobody else holding on to the target.
                drop((request, shared));
                // Nobody receives any more only when the restore has failed already.
                elsewhere.jobs.send(job).unwrap_or_default();
                if let Ok(spoiled) = spoiled.await {
                    elsewhere.open(&reader, &cancel, spoiled).await;
                }
            });
        }
        Ok(())
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::internal("the workers of a restore are gone"))
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result<()> {
        let Self { shared, jobs, workers, elsewhere, .. } = self;
        drop((jobs, elsewhere));
        tokio::task::spawn_blocking(move || workers.into_iter().try_for_each(JoinHandle::join))
            .await
            .map_err(|error| Error::internal("the workers did not finish").with_source(error))?
            .map_err(|_| Error::internal("a worker of the restore panicked"))?;
        shared.check()
    }
}

async fn fetch(shared: &Shared, batch: Arc<Batch>, range: Range, back: WayBack) -> Job {
    let slice = ByteRange::Slice { offset: range.start, length: range.length() };
    let bytes = match shared.cancel.check() {
        Ok(()) => shared.reader.access().read_pack(range.pack, slice).await,
        Err(error) => Err(error),
    };
    match bytes {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
            // RESTORE: each frame may have gone somewhere else.
            let mut frames = Vec::with_capacity(range.parts.len());
            for part in &range.parts {
                frames.push(shared.reader.stored_frame(&part.place).await);
            }
            Job::Frames { batch, range, frames, back }
        }
        bytes => {
            if let Ok(bytes) = &bytes {
                shared.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Progress::add(&shared.monitor.progress().bytes_stored, bytes.len() as u64);
            }
            Job::Range { batch, range, bytes, back }
        }
    }
}

impl Elsewhere {
    /// Frames that workers found spoiled: another sending of their pack may have them whole. One has its turn until a
    /// worker is done with it, and workers wait for nothing that this needs.
    async fn open(&self, reader: &SnapshotReader, cancel: &Cancel, spoiled: Spoiled) {
        let Spoiled { batch, parts, budget } = spoiled;
        let budget = Arc::new(budget);
        for (part, error) in parts {
            // Nobody closes it.
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return };
            let plain = match cancel.check() {
                Ok(()) => reader.open_elsewhere(FrameKind::Data, &part.place, error).await,
                Err(error) => Err(error),
            };
            let (batch, _budget) = (Arc::clone(&batch), Arc::clone(&budget));
            self.jobs.send(Job::Opened { batch, part, plain, _budget, _turn: turn }).unwrap_or_default();
        }
    }
}
