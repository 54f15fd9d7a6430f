use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::{BATCH, Collected, Cursor, Listed, Room};
use crate::sys::directory::open_trusted_directory;

fn open(path: &Path) -> std::os::fd::OwnedFd {
    open_trusted_directory(&CString::new(path.as_os_str().as_encoded_bytes()).unwrap()).unwrap()
}

/// All names, by batches, each of them full but the last.
fn read(listed: &Listed) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for number in 0..listed.len().div_ceil(BATCH) {
        let (names, range) = listed.batch(number).unwrap();
        assert_eq!(range.len(), BATCH.min(listed.len() - all.len()));
        all.extend(range.map(|index| names.get(index).to_bytes().to_vec()));
    }
    assert!(listed.batch(listed.len().div_ceil(BATCH)).unwrap().1.is_empty());
    all
}

/// Names of one file that begin alike and differ in length, so that every comparison matters.
fn populate(directory: &Path, count: u32, length: usize) -> Vec<Vec<u8>> {
    let name = |number: u32| {
        let hash = number.wrapping_mul(0x9e37_79b1);
        format!("{}-{hash:x}", "n".repeat(hash as usize % length))
    };
    let mut names: Vec<Vec<u8>> = (0..count).map(|number| name(number).into_bytes()).collect();
    let path = |name: &[u8]| directory.join(std::str::from_utf8(name).unwrap());
    if let Some((first, others)) = names.split_first() {
        File::create(path(first)).unwrap();
        for other in others {
            fs::hard_link(path(first), path(other)).unwrap();
        }
    }
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn order_is_the_same_with_little_memory(count in 0_u32..6000, length in 1_usize..220, bytes in 0_usize..300_000) {
        let (source, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let wanted = populate(source.path(), count, length);
        for bytes in [bytes, usize::MAX >> 1] {
            let room = Room::new(bytes, temporary.path().into());
            let (listed, failure) = Listed::read(open(source.path()), &room);
            prop_assert!(failure.is_none());
            prop_assert_eq!(read(&listed), wanted.clone());
        }
        prop_assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_read_again_has_room_again() {
    let source = tempfile::tempdir().unwrap();
    populate(source.path(), 3000, 200);
    let room = Room::new(4 << 20, PathBuf::from("/nowhere"));
    for _ in 0..20 {
        let (listed, failure) = Listed::read(open(source.path()), &room);
        assert!(failure.is_none());
        assert!(matches!(listed, Listed::Here { .. }));
    }
}

#[test]
fn whoever_waits_hears_that_names_come() {
    let (source, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    populate(source.path(), 5000, 60);
    // The second time they are merged, too: five batches, the last of which is not full.
    for (bytes, expected) in [(usize::MAX >> 1, 4), (0, 4 + 5)] {
        let room = Room::new(bytes, temporary.path().into());
        let told = Cell::new(0);
        let goes_on = || told.set(told.get() + 1);
        let (listed, failure) = Listed::read_telling(open(source.path()), &room, &goes_on);
        assert!(failure.is_none());
        assert_eq!((listed.len(), told.get()), (5000, expected));
    }
}

#[test]
fn names_that_no_file_takes_are_a_problem_and_not_a_part() {
    let source = tempfile::tempdir().unwrap();
    populate(source.path(), 3000, 200);
    let room = Room::new(0, PathBuf::from("/nowhere"));
    let (listed, failure) = Listed::read(open(source.path()), &Arc::clone(&room));
    assert_eq!(listed.len(), 0);
    let failure = failure.unwrap();
    assert!(failure.to_string().contains("/nowhere (TMPDIR)"), "{failure}");
}

#[test]
fn a_cursor_takes_what_comes_before_and_passes_by_what_is_the_same() {
    let (source, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let there = populate(source.path(), 5000, 60);
    for bytes in [0, usize::MAX >> 1] {
        let room = Room::new(bytes, temporary.path().into());
        let (listed, failure) = Listed::read(open(source.path()), &room);
        assert!(failure.is_none());
        assert_eq!(matches!(listed, Listed::Here { .. }), bytes > 0);
        let mut cursor = Cursor::new(listed);
        let mut taken = Vec::new();
        // Every third name is in both, and beside each is one that is not there.
        for same in there.iter().step_by(3) {
            for bound in [same.clone(), [&same[..], b"!"].concat()] {
                while let Some(name) = cursor.next_before(Some(&bound)).unwrap() {
                    taken.push(name);
                }
            }
        }
        while let Some(name) = cursor.next_before(None).unwrap() {
            taken.push(name);
        }
        let only_there = |(at, name): (usize, &Vec<u8>)| (at % 3 != 0).then(|| name.clone());
        assert_eq!(taken, there.iter().enumerate().filter_map(only_there).collect::<Vec<_>>());
    }
}

/// A directory that is changed while it is listed may show a name twice, and so do some file systems.
#[test]
fn a_name_that_comes_twice_is_there_once() {
    let temporary = tempfile::tempdir().unwrap();
    let name = |number: u32| CString::new(format!("{}{number}", "n".repeat(60))).unwrap();
    let mut wanted: Vec<Vec<u8>> = (0..3000).map(|number| name(number).into_bytes()).collect();
    wanted.sort();
    for bytes in [0, usize::MAX >> 1] {
        let room = Room::new(bytes, temporary.path().into());
        let mut collected = Collected::new(&room);
        // Beside each other, and far from each other.
        for number in (0..3000).chain(0..3000).chain([0, 0]) {
            collected.push(&name(number)).unwrap();
            collected.push(&name(number / 2)).unwrap();
        }
        let listed = collected.finish(&|| ()).unwrap();
        assert_eq!(matches!(listed, Listed::There(_)), bytes == 0);
        assert_eq!(read(&listed), wanted);
    }
}
