use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, symlink};

use super::direct::{AlignedBytes, DIRECT_ALIGNMENT, is_aligned, read_range, write_front};
use super::directory::{each_entry, open_directory_beneath, open_trusted_directory};
use super::fds::{FdCache, Slot};
use super::file::{Extent, Extents, punch_hole, read_full_at, version_of, write_full_at};
use super::names::{Listed, Room};

fn root_of(dir: &tempfile::TempDir) -> std::os::fd::OwnedFd {
    let path = super::directory::to_c_string(dir.path().as_os_str().as_encoded_bytes()).unwrap();
    open_trusted_directory(&path).unwrap()
}

#[test]
fn names_come_in_byte_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "a", "B", "a.b", "a-b", "é"] {
        File::create(dir.path().join(name)).unwrap();
    }
    let room = Room::new(usize::MAX >> 1, dir.path().into());
    let (listed, failure) = Listed::read(root_of(&dir), &room);
    assert!(failure.is_none());
    let (names, range) = listed.batch(0).unwrap();
    let listed: Vec<_> = range.map(|i| names.get(i).to_str().unwrap().to_owned()).collect();
    assert_eq!(listed, ["B", "a", "a-b", "a.b", "b", "é"]);
}

#[test]
fn a_listing_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let wanted: BTreeSet<_> = (0..2000).map(|number| format!("name-{number}")).collect();
    wanted.iter().for_each(|name| drop(File::create(dir.path().join(name)).unwrap()));
    let (mut found, mut from, mut ended) = (Vec::new(), 0, false);
    while !ended {
        ended = true;
        // Opened anew each time, as somebody does who cannot keep it open.
        each_entry(root_of(&dir), from, |entry| {
            found.push(entry.file_name().to_str().unwrap().to_owned());
            (from, ended) = (entry.next_entry_cookie(), false);
            Ok(if found.len() % 3 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
    }
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn a_link_on_the_way_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("real/sub")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    let root = root_of(&dir);
    open_directory_beneath(&root, b"real/sub").unwrap();
    open_directory_beneath(&root, b"link/sub").unwrap_err();
    open_directory_beneath(&root, b"real/../../etc").unwrap_err();
}

#[test]
fn a_full_cache_lets_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let cache = FdCache::new(2);
    let slots: Vec<_> = (0..3).map(|_| std::sync::Arc::new(Slot::default())).collect();
    for slot in &slots {
        cache.fill(slot, root_of(&dir));
    }
    assert_eq!(slots.iter().map(|slot| slot.get().is_some()).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn holes_are_not_data() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create_new(dir.path().join("sparse")).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&[1; 1 << 20], 1 << 20).unwrap();
    let data = Extent { offset: 1 << 20, length: 1 << 20 };
    assert_eq!(Extents::new(&file, 3 << 20, true).collect::<Vec<_>>(), [data]);
    let whole = Extent { offset: 0, length: 3 << 20 };
    assert_eq!(Extents::new(&file, 3 << 20, false).collect::<Vec<_>>(), [whole]);
    punch_hole(&file, 1 << 20, 1 << 20).unwrap();
    assert_eq!(Extents::new(&file, 3 << 20, true).count(), 0);
}

#[test]
fn what_is_written_past_the_cache_is_read_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<u8> = (0..3_000_003u32).map(|index| (index * 7 % 251) as u8).collect();
    let mut aligned = AlignedBytes::with_capacity(contents.len());
    aligned.extend_from_slice(&contents);
    assert!(is_aligned(aligned.as_slice()));
    let file = File::create(dir.path().join("file")).unwrap();
    let front = write_front(&file, aligned.as_slice()).unwrap();
    assert!(front == 0 || front == contents.len() / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT, "{front}");
    assert_eq!(write_front(&file, &aligned.as_slice()[1..]).unwrap(), 0, "bytes that are not aligned");
    write_full_at(&file, &contents[front..], front as u64).unwrap();
    file.sync_all().unwrap();
    for is_warm in [false, true] {
        for (offset, length) in
            [(0, 3_000_003), (1, 200_000), (4096, 131_072), (2_900_001, 200_000), (17, 40)]
        {
            let file = File::open(dir.path().join("file")).unwrap();
            if !is_warm {
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
            let (bytes, start) = read_range(&file, offset, length).unwrap();
            let wanted = &contents[offset as usize..(offset as usize + length).min(contents.len())];
            assert!(bytes[start..] == *wanted, "{length} bytes at {offset}");
        }
        std::fs::read(dir.path().join("file")).unwrap();
    }
    let beyond = File::open(dir.path().join("file")).unwrap();
    let (bytes, start) = read_range(&beyond, 5_000_000, 200_000).unwrap();
    assert_eq!(bytes.len(), start);
}

#[test]
fn a_kernel_says_its_version() {
    assert_eq!(version_of("6.18.44-fc-v445"), Some((6, 18)));
    assert_eq!(version_of("5.4"), Some((5, 4)));
    assert_eq!(version_of("6.16-rc1"), Some((6, 16)));
    assert_eq!(version_of("FreeBSD"), None);
}

#[test]
fn large_pieces_are_written_and_read_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let contents: Vec<u8> = (0..2_500_000u32).map(|index| (index * 11 % 253) as u8).collect();
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    // Neighbours that share pages, the later ones first.
    let ends = [0, 3, 4096, 5000, 700_001, 700_002, 1_400_832, 2_200_000, 2_500_000];
    for pair in ends.windows(2).rev() {
        write_full_at(&file, &contents[pair[0]..pair[1]], pair[0] as u64).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == contents);
    for (offset, length) in [(0, 2_500_000), (1, 300_000), (2_400_000, 300_000), (3_000_000, 300_000)] {
        let mut buffer = vec![0; length];
        let count = read_full_at(&file, &mut buffer, offset as u64).unwrap();
        let wanted = &contents[offset.min(contents.len())..(offset + length).min(contents.len())];
        assert!(buffer[..count] == *wanted, "{length} bytes at {offset}");
    }
}
