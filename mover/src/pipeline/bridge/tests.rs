use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
};

use async_trait::async_trait;

use super::*;
use crate::{
    clock::World,
    error::ErrorKind,
    pipeline::testing::{self, Stage, session},
    repo::{CreateOptions, Repository, Unlock},
    secret::Key,
    store::{Decorator, ObjectStore, Put, mem::MemStore},
};

/// How long something that has to wait is watched waiting.
const A_WHILE: Duration = Duration::from_millis(200);
/// How long something that need not wait may take.
const LONG: Duration = Duration::from_secs(60);

async fn bridge(limit_bytes: u64) -> Arc<Bridge> {
    let stage = Stage::new().await;
    Arc::new(testing::bridge(session(&stage.repository).await, limit_bytes))
}

fn arrived(mut room: Room) {
    room.error = None;
}

/// Asks on a thread of its own, which may wait; it is about to ask when this comes back.
fn ask<T: Send + 'static>(
    bridge: &Arc<Bridge>,
    what: impl FnOnce(&Bridge) -> Result<T> + Send + 'static,
) -> Receiver<Result<T>> {
    let ((answer, answered), (start, started)) = (sync_channel(1), sync_channel(1));
    let bridge = Arc::clone(bridge);
    thread::spawn(move || {
        start.send(()).unwrap();
        answer.send(what(&bridge))
    });
    started.recv().unwrap();
    answered
}

fn reserve(bridge: &Arc<Bridge>, length: u64) -> Receiver<Result<Room>> {
    ask(bridge, move |bridge| bridge.reserve(length))
}

fn now<T>(answered: &Receiver<Result<T>>) -> Result<T> {
    answered.recv_timeout(LONG).expect("it waits for what is there")
}

#[track_caller]
fn waits<T>(answered: &Receiver<Result<T>>) {
    assert!(answered.recv_timeout(A_WHILE).is_err(), "it had to wait");
}

#[tokio::test]
async fn as_many_bytes_are_under_way_as_there_is_room_for() {
    let bridge = bridge(100).await;
    // A single pack may be larger than all the room.
    let large = now(&reserve(&bridge, 1000)).unwrap();
    let behind = reserve(&bridge, 1);
    waits(&behind);
    arrived(large);
    arrived(now(&behind).unwrap());

    let first = now(&reserve(&bridge, 60)).unwrap();
    let second = now(&reserve(&bridge, 40)).unwrap();
    let before = bridge.waited_ns();
    let third = reserve(&bridge, 1);
    waits(&third);
    arrived(second);
    let third = now(&third).unwrap();
    assert!(bridge.waited_ns() > before + 1);
    let fourth = reserve(&bridge, 40);
    waits(&fourth);
    arrived(first);
    arrived(third);
    arrived(now(&fourth).unwrap());
}

#[tokio::test]
async fn all_that_was_closed_before_is_waited_for_and_nothing_else() {
    let bridge = bridge(100).await;
    let settle = || ask(&bridge, Bridge::settle);
    assert_eq!(now(&settle()).unwrap(), 0);
    let [first, second] = [10, 20].map(|length| now(&reserve(&bridge, length)).unwrap());
    let settled = settle();
    waits(&settled);
    let third = now(&reserve(&bridge, 30)).unwrap();
    arrived(second);
    waits(&settled);
    arrived(first);
    assert_eq!(now(&settled).unwrap(), 3);
    arrived(third);
    assert_eq!(now(&settle()).unwrap(), 3);
}

#[tokio::test]
async fn the_first_error_comes_back_to_all_who_ask() {
    let bridge = bridge(100).await;
    let [mut first, second, third] = [30, 30, 30].map(|length| now(&reserve(&bridge, length)).unwrap());
    let (settled, behind) = (ask(&bridge, Bridge::settle), reserve(&bridge, 50));
    waits(&settled);
    waits(&behind);
    first.error = Some(Error::no_space("the disk is full").with_hint("make room"));
    drop(first);
    // Nobody sent it.
    drop(second);
    for error in
        [now(&settled).unwrap_err(), now(&behind).unwrap_err(), now(&reserve(&bridge, 1)).unwrap_err()]
    {
        assert_eq!((error.kind(), error.hint()), (ErrorKind::NoSpace, Some("make room")), "{error}");
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
    arrived(third);
}

#[tokio::test]
async fn a_pack_that_was_dropped_on_its_way_is_an_error() {
    let bridge = bridge(100).await;
    drop(now(&reserve(&bridge, 10)).unwrap());
    let error = bridge.settle().unwrap_err();
    assert_eq!((error.kind(), error.hint()), (ErrorKind::Internal, None), "{error}");
}

#[tokio::test]
async fn who_is_in_a_hurry_waits_no_longer() {
    let bridge = bridge(100).await;
    let room = now(&reserve(&bridge, 100)).unwrap();
    let (behind, settled) = (reserve(&bridge, 1), ask(&bridge, Bridge::settle));
    waits(&behind);
    bridge.hurry(LONG);
    waits(&behind);
    bridge.hurry(Duration::ZERO);
    for error in
        [now(&behind).unwrap_err(), now(&settled).unwrap_err(), now(&reserve(&bridge, 1)).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
    // What need not wait is let through.
    arrived(room);
    arrived(now(&reserve(&bridge, 100)).unwrap());
    assert_eq!(bridge.settle().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_sent_is_in_the_store_and_counted() {
    let bridge = bridge(100).await;
    let pack = bridge.session().new_pack();
    bridge.send(now(&reserve(&bridge, 10)).unwrap(), pack, Bytes::from_static(b"0123456789"));
    assert_eq!(now(&ask(&bridge, Bridge::settle)).unwrap(), 1);
    assert_eq!(Progress::get(&bridge.monitor.progress().bytes_stored), 10);
}

/// A store that never answers for a pack.
#[derive(Debug)]
struct Silent(MemStore);

#[async_trait]
impl Decorator for Silent {
    fn inner(&self) -> &dyn ObjectStore {
        &self.0
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        if name.starts_with("packs/") {
            std::future::pending::<()>().await;
        }
        self.0.put_if_absent(name, body).await
    }
}

/// The contents of a pack, of which somebody sees that they are gone.
struct Body {
    _held: SyncSender<()>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        b"0123456789"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_holds_no_packs() {
    let (unlock, options) = (Unlock::Secret(Key::new([5; 32])), CreateOptions::default());
    let store = Arc::new(Silent(MemStore::new()));
    let repository = Repository::create(store, World::system(), &unlock, &options).await.unwrap();
    let bridge = Arc::new(testing::bridge(session(&repository).await, 100));
    let [(room, body, gone), (late_room, late_body, late_gone)] = [(); 2].map(|()| {
        let (held, gone) = sync_channel::<()>(1);
        let room = now(&reserve(&bridge, 10)).unwrap();
        (room, Bytes::from_owner(Body { _held: held }), gone)
    });
    bridge.send(room, bridge.session().new_pack(), body);
    assert_eq!(gone.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
    bridge.abandon();
    // Closed before, by somebody who is late.
    bridge.send(late_room, bridge.session().new_pack(), late_body);
    for gone in [gone, late_gone] {
        assert_eq!(gone.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }
    assert_eq!(bridge.settle().unwrap_err().kind(), ErrorKind::Cancelled);
}
