use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::{
    clock::Clock as _,
    format::pack::pack_object,
    id::ChunkId,
    monitor::CollectMonitor,
    pipeline::testing::Stage,
    repo::testing::{self, Meddled},
    store::{
        Decorator, ObjectStore, Put,
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

/// A store whose answer to the next put is lost.
#[derive(Debug)]
struct Unclear {
    inner: Arc<MemStore>,
    next: AtomicBool,
}

#[async_trait]
impl Decorator for Unclear {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        let put = self.inner.put_if_absent(name, body).await;
        match self.next.swap(false, Ordering::Relaxed) {
            true => Err(Error::unavailable("the answer is lost")),
            false => put,
        }
    }
}

/// It is sent under another name; what has arrived under the first one is a segment like any other.
#[tokio::test]
async fn a_merged_segment_whose_answer_is_lost_is_sent_again() {
    let store = Arc::new(MemStore::new());
    let unclear = Arc::new(Unclear { inner: store.clone(), next: AtomicBool::new(false) });
    let repository = testing::create(unclear.clone()).await;
    let session = repository.begin(SessionKind::Backup, LineageId([1; 8]), Suite::Aes256Gcm).await.unwrap();
    let pack = session.new_pack();
    store.tamper(&pack_object(pack, 0), Some(Bytes::from_static(b"a pack")));
    session.put_segment(&[(ChunkId([3; 32]), pack)]).await.unwrap();
    for (is_lost, segments) in [(true, 2), (false, 1)] {
        unclear.next.store(is_lost, Ordering::Relaxed);
        repository.merge_whole_index(&Cancel::default()).await.unwrap();
        assert_eq!(repository.segment_names().await.unwrap().len(), segments);
    }
}

#[tokio::test]
async fn a_merge_that_is_asked_to_stop_stops() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    // What nobody can read goes with those that were merged.
    let name = format!("index/s-{}", RandomId([7; 16]));
    store.tamper(&name, Some(Bytes::from_static(b"rubbish")));
    let cancel = Cancel::default();
    cancel.cancel();
    let error = repository.merge_whole_index(&cancel).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(repository.exists(&name).await.unwrap());
    repository.merge_whole_index(&Cancel::default()).await.unwrap();
    assert!(!repository.exists(&name).await.unwrap());
}

/// Each segment is a request of every writer, and the rows of all are in the memory of every writer.
#[tokio::test]
async fn segments_are_merged_where_many_are_small_or_all_are_too_long() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let rows_max = INDEX_ROWS_MAX as u64 + INDEX_ROWS_MAX as u64 / 4;
    let too_long = (rows_max + 1) * 18;
    let half = SEGMENT_ROWS as u64 * 9;
    for (count, size, is_merged) in [
        (8, 1, false),
        (9, 1, true),
        (9, half - 1, true),
        (9, half, false),
        (1, too_long - 1, false),
        (1, too_long, true),
        (2, too_long / 2, true),
    ] {
        // What nobody can read goes with those that were merged, and how long it is, is the store's word.
        let name = |number| segment_name(RandomId([number; 16]));
        let segments: Vec<Listed> =
            (0..count).map(|number| Listed { name: name(number), size, modified: None }).collect();
        segments.iter().for_each(|segment| store.tamper(&segment.name, Some("rubbish".into())));
        repository.merge_index(&segments, |_| true, &Cancel::default()).await.unwrap();
        let left = repository.segment_names().await.unwrap().len();
        assert_eq!(left, if is_merged { 0 } else { segments.len() }, "{count} of {size}");
        segments.iter().for_each(|segment| store.tamper(&segment.name, None));
    }
}

#[tokio::test]
async fn checkpoints_go_when_their_session_has_ended_or_nobody_can_use_them() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let repository = testing::create(store.clone()).await;
    let mut names = Vec::new();
    let mut sessions = Vec::new();
    for number in 0..3 {
        let session = testing::begin(&repository).await;
        session.put_checkpoint(&testing::checkpoint(number)).await.unwrap();
        names.push(testing::checkpoint(number).object(session.name()));
        sessions.push(session);
    }
    sessions[1].abandon("nobody needs it").await.unwrap();
    inner.tamper(&sessions[2].name().session_object(), None);
    let mut newer = records::encode_record(RecordKind::Checkpoint, b"");
    newer[4] += 1;
    inner.tamper("index/cx", Some("rubbish".into()));
    inner.tamper("index/cy", Some(newer.into()));
    let left = async || {
        repository.merge_index(&[], |_| true, &Cancel::default()).await.unwrap();
        let listed = list_all(inner.as_ref(), "index/").await.unwrap();
        listed.into_iter().map(|object| object.name).collect::<Vec<_>>()
    };
    store.fail_gets("index/", ErrorKind::Unavailable);
    assert_eq!(left().await.len(), 5, "what is not read stays");
    store.fail_gets("nothing", ErrorKind::Unavailable);
    assert_eq!(left().await, [names[0].clone()]);
    sessions[0].commit(&testing::snapshot(sessions[0].name(), Timestamp::UNIX_EPOCH)).await.unwrap();
    assert!(left().await.is_empty());
}

/// Rows are stored anew before the old ones go.
#[tokio::test]
async fn a_merge_that_cannot_be_stored_ends_and_leaves_what_there_was() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let calls = Arc::new(RecordStore::new(store.clone()));
    let (repository, clock) = testing::create_asleep(calls.clone()).await;
    let session = testing::begin(&repository).await;
    let (there, gone) = (session.new_pack(), session.new_pack());
    inner.tamper(&pack_object(there, 0), Some(Bytes::from_static(b"a pack")));
    session.put_segment(&[(ChunkId([1; 32]), there), (ChunkId([2; 32]), there)]).await.unwrap();
    session.put_segment(&[(ChunkId([3; 32]), there), (ChunkId([4; 32]), gone)]).await.unwrap();
    let before = repository.segment_names().await.unwrap();
    for (kind, sent, seconds) in [(ErrorKind::NoSpace, 1, 0.0), (ErrorKind::Unavailable, 8, 3.5)] {
        store.fail_puts("index/", kind);
        calls.take();
        assert_eq!(repository.merge_whole_index(&Cancel::default()).await.unwrap_err().kind(), kind);
        let puts = calls.take().into_iter().filter(|call| call.operation == Operation::Put);
        assert_eq!((puts.count(), clock.monotonic()), (sent, Duration::from_secs_f64(seconds)));
        assert_eq!(repository.segment_names().await.unwrap(), before);
    }
    store.fail_puts("nothing", ErrorKind::NoSpace);
    let bytes = before.iter().map(|segment| segment.size).sum();
    assert_eq!(repository.plan_index().await.unwrap(), IndexPlan { segments: 2, bytes, packs: 1 });
    let report = repository.merge_whole_index(&Cancel::default()).await.unwrap();
    assert_eq!(report, IndexReport { rows: 3, unreadable_packs: 0 });
    assert_eq!(repository.segment_names().await.unwrap().len(), 1);
    assert_eq!(repository.load_index(usize::MAX).await.unwrap().index.len(), 3);
    let mover = testing::open_as_mover(&repository, LineageId([1; 8])).await;
    let refused = mover.merge_whole_index(&Cancel::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_written_anew_from_the_packs_that_can_be_read() {
    let stage = Stage::new().await;
    let packs = testing::packs_of_one(&stage, 3).await;
    let chunks: Vec<_> = stage.frames().await.iter().map(|frame| frame.chunks[0].id).collect();
    let store = Arc::new(Meddled::new(Arc::clone(&stage.store)));
    let repository = testing::open(store.clone()).await.unwrap();
    let old = segment_name(RandomId([7; 16]));
    stage.store.tamper(&old, Some("rubbish".into()));
    let repair = async |cancel: &Cancel| {
        let monitor = CollectMonitor::default();
        let report = repository.repair_index(&monitor, cancel).await;
        let done = [&monitor.progress().entries, &monitor.progress().entries_expected].map(Progress::get);
        (report, monitor.problems(), done)
    };
    let cancel = Cancel::default();
    cancel.cancel();
    assert_eq!(repair(&cancel).await.0.unwrap_err().kind(), ErrorKind::Cancelled);
    store.fail_gets("packs/", ErrorKind::Unavailable);
    assert_eq!(repair(&Cancel::default()).await.0.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(repository.exists(&old).await.unwrap());

    store.fail_gets("nothing", ErrorKind::Unavailable);
    let damaged = pack_object(packs[0], 0);
    let body = stage.store.get(&damaged, ByteRange::All).await.unwrap();
    stage.store.tamper(&damaged, Some("rubbish".into()));
    let (report, problems, done) = repair(&Cancel::default()).await;
    assert_eq!(report.unwrap(), IndexReport { rows: 2, unreadable_packs: 1 });
    assert_eq!((problems.len(), done), (1, [3, 3]));
    assert_eq!(problems[0].what, format!("pack {}", packs[0]));
    assert!(!repository.exists(&old).await.unwrap());
    stage.store.tamper(&damaged, Some(body));
    let (report, problems, _) = repair(&Cancel::default()).await;
    assert_eq!((report.unwrap().rows, problems.len()), (3, 0));
    let index = repository.load_index(usize::MAX).await.unwrap().index;
    assert!(chunks.iter().all(|chunk| index.lookup(chunk).count() == 1));
}
