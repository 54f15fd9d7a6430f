use std::time::Instant;

use super::*;
use crate::store::mem::MemStore;

#[test]
fn the_long_run_rate_is_the_wanted_one() {
    let pacer = Pacer::new(Some(100.0));
    let millis = |begins, over| (Duration::from_millis(begins), Duration::from_millis(over));
    assert_eq!(pacer.book(Duration::ZERO, 50.0), millis(0, 500));
    assert_eq!(pacer.book(Duration::ZERO, 100.0), millis(500, 1500));
    assert_eq!(pacer.book(Duration::from_secs(1), 1.0), millis(500, 510));
}

#[test]
fn idle_time_is_not_saved_up() {
    let pacer = Pacer::new(Some(10.0));
    assert_eq!(pacer.book(Duration::from_secs(100), 10.0).0, Duration::ZERO);
    assert_eq!(pacer.book(Duration::from_secs(100), 10.0).0, Duration::from_secs(1));
}

#[test]
fn no_rate_means_no_wait() {
    let pacer = Pacer::new(None);
    assert_eq!(pacer.book(Duration::ZERO, 1e18).1, Duration::ZERO);
    assert_eq!(pacer.book(Duration::ZERO, 1e18).1, Duration::ZERO);
}

#[tokio::test]
async fn one_large_object_takes_its_time() {
    let store = Arc::new(MemStore::default());
    let body: Bytes = (0..300_000_u32).map(|byte| byte as u8).collect::<Vec<u8>>().into();
    let options = StoreOptions {
        // Two pieces.
        limit_download_bytes_per_second: Some(200_000),
        limit_upload_bytes_per_second: Some(2_000_000),
        ..StoreOptions::default()
    };
    let throttle = Throttle::new(store, &options, World::system());
    let begun = Instant::now();
    ObjectStore::put_if_absent(&throttle, "packs/one", body.clone()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(149), "{:?}", begun.elapsed());
    let sent = Instant::now();
    let range = ByteRange::Slice { offset: 10, length: 250_000 };
    assert_eq!(ObjectStore::get(&throttle, "packs/one", range).await.unwrap(), body.slice(10..250_010));
    let past = ByteRange::Slice { offset: 250_000, length: 100_000 };
    ObjectStore::get(&throttle, "packs/one", past).await.unwrap_err();
    assert!(sent.elapsed() >= Duration::from_millis(1249), "{:?}", sent.elapsed());
}
