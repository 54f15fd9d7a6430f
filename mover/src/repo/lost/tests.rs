use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::{
    limits,
    repo::{
        PINNED,
        testing::{self, Fate, Meddled},
    },
    store::{ByteRange, ObjectStore as _, mem::MemStore, record::Operation},
};

/// A repository whose store can be harmed, and meddled with.
struct Scene {
    store: Arc<MemStore>,
    meddled: Arc<Meddled>,
    repository: Repository,
}

impl Scene {
    async fn new() -> Self {
        let store = Arc::new(MemStore::new());
        let meddled = Arc::new(Meddled::new(store.clone()));
        Self { repository: testing::create(meddled.clone()).await, store, meddled }
    }

    /// A snapshot whose session object is lost.
    async fn lost(&self) -> SessionName {
        let session = testing::commit(&self.repository).await;
        self.store.tamper(&session.session_object(), None);
        session
    }

    /// A repack of which the same is true.
    async fn lost_repack(&self) -> SessionName {
        let repack = testing::repack(&self.repository, &[testing::moved(1, 2)]).await;
        self.store.tamper(&repack.session_object(), None);
        repack
    }

    fn spoil(&self, session: SessionName) {
        self.store.tamper(&session.end_object(), Some("rubbish".into()));
    }

    async fn orphan(&self, session: SessionName) -> Orphan {
        self.repository.orphan(session).await.unwrap()
    }

    async fn survey(&self) -> Survey {
        self.repository.survey().await.unwrap()
    }
}

fn absent(number: u8) -> SessionName {
    testing::name(SessionKind::Backup, number)
}

#[tokio::test]
async fn an_end_without_a_session_is_lost_unless_something_explains_it() {
    let scene = Scene::new().await;
    let (store, repository) = (&scene.store, &scene.repository);
    assert_eq!(scene.orphan(absent(1)).await, Orphan::Explained, "there is none");
    let there = testing::commit(repository).await;
    assert_eq!(scene.orphan(there).await, Orphan::Back);
    let lost = scene.lost().await;
    assert_eq!(scene.orphan(lost).await, Orphan::Lost);
    repository.forget(&[lost]).await.unwrap();
    assert_eq!(scene.orphan(lost).await, Orphan::Explained);

    testing::put_fence(repository, store, absent(2), &testing::fenced(absent(2)));
    assert_eq!(scene.orphan(absent(2)).await, Orphan::Explained);
    testing::put_fence(repository, store, absent(3), &testing::fenced(absent(2)));
    assert_eq!(scene.orphan(absent(3)).await, Orphan::Unknown);
    scene.spoil(absent(4));
    assert_eq!(scene.orphan(absent(4)).await, Orphan::Unknown);

    let repack = scene.lost_repack().await;
    assert_eq!(scene.orphan(repack).await, Orphan::Lost);
    testing::condemn(repository, store, &[], &[repack]);
    assert_eq!(scene.orphan(repack).await, Orphan::Explained);
}

/// AGAIN: an end that goes while it is looked at says nothing, and neither does a store that does not answer.
#[tokio::test]
async fn an_end_that_changes_meanwhile_is_not_lost() {
    let scene = Scene::new().await;
    let lost = scene.lost().await;
    let (store, end) = (scene.store.clone(), lost.end_object());
    scene.meddled.meddle(move |operation, name| {
        if matches!(operation, Operation::Get(_)) && name.starts_with("sessions/") {
            store.tamper(&end, None);
        }
        Fate::Passes
    });
    assert_eq!(scene.orphan(lost).await, Orphan::Explained);

    let lost = scene.lost().await;
    let of_object = ByteRange::Last(limits::SHORT_RECORD_LIMIT + 1);
    scene.meddled.meddle(move |operation, name| match operation {
        Operation::Get(range) if range == of_object && name.starts_with("sessions/") => {
            Fate::Fails(ErrorKind::Unavailable)
        }
        _ => Fate::Passes,
    });
    let error = scene.repository.orphan(lost).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = scene.repository.may_go(lost).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_is_lost_is_told_from_what_came_back_and_what_nobody_can_open() {
    let scene = Scene::new().await;
    testing::commit(&scene.repository).await;
    let seems = scene.repository.lost_sessions(&scene.survey().await).await.unwrap();
    assert!(seems.found.is_empty() && !seems.has_changed && !seems.has_unknown, "{seems:?}");
    let lost = scene.lost().await;
    let seems = scene.repository.lost_sessions(&scene.survey().await).await.unwrap();
    assert!(!seems.has_changed && !seems.has_unknown, "{seems:?}");
    let [(name, error)] = &seems.found[..] else { panic!("{seems:?}") };
    let hint = error.hint().unwrap();
    assert_eq!((*name, error.kind()), (lost, ErrorKind::Corrupt));
    assert!(hint.contains("carrack repo revive") && hint.contains("carrack forget"), "{hint}");
    scene.repository.forget(&[lost]).await.unwrap();

    scene.spoil(absent(1));
    let seems = scene.repository.lost_sessions(&scene.survey().await).await.unwrap();
    assert!(seems.found.is_empty() && !seems.has_changed && seems.has_unknown, "{seems:?}");
    scene.store.tamper(&absent(1).end_object(), None);

    let back = testing::commit(&scene.repository).await;
    let object = scene.store.get(&back.session_object(), ByteRange::All).await.unwrap();
    scene.store.tamper(&back.session_object(), None);
    let survey = scene.survey().await;
    scene.store.tamper(&back.session_object(), Some(object));
    let seems = scene.repository.lost_sessions(&survey).await.unwrap();
    assert!(seems.found.is_empty() && seems.has_changed && !seems.has_unknown, "{seems:?}");
}

/// DOUBT, KEYS: rubbish is a repack only if there are keys by now that this process does not hold.
#[tokio::test]
async fn lost_repacks_are_those_that_open_or_may_with_keys_that_came_since() {
    let scene = Scene::new().await;
    let repacks = async |repository: &Repository| {
        let lost = repository.lost_repacks(&scene.survey().await).await.unwrap();
        lost.into_iter().map(|(session, _)| session).collect::<Vec<_>>()
    };
    scene.lost().await;
    assert!(repacks(&scene.repository).await.is_empty(), "a backup moves nothing");
    let unknown = testing::name(SessionKind::Repack, 1);
    scene.spoil(unknown);
    assert!(repacks(&scene.repository).await.is_empty());
    testing::add_key(&scene.repository).await;
    assert_eq!(repacks(&scene.repository).await, [unknown]);
    let opened = testing::open(scene.store.clone()).await.unwrap();
    assert!(repacks(&opened).await.is_empty());
    let lost = scene.lost_repack().await;
    assert_eq!(repacks(&opened).await, [lost]);
}

#[tokio::test]
async fn an_end_is_lost_where_somebody_says_that_it_was_there_and_nobody_took_it() {
    let scene = Scene::new().await;
    let (store, repository) = (&scene.store, &scene.repository);
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(testing::begin(repository).await.name());
    }
    let [child, marked, ended, forgotten, gone] = open[..] else { panic!("{open:?}") };
    let survey = scene.survey().await;
    let nobody = repository.lost_ends(&survey, BTreeSet::new(), &[], &[]).await.unwrap();
    assert!(nobody.found.is_empty() && !nobody.has_changed, "they may be at work: {nobody:?}");

    repository.forget(&[forgotten]).await.unwrap();
    store.tamper(&gone.session_object(), None);
    let (created, word) = (Timestamp::UNIX_EPOCH, PINNED.to_owned());
    let mark = Mark { session: marked, word, created };
    let committed = BTreeSet::from([child, forgotten, gone]);
    let lost = repository.lost_ends(&survey, committed, &[mark], &[]).await.unwrap();
    let found: BTreeSet<SessionName> = lost.found.iter().map(|(session, _)| *session).collect();
    assert_eq!((found, lost.has_changed), ([child, marked].into(), false));
    for (_, error) in &lost.found {
        assert!(error.to_string().contains("is missing"), "{error}");
        assert!(!error.hint().unwrap().contains("revive"), "there is no record to bring back");
    }
    testing::put_fence(repository, store, ended, &testing::fenced(ended));
    let lost = repository.lost_ends(&survey, [ended].into(), &[], &[]).await.unwrap();
    assert!(lost.found.is_empty() && lost.has_changed, "it is there by now: {lost:?}");
}

/// SHUTOUT: to C4 a session whose end is lost is one that never ended.
#[tokio::test]
async fn a_session_that_had_committed_and_was_shut_out_since_has_lost_its_end() {
    let scene = Scene::new().await;
    let mut shut_out = Vec::new();
    for _ in 0..4 {
        let session = testing::begin(&scene.repository).await.name();
        testing::put_fence(&scene.repository, &scene.store, session, &testing::fenced(session));
        shut_out.push(session);
    }
    // Of the second one nobody says that it had committed.
    let [parent, _, forgotten, gone] = shut_out[..] else { panic!("{shut_out:?}") };
    scene.repository.forget(&[forgotten]).await.unwrap();
    scene.store.tamper(&gone.session_object(), None);
    let committed = BTreeSet::from([parent, forgotten, gone]);
    let lost = scene.repository.lost_ends(&Survey::default(), committed, &[], &shut_out).await.unwrap();
    let found: Vec<SessionName> = lost.found.iter().map(|(session, _)| *session).collect();
    assert_eq!((found, lost.has_changed), (vec![parent], false));
    assert!(lost.found[0].1.to_string().contains("was shut out since"), "{lost:?}");
}

#[tokio::test]
async fn a_tombstone_stays_as_long_as_a_late_end_may_come_and_a_lost_end_stays() {
    let store = Arc::new(MemStore::new());
    let (repository, _) = testing::create_asleep(store.clone()).await;
    let day = 86_400;
    for (cleaned_up, age, expected) in [
        (true, 3 * day - 1, false),
        (true, 3 * day, true),
        (false, 3 * day, false),
        (false, 30 * day - 1, false),
        (false, 30 * day, true),
    ] {
        let created = Timestamp::from_second(-age).unwrap();
        let fence = Fenced { created, cleaned_up, ..testing::fenced(absent(1)) };
        testing::put_fence(&repository, &store, absent(1), &fence);
        assert_eq!(repository.may_go(absent(1)).await.unwrap(), expected, "{cleaned_up} {age}");
    }
    assert!(!repository.may_go(absent(2)).await.unwrap(), "there is none");
    let lost = testing::commit(&repository).await;
    store.tamper(&lost.session_object(), None);
    assert!(!repository.may_go(lost).await.unwrap());
    store.tamper(&absent(3).end_object(), Some("rubbish".into()));
    assert!(repository.may_go(absent(3)).await.unwrap());
    // KEYS: it may be no rubbish to others.
    testing::add_key(&repository).await;
    assert_eq!(repository.may_go(absent(3)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(!repository.may_go(lost).await.unwrap());
}

#[tokio::test]
async fn who_misses_a_session_asks_whether_it_was_cleaned_up() {
    let scene = Scene::new().await;
    let repository = &scene.repository;
    let state = async |session| {
        let buried = repository.is_buried(session).await.unwrap();
        let tombstone = repository.has_tombstone(session).await.unwrap();
        (buried, tombstone, repository.vanished(session).await.unwrap())
    };
    assert_eq!(state(absent(1)).await, (true, false, true));
    let committed = testing::commit(repository).await;
    assert_eq!(state(committed).await, (false, false, true));
    repository.forget(&[committed]).await.unwrap();
    assert_eq!(state(committed).await, (false, false, false));
    testing::put_fence(repository, &scene.store, absent(2), &testing::fenced(absent(2)));
    assert_eq!(state(absent(2)).await, (true, true, false));
    testing::put_fence(repository, &scene.store, absent(3), &testing::fenced(absent(2)));
    assert_eq!(state(absent(3)).await, (false, false, true));
    // Who could have signed that it gave up is gone.
    let session = testing::begin(repository).await;
    session.abandon("nobody needs it").await.unwrap();
    scene.store.tamper(&session.name().session_object(), None);
    assert_eq!(state(session.name()).await, (true, true, false));
}
