use super::*;
use crate::{
    format::{
        frame::{Compression, Frame},
        session::SessionKind,
    },
    id::{LineageId, SessionNonce},
};

fn page(pack: u8, offset: u64, stored: u32) -> ChunkRef {
    let session =
        SessionName { kind: SessionKind::Backup, lineage: LineageId([1; 8]), nonce: SessionNonce([2; 16]) };
    let place = FramePlace {
        session,
        pack: PackId([pack; 16]),
        offset: u32::try_from(offset).unwrap(),
        stored,
        plain: 1000,
        compression: Compression::Stored,
        counter: 0,
        id: ChunkId([0; 32]),
    };
    ChunkRef { id: ChunkId([0; 32]), offset: 0, length: 1000, frame: Frame::settled(place) }
}

#[test]
fn pages_are_fetched_together_while_little_lies_between_them() {
    let near = 1000 + 500 + PAGE_GAP_BYTES;
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, 1500, 500), page(1, 2000, 9)]).unwrap(), 3);
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, near, 500)]).unwrap(), 2);
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, near + 1, 500)]).unwrap(), 1);
    // In another pack, or before the end of the one before.
    assert_eq!(adjacent(&[page(1, 1000, 500), page(2, 1500, 500)]).unwrap(), 1);
    assert_eq!(adjacent(&[page(1, 1000, 500), page(1, 1499, 500)]).unwrap(), 1);
    // One request has a bound, which its first page may pass.
    let long = u32::try_from(PAGE_RUN_BYTES).unwrap();
    assert_eq!(adjacent(&[page(1, 1000, long - 500), page(1, u64::from(long) + 500, 500)]).unwrap(), 2);
    assert_eq!(adjacent(&[page(1, 1000, long - 500), page(1, u64::from(long) + 500, 501)]).unwrap(), 1);
    assert_eq!(adjacent(&[page(1, 1000, long + 500)]).unwrap(), 1);
}
