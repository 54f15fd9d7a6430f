use std::{collections::BTreeSet, fs};

use super::*;
use crate::{
    format::metadata::Metadata,
    restore::batch::{Batch, FILE_BYTES, FileTask, Sink},
};

/// Less than any table takes: names are sorted in files, and directories do not wait.
const LITTLE: u64 = 4096;

fn link(path: &str) -> Entry {
    entry(path, Kind::Symlink { target: b"nowhere".to_vec() }, Content::default(), 0)
}

pub(super) fn of_entries(entries: Vec<Entry>) -> Sample {
    let writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    Sample { reader: writer.finish(entries, 8), packs, files: Contents::new() }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(directory).unwrap().map(name).collect()
}

fn name(number: u32) -> String {
    format!("{}-{number}", "n".repeat(number as usize % 50))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_names_those_go_that_the_snapshot_does_not_have() {
    let wanted: Vec<_> = (0..200).map(|number| link(&format!("d/{}", name(number * 17)))).collect();
    let directory = entry("d", Kind::Directory, Content::default(), 0);
    let sample = of_entries([vec![directory], wanted].concat());
    for memory_bytes in [LITTLE, limits::MEMORY_DEFAULT] {
        let target = directory_with("d", 5000);
        let d = target.path().join("d");
        let options = RestoreOptions { delete: true, memory_bytes, ..RestoreOptions::to(target.path()) };
        let before = names(&d);
        let wanted: BTreeSet<_> = (0..200).map(|number| name(number * 17)).collect();
        let expected = before.difference(&wanted).count() as u64;
        let (report, problems) = run(&sample, &RestoreOptions { dry_run: true, ..options.clone() }).await;
        assert_eq!((report.deleted, problems), (expected, Vec::new()));
        assert_eq!(names(&d), before);
        let (report, problems) = run(&sample, &options).await;
        assert_eq!((report.deleted, problems), (expected, Vec::new()));
        assert_eq!(names(&d), wanted);
    }
}

/// A target with a directory of many files.
fn directory_with(name_of_it: &str, count: u32) -> tempfile::TempDir {
    let target = directory();
    let path = target.path().join(name_of_it);
    fs::create_dir(&path).unwrap();
    let first = path.join("first");
    fs::write(&first, "").unwrap();
    (0..count).for_each(|number| fs::hard_link(&first, path.join(name(number))).unwrap());
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_directories_are_emptied_however_many_wait() {
    let directories: Vec<_> = (0..60).map(|number| format!("d{number:02}")).collect();
    let made = directories.iter().map(|path| entry(path, Kind::Directory, Content::default(), 0));
    let below = directories.iter().step_by(2).map(|path| link(&format!("{path}/kept")));
    let sample = of_entries(made.chain(below).collect());
    for memory_bytes in [LITTLE, limits::MEMORY_DEFAULT] {
        let target = directory();
        for path in &directories {
            fs::create_dir_all(target.path().join(path).join("stray/deep")).unwrap();
        }
        let options = RestoreOptions { delete: true, memory_bytes, ..RestoreOptions::to(target.path()) };
        for dry_run in [true, false] {
            let (report, problems) = run(&sample, &RestoreOptions { dry_run, ..options.clone() }).await;
            assert_eq!((report.deleted, problems), (120, Vec::new()), "{memory_bytes}");
        }
        for (number, path) in directories.iter().enumerate() {
            let kept: &[&str] = if number % 2 == 0 { &["kept"] } else { &[] };
            assert!(names(&target.path().join(path)).iter().eq(kept), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_patterns_leave_out_are_no_problem() {
    let (sample, target) = (sample(), directory());
    fs::write(target.path().join("large"), "in use").unwrap();
    let mut options = RestoreOptions { delete: true, ..RestoreOptions::to(target.path()) };
    options.selection.include.add_pattern("large", false, "test").unwrap();
    let (report, problems) = run(&sample, &options).await;
    assert_eq!((report.deleted, problems), (1, Vec::new()));
    assert_eq!(names(target.path()), BTreeSet::from(["d".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_contents_in_the_way_of_a_file_stays_without_delete() {
    let (sample, target) = (sample(), directory());
    fs::create_dir_all(target.path().join("empty/mine")).unwrap();
    fs::write(target.path().join("empty/mine/file"), "mine").unwrap();
    let options = RestoreOptions { existing: Existing::Compare, ..RestoreOptions::to(target.path()) };
    for dry_run in [true, false] {
        let (report, problems) = run(&sample, &RestoreOptions { dry_run, ..options.clone() }).await;
        assert_eq!((report.deleted, problems.len()), (0, 1), "{problems:?}");
        assert_eq!(problems[0].what, "empty");
        assert!(problems[0].message.ends_with("or restore with --delete)"), "{problems:?}");
        assert_eq!(fs::read(target.path().join("empty/mine/file")).unwrap(), b"mine");
    }
    for dry_run in [true, false] {
        let options = RestoreOptions { delete: true, dry_run, ..options.clone() };
        let (report, problems) = run(&sample, &options).await;
        assert_eq!((report.deleted, problems), (2, vec![]), "{dry_run}");
    }
    assert_restored(target.path(), &sample.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_does_not_go_with_delete() {
    let (sample, target) = (sample(), directory());
    fs::write(target.path().join("mine"), "mine").unwrap();
    let mut options = RestoreOptions { delete: true, ..RestoreOptions::to(target.path()) };
    options.selection.path = b"d/e/large".to_vec();
    let monitor = Arc::new(CollectMonitor::default());
    let error = restore(&sample.reader, &options, monitor, Cancel::default()).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Invalid);
    assert_eq!(names(target.path()), BTreeSet::from(["mine".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_match_nothing_are_no_problem_and_are_told() {
    let (sample, target) = (sample(), directory());
    fs::write(target.path().join("mine"), "mine").unwrap();
    let mut options = RestoreOptions { delete: true, ..RestoreOptions::to(target.path()) };
    options.selection.include.add_pattern("nomatch", false, "test").unwrap();
    for memory_bytes in [LITTLE, limits::MEMORY_DEFAULT] {
        let options = RestoreOptions { memory_bytes, ..options.clone() };
        let (report, problems) = run(&sample, &options).await;
        assert_eq!((report, problems), (RestoreReport::default(), vec![]));
        assert!(report.is_of_nothing(&options.selection));
        assert_eq!(names(target.path()), BTreeSet::from(["mine".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_would_be_written_and_names_what_would_go() {
    let (sample, target) = (sample(), directory());
    let options = RestoreOptions { dry_run: true, ..RestoreOptions::to(target.path()) };
    let (planned, _) = run(&sample, &options).await;
    let (done, _) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!(planned.bytes_written, done.bytes_written, "holes are not written");
    assert_eq!((planned.files_new, done.files_new), (planned.files, done.files));
    fs::write(target.path().join("d/small003"), b"other").unwrap();
    fs::create_dir_all(target.path().join("d/more/deep")).unwrap();
    fs::write(target.path().join("d/more/file"), b"").unwrap();
    fs::write(target.path().join("stray"), b"").unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let options = RestoreOptions { delete: true, ..options };
    let report = restore(&sample.reader, &options, watched, Cancel::default()).await.unwrap();
    let mut removals = monitor.removals();
    removals.sort();
    assert_eq!(removals, ["d/more", "d/more/deep", "d/more/file", "stray"]);
    // The two names of one file are made anew.
    let expected = sample.files["d/small003"].len() + sample.files["z/one"].len();
    assert_eq!((report.deleted, report.bytes_written, report.files_new), (4, expected as u64, 0));
    assert!(target.path().join("d/more/deep").is_dir());
}

#[test]
fn a_batch_counts_files_without_contents_and_what_they_carry() {
    let task = |bytes| {
        let xattrs = vec![crate::format::metadata::Xattr { name: b"user.x".to_vec(), value: vec![0; bytes] }];
        Arc::new(FileTask::new(b"f".to_vec(), Metadata { xattrs, ..Metadata::default() }, Sink::Check))
    };
    let mut batch = Batch::default();
    batch.complete(task(0));
    assert!(batch.size() >= FILE_BYTES);
    batch.complete(task(1 << 16));
    batch.file(task(1 << 16));
    assert!(batch.size() >= 3 * FILE_BYTES + (2 << 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_empty_directory_nothing_stays_but_what_the_file_system_has_made() {
    let sample = of_entries(vec![entry("d", Kind::Directory, Content::default(), 0)]);
    for dry_run in [true, false] {
        let target = directory();
        fs::create_dir_all(target.path().join("lost+found")).unwrap();
        fs::create_dir_all(target.path().join("stray/lost+found")).unwrap();
        let mut options = RestoreOptions { delete: true, dry_run, ..RestoreOptions::to(target.path()) };
        options.selection.path = b"d".to_vec();
        let (report, problems) = run(&sample, &options).await;
        assert_eq!((report.deleted, problems), (2, vec![]));
        assert_eq!(target.path().join("stray").exists(), dry_run);
        assert!(target.path().join("lost+found").exists());
    }
    // A file of that name is anybody's.
    let target = directory();
    fs::write(target.path().join("lost+found"), "mine").unwrap();
    run(&sample, &RestoreOptions { delete: true, ..RestoreOptions::to(target.path()) }).await;
    assert_eq!(names(target.path()), BTreeSet::from(["d".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_names_what_goes_with_a_directory_in_the_way() {
    let (sample, target) = (sample(), directory());
    fs::create_dir_all(target.path().join("empty/mine")).unwrap();
    fs::write(target.path().join("empty/mine/file"), "mine").unwrap();
    fs::create_dir(target.path().join("link")).unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let options = RestoreOptions { delete: true, dry_run: true, ..RestoreOptions::to(target.path()) };
    let report = restore(&sample.reader, &options, watched, Cancel::default()).await.unwrap();
    let mut removals = monitor.removals();
    removals.sort();
    assert_eq!(removals, ["empty/mine", "empty/mine/file"]);
    assert_eq!((report.deleted, monitor.problems()), (2, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_in_the_way_is_nobodys_loss() {
    let (sample, target) = (sample(), directory());
    fs::create_dir(target.path().join("empty")).unwrap();
    fs::create_dir(target.path().join("link")).unwrap();
    for dry_run in [true, false] {
        let options = RestoreOptions { dry_run, ..RestoreOptions::to(target.path()) };
        let (report, problems) = run(&sample, &options).await;
        assert_eq!((report.deleted, problems), (0, vec![]), "{dry_run}");
    }
    assert_restored(target.path(), &sample.files);
}
