use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    testing::{Stage, Tree, Watcher, backup, chunk, runs},
    *,
};
use crate::{
    format::{
        entry::Entry,
        frame::{Frame, Suite},
        metadata::Kind,
        page::{Child, PageWriter},
        records::{Fenced, Moved},
    },
    id::SessionNonce,
    reader::testing::entry,
    repo::{
        PINNED,
        testing::{Fate, Meddled, add_key, fenced, moved, put_fence, repack},
    },
    secret::Key,
    store::{
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

type Place = (PackId, u32);

#[derive(Debug, Default)]
struct Needed(BTreeSet<Place>);

impl Needs for Needed {
    fn frame(&mut self, pack: PackId, offset: u32, _stored: u32) {
        self.0.insert((pack, offset));
    }
}

fn pack(number: u8) -> PackId {
    PackId([number; 16])
}

/// Where a page was written.
fn place(page: &ChunkRef) -> Place {
    let place = page.frame.place().unwrap();
    (place.pack, place.offset)
}

fn root(snapshot: &Snapshot) -> Place {
    place(&snapshot.root.as_ref().unwrap().to_chunk())
}

/// What a mark finds, and how many pages it read for that.
async fn mark(repository: &Repository) -> Result<(BTreeSet<Place>, Marked, u64)> {
    let (mut needed, watcher) = (Needed::default(), Watcher::default());
    let marked = repository.mark(&mut needed, watcher.watch()).await?;
    Ok((needed.0, marked, Progress::get(&watcher.monitor.progress().entries)))
}

async fn needed(repository: &Repository) -> BTreeSet<Place> {
    mark(repository).await.unwrap().0
}

async fn refused(repository: &Repository) -> Error {
    mark(repository).await.unwrap_err()
}

fn leaf(entries: &[Entry]) -> PageWriter {
    let mut page = PageWriter::leaf();
    entries.iter().for_each(|entry| page.push_entry(entry).unwrap());
    page
}

fn file(path: &str, runs: Vec<Run>) -> Entry {
    let size = runs.iter().map(Run::length).sum();
    entry(path, Kind::File, Content::Inline(runs), size)
}

#[tokio::test]
async fn everything_that_a_tree_names_is_needed_and_each_page_is_read_once() {
    let stage = Stage::new().await;
    let mut tree = Tree::begin(&stage.repository).await;
    let below = tree.page(&runs(&[(pack(1), 7), (pack(1), 50)]));
    let mut above = PageWriter::runs_inner();
    above.push_runs_page(&below, 200).unwrap();
    let above = tree.page(&above);
    let paged = Content::Paged { depth: 2, pages: vec![(above.clone(), 200)] };
    // Two chunks of one frame, and a hole between them.
    let [first, second] = [chunk(pack(2), 0), chunk(pack(2), 0)].map(Run::Chunk);
    let one = leaf(&[
        file("a", vec![first, Run::Hole(5), second]),
        entry("b", Kind::File, paged, 200),
        entry("c", Kind::Directory, Content::default(), 0),
    ]);
    let other = leaf(&[file("d", vec![Run::Chunk(chunk(pack(3), 9))])]);
    let (one, other) = (tree.page(&one), tree.page(&other));
    let mut inner = PageWriter::inner();
    for (first, last, entries, page) in [("a", "c", 3, &one), ("d", "d", 1, &other)] {
        let (first, last) = (first.as_bytes().to_vec(), last.as_bytes().to_vec());
        inner.push_child(&Child { first, last, entries, bytes: 0, page: page.clone() }).unwrap();
    }
    let top = tree.page(&inner);
    let first = tree.commit(&top).await;
    let data = [(pack(1), 7), (pack(1), 50), (pack(2), 0), (pack(3), 9)];
    let expected: BTreeSet<Place> =
        [&below, &above, &one, &other, &top].into_iter().map(place).chain(data).collect();
    let (found, marked, pages) = mark(&stage.repository).await.unwrap();
    assert_eq!((found, pages), (expected.clone(), 5));
    assert_eq!(marked.survey.in_view(), [first.session]);
    assert!(marked.fenced.is_empty() && marked.relocations.is_empty());

    // A second snapshot has the same tree, whose pages another session has sealed.
    let mut again = Tree::begin(&stage.repository).await;
    again.keys.extend(first.sessions.clone());
    again.commit(&top).await;
    let (found, _, pages) = mark(&stage.repository).await.unwrap();
    assert_eq!((found, pages), (expected, 5));
}

/// What waits for its turn is not forgotten for what is found meanwhile.
#[tokio::test]
async fn a_tree_that_is_wider_than_what_is_read_at_once_is_walked_whole() {
    let stage = Stage::new().await;
    let mut tree = Tree::begin(&stage.repository).await;
    let (mut top, mut expected) = (PageWriter::runs_inner(), BTreeSet::new());
    for number in 0..40 {
        let below = tree.page(&runs(&[(pack(number), 1)]));
        tree.next_pack();
        let mut above = PageWriter::runs_inner();
        above.push_runs_page(&below, 100).unwrap();
        let above = tree.page(&above);
        tree.next_pack();
        top.push_runs_page(&above, 100).unwrap();
        expected.extend([(pack(number), 1), place(&below), place(&above)]);
    }
    let top = tree.page(&top);
    expected.insert(place(&top));
    tree.commit(&top).await;
    let (found, _, pages) = mark(&stage.repository).await.unwrap();
    assert_eq!((found, pages), (expected, 81));
}

#[tokio::test]
async fn what_was_moved_is_needed_where_it_is_now_and_only_there() {
    let stage = Stage::new().await;
    let snapshot = backup(&stage.repository, &[(pack(1), 7)]).await;
    let (old, at) = root(&snapshot);
    let body = stage.body(&pack_object(old, 0)).await;
    stage.store.tamper(&pack_object(pack(9), 0), Some(body));
    stage.store.tamper(&pack_object(old, 0), None);
    let row =
        |old_pack, old_offset, new_pack, new_offset| Moved { old_pack, old_offset, new_pack, new_offset };
    let both = [row(pack(1), 7, pack(2), 3), row(old, at, pack(9), at)];
    let used = repack(&stage.repository, &both).await;
    let unused = repack(&stage.repository, &[row(pack(1), 8, pack(2), 90)]).await;
    let (found, marked, _) = mark(&stage.repository).await.unwrap();
    let expected = BTreeSet::from([(pack(2), 3), (pack(9), at)]);
    assert_eq!((&found, marked.relocations_needed), (&expected, HashSet::from([used])));
    assert_eq!(marked.relocations.sessions(), BTreeSet::from([used, unused]).into_iter().collect::<Vec<_>>());

    // The same is said of one snapshot, and nothing where a relocation is in doubt.
    let watcher = Watcher::default();
    let mut of_one = Needed::default();
    let through = stage.repository.needs_of(&snapshot, &mut of_one, watcher.watch()).await.unwrap();
    assert_eq!((of_one.0, through), (expected, HashSet::from([used])));
    stage.flip(&unused.end_object()).await;
    let mut of_none = Needed::default();
    let error = stage.repository.needs_of(&snapshot, &mut of_none, watcher.watch()).await.unwrap_err();
    assert_eq!((error.kind(), of_none.0), (ErrorKind::Denied, BTreeSet::new()));
}

/// A page that is so long in the store and unpacked.
fn page(number: u8, offset: u32, stored: u32, plain: u32) -> ChunkRef {
    let model = chunk(pack(number), offset);
    let place = FramePlace { stored, plain, ..*model.frame.place().unwrap() };
    ChunkRef { frame: Frame::settled(place), ..model }
}

fn cipher() -> Arc<Cipher> {
    Arc::new(Cipher::new(Suite::Aes256Gcm, &Key::new([1; 32])))
}

fn wanted(number: u8, offset: u32, stored: u32) -> WantedPage {
    let page = page(number, offset, stored, 1);
    let place = *page.frame.place().unwrap();
    WantedPage { page, place, at: (place.pack, place.offset), cipher: cipher() }
}

#[test]
fn pages_share_a_request_while_little_lies_between_them() {
    let (gap, most) = (u32::try_from(RANGE_GAP_BYTES).unwrap(), u32::try_from(RANGE_BYTES).unwrap());
    let first = wanted(1, 100, 50);
    assert_eq!(first.end(), 150);
    let joins = |number, offset, stored| wanted(number, offset, stored).joins(&first, &first);
    assert!(joins(1, 150, 50) && joins(1, 150 + gap, 50));
    assert!(!joins(1, 151 + gap, 50) && !joins(2, 150, 50));
    assert!(joins(1, 150, most - 50) && !joins(1, 150, most - 49));
    let last = wanted(1, 1000, 10);
    assert!(wanted(1, 1010 + gap, 1).joins(&first, &last) && !wanted(1, 1010 + gap, 1).joins(&first, &first));
}

/// Knows the key of all pages that are not stored anywhere.
fn marker<'n>(repository: &Repository, needs: &'n mut Needed) -> Marker<'n> {
    let mut marker = Marker::new(repository, Relocations::default(), needs);
    marker.ciphers.insert(chunk(pack(1), 0).frame.place().unwrap().session, cipher());
    marker
}

#[tokio::test]
async fn ranges_are_bounded_by_what_their_pages_unpack_to() {
    let (stage, mut needed) = (Stage::new().await, Needed::default());
    let mut marker = marker(&stage.repository, &mut needed);
    let mut ranges = |pages: Vec<ChunkRef>| {
        marker.waiting = pages;
        let ranges = marker.next_ranges()?;
        Ok::<_, Error>((ranges.iter().map(Vec::len).collect::<Vec<_>>(), marker.waiting.len()))
    };
    let half = u32::try_from(RANGE_PLAIN_BYTES / 2).unwrap();
    assert_eq!(ranges(vec![page(1, 10, 10, half), page(1, 0, 10, half)]).unwrap().0, [2]);
    assert_eq!(ranges(vec![page(1, 0, 10, half), page(1, 10, 10, half + 1)]).unwrap().0, [1, 1]);
    assert_eq!(ranges(vec![page(1, 0, 10, 1), page(2, 10, 10, 1), page(1, 10, 10, 1)]).unwrap().0, [2, 1]);
    let many = (0..300).map(|offset| page(1, offset * 10, 10, 1)).collect();
    assert_eq!(ranges(many).unwrap(), (vec![PAGES_PER_ROUND], 300 - PAGES_PER_ROUND));

    let most = u32::try_from(limits::PAGE_LIMIT).unwrap();
    for (stored, plain, is_taken) in
        [(1, most, true), (1, most + 1, false), (most + 4096, 1, true), (most + 4097, 1, false)]
    {
        let error = ranges(vec![page(1, 0, stored, plain)]).err().map(|error| error.kind());
        assert_eq!(error, (!is_taken).then_some(ErrorKind::Corrupt), "{stored} {plain}");
    }
    marker.ciphers.clear();
    marker.waiting = vec![page(1, 0, 1, 1)];
    let error = marker.next_ranges().err().unwrap();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("is missing from its record"));
}

#[tokio::test]
async fn as_many_ranges_are_read_at_once_as_there_is_memory_for() {
    let (stage, watcher) = (Stage::new().await, Watcher::default());
    let quarter = u32::try_from(PLAIN_BYTES_AT_ONCE / 4).unwrap();
    for (plain, most) in [(1, PARALLEL_RANGES), (quarter, 4), (quarter + 1, 3)] {
        let store = Arc::new(Meddled::new(stage.store.clone()));
        let repository = stage.through(store.clone()).await;
        let mut needed = Needed::default();
        let mut marker = marker(&repository, &mut needed);
        marker.waiting = (0..20).map(|number| page(number, 0, 10, plain)).collect();
        store.take_most_gets();
        let error = marker.walk(watcher.watch()).await.unwrap_err();
        assert_eq!((error.kind(), store.take_most_gets()), (ErrorKind::Corrupt, most), "{plain} bytes each");
    }
}

#[tokio::test]
async fn as_many_ciphers_are_kept_as_memory_is_for() {
    let (stage, mut needed) = (Stage::new().await, Needed::default());
    let mut marker = Marker::new(&stage.repository, Relocations::default(), &mut needed);
    let model = Tree::begin(&stage.repository).await.keys.remove(0);
    let info = |number: u32| {
        let mut nonce = SessionNonce::default();
        nonce.0[..4].copy_from_slice(&number.to_le_bytes());
        SessionKeyInfo { session: SessionName { nonce, ..model.session }, ..model.clone() }
    };
    let count = u32::try_from(CIPHERS_KEPT).unwrap();
    marker.learn(&(0..count).map(info).collect::<Vec<_>>()).unwrap();
    for (number, kept) in [(count, CIPHERS_KEPT + 1), (count + 1, 1), (count + 2, 2), (count + 2, 2)] {
        marker.learn(&[info(number)]).unwrap();
        assert_eq!(marker.ciphers.len(), kept);
    }
}

/// Two pages that lie next to each other in one pack, behind something else.
async fn neighbours(stage: &Stage) -> (PackId, [ChunkRef; 2], BTreeSet<Place>) {
    let mut tree = Tree::begin(&stage.repository).await;
    tree.gap(30);
    let pages = [1, 2].map(|number| tree.page(&runs(&[(pack(number), 0)])));
    tree.next_pack();
    let mut top = PageWriter::runs_inner();
    pages.iter().for_each(|page| top.push_runs_page(page, 100).unwrap());
    let top = tree.page(&top);
    tree.commit(&top).await;
    let named = pages.iter().chain([&top]).map(place).chain([(pack(1), 0), (pack(2), 0)]).collect();
    (place(&pages[0]).0, pages, named)
}

#[tokio::test]
async fn neighbours_are_read_together_and_each_from_where_it_is_whole() {
    let stage = Stage::new().await;
    let (both, pages, expected) = neighbours(&stage).await;
    let calls = Arc::new(RecordStore::new(stage.store.clone()));
    let repository = stage.through(calls.clone()).await;
    calls.take();
    let (sending, second) = (pack_object(both, 0), pack_object(both, 1));
    let whole = stage.body(&sending).await;
    assert_eq!(needed(&repository).await, expected);
    let reads = calls.take().into_iter().filter(|call| call.name.contains(&both.to_hex()));
    let range = ByteRange::Slice { offset: 30, length: whole.len() as u64 - 30 };
    let reads: Vec<_> = reads.map(|call| (call.name, call.operation)).collect();
    assert_eq!(reads, [(sending.clone(), Operation::Get(range))]);

    // Of either sending another page is damaged.
    let damaged = |body: &Bytes, page: &ChunkRef| {
        let mut body = body.to_vec();
        body[place(page).1 as usize] ^= 1;
        Some(Bytes::from(body))
    };
    stage.store.tamper(&sending, damaged(&whole, &pages[0]));
    stage.store.tamper(&second, damaged(&whole, &pages[1]));
    assert_eq!(needed(&repository).await, expected);
    stage.store.tamper(&second, damaged(&whole, &pages[0]));
    let (error, words) = (refused(&repository).await, format!("the page at 30 of pack {both}"));
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(&words), "{error}");
}

/// What is not there, and what the store does not answer for.
#[tokio::test]
async fn a_page_that_cannot_be_read_is_asked_for_once() {
    let stage = Stage::new().await;
    let (both, ..) = neighbours(&stage).await;
    let (asked, name) = (Arc::new(AtomicUsize::new(0)), pack_object(both, 0));
    let (counted, silent) = (Arc::clone(&asked), name.clone());
    let meddled = stage.meddled(move |_, object| {
        if object != silent {
            return Fate::Passes;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Fate::Fails(ErrorKind::Unavailable)
    });
    let error = refused(&meddled.await).await;
    assert_eq!((error.kind(), asked.load(Ordering::Relaxed)), (ErrorKind::Unavailable, 1));
    stage.store.tamper(&name, None);
    let error = refused(&stage.repository).await;
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("snapshots need it"), "{error}");

    // One page alone, which is damaged: nothing is left to be read by itself.
    let stage = Stage::new().await;
    let (only, _) = root(&backup(&stage.repository, &[]).await);
    stage.flip(&pack_object(only, 0)).await;
    let calls = Arc::new(RecordStore::new(stage.store.clone()));
    let repository = stage.through(calls.clone()).await;
    assert_eq!(refused(&repository).await.kind(), ErrorKind::Corrupt);
    let reads = calls.take().into_iter().filter(|call| call.name == pack_object(only, 0)).count();
    assert_eq!(reads, 1);
}

#[tokio::test]
async fn what_is_lost_or_cannot_be_believed_stops_a_mark() {
    let stage = Stage::new().await;
    let one = backup(&stage.repository, &[]).await.session;
    let other = backup(&stage.repository, &[]).await.session;
    let repack = repack(&stage.repository, &[moved(1, 2)]).await;
    // A session that is lost is one doubt, of a repack as of a backup.
    for session in [one, repack] {
        let fork = stage.fork().await;
        fork.store.tamper(&session.session_object(), None);
        let error = refused(&fork.repository).await;
        let expected = format!("object {} is missing: what", session.session_object());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.kind() == ErrorKind::Corrupt && !error.to_string().contains("others"), "{error}");
    }
    let fork = stage.fork().await;
    fork.flip(&one.end_object()).await;
    let error = refused(&fork.repository).await;
    assert!(error.to_string().starts_with(&format!("snapshot {one} cannot be believed")), "{error}");
    assert!(error.hint().unwrap().contains(&format!("carrack forget {one}")));
    fork.store.tamper(&other.end_object(), Some(Bytes::from_static(b"rubbish")));
    let error = refused(&fork.repository).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().ends_with(", and 1 others are in doubt"), "{error}");
    let fork = stage.fork().await;
    fork.flip(&repack.end_object()).await;
    assert_eq!(refused(&fork.repository).await.kind(), ErrorKind::Denied);

    // A store that does not answer leaves no doubt.
    let meddled = stage.meddled(|operation, name| match operation {
        Operation::Get(_) if name.starts_with("snapshots/b") => Fate::Fails(ErrorKind::Unavailable),
        _ => Fate::Passes,
    });
    let error = refused(&meddled.await).await;
    assert!(error.kind() == ErrorKind::Unavailable && !error.to_string().contains("in doubt"), "{error}");
}

#[tokio::test]
async fn a_doubt_that_newer_keys_may_explain_is_none() {
    let stage = Stage::new().await;
    let session = backup(&stage.repository, &[]).await.session;
    add_key(&stage.repository).await;
    assert!(mark(&stage.repository).await.is_ok(), "where nothing is in doubt, keys do not matter");
    stage.flip(&session.end_object()).await;
    assert_eq!(refused(&stage.repository).await.kind(), ErrorKind::Conflict);
}

#[test]
fn several_doubts_are_of_one_kind_only_if_all_are() {
    let session = chunk(pack(1), 0).frame.place().unwrap().session;
    let doubts = |kinds: &[ErrorKind]| {
        undoubted(kinds.iter().map(|kind| (session, Error::new(*kind, format!("{kind:?}")))).collect())
    };
    let (denied, invalid) = (ErrorKind::Denied, ErrorKind::Invalid);
    assert!(doubts(&[]).is_ok());
    for (kinds, kind, words) in [
        (vec![denied], denied, "Denied"),
        (vec![invalid, invalid], invalid, "Invalid, and 1 others are in doubt"),
        (vec![invalid, denied, denied], ErrorKind::Corrupt, "Invalid, and 2 others are in doubt"),
    ] {
        let error = doubts(&kinds).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, words));
        assert_eq!(error.hint().is_some(), kinds.len() > 1);
    }
}

/// SHUTOUT: a fence that no clean-up put there, of a session that somebody speaks of, stands for a lost end.
#[tokio::test]
async fn a_session_that_counted_and_was_shut_out_is_lost() {
    let stage = Stage::new().await;
    let session = backup(&stage.repository, &[(pack(1), 0)]).await.session;
    put_fence(&stage.repository, &stage.store, session, &fenced(session));
    assert_eq!(mark(&stage.repository).await.unwrap().1.fenced, [session], "nobody speaks of it");
    stage.repository.mark_snapshot(session, PINNED).await.unwrap();
    let error = refused(&stage.repository).await;
    assert!(error.to_string().contains("was shut out since"), "{error}");
    let buried = Fenced { cleaned_up: true, ..fenced(session) };
    put_fence(&stage.repository, &stage.store, session, &buried);
    assert_eq!(mark(&stage.repository).await.unwrap().1.fenced, [session]);
}

/// The end of a session is away for the first requests for one name, and comes back then.
async fn hiding(stage: &Stage, end: &str, name: &str, times: usize) -> Repository {
    let (store, body) = (stage.store.clone(), stage.body(end).await);
    let (end, name, mut asked) = (end.to_owned(), name.to_owned(), 0);
    let meddled = stage.meddled(move |_, object| {
        asked += usize::from(object == name);
        store.tamper(&end, (object != name || asked > times).then(|| body.clone()));
        Fate::Passes
    });
    meddled.await
}

/// AGAIN: what is listed and read is of two moments, so the mark begins anew; but not for ever.
#[tokio::test]
async fn what_comes_and_goes_meanwhile_makes_a_mark_begin_anew() {
    let stage = Stage::new().await;
    let session = backup(&stage.repository, &[(pack(1), 0)]).await.session;
    stage.repository.mark_snapshot(session, PINNED).await.unwrap();
    let expected = needed(&stage.repository).await;
    let end = session.end_object();
    for (name, times, is_found) in [
        ("snapshots/", 1, true),
        ("snapshots/", MARKS as usize - 1, true),
        ("snapshots/", MARKS as usize, false),
        (end.as_str(), 1, true),
        (end.as_str(), usize::MAX, false),
    ] {
        let repository = hiding(&stage, &end, name, times).await;
        let found = mark(&repository).await.map(|(found, ..)| found).map_err(|error| error.kind());
        let right = if is_found { Ok(expected.clone()) } else { Err(ErrorKind::Unavailable) };
        assert_eq!(found, right, "{name} {times}");
    }
}

/// Marks while the page of a snapshot goes in the moment in which it is asked for, and while `also` happens.
async fn marked_while(also: fn(&MemStore, SessionName), is_silent: bool) -> Result<()> {
    let stage = Stage::new().await;
    let snapshot = backup(&stage.repository, &[(pack(1), 0)]).await;
    let (store, mut is_gone) = (stage.store.clone(), false);
    let (session, page) = (snapshot.session, pack_object(root(&snapshot).0, 0));
    let meddled = stage.meddled(move |_, name| {
        if name == page {
            store.tamper(&page, None);
            also(&store, session);
            is_gone = true;
        }
        match is_silent && is_gone && name == session.end_object() {
            true => Fate::Fails(ErrorKind::Unavailable),
            false => Fate::Passes,
        }
    });
    mark(&meddled.await).await.map(|_| ())
}

/// Somebody else may have forgotten it since, and freed what it needed.
#[tokio::test]
async fn a_page_may_be_missing_only_of_a_snapshot_that_is_gone() {
    let clean_up = |store: &MemStore, session: SessionName| {
        store.tamper(&session.session_object(), None);
        store.tamper(&session.end_object(), None);
    };
    let spoil = |store: &MemStore, session: SessionName| {
        store.tamper(&session.end_object(), Some(Bytes::from_static(b"rubbish")));
    };
    let nothing = |_: &MemStore, _: SessionName| {};
    marked_while(clean_up, false).await.unwrap();
    let others: [fn(&MemStore, SessionName); 2] = [nothing, spoil];
    for also in others {
        let error = marked_while(also, false).await.unwrap_err();
        assert!(error.to_string().contains("is missing, and snapshots need it"), "{error}");
    }
    assert_eq!(marked_while(nothing, true).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
