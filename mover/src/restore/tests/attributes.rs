use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::format::metadata::Xattr;

/// A private directory with an attribute, in one that is open to its group, and a file below them.
fn private() -> Sample {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let chunk = writer.frame(FrameKind::Data, &[b"secret"], Compression::Stored).remove(0);
    let mut top = entry("top", Kind::Directory, Content::default(), 0);
    top.metadata.mode = 0o2750;
    let mut inner = entry("top/inner", Kind::Directory, Content::default(), 0);
    inner.metadata.mode = 0o700;
    inner.metadata.xattrs = vec![Xattr { name: b"user.k".to_vec(), value: b"v".to_vec() }];
    let other = entry("top/other", Kind::Directory, Content::default(), 0);
    let file = entry("top/inner/file", Kind::File, Content::Inline(vec![Run::Chunk(chunk)]), 6);
    let files = Contents::from([("top/inner/file".to_owned(), b"secret".to_vec())]);
    Sample { reader: writer.finish(vec![top, inner, other, file], 2), packs, files }
}

fn part(target: &Path, path: &str) -> RestoreOptions {
    let mut options = RestoreOptions { verify: true, ..RestoreOptions::to(target) };
    options.selection.path = path.into();
    options
}

/// Mode and time of modification.
fn look(path: &Path) -> (u32, i64) {
    let stat = fs::metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.mtime())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_becomes_the_directory_that_was_chosen() {
    let (sample, place) = (private(), directory());
    let volume = place.path().join("volume");
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    fs::create_dir(place.path().join("empty")).unwrap();
    for name in ["new", "empty", "volume"] {
        let target = place.path().join(name);
        let (report, problems) = run(&sample, &part(&target, "top/inner")).await;
        assert_eq!(
            (report.target_attributes, problems),
            (Some(TargetAttributes::Restored), vec![]),
            "{name}"
        );
        assert_eq!(look(&target), (0o700, 1_700_000_000), "{name}");
        let open = fs::File::open(&target).unwrap();
        let wanted = sample.reader.find(b"top/inner").await.unwrap().metadata;
        assert_eq!(crate::target::differing(&open, &wanted).unwrap(), [""; 0], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_contents_keeps_its_own_attributes() {
    let (sample, target) = (private(), directory());
    fs::write(target.path().join("mine"), "mine").unwrap();
    fs::set_permissions(target.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let (report, problems) = run(&sample, &part(target.path(), "top")).await;
    assert_eq!((report.target_attributes, problems), (Some(TargetAttributes::Left), vec![]));
    assert_eq!(look(target.path()).0, 0o711);
    assert_eq!(look(&target.path().join("inner")), (0o700, 1_700_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_taken_over_gets_them_whatever_it_holds() {
    let (sample, target) = (private(), directory());
    fs::write(target.path().join("mine"), "mine").unwrap();
    let options = RestoreOptions { take_over: true, ..part(target.path(), "top/inner") };
    let (report, problems) = run(&sample, &options).await;
    assert_eq!((report.target_attributes, problems), (Some(TargetAttributes::Restored), vec![]));
    assert_eq!(look(target.path()), (0o700, 1_700_000_000));
    assert!(target.path().join("mine").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_snapshot_says_nothing_of_the_target() {
    let (sample, target) = (private(), directory());
    let before = look(target.path()).0;
    let (report, _) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!((report.target_attributes, look(target.path()).0), (None, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_notices_a_target_that_was_changed() {
    let (sample, target) = (private(), directory());
    let options = part(target.path(), "top/inner");
    run(&sample, &options).await;
    fs::set_permissions(target.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let monitor = CollectMonitor::default();
    verify::verify_target(&sample.reader, &options, &monitor).await.unwrap();
    let problems = monitor.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("mode"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_above_what_patterns_chose_are_as_they_were() {
    let sample = private();
    for memory_bytes in [3600, limits::MEMORY_DEFAULT] {
        let target = directory();
        let mut options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        options.selection.include.add_pattern("file", false, "test").unwrap();
        let (_, problems) = run(&sample, &options).await;
        assert_eq!(problems, []);
        assert_eq!(look(&target.path().join("top")), (0o2750, 1_700_000_000), "{memory_bytes}");
        assert_eq!(look(&target.path().join("top/inner")), (0o700, 1_700_000_000), "{memory_bytes}");
        assert!(!target.path().join("top/other").exists());
        assert!(fs::read(target.path().join("top/inner/file")).unwrap() == b"secret");
    }
}
