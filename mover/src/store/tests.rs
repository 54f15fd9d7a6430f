use std::sync::Arc;

use jiff::Timestamp;

use super::faulty::{Faults, FaultyStore};
use super::mem::MemStore;
use super::{
    ObjectStore, Put, StoreOptions, conformance, decorate, for_each_up_to, is_decision, list_all, open_url,
    probe, valid_name,
};
use crate::clock::World;
use crate::error::Result;

#[test]
fn names_stay_inside_the_repository() {
    for name in ["format", "packs/ab/abcd-01", "gc/x.final", "a.b_c-d"] {
        assert!(valid_name(name), "{name}");
    }
    for name in ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "A", "a b", "ä", "a\\b", "a\0"] {
        assert!(!valid_name(name), "{name:?}");
    }
    assert!(valid_name(&"a".repeat(200)));
    assert!(!valid_name(&"a".repeat(201)));
}

#[test]
fn only_ends_and_finals_are_decisions() {
    for name in ["snapshots/b-01", "gc/0f.final"] {
        assert!(is_decision(name), "{name}");
    }
    for name in ["sessions/b-01", "gc/0f.condemned", "gc/.final", "gc/a/b.final", "packs/aa/final", "index/1"]
    {
        assert!(!is_decision(name), "{name}");
    }
}

#[tokio::test]
async fn memory_conforms() {
    let store: Arc<dyn ObjectStore> = Arc::new(MemStore::with_page_size(7));
    probe(&*store, &World::system()).await.unwrap();
    conformance::run(&store).await.unwrap();
}

#[tokio::test]
async fn decorated_memory_conforms() {
    let options = StoreOptions {
        limit_upload_bytes_per_second: Some(1 << 40),
        limit_download_bytes_per_second: Some(1 << 40),
        requests_per_second: Some(1e6),
        max_requests_in_flight: Some(3),
        ..StoreOptions::default()
    };
    let store = decorate(Arc::new(MemStore::new()), &options, &World::system());
    conformance::run(&store).await.unwrap();
}

/// A store that ignores conditions, as some gateways do.
#[derive(Debug)]
struct Careless(MemStore);

#[async_trait::async_trait]
impl super::Decorator for Careless {
    fn inner(&self) -> &dyn ObjectStore {
        &self.0
    }

    async fn put_if_absent(&self, name: &str, body: bytes::Bytes) -> Result<Put> {
        self.0.tamper(name, Some(body));
        Ok(Put::Created)
    }

    fn describe(&self) -> String {
        "careless".into()
    }
}

#[tokio::test]
async fn a_probe_finds_a_store_that_ignores_conditions() {
    let careless = Careless(MemStore::new());
    let err = probe(&careless, &World::system()).await.unwrap_err();
    assert!(err.to_string().contains("conditions are ignored"), "{err}");
    assert!(list_all(&careless, "").await.unwrap().is_empty(), "the probe object stays");
    let store: Arc<dyn ObjectStore> = Arc::new(careless);
    assert!(conformance::run(&store).await.is_err());
}

#[tokio::test]
async fn a_listing_has_so_many_objects_and_no_more() {
    let store = MemStore::with_page_size(2);
    for number in 0..9 {
        store.put_if_absent(&format!("packs/{number}"), "x".into()).await.unwrap();
    }
    for (most, fits) in [(9, true), (8, false)] {
        let mut told = 0;
        let listed = for_each_up_to(most, &store, "packs/", |_| told += 1).await;
        assert_eq!((listed.is_ok(), told), (fits, most), "{listed:?}");
        if let Err(error) = listed {
            assert!(error.to_string().contains("more than 8 objects"), "{error}");
            assert_eq!(error.kind(), crate::error::ErrorKind::Invalid, "nothing that is stored is damaged");
        }
    }
}

#[tokio::test]
async fn a_listing_with_a_lost_page_fails() {
    let memory = Arc::new(MemStore::with_page_size(2));
    for number in 0..9 {
        memory.put_if_absent(&format!("packs/{number}"), "x".into()).await.unwrap();
    }
    let faults = Faults { failed_page: 1.0, healthy_calls: 3, ..Faults::default() };
    let faulty = FaultyStore::new(memory, faults);
    assert!(list_all(&faulty, "packs/").await.is_err());
    faulty.set(Faults::default());
    assert_eq!(list_all(&faulty, "packs/").await.unwrap().len(), 9);
}

#[tokio::test]
async fn faults_repeat_from_their_seed_and_late_calls_arrive() {
    let run = |seed| async move {
        let memory = Arc::new(MemStore::new());
        memory.set_time(Timestamp::UNIX_EPOCH);
        let faults = Faults {
            seed,
            error_before: 0.2,
            lost_reply: 0.2,
            late: 0.2,
            torn_put: 0.2,
            ..Faults::default()
        };
        let faulty = FaultyStore::new(memory.clone(), faults);
        let mut outcomes = Vec::new();
        for number in 0..100 {
            let put = faulty.put_if_absent(&format!("packs/{number}"), "0123456789".into()).await;
            outcomes.push(put.is_ok());
        }
        let before = list_all(&*memory, "").await.unwrap();
        let late = faulty.settle_late().await.unwrap();
        let after = list_all(&*memory, "").await.unwrap();
        assert!(late > 0 && after.len() == before.len() + late);
        (outcomes, after)
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[tokio::test]
async fn urls_lead_to_stores_or_say_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    for url in [path.clone(), format!("file://{path}")] {
        let store = open_url(&url, &StoreOptions::default()).await.unwrap();
        assert_eq!(store.describe(), path);
    }
    for url in ["", "ftp://x", "file://relative", "s3://", "s3:///prefix"] {
        let err = open_url(url, &StoreOptions::default()).await.unwrap_err();
        assert_eq!(err.kind(), crate::error::ErrorKind::Invalid, "{url}");
    }
    let secret =
        StoreOptions { endpoint: Some("https://user:hunter2@host".into()), ..StoreOptions::default() };
    let err = open_url("s3://bucket", &secret).await.unwrap_err();
    assert!(!format!("{err:?}").contains("hunter2"));
}
