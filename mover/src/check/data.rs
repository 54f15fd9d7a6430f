//! Footers of packs, and the data in them: read in large ranges, many packs at once, opened and compared on all
//! cores.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

use super::{
    CheckReport,
    packs::{Pack, Packs},
    touched::Bad,
    verify::{Job, Verified, ciphers, verify},
    walk::damage,
    wanted::{Wanted, of_frame},
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::pack::{FooterFrame, pack_object},
    id::PackId,
    monitor::{Monitor, Problem, Progress},
    repo::{PackFooter, Repository},
    store::ByteRange,
};

/// Bytes of a pack that one request fetches from a directory: small enough to stay in the processor's cache.
const LOCAL_RANGE_BYTES: u64 = 1 << 20;
/// The same from a server, where each request has its price: a pack is four of them.
const REMOTE_RANGE_BYTES: u64 = 8 << 20;
/// Ranges held at once at most: enough for any server, whatever the memory.
const RANGES_AT_ONCE: usize = 64;
/// The same from a directory, for each thread: one that it works on, and two that are read meanwhile.
const LOCAL_RANGES_A_THREAD: usize = 3;
/// Bytes between two wanted frames that are rather read than asked around.
const GAP_BYTES: u64 = 256 << 10;
/// A footer with its rows as they are decoded takes some 2 MiB for a full pack; so many packs are looked at at once
/// at most.
const PACKS_AT_ONCE: usize = 16;

/// What all packs are looked at with.
#[derive(Clone)]
pub(super) struct Reading {
    pub repository: Repository,
    pub threads: Arc<rayon::ThreadPool>,
    /// Ranges that may be held at once.
    slots: Arc<Semaphore>,
    range_bytes: u64,
    /// Only frames that snapshots need, not all that packs have.
    only_wanted: bool,
}

impl Reading {
    pub(super) fn new(
        repository: &Repository,
        threads: usize,
        memory_bytes: u64,
        only_wanted: bool,
    ) -> Result<Self> {
        let local = repository.store().capabilities().local;
        let range_bytes = if local { LOCAL_RANGE_BYTES } else { REMOTE_RANGE_BYTES };
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("check-{index}"))
            .build()
            .map_err(|error| Error::unavailable("threads cannot be started").with_source(error))?;
        let most = if local { LOCAL_RANGES_A_THREAD * threads.current_num_threads() } else { RANGES_AT_ONCE };
        let slots = usize::try_from(memory_bytes / range_bytes).unwrap_or(usize::MAX).clamp(1, most);
        Ok(Self {
            repository: repository.clone(),
            threads: Arc::new(threads),
            slots: Arc::new(Semaphore::new(slots)),
            range_bytes,
            only_wanted,
        })
    }
}

/// What became of one pack.
#[derive(Debug, Default)]
struct Outcome {
    index: u32,
    pack: PackId,
    frames: u64,
    chunks: u64,
    bytes: u64,
    has_footer: bool,
    is_read: bool,
    /// What is wrong, with the offset of the frame if it is one.
    problems: Vec<(Option<u32>, String)>,
    /// Sendings that are damaged beside a whole one.
    spoiled: Vec<(String, String)>,
    /// Snapshots need it, and it is not there any more: a prune may have moved what was in it since it was listed.
    is_gone: bool,
}

/// Looks at footers and sizes of these packs, and at the data of those that are to be read. Answers which of those that
/// snapshots need have gone since they were listed: nothing was found out about them.
pub(super) async fn check(
    reading: &Reading,
    packs: &Packs,
    chosen: &[u32],
    wanted: &Arc<Wanted>,
    found: (&mut CheckReport, &mut Bad),
    monitor: &Arc<dyn Monitor>,
    cancel: &Cancel,
) -> Result<Vec<PackId>> {
    let ((report, bad), mut gone) = (found, Vec::new());
    let parallel = reading.repository.store().capabilities().preferred_parallel_gets;
    let mut running: JoinSet<Result<Outcome>> = JoinSet::new();
    for index in chosen {
        cancel.check()?;
        while running.len() >= parallel.clamp(2, PACKS_AT_ONCE) {
            let Some(done) = running.join_next().await else { break };
            gone.extend(take(done, report, bad, &**monitor)?);
        }
        let pack = packs.all[*index as usize];
        let sendings = packs.sendings(pack.id).to_vec();
        let (reading, wanted, monitor) = (reading.clone(), Arc::clone(wanted), Arc::clone(monitor));
        let index = *index;
        running.spawn(async move { look_at(&reading, index, pack, &sendings, &wanted, &monitor).await });
    }
    while let Some(done) = running.join_next().await {
        gone.extend(take(done, report, bad, &**monitor)?);
    }
    Ok(gone)
}

/// Counts what became of a pack; answers which it is if it has gone.
fn take(
    done: Result<Result<Outcome>, tokio::task::JoinError>,
    report: &mut CheckReport,
    bad: &mut Bad,
    monitor: &dyn Monitor,
) -> Result<Option<PackId>> {
    let done = done.map_err(|error| Error::internal("reading a pack broke").with_source(error))??;
    if done.is_gone {
        return Ok(Some(done.pack));
    }
    report.packs_sized += 1;
    report.packs_read += u64::from(done.is_read);
    report.frames += done.frames;
    report.chunks += done.chunks;
    report.bytes_read += done.bytes;
    if !done.has_footer {
        bad.doubt(done.pack);
    }
    for (object, problem) in done.spoiled {
        report.spoiled_copies += 1;
        monitor.problem(Problem { what: object, message: format!("{problem}; another copy is whole") });
    }
    for (frame, problem) in done.problems {
        report.add_damaged_pack(monitor, done.pack, problem);
        if let Some(offset) = frame {
            bad.add_frame(done.pack, offset);
        }
    }
    Ok(None)
}

async fn look_at(
    reading: &Reading,
    index: u32,
    pack: Pack,
    sendings: &[(u8, u64)],
    wanted: &Arc<Wanted>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Outcome> {
    let mut outcome = Outcome { index, pack: pack.id, is_read: pack.read, ..Outcome::default() };
    let (mut is_whole, mut damaged) = (false, Vec::new());
    // A pack that arrived once is asked for under all its names: the listing may be older than another sending.
    let names: Vec<(Option<u8>, u64)> = match sendings {
        [] => vec![(None, pack.size)],
        several => several.iter().map(|(attempt, size)| (Some(*attempt), *size)).collect(),
    };
    for (name, size) in names {
        let footer = match name {
            None => reading.repository.footer(pack.id).await,
            Some(attempt) => reading.repository.footer_of_sending(pack.id, attempt).await,
        };
        if footer.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            continue;
        }
        let attempt = name.unwrap_or_else(|| footer.as_ref().map_or(0, |footer| footer.attempt));
        let (has_footer, problems) = match judge(reading, footer, size).await? {
            Err(problem) => (false, vec![(None, problem)]),
            Ok(_) if is_whole => continue,
            Ok(found) => {
                if pack.read {
                    read(reading, found, wanted, &mut outcome, monitor).await?;
                }
                (true, std::mem::take(&mut outcome.problems))
            }
        };
        match problems.is_empty() {
            true => is_whole = true,
            false => damaged.push(Damaged { attempt, has_footer, problems }),
        }
    }
    outcome.has_footer = is_whole || damaged.iter().all(|sending| sending.has_footer);
    if !is_whole {
        // Without any sending, a prune has deleted it since it was listed.
        outcome.is_gone = pack.needed && damaged.is_empty();
        outcome.problems = of_all(&damaged);
    }
    if outcome.problems.is_empty() {
        outcome.spoiled = damaged.into_iter().map(|sending| sending.in_words(pack.id)).collect();
    }
    Ok(outcome)
}

/// A sending of a pack that is not whole.
struct Damaged {
    attempt: u8,
    has_footer: bool,
    problems: Vec<(Option<u32>, String)>,
}

impl Damaged {
    fn in_words(self, pack: PackId) -> (String, String) {
        let first = self.problems.into_iter().next().map(|(_, problem)| problem);
        (pack_object(pack, self.attempt), first.unwrap_or_default())
    }
}

/// What is wrong with a pack of which no sending is whole: the frames that are damaged in each. Of a sending without a footer
/// nobody knows which these are.
fn of_all(damaged: &[Damaged]) -> Vec<(Option<u32>, String)> {
    let Some((first, rest)) = damaged.split_first() else { return Vec::new() };
    if !damaged.iter().all(|sending| sending.has_footer) {
        return first.problems.iter().map(|(_, problem)| (None, problem.clone())).collect();
    }
    let offsets = |sending: &Damaged| sending.problems.iter().map(|(offset, _)| *offset).collect();
    let rest: Vec<HashSet<Option<u32>>> = rest.iter().map(offsets).collect();
    let everywhere = |(offset, _): &&(Option<u32>, String)| rest.iter().all(|bad| bad.contains(offset));
    first.problems.iter().filter(everywhere).cloned().collect()
}

/// A footer that was opened and speaks of no more than there is; or what is wrong with it.
async fn judge(
    reading: &Reading,
    footer: Result<PackFooter>,
    size: u64,
) -> Result<Result<PackFooter, String>> {
    let found = match footer {
        Ok(footer) => footer,
        // Who holds all keys there are holds every generation that a pack can truly be of.
        Err(error) if error.kind() == ErrorKind::Denied && reading.repository.keys().can_read_data() => {
            reading.repository.check_keys_unchanged().await?;
            return Ok(Err(format!("its trailer is damaged: {}", error.in_one_line())));
        }
        Err(error) => return damage(error).map(|error| Err(error.to_string())),
    };
    let last = found.footer.frames.last();
    let end = last.map_or(0, |frame| u64::from(frame.place.offset) + u64::from(frame.place.stored));
    let needed = end + found.tail_bytes;
    if needed > size {
        return Ok(Err(format!("it has {size} bytes, its footer speaks of {needed}")));
    }
    Ok(Ok(found))
}

/// Reads and compares the frames of one sending of a pack.
async fn read(
    reading: &Reading,
    found: PackFooter,
    wanted: &Arc<Wanted>,
    outcome: &mut Outcome,
    monitor: &Arc<dyn Monitor>,
) -> Result<()> {
    let PackFooter { footer, attempt, .. } = found;
    let rows = wanted.of_pack(outcome.index);
    let is_listed = |offset| footer.frames.binary_search_by_key(&offset, |frame| frame.place.offset).is_ok();
    for row in rows.iter().filter(|row| row.is_frame() && !is_listed(row.frame)) {
        let problem = format!("a snapshot needs a frame at {} that its footer does not list", row.frame);
        outcome.problems.push((Some(row.frame), problem));
    }
    let ciphers = Arc::new(ciphers(reading.repository.keys(), &footer));
    let frames = footer.frames.into_iter();
    let frames =
        frames.filter(|frame| !reading.only_wanted || !of_frame(rows, frame.place.offset).is_empty());
    let mut ranges: JoinSet<Result<Verified>> = JoinSet::new();
    for frames in split(frames, reading.range_bytes) {
        let closed = |error| Error::internal("the slots were closed").with_source(error);
        let slot = Arc::clone(&reading.slots).acquire_owned().await.map_err(closed)?;
        let job = Job {
            keys: reading.repository.keys().clone(),
            index: outcome.index,
            frames,
            wanted: Arc::clone(wanted),
            ciphers: Arc::clone(&ciphers),
        };
        let (reading, sending) = (reading.clone(), (outcome.pack, attempt));
        let needed = !rows.is_empty();
        ranges.spawn(async move {
            let verified = read_range(&reading, sending, needed, job).await;
            drop(slot);
            verified
        });
        while let Some(done) = ranges.try_join_next() {
            add(done, outcome, monitor)?;
        }
    }
    while let Some(done) = ranges.join_next().await {
        add(done, outcome, monitor)?;
    }
    Ok(())
}

fn add(
    done: Result<Result<Verified>, tokio::task::JoinError>,
    outcome: &mut Outcome,
    monitor: &Arc<dyn Monitor>,
) -> Result<()> {
    let done = done.map_err(|error| Error::internal("verifying did not finish").with_source(error))??;
    outcome.frames += done.frames;
    outcome.chunks += done.chunks;
    outcome.bytes += done.bytes;
    outcome.is_gone |= done.is_gone;
    outcome.problems.extend(done.bad.into_iter().map(|(offset, problem)| (Some(offset), problem)));
    Progress::add(&monitor.progress().bytes, done.bytes);
    Progress::add(&monitor.progress().bytes_stored, done.bytes);
    Ok(())
}

/// Stretches of frames that one request fetches.
fn split(frames: impl Iterator<Item = FooterFrame>, range_bytes: u64) -> Vec<Vec<FooterFrame>> {
    let mut ranges: Vec<Vec<FooterFrame>> = Vec::new();
    let mut last_end = 0;
    for frame in frames {
        let start = u64::from(frame.place.offset);
        let end = start + u64::from(frame.place.stored);
        match ranges.last_mut() {
            Some(range)
                if end - u64::from(range[0].place.offset) <= range_bytes && start - last_end <= GAP_BYTES =>
            {
                range.push(frame);
            }
            _ => ranges.push(vec![frame]),
        }
        last_end = end;
    }
    ranges
}

async fn read_range(
    reading: &Reading,
    (pack, attempt): (PackId, u8),
    needed: bool,
    job: Job,
) -> Result<Verified> {
    let (Some(first), Some(last)) = (job.frames.first(), job.frames.last()) else {
        return Ok(Verified::default());
    };
    let offset = u64::from(first.place.offset);
    let length = u64::from(last.place.offset) + u64::from(last.place.stored) - offset;
    let range = ByteRange::Slice { offset, length };
    let bytes: Bytes = match reading.repository.read_sending(pack, attempt, range).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Verified { is_gone: needed, ..Verified::default() });
        }
        Err(error) => {
            let problem = damage(error)?.to_string();
            let bad = job.frames.iter().map(|frame| (frame.place.offset, problem.clone())).collect();
            return Ok(Verified { bad, ..Verified::default() });
        }
    };
    let (answer, answered) = oneshot::channel();
    reading.threads.spawn(move || {
        // Nobody waits for the answer only when the check has failed or was stopped.
        drop(answer.send(verify(&job, bytes)));
    });
    answered.await.map_err(|error| Error::internal("verifying did not finish").with_source(error))
}
