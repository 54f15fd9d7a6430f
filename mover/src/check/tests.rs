use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    backup::{BackupOptions, BackupSource, backup},
    clock::World,
    monitor::CollectMonitor,
    reader::testing::noise,
    repo::{CreateOptions, Unlock},
    restore::{RestoreOptions, restore},
    secret::Key,
    source::walk::WalkOptions,
    store::FsStore,
};

async fn backed_up(folder: &Path) -> Repository {
    let source = folder.join("source");
    std::fs::create_dir_all(source.join("inner")).unwrap();
    for index in 0..50u64 {
        let length = if index == 0 { 3_000_000 } else { 50 + index as usize * 150 };
        std::fs::write(source.join(format!("inner/file{index}")), noise(index, length)).unwrap();
    }
    let store = Arc::new(FsStore::open(folder.join("repository"), World::system()));
    let unlock = Unlock::Secret(Key::new([5; 32]));
    let repository =
        Repository::create(store, World::system(), &unlock, &CreateOptions::default()).await.unwrap();
    let options = BackupOptions::new(files(source));
    let monitor = Arc::new(CollectMonitor::default());
    let report = backup(&repository, options, monitor, Cancel::default()).await.unwrap();
    assert!(report.snapshot.is_some());
    repository
}

async fn look(repository: &Repository, level: CheckLevel) -> CheckReport {
    let options = CheckOptions { level, memory_bytes: 64 << 20 };
    check(repository, options, Arc::new(CollectMonitor::default()), Cancel::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_repository_is_clean_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    for level in [CheckLevel::Structure, CheckLevel::Sizes, CheckLevel::Sample(50.0), CheckLevel::Data] {
        let report = look(&repository, level).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.snapshots, report.whole.len()), (1, 1));
    }
    let data = look(&repository, CheckLevel::Data).await;
    assert!(data.packs_read == data.packs && data.chunks > 50 && data.chunks_by_seal == 0, "{data:?}");
    let list = repository.snapshots().await.unwrap();
    let reader = SnapshotReader::new(repository, list.snapshots[0].clone());
    let target = folder.path().join("target");
    let options = RestoreOptions { verify: true, ..RestoreOptions::to(&target) };
    let monitor = Arc::new(CollectMonitor::default());
    let report = restore(&reader, &options, monitor, Cancel::default()).await.unwrap();
    assert_eq!((report.files_verified, report.problems), (50, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    let packs = crate::store::list_all(repository.store().as_ref(), "packs/").await.unwrap();
    let largest = packs.iter().max_by_key(|pack| pack.size).unwrap();
    let path = folder.path().join("repository").join(&largest.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(look(&repository, CheckLevel::Sizes).await.is_clean(), "sizes do not see a flipped bit");
    let report = look(&repository, CheckLevel::Data).await;
    assert_eq!(report.damages, 1, "{report:?}");
    assert_eq!(report.damage[0].object, largest.name);
    assert!(report.affected_files >= 1 && report.whole.is_empty() && report.damaged.len() == 1, "{report:?}");
    std::fs::remove_file(&path).unwrap();
    let report = look(&repository, CheckLevel::Structure).await;
    assert!(!report.is_clean() && report.damaged.len() == 1, "{report:?}");
}

fn files(root: std::path::PathBuf) -> BackupSource {
    BackupSource::Files(WalkOptions { roots: vec![root], ..WalkOptions::default() })
}
