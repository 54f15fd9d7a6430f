use std::{path::Path, sync::Arc};

use tokio::sync::Semaphore;

use super::*;
use crate::{
    cancel::Cancel,
    format::{
        entry::{Content, Entry, Run},
        frame::{ChunkRef, Compression},
        metadata::{Kind, Metadata},
    },
    id::ChunkId,
    monitor::{CollectMonitor, Monitor as _},
    reader::testing::{Writer, entry, noise},
    restore::{RestoreOptions, batch::Fetch, restore},
    target::tree::{TargetOptions, TargetTree},
};

fn piece_at(file: u32, offset: u32, at: u64) -> Piece {
    Piece { frame: 0, offset, length: 10, file, at, id: ChunkId([0; 32]) }
}

#[test]
fn only_neighbours_in_the_frame_and_in_one_file_are_written_together() {
    let before = piece_at(1, 20, 500);
    for (file, offset, at, expected) in [
        (1, 30, 510, true),
        (2, 30, 510, false),
        (1, 31, 510, false),
        (1, 10, 510, false),
        (1, 30, 511, false),
        (1, 30, 490, false),
    ] {
        assert_eq!(follows(&before, &piece_at(file, offset, at)), expected, "{file} {offset} {at}");
    }
    assert_eq!(span(&before, &piece_at(1, 40, 520)), 30);
    assert_eq!(span(&before, &before), 10);
}

fn file_of(path: &str, chunks: &[&ChunkRef]) -> Entry {
    let size = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
    let runs = chunks.iter().map(|chunk| Run::Chunk((*chunk).clone())).collect();
    entry(path, Kind::File, Content::Inline(runs), size)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_not_what_its_id_says_costs_the_files_that_want_it_and_no_other() {
    let mut writer = Writer::new();
    let contents = [noise(1, 3000), noise(2, 3000)];
    let mut frame = || writer.frame(FrameKind::Data, &[&contents[0], &contents[1]], Compression::Zstd);
    let (chunks, others) = (frame(), frame());
    let wrong = |chunk: &ChunkRef, other: &ChunkRef| ChunkRef { id: other.id, ..chunk.clone() };
    let first = wrong(&chunks[0], &chunks[1]);
    let entries = vec![
        file_of("bad", &[&first]),
        file_of("both", &[&chunks[0], &chunks[1]]),
        // The same place was found right for the file before.
        file_of("half", &[&chunks[1], &first]),
        file_of("right", &[&chunks[0]]),
        file_of("tail", &[&others[0], &wrong(&others[1], &others[0])]),
    ];
    let reader = writer.finish(entries, 8);
    let (target, monitor) = (tempfile::tempdir().unwrap(), Arc::new(CollectMonitor::default()));
    let options = RestoreOptions::to(target.path());
    let report = restore(&reader, &options, Arc::clone(&monitor) as _, Cancel::default()).await.unwrap();
    let problems = monitor.problems();
    let mut named: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
    named.sort_unstable();
    assert_eq!((report.problems, named), (3, vec!["bad", "half", "tail"]));
    assert!(problems.iter().all(|problem| problem.message.contains("contents its id says")), "{problems:?}");
    let found = |name: &str| std::fs::read(target.path().join(name)).unwrap();
    assert!(found("both") == contents.concat() && found("right") == contents[0]);
    assert!(!target.path().join("bad").exists());
    assert_eq!(Progress::get(&monitor.progress().entries), 2);
}

/// What a worker gets for a file of one chunk, and for one without contents; both have so many names.
fn jobs(target: &Path, links: u64) -> (Shared, Vec<Job>) {
    let mut writer = Writer::new();
    let contents = noise(1, 100);
    let chunk = writer.frame(FrameKind::Data, &[&contents], Compression::Stored).remove(0);
    let reader = writer.finish(Vec::new(), 2);
    let tree = TargetTree::open(target, TargetOptions::default()).unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let shared = Shared::new(&reader, Some(tree), monitor, Cancel::default());
    let task = |name: &str, size, inode, sink| {
        let Entry { path, metadata, .. } = entry(name, Kind::File, Content::default(), size);
        Arc::new(FileTask::new(path, Metadata { links, inode, ..metadata }, sink))
    };
    let (small, empty) = (task("small", 100, 1, Sink::Small), task("empty", 0, 2, Sink::file()));
    let mut batch = Batch::default();
    let file = batch.file(Arc::clone(&small));
    batch.add(file, 0, &chunk).unwrap();
    assert!(!small.done() && empty.done(), "the planner adds nothing more");
    let (batch, mut ranges) = batch.into_ranges(&reader, &Fetch::suited(true, 1 << 20));
    let part = ranges.remove(0).parts.remove(0);
    let permits = Arc::new(Semaphore::new(2));
    let permit = || Arc::clone(&permits).try_acquire_owned().unwrap();
    let opened = Job::Opened {
        batch: Arc::new(batch),
        part,
        plain: Ok(contents),
        _budget: Arc::new(permit()),
        _turn: permit(),
    };
    (shared, vec![opened, Job::Complete(empty)])
}

fn work(shared: &Shared, jobs: Vec<Job>) {
    let (sender, queue) = crossbeam_channel::bounded(jobs.len());
    jobs.into_iter().for_each(|job| sender.send(job).unwrap());
    drop(sender);
    run(shared, &queue);
}

#[test]
fn once_it_is_over_nothing_more_is_written() {
    for (stopped, files) in [(false, 2), (true, 0)] {
        let target = tempfile::tempdir().unwrap();
        let (shared, jobs) = jobs(target.path(), 1);
        if stopped {
            shared.cancel.cancel();
        }
        work(&shared, jobs);
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), files);
        let progress = shared.monitor.progress();
        assert_eq!(Progress::get(&progress.entries), files as u64);
        assert_eq!(Progress::get(&progress.problems), 0);
        assert_eq!(shared.written.load(Ordering::Relaxed), if stopped { 0 } else { 100 });
    }
}

#[test]
fn only_files_with_further_names_are_remembered() {
    for (links, remembered) in [(1, 0), (2, 2), (3, 2)] {
        let target = tempfile::tempdir().unwrap();
        let (shared, jobs) = jobs(target.path(), links);
        work(&shared, jobs);
        assert_eq!(shared.made.lock().unwrap().len(), remembered, "{links}");
    }
}
