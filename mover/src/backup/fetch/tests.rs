use std::sync::atomic::Ordering;

use super::*;
use crate::{
    format::{
        frame::{Compression, FrameKind},
        metadata::Kind,
    },
    reader::testing::{Writer, entry, noise},
    store::mem::MemStore,
};

/// Fetches what may be copied of a repository without packs.
fn fetch(reader: SnapshotReader, least: u64) -> Fetch {
    let allowance = Arc::new(Allowance::with_least(Arc::new(MemStore::new()), least));
    Fetch { reader, budget: 1 << 20, kept: VecDeque::new(), allowance }
}

fn chunk(writer: &mut Writer, length: usize) -> Run {
    Run::Chunk(writer.frame(FrameKind::Data, &[&noise(1, length)], Compression::Stored).remove(0))
}

#[tokio::test]
async fn an_exbibyte_that_few_pages_stand_for_is_refused_before_any_of_it_is_fetched() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let run = chunk(&mut writer, 64 << 10);
    let (page, bytes) = writer.tower(&run, 1 << 11, 4);
    assert_eq!(bytes, 1 << 60);
    let fetch = fetch(writer.finish(Vec::new(), 2), 1 << 40);
    let content = Content::Paged { depth: 4, pages: vec![(page, bytes)] };
    let refused = fetch.large(&content, 0, &Cancel::default()).await;
    let error = refused.err().unwrap();
    assert!(is_damage(&error), "{error}");
    // What lies in the pack beside the pages is not asked for: each of them once, and some of the lowest together.
    let reads = packs.reads.load(Ordering::Relaxed);
    assert!(reads < 10, "{reads}");
}

/// Contents that are too much together, and one of few bytes that is of too many runs.
#[tokio::test]
async fn what_is_copied_in_all_has_an_end() {
    let mut writer = Writer::new();
    let [large, byte] = [64 << 10, 1].map(|length| chunk(&mut writer, length));
    let [large, bytes] = [vec![large; 8], vec![byte; 1000]].map(|runs| writer.paged(&runs, 4));
    let reader = writer.finish(Vec::new(), 2);
    for (content, times, least) in [(&large, 3, 20 * (64 << 10)), (&bytes, 1, 500 * (4 << 10))] {
        let fetch = fetch(reader.clone(), least);
        let mut failed = None;
        for time in 1..=times {
            let mut contents = fetch.large(content, 0, &Cancel::default()).await.unwrap();
            while failed.is_none() {
                match contents.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => failed = Some(error),
                }
            }
            assert_eq!(failed.is_some(), time == times);
        }
        let error = failed.unwrap();
        assert!(is_damage(&error), "{error}");
    }
}

#[tokio::test]
async fn small_files_count_as_well() {
    let mut writer = Writer::new();
    let run = chunk(&mut writer, 64 << 10);
    let file = entry("x", Kind::File, Content::Inline(vec![run]), 64 << 10);
    let mut fetch = fetch(writer.finish(Vec::new(), 2), 2 * (64 << 10));
    let files = fetch.small(&[&file, &file, &file]).await.unwrap();
    let whole: Vec<bool> = files.iter().map(|file| file.is_ok()).collect();
    assert_eq!(whole, [true, true, false]);
}
