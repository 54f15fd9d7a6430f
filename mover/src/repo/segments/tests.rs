use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::*;
use crate::{
    cancel::Cancel,
    format::{frame::Suite, pack::pack_object, session::SessionKind},
    id::LineageId,
    repo::testing::{self, Meddled},
    store::{
        ObjectStore,
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

/// A repository of which only the index is used.
struct Stage {
    store: Arc<MemStore>,
    calls: Arc<RecordStore>,
    repository: Repository,
}

fn chunk(number: u64) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

impl Stage {
    async fn new() -> Self {
        let store = Arc::new(MemStore::new());
        let calls = Arc::new(RecordStore::new(store.clone()));
        Self { repository: testing::create(calls.clone()).await, store, calls }
    }

    async fn session(&self) -> Session {
        let begin = self.repository.begin(SessionKind::Backup, LineageId([1; 8]), Suite::Aes256Gcm);
        begin.await.unwrap()
    }

    /// Chunks in a pack of a session, which leaves a segment as a backup does; answers whether it joined others.
    async fn add(&self, chunks: Range<u64>) -> bool {
        let session = self.session().await;
        let LoadedIndex { join, .. } = self.repository.load_index(usize::MAX).await.unwrap();
        let (pack, joins) = (session.new_pack(), join.is_some());
        self.store.tamper(&pack_object(pack, 0), Some(Bytes::from_static(b"a pack")));
        let rows: Vec<_> = chunks.map(|number| (chunk(number), pack)).collect();
        session.put_joined(join, &rows).await.unwrap();
        joins
    }

    /// So many segments that nobody joined, each of one chunk.
    async fn add_alone(&self, chunks: Range<u64>) {
        for number in chunks {
            let session = self.session().await;
            let pack = session.new_pack();
            self.store.tamper(&pack_object(pack, 0), Some(Bytes::from_static(b"a pack")));
            session.put_segment(&[(chunk(number), pack)]).await.unwrap();
        }
    }

    async fn names(&self) -> Vec<String> {
        list_all(self.store.as_ref(), SEGMENTS).await.unwrap().into_iter().map(|listed| listed.name).collect()
    }

    async fn joined(&self) -> Vec<String> {
        self.names().await.into_iter().filter(|name| name.ends_with(JOINED)).collect()
    }

    /// Which segments a writer reads, and how many of the first chunks it finds.
    async fn load(&self, chunks: u64) -> (Vec<String>, u64) {
        self.calls.take();
        let index = self.repository.load_index(usize::MAX).await.unwrap().index;
        let calls = self.calls.take().into_iter();
        let read = calls.filter(|call| matches!(call.operation, Operation::Get(_))).map(|call| call.name);
        let found = (0..chunks).filter(|number| index.lookup(&chunk(*number)).next().is_some()).count();
        (read.collect(), found as u64)
    }
}

#[tokio::test]
async fn however_many_backups_there_were_a_writer_reads_a_few_segments() {
    let stage = Stage::new().await;
    let mut joins = 0;
    for number in 0..200 {
        joins += u64::from(stage.add(number..number + 1).await);
        let (read, found) = stage.load(number + 1).await;
        assert_eq!(found, number + 1);
        // Joined ones are asked for side by side, and all but the longest in vain.
        assert!(read.len() < Join::FROM + PARALLEL_SEGMENTS, "{} of {number}", read.len());
    }
    assert_eq!(stage.names().await.len(), 200, "each backup leaves one, joined or not");
    assert!((15..=20).contains(&joins) && stage.joined().await.len() as u64 == joins, "{joins}");
}

#[tokio::test]
async fn a_join_waits_for_enough_small_ones() {
    let stage = Stage::new().await;
    stage.add_alone(0..Join::FROM as u64 - 1).await;
    assert!(stage.repository.load_index(usize::MAX).await.unwrap().join.is_none());
    stage.add_alone(100..101).await;
    let join = stage.repository.load_index(usize::MAX).await.unwrap().join.unwrap();
    assert_eq!((join.segments.len(), join.rows.len()), (Join::FROM, Join::FROM));
}

/// A backup that stored nothing anew joins what others left, and one that has much leaves it beside.
#[tokio::test]
async fn own_rows_are_among_the_joined_ones_where_there_is_room() {
    let stage = Stage::new().await;
    stage.add_alone(0..20).await;
    assert!(stage.add(20..20).await);
    let (read, found) = stage.load(20).await;
    assert_eq!((read.len(), found), (1, 20));

    stage.add_alone(20..40).await;
    let join = stage.repository.load_index(usize::MAX).await.unwrap().join.unwrap();
    let full = SEGMENT_ROWS - join.rows.len();
    let many = |count| vec![(chunk(1000), PackId([9; 16])); count];
    let before = stage.names().await.len();
    stage.session().await.put_joined(Some(join), &many(full)).await.unwrap();
    assert_eq!((stage.names().await.len(), stage.load(1001).await.1), (before + 1, 41));

    stage.add_alone(40..60).await;
    let join = stage.repository.load_index(usize::MAX).await.unwrap().join.unwrap();
    let one_more = SEGMENT_ROWS - join.rows.len() + 1;
    let before = stage.names().await.len();
    stage.session().await.put_joined(Some(join), &many(one_more)).await.unwrap();
    assert_eq!((stage.names().await.len(), stage.load(1001).await.1), (before + 2, 61));
}

#[tokio::test]
async fn segments_of_many_rows_are_left_as_they_are() {
    let (stage, small) = (Stage::new().await, JOIN_ROWS_MAX / SMALL_SHARE);
    let put = async |from: u64, rows: usize| {
        let (session, pack) = (stage.session().await, PackId([9; 16]));
        let rows: Vec<_> = (from..from + rows as u64).map(|number| (chunk(number), pack)).collect();
        session.put_segment(&rows).await.unwrap();
    };
    let join = async |max_rows| stage.repository.load_index(max_rows).await.unwrap().join;
    stage.add_alone(0..11).await;
    put(100_000, small + 1).await;
    assert!(join(usize::MAX).await.is_none(), "it is no small one");
    put(200_000, small).await;
    assert_eq!(join(usize::MAX).await.unwrap().rows.len(), 11 + small);
    assert!(join(JOIN_ROWS_MAX * JOIN_SHARE / 2).await.is_none(), "who has less memory joins less");
    for part in 3..20 {
        put(part * 100_000, small).await;
    }
    let all = join(usize::MAX).await.unwrap();
    assert!((small * Join::FROM..=JOIN_ROWS_MAX).contains(&all.rows.len()), "{}", all.rows.len());
}

#[tokio::test]
async fn as_many_rows_are_joined_as_may_be() {
    let (stage, small) = (Stage::new().await, (JOIN_ROWS_MAX / SMALL_SHARE) as u64);
    for part in 0..=SMALL_SHARE as u64 {
        let (session, pack) = (stage.session().await, PackId([9; 16]));
        let rows: Vec<_> = (part * small..(part + 1) * small).map(|number| (chunk(number), pack)).collect();
        session.put_segment(&rows).await.unwrap();
    }
    let join = stage.repository.load_index(usize::MAX).await.unwrap().join.unwrap();
    assert_eq!((join.segments.len(), join.rows.len()), (SMALL_SHARE, JOIN_ROWS_MAX));
}

/// What a store does not tell need not be gone, and to store all of it again is no way to go on.
#[tokio::test]
async fn an_index_that_cannot_be_read_now_is_no_lost_one() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    testing::begin(&repository).await.put_segment(&[(chunk(1), PackId([9; 16]))]).await.unwrap();
    for (kind, is_passed_over) in [(ErrorKind::Unavailable, false), (ErrorKind::NotFound, true)] {
        store.fail_gets(SEGMENTS, kind);
        let loaded = repository.load_index(usize::MAX).await;
        assert_eq!(
            loaded.map(|loaded| loaded.index.is_empty()).map_err(|error| error.kind()),
            match is_passed_over {
                true => Ok(true),
                false => Err(kind),
            }
        );
    }
}

/// The index is a hint up to the last: a backup whose data has arrived does not fail for it.
#[tokio::test]
async fn whether_others_have_joined_need_not_be_known() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    for number in 0..Join::FROM as u64 {
        let session = testing::begin(&repository).await;
        session.put_segment(&[(chunk(number), PackId([9; 16]))]).await.unwrap();
    }
    let join = repository.load_index(usize::MAX).await.unwrap().join;
    assert!(join.is_some());
    store.fail_lists(SEGMENTS, ErrorKind::Unavailable);
    let session = testing::begin(&repository).await;
    session.put_joined(join, &[(chunk(100), PackId([9; 16]))]).await.unwrap();
    store.fail_lists("none", ErrorKind::Unavailable);
    let listed = repository.segment_names().await.unwrap();
    assert_eq!((listed.len(), listed.iter().any(|listed| is_joined(&listed.name))), (Join::FROM + 1, false));
}

/// What a joined segment stands for is there until maintenance takes both away.
#[tokio::test]
async fn a_joined_segment_that_is_damaged_hides_nothing() {
    let stage = Stage::new().await;
    stage.add_alone(0..20).await;
    stage.add(20..21).await;
    let joined = stage.joined().await.remove(0);
    let body = stage.store.get(&joined, ByteRange::All).await.unwrap();
    for damage in [Some(body.slice(..body.len() - 1)), Some(Bytes::from_static(b"rubbish")), None] {
        stage.store.tamper(&joined, damage);
        let (_, found) = stage.load(21).await;
        assert_eq!(found, 20, "its own row is lost, and nothing else");
    }
    // Under the name of a joined one, or without it, it is none.
    let plain = stage.names().await.remove(0);
    let other = stage.store.get(&plain, ByteRange::All).await.unwrap();
    stage.store.tamper(&joined, Some(other));
    stage.store.tamper(&segment_name(RandomId([7; 16])), Some(body));
    let error = stage.repository.segment(&joined).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(stage.load(21).await.1, 20);
}

/// Whoever holds a writer's keys can claim to have joined what it has not: that costs room until the next prune, which merges
/// where there is a joined one, however few others there are.
#[tokio::test]
async fn what_a_joined_segment_hides_a_prune_brings_back() {
    let stage = Stage::new().await;
    stage.add_alone(0..5).await;
    let segments = stage.names().await.iter().filter_map(|name| segment_id(name)).collect();
    let lie = Join { segments, rows: Vec::new(), seen: HashSet::new() };
    stage.session().await.put_joined(Some(lie), &[]).await.unwrap();
    assert_eq!(stage.load(5).await.1, 0);
    let segments = stage.repository.segment_names().await.unwrap();
    stage.repository.merge_index(&segments, |_| true, &Cancel::default()).await.unwrap();
    assert_eq!(stage.names().await.len(), 1);
    assert_eq!(stage.load(5).await.1, 5);
    let segments = stage.repository.segment_names().await.unwrap();
    stage.repository.merge_index(&segments, |_| true, &Cancel::default()).await.unwrap();
    assert_eq!(stage.repository.segment_names().await.unwrap(), segments, "there is nothing to merge");
}

/// Many backups begin at midnight and read the same: one joined segment is enough.
#[tokio::test]
async fn of_writers_that_would_join_the_same_one_does() {
    let stage = Stage::new().await;
    stage.add_alone(0..20).await;
    let twenty = stage.names().await;
    let load = async || stage.repository.load_index(usize::MAX).await.unwrap().join;
    let (one, other, third) = (load().await, load().await, load().await);
    let pack = PackId([9; 16]);
    stage.session().await.put_joined(one, &[(chunk(20), pack)]).await.unwrap();
    stage.session().await.put_joined(other, &[(chunk(21), pack)]).await.unwrap();
    assert_eq!(stage.joined().await.len(), 1);
    assert_eq!(stage.load(22).await, (stage.load(22).await.0, 22));
    // At the same moment both may.
    let first = segment_id(&stage.joined().await[0]).unwrap();
    let third = third.map(|join| Join { seen: join.seen.iter().copied().chain([first]).collect(), ..join });
    stage.session().await.put_joined(third, &[(chunk(22), pack)]).await.unwrap();
    assert_eq!(stage.joined().await.len(), 2);
    let (read, found) = stage.load(23).await;
    assert_eq!((read.len(), found), (3, 23));
    stage.add_alone(23..32).await;
    let join = load().await.unwrap();
    assert_eq!(join.segments.len(), 20 + 3 + 9);
    // What is gone by then is not named any more.
    for name in &twenty[..5] {
        stage.store.delete(name).await.unwrap();
    }
    assert_eq!(load().await.unwrap().segments.len(), 20 + 3 + 9 - 5);
}

#[test]
fn the_id_is_in_the_name_of_either_kind() {
    let id = RandomId([0xab; 16]);
    let name = segment_name(id);
    assert_eq!(segment_id(&name), Some(id));
    assert_eq!(segment_id(&format!("{name}{JOINED}")), Some(id));
    assert_eq!(segment_id("index/s-ab"), None);
    assert_eq!(segment_id("index/c-ab"), None);
}
