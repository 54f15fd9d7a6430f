use std::fs;

use super::{delete::of_entries, *};
use crate::{error::ErrorKind, monitor::Progress};

#[test]
fn there_are_as_many_workers_as_were_wished_for_or_as_there_are_cores() {
    assert_eq!([1, 2, 256, 257, 5000].map(worker_count), [1, 2, 256, 256, 256]);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    assert_eq!(worker_count(0), cores);
}

#[test]
fn a_restore_is_of_nothing_if_patterns_chose_nothing_to_restore_or_to_remove() {
    let (nothing, mut selection) = (RestoreReport::default(), Selection::default());
    selection.exclude.add_pattern("*", false, "test").unwrap();
    assert!(!nothing.is_of_nothing(&selection));
    selection.include.add_pattern("x", false, "test").unwrap();
    assert!(nothing.is_of_nothing(&selection));
    for something in [
        RestoreReport { files: 1, ..nothing },
        RestoreReport { directories: 1, ..nothing },
        RestoreReport { others: 1, ..nothing },
        RestoreReport { deleted: 1, ..nothing },
    ] {
        assert!(!something.is_of_nothing(&selection), "{something:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_counted_and_told() {
    let (sample, target) = (sample(), directory());
    let files = sample.files.len() as u64;
    let bytes = sample.files.values().map(|contents| contents.len() as u64).sum::<u64>();
    for existing in [Existing::Trust, Existing::Trust, Existing::Compare, Existing::Keep, Existing::KeepNewer]
    {
        let monitor = Arc::new(CollectMonitor::default());
        let options = RestoreOptions { existing, ..RestoreOptions::to(target.path()) };
        let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
        let report = restore(&sample.reader, &options, watched, Cancel::default()).await.unwrap();
        assert_eq!((report.files, report.directories, report.others), (files, 3, 1));
        assert_eq!((report.bytes, report.problems, report.deleted), (bytes, 0, 0));
        assert_eq!(report.files_verified, 0, "nobody asked for that");
        let progress = monitor.progress();
        assert_eq!(Progress::get(&progress.entries_expected), files + 4);
        assert_eq!(Progress::get(&progress.entries), files + 4);
        assert_eq!(Progress::get(&progress.bytes_expected), bytes);
        assert_eq!(Progress::get(&progress.bytes), bytes, "{existing:?}");
        assert_eq!(Progress::get(&progress.bytes_moved), report.bytes_written);
        assert_eq!(Progress::get(&progress.bytes_stored), report.bytes_fetched);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_written_is_not_read_back() {
    let (sample, target) = (sample(), directory());
    let none = target.path().join("none");
    let options = RestoreOptions { dry_run: true, verify: true, ..RestoreOptions::to(&none) };
    let (report, problems) = run(&sample, &options).await;
    assert_eq!((report.files_verified, problems), (0, vec![]));
    assert!(!none.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_keeps_its_name() {
    let (sample, target) = (sample(), directory());
    let mut options = RestoreOptions::to(target.path());
    options.selection.path = b"d/e/large".to_vec();
    let (report, problems) = run(&sample, &options).await;
    assert_eq!((report.files, report.directories, problems), (1, 0, vec![]));
    assert!(fs::read(target.path().join("large")).unwrap() == sample.files["d/e/large"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_among_files_is_a_problem_of_its_own() {
    let file = entry("file", Kind::File, Content::default(), 0);
    let sample = of_entries(vec![file, entry("image", Kind::Image, Content::default(), 0)]);
    let target = directory();
    let (report, problems) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!((report.files, report.others, problems.len()), (1, 0, 1));
    assert_eq!(problems[0].what, "image");
    assert!(problems[0].message.contains("a device or file of its own"), "{problems:?}");
    assert!(target.path().join("file").exists() && !target.path().join("image").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_with_several_names_is_one_pipe() {
    let pipe = |path: &str, inode, links| {
        let mut pipe = entry(path, Kind::Fifo, Content::default(), 0);
        (pipe.metadata.inode, pipe.metadata.device, pipe.metadata.links) = (inode, 1, links);
        pipe
    };
    let sample = of_entries(vec![pipe("alone", 4, 1), pipe("one", 5, 2), pipe("two", 5, 2)]);
    let target = directory();
    let (report, problems) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!((report.others, problems), (3, vec![]));
    let inode = |name: &str| fs::metadata(target.path().join(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
    assert_ne!(inode("one"), inode("alone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_cannot_be_set_are_told_and_the_contents_come_back() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let chunk = writer.frame(FrameKind::Data, &[b"bytes"], Compression::Stored).remove(0);
    let mut file = entry("file", Kind::File, Content::Inline(vec![Run::Chunk(chunk)]), 5);
    // Nobody has this number.
    file.metadata.uid = u32::MAX;
    let files = Contents::from([("file".to_owned(), b"bytes".to_vec())]);
    let (sample, target) = (Sample { reader: writer.finish(vec![file], 2), packs, files }, directory());
    let (report, problems) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!((report.problems, problems.len()), (1, 1), "{problems:?}");
    assert_eq!(problems[0].what, "file");
    assert!(problems[0].message.contains("owner"), "{problems:?}");
    assert_restored(target.path(), &sample.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_above_several_chosen_names_is_made_once() {
    let sample = sample();
    for memory_bytes in [3600, limits::MEMORY_DEFAULT] {
        let target = directory();
        let mut options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        options.selection.include.add_pattern("small00*", false, "test").unwrap();
        let (report, problems) = run(&sample, &options).await;
        assert_eq!((report.files, report.directories, problems), (10, 0, vec![]));
        assert_eq!(fs::metadata(target.path().join("d")).unwrap().mtime(), 1_700_000_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_a_restore_is_told_and_nothing_more_is_removed() {
    let (sample, target) = (sample(), directory());
    fs::write(target.path().join("stray"), "mine").unwrap();
    let (cancel, monitor) = (Cancel::default(), Arc::new(CollectMonitor::default()));
    cancel.cancel();
    let options = RestoreOptions { delete: true, verify: true, ..RestoreOptions::to(target.path()) };
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let error = restore(&sample.reader, &options, watched, cancel).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(monitor.problems(), []);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
    assert_eq!(fs::read(target.path().join("stray")).unwrap(), b"mine");
}
