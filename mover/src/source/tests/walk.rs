use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use crate::error::ErrorKind;
use crate::format::order::compare_paths;
use crate::source::exclude::Exclude;
use crate::source::silent::SilentPaths;
use crate::source::walk::{WalkEvent, WalkOptions, Walked, walk};

fn options(roots: &[&Path]) -> WalkOptions {
    WalkOptions { roots: roots.iter().map(|root| root.to_path_buf()).collect(), ..WalkOptions::default() }
}

fn entries(options: WalkOptions) -> Vec<Walked> {
    let entry = |event| match event {
        WalkEvent::Entry(entry) => entry,
        WalkEvent::Problem(problem) => panic!("{problem:?}"),
    };
    walk(options).unwrap().map(entry).collect()
}

fn paths_below(root: &Path, entries: &[Walked]) -> Vec<String> {
    let prefix = format!("{}/", root.to_str().unwrap().trim_start_matches('/'));
    let text = entries.iter().map(|entry| String::from_utf8(entry.path()).unwrap());
    text.filter_map(|path| path.strip_prefix(&prefix).map(str::to_owned)).collect()
}

fn populate(root: &Path) {
    for directory in ["a/deep/er", "a.b", "b", "many"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["a/1", "a/deep/2", "a/deep/er/3", "a.b/x", "b/y", "z"] {
        fs::write(root.join(file), file).unwrap();
    }
    for index in 0..3000 {
        fs::write(root.join(format!("many/{index}")), "").unwrap();
    }
    fs::create_dir(root.join("many/dir")).unwrap();
    fs::write(root.join("many/dir/in"), "").unwrap();
    symlink("nowhere", root.join("b/link")).unwrap();
}

#[test]
fn entries_come_in_snapshot_order_whatever_the_window() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let mut seen = Vec::new();
    for (threads, window_entries) in [(1, 1), (2, 65_536), (7, 10)] {
        let found = entries(WalkOptions { threads, window_entries, ..options(&[dir.path()]) });
        let paths: Vec<_> = found.iter().map(Walked::path).collect();
        assert!(paths.windows(2).all(|pair| compare_paths(&pair[0], &pair[1]).is_lt()));
        seen.push(paths_below(dir.path(), &found));
    }
    assert_eq!(seen[0].len(), 3000 + 6 + 6 + 3);
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn roots_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (a, b, z) = (dir.path().join("a/deep"), dir.path().join("b"), dir.path().join("z"));
    let found = entries(options(&[&z, &b, &a, &a.join("er"), &b]));
    let expected = ["a", "b", "z", "a/deep", "a/deep/2", "a/deep/er", "a/deep/er/3", "b/link", "b/y"];
    assert_eq!(paths_below(dir.path(), &found), expected);
    assert!(found[0].passed && found[0].kind == crate::format::metadata::Kind::Directory);
}

#[test]
fn a_missing_root_is_a_problem_and_only_missing_roots_an_error() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let missing = dir.path().join("missing");
    let problems = walk(options(&[&missing, &dir.path().join("b")])).unwrap();
    assert_eq!(problems.filter(|event| matches!(event, WalkEvent::Problem(_))).count(), 1);
    walk(options(&[&missing])).unwrap_err();
}

#[test]
fn what_is_left_out_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    fs::write(dir.path().join("a/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    fs::write(dir.path().join("b/big"), [0; 100]).unwrap();
    let mut exclude = Exclude::default();
    exclude.add_pattern("many", false, "test").unwrap();
    exclude.add_caches();
    exclude.set_larger_than(99);
    let mut walk = walk(WalkOptions { exclude, ..options(&[dir.path()]) }).unwrap();
    let entry = |event| match event {
        WalkEvent::Entry(entry) => Some(entry),
        WalkEvent::Problem(_) => None,
    };
    let found: Vec<_> = walk.by_ref().filter_map(entry).collect();
    let counts = walk.excluded();
    assert_eq!((counts.pattern, counts.tag, counts.size), (1, 2, 1));
    let expected = ["a", "a.b", "b", "z", "a/CACHEDIR.TAG", "a.b/x", "b/link", "b/y"];
    assert_eq!(paths_below(dir.path(), &found), expected);
}

#[test]
fn a_tree_deeper_than_any_path_is_walked() {
    let dir = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    let mut current: std::os::fd::OwnedFd = fs::File::open(dir.path()).unwrap().into();
    for _ in 0..60 {
        rustix::fs::mkdirat(&current, &name, rustix::fs::Mode::RWXU).unwrap();
        current =
            rustix::fs::openat(&current, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .unwrap();
    }
    let found = entries(options(&[dir.path()]));
    assert_eq!(found.last().unwrap().path().len(), dir.path().as_os_str().len() - 1 + 60 * 201);
    // `remove_dir_all` of the standard library goes by descriptors as well.
}

#[test]
fn attributes_are_read_of_what_must_not_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let mut found = entries(options(&[&fifo]));
    let entry = found.last_mut().unwrap();
    assert!(crate::source::attributes::read_attributes(entry).is_empty());
    assert!(
        crate::source::file::SourceFile::open(&Walked { metadata: entry.metadata.clone(), ..entry.clone() })
            .is_err()
    );
}

#[test]
fn little_memory_for_names_changes_nothing() {
    let source = tempfile::tempdir().unwrap();
    for directory in ["a", "b"] {
        let path = source.path().join(directory);
        fs::create_dir_all(path.join("n-below")).unwrap();
        fs::write(path.join("n-below/file"), "").unwrap();
        fs::write(path.join("first"), "").unwrap();
        for number in 0..2500_u32 {
            let name =
                format!("n-{:x}-{}", number.wrapping_mul(0x9e37_79b1), "n".repeat(number as usize % 90));
            fs::hard_link(path.join("first"), path.join(name)).unwrap();
        }
    }
    let paths = |names_bytes| -> Vec<Vec<u8>> {
        let found = entries(WalkOptions { names_bytes, ..options(&[source.path()]) });
        found.iter().map(Walked::path).collect()
    };
    assert_eq!(paths(0), paths(1 << 30));
}

/// The top of the file system is a root like others: what is mounted below it is left out.
#[test]
fn one_file_system_holds_for_the_top_too() {
    // Of all that lies at the top, only a mount point is kept, so that the whole machine is not walked.
    let mut exclude = Exclude::default();
    exclude.add_pattern("/*", false, "test").unwrap();
    exclude.add_pattern("!/proc", false, "test").unwrap();
    let options = |roots: &[&Path]| WalkOptions {
        one_file_system: true,
        exclude: exclude.clone(),
        threads: 2,
        ..options(roots)
    };
    let paths = |roots: &[&Path]| entries(options(roots)).iter().map(Walked::path).collect::<Vec<_>>();
    assert_eq!(paths(&[Path::new("/")]), [b"proc"]);
    // A root of its own on another file system was asked for, whatever contains it.
    for roots in [["/", "/proc/sys/kernel/random"], ["/proc/sys/kernel/random", "/"]] {
        let found = paths(&roots.map(Path::new));
        let expected: [&[u8]; 4] = [b"proc", b"proc/sys", b"proc/sys/kernel", b"proc/sys/kernel/random"];
        assert_eq!(found[..4], expected);
        assert!(found[4..].iter().all(|path| path.starts_with(expected[3])), "{found:?}");
        assert!(found.contains(&b"proc/sys/kernel/random/uuid".to_vec()));
    }
}

#[test]
fn a_path_behind_a_link_within_a_root_is_not_lost_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    symlink("b", dir.path().join("link")).unwrap();
    let events: Vec<_> = walk(options(&[dir.path(), &dir.path().join("link/y")])).unwrap().collect();
    let problems = events.iter().filter(|event| matches!(event, WalkEvent::Problem(_))).count();
    assert_eq!(problems, 1);
}

#[test]
fn what_did_not_answer_is_told_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let path = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes()[1..].to_vec();
    let mut silent = SilentPaths::default();
    for name in ["a/deep", "many/7", "z", "not there"] {
        silent.insert(path(name), 9);
    }
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for event in walk(WalkOptions { silent: Arc::new(silent), ..options(&[dir.path()]) }).unwrap() {
        match event {
            WalkEvent::Entry(entry) => entries.push(entry),
            WalkEvent::Problem(problem) => problems.push(problem),
        }
    }
    let found = paths_below(dir.path(), &entries);
    assert_eq!(found.len(), 3000 + 6 + 6 + 3 - 6, "all but three, and what is below one of them");
    let gone = ["a/deep", "a/deep/2", "a/deep/er", "a/deep/er/3", "many/7", "z"];
    assert!(found.iter().all(|name| !gone.contains(&name.as_str())));
    let named: Vec<_> = problems.iter().map(|problem| problem.path.clone()).collect();
    assert_eq!(named, ["z", "a/deep", "many/7"].map(path));
    for problem in problems {
        assert_eq!(problem.error.kind(), ErrorKind::Unavailable);
        assert!(problem.error.to_string().contains("did not answer within 9 s"), "{}", problem.error);
    }
}

/// As if a thread of it were stuck: nobody waits for what it was to find.
#[test]
fn a_walk_that_is_given_up_ends() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let options = WalkOptions { window_entries: 1, ..options(&[dir.path()]) };
    let given_up = options.reads.given_up().clone();
    let mut walk = walk(options).unwrap();
    walk.next().unwrap();
    given_up.cancel();
    let end = walk.find(|event| match event {
        WalkEvent::Problem(problem) => problem.error.kind() == ErrorKind::Cancelled,
        WalkEvent::Entry(_) => false,
    });
    assert!(end.is_some(), "it says that it is not all");
}
