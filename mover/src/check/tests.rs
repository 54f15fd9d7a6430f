use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    backup::{BackupOptions, BackupSource, backup},
    clock::World,
    format::{frame::ChunkRef, page::Page},
    monitor::CollectMonitor,
    pipeline::tree::name_says_so,
    reader::{SnapshotReader, testing::noise},
    repo::{CreateOptions, Unlock},
    restore::{RestoreOptions, restore},
    secret::Key,
    source::walk::WalkOptions,
    store::{Decorator, FsStore, ObjectStore},
};

async fn create(folder: &Path) -> Repository {
    let store = Arc::new(FsStore::open(folder.join("repository"), World::system()));
    let unlock = Unlock::Secret(Key::new([5; 32]));
    Repository::create(store, World::system(), &unlock, &CreateOptions::default()).await.unwrap()
}

async fn back_up(repository: &Repository, root: &Path, host: &str) -> SessionName {
    let source = WalkOptions { roots: vec![root.to_owned()], ..WalkOptions::default() };
    let options = BackupOptions { host: host.into(), ..BackupOptions::new(BackupSource::Files(source)) };
    let monitor = Arc::new(CollectMonitor::default());
    backup(repository, options, monitor, Cancel::default()).await.unwrap().snapshot.unwrap().session
}

async fn backed_up(folder: &Path) -> Repository {
    let source = folder.join("source");
    std::fs::create_dir_all(source.join("inner")).unwrap();
    for index in 0..50u64 {
        let length = if index == 0 { 3_000_000 } else { 50 + index as usize * 150 };
        std::fs::write(source.join(format!("inner/file{index}")), noise(index, length)).unwrap();
    }
    let repository = create(folder).await;
    back_up(&repository, &source, "one").await;
    repository
}

/// A name behind this one, and before others of its length, at which a leaf ends that has enough in it.
fn name_that_ends_a_leaf(directory: &Path, before: &str) -> String {
    let ends = |name: &String| {
        let path = directory.join(name);
        name_says_so(path.to_str().unwrap().trim_start_matches('/').as_bytes())
    };
    (0..).map(|number| format!("{before}-{number}")).find(ends).unwrap()
}

/// A repository with so many small files that their tree has several leaves, backed up twice with one change in the last
/// leaf. Directories on the way change as well, which are in the first one.
async fn twice(folder: &Path) -> (Repository, [SessionName; 2]) {
    let source = folder.join("source");
    std::fs::create_dir_all(&source).unwrap();
    for index in 0..3000u64 {
        let name = format!("file{index:04}");
        std::fs::write(source.join(&name), noise(index, 40)).unwrap();
        // The random name of the folder must not decide how many leaves there are: of five hundred files one ends a leaf,
        // this one or one shortly before it.
        if index % 500 == 499 {
            std::fs::write(source.join(name_that_ends_a_leaf(&source, &name)), "").unwrap();
        }
    }
    let repository = create(folder).await;
    let first = back_up(&repository, &source, "one").await;
    std::fs::write(source.join("file2999"), "changed").unwrap();
    let second = back_up(&repository, &source, "one").await;
    (repository, [first, second])
}

fn options(level: CheckLevel) -> CheckOptions {
    CheckOptions { level, memory_bytes: 64 << 20, threads: 2, only: None, mark: false }
}

async fn look(repository: &Repository, level: CheckLevel) -> CheckReport {
    look_with(repository, &options(level)).await
}

async fn look_with(repository: &Repository, options: &CheckOptions) -> CheckReport {
    check(repository, options, Arc::new(CollectMonitor::default()), Cancel::default()).await.unwrap()
}

fn flip(folder: &Path, object: &str, at: usize) {
    let path = folder.join("repository").join(object);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
}

async fn largest(repository: &Repository) -> crate::store::Listed {
    let packs = crate::store::list_all(repository.store().as_ref(), "packs/").await.unwrap();
    packs.into_iter().max_by_key(|pack| pack.size).unwrap()
}

async fn reader(repository: &Repository, session: SessionName) -> SnapshotReader {
    SnapshotReader::new(repository.clone(), repository.snapshot(session).await.unwrap())
}

/// The pages below the root.
async fn children(reader: &SnapshotReader) -> Vec<ChunkRef> {
    let root = reader.snapshot().root.as_ref().unwrap().to_chunk();
    match &*reader.page(&root).await.unwrap() {
        Page::Inner(children) => children.iter().map(|child| child.page.clone()).collect(),
        _ => panic!("the tree has one leaf only"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_repository_is_clean_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    for level in [CheckLevel::Structure, CheckLevel::Sizes, CheckLevel::Sample(50.0), CheckLevel::Data] {
        let report = look(&repository, level).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.snapshots, report.whole.len()), (1, 1));
        assert_eq!(report.sample.is_some(), matches!(level, CheckLevel::Sample(_)));
    }
    let data = look(&repository, CheckLevel::Data).await;
    assert!(data.packs_read == data.packs && data.chunks > 50 && data.chunks_by_seal == 0, "{data:?}");
    let list = repository.snapshots().await.unwrap();
    let reader = SnapshotReader::of(&repository, list.snapshots[0].session).await.unwrap();
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
    let pack = largest(&repository).await;
    flip(folder.path(), &pack.name, pack.size as usize / 2);
    assert!(look(&repository, CheckLevel::Sizes).await.is_clean(), "sizes do not see a flipped bit");
    let report = look(&repository, CheckLevel::Data).await;
    assert_eq!(report.damages, 1, "{report:?}");
    let damage = &report.damage[0];
    assert_eq!((damage.object.as_str(), damage.snapshots_touched), (pack.name.as_str(), 1));
    assert!(damage.files_touched >= 1 && damage.files[0].path.contains("inner/file"), "{damage:?}");
    assert!(report.whole.is_empty() && report.damaged.len() == 1, "{report:?}");
    let verdict = &report.verdicts[0];
    assert!(verdict.entries >= 52 && (1..51).contains(&verdict.entries_damaged), "{verdict:?}");
    std::fs::remove_file(folder.path().join("repository").join(&pack.name)).unwrap();
    let report = look(&repository, CheckLevel::Structure).await;
    assert!(!report.is_clean() && report.damaged.len() == 1, "{report:?}");
    assert_eq!(report.damage[0].files_touched, 50, "{report:?}");
    assert_eq!(report.damage[0].files.len(), TOUCHED_LISTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_page_is_named_for_every_snapshot_that_shares_it() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, sessions) = twice(folder.path()).await;
    let (first, second) = (reader(&repository, sessions[0]).await, reader(&repository, sessions[1]).await);
    let (old, new) = (children(&first).await, children(&second).await);
    let shared = old.iter().find(|page| new.iter().any(|other| other.id == page.id)).unwrap();
    let place = shared.frame.place().unwrap();
    let object = crate::format::pack::pack_object(place.pack, 0);
    flip(folder.path(), &object, place.offset as usize + 5);
    let report = look(&repository, CheckLevel::Structure).await;
    assert_eq!(report.damages, 1, "{report:?}");
    assert_eq!((report.damaged.len(), report.whole.len()), (2, 0), "{report:?}");
    let damage = &report.damage[0];
    assert_eq!((damage.object.as_str(), damage.snapshots_touched), (object.as_str(), 2));
    assert!(damage.files[0].to.as_ref().is_some_and(|to| to.contains("file")), "{damage:?}");
    for verdict in &report.verdicts {
        assert!(verdict.entries >= 3001, "{verdict:?}");
        assert!(verdict.entries_damaged > 0 && verdict.entries_damaged < verdict.entries, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_whole_sending_of_a_pack_serves() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    let pack = largest(&repository).await;
    let path = folder.path().join("repository").join(&pack.name);
    let again = path.with_file_name(format!("{}.1", path.file_name().unwrap().to_str().unwrap()));
    std::fs::copy(&path, &again).unwrap();
    let cut = std::fs::read(&path).unwrap()[..1000].to_vec();
    std::fs::write(&path, &cut).unwrap();
    for level in [CheckLevel::Structure, CheckLevel::Sizes, CheckLevel::Data] {
        let report = look(&repository, level).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.spoiled_copies, u64::from(level != CheckLevel::Structure), "{report:?}");
    }
    std::fs::write(&again, &cut).unwrap();
    let report = look(&repository, CheckLevel::Sizes).await;
    assert!(report.damages == 1 && report.damaged.len() == 1, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_footer_is_damage_that_touches_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    let pack = largest(&repository).await;
    flip(folder.path(), &pack.name, pack.size as usize - 70);
    for level in [CheckLevel::Sizes, CheckLevel::Data] {
        let report = look(&repository, level).await;
        assert!(report.damages == 1 && !report.is_clean(), "{report:?}");
        assert!(report.affected_files == 0 && report.whole.len() == 1, "{report:?}");
    }
    // Its data is read all the same, through what the snapshot says of it.
    flip(folder.path(), &pack.name, 1000);
    let report = look(&repository, CheckLevel::Data).await;
    assert!(report.affected_files > 0 && report.damaged.len() == 1, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_reads_only_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), noise(99, 100_000)).unwrap();
    let second = back_up(&repository, &other, "two").await;
    let pack = largest(&repository).await;
    std::fs::remove_file(folder.path().join("repository").join(&pack.name)).unwrap();
    let only = CheckOptions { only: Some(vec![second]), mark: true, ..options(CheckLevel::Data) };
    let report = look_with(&repository, &only).await;
    assert!(report.is_clean() && report.snapshots == 1 && report.marked == 1, "{report:?}");
    assert!(report.packs_read < report.packs && report.bytes_read < 200_000, "{report:?}");
    let all = CheckOptions { mark: true, ..options(CheckLevel::Data) };
    let report = look_with(&repository, &all).await;
    assert_eq!((report.whole.clone(), report.damaged.len()), (vec![second], 1), "{report:?}");
    assert_eq!(report.marked, 0, "it has its mark already");
}

/// A store that keeps the marks of one snapshot.
#[derive(Debug)]
struct Keeps {
    inner: Arc<dyn ObjectStore>,
    marks_of: SessionName,
}

#[async_trait::async_trait]
impl Decorator for Keeps {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        if name.starts_with(&format!("marks/{}.", self.marks_of)) {
            return Err(Error::denied("this one stays"));
        }
        self.inner.delete(name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_cannot_be_taken_off_is_named_and_the_others_go() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, [first, second]) = twice(folder.path()).await;
    let marking = CheckOptions { mark: true, ..options(CheckLevel::Data) };
    let report = look_with(&repository, &marking).await;
    assert_eq!((report.marked, report.mark_problem, report.unmark_problem), (2, None, None));
    let packs = crate::store::list_all(repository.store().as_ref(), "packs/").await.unwrap();
    packs
        .iter()
        .for_each(|pack| std::fs::remove_file(folder.path().join("repository").join(&pack.name)).unwrap());
    for marks_of in [first, second] {
        for session in [first, second] {
            repository.mark_snapshot(session, VERIFIED).await.unwrap();
        }
        let store = Arc::new(Keeps { inner: Arc::clone(repository.store()), marks_of });
        let unlock = Unlock::Secret(Key::new([5; 32]));
        let kept = Repository::open(store, World::system(), &unlock).await.unwrap();
        let report = look_with(&kept, &marking).await;
        let problem = report.unmark_problem.as_deref().unwrap_or_default();
        assert!(problem.contains(&marks_of.nonce.short()) && problem.contains("this one stays"), "{problem}");
        let left: BTreeSet<_> =
            repository.snapshots().await.unwrap().marks.into_iter().map(|mark| mark.session).collect();
        assert_eq!(left, BTreeSet::from([marks_of]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn little_memory_means_more_passes_and_the_same_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let repository = create(folder.path()).await;
    for part in 0..4u64 {
        let source = folder.path().join(format!("source{part}"));
        std::fs::create_dir(&source).unwrap();
        for index in 0..300 {
            std::fs::write(source.join(format!("file{index}")), noise(part * 1000 + index, 100)).unwrap();
        }
        back_up(&repository, &source, "one").await;
    }
    let plenty = look(&repository, CheckLevel::Data).await;
    let little = CheckOptions { memory_bytes: 4 * 32 * 700, ..options(CheckLevel::Data) };
    let little = look_with(&repository, &little).await;
    assert_eq!((little.chunks, little.chunks_by_seal), (plenty.chunks, 0), "{little:?}");
    assert!(plenty.chunks >= 1200 && little.is_clean(), "{little:?}");
    let tiny = CheckOptions { memory_bytes: 4 * 32 * 100, mark: true, ..options(CheckLevel::Data) };
    let tiny = look_with(&repository, &tiny).await;
    assert!(tiny.is_clean() && tiny.chunks_by_seal > 0, "{tiny:?}");
    assert!(tiny.marked == 0 && tiny.mark_problem.is_some(), "not everything was compared: {tiny:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_page_memory_costs_time_only() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, _) = twice(folder.path()).await;
    let usual = look(&repository, CheckLevel::Structure).await;
    // An eighth of it remembers one page: the first root, and none of the leaves that both trees share.
    let tight = CheckOptions { memory_bytes: 400, ..options(CheckLevel::Structure) };
    let tight = look_with(&repository, &tight).await;
    assert!(tight.pages > usual.pages && tight.is_clean(), "{tight:?}");
}

/// What can happen to an object in a store.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flipped,
    Cut,
    Gone,
}

impl Harm {
    fn inflict(self, path: &Path, bytes: &[u8]) {
        match self {
            Self::Gone => std::fs::remove_file(path).unwrap(),
            Self::Cut => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            Self::Flipped => {
                let mut changed = bytes.to_vec();
                changed[bytes.len() / 3] ^= 1;
                std::fs::write(path, &changed).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_backup_relies_on_damage_that_a_check_has_found() {
    for harm in [Harm::Flipped, Harm::Cut, Harm::Gone] {
        let folder = tempfile::tempdir().unwrap();
        let repository = backed_up(folder.path()).await;
        let source = folder.path().join("source");
        let packs = crate::store::list_all(repository.store().as_ref(), "packs/").await.unwrap();
        let path = |pack: &crate::store::Listed| folder.path().join("repository").join(&pack.name);
        let whole: Vec<_> =
            packs.iter().map(|pack| (path(pack), std::fs::read(path(pack)).unwrap())).collect();
        // Contents and trees: every pack there is.
        whole.iter().for_each(|(path, bytes)| harm.inflict(path, bytes));
        let noting = CheckOptions { mark: true, ..options(CheckLevel::Data) };
        let report = look_with(&repository, &noting).await;
        // Without its tree, nobody can tell what contents a snapshot misses; a footer tells the backup that finds them.
        let noted = if matches!(harm, Harm::Gone) { 1 } else { packs.len() as u64 };
        assert_eq!((report.noted, report.note_problem), (noted, None), "{harm:?}");
        assert_eq!(look_with(&repository, &noting).await.noted, 0, "{harm:?}: it is noted once");
        // A source with a parent, and one that finds its chunks by the index.
        for host in ["one", "two"] {
            let session = back_up(&repository, &source, host).await;
            let only = CheckOptions { only: Some(vec![session]), ..options(CheckLevel::Data) };
            let report = look_with(&repository, &only).await;
            assert!(report.is_clean() && report.whole == [session], "{harm:?} {host}: {report:?}");
        }
        whole.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        assert!(look_with(&repository, &noting).await.is_clean(), "{harm:?}");
        assert_eq!(
            repository.damage_notes().await.unwrap(),
            [],
            "{harm:?}: what is whole again is relied on"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_damage_that_nobody_signed_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let repository = backed_up(folder.path()).await;
    let pack = largest(&repository).await;
    let (pack, _) = crate::format::pack::parse_pack_object(&pack.name).unwrap();
    repository.note_damage(&[pack].into()).await.unwrap();
    let note = crate::store::list_all(repository.store().as_ref(), "damaged/").await.unwrap().remove(0);
    assert_eq!(repository.damage_notes().await.unwrap()[0].packs, [pack]);
    flip(folder.path(), &note.name, note.size as usize - 3);
    assert_eq!(repository.damage_notes().await.unwrap(), []);
}
