//! A store that loses an object at any moment of a prune, and perhaps finds it again, costs no snapshot its data: what a
//! parent's record or a mark speaks of is not taken for what was to go (LOSS, AGAIN, SHUTOUT).

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    cancel::Cancel,
    clock::World,
    error::Result,
    format::session::SessionName,
    monitor::CollectMonitor,
    repo::{CreateOptions, PruneOptions, Repository},
    store::{ByteRange, Decorator, ObjectStore, Page, Put, list_all, mem::MemStore},
};
use carrack_tests::engine::{back_up, unlock};

/// How many requests later the object is there again; never, in the first case.
const BACK: [Option<u64>; 5] = [None, Some(1), Some(2), Some(4), Some(9)];

/// A store that loses one object before one of its calls.
#[derive(Debug)]
struct LosingStore {
    inner: Arc<MemStore>,
    victim: String,
    body: Bytes,
    lost_at: u64,
    back_at: Option<u64>,
    calls: AtomicU64,
}

impl LosingStore {
    fn call(&self) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call == self.lost_at {
            self.inner.tamper(&self.victim, None);
        }
        if Some(call) == self.back_at {
            self.inner.tamper(&self.victim, Some(self.body.clone()));
        }
    }
}

#[async_trait]
impl Decorator for LosingStore {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        self.call();
        self.inner.put_if_absent(name, body).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        self.call();
        self.inner.get(name, range).await
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        self.call();
        self.inner.list(prefix, token).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.call();
        self.inner.delete(name).await
    }
}

/// Plans and prunes, as a person does who wants it all at once.
async fn prune(repository: &Repository) -> Result<()> {
    let options = PruneOptions {
        fence_after: Duration::ZERO,
        wait: Duration::ZERO,
        max_unused: None,
        ..PruneOptions::default()
    };
    let (monitor, cancel) = (CollectMonitor::default(), Cancel::default());
    let plan = repository.plan_prune(&options, &monitor, &cancel).await?;
    repository.apply_prune(&plan, &monitor, &cancel).await.map(|_| ())
}

async fn packs(store: &MemStore) -> BTreeSet<String> {
    list_all(store, "packs/").await.expect("a listing").into_iter().map(|object| object.name).collect()
}

/// A forgotten snapshot, one that is a parent and alone needs a pack, and its child.
struct Scene {
    store: MemStore,
    parent: SessionName,
    child: SessionName,
    /// What the last two need.
    needed: BTreeSet<String>,
}

impl Scene {
    async fn new() -> Self {
        let store = Arc::new(MemStore::new());
        let repository =
            Repository::create(store.clone(), World::system(), &unlock(), &CreateOptions::default())
                .await
                .expect("a repository");
        let source = tempfile::tempdir().expect("a directory");
        let mut sessions = Vec::new();
        for name in ["forgotten", "parent", "child"] {
            let file = source.path().join(name);
            fs::write(&file, name.repeat(5000)).expect("writes");
            sessions.push(back_up(&repository, source.path()).await.expect("a backup"));
            fs::remove_file(&file).expect("removes");
        }
        repository.forget(&sessions[..1]).await.expect("forgets");
        let pruned = Arc::new(store.fork());
        let healthy = Repository::open(pruned.clone(), World::system(), &unlock()).await.expect("opens");
        prune(&healthy).await.expect("prunes");
        let needed = packs(&pruned).await;
        assert!(needed.len() < packs(&store).await.len(), "something is to go");
        Self { store: store.fork(), parent: sessions[1], child: sessions[2], needed }
    }

    /// Prunes twice while `victim` is lost before one call; gives how many calls there were.
    async fn lose(&self, victim: &str, lost_at: u64, back_at: Option<u64>) -> u64 {
        let case = format!("{victim} is lost before call {lost_at}, and back before call {back_at:?}");
        let inner = Arc::new(self.store.fork());
        let body = inner.get(victim, ByteRange::All).await.expect("it is there");
        let (victim_name, calls) = (victim.to_owned(), AtomicU64::new(0));
        let losing = LosingStore {
            inner: inner.clone(),
            victim: victim_name,
            body: body.clone(),
            lost_at,
            back_at,
            calls,
        };
        let losing = Arc::new(losing);
        let opened = Repository::open(losing.clone(), World::system(), &unlock()).await;
        if let Ok(repository) = opened {
            for _ in 0..2 {
                drop(prune(&repository).await);
            }
        }
        let left = packs(&inner).await;
        assert!(left.is_superset(&self.needed), "{case}: {:?} went", self.needed.difference(&left));

        // A person brings it back, over the fence that may be there, and all is as it was.
        inner.tamper(victim, Some(body));
        let repository = Repository::open(inner.clone(), World::system(), &unlock()).await.expect("opens");
        let pruned = prune(&repository).await;
        assert!(pruned.is_ok(), "{case}: {pruned:?}");
        let list = repository.snapshots().await.expect("a list");
        let found: BTreeSet<SessionName> = list.snapshots.iter().map(|snapshot| snapshot.session).collect();
        assert_eq!(found, BTreeSet::from([self.parent, self.child]), "{case}");
        assert!(list.unreadable.is_empty(), "{case}: {:?}", list.unreadable);
        assert!(packs(&inner).await.is_superset(&self.needed), "{case}: afterwards");
        losing.calls.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn an_object_that_is_lost_at_any_moment_of_a_prune_costs_no_data() {
    let scene = Scene::new().await;
    for victim in [scene.parent.end_object(), scene.parent.session_object()] {
        for back in BACK {
            let (mut lost_at, mut calls) = (0, 1);
            while lost_at < calls {
                calls = scene.lose(&victim, lost_at, back.map(|later| lost_at + later)).await;
                lost_at += 1;
            }
            assert!(lost_at > 30, "two prunes have more than {lost_at} calls");
        }
    }
}
