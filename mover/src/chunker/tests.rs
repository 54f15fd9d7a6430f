use proptest::prelude::*;

use super::*;

fn chunker() -> Chunker {
    Chunker::new(&Key::new([7; 32]), CutSizes::default())
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

fn cuts(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !data.is_empty() {
        let length = chunker.cut(data);
        lengths.push(length);
        data = &data[length..];
    }
    lengths
}

#[test]
fn golden_cuts_do_not_move() {
    let lengths = cuts(&chunker(), &noise(1, 1 << 20));
    insta::assert_debug_snapshot!(lengths);
}

#[test]
fn average_is_near_the_target() {
    let data = noise(2, 32 << 20);
    let count = cuts(&chunker(), &data).len();
    let average = data.len() / count;
    assert!((50_000..90_000).contains(&average), "{average}");
}

#[test]
fn an_insertion_moves_few_cuts() {
    let data = noise(3, 32 << 20);
    let mut changed = data.clone();
    for at in 1..5 {
        changed.insert(at * (6 << 20), 42);
    }
    let ids = |mut data: &[u8]| {
        cuts(&chunker(), data)
            .into_iter()
            .map(|length| blake3::hash(data.split_off(..length).expect("cuts lie in the data")))
            .collect::<Vec<_>>()
    };
    let (before, after) = (ids(&data), ids(&changed));
    let lost = after.iter().filter(|id| !before.contains(id)).count();
    assert!((4..=16).contains(&lost), "{lost} of {}", after.len());
}

#[test]
fn scattered_changes_hit_few_chunks() {
    const PAGE: usize = 8 << 10;
    let data = noise(4, 64 << 20);
    let mut changed = data.clone();
    for (index, page) in changed.chunks_mut(PAGE).enumerate() {
        if noise(index as u64, 8)[0] < 5 {
            page.copy_from_slice(&noise(1000 + index as u64, PAGE));
        }
    }
    let ids = |mut data: &[u8]| {
        cuts(&chunker(), data)
            .into_iter()
            .map(|length| (blake3::hash(data.split_off(..length).expect("cuts lie in the data")), length))
            .collect::<Vec<_>>()
    };
    let before: std::collections::HashSet<_> = ids(&data).into_iter().collect();
    let again: usize =
        ids(&changed).iter().filter(|chunk| !before.contains(chunk)).map(|(_, length)| length).sum();
    let share = again as f64 / data.len() as f64;
    assert!((0.18..0.24).contains(&share), "{share} of the bytes for 2 % of the pages");
}

/// The cut as the format document defines it.
fn cut_by_definition(chunker: &Chunker, data: &[u8]) -> usize {
    let (minimum, maximum) = (chunker.sizes.minimum as usize, chunker.sizes.maximum as usize);
    let end = data.len().min(maximum);
    let mut hash = 0u64;
    for (at, byte) in data[..end].iter().enumerate().skip(minimum) {
        hash = (hash << 1).wrapping_add(chunker.table[usize::from(*byte)]);
        let mask = if at < chunker.centre { chunker.mask_before } else { chunker.mask_after };
        if hash & mask == 0 {
            return at + 1;
        }
    }
    end
}

proptest! {
    #[test]
    fn halves_side_by_side_cut_as_defined(
        seed: u64,
        length in 0usize..200_000,
        average in 10u32..17,
        minimum in 64u32..1024,
    ) {
        let sizes = CutSizes { minimum, average: 1 << average, maximum: 1 << 18 };
        let chunker = Chunker::new(&Key::new([9; 32]), sizes);
        let data = noise(seed, length);
        let mut at = 0;
        while at < data.len() {
            let cut = chunker.cut(&data[at..]);
            prop_assert_eq!(cut, cut_by_definition(&chunker, &data[at..]));
            at += cut;
        }
    }

    #[test]
    fn lengths_keep_to_the_sizes(seed: u64, length in 0usize..2_000_000, repeat in 1usize..64) {
        let mut data = noise(seed, length / repeat);
        data = data.repeat(repeat);
        let sizes = CutSizes::default();
        let lengths = cuts(&chunker(), &data);
        prop_assert_eq!(lengths.iter().sum::<usize>(), data.len());
        for (index, length) in lengths.iter().enumerate() {
            prop_assert!(*length <= sizes.maximum as usize);
            prop_assert!(index + 1 == lengths.len() || *length > sizes.minimum as usize);
        }
    }
}

#[test]
fn zeros_are_seen() {
    assert!(is_zero(&[]) && is_zero(&[0; 1000]));
    for at in [0, 63, 64, 998, 999] {
        let mut data = [0; 1000];
        data[at] = 1;
        assert!(!is_zero(&data), "{at}");
    }
}
