use super::*;
use crate::{
    format::metadata::Xattr,
    monitor::{CollectMonitor, Monitor as _},
    pipeline::testing::chunk_ending,
    reader::testing::Writer,
    target::tree::TargetOptions,
};

/// A chunk of a frame that lies there.
fn chunk(pack: u8, offset: u32, stored: u32) -> ChunkRef {
    let chunk = chunk_ending(1, offset, 10);
    let place = FramePlace { pack: PackId([pack; 16]), offset, stored, ..*chunk.frame.place().unwrap() };
    ChunkRef { frame: Frame::settled(place), ..chunk }
}

fn task(path: &str, size: u64) -> Arc<FileTask> {
    let metadata = Metadata { size, ..Metadata::default() };
    Arc::new(FileTask::new(path.into(), metadata, Sink::Small))
}

#[test]
fn a_file_is_done_with_its_last_piece() {
    let mut batch = Batch::default();
    let file = batch.file(task("a", 20));
    batch.add(file, 0, &chunk(1, 0, 10)).unwrap();
    batch.add(file, 10, &chunk(1, 10, 10)).unwrap();
    let file = &batch.files[0];
    assert_eq!([file.done(), file.done(), file.done()], [false, false, true]);
    assert!(!file.has_failed());
    assert!(file.fail() && !file.fail() && file.has_failed());
}

#[test]
fn progress_is_told_of_all_of_a_file_once() {
    let monitor = CollectMonitor::default();
    let (progress, file) = (monitor.progress(), task("a", 100));
    file.tell(progress, 30);
    assert_eq!(Progress::get(&progress.bytes), 30);
    file.tell_rest(progress);
    assert_eq!(Progress::get(&progress.bytes), 100);
    file.tell_rest(progress);
    file.tell(progress, 1);
    file.tell_rest(progress);
    assert_eq!(Progress::get(&progress.bytes), 101);
}

#[test]
fn what_a_batch_takes_is_known() {
    let mut metadata = Metadata::default();
    assert_eq!(weight(b"path", &metadata), 4 + 64);
    metadata.xattrs =
        vec![Xattr { name: vec![1; 10], value: vec![2; 100] }, Xattr { name: vec![1; 5], value: vec![] }];
    let heavy = 4 + 64 + 110 + 64 + 5 + 64;
    assert_eq!(weight(b"path", &metadata), heavy);
    let mut batch = Batch::comparing(true);
    assert!(batch.compares && batch.size() == 0);
    let file = batch.file(Arc::new(FileTask::new(b"path".to_vec(), metadata, Sink::Small)));
    assert_eq!(batch.size(), FILE_BYTES + heavy);
    batch.complete(task("other", 1));
    let files = 2 * FILE_BYTES + heavy + 5 + 64;
    assert_eq!(batch.size(), files);
    batch.add(file, 0, &chunk(1, 0, 10)).unwrap();
    batch.add(file, 10, &chunk(1, 0, 10)).unwrap();
    assert_eq!(batch.size(), files + 2 * PIECE_BYTES + 128);
}

#[test]
fn a_frame_is_fetched_once_however_often_it_is_named() {
    let mut batch = Batch::default();
    let file = batch.file(task("a", 100));
    let (first, second) = (chunk(1, 0, 10), chunk(1, 50, 10));
    for (at, chunk) in [&first, &first, &second, &chunk(1, 0, 10), &second].into_iter().enumerate() {
        batch.add(file, at as u64 * 10, chunk).unwrap();
    }
    assert_eq!(batch.frames.iter().map(|place| place.offset).collect::<Vec<_>>(), [0, 50]);
    assert_eq!(batch.pieces.iter().map(|piece| piece.frame).collect::<Vec<_>>(), [0, 0, 1, 0, 1]);
}

#[test]
fn requests_are_merged_over_small_gaps_and_have_a_bound() {
    let fetch = Fetch { gap: 100, longest: 1000 };
    let place = |pack, offset, stored| *chunk(pack, offset, stored).frame.place().unwrap();
    let part = |place| FramePart { place, cipher: Err(crate::error::Error::denied("no key")), pieces: 0..1 };
    let range = Range::of(part(place(1, 500, 50)));
    assert_eq!((range.start, range.end, range.length()), (500, 550, 50));
    for (pack, offset, stored, expected) in [
        (1, 550, 10, true),
        (1, 650, 10, true),
        (1, 651, 10, false),
        (1, 549, 10, false),
        (2, 550, 10, false),
        (1, 600, 900, true),
        (1, 600, 901, false),
    ] {
        assert_eq!(range.takes(&place(pack, offset, stored), &fetch), expected, "{pack} {offset} {stored}");
    }
    let mut range = range;
    range.push(part(place(1, 650, 10)));
    assert_eq!((range.start, range.end, range.length(), range.parts.len()), (500, 660, 160, 2));
}

#[test]
fn a_request_takes_a_part_of_the_memory_and_no_more_than_is_fast() {
    let local = |bytes| (Fetch::suited(true, bytes).gap, Fetch::suited(true, bytes).longest);
    let remote = |bytes| (Fetch::suited(false, bytes).gap, Fetch::suited(false, bytes).longest);
    assert_eq!((local(1 << 30), local(400)), ((16 << 10, 1 << 20), (16 << 10, 100)));
    assert_eq!((remote(1 << 30), remote(800)), ((256 << 10, 16 << 20), (256 << 10, 100)));
}

#[test]
fn pieces_come_in_the_order_of_the_packs() {
    let reader = Writer::new().finish(Vec::new(), 2);
    let mut batch = Batch::default();
    let files = [batch.file(task("a", 100)), batch.file(task("b", 100))];
    let (one, two, far, other) =
        (chunk(1, 0, 100), chunk(1, 110, 100), chunk(1, 5000, 100), chunk(2, 0, 100));
    for (file, at, chunk) in
        [(1, 0, &other), (0, 0, &far), (1, 10, &two), (0, 10, &one), (1, 20, &one), (0, 20, &one)]
    {
        batch.add(files[file], at, chunk).unwrap();
    }
    let (batch, ranges) = batch.into_ranges(&reader, &Fetch { gap: 10, longest: 1000 });
    let found: Vec<_> = ranges.iter().map(|range| (range.pack.0[0], range.start, range.end)).collect();
    assert_eq!(found, [(1, 0, 210), (1, 5000, 5100), (2, 0, 100)]);
    let parts = ranges.iter().flat_map(|range| &range.parts);
    let parts: Vec<_> = parts.map(|part| (part.place.offset, part.pieces.clone())).collect();
    assert_eq!(parts, [(0, 0..3), (110, 3..4), (5000, 4..5), (0, 5..6)]);
    let order: Vec<_> = batch.pieces.iter().map(|piece| (piece.file, piece.at)).collect();
    assert_eq!(order, [(0, 10), (0, 20), (1, 20), (1, 10), (0, 0), (1, 0)]);
}

#[test]
fn only_a_file_that_was_there_has_contents_from_before() {
    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("old"), "old").unwrap();
    let wish = TargetOptions { replace: true, replace_trees: false };
    let tree = TargetTree::open(target.path(), wish).unwrap();
    let sink = |name: &[u8]| Sink::existing(tree.prepare_file(name, 0, true).unwrap());
    assert!(sink(b"old").is_reused());
    assert!(!sink(b"new").is_reused() && !Sink::file().is_reused() && !Sink::Small.is_reused());
}
