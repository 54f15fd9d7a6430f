use super::*;
use crate::{
    error::ErrorKind,
    format::{
        frame::{Compression, FrameKind},
        metadata::FileTime,
    },
    monitor::CollectMonitor,
    pipeline::testing::chunk_ending,
    reader::{
        testing::{Packs, Writer, entry, noise},
        walk::Part,
    },
    restore::{restore, tests::blocks},
};

/// A planner that has not begun yet, and what takes its batches.
pub(super) fn planner<'o>(
    options: &'o RestoreOptions,
    reader: &SnapshotReader,
) -> (Planner<'o>, mpsc::Receiver<Batch>) {
    let mut opened = Opened::at(options).unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let (batches, queue) = mpsc::channel(100);
    let shared = Arc::new(Shared::new(reader, opened.tree.take(), monitor, Cancel::default()));
    let planner = Planner::new(options, shared, Vec::new(), opened, batches);
    (planner, queue)
}

fn nothing() -> SnapshotReader {
    Writer::new().finish(Vec::new(), 2)
}

#[tokio::test]
async fn batches_double_up_to_their_part_of_the_memory() {
    let (reader, target) = (nothing(), tempfile::tempdir().unwrap());
    for (memory_bytes, wanted) in [(64 << 20, [2, 4, 8, 8]), (8 << 20, [1, 1, 1, 1])] {
        let options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        let (mut planner, _queue) = planner(&options, &reader);
        let mut limits = Vec::new();
        for _ in 0..4 {
            planner.flush().await.unwrap();
            limits.push(planner.batch_limit >> 20);
        }
        assert_eq!(limits, wanted);
    }
}

#[tokio::test]
async fn a_planner_ends_when_nobody_takes_its_batches_and_when_it_was_stopped() {
    let (reader, target) = (nothing(), tempfile::tempdir().unwrap());
    let options = RestoreOptions::to(target.path());
    let (mut alone, queue) = planner(&options, &reader);
    drop(queue);
    assert_eq!(alone.flush().await.unwrap_err().kind(), ErrorKind::Internal);
    alone.shared.cancel.cancel();
    assert_eq!(alone.flush().await.unwrap_err().kind(), ErrorKind::Cancelled);
    let (mut stopped, _queue) = planner(&options, &reader);
    stopped.flush().await.unwrap();
    stopped.shared.cancel.cancel();
    assert_eq!(stopped.flush().await.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_file_looks_right_by_its_size_its_time_and_its_one_name() {
    let mtime = FileTime { seconds: 5, nanoseconds: 7 };
    let right = Metadata { links: 1, size: 10, mtime, ..Metadata::default() };
    let wanted = Metadata { links: 3, mode: 0o600, ..right.clone() };
    assert!(looks_right(&right, &wanted));
    for other in [
        Metadata { links: 2, ..right.clone() },
        Metadata { size: 11, ..right.clone() },
        Metadata { mtime: FileTime { nanoseconds: 8, ..mtime }, ..right.clone() },
    ] {
        assert!(!looks_right(&other, &wanted), "{other:?}");
    }
}

#[test]
fn only_a_file_of_one_chunk_is_made_in_one_go() {
    let (reader, target) = (nothing(), tempfile::tempdir().unwrap());
    let options = RestoreOptions::to(target.path());
    let (planner, _queue) = planner(&options, &reader);
    let (chunk, hole) = (Run::Chunk(chunk_ending(1, 1, 10)), Run::Hole(10));
    let is_small = |runs: Vec<Run>| {
        let file = entry("file", Kind::File, Content::Inline(runs), 0);
        matches!(planner.sink(b"file", &file, false).unwrap(), Sink::Small)
    };
    assert!(is_small(vec![chunk.clone()]));
    for runs in [vec![], vec![hole.clone()], vec![chunk.clone(), chunk.clone()], vec![chunk, hole]] {
        assert!(!is_small(runs));
    }
}

/// How often a restore asks for contents.
async fn requests(reader: &SnapshotReader, packs: &Arc<Packs>, memory_bytes: u64) -> u64 {
    // Readers that remember nothing.
    let fresh = || SnapshotReader::with_access(Arc::clone(packs) as _, reader.snapshot().clone());
    packs.reads.store(0, Ordering::Relaxed);
    let lister = fresh();
    let mut walk = lister.entries(Part::all()).unwrap();
    while let Some(leaf) = walk.next_leaf().await.unwrap() {
        for entry in leaf {
            let mut runs = lister.runs(&entry.content);
            while runs.next_piece().await.unwrap().is_some() {}
        }
    }
    let lists = packs.reads.swap(0, Ordering::Relaxed);
    let (target, monitor) = (tempfile::tempdir().unwrap(), Arc::new(CollectMonitor::default()));
    let options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
    restore(&fresh(), &options, Arc::clone(&monitor) as _, Cancel::default()).await.unwrap();
    assert_eq!(monitor.problems(), []);
    packs.reads.load(Ordering::Relaxed) - lists
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sent_on_its_way_when_it_is_full_and_not_before() {
    // Each piece takes 80 bytes, so fourteen pages of a thousand are a MiB.
    let (reader, packs, _) = blocks(Kind::File, 30_000);
    assert_eq!(requests(&reader, &packs, 8 << 20).await, 3, "no batch has more than one MiB");
    assert_eq!(requests(&reader, &packs, 1 << 30).await, 2, "the second may have twice as much");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_at_once_takes_its_part_of_the_memory() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let mut entries = Vec::new();
    for file in 0..12 {
        let mut chunk = |seed| {
            let bytes = noise(seed, 20_000);
            Run::Chunk(writer.frame(FrameKind::Data, &[&bytes], Compression::Stored).remove(0))
        };
        let runs = vec![chunk(2 * file), chunk(2 * file + 1)];
        entries.push(entry(&format!("file{file:02}"), Kind::File, Content::Inline(runs), 40_000));
    }
    let reader = writer.finish(entries, 8);
    // A quarter of it is in flight, and a quarter of that in one request: three of the 24 frames.
    assert_eq!(requests(&reader, &packs, 1 << 20).await, 8);
    assert_eq!(requests(&reader, &packs, 1 << 30).await, 1);
}
