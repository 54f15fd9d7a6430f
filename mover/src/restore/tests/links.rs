use std::{collections::HashMap, fs};

use super::*;

/// Some fifteen files with several names find room in their part of it, and forty further names.
const LITTLE: u64 = 64 << 10;

/// Files with a name in each of these many directories, and a pipe for every fifth of them.
fn of_links(files: u64, names: u64) -> Sample {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let directories: Vec<String> = (0..names).map(|number| format!("d{number}")).collect();
    let made = directories.iter().map(|path| entry(path, Kind::Directory, Content::default(), 0));
    let (mut entries, mut contents): (Vec<_>, _) = (made.collect(), Contents::new());
    let mut push = |inode, path: &str, kind, content, size| {
        let mut name = entry(path, kind, content, size);
        (name.metadata.inode, name.metadata.device, name.metadata.links) = (inode, 1, names);
        entries.push(name);
    };
    for inode in 0..files {
        let bytes = noise(inode, 40);
        let chunk = writer.frame(FrameKind::Data, &[&bytes], Compression::Stored).remove(0);
        for directory in &directories {
            let path = format!("{directory}/file{inode:04}");
            push(inode, &path, Kind::File, Content::Inline(vec![Run::Chunk(chunk.clone())]), 40);
            contents.insert(path, bytes.clone());
            if inode % 5 == 0 {
                let path = format!("{directory}/pipe{inode:04}");
                push(files + inode, &path, Kind::Fifo, Content::default(), 0);
            }
        }
    }
    Sample { reader: writer.finish(entries, 64), packs, files: contents }
}

/// What a path of the target is.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    names: u64,
    /// The first path of the same file.
    first: PathBuf,
    contents: Option<Vec<u8>>,
}

/// All that is in a target.
fn look(target: &Path) -> BTreeMap<PathBuf, Found> {
    let (mut paths, mut waiting) = (Vec::new(), vec![target.to_path_buf()]);
    while let Some(directory) = waiting.pop() {
        for name in fs::read_dir(&directory).unwrap() {
            let path = name.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                waiting.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort_unstable();
    let mut first_names = HashMap::new();
    let found = paths.into_iter().map(|path| {
        let stat = fs::symlink_metadata(&path).unwrap();
        let contents = stat.is_file().then(|| fs::read(&path).unwrap());
        let path = path.strip_prefix(target).unwrap().to_path_buf();
        let first = first_names.entry(stat.ino()).or_insert_with(|| path.clone()).clone();
        (path, Found { names: stat.nlink(), first, contents })
    });
    found.collect()
}

/// What came of a restore.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    report: RestoreReport,
    problems: Vec<(String, String)>,
    progress: [u64; 4],
    found: BTreeMap<PathBuf, Found>,
}

/// Restores with little memory and with plenty into two targets that are alike; the same must come of it.
async fn with_any_memory(
    sample: &Sample,
    targets: [tempfile::TempDir; 2],
    change: impl Fn(&mut RestoreOptions),
) -> Outcome {
    let mut outcomes = Vec::new();
    for (target, memory_bytes) in targets.iter().zip([LITTLE, limits::MEMORY_DEFAULT]) {
        let monitor = Arc::new(CollectMonitor::default());
        let mut options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        change(&mut options);
        let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
        let report = restore(&sample.reader, &options, watched, Cancel::default()).await.unwrap();
        let problems = monitor.problems().into_iter().map(|problem| (problem.what, problem.message));
        let mut problems: Vec<_> = problems.collect();
        problems.sort_unstable();
        let told = monitor.progress();
        let told = [&told.entries, &told.entries_expected, &told.bytes, &told.bytes_expected];
        outcomes.push(Outcome {
            // What lies between two frames is fetched with them only if both are in one batch.
            report: RestoreReport { bytes_fetched: 0, ..report },
            problems,
            progress: told.map(Progress::get),
            found: look(target.path()),
        });
    }
    let plenty = outcomes.pop().unwrap();
    assert!(outcomes[0] == plenty, "{:?}\n{:?}", outcomes[0], plenty);
    plenty
}

/// Targets with somebody's own in the place of the first name of a file and of a pipe, and of a further name of a file.
fn with_own_names() -> [tempfile::TempDir; 2] {
    let targets = [directory(), directory()];
    for target in &targets {
        for directory in ["d0", "d2"] {
            fs::create_dir(target.path().join(directory)).unwrap();
        }
        for name in ["d0/file0003", "d0/pipe0005", "d2/file0004"] {
            fs::write(target.path().join(name), "mine").unwrap();
        }
    }
    targets
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_file_are_one_file_however_many_there_are() {
    let sample = of_links(400, 5);
    let targets = [directory(), directory()];
    let outcome = with_any_memory(&sample, targets, |options| options.verify = true).await;
    assert_eq!((outcome.problems.len(), outcome.report.files_verified), (0, 2000));
    assert_eq!(outcome.report.bytes_written, 400 * 40, "each file is written once");
    assert_eq!(outcome.progress, [2405, 2405, 80_000, 80_000]);
    assert_eq!(outcome.found.len(), 2405);
    for (path, found) in outcome.found.iter().filter(|(path, _)| path.components().count() == 2) {
        let first = Path::new("d0").join(path.file_name().unwrap());
        assert_eq!((found.names, &found.first), (5, &first), "{path:?}");
        assert!(found.contents.as_ref() == sample.files.get(path.to_str().unwrap()), "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_there_already_are_made_anew() {
    let sample = of_links(60, 4);
    for (delete, dry_run) in [(false, false), (true, false), (false, true), (true, true)] {
        let targets = [directory(), directory()];
        for target in targets.each_ref().map(tempfile::TempDir::path) {
            run(&sample, &RestoreOptions::to(target)).await;
            for name in ["d0/file0003", "d1/file0020", "d2/file0059"] {
                fs::remove_file(target.join(name)).unwrap();
                fs::write(target.join(name), "other").unwrap();
            }
            fs::hard_link(target.join("d0/file0007"), target.join("stray")).unwrap();
        }
        let change = |options: &mut RestoreOptions| (options.delete, options.dry_run) = (delete, dry_run);
        let outcome = with_any_memory(&sample, targets, change).await;
        assert_eq!((outcome.problems.len(), outcome.report.deleted), (0, u64::from(delete)));
        assert_eq!(outcome.report.bytes_written, 60 * 40);
        let first = if dry_run { "d1/file0020" } else { "d0/file0020" };
        assert_eq!(outcome.found[Path::new("d1/file0020")].first, Path::new(first));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stays_is_no_name_of_what_is_restored() {
    let sample = of_links(60, 4);
    for existing in [Existing::Keep, Existing::KeepNewer] {
        let change = |options: &mut RestoreOptions| (options.existing, options.verify) = (existing, true);
        let outcome = with_any_memory(&sample, with_own_names(), change).await;
        assert_eq!((outcome.problems.len(), outcome.report.files_skipped), (0, 2), "{existing:?}");
        for name in ["d0/file0003", "d0/pipe0005", "d2/file0004"] {
            let found = &outcome.found[Path::new(name)];
            assert_eq!((found.names, found.contents.as_deref()), (1, Some(&b"mine"[..])), "{name}");
        }
        for (name, first, names) in [
            ("d3/file0003", "d1/file0003", 3),
            ("d3/pipe0005", "d1/pipe0005", 3),
            ("d3/file0004", "d0/file0004", 3),
            ("d3/file0005", "d0/file0005", 4),
        ] {
            let found = &outcome.found[Path::new(name)];
            assert_eq!((found.names, found.first.as_path()), (names, Path::new(first)), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_name_is_not_chosen_another_one_is_the_first() {
    let sample = of_links(60, 4);
    let change = |options: &mut RestoreOptions| {
        options.selection.exclude.add_pattern("/d0", false, "test").unwrap();
        options.delete = true;
    };
    let outcome = with_any_memory(&sample, with_own_names(), change).await;
    assert_eq!((outcome.problems.len(), outcome.report.files), (0, 180));
    assert_eq!(outcome.found[Path::new("d0/file0003")].contents.as_deref(), Some(&b"mine"[..]));
    assert!(!outcome.found.contains_key(Path::new("d0/file0004")));
    for (name, first) in [("d2/file0004", "d1/file0004"), ("d3/pipe0055", "d1/pipe0055")] {
        let found = &outcome.found[Path::new(name)];
        assert_eq!((found.names, found.first.as_path()), (3, Path::new(first)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_file_that_was_not_restored_are_told() {
    let sample = of_links(60, 4);
    let damaged = sample.reader.lookup(b"d0/file0041").await.unwrap().unwrap();
    let Content::Inline(runs) = &damaged.content else { panic!("inline") };
    let place = *runs[0].chunk().unwrap().frame.place().unwrap();
    {
        let mut packs = sample.packs.packs.lock().unwrap();
        let mut bytes = packs[&place.pack].to_vec();
        bytes[place.offset as usize + 5] ^= 1;
        packs.insert(place.pack, bytes.into());
    }
    for dry_run in [false, true] {
        let targets = [directory(), directory()];
        for target in &targets {
            fs::create_dir_all(target.path().join("d0/file0002/mine")).unwrap();
        }
        let outcome = with_any_memory(&sample, targets, |options| options.dry_run = dry_run).await;
        let told: Vec<_> = outcome.problems.iter().map(|(what, _)| what.as_str()).collect();
        if dry_run {
            assert_eq!(told, ["d0/file0002"], "no contents are read, and another name is the first");
            continue;
        }
        let (ends, directories) = (["file0002", "file0041"], ["d0", "d1", "d2", "d3"]);
        let wanted = directories.iter().flat_map(|above| ends.map(|name| format!("{above}/{name}")));
        assert_eq!(told, wanted.collect::<Vec<_>>());
    }
}
