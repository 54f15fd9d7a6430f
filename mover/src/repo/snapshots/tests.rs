use std::sync::Arc;

use super::*;
use crate::{
    format::{
        frame::Suite,
        records::{self, RecordKind},
    },
    id::LineageId,
    keys::SigningKey,
    repo::{
        PINNED, VERIFIED,
        testing::{self, Meddled},
    },
    secret::Key,
    store::{
        mem::MemStore,
        record::{Operation, RecordStore},
    },
};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_filter_asks_for_one_host_one_list_of_tags_and_all_paths() {
    let snapshot = Snapshot {
        tags: words(&["nightly", "db"]),
        paths: words(&["/srv", "/etc"]),
        ..testing::snapshot(testing::name(SessionKind::Backup, 1), second(0))
    };
    let filter = |hosts: &[&str], tags: &[&str], paths: &[&str]| SnapshotFilter {
        hosts: words(hosts),
        tags: words(tags),
        paths: words(paths),
    };
    let cases = [
        (filter(&[], &[], &[]), true, ""),
        (filter(&["host"], &[], &[]), true, "host host"),
        (filter(&["other", "host"], &[], &[]), true, "host other or host"),
        (filter(&["other"], &[], &[]), false, "host other"),
        (filter(&[], &["nightly"], &[]), true, "tags nightly"),
        (filter(&[], &["db,nightly"], &[]), true, "tags db,nightly"),
        (filter(&[], &["db,weekly"], &[]), false, "tags db,weekly"),
        (filter(&[], &["weekly", "db"], &[]), true, "tags weekly or db"),
        (filter(&[], &[], &["/etc"]), true, "path /etc"),
        (filter(&[], &[], &["/etc", "/var"]), false, "path /etc and /var"),
        (filter(&["host"], &["db"], &["/etc", "/srv"]), true, "host host, tags db, path /etc and /srv"),
        (filter(&["host"], &["weekly"], &["/etc"]), false, "host host, tags weekly, path /etc"),
        (filter(&["other"], &["db"], &["/etc"]), false, "host other, tags db, path /etc"),
        (filter(&["host"], &["db"], &["/var"]), false, "host host, tags db, path /var"),
    ];
    for (filter, expected, words) in cases {
        assert_eq!((filter.matches(&snapshot), filter.to_string().as_str()), (expected, words));
        assert_eq!(filter.is_empty(), words.is_empty(), "{words}");
        let error = filter.no_match();
        assert_eq!((error.kind(), error.to_string().ends_with(words)), (ErrorKind::NotFound, true));
    }
}

#[test]
fn a_mark_is_of_one_snapshot_and_one_word() {
    let [one, other] = [1, 2].map(|number| testing::name(SessionKind::Backup, number));
    let mark = |session, word: &str| Mark { session, word: word.to_owned(), created: second(0) };
    let marks = vec![mark(one, PINNED), mark(other, VERIFIED)];
    let list = SnapshotList { marks, ..SnapshotList::default() };
    assert!(list.is_marked(one, PINNED) && list.is_marked(other, VERIFIED));
    assert!(!list.is_marked(one, VERIFIED) && !list.is_marked(other, PINNED));
}

async fn add(repository: &Repository, started: i64, host: &str) -> SessionName {
    let lineage = repository.lineage(host, &[b"/data".to_vec()]);
    let session = repository.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await.unwrap();
    let sessions = vec![session.key_info().clone()];
    let snapshot = testing::snapshot(session.name(), second(started));
    session.commit(&Snapshot { host: host.to_owned(), sessions, ..snapshot }).await.unwrap();
    session.name()
}

#[tokio::test]
async fn all_are_listed_and_those_that_cannot_be_read_are_named() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let (late, early) = (add(&repository, 20, "one").await, add(&repository, 10, "two").await);
    let list = repository.snapshots().await.unwrap();
    let starts: Vec<_> = list.snapshots.iter().map(|found| (found.session, found.sessions.len())).collect();
    assert_eq!(starts, [(early, 0), (late, 0)], "thousands of them fit into memory without their keys");
    assert!(list.unreadable.is_empty());

    let damaged = add(&repository, 30, "one").await;
    store.tamper(&damaged.end_object(), Some("rubbish".into()));
    let void = crate::pipeline::testing::session(&repository).await;
    void.commit(&testing::snapshot(void.name(), second(30))).await.unwrap();
    let lost = add(&repository, 30, "one").await;
    store.tamper(&lost.session_object(), None);
    let repacks = [
        testing::repack(&repository, &[testing::moved(1, 2)]).await,
        testing::repack(&repository, &[testing::moved(3, 4)]).await,
        testing::repack(&repository, &[testing::moved(5, 6)]).await,
    ];
    store.tamper(&repacks[1].end_object(), Some("rubbish".into()));
    // In the place of the third one, what a session that gave up would have had to sign.
    let forged = [&[0; records::SIGNATURE_LENGTH][..], b"{}"].concat();
    let forged = records::encode_record(RecordKind::Abandoned, &forged);
    store.tamper(&repacks[2].end_object(), Some(forged.into()));
    // Somebody's parent, whose end is lost.
    let parent = testing::begin(&repository).await;
    let child = testing::begin(&repository).await;
    let snapshot = testing::snapshot(child.name(), second(5));
    child.commit(&Snapshot { parent: Some(parent.name()), ..snapshot }).await.unwrap();
    let list = repository.snapshots().await.unwrap();
    assert_eq!(
        list.snapshots.iter().map(|found| found.session).collect::<Vec<_>>(),
        [child.name(), early, late]
    );
    let mut unreadable: Vec<SessionName> = list.unreadable.iter().map(|(name, _)| *name).collect();
    unreadable.sort_unstable();
    let mut expected = [damaged, void.name(), lost, repacks[1], repacks[2], parent.name()];
    expected.sort_unstable();
    assert_eq!(unreadable, expected);
    assert!(list.unreadable.iter().all(|(_, error)| error.kind() == ErrorKind::Corrupt), "{list:?}");
}

/// KEYS: what cannot be read may be signed with a key that came since. A mover concludes nothing from that.
#[tokio::test]
async fn nothing_is_called_unreadable_by_those_who_do_not_know_all_keys() {
    let store = Arc::new(Meddled::new(Arc::new(MemStore::new())));
    let repository = testing::create(store.clone()).await;
    let session = add(&repository, 10, "host").await;
    let mover = testing::open_as_mover(&repository, session.lineage).await;
    testing::add_key(&repository).await;
    assert_eq!(repository.snapshots().await.unwrap().snapshots.len(), 1);
    store.fail_gets("snapshots/", ErrorKind::Corrupt);
    assert_eq!(repository.snapshots().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(mover.snapshots().await.unwrap().unreadable.len(), 1);
    let opened = testing::open(store.clone()).await.unwrap();
    assert_eq!(opened.snapshots().await.unwrap().unreadable.len(), 1);
    // A store that does not answer is an error for everybody, whatever ended.
    store.fail_gets("snapshots/b", ErrorKind::Unavailable);
    assert_eq!(opened.snapshots().await.unwrap_err().kind(), ErrorKind::Unavailable);
    testing::repack(&opened, &[testing::moved(1, 2)]).await;
    store.fail_gets("snapshots/r", ErrorKind::Unavailable);
    assert_eq!(opened.snapshots().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_snapshot_is_found_by_the_beginning_of_its_id_if_no_other_begins_so() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    let mut names = Vec::new();
    for started in 0..20 {
        names.push(add(&repository, started, "host").await);
    }
    let any = SnapshotFilter::default();
    let none = SnapshotFilter { hosts: words(&["other"]), ..SnapshotFilter::default() };
    for digit in "0123456789abcdef".chars() {
        let digit = digit.to_string();
        let begin: Vec<SessionName> =
            names.iter().filter(|name| name.nonce.to_hex().starts_with(&digit)).copied().collect();
        let found = repository.find_snapshot(&digit, &any).await;
        let found = found.map(|snapshot| snapshot.session).map_err(|error| error.kind());
        let expected = match begin[..] {
            [] => Err(ErrorKind::NotFound),
            [name] => Ok(name),
            _ => Err(ErrorKind::Invalid),
        };
        assert_eq!(found, expected, "{digit}");
    }
    let whole = names[3].nonce.to_hex();
    assert_eq!(repository.find_snapshot("latest", &any).await.unwrap().session, names[19]);
    assert_eq!(repository.find_snapshot(&whole, &any).await.unwrap().session, names[3]);
    let error = repository.find_snapshot("", &any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = repository.find_snapshot(&whole, &none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().ends_with("of host other"), "{error}");
    let error = repository.find_snapshot("latest", &none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Of thousands of snapshots a list is long.
#[tokio::test]
async fn whoever_says_the_whole_name_needs_no_list() {
    let store = Arc::new(MemStore::new());
    let calls = Arc::new(RecordStore::new(store.clone()));
    let repository = testing::create(calls.clone()).await;
    let (one, other) = (add(&repository, 10, "one").await, add(&repository, 20, "two").await);
    let any = SnapshotFilter::default();
    calls.take();
    assert_eq!(repository.find_snapshot(&one.to_string(), &any).await.unwrap().session, one);
    let mut lists = calls.take().into_iter().filter(|call| call.operation == Operation::List);
    assert!(!lists.any(|call| call.name.starts_with("snapshots/")));
    let filter = SnapshotFilter { hosts: words(&["two"]), ..SnapshotFilter::default() };
    let error = repository.find_snapshot(&one.to_string(), &filter).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    repository.find_snapshot(&other.to_string(), &filter).await.unwrap();
    let repack = testing::repack(&repository, &[testing::moved(1, 2)]).await;
    let error = repository.find_snapshot(&repack.to_string(), &any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let none = testing::name(SessionKind::Backup, 7);
    let error = repository.find_snapshot(&none.to_string(), &any).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("carrack snapshots")), "{error}");
    store.tamper(&one.end_object(), Some("rubbish".into()));
    let error = repository.find_snapshot(&one.to_string(), &any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn the_latest_is_as_of_a_time_and_so_many_before_it() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    let any = SnapshotFilter::default();
    assert_eq!(repository.latest(&any, None, 0).await.unwrap_err().kind(), ErrorKind::NotFound);
    for started in [20, 30, 10] {
        add(&repository, started, "host").await;
    }
    let latest = async |as_of: Option<i64>, previous| {
        let found = repository.latest(&any, as_of.map(second), previous).await;
        found.map(|snapshot| snapshot.started.as_second()).map_err(|error| error.to_string())
    };
    for (as_of, previous, expected) in [
        (None, 0, 30),
        (None, 1, 20),
        (None, 2, 10),
        (Some(30), 0, 30),
        (Some(29), 0, 20),
        (Some(20), 0, 20),
        (Some(20), 1, 10),
        (Some(10), 0, 10),
    ] {
        assert_eq!(latest(as_of, previous).await, Ok(expected), "{as_of:?} {previous}");
    }
    let error = latest(None, 3).await.unwrap_err();
    assert!(error.contains("nothing 3 before the newest of 3 that match"), "{error}");
    let error = latest(Some(9), 0).await.unwrap_err();
    assert!(error.contains("nothing that was begun by 1970-01-01 00:00:09 UTC"), "{error}");
}

/// Something that cannot be read, and who asks for the latest.
struct Look {
    kind: SessionKind,
    /// Of the one that cannot be read; the latest that can has the first.
    lineage: u8,
    error: ErrorKind,
    /// When it was begun by its session object, if it has one.
    began: Option<i64>,
    as_of: Option<i64>,
    hosts: &'static [&'static str],
}

/// Of the same source as the latest that can be read, and begun later.
const USUAL: Look = Look {
    kind: SessionKind::Backup,
    lineage: 1,
    error: ErrorKind::Corrupt,
    began: Some(200),
    as_of: None,
    hosts: &[],
};

impl Look {
    /// Whether it may be newer than one that was begun at 100, or than none.
    async fn may_be_newer(
        &self,
        repository: &Repository,
        store: &MemStore,
        has_latest: bool,
    ) -> Result<bool> {
        let of = |lineage| LineageId([lineage; 8]);
        let name = SessionName { lineage: of(self.lineage), ..testing::name(self.kind, 1) };
        match self.began {
            Some(began) => {
                let signing = SigningKey::new(&Key::new([8; 32])).unwrap();
                testing::put_session(store, name, &signing, second(began));
            }
            None => store.tamper(&name.session_object(), None),
        }
        let unreadable = vec![(name, Error::new(self.error, "it cannot be read"))];
        let list = SnapshotList { unreadable, ..SnapshotList::default() };
        let latest = SessionName { lineage: of(1), ..testing::name(SessionKind::Backup, 2) };
        let latest = has_latest.then(|| testing::snapshot(latest, second(100)));
        let filter = SnapshotFilter { hosts: words(self.hosts), ..SnapshotFilter::default() };
        let as_of = self.as_of.map(second);
        let found = repository.perhaps_newer(&list, latest.as_ref(), &filter, as_of).await?;
        Ok(found.is_some_and(|(found, _)| found == name))
    }
}

/// A restore of the latest must not quietly take an older one.
#[tokio::test]
async fn what_cannot_be_read_may_be_the_latest_if_nothing_speaks_against_it() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let mover = testing::open_as_mover(&repository, LineageId([1; 8])).await;
    let denied = ErrorKind::Denied;
    for (number, look, by_all, by_mover) in [
        (1, USUAL, true, true),
        (2, Look { began: Some(101), ..USUAL }, true, true),
        (3, Look { began: Some(100), ..USUAL }, false, false),
        (4, Look { began: Some(50), ..USUAL }, false, false),
        (5, Look { began: None, ..USUAL }, true, true),
        (6, Look { as_of: Some(200), ..USUAL }, true, true),
        (7, Look { as_of: Some(199), ..USUAL }, false, false),
        (8, Look { began: None, as_of: Some(199), ..USUAL }, true, true),
        (9, Look { kind: SessionKind::Repack, ..USUAL }, false, false),
        (10, Look { hosts: &["host"], ..USUAL }, true, true),
        (11, Look { lineage: 2, ..USUAL }, true, true),
        (12, Look { lineage: 2, hosts: &["host"], ..USUAL }, false, false),
        (13, Look { error: denied, ..USUAL }, true, true),
        (14, Look { error: denied, lineage: 2, ..USUAL }, true, false),
    ] {
        for (handle, expected) in [(&repository, by_all), (&mover, by_mover)] {
            let newer = look.may_be_newer(handle, &store, true).await.unwrap();
            assert_eq!(newer, expected, "{number}");
        }
    }
    assert!(USUAL.may_be_newer(&repository, &store, false).await.unwrap());
    let chosen = Look { hosts: &["host"], ..USUAL };
    assert!(!chosen.may_be_newer(&repository, &store, false).await.unwrap());
}

#[tokio::test]
async fn a_session_object_that_cannot_be_read_says_nothing_of_its_time() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let repository = testing::create(store.clone()).await;
    let old = Look { began: Some(50), ..USUAL };
    assert!(!old.may_be_newer(&repository, &inner, true).await.unwrap());
    store.fail_gets("sessions/", ErrorKind::Corrupt);
    assert!(old.may_be_newer(&repository, &inner, true).await.unwrap());
    store.fail_gets("sessions/", ErrorKind::Unavailable);
    let error = old.may_be_newer(&repository, &inner, true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_latest_is_not_known_where_a_newer_one_cannot_be_read() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let readable = add(&repository, 10, "host").await;
    let damaged = add(&repository, 20, "host").await;
    store.tamper(&damaged.end_object(), Some("rubbish".into()));
    let error = repository.latest(&SnapshotFilter::default(), None, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(&damaged.to_string()), "{error}");
    assert!(error.hint().unwrap().contains(&readable.nonce.short()), "{:?}", error.hint());
    // As of a time before that one was begun, by the clock of whoever began it, nothing is unclear.
    let found = repository.latest(&SnapshotFilter::default(), Some(second(15)), 0).await.unwrap();
    assert_eq!(found.session, readable);
    repository.find_snapshot(&readable.to_string(), &SnapshotFilter::default()).await.unwrap();
}
