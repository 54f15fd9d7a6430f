use super::*;
use crate::{
    format::metadata::Metadata,
    restore::tests::{Watch, blocks},
};

#[test]
fn what_is_compared_together_takes_memory() {
    let mut work = Work::default();
    assert_eq!(work.size(), 0);
    let task = Arc::new(FileTask::new(b"file".to_vec(), Metadata::default(), Sink::Check));
    let index = work.batch.file(Arc::clone(&task));
    let file = work.batch.size();
    work.add(&task, index, 100, &[Run::Hole(5), Run::Hole(7), Run::Hole(9)]).unwrap();
    assert_eq!(work.size(), file + 3 * mem::size_of::<Zeros>());
    let zeros: Vec<_> = work.zeros.iter().map(|zeros| (zeros.at, zeros.length)).collect();
    assert_eq!(zeros, [(100, 5), (105, 7), (112, 9)]);
}

#[tokio::test]
async fn what_differs_is_found_when_memory_is_full_and_not_when_all_was_listed() {
    let (reader, packs, block) = blocks(Kind::File, 30_000);
    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("blocks"), vec![0; block.len() * 30_000]).unwrap();
    let mut reads = Vec::new();
    for memory_bytes in [8 << 20, 1 << 30] {
        // One that remembers nothing.
        let reader = SnapshotReader::with_access(Arc::clone(&packs) as _, reader.snapshot().clone());
        let watch = Arc::new(Watch::of(&packs));
        let options = RestoreOptions { memory_bytes, ..RestoreOptions::to(target.path()) };
        let kept = Places::default();
        let right = verify(&reader, &options, &kept, Arc::clone(&watch) as _, Cancel::default());
        assert_eq!(right.await.unwrap(), 0);
        reads.push(watch.reads_before_the_only_problem());
    }
    // Of the thirty pages of the list, which come four at once, fourteen fill the part of the smaller memory.
    assert_eq!(reads[1] - reads[0], 4, "{reads:?}");
}
