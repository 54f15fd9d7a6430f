use jiff::Timestamp;

use super::*;
use crate::{
    clock::{Clock as _, testing::Asleep},
    id::ChunkId,
    pipeline::testing::Stage,
    repo::testing::{self, Fate, Meddled},
    store::{
        ObjectStore as _,
        mem::MemStore,
        record::{Call, Operation, RecordStore},
    },
};

/// A store that is meddled with and tells what was asked of it, in a world where time passes in sleep only.
struct Scene {
    inner: Arc<MemStore>,
    store: Arc<Meddled>,
    calls: Arc<RecordStore>,
    repository: Repository,
    clock: Arc<Asleep>,
}

impl Scene {
    async fn new() -> Self {
        let inner = Arc::new(MemStore::new());
        let store = Arc::new(Meddled::new(inner.clone()));
        let calls = Arc::new(RecordStore::new(store.clone()));
        let (repository, clock) = testing::create_asleep(calls.clone()).await;
        Self { inner, store, calls, repository, clock }
    }

    async fn begin(&self) -> Result<Session> {
        self.repository.begin(SessionKind::Backup, LineageId([1; 8]), Suite::Aes256Gcm).await
    }

    /// Commits, and tells how that went, how often the end was sent, and how long it was slept meanwhile.
    async fn commit(&self, session: &Session) -> (Result<()>, usize, Duration) {
        let before = self.clock.monotonic();
        self.calls.take();
        let snapshot = testing::snapshot(session.name(), Timestamp::UNIX_EPOCH);
        let result = session.commit(&snapshot).await;
        (result, self.puts().len(), self.clock.monotonic() - before)
    }

    fn puts(&self) -> Vec<String> {
        let puts = self.calls.take().into_iter().filter(|call| call.operation == Operation::Put);
        puts.map(|call| call.name).collect()
    }
}

/// What nine attempts wait for together: 200 ms, twice as long each time, and no longer than 6.4 s.
const ALL_WAITS: Duration = Duration::from_millis(200 + 400 + 800 + 1600 + 3200 + 3 * 6400);

/// N1: a name is sent once, whatever the answer was.
#[tokio::test]
async fn a_session_begins_under_a_name_that_was_never_sent() {
    let scene = Scene::new().await;
    scene.calls.take();
    let session = scene.begin().await.unwrap();
    assert_eq!(scene.puts(), [session.name().session_object()]);
    assert_eq!(scene.clock.monotonic(), Duration::ZERO);
    scene.store.fail_puts("sessions/", ErrorKind::NoSpace);
    assert_eq!(scene.begin().await.unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(scene.puts().len(), 1);
    scene.store.fail_puts("sessions/", ErrorKind::Unavailable);
    assert_eq!(scene.begin().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(scene.clock.monotonic(), ALL_WAITS);
    let sent = scene.puts();
    assert_eq!((sent.len(), HashSet::<String>::from_iter(sent.iter().cloned()).len()), (9, 9));
    // One whose answer is lost is left to maintenance.
    let mut first = true;
    scene.store.meddle(move |operation, _| match operation {
        Operation::Put if std::mem::take(&mut first) => Fate::IsUnclear,
        _ => Fate::Passes,
    });
    let session = scene.begin().await.unwrap();
    let sent = scene.puts();
    let [unclear, own] = &sent[..] else { panic!("{sent:?}") };
    assert!(*own == session.name().session_object() && unclear != own);
    assert!(scene.inner.get(unclear, ByteRange::All).await.is_ok());
}

/// Everything that a record names is durable before the record is, and that before anybody is told.
#[tokio::test]
async fn an_end_is_sent_between_two_flushes_and_its_session_looked_at_last() {
    let scene = Scene::new().await;
    let session = scene.begin().await.unwrap();
    scene.calls.take();
    session.commit(&testing::snapshot(session.name(), Timestamp::UNIX_EPOCH)).await.unwrap();
    let calls: Vec<(Operation, String)> =
        scene.calls.take().into_iter().map(|Call { operation, name, .. }| (operation, name)).collect();
    let expected = [
        (Operation::Flush, String::new()),
        (Operation::Put, session.name().end_object()),
        (Operation::Flush, String::new()),
        (Operation::Get(ByteRange::All), session.name().session_object()),
    ];
    assert_eq!(calls, expected);
}

/// N2: the end may be sent again, and whoever finds his own there has committed.
#[tokio::test]
async fn an_end_is_sent_until_there_is_an_answer() {
    let scene = Scene::new().await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(scene.begin().await.unwrap());
    }
    let mut first = true;
    scene.store.meddle(move |operation, _| match operation {
        Operation::Put if std::mem::take(&mut first) => Fate::IsUnclear,
        _ => Fate::Passes,
    });
    let (result, sent, slept) = scene.commit(&sessions[0]).await;
    result.unwrap();
    assert_eq!((sent, slept), (2, Duration::from_millis(200)));
    scene.store.fail_puts("snapshots/", ErrorKind::Unavailable);
    let (result, sent, slept) = scene.commit(&sessions[1]).await;
    assert_eq!((result.unwrap_err().kind(), sent, slept), (ErrorKind::Unavailable, 9, ALL_WAITS));
    scene.store.fail_puts("snapshots/", ErrorKind::NoSpace);
    let (result, sent, slept) = scene.commit(&sessions[2]).await;
    assert_eq!((result.unwrap_err().kind(), sent, slept), (ErrorKind::NoSpace, 1, Duration::ZERO));
}

#[tokio::test]
async fn whoever_finds_another_end_or_no_session_has_not_committed() {
    let scene = Scene::new().await;
    let session = scene.begin().await.unwrap();
    let fence = testing::fenced(session.name());
    testing::put_fence(&scene.repository, &scene.inner, session.name(), &fence);
    let error = scene.commit(&session).await.0.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("was shut out"), "{error}");

    let session = scene.begin().await.unwrap();
    scene.inner.tamper(&session.name().end_object(), Some("rubbish".into()));
    let error = scene.commit(&session).await.0.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Conflict && error.to_string().contains("nobody can believe"),
        "{error}"
    );

    // W7.
    let session = scene.begin().await.unwrap();
    scene.inner.tamper(&session.name().session_object(), None);
    let error = scene.commit(&session).await.0.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("was shut out"), "{error}");
    let session = scene.begin().await.unwrap();
    scene.store.fail_gets("sessions/", ErrorKind::Unavailable);
    let error = scene.commit(&session).await.0.unwrap_err();
    assert!(error.to_string().contains("whether the snapshot counts is not known"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// Nobody needs its last word, and somebody may be waiting for the program to end.
#[tokio::test]
async fn who_gives_up_says_so_and_waits_ten_seconds_at_most() {
    let scene = Scene::new().await;
    let session = scene.begin().await.unwrap();
    session.abandon("nobody needs it").await.unwrap();
    let end = scene.repository.end(session.name()).await.unwrap();
    assert!(matches!(end, Some(End::Fenced { cleaned_up: false })), "{end:?}");
    assert_eq!(scene.clock.monotonic(), Duration::ZERO);
    let session = scene.begin().await.unwrap();
    scene.store.meddle(|operation, _| match operation {
        Operation::Put => Fate::Hangs,
        _ => Fate::Passes,
    });
    assert_eq!(session.abandon("nobody needs it").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(scene.clock.monotonic(), Duration::from_secs(10));
}

#[tokio::test]
async fn what_a_list_or_a_note_names_is_absent_and_the_way_through_it() {
    let scene = Scene::new().await;
    let (repository, inner) = (&scene.repository, &scene.inner);
    assert!(scene.begin().await.unwrap().all_usable_in_place());
    let pack = |number| PackId([number; 16]);
    testing::repack(repository, &[testing::moved(1, 2), testing::moved(3, 4)]).await;
    let condemned = testing::repack(repository, &[testing::moved(6, 7)]).await;
    assert!(!scene.begin().await.unwrap().all_usable_in_place());
    let list = testing::condemn(repository, inner, &[pack(4), pack(5)], &[condemned]);
    repository.note_damage(&[pack(9)].into()).await.unwrap();
    let session = scene.begin().await.unwrap();
    for (number, expected) in
        [(1, Some(2)), (2, Some(2)), (3, None), (4, None), (5, None), (6, None), (8, Some(8)), (9, None)]
    {
        let expected = expected.map(|number| (pack(number), 1));
        assert_eq!(session.usable(pack(number), 1), expected, "{number}");
    }
    assert_eq!((session.relocated(pack(3), 1), session.relocated(pack(8), 1)), (Some((pack(4), 1)), None));
    assert_eq!(session.usable(pack(1), 2), Some((pack(1), 2)), "another frame of it was not moved");
    assert_eq!(session.doubts().count(), 0);

    // A collector deletes by the final, whatever became of its list: then nothing of others is used.
    inner.tamper(&list, Some("rubbish".into()));
    let session = scene.begin().await.unwrap();
    assert_eq!(session.doubts().map(|doubt| doubt.what).collect::<Vec<_>>(), [format!("object {list}")]);
    assert_eq!((session.usable(pack(8), 1), session.usable(pack(1), 1)), (None, None));
    assert!(session.reusable(pack(8)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_list_is_obeyed_unless_it_is_gone() {
    let scene = Scene::new().await;
    let (repository, inner) = (&scene.repository, &scene.inner);
    let repack = testing::name(SessionKind::Repack, 1);
    let list = testing::condemn(repository, inner, &[PackId([4; 16])], &[repack]);
    inner.tamper("gc/x", Some("no list".into()));
    let absent = repository.absent().await.unwrap();
    assert_eq!((absent.packs.len(), absent.doubts.len()), (1, 0));
    assert!(absent.condemns(repack) && !absent.condemns(testing::name(SessionKind::Repack, 2)));
    // Signed or not: with a key that this process does not know yet it must be obeyed.
    let mut unsigned = inner.get(&list, ByteRange::All).await.unwrap().to_vec();
    unsigned[records::RECORD_HEADER] ^= 1;
    inner.tamper(&list, Some(unsigned.clone().into()));
    assert_eq!(repository.absent().await.unwrap().packs.len(), 1);
    let other = format!("gc/{}.condemned", RandomId([5; 16]));
    inner.tamper(&other, Some(unsigned.into()));
    let absent = repository.absent().await.unwrap();
    assert_eq!((absent.packs.len(), absent.doubts.len()), (1, 1));
    assert!(absent.doubts[0].0 == other && absent.doubts[0].1.contains("another collection"), "{absent:?}");

    scene.store.fail_gets("gc/", ErrorKind::NotFound);
    let absent = repository.absent().await.unwrap();
    assert!(absent.packs.is_empty() && absent.doubts.is_empty(), "{absent:?}");
    scene.store.fail_gets("gc/", ErrorKind::Unavailable);
    assert_eq!(repository.absent().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(scene.begin().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_list_may_name_what_it_names_and_anything_if_nobody_can_read_it() {
    let (pack, repack) = (PackId([1; 16]), testing::name(SessionKind::Repack, 1));
    let packs = |pack| BTreeSet::from([PackId([8; 16]), pack]);
    let (none, other) = (HashSet::new(), HashSet::from([testing::name(SessionKind::Repack, 2)]));
    let absent = Absent { packs: [pack].into(), relocations: [repack].into(), doubts: Vec::new() };
    assert!(absent.may_name(&packs(pack), &none));
    assert!(absent.may_name(&BTreeSet::new(), &[repack].into()));
    assert!(!absent.may_name(&packs(PackId([2; 16])), &other));
    assert!(!absent.may_name(&BTreeSet::new(), &none));
    let doubts = vec![("gc/x".to_owned(), "damaged".to_owned())];
    assert!(Absent { doubts, ..absent }.may_name(&BTreeSet::new(), &none));
}

/// W4: a pack is reusable if its footer was read within this session. Footers are long, and many.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_four_footers_are_kept_and_what_is_gone_is_asked_for_once() {
    let stage = Stage::new().await;
    let packs = testing::packs_of_one(&stage, 5).await;
    let store = Arc::new(Meddled::new(Arc::clone(&stage.store)));
    let calls = Arc::new(RecordStore::new(store.clone()));
    let repository = testing::open(calls.clone()).await.unwrap();
    let session = testing::begin(&repository).await;
    store.fail_gets("packs/", ErrorKind::Unavailable);
    assert_eq!(session.reusable(packs[0]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.meddle(|_, _| Fate::Passes);
    let ask = async |session: &Session, pack: PackId| {
        calls.take();
        (session.reusable(pack).await.unwrap().is_some(), calls.take().len())
    };
    for pack in &packs[..4] {
        assert_eq!(ask(&session, *pack).await, (true, 1));
    }
    assert_eq!(ask(&session, packs[0]).await, (true, 0));
    assert_eq!(ask(&session, packs[4]).await, (true, 1));
    assert_eq!(ask(&session, packs[0]).await, (true, 1), "the fifth took the place of the first");
    assert_eq!(ask(&session, packs[2]).await, (true, 0));
    let gone = PackId([9; 16]);
    assert_eq!(ask(&session, gone).await, (false, usize::from(limits::PACK_ATTEMPTS)));
    assert_eq!(ask(&session, gone).await, (false, 0));
    testing::condemn(&repository, &stage.store, &[packs[0]], &[]);
    let session = testing::begin(&repository).await;
    assert_eq!(ask(&session, packs[0]).await, (false, 0));
    assert_eq!(ask(&session, packs[1]).await, (true, 1));
}

#[tokio::test]
async fn a_session_carries_the_keys_that_it_has_seen_and_counts_each_domain() {
    let scene = Scene::new().await;
    let (session, other) = (scene.begin().await.unwrap(), scene.begin().await.unwrap());
    let domains = [Domain::Data, Domain::Data, Domain::Record, Domain::Data];
    assert_eq!(domains.map(|domain| session.next_counter(domain)), [0, 1, 0, 2]);
    let packs = [session.new_pack(), session.new_pack()];
    assert!(packs[0] != packs[1] && packs.iter().all(|pack| session.name().owns(*pack)));

    let both = HashSet::from([session.name(), other.name()]);
    assert_eq!(session.known_keys(&both).unwrap_err().kind(), ErrorKind::Internal);
    let claimed = SessionKeyInfo { generation: 7, ..session.key_info().clone() };
    session.learn_keys(&[claimed, other.key_info().clone()]);
    let mut expected = [session.key_info().clone(), other.key_info().clone()];
    expected.sort_by_key(|key| key.session);
    assert_eq!(session.known_keys(&both).unwrap(), expected, "nobody else knows its own key better");
}

/// A lost hint costs deduplication and nothing else.
#[tokio::test]
async fn a_hint_that_may_not_have_arrived_is_no_error_and_a_full_disk_is() {
    let scene = Scene::new().await;
    let session = scene.begin().await.unwrap();
    let rows = [(ChunkId([1; 32]), session.new_pack())];
    scene.store.fail_puts("index/", ErrorKind::Unavailable);
    session.put_segment(&rows).await.unwrap();
    session.put_checkpoint(&testing::checkpoint(10)).await.unwrap();
    scene.store.fail_puts("index/", ErrorKind::NoSpace);
    assert_eq!(session.put_segment(&rows).await.unwrap_err().kind(), ErrorKind::NoSpace);
    let written = session.put_checkpoint(&testing::checkpoint(20)).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::NoSpace);
}

/// What can be written can be read.
#[tokio::test]
async fn a_record_is_as_long_as_a_reader_takes_it_and_no_longer() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    for (length, expected) in
        [(limits::SNAPSHOT_LIMIT, None), (limits::SNAPSHOT_LIMIT + 1, Some(ErrorKind::Invalid))]
    {
        let session = testing::begin(&repository).await;
        let short = Snapshot {
            change_id: Some(String::new()),
            ..testing::snapshot(session.name(), Timestamp::UNIX_EPOCH)
        };
        let room = length - records::to_json(&short).unwrap().len();
        let snapshot = Snapshot { change_id: Some("a".repeat(room)), ..short };
        let committed = session.commit(&snapshot).await;
        assert_eq!(committed.err().map(|error| error.kind()), expected);
        let end = repository.end(session.name()).await.unwrap();
        assert_eq!(matches!(end, Some(End::Committed(_))), expected.is_none());
    }
}
