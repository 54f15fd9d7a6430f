use super::*;
use crate::id::ChunkId;

fn pieces(file: u32, count: usize) -> Vec<Piece> {
    let piece = |at| Piece { frame: 0, offset: 0, length: 1, file, at, id: ChunkId([0; 32]) };
    (0..count as u64).map(piece).collect()
}

#[test]
fn threads_share_a_large_file_and_have_small_ones_to_themselves() {
    let all = |counts: &[usize]| {
        let pieces: Vec<Piece> =
            counts.iter().zip(0..).flat_map(|(count, file)| pieces(file, *count)).collect();
        groups(&pieces).iter().map(ExactSizeIterator::len).collect::<Vec<_>>()
    };
    assert_eq!(all(&[]), [0; 0]);
    assert_eq!(all(&[1]), [1]);
    assert_eq!(all(&[GROUP_PIECES]), [GROUP_PIECES]);
    assert_eq!(all(&[GROUP_PIECES + 1, 2, 3]), [GROUP_PIECES, 1, 2, 3]);
    assert_eq!(all(&[GROUP_PIECES * 2]), [GROUP_PIECES, GROUP_PIECES]);
}

#[test]
fn what_is_compared_together_takes_memory() {
    let mut work = BlockWork::default();
    assert_eq!(work.size(), 0);
    work.zeros = vec![(0, 1), (5, 1), (9, 1)];
    work.batch.pieces = pieces(0, 2);
    assert_eq!(work.size(), 3 * 16 + 2 * super::super::batch::PIECE_BYTES);
}
