use std::{
    fs,
    sync::Once,
    time::{Duration, SystemTime},
};

use super::*;
use crate::sys::attributes::write_flags;

/// Restores once more, believing sizes and times; everything must be as in the snapshot afterwards.
async fn again(sample: &Sample, target: &Path) -> RestoreReport {
    let options = RestoreOptions { verify: true, ..RestoreOptions::to(target) };
    let (report, problems) = run(sample, &options).await;
    assert_eq!(problems, []);
    assert_restored(target, &sample.files);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_file_with_a_name_elsewhere_keeps_its_contents_under_both() {
    let (sample, target, outside) = (sample(), directory(), directory());
    let large = target.path().join("d/e/large");
    // Inside of the target, and outside of it where somebody keeps older states by links.
    for other in [target.path().join("another name"), outside.path().join("kept")] {
        run(&sample, &RestoreOptions::to(target.path())).await;
        let skipped = again(&sample, target.path()).await.files_skipped;
        fs::hard_link(&large, &other).unwrap();
        let dry = RestoreOptions { dry_run: true, ..RestoreOptions::to(target.path()) };
        let (planned, _) = run(&sample, &dry).await;
        let report = again(&sample, target.path()).await;
        assert_eq!((planned.files_skipped, report.files_skipped), (skipped - 1, skipped - 1));
        assert!(fs::read(&other).unwrap() == sample.files["d/e/large"]);
        assert_eq!(fs::metadata(&large).unwrap().nlink(), 1, "what the other name has is not written to");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_file_that_cannot_be_written_to_is_made_anew_with_its_contents() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    let skipped = again(&sample, target.path()).await.files_skipped;
    let large = fs::File::open(target.path().join("d/e/large")).unwrap();
    if let Err(error) = write_flags(&large, rustix::fs::IFlags::IMMUTABLE.bits()) {
        eprintln!("not tried: no flag can be set there: {error}");
        return;
    }
    assert_eq!(again(&sample, target.path()).await.files_skipped, skipped - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_never_newer_than_what_is_to_be_in_its_place() {
    let sample = sample();
    for name in ["empty", "link"] {
        let target = directory();
        fs::create_dir_all(target.path().join(name).join("mine")).unwrap();
        let newer = RestoreOptions { existing: Existing::KeepNewer, ..RestoreOptions::to(target.path()) };
        for dry_run in [true, false] {
            let (report, problems) = run(&sample, &RestoreOptions { dry_run, ..newer.clone() }).await;
            let named: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
            assert_eq!((report.files_skipped, named), (0, vec![name]), "{dry_run}");
        }
        assert!(target.path().join(name).join("mine").is_dir());
        let (report, problems) = run(&sample, &RestoreOptions { delete: true, ..newer }).await;
        assert_eq!((report.deleted, problems), (1, vec![]), "{name}");
        assert!(!fs::symlink_metadata(target.path().join(name)).unwrap().is_dir(), "{name}");
        // Whoever wants nothing overwritten gets no problem for it.
        let kept = directory();
        fs::create_dir_all(kept.path().join(name).join("mine")).unwrap();
        let keep = RestoreOptions { existing: Existing::Keep, ..RestoreOptions::to(kept.path()) };
        assert_eq!(run(&sample, &keep).await.1, []);
    }
}

/// Makes names in the target when the restore has begun, as somebody else would, or the same restore where the file
/// system does not tell two names apart.
#[derive(Debug)]
struct Meanwhile {
    target: PathBuf,
    names: &'static [&'static str],
    begun: Once,
    inner: CollectMonitor,
}

impl Monitor for Meanwhile {
    fn progress(&self) -> &crate::monitor::Progress {
        self.begun.call_once(|| {
            for path in self.names.iter().map(|name| self.target.join(name)) {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "mine").unwrap();
            }
        });
        self.inner.progress()
    }

    fn phase(&self, _name: &str) {}

    fn problem(&self, problem: Problem) {
        self.inner.problem(problem);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_into_an_empty_target_meanwhile_is_not_replaced() {
    let (sample, target) = (sample(), directory());
    let names = &["d/small003", "d/e/large", "empty", "z/two", "link"];
    let (begun, inner) = (Once::new(), CollectMonitor::default());
    let monitor = Arc::new(Meanwhile { target: target.path().into(), names, begun, inner });
    let options = RestoreOptions::to(target.path());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    restore(&sample.reader, &options, watched, Cancel::default()).await.unwrap();
    let problems = monitor.inner.problems();
    let mut named: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, ["d", "d/e", "d/e/large", "d/small003", "empty", "link", "z", "z/two"]);
    assert!(
        problems.iter().all(|problem| problem.message.contains("two names of the snapshot")),
        "{problems:?}"
    );
    for name in names {
        assert_eq!(fs::read(target.path().join(name)).unwrap(), b"mine", "{name}");
    }
    let rest = sample.files.clone().into_iter().filter(|(path, _)| !names.contains(&path.as_str())).collect();
    assert_restored(target.path(), &rest);
    // A target that holds something is one to be changed.
    let (_, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert_restored(target.path(), &sample.files);
}

/// The nanoseconds of the time of modification that the snapshot has.
const NANOSECONDS: u32 = 123_456_789;

fn set_time(path: &Path, nanoseconds: u32) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, nanoseconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_right_size_and_time_is_read_only_if_that_was_asked_for() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    let path = target.path().join("d/small003");
    let mut bytes = sample.files["d/small003"].clone();
    bytes[50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    set_time(&path, NANOSECONDS);
    let (files, anew) = (sample.files.len() as u64, sample.files["z/one"].len() as u64);
    let (report, _) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!((report.files_skipped, report.bytes_written), (files - 2, anew));
    let options = RestoreOptions { existing: Existing::Compare, ..RestoreOptions::to(target.path()) };
    let (report, problems) = run(&sample, &options).await;
    assert_eq!((report.files_skipped, report.bytes_written), (0, anew + bytes.len() as u64));
    assert_eq!(problems, []);
    assert_restored(target.path(), &sample.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_older_stays_if_that_was_asked_for() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    let at = |name: &str| target.path().join(name);
    for (name, nanoseconds) in
        [("d/small003", NANOSECONDS + 1), ("d/small004", NANOSECONDS), ("d/small005", NANOSECONDS - 1)]
    {
        fs::write(at(name), "mine").unwrap();
        set_time(&at(name), nanoseconds);
    }
    let newer = Existing::KeepNewer;
    let options = RestoreOptions { existing: newer, verify: true, ..RestoreOptions::to(target.path()) };
    let (report, problems) = run(&sample, &options).await;
    let files = sample.files.len() as u64;
    assert_eq!((report.files_skipped, report.files_verified, problems), (files - 1, 1, vec![]));
    assert_eq!(report.bytes_written, sample.files["d/small005"].len() as u64);
    assert!(fs::read(at("d/small005")).unwrap() == sample.files["d/small005"]);
    for name in ["d/small003", "d/small004"] {
        assert_eq!(fs::read(at(name)).unwrap(), b"mine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_was_cut_off_what_is_missing_is_written() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let bytes = noise(1, 5000);
    let chunk = Run::Chunk(writer.frame(FrameKind::Data, &[&bytes], Compression::Stored).remove(0));
    let twice = || Content::Inline(vec![chunk.clone(), chunk.clone()]);
    let entries = ["a", "b"].map(|path| entry(path, Kind::File, twice(), 10_000));
    let files = Contents::from(["a", "b"].map(|path| (path.to_owned(), bytes.repeat(2))));
    let sample = Sample { reader: writer.finish(entries.into(), 8), packs, files };
    let target = directory();
    for name in ["a", "b"] {
        fs::write(target.path().join(name), &bytes).unwrap();
    }
    // The half that is there is the same as the one that is not.
    let report = again(&sample, target.path()).await;
    assert_eq!((report.files_new, report.bytes_written), (0, 10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_came_back_in_part_is_not_taken_for_right() {
    let (sample, target) = (sample(), directory());
    let large = sample.reader.lookup(b"d/e/large").await.unwrap().unwrap();
    let (_, runs) = sample.reader.runs(&large.content).next_piece().await.unwrap().unwrap();
    let frame = *runs[2].chunk().unwrap().frame.place().unwrap();
    let flip = || {
        let mut packs = sample.packs.packs.lock().unwrap();
        let mut bytes = packs[&frame.pack].to_vec();
        bytes[frame.offset as usize + 5] ^= 1;
        packs.insert(frame.pack, bytes.into());
    };
    flip();
    let (report, _) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!(report.problems, 1);
    flip();
    let report = again(&sample, target.path()).await;
    assert!(report.bytes_written >= 80_000, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_file_that_were_parted_are_one_again() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    let (one, two) = (target.path().join("z/one"), target.path().join("z/two"));
    fs::remove_file(&two).unwrap();
    fs::copy(&one, &two).unwrap();
    set_time(&two, NANOSECONDS);
    assert_eq!(again(&sample, target.path()).await.bytes_written, 0, "what is there is right");
    let inode = |path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&one), inode(&two));
}
