use super::*;
use crate::{error::ErrorKind, pipeline::testing::Stage, reader::testing::noise};

const TARGET: usize = limits::FRAME_TARGET;

/// Bytes before compression of each frame, when these ranges of a slab were stored.
async fn frames_of(ranges: &[(usize, usize)]) -> Vec<u32> {
    let stage = Stage::new().await;
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    let slab = noise(1, ranges.iter().map(|range| range.1).max().unwrap());
    for (start, end) in ranges {
        framer.chunk(&slab, *start, *end).unwrap();
    }
    framer.flush(&slab).unwrap();
    // There is nothing more.
    framer.flush(&slab).unwrap();
    stage.shared.packer.flush().unwrap();
    stage.shared.bridge.settle().unwrap();
    let frames = stage.frames().await;
    assert!(frames.iter().all(|frame| frame.kind == FrameKind::Data));
    frames.iter().map(|frame| frame.place.plain).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_share_a_frame_up_to_its_target() {
    let half = TARGET / 2;
    let behind = TARGET + 10;
    let large = behind + TARGET;
    let ranges =
        [(0, half), (half, TARGET), (TARGET, behind), (behind, large), (large, large + TARGET + half)];
    let expected = [TARGET, 10, TARGET, TARGET + half].map(|length| length as u32);
    assert_eq!(frames_of(&ranges).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_has_no_more_chunks_than_a_footer_row_is_for() {
    let chunks = limits::FRAME_CHUNKS + 3;
    let ranges: Vec<_> = (0..chunks).map(|index| (index * 8, index * 8 + 8)).collect();
    assert_eq!(frames_of(&ranges).await, [limits::FRAME_CHUNKS as u32 * 8, 24]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_known_is_named_again_and_not_stored() {
    let stage = Stage::new().await;
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    // Three short chunks and two long ones, of which the middle one is there twice.
    let ranges = [(0, 100), (100, 4196), (0, 100), (4196, 8291), (8291, 20_000)];
    let slab = noise(1, 20_000);
    let refs: Vec<_> = ranges.iter().map(|(start, end)| framer.chunk(&slab, *start, *end).unwrap()).collect();
    assert!(refs.iter().all(|chunk| chunk.frame.place().is_none()), "it is not packed yet");
    framer.flush(&slab).unwrap();
    assert!(refs.iter().all(|chunk| chunk.frame.is_same(&refs[0].frame)));
    let offsets: Vec<_> = refs.iter().map(|chunk| (chunk.offset, chunk.length)).collect();
    assert_eq!(offsets, [(0, 100), (100, 4096), (0, 100), (4196, 4095), (8291, 11_709)]);
    let counts = &stage.shared.counts;
    let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!((number(&counts.chunks_new), number(&counts.chunks_known)), (4, 1));
    assert_eq!(number(&counts.bytes_new), 20_000);

    stage.shared.packer.flush().unwrap();
    stage.shared.bridge.settle().unwrap();
    let frames = stage.frames().await;
    assert_eq!((frames.len(), frames[0].place.plain), (1, 20_000));
    let listed: Vec<_> =
        frames[0].chunks.iter().map(|chunk| (chunk.id, chunk.offset, chunk.length)).collect();
    let long = [&refs[1], &refs[4]].map(|chunk| (chunk.id, chunk.offset, chunk.length));
    assert_eq!(listed, long, "short ones are found by their place only");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_lost_for_all_who_wait_for_it() {
    let stage = Stage::new().await;
    let slab = noise(1, 10_000);
    let is_lost = |chunk: &ChunkRef| chunk.frame.place().is_some_and(|place| place.stored == 0);
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    let first = framer.chunk(&slab, 0, 5000).unwrap();
    framer.abandon();
    assert!(is_lost(&first));
    let second = framer.chunk(&slab, 5000, 6000).unwrap();
    assert_eq!((second.offset, second.frame.place()), (0, None));
    framer.flush(&slab).unwrap();
    assert!(second.frame.place().is_some_and(|place| place.plain == 1000 && place.stored > 1000));
    let third = framer.chunk(&slab, 6000, 7000).unwrap();
    drop(framer);
    assert!(is_lost(&third) && !is_lost(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_frame_that_cannot_be_stored_hears_of_it() {
    let stage = Stage::new().await;
    let slab = noise(1, 10_000);
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    framer.chunk(&slab, 0, 5000).unwrap();
    framer.flush(&slab).unwrap();
    // The open pack takes its room when it is full; nobody gets room any more.
    drop(stage.shared.bridge.reserve(1).unwrap());
    let full = noise(2, limits::PACK_TARGET);
    let mut lost = None;
    for start in (0..full.len()).step_by(TARGET) {
        let chunk = framer.chunk(&full, start, start + TARGET);
        lost = chunk.ok().or(lost);
        if framer.flush(&full).is_err() {
            break;
        }
    }
    assert!(lost.unwrap().frame.place().is_some_and(|place| place.stored == 0));
}

/// What a framer of this session makes of these ranges, on a thread that may wait.
async fn stored(stage: &Stage, slab: &[u8], ranges: Vec<(usize, usize)>) -> Vec<ChunkRef> {
    let (shared, slab) = (Arc::clone(&stage.shared), slab.to_vec());
    let work = move || {
        let mut framer = Framer::new(Arc::clone(&shared));
        let refs = ranges.iter().map(|(start, end)| framer.chunk(&slab, *start, *end).unwrap()).collect();
        framer.flush(&slab).unwrap();
        shared.packer.flush().unwrap();
        shared.bridge.settle().unwrap();
        refs
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_session_stored_is_found_by_the_index_with_its_neighbours() {
    let slab = noise(1, 40_000);
    let (first, ranges) = (Stage::new().await, vec![(0, 10_000), (10_000, 20_000), (20_000, 20_100)]);
    let earlier = stored(&first, &slab, ranges.clone()).await;
    let session = first.shared.bridge.session();
    // Of the two that are long enough, one is in the index.
    let indexed = first.shared.packer.take_indexed();
    assert_eq!(indexed.len(), 2);
    session.put_segment(&indexed[..1]).await.unwrap();

    let second = first.again().await;
    assert!(!second.shared.index().is_empty());
    let found = stored(&second, &slab, [ranges, vec![(30_000, 40_000)]].concat()).await;
    let owner = |chunk: &ChunkRef| chunk.frame.wait().session;
    let own = second.shared.bridge.session().name();
    assert_eq!(found.iter().map(owner).collect::<Vec<_>>(), [session.name(), session.name(), own, own]);
    for (found, earlier) in found.iter().zip(&earlier).take(2) {
        assert_eq!((found.frame.wait(), found.offset), (earlier.frame.wait(), earlier.offset));
    }
    let counts = &second.shared.counts;
    assert_eq!(counts.chunks_known.load(Ordering::Relaxed), 2);
    assert_eq!(counts.bytes_new.load(Ordering::Relaxed), 10_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_given_up_holds_nothing_and_keeps_nobody_waiting() {
    let slab = noise(1, 40_000);
    let first = Stage::new().await;
    let stored = stored(&first, &slab, vec![(0, 10_000)]).await;
    first.shared.bridge.session().put_segment(&first.shared.packer.take_indexed()).await.unwrap();
    let second = first.again().await;
    let (shared, packs) = (Arc::clone(&second.shared), second.packs().await.len());
    let work = move || {
        let mut stuck = Framer::new(Arc::clone(&shared));
        assert_eq!(stuck.chunk(&slab, 0, 10_000).unwrap().frame.wait(), stored[0].frame.wait());
        stuck.chunk(&slab, 10_000, 20_000).unwrap();
        stuck.flush(&slab).unwrap();
        let claimed = stuck.chunk(&slab, 20_000, 30_000).unwrap();
        assert_eq!(claimed.frame.place(), None);
        shared.abandon();
        assert_eq!(claimed.frame.wait().stored, 0, "it is lost");
        assert!(shared.known.get(&claimed.id).is_none() && shared.index().is_empty());
        // What was packed is gone with its pack.
        shared.packer.flush().unwrap();
        // It comes back, and what it still packs is not sent.
        stuck.flush(&slab).unwrap();
        assert_eq!(shared.packer.flush().unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(shared.bridge.settle().unwrap_err().kind(), ErrorKind::Cancelled);
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(second.packs().await.len(), packs);
}
