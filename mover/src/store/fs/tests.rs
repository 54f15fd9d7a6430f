use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::ToSpan;

use super::{FsStore, ObjectStore};
use crate::clock::World;
use crate::error::ErrorKind;
use crate::store::{ByteRange, Put, conformance, list_all, probe};

fn store(path: &Path) -> FsStore {
    FsStore::open(path, World::system())
}

#[tokio::test]
async fn a_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(store(&directory.path().join("new/repo")));
    probe(&*store, &World::system()).await.unwrap();
    conformance::run(&store).await.unwrap();
}

#[tokio::test]
async fn without_rename_noreplace_links_do() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    store.inner.link.store(true, std::sync::atomic::Ordering::Relaxed);
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    conformance::run(&store).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_missing_directory_is_not_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory.path().join("unmounted"));
    assert_eq!(store.list("", None).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.delete("packs/aa/x").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!directory.path().join("unmounted").exists(), "reading creates the directory");
}

#[tokio::test]
async fn symbolic_links_lead_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    let root = directory.path().join("repo");
    for folder in [&outside, &root, &root.join("packs")] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, root.join("packs/aa")).unwrap();
    symlink(outside.join("secret"), root.join("format")).unwrap();
    let store = store(&root);
    for name in ["packs/aa/secret", "format"] {
        assert_eq!(store.get(name, ByteRange::All).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
    let err = store.put_if_absent("packs/aa/new", "x".into()).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Invalid, "{err}");
    assert_eq!(store.put_if_absent("format", "x".into()).await.unwrap(), Put::Exists);
    assert_eq!(store.delete("packs/aa/secret").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(list_all(&store, "").await.unwrap(), []);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn special_files_do_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    let at = rustix::fs::CWD;
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(at, directory.path().join("format"), kind, mode, 0).unwrap();
    let err = store(directory.path()).get("format", ByteRange::All).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn temporary_files_are_hidden_and_swept_when_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    store.put_if_absent("format", "x".into()).await.unwrap();
    std::fs::write(directory.path().join("tmp/left"), "half").unwrap();
    assert_eq!(list_all(&store, "").await.unwrap().len(), 1);
    assert_eq!(store.get("tmp/left", ByteRange::All).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.sweep_temporary().await.unwrap(), 0);
    let tomorrow = store.inner.world.clock.now() + 25.hours();
    assert_eq!(store.inner.sweep(tomorrow).unwrap(), 1);
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(directory.path())
        .status()
        .is_ok_and(|status| status.success());
    assert!(mounted, "this test mounts a small file system and needs to run as root");
    let store = store(directory.path());
    let small = store.put_if_absent("packs/aa/small", Bytes::from(vec![1; 1 << 20])).await;
    let full = store.put_if_absent("packs/aa/large", Bytes::from(vec![1; 4 << 20])).await;
    let again = store.put_if_absent("packs/aa/other", Bytes::from(vec![1; 512 << 10])).await;
    let left = std::fs::read_dir(directory.path().join("tmp")).map(Iterator::count);
    drop(store);
    std::process::Command::new("umount").arg(directory.path()).status().unwrap();
    assert_eq!(small.unwrap(), Put::Created);
    let err = full.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NoSpace);
    assert!(err.to_string().contains("packs/aa/large") && err.hint().is_some(), "{err}");
    assert_eq!(again.unwrap(), Put::Created, "the space of the failed put is not free again");
    assert_eq!(left.unwrap(), 0);
}

#[tokio::test]
async fn pages_go_on_while_objects_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("index");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..10_002 {
        std::fs::write(folder.join(format!("{number:05}")), "").unwrap();
    }
    let store = store(directory.path());
    let first = store.list("index/", None).await.unwrap();
    assert_eq!(first.objects.len(), 10_000);
    std::fs::remove_file(folder.join("09999")).unwrap();
    std::fs::write(folder.join("00000-late"), "").unwrap();
    let second = store.list("index/", first.next).await.unwrap();
    let names: Vec<_> = second.objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["index/10000", "index/10001"]);
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn flush_remembers_what_to_sync() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    store.flush().await.unwrap();
    store.put_if_absent("sessions/a", "x".into()).await.unwrap();
    assert_eq!(store.inner.touched.lock().unwrap().len(), 0);
    store.put_if_absent("packs/aa/x", "x".into()).await.unwrap();
    store.delete("packs/bb/none").await.unwrap();
    assert_eq!(store.inner.touched.lock().unwrap().iter().collect::<Vec<_>>(), ["packs/aa"]);
    store.flush().await.unwrap();
    assert_eq!(store.inner.touched.lock().unwrap().len(), 0);
}
