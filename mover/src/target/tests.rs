use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::Problem;
use super::block::{BlockTarget, BlockTargetOptions};
use super::stdout::StreamTarget;
use super::tree::{TargetOptions, TargetTree};
use crate::error::{Error, ErrorKind};
use crate::format::metadata::{FileTime, Kind, Metadata, Xattr};
use crate::sys::attributes::{read_flags, write_flags};

fn open(root: &Path) -> TargetTree {
    TargetTree::open(root, TargetOptions { replace: true, replace_trees: true }).unwrap()
}

fn own(size: u64) -> Metadata {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mtime = FileTime { seconds: -5, nanoseconds: 7 };
    Metadata { mode: 0o640, uid, gid, mtime, links: 1, size, ..Metadata::default() }
}

#[test]
fn a_file_is_written_in_any_order_with_its_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let target = open(dir.path());
    target.create_directory(b"d").unwrap();
    let file = target.prepare_file(b"d/f", 0, false).unwrap();
    target.write_at(&file, 4, b"efgh").unwrap();
    target.write_at(&file, 0, b"abcd").unwrap();
    let xattrs = vec![Xattr { name: b"user.k".to_vec(), value: b"v".to_vec() }];
    target.finish_file(&file, &Metadata { mode: 0o4755, xattrs, ..own(1 << 20) }).unwrap();
    target.finish_directory(b"d", &Metadata { mode: 0o2750, ..own(0) }).unwrap();
    assert!(target.finish().problems.is_empty());
    let stat = fs::metadata(dir.path().join("d/f")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o4755, -5, 7));
    assert_eq!((stat.len(), stat.blocks() < 64), (1 << 20, true));
    assert_eq!(&fs::read(dir.path().join("d/f")).unwrap()[..9], b"abcdefgh\0");
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().mtime(), -5);
}

#[test]
fn links_in_the_target_are_never_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    symlink(outside.path(), dir.path().join("way")).unwrap();
    symlink(&secret, dir.path().join("file")).unwrap();
    let target = open(dir.path());
    target.create_small_file(b"way/secret", &own(1), b"x").unwrap_err();
    target.create_small_file(b"file", &own(1), b"x").unwrap();
    target.remove(b"way").unwrap();
    assert_eq!(fs::read(&secret).unwrap(), b"untouched");
    assert!(!dir.path().join("file").is_symlink());
    for path in ["../x", "/x", "a/../../x", ".", "", "a//b"] {
        let error = target.create_small_file(path.as_bytes(), &own(1), b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{path:?}");
    }
}

#[test]
fn a_file_with_a_second_name_is_replaced_and_not_written_through() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target_root = dir.path().join("t");
    fs::create_dir(&target_root).unwrap();
    fs::write(dir.path().join("other"), "untouched").unwrap();
    fs::hard_link(dir.path().join("other"), target_root.join("f")).unwrap();
    drop(outside);
    let target = open(&target_root);
    let file = target.prepare_file(b"f", 0, true).unwrap();
    assert!(!file.is_reused());
    target.write_at(&file, 0, b"new").unwrap();
    target.finish_file(&file, &own(3)).unwrap();
    assert_eq!(fs::read(dir.path().join("other")).unwrap(), b"untouched");
    assert_eq!(fs::read(target_root.join("f")).unwrap(), b"new");
}

#[test]
fn in_place_keeps_the_inode_and_makes_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let target = open(dir.path());
    let file = target.prepare_file(b"f", 0, true).unwrap();
    assert!(file.is_reused());
    target.punch(&file, 0, 1 << 19).unwrap();
    target.finish_file(&file, &own(600_000)).unwrap();
    let (stat, contents) = (fs::metadata(&path).unwrap(), fs::read(&path).unwrap());
    assert_eq!((stat.ino(), stat.len()), (inode, 600_000));
    assert!(contents[..1 << 19].iter().all(|b| *b == 0) && contents[1 << 19..].iter().all(|b| *b == 1));
}

#[test]
fn what_exists_stays_unless_replacing_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "old").unwrap();
    let target = TargetTree::open(dir.path(), TargetOptions::default()).unwrap();
    let error = target.create_small_file(b"f", &own(1), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"old");
    let target = open(dir.path());
    fs::create_dir_all(dir.path().join("d/e")).unwrap();
    target.create_small_file(b"d", &own(1), b"x").unwrap();
    target.create_directory(b"f").unwrap();
    assert_eq!((dir.path().join("d").is_file(), dir.path().join("f").is_dir()), (true, true));
}

#[test]
fn nodes_links_and_missing_things() {
    let dir = tempfile::tempdir().unwrap();
    let target = open(dir.path());
    let first = target.create_small_file(b"a", &Metadata { links: 2, ..own(1) }, b"x").unwrap();
    target.hard_link(b"b", &first).unwrap();
    target.create_node(b"s", &Kind::Symlink { target: b"no/where".to_vec() }, &own(0)).unwrap();
    target.create_node(b"p", &Kind::Fifo, &own(0)).unwrap();
    target.create_node(b"k", &Kind::Socket, &own(0)).unwrap();
    let kind =
        |path: &[u8]| target.look_up(path).unwrap().map(|(kind, metadata)| (kind, metadata.mtime.seconds));
    assert_eq!(kind(b"p"), Some((Kind::Fifo, -5)));
    assert!(matches!(kind(b"s"), Some((Kind::Symlink { .. }, -5))));
    assert_eq!((kind(b"none"), kind(b"none/x")), (None, None));
    assert_eq!(target.look_up(b"b").unwrap().unwrap().1.links, 2);
    fs::remove_file(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a"), "somebody else's").unwrap();
    target.hard_link(b"c", &first).unwrap_err();
    assert!(!dir.path().join("c").exists());
}

#[test]
fn problems_for_which_there_is_no_room_are_counted_by_what_they_are_about() {
    let dir = tempfile::tempdir().unwrap();
    let target = open(dir.path());
    let report = |path: usize, what: String| {
        target.report(Problem::new(vec![b'x'; path], what, Error::corrupt("a test")));
    };
    // All of the room for a path that is as long, and then none for the shortest.
    report((2 << 20) - 5, "owner".into());
    report(1, "owner".into());
    report(1, "n".repeat(1 << 20));
    (0..2000).for_each(|number| report(1, format!("user.{number}")));
    report(1, "owner".into());
    let left = target.finish();
    assert_eq!((left.problems.len(), left.further["owner"]), (1, 2));
    assert_eq!((left.further.len(), left.further.values().sum::<u64>()), (1000, 2003));
    assert_eq!(left.further["other attributes"], 2000 - 998 + 1);
}

#[test]
fn a_file_is_locked_when_it_has_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let target = open(dir.path());
    let appended_to = rustix::fs::IFlags::APPEND.bits();
    let locked = Metadata { links: 2, flags: appended_to, ..own(1) };
    let first = target.create_small_file(b"a", &locked, b"x").unwrap();
    target.hard_link(b"b", &first).unwrap();
    let file = fs::File::open(dir.path().join("a")).unwrap();
    let is_locked = || read_flags(&file).is_ok_and(|flags| flags & appended_to != 0);
    assert!(!is_locked());
    target.lock_linked();
    let was_locked = is_locked();
    if was_locked {
        write_flags(&file, 0).unwrap();
    }
    // It is done once. Where no flag can be set, or not by this user, that is told.
    let problems = target.finish().problems;
    assert_eq!((problems.len(), is_locked()), (usize::from(!was_locked), false));
}

#[test]
fn a_handle_survives_the_loss_of_its_descriptor_but_not_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let target = open(dir.path());
    let files: Vec<_> =
        (0..2000).map(|i| target.prepare_file(format!("f{i}").as_bytes(), 0, false).unwrap()).collect();
    for file in &files {
        target.write_at(file, 0, file.path()).unwrap();
    }
    assert_eq!(fs::read(dir.path().join("f0")).unwrap(), b"f0");
    fs::rename(dir.path().join("f1"), dir.path().join("f0")).unwrap();
    assert_eq!(target.write_at(&files[0], 0, b"x").unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn an_image_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, "old").unwrap();
    BlockTarget::open(&path, 10, BlockTargetOptions::default()).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    let replace = BlockTargetOptions { replace: true, ..BlockTargetOptions::default() };
    let image = BlockTarget::open(&path, 8192, replace).unwrap();
    image.write_at(4096, &[7; 4096]).unwrap();
    image.zero(0, 5000).unwrap();
    assert_eq!(image.write_at(8000, &[1; 1000]).unwrap_err().kind(), ErrorKind::Corrupt);
    image.finish().unwrap();
    let contents = fs::read(&path).unwrap();
    assert!(contents[..5000].iter().all(|b| *b == 0) && contents[5000..].iter().all(|b| *b == 7));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o022, 0);
}

#[test]
fn a_stream_gets_zeros_for_holes() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut stream = StreamTarget::new(writer);
    stream.write(b"ab").unwrap();
    stream.write_zeros(3).unwrap();
    assert_eq!(stream.finish().unwrap(), 5);
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
    assert_eq!(read, b"ab\0\0\0");
}

#[test]
fn a_directory_in_the_way_goes_only_if_it_is_empty_or_may_go() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("full/below")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let careful =
        TargetTree::open(dir.path(), TargetOptions { replace: true, replace_trees: false }).unwrap();
    let fifo = |target: &TargetTree, path: &[u8]| target.create_node(path, &Kind::Fifo, &own(0));
    fifo(&careful, b"empty").unwrap();
    let error = careful.create_small_file(b"full", &own(1), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.hint().is_some_and(|hint| hint.contains("--delete")));
    assert!(dir.path().join("full/below").is_dir());
    assert_eq!(careful.removed(), 0);
    let thorough = open(dir.path());
    fifo(&thorough, b"full").unwrap();
    assert_eq!(thorough.removed(), 1, "what was in it");
}

#[test]
fn where_nothing_was_nothing_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut target = open(dir.path());
    target.replace_nothing();
    let first = target.create_small_file(b"a", &Metadata { links: 2, ..own(1) }, b"x").unwrap();
    target.hard_link(b"b", &first).unwrap();
    // The same name of the same file is no other one.
    target.hard_link(b"b", &first).unwrap();
    target.create_directory(b"d").unwrap();
    // Where the file system takes "a" and "A" for one, the second comes to what the first has made.
    let other = target.create_small_file(b"other", &own(1), b"y").unwrap();
    let refused = [
        target.create_small_file(b"a", &own(1), b"y").unwrap_err(),
        target.prepare_file(b"a", 0, false).unwrap_err(),
        target.create_node(b"a", &Kind::Fifo, &own(0)).unwrap_err(),
        target.hard_link(b"a", &other).unwrap_err(),
        target.create_directory(b"a").unwrap_err(),
        target.create_directory(b"d").unwrap_err(),
        target.create_node(b"d", &Kind::Fifo, &own(0)).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("two names of the snapshot for one"), "{error}");
    }
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"x");
    assert!(dir.path().join("d").is_dir());
}
