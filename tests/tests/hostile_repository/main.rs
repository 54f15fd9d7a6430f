//! Snapshots made with valid keys by somebody who means harm. Whatever they hold, every command ends in time with an
//! error that says why, nothing outside of the target changes, and no more memory is taken than was set.
//!
//! Needs root, FUSE, Python for the peak of memory, and the program beside the tests (`cargo build -p carrack-mover`).

mod circles;

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use carrack_mover::format::{
    entry::{Content, Entry, Run},
    frame::{ChunkRef, FrameKind},
    metadata::{Kind, Xattr},
    page::{Child, PageWriter},
};
use carrack_tests::{
    hostile::{Forger, entry, linked, scene::Scene, with_contents},
    program::{signal, wait, wait_for_handler},
};
use rustix::process::Signal;

fn scene() -> Scene {
    Scene::new(assert_cmd::cargo::cargo_bin("carrack"))
}

#[test]
fn names_lead_nowhere() {
    let names: [&[u8]; 8] =
        [b"..", b"../outside/victim", b"a/../../outside/victim", b"a/./b", b"", b".", b"a//b", b"victim\0"];
    for name in names {
        let scene = scene();
        scene.forge(async |mut forger: Forger| {
            let file = forger.file(name, b"hostile")?;
            forger.commit_entries(vec![file]).await
        });
        let (target, outcome) = scene.restore();
        assert_eq!(outcome.code, Some(14), "{name:?}: {outcome:?}");
        assert_eq!(fs::read_dir(&target).map_or(0, Iterator::count), 0, "{name:?}");
        if name == b".." {
            scene.everything(&[14]);
        }
    }
}

/// A name that a tree can hold and no file system: it is named, and the rest comes back.
#[test]
fn names_that_are_too_long_are_reported() {
    let scene = scene();
    scene.forge(async |mut forger: Forger| {
        let long = forger.file("n".repeat(300).as_bytes(), b"hostile")?;
        let other = forger.file(b"x", b"other")?;
        forger.commit_entries(vec![long, other]).await
    });
    let (target, outcome) = scene.restore();
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert_eq!(fs::read(target.join("x")).expect("the rest is there"), b"other");
}

#[test]
fn links_are_not_followed() {
    let scene = scene();
    let victim = scene.outside.join("victim");
    let to = |path: &PathBuf| Kind::Symlink { target: path.as_os_str().as_encoded_bytes().to_vec() };
    scene.forge(async |mut forger: Forger| {
        let mut entries = vec![entry(b"link", to(&scene.outside)), entry(b"x", to(&victim))];
        for name in [&b"link/victim"[..], b"link/new", b"link/directory/inside", b"x/below"] {
            entries.push(forger.file(name, b"hostile")?);
        }
        entries.push(entry(b"link/directory", Kind::Directory));
        // Names of one inode: a link that leads outside, and files that shall be written through it.
        entries.push(linked(entry(b"hard", to(&victim)), 7));
        for name in [&b"hard2"[..], b"link/hard3"] {
            entries.push(linked(forger.file(name, b"hostile")?, 7));
        }
        forger.commit_entries(entries).await
    });
    let (target, outcome) = scene.restore();
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.printed.err.contains("link/new"), "{outcome:?}");
    assert!(fs::symlink_metadata(target.join("hard2")).expect("it is there").is_symlink());
    // Again over what is there, and with the attributes of what the links lead to left alone.
    let again = scene.run(&["restore", "latest", "--delete", "--target", target.to_str().expect("UTF-8")]);
    assert_eq!(again.code, Some(3), "{again:?}");
    scene.everything(&[0, 3]);
}

/// A page whose names stand for far more than it has bytes: a long directory is written once for all of them.
fn page_of_long_paths(directory: usize, names: u32) -> PageWriter {
    let directory = "d".repeat(directory);
    let mut page = PageWriter::leaf();
    for number in 0..names {
        let path = format!("{directory}/{number:06}");
        page.push_entry(&entry(path.as_bytes(), Kind::Fifo)).expect("fits");
    }
    page
}

#[test]
fn a_page_takes_no_more_memory_than_pages_take() {
    // Paths of a gigabyte, a million attributes of no bytes, and a million runs.
    let attributes = |count: usize| {
        let mut file = entry(b"x", Kind::Fifo);
        file.metadata.xattrs = vec![Xattr { name: Vec::new(), value: Vec::new() }; count];
        file
    };
    let holes = |count: u64| {
        let runs = (0..count).map(|_| Run::Hole(1)).collect();
        with_contents(b"x", Content::Inline(runs), count)
    };
    let one = |entry: &Entry| {
        let mut page = PageWriter::leaf();
        page.push_entry(entry).expect("fits");
        page
    };
    for page in [page_of_long_paths(64 << 10, 16_000), one(&attributes(4_000_000)), one(&holes(4_000_000))] {
        let scene = scene();
        scene.forge(async |mut forger: Forger| {
            let root = forger.page(&page)?;
            forger.commit(&root, 1).await
        });
        scene.everything(&[14]);
        let pruned = scene.run(&["prune", "--wait", "0"]);
        assert_eq!(pruned.code, Some(14), "{pruned:?}");
    }
}

/// As many of the largest pages as there are allowed, next to each other.
#[test]
fn large_pages_are_not_held_all_at_once() {
    let scene = scene();
    scene.forge(async |mut forger: Forger| {
        let mut leaves = Vec::new();
        for number in 0..24_u32 {
            let mut file = entry(format!("x{number:03}").as_bytes(), Kind::Fifo);
            let value = vec![7; 1 << 20];
            file.metadata.xattrs =
                (0..14).map(|name| Xattr { name: vec![b'u', name], value: value.clone() }).collect();
            leaves.push(forger.leaf(&[file])?);
        }
        let root = forger.inner(&leaves)?;
        forger.commit(&root.page, 2).await
    });
    // Least memory is kept to by those that hold one page at a time. The others hold some, and a copy up to 256 entries
    // with all of their attributes.
    let target = scene.carrack.path("target");
    for arguments in [
        &["restore", "latest", "--target", target.to_str().expect("UTF-8")][..],
        &["ls", "latest", "--recursive"],
        &["find", "*x*", "--snapshot", "latest"],
    ] {
        let outcome = scene.run_with_least(arguments);
        assert!(matches!(outcome.code, Some(0 | 3)), "{arguments:?}: {outcome:?}");
    }
    scene.everything_but_copies_with_plenty(&[0, 3]);
    scene.run(&["prune", "--wait", "0"]);
}

/// Names of files with several, whose paths are far longer than what is stored of them: those that files are restored
/// under, and those that are linked to them.
#[test]
fn links_are_not_remembered_all_at_once() {
    const NAMES: u64 = 25_000;
    let directories: Vec<String> = (1..=12).map(|levels| vec!["d".repeat(250); levels].join("/")).collect();
    for files in [8, NAMES / 2] {
        let scene = scene();
        scene.forge(async |mut forger: Forger| {
            let made: Vec<_> =
                directories.iter().map(|path| entry(path.as_bytes(), Kind::Directory)).collect();
            let mut leaves = vec![forger.leaf(&made)?];
            for page in 0..NAMES / 100 {
                let name = |number: u64| {
                    let path = format!("{}/{number:06}", directories[11]);
                    linked(entry(path.as_bytes(), Kind::File), number % files)
                };
                leaves.push(forger.leaf(&(page * 100..page * 100 + 100).map(name).collect::<Vec<_>>())?);
            }
            let root = forger.inner(&leaves)?;
            forger.commit(&root.page, 2).await
        });
        let target = scene.carrack.path("target");
        let restore = ["restore", "latest", "--target", target.to_str().expect("UTF-8")];
        // Into an empty target, over what is there, and not at all.
        for further in [&["--verify"][..], &["--delete"], &["--dry-run"]] {
            let outcome = scene.run_with_least(&[&restore[..], further].concat());
            assert_eq!(outcome.code, Some(0), "{files} {further:?}: {outcome:?}");
            let deepest = target.join(&directories[11]);
            assert_eq!(fs::read_dir(&deepest).expect("it is there").count() as u64, NAMES);
            for name in ["000000", "000007", "024999"] {
                let found = fs::metadata(deepest.join(name)).expect("it is there");
                assert_eq!(found.nlink(), NAMES / files, "{files} {further:?} {name}");
            }
        }
    }
}

#[test]
fn data_unpacks_to_what_was_promised_or_not_at_all() {
    let scene = scene();
    let zeros = vec![0; 16 << 20];
    scene.forge(async |mut forger: Forger| {
        let mut entries = Vec::new();
        for (name, promise) in [("x-less", 1000), ("x-more", 16 << 20), ("x-right", 8 << 20)] {
            let plain = if name == "x-more" { &zeros[..1000] } else { &zeros[..] };
            let plain = if name == "x-right" { &plain[..8 << 20] } else { plain };
            let chunk = forger.promised(FrameKind::Data, plain, promise)?;
            let content = Content::Inline(vec![Run::Chunk(chunk)]);
            entries.push(with_contents(name.as_bytes(), content, promise.into()));
        }
        // A promise that no reader takes memory for.
        let chunk = forger.promised(FrameKind::Data, b"few bytes", u32::MAX)?;
        let huge = with_contents(b"y-huge", Content::Inline(vec![Run::Chunk(chunk)]), u32::MAX.into());
        let leaves = [forger.leaf(&entries)?, forger.leaf(&[huge])?];
        let root = forger.inner(&leaves)?;
        forger.commit(&root.page, 2).await
    });
    let (_, outcome) = scene.restore();
    assert_eq!(outcome.code, Some(14), "{outcome:?}");
    scene.everything(&[14]);
}

#[test]
fn chunks_are_what_their_ids_say() {
    let scene = scene();
    scene.forge(async |mut forger: Forger| {
        let right = forger.chunk(FrameKind::Data, b"right")?;
        let other = forger.chunk(FrameKind::Data, b"other")?;
        let of = |name: &str, chunk: ChunkRef| {
            with_contents(name.as_bytes(), Content::Inline(vec![Run::Chunk(chunk)]), 5)
        };
        // The same bytes under two ids, one after the other; and the bytes of a page as contents.
        let false_id = ChunkRef { id: other.id, ..right.clone() };
        let leaf = forger.leaf(&[entry(b"y", Kind::Fifo)])?.page;
        let page =
            with_contents(b"page", Content::Inline(vec![Run::Chunk(leaf.clone())]), leaf.length.into());
        forger.commit_entries(vec![of("x-right", right), of("x-wrong", false_id), page]).await
    });
    let (target, outcome) = scene.restore();
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert_eq!(fs::read(target.join("x-right")).expect("it is there"), b"right");
    assert!(!target.join("x-wrong").exists(), "{outcome:?}");
    let checked = scene.run(&["check", "--read-data", "--no-mark"]);
    assert_eq!(checked.code, Some(14), "{checked:?}");
}

/// Sizes near the end of 64 bits, and contents that do not add up to them.
#[test]
fn sizes_beyond_everything_are_named() {
    let scene = scene();
    scene.forge(async |forger: Forger| {
        let hole = |name: &str, size: u64| {
            with_contents(name.as_bytes(), Content::Inline(vec![Run::Hole(size)]), size)
        };
        let mut times = entry(b"x-times", Kind::Directory);
        (times.metadata.mtime.seconds, times.metadata.flags, times.metadata.mode) =
            (i64::MIN, u32::MAX, u32::MAX);
        times.metadata.uid = u32::MAX;
        forger.commit_entries(vec![hole("x-max", u64::MAX), hole("x-half", 1 << 63), times]).await
    });
    // Written to a stream it would take for ever; whoever has enough of it is obeyed.
    let stream = scene.carrack.command(["cat", "file", "latest:/x-half"]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "exec \"$@\" >/dev/null", "sh"]).arg(stream.get_program()).args(stream.get_args());
    shell.envs(stream.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = carrack_tests::program::Running::start(&mut shell);
    wait_for_handler(&child, Signal::INT).expect("it starts");
    signal(&child, Signal::INT).expect("sends");
    wait(child, 130);
    scene.everything(&[0, 3]);
}

#[test]
fn contents_that_do_not_add_up_are_damage() {
    for (runs, size) in [(vec![5, 6], 10), (vec![5], 6), (vec![0, 5], 5), (vec![u64::MAX, 2], 1)] {
        let scene = scene();
        scene.forge(async |forger: Forger| {
            let runs = runs.iter().map(|length| Run::Hole(*length)).collect();
            forger.commit_entries(vec![with_contents(b"x", Content::Inline(runs), size)]).await
        });
        let (_, outcome) = scene.restore();
        assert_eq!(outcome.code, Some(14), "{outcome:?}");
    }
}

/// A parent for every child of a hundred, all of them one page: eight levels stand for 10^16 entries.
fn tower(forger: &mut Forger, leaf: Child, names: &[&str]) -> anyhow::Result<Child> {
    let mut below = leaf;
    for _ in 0..8 {
        let entries = below.entries.max(1);
        let children: Vec<Child> = names
            .iter()
            .map(|name| {
                let name = name.as_bytes().to_vec();
                Child { first: name.clone(), last: name, entries, ..below.clone() }
            })
            .collect();
        below = forger.inner(&children)?;
    }
    Ok(below)
}

#[test]
fn a_page_hangs_in_one_place() {
    let names: Vec<String> = (0..100).map(|number| format!("x{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for empty in [true, false] {
        let scene = scene();
        scene.forge(async |mut forger: Forger| {
            let entries = if empty { vec![] } else { vec![entry(b"x50", Kind::Fifo)] };
            let leaf = forger.leaf(&entries)?;
            let root = tower(&mut forger, leaf, &names)?;
            forger.commit(&root.page, 9).await
        });
        scene.everything(&[14]);
        scene.run(&["prune", "--wait", "0"]);
    }
}

#[test]
fn lists_of_chunks_have_the_length_that_is_said_of_them() {
    let scene = scene();
    scene.forge(async |mut forger: Forger| {
        let mut page = PageWriter::runs();
        page.push_run(&Run::Hole(1))?;
        let mut below = forger.page(&page)?;
        for _ in 0..8 {
            // Each says that nearly nothing is below it, and all is below it a hundred times.
            let mut page = PageWriter::runs_inner();
            (0..100).try_for_each(|_| page.push_runs_page(&below, 1))?;
            below = forger.page(&page)?;
        }
        let file = with_contents(b"x", Content::Paged { depth: 9, pages: vec![(below, 100)] }, 100);
        forger.commit_entries(vec![file]).await
    });
    let (_, outcome) = scene.restore();
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let checked = scene.run(&["check", "--no-mark"]);
    assert_eq!(checked.code, Some(14), "{checked:?}");
    scene.run(&["prune", "--wait", "0"]);
}

#[test]
fn order_and_names_of_a_tree_are_its_own() {
    let file = |name: &[u8]| entry(name, Kind::Fifo);
    let wrong: [Vec<Vec<Entry>>; 5] = [
        vec![vec![file(b"b"), file(b"a")]],
        vec![vec![file(b"a"), file(b"a")]],
        vec![vec![entry(b"d", Kind::Directory), file(b"d/x")], vec![file(b"d"), file(b"d/x")]],
        vec![vec![file(b"a"), file(b"z")], vec![file(b"b")]],
        vec![vec![file(b"a/b"), file(b"a")]],
    ];
    for leaves in wrong {
        let scene = scene();
        scene.forge(async |mut forger: Forger| {
            let children = leaves.iter().map(|leaf| forger.leaf(leaf)).collect::<anyhow::Result<Vec<_>>>()?;
            let depth = if children.len() == 1 { 1 } else { 2 };
            let root = if depth == 1 { children[0].page.clone() } else { forger.inner(&children)?.page };
            forger.commit(&root, depth).await
        });
        let (_, outcome) = scene.restore();
        assert_eq!(outcome.code, Some(14), "{leaves:?}: {outcome:?}");
    }
}

#[test]
fn levels_are_what_the_record_says() {
    // One that has more than any tree can have is no snapshot at all.
    for depth in [0, 2, 9, 12] {
        let scene = scene();
        scene.forge(async |mut forger: Forger| {
            let leaf = forger.leaf(&[entry(b"x", Kind::Fifo)])?;
            forger.commit(&leaf.page, depth).await
        });
        scene.everything(&[10, 14]);
    }
}

/// Far deeper than the kernel takes a path at once.
#[test]
fn a_deep_tree_comes_back_or_is_reported() {
    let scene = scene();
    scene.forge(async |mut forger: Forger| {
        let (mut path, mut leaves) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let mut entries = Vec::new();
            for _ in 0..300 {
                path.extend_from_slice(if path.is_empty() { b"x" } else { b"/x" });
                entries.push(entry(&path, Kind::Directory));
            }
            leaves.push(forger.leaf(&entries)?);
        }
        let root = forger.inner(&leaves)?;
        forger.commit(&root.page, 2).await
    });
    scene.everything(&[0, 3]);
}

/// Under our names, objects that are longer than any of ours.
#[test]
fn objects_of_others_take_no_memory() {
    let scene = scene();
    let name = "b0123456789abcdef-000102030405060708090a0b0c0d0e0f";
    for object in [
        format!("snapshots/{name}"),
        format!("sessions/{name}"),
        format!("forgotten/{name}.000102030405060708090a0b0c0d0e0f"),
        format!("marks/{name}.pinned.000102030405060708090a0b0c0d0e0f"),
        "index/s-000102030405060708090a0b0c0d0e0f".into(),
        "keys/000102030405060708090a0b0c0d0e0f".into(),
        "damaged/000102030405060708090a0b0c0d0e0f".into(),
        "gc/000102030405060708090a0b0c0d0e0f.condemned".into(),
    ] {
        let path = scene.carrack.path("repository").join(&object);
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        fs::File::create(&path).and_then(|file| file.set_len(8 << 30)).expect("makes");
        scene.run(&["snapshots"]);
        scene.run(&["backup", scene.carrack.path("source").to_str().expect("UTF-8")]);
        fs::remove_file(&path).expect("removes");
    }
    scene.run(&["check", "--read-data"]);
}
