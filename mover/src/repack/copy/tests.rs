use std::sync::atomic::Ordering;

use super::*;
use crate::{
    format::{
        frame::{FramePlace, Suite},
        session::SessionKind,
    },
    id::LineageId,
    monitor::CollectMonitor,
    pipeline::{
        frames::{Framer, store_page},
        testing::{Stage, chunk_ending},
    },
    reader::testing::noise,
    store::ObjectStore as _,
};

/// Frames of one pack at these places.
fn frames(places: &[(u64, u64)]) -> Vec<FooterFrame> {
    let model = *chunk_ending(1, 1, 10).frame.place().unwrap();
    let frame = |(offset, stored): &(u64, u64)| FooterFrame {
        kind: FrameKind::Data,
        place: FramePlace { offset: *offset as u32, stored: *stored as u32, ..model },
        chunks: Vec::new(),
    };
    places.iter().map(frame).collect()
}

#[test]
fn frames_are_read_together_while_little_lies_between_them() {
    let together = |places: &[(u64, u64)]| neighbours(&frames(places).iter().collect::<Vec<_>>());
    assert_eq!(together(&[(5, RANGE_BYTES * 2)]), 1);
    assert_eq!(together(&[(5, 10), (15, 10), (25, 10)]), 3);
    let near = 15 + RANGE_GAP_BYTES;
    assert_eq!(together(&[(5, 10), (near, 10)]), 2);
    assert_eq!(together(&[(5, 10), (near + 1, 10), (near + 11, 10)]), 1);
    let half = RANGE_BYTES / 2;
    assert_eq!(together(&[(5, half), (5 + half, half), (5 + RANGE_BYTES, 1)]), 2);
    assert_eq!(together(&[(5, half), (5 + half, half + 1)]), 1);
}

/// A pack of three frames of 100 000 bytes each, and where they lie.
async fn pack_of_three(stage: &Stage) -> (PackId, Vec<u32>) {
    let slab = noise(1, 300_000);
    let mut framer = Framer::new(Arc::clone(&stage.shared));
    for start in (0..300_000).step_by(100_000) {
        framer.chunk(&slab, start, start + 100_000).unwrap();
        framer.flush(&slab).unwrap();
    }
    stage.shared.packer.flush().unwrap();
    stage.shared.bridge.settle().unwrap();
    let frames = stage.frames().await;
    assert_eq!(frames.len(), 3);
    (stage.packs().await[0].0, frames.iter().map(|frame| frame.place.offset).collect())
}

struct Outcome {
    copied: Copied,
    problems: u64,
}

async fn copy(stage: &Stage, wanted: &[(PackId, Vec<u32>)], frames_max: usize) -> Outcome {
    let kind = SessionKind::Repack;
    let session = stage.repository.begin(kind, LineageId::default(), Suite::ChaCha20Poly1305).await.unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let copier = Copier::new(
        stage.repository.clone(),
        Arc::new(session),
        64 << 20,
        monitor.clone(),
        Cancel::default(),
    );
    let wanted = wanted.iter().map(|(pack, offsets)| (*pack, offsets.iter().copied().collect())).collect();
    let handle = Handle::current();
    let copied =
        tokio::task::spawn_blocking(move || copier.run(wanted, frames_max, handle)).await.unwrap().unwrap();
    Outcome { copied, problems: Progress::get(&monitor.progress().problems) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_is_moved_as_it_is_sealed() {
    let stage = Stage::new().await;
    let (pack, offsets) = pack_of_three(&stage).await;
    let needed = vec![offsets[0], offsets[2]];
    let Outcome { copied, problems } = copy(&stage, &[(pack, needed.clone())], 2).await;
    assert_eq!(
        (copied.report.packs, copied.report.left, copied.report.frames, problems),
        (vec![pack], 0, 2, 0)
    );
    let old: Vec<_> = copied.moved.iter().map(|moved| (moved.old_pack, moved.old_offset)).collect();
    assert_eq!(old, [(pack, needed[0]), (pack, needed[1])]);
    // Of the packs there are, one has these two and nothing else.
    let new = copied.moved[0].new_pack;
    let found = stage.repository.footer(new).await.unwrap();
    let places: Vec<_> = found.footer.frames.iter().map(|frame| frame.place.offset).collect();
    assert_eq!(places, copied.moved.iter().map(|moved| moved.new_offset).collect::<Vec<_>>());
    assert_eq!(copied.indexed.len(), 2);
    let size = stage.packs().await.iter().find(|(pack, _)| *pack == new).unwrap().1;
    assert_eq!(copied.report.bytes, size);
    assert_eq!(stage.shared.counts.chunks_new.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_would_be_too_much_stays() {
    let stage = Stage::new().await;
    let (pack, offsets) = pack_of_three(&stage).await;
    let outcome = copy(&stage, &[(pack, offsets.clone())], 2).await;
    assert_eq!((outcome.copied.report.packs.len(), outcome.copied.report.left), (0, 1));
    assert_eq!((outcome.copied.moved.len(), outcome.problems), (0, 0));
    let outcome = copy(&stage, &[(pack, offsets)], 3).await;
    assert_eq!((outcome.copied.report.packs.len(), outcome.copied.report.left), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_stays_and_the_rest_is_moved() {
    let stage = Stage::new().await;
    let (pack, offsets) = pack_of_three(&stage).await;
    // One that the footer does not list.
    let outcome = copy(&stage, &[(pack, [&offsets[..], &[7]].concat())], 100).await;
    assert_eq!((outcome.copied.report.left, outcome.copied.moved.len(), outcome.problems), (1, 3, 1));
    // One that is damaged.
    let name = crate::store::list_all(stage.store.as_ref(), "packs/").await.unwrap();
    let name = name.iter().find(|object| object.name.contains(&pack.to_hex())).unwrap().name.clone();
    let mut bytes = stage.store.get(&name, ByteRange::All).await.unwrap().to_vec();
    bytes[offsets[1] as usize + 10] ^= 1;
    stage.store.tamper(&name, Some(bytes.into()));
    let outcome = copy(&stage, &[(pack, offsets.clone())], 100).await;
    let moved: Vec<_> = outcome.copied.moved.iter().map(|moved| moved.old_offset).collect();
    assert_eq!((outcome.copied.report.left, moved, outcome.problems), (1, vec![offsets[0], offsets[2]], 1));
    assert!(outcome.copied.report.packs.is_empty());
    // A pack that is nowhere.
    let outcome = copy(&stage, &[(PackId([9; 16]), vec![0])], 100).await;
    assert_eq!((outcome.copied.report.left, outcome.copied.moved.len(), outcome.problems), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_and_pages_go_to_packs_of_their_own() {
    let stage = Stage::new().await;
    let (pack, offsets) = pack_of_three(&stage).await;
    let pages = Packer::new(Arc::clone(&stage.shared.bridge), limits::PACK_TARGET, 0);
    let page = noise(5, 5000);
    let id = stage.shared.keys.chunk_id(&page);
    let stored = store_page(&stage.shared, &pages, &page, id, &mut Vec::new()).unwrap();
    pages.flush().unwrap();
    stage.shared.bridge.settle().unwrap();
    let place = *stored.frame.place().unwrap();
    let before: Vec<PackId> = stage.packs().await.into_iter().map(|(pack, _)| pack).collect();
    let outcome = copy(&stage, &[(pack, offsets), (place.pack, vec![place.offset])], 100).await;
    assert_eq!((outcome.copied.report.packs.len(), outcome.problems), (2, 0));
    let new = stage.packs().await.into_iter().filter(|(pack, _)| !before.contains(pack));
    let sizes: Vec<u64> = new.map(|(_, size)| size).collect();
    assert_eq!((sizes.len(), outcome.copied.report.bytes), (2, sizes.iter().sum()));
    assert_eq!((outcome.copied.moved.len(), outcome.copied.indexed.len()), (4, 3), "pages are in no index");
}
