use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, symlink};

use super::directory::{open_directory_beneath, open_trusted_directory, read_names};
use super::fds::{FdCache, Slot};
use super::file::{Extent, Extents, punch_hole};

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
    let (names, failure) = read_names(root_of(&dir).as_fd());
    assert!(failure.is_none());
    let listed: Vec<_> = (0..names.len()).map(|i| names.get(i).to_str().unwrap().to_owned()).collect();
    assert_eq!(listed, ["B", "a", "a-b", "a.b", "b", "é"]);
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
