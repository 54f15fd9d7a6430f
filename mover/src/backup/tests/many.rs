//! Many backups of one source, and nobody who prunes.

use super::*;
use crate::store::record::{Operation, RecordStore};

/// What one backup asks of the store, by the folder: objects that are read, and listings.
async fn asked(place: &Place, number: u64) -> Vec<(&'static str, usize)> {
    let source = place.path("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("changed"), noise(number, 20_000)).unwrap();
    let calls = Arc::new(RecordStore::new(place.store.clone()));
    let repository = Place::open(calls.clone()).await;
    let monitor = Arc::new(CollectMonitor::default());
    let report =
        backup(&repository, place.options(files(&source)), monitor, Cancel::default()).await.unwrap();
    assert!(report.snapshot.unwrap().parent.is_some() || number == 0);
    let calls = calls.take();
    let count = |folder: &str| {
        let is_read = |operation| matches!(operation, Operation::Get(_) | Operation::List);
        calls.iter().filter(|call| call.name.starts_with(folder) && is_read(call.operation)).count()
    };
    ["snapshots/", "sessions/", "index/", "forgotten/"].map(|folder| (folder, count(folder))).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_asks_no_more_after_many_others() {
    let place = Place::new().await;
    let mut all = Vec::new();
    for number in 0..60 {
        all.push(asked(&place, number).await);
    }
    // Segments are joined by the dozen.
    let most = |range: std::ops::Range<usize>, folder: usize| {
        all[range].iter().map(|asked| asked[folder].1).max().unwrap()
    };
    for (folder, (name, _)) in all[0].iter().enumerate() {
        let (before, after) = (most(16..30, folder), most(46..60, folder));
        assert!(after <= before + 3, "{name}: {before}, then {after}");
    }
}
