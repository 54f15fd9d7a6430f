use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::{
    format::{
        frame::Suite,
        records::{PageRef, SIGNATURE_LENGTH},
    },
    keys::SigningKey,
    pipeline::testing::chunk_ending,
    reader::testing::noise,
    repo::{
        PINNED,
        testing::{self, Fate, Meddled},
    },
    secret::Key,
    store::{
        ObjectStore as _,
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

/// A session whose end is written by hand.
struct Hand {
    store: Arc<MemStore>,
    repository: Repository,
    session: SessionName,
    signing: SigningKey,
}

impl Hand {
    async fn new(kind: SessionKind) -> Self {
        let store = Arc::new(MemStore::new());
        let repository = testing::create(store.clone()).await;
        let lineage = repository.lineage("host", &[b"/data".to_vec()]);
        let session = SessionName { lineage, ..testing::name(kind, 1) };
        let signing = SigningKey::new(&Key::new([8; 32])).unwrap();
        testing::put_session(&store, session, &signing, Timestamp::UNIX_EPOCH);
        Self { store, repository, session, signing }
    }

    fn seal(&self, key: &Key, value: &impl serde::Serialize) -> Vec<u8> {
        let cipher = Cipher::new(Suite::Aes256Gcm, key);
        let plain = records::to_json(value).unwrap();
        codec::seal_object(&cipher, Domain::Record, self.session, 0, &plain).unwrap()
    }

    /// What an end is taken for that the session has signed, or whoever makes the signature.
    async fn read(&self, kind: RecordKind, sealed: &[u8], signature: Option<Vec<u8>>) -> End {
        let name = self.session.end_object();
        let signature = signature.unwrap_or_else(|| self.signing.sign(&name, sealed));
        let body = records::encode_record(kind, &[&signature[..], sealed].concat());
        self.store.tamper(&name, Some(body.into()));
        self.repository.end(self.session).await.unwrap().unwrap()
    }

    async fn void(&self, kind: RecordKind, sealed: &[u8], signature: Option<Vec<u8>>) -> String {
        match self.read(kind, sealed, signature).await {
            End::Void(problem) => problem,
            other => panic!("it is believed: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_end_of_a_backup_counts_if_its_session_wrote_it_and_speaks_of_its_source() {
    let hand = Hand::new(SessionKind::Backup).await;
    let (session, none) = (hand.session, || Some(vec![0; SIGNATURE_LENGTH]));
    let key = hand.repository.keys().session_metadata_key(0, session).unwrap();
    let snapshot = testing::snapshot(session, Timestamp::UNIX_EPOCH);
    let sealed = hand.seal(&key, &snapshot);
    assert!(matches!(hand.read(RecordKind::Snapshot, &sealed, None).await, End::Committed(_)));
    let not_own = format!("not signed with the key that {}", session.session_object());
    assert!(hand.void(RecordKind::Snapshot, &sealed, none()).await.contains(&not_own));
    let other = hand.seal(&key, &Snapshot { host: "other".to_owned(), ..snapshot });
    assert!(hand.void(RecordKind::Snapshot, &other, None).await.contains("that its session is not for"));

    let gave_up = records::to_json(&testing::fenced(session)).unwrap();
    let end = hand.read(RecordKind::Abandoned, &gave_up, None).await;
    assert!(matches!(end, End::Fenced { cleaned_up: false }), "{end:?}");
    assert!(hand.void(RecordKind::Abandoned, &gave_up, none()).await.contains(&not_own));
    let of_another = testing::fenced(testing::name(SessionKind::Backup, 2));
    let of_another = records::to_json(&of_another).unwrap();
    assert!(hand.void(RecordKind::Abandoned, &of_another, None).await.contains("ends another session"));
    // A session cannot shut itself out, and a backup moves nothing.
    let problem = hand.void(RecordKind::Fenced, &gave_up, None).await;
    assert!(problem.contains("not signed with the maintenance key"), "{problem}");
    let problem = hand.void(RecordKind::Relocation, &sealed, None).await;
    assert!(problem.contains("cannot end this session"), "{problem}");
}

#[tokio::test]
async fn the_end_of_a_repack_counts_if_maintenance_wrote_it() {
    let hand = Hand::new(SessionKind::Repack).await;
    let key = hand.repository.keys().session_index_key(0, hand.session).unwrap();
    let sealed = hand.seal(&key, &[testing::moved(1, 2)]);
    let signature = hand.repository.keys().sign_maintenance(&hand.session.end_object(), &sealed).unwrap();
    match hand.read(RecordKind::Relocation, &sealed, Some(signature.clone())).await {
        End::Relocated(moved) => assert_eq!(moved, [testing::moved(1, 2)]),
        other => panic!("{other:?}"),
    }
    let problem = hand.void(RecordKind::Relocation, &sealed, None).await;
    assert!(problem.contains("not signed with the maintenance key"), "{problem}");
    let problem = hand.void(RecordKind::Snapshot, &sealed, Some(signature)).await;
    assert!(problem.contains("cannot end this session"), "{problem}");
}

/// The session object may be damaged, or never have been one.
#[tokio::test]
async fn a_fence_counts_without_its_session_and_for_no_other() {
    let Hand { store, repository, session, signing } = Hand::new(SessionKind::Backup).await;
    store.tamper(&session.session_object(), None);
    let fence = Fenced { cleaned_up: true, ..testing::fenced(session) };
    testing::put_fence(&repository, &store, session, &fence);
    assert!(matches!(repository.end(session).await.unwrap(), Some(End::Fenced { cleaned_up: true })));
    let other = testing::name(SessionKind::Backup, 2);
    testing::put_fence(&repository, &store, session, &testing::fenced(other));
    assert!(matches!(repository.end(session).await.unwrap(), Some(End::Gone)));
    // An object that speaks of another session is not the one of this one.
    testing::put_session(&store, other, &signing, Timestamp::UNIX_EPOCH);
    let body = store.get(&other.session_object(), ByteRange::All).await.unwrap();
    store.tamper(&session.session_object(), Some(body));
    assert_eq!(repository.session_object(session).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let error = repository.end(session).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Corrupt && error.hint().unwrap().contains("carrack forget"),
        "{error}"
    );
}

#[tokio::test]
async fn a_snapshot_is_there_with_its_end_and_its_session_and_without_a_marker() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let (kept, lost, damaged) = (
        testing::commit(&repository).await,
        testing::commit(&repository).await,
        testing::commit(&repository).await,
    );
    let kind = async |session| repository.snapshot(session).await.unwrap_err().kind();
    store.tamper(&lost.session_object(), None);
    store.tamper(&damaged.end_object(), Some("rubbish".into()));
    assert_eq!(repository.snapshot(kept).await.unwrap().session, kept);
    assert_eq!(kind(lost).await, ErrorKind::NotFound);
    assert_eq!(kind(damaged).await, ErrorKind::Corrupt);
    assert_eq!(kind(testing::name(SessionKind::Backup, 1)).await, ErrorKind::NotFound);
    // A mover must not speak for another source than its own.
    let foreign = crate::pipeline::testing::session(&repository).await;
    foreign.commit(&testing::snapshot(foreign.name(), Timestamp::UNIX_EPOCH)).await.unwrap();
    assert_eq!(kind(foreign.name()).await, ErrorKind::Corrupt);

    assert_eq!(repository.visible(&kept.to_string()).await.unwrap(), [kept]);
    assert!(!repository.is_forgotten(kept).await.unwrap());
    repository.forget(&[kept]).await.unwrap();
    assert!(repository.is_forgotten(kept).await.unwrap());
    assert_eq!(kind(kept).await, ErrorKind::NotFound);
    assert_eq!(repository.visible(&kept.to_string()).await.unwrap(), []);
    assert_eq!(repository.session_names("snapshots/", "").await.unwrap().len(), 4);
    assert_eq!(repository.session_names("snapshots/", &kept.to_string()).await.unwrap(), [kept].into());
}

#[tokio::test]
async fn a_record_of_a_tree_that_cannot_be_is_damage_and_a_newer_one_is_none() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    let root = PageRef::from_chunk(&chunk_ending(1, 1, 10)).unwrap();
    let mut long = root.clone();
    long.place.stored = long.place.plain + 4097;
    let other = testing::name(SessionKind::Backup, 1);
    let model = testing::snapshot(other, Timestamp::UNIX_EPOCH);
    let deep = |depth| Snapshot { depth, root: Some(root.clone()), ..model.clone() };
    let cases = [
        (deep(limits::TREE_DEPTH), None),
        (deep(limits::TREE_DEPTH + 1), Some(ErrorKind::Corrupt)),
        (Snapshot { root: Some(long), ..model.clone() }, Some(ErrorKind::Corrupt)),
        (Snapshot { version: 2, ..model.clone() }, Some(ErrorKind::Invalid)),
        (Snapshot { grid: 1 << 16, ..model.clone() }, None),
        (Snapshot { grid: 1 << 20, ..model.clone() }, None),
        (Snapshot { grid: 1, ..model.clone() }, Some(ErrorKind::Corrupt)),
        (Snapshot { grid: (1 << 16) + 1, ..model.clone() }, Some(ErrorKind::Corrupt)),
        (Snapshot { grid: 1 << 31, ..model.clone() }, Some(ErrorKind::Corrupt)),
    ];
    for (snapshot, expected) in cases {
        let session = testing::begin(&repository).await;
        session.commit(&Snapshot { session: session.name(), ..snapshot }).await.unwrap();
        let read = repository.snapshot(session.name()).await;
        assert_eq!(read.err().map(|error| error.kind()), expected);
    }
    let session = testing::begin(&repository).await;
    session.commit(&model).await.unwrap();
    let error = repository.snapshot(session.name()).await.unwrap_err();
    assert!(error.to_string().contains("the record of another session"), "{error}");
}

/// Its other fields may be other ones, and only it cannot be read.
#[tokio::test]
async fn a_session_object_of_a_newer_version_is_no_damage() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let [whole, other] = [testing::commit(&repository).await, testing::commit(&repository).await];
    for (json, expected) in [
        (r#"{"version":2,"what":"only a later program knows"}"#, ErrorKind::Invalid),
        (r#"{"version":0,"session":""}"#, ErrorKind::Corrupt),
        (r#"{"session":""}"#, ErrorKind::Corrupt),
    ] {
        let name = other.session_object();
        store.tamper(&name, Some(records::encode_record(RecordKind::Session, json.as_bytes()).into()));
        let error = repository.session_object(other).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert_eq!(crate::format::pack::is_newer(&error), expected == ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&name), "{error}");
        assert_eq!(repository.snapshot(other).await.unwrap_err().kind(), expected);
        let list = repository.snapshots().await.unwrap();
        let visible: Vec<SessionName> = list.snapshots.iter().map(|snapshot| snapshot.session).collect();
        assert_eq!(visible, [whole]);
        assert_eq!(list.unreadable.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [other]);
    }
}

/// However many there are, one at a time is read whole.
#[tokio::test]
async fn a_long_record_is_read_in_two_steps() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let calls = Arc::new(RecordStore::new(store.clone()));
    let repository = testing::create(calls.clone()).await;
    let session = testing::begin(&repository).await;
    let change_id = Some(hex::encode(noise(1, 600_000)));
    let snapshot = Snapshot { change_id, ..testing::snapshot(session.name(), Timestamp::UNIX_EPOCH) };
    session.commit(&snapshot).await.unwrap();
    let stored = inner.get(&session.name().end_object(), ByteRange::All).await.unwrap().len() as u64;
    assert!(stored > 2 * SHORT_END_BYTES, "{stored}");
    calls.take();
    let end = repository.end(session.name()).await.unwrap();
    assert!(matches!(end, Some(End::Committed(read)) if *read == snapshot));
    let read = calls.take().into_iter().filter(|call| call.name.starts_with("snapshots/"));
    let lengths: Vec<u64> = read.map(|call| call.bytes).collect();
    assert_eq!(lengths, [SHORT_END_BYTES + 1, stored]);
    // Cleaned up between the two.
    store.meddle(|operation, name| match operation {
        Operation::Get(ByteRange::All) if name.starts_with("snapshots/") => Fate::Fails(ErrorKind::NotFound),
        _ => Fate::Passes,
    });
    assert!(repository.end(session.name()).await.unwrap().is_none());
}

#[tokio::test]
async fn marks_are_those_that_are_signed_for_the_session_of_their_name() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let (one, other) = (testing::name(SessionKind::Backup, 1), testing::name(SessionKind::Backup, 2));
    repository.mark_snapshot(one, PINNED).await.unwrap();
    repository.mark_snapshot(other, PINNED).await.unwrap();
    let (marks, problems) = repository.marks("marks/", &one.to_string()).await.unwrap();
    assert_eq!((marks.len(), marks[0].session, problems.len()), (1, one, 0));
    // A marker is no mark.
    repository.forget(&[one]).await.unwrap();
    assert_eq!(repository.marks("forgotten/", "").await.unwrap().0.len(), 1);
    let name = format!("marks/{other}.{PINNED}.{}", RandomId([5; 16]));
    testing::put_signed(&repository, &store, &name, RecordKind::Mark, &marks[0]);
    store.tamper("marks/x", Some("rubbish".into()));
    let long = usize::try_from(limits::SHORT_RECORD_LIMIT).unwrap() + 1;
    store.tamper("marks/y", Some(vec![0; long].into()));
    let (marks, problems) = repository.marks("marks/", "").await.unwrap();
    assert_eq!(marks.iter().map(|mark| mark.session).collect::<Vec<_>>(), [one, other]);
    let problems: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(problems.len(), 3);
    assert!(problems[0].contains("it speaks of another session"), "{problems:?}");
    assert!(problems[2].contains("longer than any record of its kind"), "{problems:?}");
}

/// V goes wrong where somebody takes for absent what is only not answered.
#[tokio::test]
async fn what_a_store_does_not_answer_is_neither_absent_nor_in_doubt() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    let (session, repack) =
        (testing::commit(&repository).await, testing::repack(&repository, &[testing::moved(1, 2)]).await);
    repository.forget(&[session]).await.unwrap();
    store.fail_gets("forgotten/", ErrorKind::NotFound);
    assert!(!repository.is_forgotten(session).await.unwrap());
    store.fail_gets("forgotten/", ErrorKind::Unavailable);
    assert_eq!(repository.is_forgotten(session).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(repository.snapshot(session).await.unwrap_err().kind(), ErrorKind::Unavailable);
    for prefix in ["snapshots/", "sessions/"] {
        store.fail_gets(prefix, ErrorKind::Unavailable);
        assert_eq!(repository.end(session).await.unwrap_err().kind(), ErrorKind::Unavailable, "{prefix}");
        let error = repository.relocations().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{prefix}");
    }
    store.fail_gets("sessions/", ErrorKind::NotFound);
    assert!(repository.session_object(repack).await.unwrap().is_none());
    store.fail_gets("snapshots/", ErrorKind::NotFound);
    assert!(repository.end(repack).await.unwrap().is_none());
}

#[tokio::test]
async fn repacks_that_cannot_be_read_or_believed_are_told_beside_the_others() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let mut repacks = Vec::new();
    for number in 1..5 {
        repacks.push(testing::repack(&repository, &[testing::moved(number, number + 100)]).await);
    }
    store.tamper(&repacks[1].end_object(), Some("rubbish".into()));
    let forged = [&[0; SIGNATURE_LENGTH][..], b"forged"].concat();
    let forged = records::encode_record(RecordKind::Relocation, &forged);
    store.tamper(&repacks[2].end_object(), Some(forged.into()));
    store.tamper(&repacks[3].session_object(), None);
    let (relocations, doubtful) = repository.relocations().await.unwrap();
    assert_eq!(relocations.sessions(), [repacks[0]]);
    let doubtful: BTreeMap<SessionName, ErrorKind> =
        doubtful.into_iter().map(|(name, error)| (name, error.kind())).collect();
    let expected =
        [(repacks[1], ErrorKind::Corrupt), (repacks[2], ErrorKind::Denied), (repacks[3], ErrorKind::Corrupt)];
    assert_eq!(doubtful, expected.into());
}

/// N1: whoever squats names, or a store that loses answers, costs attempts and nothing else.
#[tokio::test]
async fn a_signed_record_is_put_under_a_name_that_was_never_used() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let calls = Arc::new(RecordStore::new(store.clone()));
    let repository = testing::create(calls.clone()).await;
    let session = testing::name(SessionKind::Backup, 1);
    let (taken, mut count) = (inner.clone(), 0);
    store.meddle(move |operation, name| {
        count += u32::from(operation == Operation::Put);
        match (operation, count) {
            (Operation::Put, 1) => taken.tamper(name, Some("somebody else's".into())),
            (Operation::Put, 2) => return Fate::IsUnclear,
            _ => {}
        }
        Fate::Passes
    });
    let put = async || {
        calls.take();
        let put = repository.mark_snapshot(session, PINNED).await.map_err(|error| error.kind());
        let calls = calls.take().into_iter().filter(|call| call.operation == Operation::Put);
        let names: BTreeSet<String> = calls.map(|call| call.name).collect();
        (put, names.len())
    };
    assert_eq!(put().await, (Ok(()), 3));
    let (marks, problems) = repository.marks("marks/", "").await.unwrap();
    assert_eq!((marks.len(), problems.len()), (2, 1));
    store.fail_puts("marks/", ErrorKind::NoSpace);
    assert_eq!(put().await, (Err(ErrorKind::NoSpace), 1));
    store.fail_puts("marks/", ErrorKind::Unavailable);
    assert_eq!(put().await, (Err(ErrorKind::Unavailable), usize::from(limits::PACK_ATTEMPTS)));
}

#[test]
fn nobody_has_had_a_parent_of_another_source() {
    let own = testing::name(SessionKind::Backup, 1);
    let parent = testing::name(SessionKind::Backup, 2);
    let with = |parent| Snapshot { parent, ..testing::snapshot(own, Timestamp::UNIX_EPOCH) };
    assert_eq!(parent_of(&with(Some(parent))), Some(parent));
    assert_eq!(parent_of(&with(Some(SessionName { lineage: LineageId([2; 8]), ..parent }))), None);
    assert_eq!(parent_of(&with(None)), None);
}
