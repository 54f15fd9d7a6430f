use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
};

mod attributes;
mod delete;
mod links;
mod overwrite;
mod protected;
mod reports;
mod streams;
mod verification;

use super::*;
use crate::{
    format::{
        entry::{Content, Entry, Run},
        frame::{Compression, FrameKind},
        metadata::Kind,
    },
    id::PackId,
    monitor::{CollectMonitor, Problem, Progress},
    reader::testing::{Packs, Writer, entry, noise},
};

/// Files by path, with their contents.
type Contents = BTreeMap<String, Vec<u8>>;

struct Sample {
    reader: SnapshotReader,
    packs: Arc<Packs>,
    files: Contents,
}

/// Small files, a large one in pages, holes, duplicates, an empty one, links of both kinds.
fn sample() -> Sample {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let (mut entries, mut files) = (Vec::new(), Contents::new());
    for directory in ["d", "d/e", "z"] {
        entries.push(entry(directory, Kind::Directory, Content::default(), 0));
    }
    let small: Vec<Vec<u8>> = (0..40).map(|index| noise(index, 100 + index as usize * 37)).collect();
    let pieces: Vec<&[u8]> = small.iter().map(Vec::as_slice).collect();
    let chunks = writer.frame(FrameKind::Data, &pieces, Compression::Zstd);
    for (index, chunk) in chunks.iter().enumerate() {
        let path = format!("d/small{index:03}");
        let content = Content::Inline(vec![Run::Chunk(chunk.clone())]);
        entries.push(entry(&path, Kind::File, content, chunk.length.into()));
        files.insert(path, small[index].clone());
    }
    large(&mut writer, &mut entries, &mut files, &chunks[0], &small[0]);
    entries.push(entry("empty", Kind::File, Content::default(), 0));
    files.insert("empty".into(), Vec::new());
    entries.push(entry("link", Kind::Symlink { target: b"d/e".to_vec() }, Content::default(), 0));
    for name in ["z/one", "z/two"] {
        let content = Content::Inline(vec![Run::Chunk(chunks[5].clone())]);
        let mut both = entry(name, Kind::File, content, chunks[5].length.into());
        (both.metadata.inode, both.metadata.device, both.metadata.links) = (77, 1, 2);
        entries.push(both);
        files.insert(name.into(), small[5].clone());
    }
    Sample { reader: writer.finish(entries, 8), packs, files }
}

fn large(
    writer: &mut Writer,
    entries: &mut Vec<Entry>,
    files: &mut Contents,
    shared: &crate::format::frame::ChunkRef,
    shared_bytes: &[u8],
) {
    let (mut runs, mut bytes) = (vec![Run::Chunk(shared.clone())], shared_bytes.to_vec());
    for index in 0..30u64 {
        let parts: Vec<_> = (0..4).map(|part| noise(1000 + index * 4 + part, 20_000)).collect();
        let pieces: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let compression = if index % 2 == 0 { Compression::Stored } else { Compression::Zstd };
        for chunk in writer.frame(FrameKind::Data, &pieces, compression) {
            runs.push(Run::Chunk(chunk));
        }
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        if index % 5 == 0 {
            runs.push(Run::Hole(65536));
            bytes.resize(bytes.len() + 65536, 0);
        }
    }
    let content = writer.paged(&runs, 16);
    entries.push(entry("d/e/large", Kind::File, content, bytes.len() as u64));
    files.insert("d/e/large".into(), bytes);
}

/// Keeps how often something had been read when the first problem came.
#[derive(Debug)]
pub(super) struct Watch {
    packs: Arc<Packs>,
    reads: Mutex<Option<u64>>,
    inner: CollectMonitor,
}

impl Watch {
    /// From now on.
    pub(super) fn of(packs: &Arc<Packs>) -> Self {
        packs.reads.store(0, Ordering::Relaxed);
        Self { packs: Arc::clone(packs), reads: Mutex::default(), inner: CollectMonitor::default() }
    }

    pub(super) fn reads_before_the_only_problem(&self) -> u64 {
        assert_eq!(self.inner.problems().len(), 1);
        self.reads.lock().unwrap().unwrap()
    }
}

impl Monitor for Watch {
    fn progress(&self) -> &Progress {
        self.inner.progress()
    }

    fn phase(&self, _name: &str) {}

    fn problem(&self, problem: Problem) {
        self.reads.lock().unwrap().get_or_insert(self.packs.reads.load(Ordering::Relaxed));
        self.inner.problem(problem);
    }
}

/// A content that names one chunk again and again, in pages of a thousand runs; and what is in the chunk.
pub(super) fn blocks(kind: Kind, times: usize) -> (SnapshotReader, Arc<Packs>, Vec<u8>) {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let block = noise(1, 50);
    let chunk = writer.frame(FrameKind::Data, &[&block], Compression::Stored).remove(0);
    let content = writer.paged(&vec![Run::Chunk(chunk); times], 1000);
    let length = (block.len() * times) as u64;
    (writer.finish(vec![entry("blocks", kind, content, length)], 8), packs, block)
}

async fn run(sample: &Sample, options: &RestoreOptions) -> (RestoreReport, Vec<Problem>) {
    let monitor = Arc::new(CollectMonitor::default());
    let report =
        restore(&sample.reader, options, Arc::clone(&monitor) as Arc<dyn Monitor>, Cancel::default());
    (report.await.unwrap(), monitor.problems())
}

fn assert_restored(target: &Path, files: &Contents) {
    for (path, contents) in files {
        let found = std::fs::read(target.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(found == *contents, "{path} differs: {} and {} bytes", found.len(), contents.len());
        let stat = std::fs::metadata(target.join(path)).unwrap();
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_700_000_000, 123_456_789), "{path}");
        assert_eq!(stat.mode() & 0o7777, 0o640, "{path}");
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_whole() {
    let (sample, target) = (sample(), directory());
    let options = RestoreOptions { verify: true, ..RestoreOptions::to(target.path()) };
    let (report, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert_restored(target.path(), &sample.files);
    assert_eq!(report.files, sample.files.len() as u64);
    assert_eq!(report.files_verified, sample.files.len() as u64);
    assert_eq!(std::fs::read_link(target.path().join("link")).unwrap(), Path::new("d/e"));
    let inode = |name: &str| std::fs::metadata(target.path().join(name)).unwrap().ino();
    assert_eq!(inode("z/one"), inode("z/two"));
    let directory = std::fs::metadata(target.path().join("d")).unwrap();
    assert_eq!((directory.mtime(), directory.mode() & 0o7777), (1_700_000_000, 0o755));
    let large = std::fs::metadata(target.path().join("d/e/large")).unwrap();
    assert!(large.blocks() * 512 < large.len(), "holes take no room");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_written() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    // Same size, other bytes, other time; a file of another size; one in a hole; one that is gone.
    let at = |name: &str| target.path().join(name);
    let mut large = std::fs::read(at("d/e/large")).unwrap();
    large[50_000] ^= 1;
    let hole = sample.files["d/e/large"].windows(60_000).position(|bytes| bytes.iter().all(|b| *b == 0));
    large[hole.unwrap() + 30_000] = 7;
    std::fs::write(at("d/e/large"), &large).unwrap();
    std::fs::write(at("d/small003"), b"other").unwrap();
    std::fs::remove_file(at("d/small004")).unwrap();
    let (report, problems) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!(problems, []);
    assert_restored(target.path(), &sample.files);
    assert!(report.files_skipped > 30, "{report:?}");
    let two = sample.files["d/small003"].len() + sample.files["d/small004"].len();
    // The two names of one file are written anew; of the large file one chunk.
    let expected = (20_000 + two + sample.files["z/one"].len()) as u64;
    assert_eq!(report.bytes_written, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_removes_the_rest_and_only_that() {
    let (sample, target) = (sample(), directory());
    run(&sample, &RestoreOptions::to(target.path())).await;
    std::fs::create_dir_all(target.path().join("d/more/deep")).unwrap();
    std::fs::write(target.path().join("d/more/deep/x"), b"x").unwrap();
    std::fs::write(target.path().join("stray"), b"x").unwrap();
    std::fs::write(target.path().join("z/keep.log"), b"x").unwrap();
    let mut options = RestoreOptions { delete: true, ..RestoreOptions::to(target.path()) };
    options.selection.exclude.add_pattern("*.log", false, "test").unwrap();
    let (report, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert!(report.deleted >= 2, "{report:?}");
    assert!(!target.path().join("d/more").exists() && !target.path().join("stray").exists());
    assert!(target.path().join("z/keep.log").exists());
    assert_restored(target.path(), &sample.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_tree() {
    let (sample, target) = (sample(), directory());
    let mut options = RestoreOptions::to(target.path());
    options.selection.path = b"d".to_vec();
    options.selection.include.add_pattern("small01*", false, "test").unwrap();
    options.selection.include.add_pattern("/e", false, "test").unwrap();
    options.selection.include.add_pattern("/d", false, "test").unwrap();
    options.selection.exclude.add_pattern("/small015", false, "test").unwrap();
    let (report, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert_eq!(report.files, 10, "nine small ones and the large one");
    assert!(target.path().join("e/large").exists());
    assert!(target.path().join("small010").exists() && !target.path().join("small015").exists());
    assert!(!target.path().join("small020").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_and_the_rest_comes_back() {
    let (sample, target) = (sample(), directory());
    let large = sample.reader.lookup(b"d/e/large").await.unwrap().unwrap();
    let mut runs = sample.reader.runs(&large.content);
    let (_, piece) = runs.next_piece().await.unwrap().unwrap();
    let Run::Chunk(chunk) = &piece[2] else { panic!("a chunk") };
    let place = *chunk.frame.place().unwrap();
    {
        let mut packs = sample.packs.packs.lock().unwrap();
        let mut bytes = packs[&place.pack].to_vec();
        bytes[place.offset as usize + 5] ^= 1;
        packs.insert(place.pack, bytes.into());
    }
    let (report, problems) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!((report.problems, problems.len()), (1, 1), "{problems:?}");
    assert_eq!(problems[0].what, "d/e/large");
    assert!(problems[0].message.contains(&place.pack.to_hex()), "{}", problems[0].message);
    let mut rest = sample.files.clone();
    rest.remove("d/e/large");
    assert_restored(target.path(), &rest);
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_frames_are_found() {
    let (sample, target) = (sample(), directory());
    let entry = sample.reader.lookup(b"d/small000").await.unwrap().unwrap();
    let Content::Inline(runs) = &entry.content else { panic!("inline") };
    let Run::Chunk(chunk) = &runs[0] else { panic!("a chunk") };
    let place = *chunk.frame.place().unwrap();
    {
        // Every frame of the pack is moved: one pack, the same offsets, 16 bytes further.
        let mut packs = sample.packs.packs.lock().unwrap();
        let old = packs.remove(&place.pack).unwrap();
        let fresh = PackId([3; 16]);
        packs.insert(fresh, [&[0; 16], &old[..]].concat().into());
        let mut moved = sample.packs.moved.lock().unwrap();
        for offset in 0..old.len() as u32 {
            moved.insert((place.pack, offset), (fresh, offset + 16));
        }
    }
    let (_, problems) = run(&sample, &RestoreOptions::to(target.path())).await;
    assert_eq!(problems, []);
    assert_restored(target.path(), &sample.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_writes_nothing() {
    let (sample, target) = (sample(), directory());
    let options = RestoreOptions { dry_run: true, ..RestoreOptions::to(target.path().join("none")) };
    let (report, problems) = run(&sample, &options).await;
    assert_eq!((report.files, problems.len()), (sample.files.len() as u64, 0));
    assert!(!target.path().join("none").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn little_memory_is_enough() {
    let (sample, target) = (sample(), directory());
    // Batches of a handful of chunks, directories in a second walk.
    let options = RestoreOptions { memory_bytes: 4096, ..RestoreOptions::to(target.path()) };
    let (_, problems) = run(&sample, &options).await;
    assert_eq!(problems, []);
    assert_restored(target.path(), &sample.files);
    let directory = std::fs::metadata(target.path().join("d")).unwrap();
    assert_eq!(directory.mtime(), 1_700_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_over_old_contents() {
    let (sample, target) = (sample(), directory());
    let path = target.path().join("image");
    let wanted = &sample.files["d/e/large"];
    let mut old = wanted.clone();
    old[70_000] ^= 1;
    old.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 1);
    std::fs::write(&path, &old).unwrap();
    let options = image::ImageOptions {
        target: path.clone(),
        path: b"d/e/large".to_vec(),
        replace: true,
        known_zero: false,
        compare: true,
        verify: true,
        dry_run: false,
        memory_bytes: 64 << 20,
        threads: 2,
    };
    let monitor = Arc::new(CollectMonitor::default());
    let image = |options: image::ImageOptions| {
        let (reader, monitor) = (sample.reader.clone(), Arc::clone(&monitor) as Arc<dyn Monitor>);
        async move { image::restore_image(&reader, &options, monitor, Cancel::default()).await.unwrap() }
    };
    let planned = image(image::ImageOptions { dry_run: true, ..options.clone() }).await;
    assert!(std::fs::read(&path).unwrap() == old, "a dry run writes nothing");
    let holes = 6 * 65536;
    assert_eq!((planned.bytes, planned.bytes_written), (wanted.len() as u64, wanted.len() as u64 - holes));
    assert!(planned.target_room.is_some());
    let report = image(options).await;
    assert!(std::fs::read(&path).unwrap() == *wanted);
    assert_eq!((report.problems, report.files_verified), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbouring_pages_come_together() {
    let sample = sample();
    sample.packs.reads.store(0, Ordering::Relaxed);
    let mut walk = sample.reader.entries(crate::reader::walk::Part::all()).unwrap();
    let mut paths = Vec::new();
    while let Some(leaf) = walk.next_leaf().await.unwrap() {
        paths.extend(leaf.into_iter().map(|entry| entry.path));
    }
    assert_eq!(paths.len(), sample.files.len() + 4);
    assert!(sample.packs.reads.load(Ordering::Relaxed) <= 3, "{:?}", sample.packs.reads);
    assert_eq!(sample.reader.list(b"d").await.unwrap().len(), 41);
    assert_eq!(sample.reader.list(b"").await.unwrap().len(), 4);
}
