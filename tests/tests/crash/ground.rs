//! Where repositories lie: on a disk that can be torn out, or in a bucket.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use carrack_mover::{
    clock::World as Clock,
    store::{ByteRange, ObjectStore, list_all, open_plain},
};
use carrack_tests::{
    disk::{Disk, State},
    minio::MinioServer,
};

/// A place for repositories, as the program sees it after a crash.
pub(crate) trait Ground {
    /// The address of a repository.
    fn address(&self, repository: &str) -> String;
    /// What the program must know besides.
    fn environment(&self) -> Vec<(String, String)>;
    /// Whether what the program remembers of repositories lies here, too.
    fn has_memory(&self) -> bool;
    /// Everything that there is of a repository.
    fn names(&self, repository: &str) -> Vec<String>;
    /// The power fails, and comes back.
    fn lose_power(&mut self);
    /// Two days pass.
    fn wait_two_days(&mut self);
}

/// Where the program keeps what it has seen of repositories, beside these.
pub(crate) const MEMORY: &str = "memory";

/// A disk, mounted where the program finds it: repositories, and its memory of them.
#[derive(Debug)]
pub(crate) struct Local<'a> {
    disk: Option<Disk>,
    place: &'a Path,
}

impl<'a> Local<'a> {
    pub(crate) fn new(state: State, place: &'a Path) -> Self {
        Self { disk: Some(Disk::mount(state, place).expect("mounts")), place }
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it is mounted")
    }

    fn replace(&mut self, change: impl FnOnce(State) -> State) {
        let state = self.disk().state();
        self.disk = None;
        self.disk = Some(Disk::mount(change(state), self.place).expect("mounts"));
    }
}

impl Ground for Local<'_> {
    fn address(&self, repository: &str) -> String {
        self.place.join(repository).display().to_string()
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![("CARRACK_STATE_DIR".into(), self.place.join(MEMORY).display().to_string())]
    }

    fn has_memory(&self) -> bool {
        true
    }

    fn names(&self, repository: &str) -> Vec<String> {
        self.disk().state().paths(repository)
    }

    fn lose_power(&mut self) {
        self.replace(|state| state.after_power_loss(None));
    }

    fn wait_two_days(&mut self) {
        self.replace(|state| state.aged(Duration::from_secs(2 * 24 * 3600)));
    }
}

/// All objects below a prefix.
pub(crate) type Objects = BTreeMap<String, Bytes>;

/// A prefix in a bucket of a real server.
#[derive(Debug)]
pub(crate) struct Bucket<'a> {
    server: &'a MinioServer,
    url: String,
    prefix: String,
}

impl<'a> Bucket<'a> {
    /// A prefix with these objects, reached through `url`.
    pub(crate) async fn new(server: &'a MinioServer, url: String, prefix: String, objects: &Objects) -> Self {
        let bucket = Self { server, url, prefix };
        let store = bucket.store().await;
        for (name, body) in objects {
            store.put_if_absent(name, body.clone()).await.expect("puts");
        }
        bucket
    }

    /// The same past everything that lies in front of the server.
    pub(crate) fn directly(&self) -> Self {
        self.through(self.server.url())
    }

    /// The same, reached through something that lies in front of the server.
    pub(crate) fn through(&self, url: String) -> Self {
        Self { url, prefix: self.prefix.clone(), ..*self }
    }

    async fn store(&self) -> std::sync::Arc<dyn ObjectStore> {
        let place = self.server.repository(&self.prefix);
        open_plain(&place, &self.server.options(), &Clock::system()).await.expect("opens")
    }

    /// Everything in it.
    pub(crate) async fn objects(&self) -> Objects {
        let store = self.store().await;
        let mut objects = Objects::new();
        for listed in list_all(store.as_ref(), "").await.expect("lists") {
            let body = store.get(&listed.name, ByteRange::All).await.expect("gets");
            objects.insert(listed.name, body);
        }
        objects
    }
}

impl Ground for Bucket<'_> {
    fn address(&self, repository: &str) -> String {
        self.server.repository(&format!("{}/{repository}", self.prefix))
    }

    fn environment(&self) -> Vec<(String, String)> {
        let credentials = self.server.credentials_file().display().to_string();
        vec![
            ("CARRACK_S3_ENDPOINT".into(), self.url.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE".into(), credentials),
            ("AWS_REGION".into(), "us-east-1".into()),
        ]
    }

    fn has_memory(&self) -> bool {
        false
    }

    fn names(&self, repository: &str) -> Vec<String> {
        let objects =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.objects()));
        let below = format!("{repository}/");
        objects.keys().filter_map(|name| Some(name.strip_prefix(&below)?.to_owned())).collect()
    }

    // What the service has confirmed it keeps: that is its promise, and `service.rs` has what becomes of one that is broken.
    fn lose_power(&mut self) {}

    fn wait_two_days(&mut self) {}
}
