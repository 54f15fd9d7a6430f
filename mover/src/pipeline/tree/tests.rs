use super::*;
use crate::{
    format::{
        entry::{Content, Entry},
        metadata::{Kind, Xattr},
    },
    pipeline::testing::{Stage, chunk_ending},
    reader::testing::entry,
};

async fn pages() -> (Stage, Pages) {
    let stage = Stage::new().await;
    let packer = Arc::new(Packer::new(Arc::clone(&stage.shared.bridge), limits::PACK_TARGET, 0));
    let earlier = Arc::new(Mutex::new(EarlierPages::new(0)));
    let pages = Pages::new(Arc::clone(&stage.shared), packer, earlier);
    (stage, pages)
}

fn file(path: &str) -> Entry {
    entry(path, Kind::File, Content::default(), 10)
}

/// A file with an attribute of so many bytes.
fn large(path: &str, bytes: usize) -> Entry {
    let mut file = file(path);
    file.metadata.xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![1; bytes] }];
    file
}

/// A path behind others, of which a leaf ends or does not.
fn path_that(says_so: bool) -> String {
    let mut paths = (0..).map(|number| format!("z{number}"));
    paths.find(|path| name_says_so(path.as_bytes()) == says_so).unwrap()
}

#[test]
fn the_same_names_end_a_leaf_in_every_version() {
    let ends = |number: &u32| name_says_so(format!("some/file {number}").as_bytes());
    let found: Vec<u32> = (0..4000).filter(ends).collect();
    assert_eq!(found, [1, 766, 924, 2024, 2499, 3217, 3588, 3773]);
}

#[test]
fn as_many_earlier_pages_are_known_as_memory_is_for() {
    assert_eq!(EarlierPages::new(0).young_limit, 64);
    assert_eq!(EarlierPages::new(2 * 100 * EARLIER_PAGE_BYTES).young_limit, 100);
    let mut earlier = EarlierPages::new(0);
    let page = |number: u32| chunk_ending(9, number, 1);
    (0..64).for_each(|number| earlier.insert(page(number)));
    assert_eq!((earlier.young.len(), earlier.old.len()), (64, 0));
    earlier.insert(page(64));
    assert_eq!((earlier.young.len(), earlier.old.len()), (1, 64));
    for number in [0, 64] {
        assert!(earlier.take(&page(number).id).is_some() && earlier.take(&page(number).id).is_none());
    }
    (65..129).for_each(|number| earlier.insert(page(number)));
    assert!(earlier.take(&page(1).id).is_some(), "it is one of the older ones");
    earlier.insert(page(129));
    assert!(earlier.take(&page(2).id).is_none() && earlier.take(&page(128).id).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_there_is_named_and_all_sessions_are_told() {
    let (stage, mut pages) = pages().await;
    let own = stage.shared.bridge.session().name();
    assert_eq!(pages.sessions(), HashSet::new());
    let mut leaf = PageWriter::leaf();
    leaf.push_entry(&file("one")).unwrap();
    let stored = pages.store(&leaf).unwrap();
    assert_eq!(pages.sessions(), HashSet::from([own]));

    let foreign = chunk_ending(9, 1, 1);
    let theirs = foreign.frame.place().unwrap().session;
    let other = SessionName { lineage: crate::id::LineageId([9; 8]), ..theirs };
    let known = ChunkRef { id: stored.id, ..foreign };
    let (_stage, mut pages) = (stage, pages);
    pages.earlier.lock().unwrap().insert(known.clone());
    pages.earlier.lock().unwrap().carry([other]);
    let again = pages.store(&leaf).unwrap();
    assert!(again.frame.is_same(&known.frame));
    assert_eq!(pages.sessions(), HashSet::from([own, theirs, other]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_ends_where_a_name_says_so_or_when_it_is_full() {
    let (_stage, mut pages) = pages().await;
    let size = |writer: &TreeWriter| writer.leaf.size();
    for says_so in [true, false] {
        let path = path_that(says_so);
        let mut probe = TreeWriter::new();
        probe.push(&file("a"), &mut pages).unwrap();
        probe.push(&large(&path_that(false), 10_000), &mut pages).unwrap();
        let length_differs = path.len() as isize - path_that(false).len() as isize;
        let rest = (size(&probe) as isize - 10_000 + length_differs) as usize;
        for (reached, ends) in
            [(limits::PAGE_MIN - 1, false), (limits::PAGE_MIN, says_so), (limits::PAGE_MIN + 1, says_so)]
        {
            let mut writer = TreeWriter::new();
            writer.push(&file("a"), &mut pages).unwrap();
            writer.push(&large(&path, reached - rest), &mut pages).unwrap();
            let expected = if ends { (0, 0) } else { (2, reached) };
            assert_eq!((writer.leaf.count(), size(&writer)), expected, "{path} at {reached}");
        }
        let mut writer = TreeWriter::new();
        writer.push(&file("a"), &mut pages).unwrap();
        writer.push(&large(&path, limits::PAGE_TARGET_MAX), &mut pages).unwrap();
        assert_eq!(writer.leaf.count(), 0, "it is full");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn very_large_attributes_have_a_leaf_of_their_own() {
    let (_stage, mut pages) = pages().await;
    let mut first = TreeWriter::new();
    first.push(&file("a"), &mut pages).unwrap();
    let most = limits::PAGE_LIMIT / 2 - first.leaf.size() - "user.x".len();
    assert_eq!(attribute_bytes(&large("b", most)), most + 6);
    for (bytes, leaves) in [(most, 1), (most + 1, 2)] {
        let mut writer = first.clone();
        writer.push(&large("b", bytes), &mut pages).unwrap();
        let entries: Vec<_> = writer.levels[0].children.iter().map(|child| child.entries).collect();
        assert_eq!(entries, [vec![2], vec![1, 1]][leaves - 1], "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_come_in_order_and_are_counted() {
    let (_stage, mut pages) = pages().await;
    let mut writer = TreeWriter::new();
    for (index, path) in ["a", "b", "c"].into_iter().enumerate() {
        writer.push(&file(path), &mut pages).unwrap();
        writer.close_leaf(&mut pages).unwrap();
        assert_eq!(writer.total(), (index as u64 + 1) * 10);
    }
    for path in ["c", "b"] {
        let error = writer.push(&file(path), &mut pages).unwrap_err();
        assert!(error.to_string().contains(&format!("{path} behind c")), "{error}");
    }
    // An empty leaf is no leaf.
    writer.close_leaf(&mut pages).unwrap();
    let children = &writer.levels[0].children;
    let of = |child: &Child| (child.first.clone(), child.last.clone(), child.entries, child.bytes);
    assert_eq!(of(&children[1]), (b"b".to_vec(), b"b".to_vec(), 1, 10));
    let mut large = TreeWriter::new();
    large.push(&entry("a", Kind::File, Content::default(), u64::MAX), &mut pages).unwrap();
    large.push(&file("b"), &mut pages).unwrap();
    assert_eq!(large.total(), u64::MAX, "what somebody else wrote");
}

fn child(last: u8, number: u32, paths: usize) -> Child {
    let mut path = number.to_string().into_bytes();
    path.resize(paths, b'x');
    Child { first: path.clone(), last: path, entries: 2, bytes: 3, page: chunk_ending(last, number, 1) }
}

/// How many children are left on the first level, and how many entries each of those above has.
async fn levels_of(children: Vec<Child>) -> (usize, Vec<u64>) {
    let (_stage, mut pages) = pages().await;
    let mut writer = TreeWriter::new();
    for child in children {
        writer.add_child(0, child, &mut pages).unwrap();
    }
    let above = writer.levels.get(1).map_or(Vec::new(), |level| level.children.clone());
    assert!(above.iter().all(|child| child.bytes == child.entries / 2 * 3));
    (writer.levels[0].children.len(), above.iter().map(|child| child.entries).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_children_have_a_page_above_them() {
    let silent = |count: u32| (0..count).map(|number| child(2, number, 8)).collect::<Vec<_>>();
    let then = |count, last| [silent(count), vec![child(last, 9_999_999, 8)]].concat();
    assert_eq!(levels_of(then(30, 1)).await, (31, vec![]));
    assert_eq!(levels_of(then(31, 1)).await, (0, vec![64]));
    assert_eq!(levels_of(then(31, 2)).await, (32, vec![]));
    assert_eq!(levels_of(silent(1023)).await, (1023, vec![]));
    assert_eq!(levels_of(silent(1024)).await, (0, vec![2048]));
    // Long paths: those of two children at least.
    let half = limits::PAGE_PATHS_TARGET / 4;
    let long = |lengths: [usize; 2]| vec![child(2, 1, lengths[0]), child(2, 2, lengths[1])];
    assert_eq!(levels_of(long([half, half])).await, (0, vec![4]));
    assert_eq!(levels_of(long([half, half - 1])).await, (2, vec![]));
    assert_eq!(levels_of(vec![child(2, 1, half * 3)]).await, (1, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_the_only_page_of_its_level() {
    let (_stage, mut pages) = pages().await;
    assert_eq!(TreeWriter::new().finish(&mut pages).unwrap(), (None, 0));
    // How many leaves there are, and how many levels they need: of 1025 one is left when the others have gone up.
    for (leaves, expected) in [(1, 1), (2, 2), (1024, 2), (1025, 3)] {
        let mut writer = TreeWriter::new();
        for number in 0..leaves {
            writer.add_child(0, child(2, number, 8), &mut pages).unwrap();
        }
        let (root, depth) = writer.finish(&mut pages).unwrap();
        assert!(root.is_some() && depth == expected, "{leaves}: {depth}");
    }
}
