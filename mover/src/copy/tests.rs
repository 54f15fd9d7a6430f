//! Copies between two repositories in memory.

use std::{
    fs,
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    clock::{Clock, World},
    error::ErrorKind,
    format::{
        entry::{Entry, Run},
        metadata::Kind,
    },
    monitor::CollectMonitor,
    reader::{testing::noise, walk::Part},
    repo::{CreateOptions, Unlock},
    source::walk::WalkOptions,
    store::{ObjectStore, list_all, mem::MemStore},
};

/// Two repositories with keys of their own, and a tree.
struct Pair {
    directory: tempfile::TempDir,
    stores: [Arc<MemStore>; 2],
    from: Repository,
    to: Repository,
}

fn write_old(path: &Path, contents: &[u8]) {
    fs::write(path, contents).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

fn unlock(key: u8) -> Unlock {
    Unlock::Secret(crate::secret::Key::new([key; 32]))
}

async fn new_repository(store: &Arc<MemStore>, key: u8) -> Repository {
    let store: Arc<dyn ObjectStore> = store.clone();
    Repository::create(store, World::system(), &unlock(key), &CreateOptions::default()).await.unwrap()
}

impl Pair {
    async fn new() -> Self {
        let stores = [Arc::new(MemStore::new()), Arc::new(MemStore::new())];
        let (from, to) = (new_repository(&stores[0], 1).await, new_repository(&stores[1], 2).await);
        Self { directory: tempfile::tempdir().unwrap(), stores, from, to }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Small and large files, holes in both, hard links, attributes, and what has no contents.
    fn tree(&self) -> PathBuf {
        let source = self.path("source \u{e4}");
        fs::create_dir_all(source.join("below/deep")).unwrap();
        for index in 0..400_u64 {
            write_old(
                &source.join(format!("small {index:03}")),
                &noise(index, (index * 97 % 20_000) as usize),
            );
        }
        write_old(&source.join("below/large"), &noise(1000, 13 << 20));
        fs::hard_link(source.join("below/large"), source.join("below/deep/same")).unwrap();
        symlink("nowhere", source.join("below/link")).unwrap();
        for (name, length, at) in [("few holes", 200_000, 70_000), ("many holes", 9 << 20, 5 << 20)] {
            let file = fs::File::create(source.join(name)).unwrap();
            file.set_len(length).unwrap();
            file.write_all_at(&noise(length, 50_000), at).unwrap();
            file.write_all_at(b"end", length - 3).unwrap();
        }
        fs::File::create(source.join("only a hole")).unwrap().set_len(100_000).unwrap();
        let xattr = rustix::fs::setxattr(
            source.join("small 000"),
            "user.comment",
            b"kept",
            rustix::fs::XattrFlags::empty(),
        );
        assert!(matches!(xattr, Ok(()) | Err(rustix::io::Errno::NOTSUP)));
        source
    }

    async fn back_up(&self, repository: &Repository, source: BackupSource) -> Snapshot {
        let options = BackupOptions {
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: vec!["tag".to_owned()],
            memory_bytes: 64 << 20,
            ..BackupOptions::new(source)
        };
        let monitor = Arc::new(CollectMonitor::default());
        backup(repository, options, monitor, Cancel::default()).await.unwrap().snapshot.unwrap()
    }

    async fn copy(&self, snapshot: &Snapshot) -> (BackupReport, Vec<String>) {
        let monitor = Arc::new(CollectMonitor::default());
        let options = CopyOptions { memory_bytes: 64 << 20, ..CopyOptions::default() };
        let report =
            copy(&self.from, &self.to, snapshot, &options, monitor.clone(), Cancel::default()).await.unwrap();
        let problems = monitor.problems().into_iter().map(|problem| problem.what).collect();
        (report, problems)
    }

    async fn plan(&self) -> CopyPlan {
        plan_of(&self.from, &self.to).await
    }
}

async fn plan_of(from: &Repository, to: &Repository) -> CopyPlan {
    let chosen = from.snapshots().await.unwrap().snapshots;
    plan(from, to, chosen, &to.snapshots().await.unwrap()).unwrap()
}

fn files(source: &Path) -> BackupSource {
    BackupSource::Files(WalkOptions { roots: vec![source.to_owned()], ..WalkOptions::default() })
}

/// An entry without places, its contents, and its holes.
type Whole = (Entry, Vec<u8>, Vec<(u64, u64)>);

/// Entries without places, with their contents and where their holes are.
async fn contents(repository: &Repository, snapshot: &Snapshot) -> Vec<Whole> {
    let reader = SnapshotReader::new(repository.clone(), snapshot.clone());
    let mut walk = reader.entries(Part::all()).unwrap();
    let mut all = Vec::new();
    while let Some(leaf) = walk.next_leaf().await.unwrap() {
        for mut entry in leaf {
            let (mut bytes, mut holes) = (Vec::new(), Vec::new());
            let mut runs = reader.runs(&std::mem::take(&mut entry.content));
            while let Some((_, piece)) = runs.next_piece().await.unwrap() {
                for run in piece {
                    match run {
                        Run::Hole(length) => {
                            holes.push((bytes.len() as u64, length));
                            bytes.resize(bytes.len() + length as usize, 0);
                        }
                        Run::Chunk(chunk) => bytes.extend_from_slice(&reader.chunk(&chunk).await.unwrap()),
                    }
                }
            }
            all.push((entry, bytes, holes));
        }
    }
    all
}

async fn assert_same(world: &Pair, original: &Snapshot, copied: &Snapshot) {
    let (then, now) = (contents(&world.from, original).await, contents(&world.to, copied).await);
    assert_eq!(then.len(), now.len());
    for (then, now) in then.iter().zip(&now) {
        let path = String::from_utf8_lossy(&then.0.path);
        assert_eq!((&then.0, &then.2), (&now.0, &now.2), "{path}");
        assert!(then.1 == now.1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_equal_and_says_where_it_comes_from() {
    let world = Pair::new().await;
    let source = world.tree();
    let original = world.back_up(&world.from, files(&source)).await;
    let (report, problems) = world.copy(&original).await;
    assert_eq!((report.problems, problems.len()), (0, 0));
    let copied = report.snapshot.unwrap();
    assert_same(&world, &original, &copied).await;
    let kept = Snapshot {
        session: original.session,
        parent: original.parent,
        root: original.root.clone(),
        depth: original.depth,
        sessions: original.sessions.clone(),
        statistics: original.statistics,
        copied_from: None,
        ..copied.clone()
    };
    assert_eq!(kept, original);
    let origin = CopiedFrom { repository: world.from.format().repository, session: original.session };
    assert_eq!(copied.copied_from, Some(origin));
    assert_eq!(world.to.snapshot(copied.session).await.unwrap(), copied);

    // Neither a second time, nor back, nor on and back.
    assert_eq!((world.plan().await.copy.len(), world.plan().await.present.len()), (0, 1));
    let back = plan_of(&world.to, &world.from).await;
    assert_eq!((back.copy.len(), back.present), (0, vec![copied.session]));
    let third = new_repository(&Arc::new(MemStore::new()), 3).await;
    let monitor = Arc::new(CollectMonitor::default());
    let on = copy(&world.to, &third, &copied, &CopyOptions::default(), monitor, Cancel::default()).await;
    assert_eq!(on.unwrap().snapshot.unwrap().copied_from, Some(origin));
    assert_eq!(plan_of(&third, &world.from).await.copy.len(), 0);
    assert_eq!(plan_of(&world.from, &third).await.copy.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_copy_reads_what_changed_and_no_more() {
    let world = Pair::new().await;
    let source = world.tree();
    // Younger times than that prove nothing.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let first = world.back_up(&world.from, files(&source)).await;
    write_old(&source.join("small 007"), b"another");
    let second = world.back_up(&world.from, files(&source)).await;
    let plan = world.plan().await;
    let order: Vec<SessionName> = plan.copy.iter().map(|snapshot| snapshot.session).collect();
    assert_eq!(order, [first.session, second.session]);
    let (first_copy, _) = world.copy(&first).await;
    let (report, _) = world.copy(&second).await;
    let copied = report.snapshot.unwrap();
    assert_eq!(copied.parent, Some(first_copy.snapshot.unwrap().session));
    assert_eq!(copied.statistics.bytes_read, 7, "{:?}", copied.statistics);
    assert_eq!(copied.statistics.files_changed, 1);
    assert_same(&world, &second, &copied).await;
}

/// A clock that is an hour behind: for whoever looks at it, all files are younger than now, however slow this machine is.
#[derive(Debug)]
struct Behind(World);

#[async_trait::async_trait]
impl Clock for Behind {
    fn now(&self) -> Timestamp {
        self.0.clock.now() - SignedDuration::from_hours(1)
    }

    fn monotonic(&self) -> Duration {
        self.0.clock.monotonic()
    }
}

/// A newer snapshot proves nothing of a file that was too young when the older one was made.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_is_compared_as_of_its_own_time() {
    let world = Pair::new().await;
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    let file = source.join("file");
    fs::write(&file, "one").unwrap();
    let behind = World { clock: Arc::new(Behind(World::system())), ..World::system() };
    let from = Repository::open(world.stores[0].clone(), behind, &unlock(1)).await.unwrap();
    let young = world.back_up(&from, files(&source)).await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let later = world.back_up(&world.from, files(&source)).await;
    world.copy(&later).await;
    let (report, _) = world.copy(&young).await;
    let copied = report.snapshot.unwrap();
    assert_eq!(copied.statistics.bytes_read, 3, "it could have changed within the same tick");
    assert_same(&world, &young, &copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_here_is_not_stored_again() {
    let world = Pair::new().await;
    let source = world.tree();
    world.back_up(&world.to, files(&source)).await;
    let original = world.back_up(&world.from, files(&source)).await;
    let (report, _) = world.copy(&original).await;
    let copied = report.snapshot.unwrap();
    assert_eq!(copied.statistics.chunks_new, 0, "{:?}", copied.statistics);
    assert_same(&world, &original, &copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_keeps_its_grid_and_its_holes() {
    let world = Pair::new().await;
    let image = world.path("image");
    let mut bytes = noise(5, (9 << 20) + 100);
    bytes[2 << 20..5 << 20].fill(0);
    write_old(&image, &bytes);
    let source = BackupSource::Block { path: image, changed: None, change_id: Some("state 1".to_owned()) };
    let original = world.back_up(&world.from, source.clone()).await;
    let (report, _) = world.copy(&original).await;
    let copied = report.snapshot.unwrap();
    assert_eq!((copied.grid, copied.change_id.as_deref()), (original.grid, Some("state 1")));
    assert!(copied.grid > 0);
    assert_same(&world, &original, &copied).await;
    let native = world.back_up(&world.to, source).await;
    assert_eq!(native.statistics.chunks_new, 0, "cut alike: {:?}", native.statistics);
    assert_eq!(native.parent, Some(copied.session));
}

/// Objects of packs with data, the largest first.
async fn data_packs(store: &MemStore) -> Vec<String> {
    let mut packs = list_all(store, "packs/").await.unwrap();
    packs.sort_by_key(|object| std::cmp::Reverse(object.size));
    packs.into_iter().map(|object| object.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_left_out_and_named() {
    for damage in [None, Some(Bytes::from_static(b"damaged"))] {
        let world = Pair::new().await;
        let source = world.tree();
        let first = world.back_up(&world.from, files(&source)).await;
        write_old(&source.join("small 001"), &noise(77, 5000));
        write_old(&source.join("below/another"), &noise(78, 3 << 20));
        let before = data_packs(&world.stores[0]).await;
        let second = world.back_up(&world.from, files(&source)).await;
        let data = data_packs(&world.stores[0]).await.into_iter().find(|name| !before.contains(name));
        world.stores[0].tamper(&data.unwrap(), damage);
        let (report, problems) = world.copy(&second).await;
        let copied = report.snapshot.unwrap();
        assert!(problems.iter().any(|what| what.ends_with("/small 001")), "{problems:?}");
        assert!(problems.iter().any(|what| what.ends_with("/below/another")), "{problems:?}");
        assert_eq!((report.problems, problems.len()), (2, 2), "{problems:?}");
        assert_eq!(copied.statistics.problems, 2);
        assert_eq!(copied.problems.len(), 2);
        let paths = |all: Vec<Whole>| -> Vec<Vec<u8>> {
            all.into_iter()
                .filter(|(entry, ..)| entry.kind == Kind::File)
                .map(|(entry, ..)| entry.path)
                .collect()
        };
        let left = paths(contents(&world.to, &copied).await);
        assert!(left.iter().all(|path| !path.ends_with(b"small 001") && !path.ends_with(b"another")));
        assert_eq!(left.len(), paths(contents(&world.from, &first).await).len() - 1);
        // A snapshot that was partial stays so, and copying it whole is no new problem.
        let third = new_repository(&Arc::new(MemStore::new()), 3).await;
        let monitor = Arc::new(CollectMonitor::default());
        let on = copy(&world.to, &third, &copied, &CopyOptions::default(), monitor, Cancel::default()).await;
        let on = on.unwrap();
        assert_eq!((on.problems, on.snapshot.unwrap().statistics.problems), (0, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_is_what_makes_no_sense() {
    let world = Pair::new().await;
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    let original = world.back_up(&world.from, files(&source)).await;
    let there = world.from.snapshots().await.unwrap();
    let error = plan(&world.from, &world.from, vec![original.clone()], &there).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    world.from.forget(&[original.session]).await.unwrap();
    let options = CopyOptions::default();
    let monitor = Arc::new(CollectMonitor::default());
    let gone = copy(&world.from, &world.to, &original, &options, monitor, Cancel::default()).await;
    let error = gone.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(world.to.snapshots().await.unwrap().snapshots.is_empty());
}
