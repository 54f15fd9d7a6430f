use std::{collections::HashSet, path::Path, sync::Arc};

use super::*;
use crate::{
    backup::{BackupOptions, BackupSource, backup},
    cancel::Cancel,
    clock::World,
    monitor::CollectMonitor,
    reader::testing::noise,
    repo::{CreateOptions, Repository, Unlock},
    secret::Key,
    source::walk::WalkOptions,
    store::{ObjectStore, mem::MemStore, record::RecordStore},
};

async fn create() -> (Repository, Arc<RecordStore>) {
    let store = Arc::new(RecordStore::new(Arc::new(MemStore::new())));
    let unlock = Unlock::Secret(Key::new([5; 32]));
    let place: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let repository =
        Repository::create(place, World::system(), &unlock, &CreateOptions::default()).await.unwrap();
    (repository, store)
}

async fn back_up(repository: &Repository, root: &Path) -> SnapshotReader {
    let source = WalkOptions { roots: vec![root.to_owned()], ..WalkOptions::default() };
    let options = BackupOptions::new(BackupSource::Files(source));
    let monitor = Arc::new(CollectMonitor::default());
    let report = backup(repository, options, monitor, Cancel::default()).await.unwrap();
    SnapshotReader::new(repository.clone(), report.snapshot.unwrap())
}

/// The changes below two paths, as a line of letter and name each.
async fn changes(old: Tree<'_>, new: Tree<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut found = |change: Change| {
        let (letter, entry) = match &change {
            Change::Added(entry) => ('+', entry),
            Change::Removed(entry) => ('-', entry),
            Change::Kind(entry) => ('T', entry),
            Change::Modified(entry) => ('M', entry),
            Change::Attributes(entry) => ('U', entry),
        };
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap();
        lines.push(format!("{letter} {}", String::from_utf8_lossy(name)));
        Ok(())
    };
    diff(old, new, &mut found).await.unwrap();
    lines
}

fn below(root: &Path) -> Vec<u8> {
    root.to_str().unwrap().trim_start_matches('/').as_bytes().to_vec()
}

/// Without the directories, whose times change with what is in them.
fn of_files(mut lines: Vec<String>) -> Vec<String> {
    lines.retain(|line| line.contains("file"));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("source");
    std::fs::create_dir_all(root.join("deep/er")).unwrap();
    for name in ["file-gone", "file-kind", "file-mode", "file-same", "file-size", "deep/er/file-text"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("there", root.join("file-link")).unwrap();
    let (repository, _) = create().await;
    let old = back_up(&repository, &root).await;
    std::fs::remove_file(root.join("file-gone")).unwrap();
    std::fs::remove_file(root.join("file-kind")).unwrap();
    std::fs::create_dir(root.join("file-kind")).unwrap();
    std::fs::remove_file(root.join("file-link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("file-link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(root.join("file-mode"), mode).unwrap();
    std::fs::write(root.join("file-new"), "new").unwrap();
    std::fs::write(root.join("file-size"), "longer than before").unwrap();
    std::fs::write(root.join("deep/er/file-text"), "deep/er/file-TEXT").unwrap();
    let new = back_up(&repository, &root).await;
    let whole = |reader| Tree { reader, path: b"" };
    let told = of_files(changes(whole(&old), whole(&new)).await);
    let expected = [
        "- file-gone",
        "T file-kind",
        "M file-link",
        "U file-mode",
        "+ file-new",
        "M file-size",
        "M file-text",
    ];
    assert_eq!(told, expected);
    assert!(changes(whole(&old), whole(&old)).await.is_empty());
    let path = [below(&root), b"/deep".to_vec()].concat();
    let deep = |reader| Tree { reader, path: &path };
    assert_eq!(of_files(changes(deep(&old), deep(&new)).await), ["M file-text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn different_paths_are_compared_as_they_are_below_them() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("one/file-a", "a"), ("one/file-b", "b"), ("two/file-b", "b!"), ("two/file-c", "c")]
    {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let (repository, _) = create().await;
    let reader = back_up(&repository, folder.path()).await;
    let (one, two) = (below(&folder.path().join("one")), below(&folder.path().join("two")));
    let told = changes(Tree { reader: &reader, path: &one }, Tree { reader: &reader, path: &two }).await;
    assert_eq!(of_files(told), ["- file-a", "M file-b", "+ file-c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_follows_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("source");
    // Names that do not compress make many pages of few files.
    let name = |file: u64| {
        let text: String = noise(file, 100).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("file{text}")
    };
    for file in 0..6000 {
        let inner = root.join(format!("directory{:03}", file / 100));
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join(name(file)), "").unwrap();
    }
    let (repository, store) = create().await;
    let old = back_up(&repository, &root).await;
    std::fs::write(root.join("directory030").join(name(3050)), "changed").unwrap();
    let new = back_up(&repository, &root).await;
    store.take();
    let told = changes(Tree { reader: &old, path: b"" }, Tree { reader: &new, path: b"" }).await;
    assert_eq!(of_files(told), [format!("M {}", name(3050))]);
    let calls = store.take();
    let (old, new) = (pages(&old).await, pages(&new).await);
    let differ = old.symmetric_difference(&new).count();
    // How many differ follows the names, which say where a page ends: none before the change does but the root.
    assert!(calls.len() <= differ, "{} pages were read, {differ} differ", calls.len());
    assert!(old.intersection(&new).count() > 0, "{} pages, and all differ", old.len());
}

/// All pages of a tree.
async fn pages(reader: &SnapshotReader) -> HashSet<ChunkId> {
    let mut pages = HashSet::new();
    let mut pending: Vec<ChunkRef> = reader.snapshot().root.iter().map(|root| root.to_chunk()).collect();
    while let Some(chunk) = pending.pop() {
        if let Page::Inner(children) = &*reader.page(&chunk).await.unwrap() {
            pending.extend(children.iter().map(|child| child.page.clone()));
        }
        pages.insert(chunk.id);
    }
    pages
}
