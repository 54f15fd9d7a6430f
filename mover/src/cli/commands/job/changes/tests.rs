use std::fs;

use super::extents::{Extents, Unusable};

const KIB: i64 = 1 << 10;

fn listed(size: u64, told: &[(i64, i64)], capacity: i64) -> Result<(String, u64), Unusable> {
    let mut extents = Extents::create(size).expect("a file");
    for &(offset, length) in told {
        extents.of_volume(capacity)?;
        extents.add(offset, length)?;
    }
    extents.end()?;
    let (file, bytes) = extents.finish().map_err(Unusable::File)?;
    Ok((fs::read_to_string(&file).expect("the list"), bytes))
}

#[test]
fn extents_are_rounded_to_blocks_and_joined() {
    let told =
        [(0, KIB), (70 * KIB, KIB), (200 * KIB, 4 * KIB), (204 * KIB, 60 * KIB), (1000 * KIB, 24 * KIB)];
    let (list, bytes) = listed(1 << 20, &told, 1 << 20).expect("a list");
    assert_eq!(list, "0 131072\n196608 131072\n983040 65536\n");
    assert_eq!(bytes, 320 << 10);
    assert_eq!(listed(1 << 20, &[], 1 << 20).expect("a list"), (String::new(), 0));
}

#[test]
fn what_the_storage_did_not_speak_of_counts_as_changed() {
    let (list, bytes) = listed(300 << 10, &[(0, KIB)], 100 * KIB).expect("a list");
    assert_eq!((list.as_str(), bytes), ("0 307200\n", 300 << 10));
    let (list, _) = listed(300 << 10, &[(0, KIB)], 150 * KIB).expect("a list");
    assert_eq!(list, "0 65536\n131072 176128\n");
}

#[test]
fn a_list_that_makes_no_sense_is_none() {
    let size = 1 << 20;
    for told in [
        &[(-1, KIB)][..],
        &[(0, -KIB)],
        &[(0, 0)],
        &[(size, KIB)],
        &[(0, i64::MAX)],
        &[(i64::MAX, i64::MAX)],
        &[(KIB, KIB), (0, KIB)],
        &[(0, KIB), (0, KIB)],
    ] {
        let refused = listed(size as u64, told, size);
        assert!(matches!(refused, Err(Unusable::List(_))), "{told:?} {refused:?}");
    }
}

#[test]
fn a_list_of_another_size_is_none() {
    for capacity in [(1 << 20) + 1, i64::MAX, 0, -1] {
        let refused = listed(1 << 20, &[(0, KIB)], capacity);
        assert!(matches!(refused, Err(Unusable::List(_))), "{capacity} {refused:?}");
    }
    let mut extents = Extents::create(1 << 20).expect("a file");
    extents.of_volume(512 * KIB).expect("the first");
    assert!(matches!(extents.of_volume(513 * KIB), Err(Unusable::List(_))), "it has changed");
}

#[test]
fn who_goes_on_may_be_told_the_rest_of_an_extent() {
    let (list, _) = listed(1 << 20, &[(0, 128 * KIB), (64 * KIB, 128 * KIB)], 1 << 20).expect("a list");
    assert_eq!(list, "0 196608\n");
}
