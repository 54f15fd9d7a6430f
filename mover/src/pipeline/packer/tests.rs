use super::*;
use crate::{
    format::{
        frame::{Compression, FrameKind},
        pack::FooterChunk,
    },
    pipeline::testing::{Stage, session},
};

/// What compresses a thousandfold, in chunks that all differ: a pack of such frames has more footer than contents.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_is_closed_before_its_footer_is_longer_than_any_reader_takes() {
    const FRAMES: u32 = 25_000;
    let stage = Stage::new().await;
    let bridge = Arc::clone(&stage.shared.bridge);
    let append_all = move || {
        let session = Arc::clone(bridge.session());
        let packer = Packer::new(bridge, limits::PACK_TARGET, 0);
        for number in 0..FRAMES {
            let chunk = |at: u32| FooterChunk {
                id: ChunkId([at as u8; 32]),
                offset: at * (64 << 10),
                length: 64 << 10,
            };
            let place = FramePlace {
                session: session.name(),
                pack: PackId::default(),
                offset: 0,
                stored: 40,
                plain: 1 << 20,
                compression: Compression::Zstd,
                counter: number.into(),
                id: ChunkId([7; 32]),
            };
            let chunks = (0..16).map(chunk).collect();
            packer.append(FooterFrame { kind: FrameKind::Data, place, chunks }, &[1; 40]).unwrap();
        }
        packer.flush().unwrap();
        packer.bridge.settle().unwrap();
    };
    tokio::task::spawn_blocking(append_all).await.unwrap();
    let mut frames = 0;
    for (pack, _) in stage.packs().await {
        let found = stage.repository.footer(pack).await.unwrap();
        assert!(found.tail_bytes < limits::FOOTER_LIMIT as u64 / 2, "{}", found.tail_bytes);
        frames += found.footer.frames.len();
    }
    assert_eq!(frames, FRAMES as usize);
}

fn frame(session: SessionKeyInfo, counter: u64, stored: u32) -> FooterFrame {
    let place = FramePlace {
        session: session.session,
        pack: PackId::default(),
        offset: 0,
        stored,
        plain: stored,
        compression: Compression::Stored,
        counter,
        id: ChunkId([7; 32]),
    };
    let chunks = vec![FooterChunk { id: ChunkId([counter as u8; 32]), offset: 0, length: stored }];
    FooterFrame { kind: FrameKind::Data, place, chunks }
}

#[test]
fn a_pack_is_full_when_it_has_more_than_its_target_or_a_long_footer() {
    let open = |length, footer_bytes| {
        let mut bytes = AlignedBytes::with_capacity(length);
        bytes.extend_from_slice(&vec![1; length]);
        OpenPack { id: PackId::default(), bytes, footer: Footer::default(), footer_bytes }
    };
    assert!(!open(10, 0).is_full(5, 15) && open(10, 0).is_full(6, 15));
    let long = limits::FOOTER_TARGET;
    assert!(!open(10, long - 1).is_full(5, 15) && open(10, long).is_full(5, 15));
}

#[test]
fn as_many_buffers_are_kept_as_were_asked_for() {
    let home = Arc::new(Buffers { free: Mutex::default(), kept: AtomicUsize::new(2) });
    for expected in [1, 2, 2] {
        let mut bytes = AlignedBytes::with_capacity(10);
        bytes.extend_from_slice(b"contents");
        drop(Lent { bytes, home: Arc::clone(&home) });
        assert_eq!(home.free.lock().unwrap().len(), expected);
    }
    assert!(home.free.lock().unwrap().iter().all(|bytes| bytes.is_empty()));
    home.free.lock().unwrap().clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_padded_counted_and_name_whose_frames_they_hold() {
    let stage = Stage::new().await;
    let bridge = Arc::clone(&stage.shared.bridge);
    let (own, other) = (bridge.session().key_info().clone(), session(&stage.repository).await);
    let packer = Packer::new(Arc::clone(&bridge), 1 << 20, 1);
    packer.flush().unwrap();
    assert_eq!((packer.stored(), packer.indexed(), packer.take_indexed()), (0, 0, vec![]));
    // Five of a third of a pack each: one pack of three, and one of two.
    let third = vec![1; (1 << 20) / 3];
    let mut places = Vec::new();
    for counter in 0..5 {
        let owner = if counter == 1 { other.key_info() } else { &own };
        let frame = frame(owner.clone(), counter, third.len() as u32);
        places.push(packer.append_of(owner, frame, &third).unwrap());
    }
    assert_eq!(packer.indexed(), 3);
    packer.flush().unwrap();
    bridge.settle().unwrap();
    let offsets: Vec<_> = places.iter().map(|place| place.offset as usize / third.len()).collect();
    assert_eq!(offsets, [0, 1, 2, 0, 1]);
    assert!(places[2].pack == places[0].pack && places[3].pack != places[0].pack);

    let rows = packer.take_indexed();
    let expected: Vec<_> =
        places.iter().enumerate().map(|(at, place)| (ChunkId([at as u8; 32]), place.pack)).collect();
    assert_eq!((rows, packer.indexed()), (expected, 0));
    let packs = stage.packs().await;
    assert_eq!(packer.stored(), packs.iter().map(|(_, size)| size).sum::<u64>());
    for (pack, size) in packs {
        let found = stage.repository.footer(pack).await.unwrap();
        let is_full = pack == places[0].pack;
        let frames = if is_full { 3 } else { 2 };
        let length = frames * third.len() + found.tail_bytes as usize;
        let padded = if is_full { length.next_multiple_of(PADDING_STEP) } else { codec::padme(length) };
        assert_eq!((size as usize, found.footer.frames.len()), (padded, frames));
        let sessions: Vec<_> = found.footer.sessions.iter().map(|info| info.session).collect();
        let both = vec![own.session, other.name()];
        assert_eq!(sessions, if is_full { both } else { vec![own.session] });
    }
}

#[test]
fn chunks_are_listed_from_their_shortest_length_on() {
    let shortest = limits::INDEXED_CHUNK_MIN;
    assert!(is_indexed(shortest) && !is_indexed(shortest - 1));
}

#[test]
fn padding_looks_like_what_it_pads() {
    let mut bytes = AlignedBytes::with_capacity(100);
    bytes.extend_from_slice(b"sealed");
    pad(&mut bytes, 4096, [1; 32]);
    let (sealed, padding) = bytes.as_slice().split_at(6);
    assert_eq!((sealed, padding.len()), (&b"sealed"[..], 4096));
    let zeros = padding.iter().filter(|byte| **byte == 0).count();
    assert!(zeros < 64, "{zeros}");
}
