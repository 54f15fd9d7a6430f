use super::*;
use crate::{format::entry::Content, reader::testing};

/// What becomes of a name of the file with this inode.
fn role(links: &mut Links, place: u64, path: &str, inode: u64) -> Role {
    let metadata = Metadata { links: 2, device: 1, inode, ..Metadata::default() };
    links.role(place, path.as_bytes(), &metadata)
}

#[test]
fn a_file_for_which_there_is_no_room_waits_with_all_of_its_names() {
    // Two files whose paths have ten bytes find room, and there would be some for a third with a shorter one.
    let mut links = Links::within(3 * FIRST_BYTES + 25);
    let met =
        [("first-0001", 1), ("first-0002", 2), ("first-0003", 3), ("other-0001", 1), ("x", 3), ("y", 4)];
    let roles: Vec<_> =
        (0..).zip(met).map(|(place, (path, inode))| role(&mut links, place, path, inode)).collect();
    let (first, further, later) = (Role::First, Role::Further, Role::Later);
    assert_eq!(roles, [first, first, later, further, later, later]);
    let waiting = links.next_round().unwrap();
    let places: Vec<u64> = (0..100).filter(|place| waiting.has(*place)).collect();
    assert_eq!(places, [2, 4, 5]);
    let roles = places.iter().map(|place| {
        let (path, inode) = met[usize::try_from(*place).unwrap()];
        role(&mut links, *place, path, inode)
    });
    assert_eq!(roles.collect::<Vec<_>>(), [first, further, first]);
    assert!(links.next_round().is_none());
}

#[test]
fn one_file_finds_room_in_each_round_whatever_its_path_takes() {
    let mut links = Links::within(0);
    let long = "d/".repeat(5000) + "x";
    let mut waiting: Vec<u64> = (0..4).collect();
    while !waiting.is_empty() {
        let (place, others) = waiting.split_first().unwrap();
        assert_eq!(role(&mut links, *place, &long, *place), Role::First);
        assert!(others.iter().all(|place| role(&mut links, *place, "x", *place) == Role::Later));
        let left = links.next_round();
        assert_eq!(left.is_some(), !others.is_empty());
        waiting = others.to_vec();
    }
}

#[test]
fn flags_that_wait_for_the_names_of_a_file_take_room_as_well() {
    let each = FIRST_BYTES + 3;
    for (flags, room, second) in [
        (0, 2 * each, Role::First),
        (LOCKING_FLAGS, 3 * each - 1, Role::Later),
        (0, 2 * each - 1, Role::Later),
    ] {
        let mut links = Links::within(room);
        let metadata = Metadata { links: 2, inode: 1, flags, ..Metadata::default() };
        assert_eq!(links.role(0, b"one", &metadata), Role::First);
        assert_eq!(role(&mut links, 1, "two", 2), second, "{flags} {room}");
    }
}

#[test]
fn further_names_are_listed_in_their_part_of_the_memory_and_their_places_beyond_it() {
    let mut links = Links::new(3 * (FURTHER_BYTES as u64 + 10) * LINK_SHARE);
    assert_eq!(role(&mut links, 0, "first-0001", 1), Role::First);
    for (place, listed) in [(1, Some(1)), (3, Some(2)), (5, Some(3)), (7, None), (9, None)] {
        assert_eq!(role(&mut links, place, "other-0001", 1), Role::Further);
        assert_eq!(links.further.as_ref().map(Vec::len), listed);
    }
    let places: Vec<u64> = (0..100).filter(|place| links.further_places.has(*place)).collect();
    assert_eq!(places, [1, 3, 5, 7, 9]);
    // The next round has all of it for itself.
    assert!(links.next_round().is_none());
    assert_eq!((links.further.as_ref().map(Vec::len), links.further_bytes), (Some(0), 0));
    assert!(links.further_places.is_empty() && links.first_names.is_empty());
}

#[test]
fn names_of_files_with_several_are_counted() {
    let mut links = Links::new(0);
    let mut meet = |kind, count| {
        let mut entry = testing::entry("x", kind, Content::default(), 0);
        entry.metadata.links = count;
        links.meet(&entry)
    };
    assert_eq!([meet(Kind::File, 1), meet(Kind::File, 0), meet(Kind::Fifo, 1)], [None; 3]);
    assert_eq!([meet(Kind::Directory, 5), meet(Kind::Image, 5)], [None; 2]);
    assert_eq!([meet(Kind::File, 2), meet(Kind::Fifo, 3), meet(Kind::File, 9)], [Some(0), Some(1), Some(2)]);
}
