use super::*;

#[test]
fn each_place_is_kept_for_itself() {
    let mut kept = Kept::default();
    assert!(!kept.has(0) && !kept.has(1 << 40));
    for place in [0, 5, 5, 63, 64, 65, 1000] {
        kept.add(place);
    }
    let found: Vec<u64> = (0..2000).filter(|place| kept.has(*place)).collect();
    assert_eq!(found, [0, 5, 63, 64, 65, 1000]);
}

#[test]
fn a_place_takes_one_bit() {
    let mut kept = Kept::default();
    for (place, words) in [(0, 1), (63, 1), (64 * 100 - 1, 100), (7, 100), (64 * 100, 101)] {
        kept.add(place);
        assert_eq!(kept.bits.len(), words, "{place}");
    }
}
