use super::*;

#[test]
fn each_place_is_remembered_for_itself() {
    let mut places = Places::default();
    assert!(places.is_empty() && !places.has(0) && !places.has(1 << 40));
    for place in [0, 5, 5, 63, 64, 65, 1000] {
        places.add(place);
    }
    assert!(!places.is_empty());
    let found: Vec<u64> = (0..2000).filter(|place| places.has(*place)).collect();
    assert_eq!(found, [0, 5, 63, 64, 65, 1000]);
}

#[test]
fn a_place_takes_one_bit() {
    let mut places = Places::default();
    for (place, words) in [(0, 1), (63, 1), (64 * 100 - 1, 100), (7, 100), (64 * 100, 101)] {
        places.add(place);
        assert_eq!(places.bits.len(), words, "{place}");
    }
}
