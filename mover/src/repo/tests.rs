use super::{
    testing::{Fate, Meddled},
    *,
};
use crate::{
    cancel::Cancel,
    error::ErrorKind,
    format::{
        frame::Suite,
        pack::pack_object,
        session::{SessionKind, SessionName},
    },
    id::{PackId, RandomId},
    monitor::CollectMonitor,
    store::{list_all, mem::MemStore, record::Operation},
};

#[tokio::test]
async fn a_short_record_is_read_up_to_its_limit_and_not_beyond() {
    let (store, limit) = (MemStore::new(), usize::try_from(limits::SHORT_RECORD_LIMIT).unwrap());
    for (name, length) in [("sessions/full", limit), ("sessions/long", limit + 1)] {
        store.put_if_absent(name, vec![7; length].into()).await.unwrap();
    }
    assert_eq!(read_short(&store, "sessions/full").await.unwrap().len(), limit);
    let error = read_short(&store, "sessions/long").await.unwrap_err();
    assert!(error.to_string().contains("longer than any record of its kind"), "{error}");
}

async fn create(store: Arc<dyn ObjectStore>) -> Result<Repository> {
    Repository::create(store, World::system(), &testing::unlock(), &CreateOptions::default()).await
}

#[tokio::test]
async fn a_repository_is_made_in_an_empty_place_only() {
    let store = Arc::new(MemStore::new());
    assert_eq!(testing::open(store.clone()).await.unwrap_err().kind(), ErrorKind::NotFound);
    create(store.clone()).await.unwrap();
    assert_eq!(create(store.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(list_all(store.as_ref(), "keys/").await.unwrap().len(), 1);
    testing::open(store).await.unwrap();
    // What only a repository has says that there was one, and that something of it is lost.
    for name in ["sessions/a", "snapshots/a", "packs/a"] {
        let store = Arc::new(MemStore::new());
        store.tamper(name, Some("something".into()));
        for made in [create(store.clone()).await, testing::open(store.clone()).await] {
            let error = made.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            assert!(error.to_string().contains("has lost its object `format`"), "{error}");
        }
        assert_eq!(list_all(store.as_ref(), "").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_place_that_does_not_answer_is_not_taken_for_an_empty_one() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    store.fail_gets(FORMAT_OBJECT, ErrorKind::Unavailable);
    assert_eq!(create(store.clone()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(testing::open(store.clone()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.fail_lists("packs/", ErrorKind::Unavailable);
    assert_eq!(create(store.clone()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(testing::open(store.clone()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(list_all(inner.as_ref(), "").await.unwrap(), []);
    // A folder that is not there yet is another thing.
    store.fail_lists("sessions/", ErrorKind::NotFound);
    create(store).await.unwrap();
}

/// The key of the one who comes second opens nothing, and everybody would try it.
#[tokio::test]
async fn of_two_who_make_a_repository_at_once_one_leaves_nothing() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let other = inner.clone();
    store.meddle(move |operation, name| {
        if operation == Operation::Put && name == FORMAT_OBJECT {
            other.tamper(FORMAT_OBJECT, Some("somebody else's".into()));
        }
        Fate::Passes
    });
    assert_eq!(create(store).await.unwrap_err().kind(), ErrorKind::Conflict);
    let left: Vec<String> =
        list_all(inner.as_ref(), "").await.unwrap().into_iter().map(|listed| listed.name).collect();
    assert_eq!(left, [FORMAT_OBJECT]);
}

/// Puts the object `format` with something changed.
fn put_format(
    store: &MemStore,
    repository: &Repository,
    is_signed: bool,
    change: impl FnOnce(&mut RepositoryFormat),
) {
    let mut format = repository.format().clone();
    change(&mut format);
    let json = records::to_json(&format).unwrap();
    let mut body = match is_signed {
        true => repository.keys().sign_foundation(FORMAT_OBJECT, &json).unwrap(),
        false => vec![0; records::SIGNATURE_LENGTH],
    };
    body.extend_from_slice(&json);
    store.tamper(FORMAT_OBJECT, Some(records::encode_record(RecordKind::Format, &body).into()));
}

/// How `format` is changed.
type Change = fn(&mut RepositoryFormat);

#[tokio::test]
async fn what_is_newer_is_no_damage_and_what_is_changed_is() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let cases: [(bool, Change, ErrorKind, &str); 6] = [
        (true, |format| format.version = 2, ErrorKind::Invalid, "format version 2"),
        (false, |format| format.version = 2, ErrorKind::Invalid, "format version 2"),
        (true, |format| format.version = 0, ErrorKind::Corrupt, "version 0"),
        (false, |_| {}, ErrorKind::Corrupt, "memory: object format: its signature does not fit"),
        (true, |format| format.read_features = vec!["later".to_owned()], ErrorKind::Invalid, "`later`"),
        (true, |format| format.cut.minimum = 0, ErrorKind::Corrupt, "chunk sizes"),
    ];
    for (is_signed, change, kind, words) in cases {
        put_format(&store, &repository, is_signed, change);
        let error = testing::open(store.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    put_format(&store, &repository, true, |_| {});
    testing::open(store).await.unwrap();
}

#[tokio::test]
async fn who_does_not_know_what_writing_takes_reads_only() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let (session, lineage) = (testing::commit(&repository).await, LineageId([1; 8]));
    let mover = testing::open_as_mover(&repository, lineage).await;
    mover.check_maintenance_known().unwrap();
    assert_eq!(mover.check_maintainable().unwrap_err().kind(), ErrorKind::Denied);

    put_format(&store, &repository, true, |format| format.maintain_features = vec!["later".to_owned()]);
    let opened = testing::open(store.clone()).await.unwrap();
    opened.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await.unwrap();
    assert_eq!(opened.check_maintenance_known().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(opened.forget(&[session]).await.unwrap_err().kind(), ErrorKind::Invalid);

    put_format(&store, &repository, true, |format| format.write_features = vec!["later".to_owned()]);
    let opened = testing::open(store.clone()).await.unwrap();
    let before = list_all(store.as_ref(), "").await.unwrap();
    let begun = opened.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await;
    assert_eq!(begun.unwrap_err().kind(), ErrorKind::Invalid);
    let merged = opened.merge_whole_index(&Cancel::default()).await;
    assert_eq!(merged.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(list_all(store.as_ref(), "").await.unwrap(), before);
    opened.snapshot(session).await.unwrap();
}

#[tokio::test]
async fn sources_are_told_apart_by_host_and_paths() {
    let repository = testing::create(Arc::new(MemStore::new())).await;
    let of = |host: &str, paths: &[&str]| {
        let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        repository.lineage(host, &paths)
    };
    let sources =
        [of("a", &["/b"]), of("a/", &["b"]), of("b", &["/b"]), of("a", &["/b", "/c"]), of("a", &[])];
    assert_eq!(BTreeSet::from(sources).len(), 5);
    assert_eq!(of("a", &["/b"]), sources[0]);
}

/// Each of them may be megabytes long.
#[tokio::test]
async fn no_more_objects_are_read_at_once_than_there_is_memory_for() {
    let inner = Arc::new(MemStore::new());
    let store = Arc::new(Meddled::new(inner.clone()));
    let repository = testing::create(store.clone()).await;
    let sessions: Vec<SessionName> =
        (0..40).map(|number| testing::name(SessionKind::Backup, number)).collect();
    for (number, session) in (0..).zip(&sessions) {
        let id = RandomId([number; 16]);
        let names = [
            format!("damaged/{id}"),
            format!("keys/{id}"),
            format!("marks/{session}.pinned.{id}"),
            format!("index/s-{id}"),
            pack_object(PackId([number; 16]), 0),
        ];
        names.iter().for_each(|name| inner.tamper(name, Some("rubbish".into())));
    }
    store.take_most_gets();
    assert_eq!((repository.unproven().await.unwrap().len(), store.take_most_gets()), (120, 16));
    let files = KeyFiles::read(repository.store(), repository.format()).await.unwrap();
    assert_eq!((files.unproven.len(), store.take_most_gets()), (40, 16));
    let (marks, problems) = repository.marks("marks/", "").await.unwrap();
    assert_eq!((marks.len(), problems.len(), store.take_most_gets()), (0, 40, 16));
    assert_eq!((repository.ends_of(&sessions).await.unwrap().len(), store.take_most_gets()), (40, 16));
    assert_eq!((repository.unreadable_hints().await.unwrap().len(), store.take_most_gets()), (40, 4));
    let report = repository.repair_index(&CollectMonitor::default(), &Cancel::default()).await.unwrap();
    assert_eq!((report.unreadable_packs, store.take_most_gets()), (40, 16));
}
