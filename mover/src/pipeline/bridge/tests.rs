use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use super::*;
use crate::{
    error::ErrorKind,
    pipeline::testing::{self, Stage, session},
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
