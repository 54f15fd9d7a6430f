use std::{fs, os::unix::fs::symlink};

use super::*;

/// How many files are right, and which are not.
async fn verified(sample: &Sample, options: &RestoreOptions) -> (u64, Vec<String>) {
    let monitor = Arc::new(CollectMonitor::default());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let none = places::Places::default();
    let right = verify::verify(&sample.reader, options, &none, watched, Cancel::default()).await.unwrap();
    let mut named: Vec<_> = monitor.problems().into_iter().map(|problem| problem.what).collect();
    named.sort_unstable();
    (right, named)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_as_it_was_restored_is_found() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    let at = |name: &str| target.path().join(name);
    let files = sample.files.len() as u64;
    // In the first hole of one, and in the only chunk of the other.
    for (name, at_byte) in [("d/e/large", 100_000), ("d/small003", 50)] {
        let mut bytes = sample.files[name].clone();
        bytes[at_byte] ^= 1;
        fs::write(at(name), bytes).unwrap();
    }
    fs::write(at("d/small004"), [&sample.files["d/small004"][..], b"x"].concat()).unwrap();
    fs::remove_file(at("d/small005")).unwrap();
    fs::create_dir(at("d/small005")).unwrap();
    fs::remove_file(at("d/small006")).unwrap();
    fs::rename(at("d/small007"), at("elsewhere")).unwrap();
    symlink(at("elsewhere"), at("d/small007")).unwrap();
    fs::write(at("empty"), "x").unwrap();
    let wrong = ["d/e/large", "d/small003", "d/small004", "d/small005", "d/small006", "d/small007", "empty"];
    // A file at a time, and all at once.
    for memory_bytes in [3600, limits::MEMORY_DEFAULT] {
        let options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        let (right, named) = verified(&sample, &options).await;
        assert_eq!(named, wrong, "{memory_bytes}");
        assert_eq!(right, files - wrong.len() as u64, "{memory_bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_may_be_written_zeros_and_nothing_else() {
    // More than is compared at once, and not a multiple of that.
    const HOLE: usize = 5 << 19;
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let bytes = noise(1, 20_000);
    let chunk = writer.frame(FrameKind::Data, &[&bytes], Compression::Stored).remove(0);
    let runs = vec![Run::Hole(HOLE as u64), Run::Chunk(chunk), Run::Hole(70_000)];
    let contents = [vec![0; HOLE], bytes, vec![0; 70_000]].concat();
    let file = entry("file", Kind::File, Content::Inline(runs), contents.len() as u64);
    let sample = Sample { reader: writer.finish(vec![file], 8), packs, files: Contents::new() };
    let target = directory();
    let (path, options) = (target.path().join("file"), RestoreOptions::to(target.path()));
    fs::write(&path, &contents).unwrap();
    assert_eq!(verified(&sample, &options).await, (1, vec![]));
    for at in [0, HOLE - 1, HOLE, contents.len() - 1] {
        let mut other = contents.clone();
        other[at] ^= 1;
        fs::write(&path, other).unwrap();
        assert_eq!(verified(&sample, &options).await, (0, vec!["file".to_owned()]), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_stay_is_not_compared() {
    let (sample, target) = (sample(), directory());
    fs::create_dir(target.path().join("d")).unwrap();
    let mine = target.path().join("d/small003");
    fs::write(&mine, "mine").unwrap();
    let mut options =
        RestoreOptions { existing: Existing::Keep, verify: true, ..RestoreOptions::to(target.path()) };
    options.selection.exclude.add_pattern("small001", false, "test").unwrap();
    let files = sample.files.len() as u64 - 1;
    let (report, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert_eq!((report.files, report.files_skipped, report.files_verified), (files, 1, files - 1));
    let (report, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert_eq!((report.files_skipped, report.files_verified, report.bytes_written), (files, 0, 0));
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    assert!(!target.path().join("d/small001").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_contents_that_is_damaged_costs_one_file() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    let large = sample.reader.lookup(b"d/e/large").await.unwrap().unwrap();
    let Content::Paged { pages, .. } = &large.content else { panic!("a file in pages") };
    let place = *pages[0].0.frame.place().unwrap();
    // A reader that has seen nothing yet.
    let reader =
        SnapshotReader::with_access(Arc::clone(&sample.packs) as _, sample.reader.snapshot().clone());
    {
        let mut packs = sample.packs.packs.lock().unwrap();
        let mut bytes = packs[&place.pack].to_vec();
        bytes[place.offset as usize + 5] ^= 1;
        packs.insert(place.pack, bytes.into());
    }
    let sample = Sample { reader, ..sample };
    let files = sample.files.len() as u64;
    let options =
        RestoreOptions { existing: Existing::Compare, verify: true, ..RestoreOptions::to(target.path()) };
    let (report, problems) = run(&sample, &options).await;
    assert_eq!(report.files_verified, files - 1);
    // The restore could not read it, and nor can the verification.
    let named: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(named, ["d/e/large"; 2]);
}
