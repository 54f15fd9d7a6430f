use std::{io, sync::Mutex};

use super::*;
use crate::{monitor::Progress, target::stdout::StreamTarget};

/// Keeps what is written, and how many packs had been read when the first byte came.
#[derive(Debug, Clone)]
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    packs: Arc<Packs>,
    reads_before: Arc<Mutex<Option<u64>>>,
}

impl Sink {
    fn of(packs: &Arc<Packs>) -> Self {
        packs.reads.store(0, Ordering::Relaxed);
        Self { bytes: Arc::default(), packs: Arc::clone(packs), reads_before: Arc::default() }
    }
}

impl io::Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.reads_before.lock().unwrap().get_or_insert(self.packs.reads.load(Ordering::Relaxed));
        self.bytes.lock().unwrap().extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn dump(reader: &SnapshotReader, path: &[u8], sink: &Sink) -> u64 {
    dump_within(64 << 20, reader, path, sink).await
}

async fn dump_within(memory_bytes: u64, reader: &SnapshotReader, path: &[u8], sink: &Sink) -> u64 {
    let entry = image::choose(reader, path).await.unwrap();
    let target = StreamTarget::new(sink.clone());
    let monitor = Arc::new(CollectMonitor::default());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let dumped = stream::dump(reader, &entry, target, memory_bytes, watched, Cancel::default());
    let count = dumped.await.unwrap();
    assert_eq!(count, entry.metadata.size);
    assert_eq!(Progress::get(&monitor.progress().bytes), count);
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_in_order() {
    let sample = sample();
    let sink = Sink::of(&sample.packs);
    dump(&sample.reader, b"d/e/large", &sink).await;
    assert!(*sink.bytes.lock().unwrap() == sample.files["d/e/large"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_repeats_without_end_is_not_collected() {
    let times = limits::FRAME_CHUNKS * 20 + 7;
    let (reader, packs, block) = blocks(Kind::File, times);
    let sink = Sink::of(&packs);
    assert_eq!(dump(&reader, b"blocks", &sink).await, 50 * times as u64);
    let wanted = block.repeat(times);
    assert!(*sink.bytes.lock().unwrap() == wanted);
    // The frame is opened for each part of it, and the first is written long before the last is known.
    let (before, all) = (sink.reads_before.lock().unwrap().unwrap(), packs.reads.load(Ordering::Relaxed));
    assert!(before < all, "{before} of {all} reads before the first byte");
}

#[tokio::test]
async fn frames_are_opened_ahead_as_far_as_memory_has_room() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let (mut runs, mut wanted) = (Vec::new(), Vec::new());
    for index in 0..40 {
        // A chunk fills the buffer of the stream, so the first is written when it is opened.
        let halves = [noise(2 * index, 70_000), noise(2 * index + 1, 70_000)];
        let chunks = writer.frame(FrameKind::Data, &[&halves[0], &halves[1]], Compression::Stored);
        runs.extend(chunks.into_iter().map(Run::Chunk));
        wanted.extend(halves.concat());
    }
    let size = wanted.len() as u64;
    let reader = writer.finish(vec![entry("file", Kind::File, Content::Inline(runs), size)], 8);
    // From now on the reader remembers the tree, and whatever is read is a frame.
    reader.find(b"file").await.unwrap();
    let workers = 4 * worker_count(0) as u64;
    for (memory_bytes, ahead) in [(0, 1), (8 << 20, 1), (16 << 20, 2), (160 << 20, workers.min(20))] {
        let sink = Sink::of(&packs);
        dump_within(memory_bytes, &reader, b"file", &sink).await;
        assert!(*sink.bytes.lock().unwrap() == wanted);
        // Of this runtime's one thread, all that was begun has read when the first comes back.
        assert_eq!(*sink.reads_before.lock().unwrap(), Some(ahead + 1), "{memory_bytes}");
        assert_eq!(packs.reads.load(Ordering::Relaxed), 40, "each frame is opened once");
    }
}
