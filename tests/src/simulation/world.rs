//! The world as one client of it sees it: its store, its clock, its randomness.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use carrack_mover::{
    clock::{Clock, Entropy, World},
    error::{Error, Result},
    format::records::{RecordKind, decode_record},
    store::{ByteRange, Capabilities, ObjectStore, Page, Put},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    model::Model,
    net::{Net, Reply, Request, Who},
    rng::Rng,
};

/// When all simulations begin: behind every time that a real file can have.
pub const BEGINNING: i64 = 4_000_000_000;
/// How wrong a client's clock may be.
const SKEW_SECONDS: u64 = 3 * 3600;

/// The world of one client.
pub fn world(net: &Arc<Net>, seed: u64, client: usize) -> World {
    let mut rng = Rng::new(&[seed, 4, client as u64]);
    let ahead = i64::try_from(rng.below(2 * SKEW_SECONDS)).unwrap_or(0);
    let skew = ahead - i64::try_from(SKEW_SECONDS).unwrap_or(0);
    World {
        clock: Arc::new(SimClock { net: Arc::clone(net), client, skew }),
        entropy: Arc::new(SimEntropy { seed, client, drawn: Mutex::default() }),
    }
}

#[derive(Debug)]
struct SimClock {
    net: Arc<Net>,
    client: usize,
    skew: i64,
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        timestamp(self.net.now())
            .saturating_add(SignedDuration::from_secs(self.skew))
            .unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.net.now()
    }

    async fn sleep(&self, time: Duration) {
        self.net.sleep(self.client, time).await;
    }
}

/// The true time of a moment.
pub fn timestamp(since: Duration) -> Timestamp {
    let beginning = Timestamp::from_second(BEGINNING).unwrap_or(Timestamp::UNIX_EPOCH);
    beginning.saturating_add(since).unwrap_or(Timestamp::MAX)
}

/// Random bytes: of each length a sequence of its own, so that the names of sessions do not hang on how many packs
/// were named before.
#[derive(Debug)]
struct SimEntropy {
    seed: u64,
    client: usize,
    drawn: Mutex<HashMap<usize, u64>>,
}

impl Entropy for SimEntropy {
    fn fill(&self, buf: &mut [u8]) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let number = drawn.entry(buf.len()).or_default();
        *number += 1;
        Rng::new(&[self.seed, 5, self.client as u64, buf.len() as u64, *number]).fill(buf);
    }
}

/// The store as one process of a client reaches it.
#[derive(Debug)]
pub struct SimStore {
    /// The world.
    pub net: Arc<Net>,
    /// What must hold.
    pub model: Arc<Model>,
    /// The process.
    pub who: Who,
}

impl SimStore {
    async fn call(&self, request: Request) -> Result<Reply> {
        self.net.call(self.who, request).await
    }
}

fn mixed_up() -> Error {
    Error::internal("the simulated store answered something else")
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        if let Some(session) = name.strip_prefix("snapshots/b")
            && matches!(decode_record(name, &body), Ok((RecordKind::Snapshot, _)))
        {
            self.model.sent(&format!("b{session}"), self.who.client);
        }
        match self.call(Request::Put(name.to_owned(), body)).await? {
            Reply::Put(put) => Ok(put),
            _ => Err(mixed_up()),
        }
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        match self.call(Request::Get(name.to_owned(), range)).await? {
            Reply::Get(body) => Ok(body),
            _ => Err(mixed_up()),
        }
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        match self.call(Request::List(prefix.to_owned(), token)).await? {
            Reply::List(page) => Ok(page),
            _ => Err(mixed_up()),
        }
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        match self.call(Request::Delete(name.to_owned())).await? {
            Reply::Delete(was_there) => Ok(was_there),
            _ => Err(mixed_up()),
        }
    }

    fn describe(&self) -> String {
        "the simulated store".to_owned()
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { local: false, preferred_parallel_puts: 4, preferred_parallel_gets: 4 }
    }
}
