use super::*;
use crate::{
    error::ErrorKind,
    format::{
        entry::{Content, Run},
        metadata::Xattr,
        records::Snapshot,
    },
    reader::testing::{Packs, Writer, entry},
};
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// Names that stand close to each other in every order that one could mean.
const PATHS: [&str; 17] = [
    "a", "a b", "a.b", "a/b", "a/b.c", "a/b/c", "a/b/c/d", "a/b0", "a/c", "a0", "b", "b/a", "b/a/a", "b/b",
    "c", "c/x", "d",
];

/// Names that are nowhere, between those.
const ABSENT: [&str; 8] = ["0", "a/", "a/a", "a/b/", "a/b/d", "a1", "c/y", "e"];

fn tree(per_page: usize) -> SnapshotReader {
    let entries = PATHS.iter().map(|path| entry(path, Kind::File, Content::default(), 0)).collect();
    Writer::new().finish(entries, per_page)
}

async fn walked(mut walk: TreeWalk) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(leaf) = walk.next_leaf().await.unwrap() {
        assert!(!leaf.is_empty());
        paths.extend(leaf.into_iter().map(|entry| String::from_utf8(entry.path).unwrap()));
    }
    paths
}

#[tokio::test]
async fn a_part_is_what_its_path_says_in_trees_of_all_shapes() {
    for per_page in [2, 3, 100] {
        let reader = tree(per_page);
        let all = walked(reader.entries(Part::all()).unwrap()).await;
        assert_eq!(all.len(), PATHS.len());
        for path in PATHS.into_iter().chain(ABSENT).chain([""]) {
            for shallow in [false, true] {
                let is_in = |other: &&String| match other.strip_prefix(path) {
                    Some("") => true,
                    Some(rest) if path.is_empty() => !shallow || !rest.contains('/'),
                    Some(rest) => rest.strip_prefix('/').is_some_and(|name| !shallow || !name.contains('/')),
                    None => false,
                };
                let mut expected: Vec<String> = all.iter().filter(is_in).cloned().collect();
                let part = Part { path: path.into(), shallow };
                assert!(
                    all.iter().all(|other| part.has(other.as_bytes()) == expected.contains(other)),
                    "{part:?}"
                );
                let there = walked(TreeWalk::new(&reader, part.clone()).unwrap()).await;
                assert_eq!(there, expected, "{part:?} {per_page}");
                expected.reverse();
                let back = walked(TreeWalk::backwards(&reader, part.clone()).unwrap()).await;
                assert_eq!(back, expected, "{part:?} {per_page}");
            }
            let listed: Vec<_> = reader.list(path.as_bytes()).await.unwrap();
            assert!(listed.iter().all(|entry| split_path(&entry.path).0 == path.as_bytes()), "{path}");
            let below = all.iter().filter(|other| path.is_empty() || other.starts_with(&format!("{path}/")));
            assert_eq!(
                reader.has_names(path.as_bytes()).await.unwrap(),
                below.count() > 0,
                "{path} {per_page}"
            );
            let found = reader.lookup(path.as_bytes()).await.unwrap();
            assert_eq!(found.map(|entry| entry.path), PATHS.contains(&path).then(|| path.into()), "{path}");
            assert_eq!(reader.find(path.as_bytes()).await.is_ok(), PATHS.contains(&path), "{path}");
        }
    }
}

#[tokio::test]
async fn a_tree_without_entries_has_nothing() {
    let reader = Writer::new().finish(Vec::new(), 2);
    assert!(walked(reader.entries(Part::all()).unwrap()).await.is_empty());
    assert_eq!(reader.lookup(b"a").await.unwrap(), None);
    assert!(!reader.has_names(b"").await.unwrap() && reader.list(b"").await.unwrap().is_empty());
}

/// How many requests something takes of a reader who remembers nothing.
async fn requests(packs: &Packs, work: impl Future<Output = Vec<String>>) -> (u64, usize) {
    packs.reads.store(0, Relaxed);
    let found = work.await.len();
    (packs.reads.load(Relaxed), found)
}

#[tokio::test]
async fn leaves_are_fetched_together_and_those_that_are_not_needed_are_not() {
    // 72 leaves below one page.
    let paths = (0..72 * 72).map(|number| format!("{:02}/{:02}", number / 72, number % 72));
    let entries = paths.map(|path| entry(&path, Kind::File, Content::default(), 0)).collect();
    let writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let reader = writer.finish(entries, 72);
    assert_eq!(reader.snapshot().depth, 2);
    let part = |part| walked(TreeWalk::new(&reader, part).unwrap());
    assert_eq!(requests(&packs, part(Part::all())).await, (1 + 9, 72 * 72));
    assert_eq!(
        requests(&packs, walked(TreeWalk::backwards(&reader, Part::all()).unwrap())).await,
        (1 + 9, 72 * 72)
    );
    assert_eq!(requests(&packs, part(Part::below(b"17"))).await, (2, 72));
    assert_eq!(requests(&packs, part(Part::below(b"17/3"))).await, (2, 0));
    assert_eq!(requests(&packs, part(Part::below(b"17/03"))).await, (2, 1));
}

#[tokio::test]
async fn large_leaves_are_fetched_one_by_one() {
    // 23 attributes of 64 KiB are 1.4 MiB: a leaf of two such files is more than is fetched at once.
    let entries = (0..8u8).map(|number| {
        let mut entry = entry(&format!("file {number}"), Kind::File, Content::default(), 0);
        let attribute = |of: u32| {
            let name = format!("user.{of:02}").into();
            // As good as nothing in a pack: requests for it would be merged.
            Xattr { name, value: vec![number; 64 << 10] }
        };
        entry.metadata.xattrs = (0..23).map(attribute).collect();
        entry
    });
    let mut writer = Writer::new();
    writer.pack_limit = 64 << 20;
    let packs = Arc::clone(&writer.packs);
    let reader = writer.finish(entries.collect(), 2);
    let all = walked(TreeWalk::new(&reader, Part::all()).unwrap());
    // The root, two pages below it, and four leaves.
    assert_eq!(requests(&packs, all).await, (1 + 2 + 4, 8));
}

async fn error_of(reader: &SnapshotReader, change: impl Fn(&mut Snapshot)) -> Error {
    let mut snapshot = reader.snapshot().clone();
    change(&mut snapshot);
    let reader = SnapshotReader::with_access(Arc::clone(reader.access()), snapshot);
    match reader.entries(Part::all()) {
        Ok(mut walk) => walk.next_leaf().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_tree_has_as_many_levels_as_it_says() {
    for (per_page, depth) in [(100, 1), (5, 2)] {
        let reader = tree(per_page);
        assert_eq!(reader.snapshot().depth, depth);
        for (other, words) in [
            (0, "has 0 levels"),
            (3 - depth, "on the wrong level"),
            (limits::TREE_DEPTH, "on the wrong level"),
            (limits::TREE_DEPTH + 1, "has 13 levels"),
        ] {
            let error = error_of(&reader, |snapshot| snapshot.depth = other).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(words), "{depth} {other}: {error}");
        }
    }
}

#[test]
fn files_and_images_have_contents() {
    for kind in [Kind::File, Kind::Image] {
        assert!(has_contents(&entry("x", kind, Content::Inline(vec![Run::Hole(1)]), 1)));
    }
    for kind in [Kind::Directory, Kind::Fifo] {
        assert!(!has_contents(&entry("x", kind, Content::default(), 0)));
    }
}
