use super::*;
use crate::{
    format::{
        entry::{Content, Run},
        frame::Compression,
        metadata::{Kind, Metadata},
    },
    id::PackId,
    monitor::CollectMonitor,
    reader::testing::{Packs, Writer, entry, noise},
    restore::{RestoreOptions, batch::Sink, restore},
};

/// Files of two frames each, in several packs.
fn sample() -> (SnapshotReader, Arc<Packs>, Vec<Vec<u8>>) {
    let mut writer = Writer::new();
    writer.pack_limit = 100_000;
    let packs = Arc::clone(&writer.packs);
    let (mut entries, mut files) = (Vec::new(), Vec::new());
    for index in 0..12u64 {
        let halves = [noise(2 * index, 20_000), noise(2 * index + 1, 20_000)];
        let runs: Vec<Run> = halves
            .iter()
            .map(|half| writer.frame(FrameKind::Data, &[half], Compression::Zstd).remove(0))
            .map(Run::Chunk)
            .collect();
        let path = format!("file{index:02}");
        entries.push(entry(&path, Kind::File, Content::Inline(runs), 40_000));
        files.push(halves.concat());
    }
    (writer.finish(entries, 8), packs, files)
}

/// Puts garbage in the place of every first sending, and each whole pack under a later attempt.
fn squat(packs: &Packs) {
    let mut again = packs.sent_again.lock().unwrap();
    for (number, (pack, body)) in (1..).zip(packs.packs.lock().unwrap().iter_mut()) {
        let garbage = Bytes::from(vec![0; body.len()]);
        again.insert((*pack, number), std::mem::replace(body, garbage));
    }
}

async fn restored(reader: &SnapshotReader, files: &[Vec<u8>]) {
    let target = tempfile::tempdir().unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let options = RestoreOptions { verify: true, ..RestoreOptions::to(target.path()) };
    let report = restore(reader, &options, Arc::clone(&monitor) as _, Cancel::default()).await.unwrap();
    assert_eq!(monitor.problems(), []);
    assert_eq!(report.files_verified, files.len() as u64);
    for (index, contents) in files.iter().enumerate() {
        let found = std::fs::read(target.path().join(format!("file{index:02}"))).unwrap();
        assert!(found == *contents, "file{index:02} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_sending_of_each_pack_is_garbage_a_later_one_serves() {
    let (reader, packs, files) = sample();
    squat(&packs);
    restored(&reader, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_where_a_repack_has_moved_everything() {
    let (reader, packs, files) = sample();
    {
        let mut all = packs.packs.lock().unwrap();
        let old: Vec<(PackId, Bytes)> = all.drain().collect();
        let mut moved = packs.moved.lock().unwrap();
        for (number, (pack, body)) in (1..).zip(old) {
            let fresh = PackId([number; 16]);
            for offset in 0..u32::try_from(body.len()).unwrap() {
                moved.insert((pack, offset), (fresh, offset));
            }
            all.insert(fresh, body);
        }
    }
    squat(&packs);
    restored(&reader, &files).await;
}

/// All frames of the files.
async fn everything(reader: &SnapshotReader) -> (Arc<Batch>, Vec<Range>) {
    let mut batch = Batch::default();
    for index in 0..12 {
        let entry = reader.lookup(format!("file{index:02}").as_bytes()).await.unwrap().unwrap();
        let task = Arc::new(FileTask::new(entry.path, entry.metadata, Sink::Check));
        let file = batch.file(task);
        let Content::Inline(runs) = entry.content else { panic!("inline") };
        for run in &runs {
            let Run::Chunk(chunk) = run else { panic!("a chunk") };
            batch.add(file, 0, chunk).unwrap();
        }
    }
    let (batch, ranges) = batch.into_ranges(reader, &Fetch::suited(true, 1 << 20));
    (Arc::new(batch), ranges)
}

/// The same, as spoiled ones that come back from workers.
async fn all_spoiled(reader: &SnapshotReader, budget: &Arc<Semaphore>) -> Vec<Spoiled> {
    let (batch, ranges) = everything(reader).await;
    let mut all = Vec::new();
    for range in ranges {
        let parts = range.parts.into_iter().map(|part| (part, Error::corrupt("spoiled"))).collect();
        let budget = Arc::clone(budget).acquire_owned().await.unwrap();
        all.push(Spoiled { batch: Arc::clone(&batch), parts, budget });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_from_elsewhere_are_opened_as_workers_are_done_with_them() {
    let (reader, packs, _) = sample();
    squat(&packs);
    let (jobs, queue) = crossbeam_channel::bounded(JOBS_WAITING);
    let budget = Arc::new(Semaphore::new(100));
    let spoiled = all_spoiled(&reader, &budget).await;
    let (fetchers, frames) =
        (spoiled.len(), spoiled.iter().map(|spoiled| spoiled.parts.len()).sum::<usize>());
    assert!(fetchers > 2 && frames == 24, "{fetchers} ranges with {frames} frames");
    let elsewhere = Elsewhere { jobs, turns: Arc::new(Semaphore::new(1)) };
    for spoiled in spoiled {
        let (elsewhere, reader) = (elsewhere.clone(), reader.clone());
        tokio::spawn(async move { elsewhere.open(&reader, &Cancel::default(), spoiled).await });
    }
    let turns = Arc::clone(&elsewhere.turns);
    drop(elsewhere);
    let work = move || {
        let mut opened = 0;
        while let Ok(job) = queue.recv() {
            // As long as this one is being written, no other is open.
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(queue.is_empty() && turns.available_permits() == 0);
            let Job::Opened { plain, .. } = job else { panic!("a frame") };
            assert_eq!(plain.unwrap().len(), 20_000);
            opened += 1;
        }
        opened
    };
    assert_eq!(tokio::task::spawn_blocking(work).await.unwrap(), frames);
    assert_eq!(budget.available_permits(), 100);
}

#[tokio::test]
async fn what_the_store_does_not_answer_for_is_not_asked_for_again_frame_by_frame() {
    let (reader, packs, _) = sample();
    let (batch, ranges) = everything(&reader).await;
    let (shared, _) = watched(&reader);
    let mut ranges = ranges.into_iter();
    let mut ask = || {
        let (answer, _) = oneshot::channel();
        let budget = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        packs.reads.store(0, Ordering::Relaxed);
        fetch(&shared, Arc::clone(&batch), ranges.next().unwrap(), WayBack { answer, budget })
    };
    let reads = || packs.reads.load(Ordering::Relaxed);
    let Job::Range { range, bytes: Ok(bytes), .. } = ask().await else { panic!("a range with its bytes") };
    assert_eq!((bytes.len() as u64, reads()), (range.length(), 1));
    assert_eq!(shared.fetched.load(Ordering::Relaxed), range.length());
    packs.silent_once.store(true, Ordering::Relaxed);
    let Job::Range { bytes: Err(error), .. } = ask().await else { panic!("a range without bytes") };
    assert_eq!((error.kind(), reads()), (ErrorKind::Unavailable, 1));
    shared.cancel.cancel();
    let Job::Range { bytes: Err(error), .. } = ask().await else { panic!("a range without bytes") };
    assert_eq!((error.kind(), reads()), (ErrorKind::Cancelled, 0));
    assert_eq!(shared.fetched.load(Ordering::Relaxed), range.length());
}

fn watched(reader: &SnapshotReader) -> (Shared, Arc<CollectMonitor>) {
    let monitor = Arc::new(CollectMonitor::default());
    (Shared::new(reader, None, Arc::clone(&monitor) as _, Cancel::default()), monitor)
}

fn nothing() -> SnapshotReader {
    Writer::new().finish(Vec::new(), 2)
}

fn task(path: &str) -> FileTask {
    FileTask::new(path.into(), Metadata::default(), Sink::Check)
}

#[tokio::test]
async fn what_is_in_flight_has_a_bound_by_memory_and_by_what_workers_need() {
    let reader = nothing();
    // A worker needs 4 MiB. Each turn at a frame from elsewhere takes 16 MiB, of a quarter of them all.
    for (threads, bytes, units, turns) in
        [(2, 1 << 30, 8 << 10, 1), (2, 1 << 20, 1 << 10, 1), (2, 0, 1, 1), (64, 1 << 30, 256 << 10, 4)]
    {
        let executor = Executor::start(Arc::new(watched(&reader).0), threads, bytes).unwrap();
        assert_eq!(executor.budget_units, units);
        assert_eq!(executor.budget.available_permits(), units as usize);
        assert_eq!(executor.elsewhere.turns.available_permits(), turns);
        assert_eq!((executor.workers.len(), executor.requests.available_permits()), (threads, 4));
        executor.finish().await.unwrap();
    }
}

#[test]
fn a_file_that_fails_is_counted_and_reported_once() {
    let (shared, monitor) = watched(&nothing());
    let (bad, stopped) = (task("bad"), task("stopped"));
    shared.fail(&bad, &Error::corrupt("the first problem"));
    shared.fail(&bad, &Error::corrupt("another one"));
    // Whoever stopped it knows.
    shared.fail(&stopped, &Error::cancelled("stopped"));
    assert!(bad.has_failed() && stopped.has_failed());
    shared.report(b"node", &Error::denied("not allowed").with_hint("ask"));
    let problems = monitor.problems().into_iter().map(|problem| (problem.what, problem.message));
    let wanted = [("bad", "the first problem"), ("node", "not allowed (ask)")];
    assert!(problems.eq(wanted.map(|(what, message)| (what.to_owned(), message.to_owned()))));
    assert_eq!(shared.failed_files(), 2);
    shared.check().unwrap();
    assert!(!shared.is_over());
    shared.cancel.cancel();
    assert!(shared.is_over());
    assert_eq!(shared.check().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_full_disk_ends_everything_and_is_told_once() {
    for of_a_file in [true, false] {
        let (shared, monitor) = watched(&nothing());
        let full = Error::no_space("the disk is full");
        if of_a_file {
            shared.fail(&task("file"), &full);
        } else {
            shared.report(b"node", &full);
        }
        assert!(shared.is_over());
        // What fails from now on fails because of that.
        shared.fail(&task("other"), &Error::corrupt("cut off"));
        shared.fail(&task("third"), &Error::no_space("still full"));
        shared.report(b"directory", &Error::denied("not there"));
        assert_eq!(shared.failed_files(), 2 + u64::from(of_a_file));
        assert_eq!(monitor.problems(), []);
        let error = shared.check().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NoSpace, "the disk is full"));
        assert!(error.hint().unwrap().contains("restore again"));
    }
}

#[test]
fn a_defect_of_the_program_ends_everything_and_says_where_it_was() {
    for of_a_file in [true, false] {
        let (shared, monitor) = watched(&nothing());
        let defect = Error::internal("two and two are five").context("file");
        if of_a_file {
            shared.fail(&task("file"), &defect);
        } else {
            shared.report(b"node", &defect);
        }
        shared.fail(&task("other"), &Error::no_space("full as well"));
        assert!(shared.is_over());
        assert_eq!(monitor.problems(), []);
        let error = shared.check().unwrap_err();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Internal, None));
        let contradiction = error.contradiction().unwrap();
        assert_eq!(contradiction.what, "two and two are five");
        assert!(contradiction.place.file().ends_with("execute/tests.rs"), "{contradiction:?}");
    }
}
