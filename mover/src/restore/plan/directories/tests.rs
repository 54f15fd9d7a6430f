use super::*;
use crate::{reader::testing::Writer, restore::plan::tests::planner};

#[test]
fn directories_on_the_way_come_from_the_top() {
    let all = |directory: &'static [u8]| directories_to(directory).collect::<Vec<_>>();
    assert!(all(b"").is_empty());
    assert_eq!(all(b"one"), [&b"one"[..]]);
    assert_eq!(all(b"a/bc/d"), [&b"a"[..], b"a/bc", b"a/bc/d"]);
}

#[test]
fn a_directory_lies_in_itself_and_in_what_is_above_it() {
    for (directory, above, expected) in [
        ("a", "a", true),
        ("a/b", "a", true),
        ("a/b/c", "a", true),
        ("ab", "a", false),
        ("a", "a/b", false),
        ("a/b", "b", false),
        ("", "a", false),
    ] {
        assert_eq!(is_in(directory.as_bytes(), above.as_bytes()), expected, "{directory:?} in {above:?}");
    }
}

#[test]
fn directories_wait_for_their_attributes_in_their_part_of_the_memory() {
    let reader = Writer::new().finish(Vec::new(), 2);
    let each = mem::size_of::<(Vec<u8>, Metadata)>() + 64 + 3;
    for (room, enough) in [(2 * each, true), (2 * each - 1, false)] {
        let target = tempfile::tempdir().unwrap();
        let memory_bytes = room as u64 * DIRECTORY_SHARE;
        let options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        let (mut planner, _queue) = planner(&options, &reader);
        assert!(planner.make_directory(b"one".to_vec(), Metadata::default()));
        assert_eq!(planner.directories.as_ref().map(Vec::len), Some(1));
        assert!(planner.make_directory(b"two".to_vec(), Metadata::default()));
        assert_eq!(planner.directories.as_ref().map(Vec::len), enough.then_some(2));
        assert!(target.path().join("two").is_dir());
    }
}
