use std::{fs, path::Path};

use super::*;
use crate::{
    error::ErrorKind,
    format::{
        entry::Content,
        frame::{Compression, FrameKind},
    },
    monitor::CollectMonitor,
    reader::testing::{Packs, Writer, entry, noise},
    restore::tests::{Watch, blocks},
};

/// Zeros before the first chunk: more than are compared at once, and not a multiple of that.
const HOLE: usize = 5 << 19;

/// An image with holes in front, behind, and between its three frames of two chunks.
struct Volume {
    reader: SnapshotReader,
    packs: Arc<Packs>,
    contents: Vec<u8>,
}

fn volume() -> Volume {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let (mut runs, mut contents) = (vec![Run::Hole(HOLE as u64)], vec![0; HOLE]);
    for frame in 0..3 {
        let halves = [noise(2 * frame, 20_000), noise(2 * frame + 1, 20_000)];
        let chunks = writer.frame(FrameKind::Data, &[&halves[0], &halves[1]], Compression::Stored);
        runs.extend(chunks.into_iter().map(Run::Chunk));
        runs.push(Run::Hole(8192));
        contents.extend(halves.concat());
        contents.resize(contents.len() + 8192, 0);
    }
    let content = writer.paged(&runs, 2);
    let image = entry("volume", Kind::Image, content, contents.len() as u64);
    Volume { reader: writer.finish(vec![image], 8), packs, contents }
}

/// An image that takes no room.
fn nothing_but_holes() -> SnapshotReader {
    let content = Content::Inline(vec![Run::Hole(1 << 20)]);
    Writer::new().finish(vec![entry("volume", Kind::Image, content, 1 << 20)], 8)
}

fn options(target: &Path) -> ImageOptions {
    ImageOptions {
        target: target.to_owned(),
        path: b"volume".to_vec(),
        replace: true,
        known_zero: false,
        compare: false,
        verify: false,
        dry_run: false,
        memory_bytes: 64 << 20,
        threads: 2,
    }
}

async fn restored(reader: &SnapshotReader, options: &ImageOptions) -> (RestoreReport, Arc<CollectMonitor>) {
    let monitor = Arc::new(CollectMonitor::default());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    (restore_image(reader, options, watched, Cancel::default()).await.unwrap(), monitor)
}

#[tokio::test]
async fn an_image_is_chosen_by_its_path_or_as_the_only_one() {
    let of = |entries: &[(&str, Kind)]| {
        let entries = entries.iter().map(|(path, kind)| entry(path, kind.clone(), Content::default(), 0));
        Writer::new().finish(entries.collect(), 2)
    };
    let link = Kind::Symlink { target: b"d/b".to_vec() };
    let one = of(&[("d", Kind::Directory), ("d/b", Kind::Image), ("l", link)]);
    assert_eq!(choose(&one, b"").await.unwrap().path, b"d/b");
    let none = of(&[("d", Kind::Directory)]);
    assert_eq!(choose(&none, b"").await.unwrap_err().kind(), ErrorKind::NotFound);
    let two = of(&[("a", Kind::Image), ("d", Kind::Directory), ("d/b", Kind::File)]);
    for (path, wanted) in [
        ("", Err(ErrorKind::Invalid)),
        ("a", Ok("a")),
        ("d/b", Ok("d/b")),
        ("d", Err(ErrorKind::Invalid)),
        ("none", Err(ErrorKind::NotFound)),
    ] {
        let found = choose(&two, path.as_bytes()).await.map_err(|error| error.kind());
        let wanted = wanted.map(|wanted: &str| wanted.as_bytes().to_vec());
        assert_eq!(found.map(|entry| entry.path), wanted, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_written_where_that_is_wished() {
    let (volume, place) = (volume(), tempfile::tempdir().unwrap());
    let size = volume.contents.len() as u64;
    let mut old = volume.contents.clone();
    old[HOLE + 30_000] ^= 1;
    for (compare, written) in [(false, 120_000), (true, 20_000)] {
        let options = ImageOptions { compare, ..options(&place.path().join("image")) };
        fs::write(&options.target, &old).unwrap();
        let (report, monitor) = restored(&volume.reader, &options).await;
        let bytes_fetched = report.bytes_fetched;
        let base = RestoreReport { bytes_fetched, ..RestoreReport::default() };
        assert_eq!(report, RestoreReport { files: 1, bytes: size, bytes_written: written, ..base });
        let progress = monitor.progress();
        assert_eq!(Progress::get(&progress.entries), 1);
        assert_eq!(Progress::get(&progress.bytes), size);
        assert_eq!(Progress::get(&progress.bytes_expected), size);
        assert_eq!(Progress::get(&progress.bytes_moved), written);
        assert_eq!(Progress::get(&progress.bytes_stored), bytes_fetched);
        assert!(bytes_fetched >= written && bytes_fetched < size, "{bytes_fetched}");
        assert!(fs::read(&options.target).unwrap() == volume.contents);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_nothing_but_holes_is_complete() {
    let place = tempfile::tempdir().unwrap();
    let options = ImageOptions { verify: true, ..options(&place.path().join("image")) };
    fs::write(&options.target, vec![1; 2 << 20]).unwrap();
    let (report, monitor) = restored(&nothing_but_holes(), &options).await;
    assert_eq!((report.bytes_written, report.files_verified, report.problems), (0, 1, 0));
    assert_eq!(Progress::get(&monitor.progress().entries), 1);
    assert!(fs::read(&options.target).unwrap() == vec![0; 1 << 20]);
}

#[tokio::test]
async fn a_dry_run_tells_whether_there_is_room() {
    // A file system that takes nothing.
    let options = ImageOptions { dry_run: true, ..options(Path::new("/proc/carrack-volume")) };
    let (volume, monitor) = (volume(), Arc::new(CollectMonitor::default()));
    let error = restore_image(&volume.reader, &options, monitor, Cancel::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let (report, _) = restored(&nothing_but_holes(), &options).await;
    let room = RestoreReport { target_room: Some(0), ..RestoreReport::default() };
    assert_eq!(report, RestoreReport { files: 1, bytes: 1 << 20, ..room });
}

/// How many contents are right where the target holds these bytes, and how many problems are told.
async fn verified(volume: &Volume, options: &ImageOptions, bytes: &[u8]) -> (u64, usize) {
    fs::write(&options.target, bytes).unwrap();
    let image = choose(&volume.reader, b"").await.unwrap();
    let monitor = Arc::new(CollectMonitor::default());
    let watched = Arc::clone(&monitor) as Arc<dyn Monitor>;
    let right = verify(&volume.reader, options, &image, watched, Cancel::default()).await.unwrap();
    (right, monitor.problems().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_byte_of_an_image_is_compared() {
    let (volume, place) = (volume(), tempfile::tempdir().unwrap());
    let contents = &volume.contents;
    // In one go, and page by page.
    for memory_bytes in [64 << 20, 4096] {
        let options = ImageOptions { memory_bytes, ..options(&place.path().join("image")) };
        assert_eq!(verified(&volume, &options, contents).await, (1, 0));
        for at in [0, HOLE - 1, HOLE, HOLE + 39_999, HOLE + 40_000, contents.len() - 1] {
            let mut other = contents.clone();
            other[at] ^= 1;
            assert_eq!(verified(&volume, &options, &other).await, (0, 1), "{at}");
        }
        for length in [HOLE + 30_000, contents.len() - 8192, contents.len() - 1] {
            assert_eq!(verified(&volume, &options, &contents[..length]).await, (0, 1), "{length}");
        }
        let longer = [&contents[..], &[0]].concat();
        assert_eq!(verified(&volume, &options, &longer).await, (0, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_is_no_success() {
    let (volume, place) = (volume(), tempfile::tempdir().unwrap());
    let (options, cancel) = (options(&place.path().join("image")), Cancel::default());
    fs::write(&options.target, &volume.contents).unwrap();
    cancel.cancel();
    let monitor = Arc::new(CollectMonitor::default());
    let watched = || Arc::clone(&monitor) as Arc<dyn Monitor>;
    let image = choose(&volume.reader, b"").await.unwrap();
    let compared = verify(&volume.reader, &options, &image, watched(), cancel.clone()).await;
    assert_eq!(compared.unwrap_err().kind(), ErrorKind::Cancelled);
    let written = restore_image(&volume.reader, &options, watched(), cancel).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(monitor.problems(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_restored_is_not_read_back() {
    let (volume, place) = (volume(), tempfile::tempdir().unwrap());
    let image = choose(&volume.reader, b"").await.unwrap();
    let (_, runs) = volume.reader.runs(&image.content).next_piece().await.unwrap().unwrap();
    let frame = *runs[1].chunk().unwrap().frame.place().unwrap();
    {
        let mut packs = volume.packs.packs.lock().unwrap();
        let mut bytes = packs[&frame.pack].to_vec();
        bytes[frame.offset as usize + 5] ^= 1;
        packs.insert(frame.pack, bytes.into());
    }
    let options = ImageOptions { verify: true, ..options(&place.path().join("image")) };
    let (report, monitor) = restored(&volume.reader, &options).await;
    assert_eq!((report.problems, report.files_verified), (1, 0));
    assert_eq!(monitor.problems().len(), 1);
    assert_eq!(Progress::get(&monitor.progress().entries), 0);
}

/// How often a restore asks for contents.
async fn requests(reader: &SnapshotReader, packs: &Arc<Packs>, options: &ImageOptions) -> u64 {
    // Readers that remember nothing.
    let fresh = || SnapshotReader::with_access(Arc::clone(packs) as _, reader.snapshot().clone());
    packs.reads.store(0, Ordering::Relaxed);
    let lister = fresh();
    let image = choose(&lister, &options.path).await.unwrap();
    let mut runs = lister.runs(&image.content);
    while runs.next_piece().await.unwrap().is_some() {}
    let lists = packs.reads.swap(0, Ordering::Relaxed);
    restored(&fresh(), options).await;
    packs.reads.load(Ordering::Relaxed) - lists
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_requests_take_their_part_of_the_memory() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("image");
    // Each piece takes 80 bytes: fourteen pages of a thousand fill an eighth of 8 MiB.
    let (reader, packs, _) = blocks(Kind::Image, 30_000);
    for (memory_bytes, wanted) in [(8 << 20, 3), (1 << 30, 1)] {
        let options = ImageOptions { path: b"blocks".to_vec(), memory_bytes, ..options(&target) };
        assert_eq!(requests(&reader, &packs, &options).await, wanted);
    }
    // A sixteenth of the memory has room for one of the three frames, or for all.
    let volume = volume();
    for (memory_bytes, wanted) in [(1 << 20, 3), (2 << 20, 1)] {
        let options = ImageOptions { memory_bytes, ..options(&target) };
        assert_eq!(requests(&volume.reader, &volume.packs, &options).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_on_a_target_is_found_when_memory_is_full() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("image");
    let (reader, packs, block) = blocks(Kind::Image, 30_000);
    fs::write(&target, vec![0; block.len() * 30_000]).unwrap();
    let mut reads = Vec::new();
    for memory_bytes in [8 << 20, 1 << 30] {
        let reader = SnapshotReader::with_access(Arc::clone(&packs) as _, reader.snapshot().clone());
        let image = choose(&reader, b"blocks").await.unwrap();
        let options = ImageOptions { memory_bytes, ..options(&target) };
        let watch = Arc::new(Watch::of(&packs));
        let right = verify(&reader, &options, &image, Arc::clone(&watch) as _, Cancel::default());
        assert_eq!(right.await.unwrap(), 0);
        reads.push(watch.reads_before_the_only_problem());
    }
    assert_eq!(reads[1] - reads[0], 4, "{reads:?}");
}
