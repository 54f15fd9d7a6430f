use std::sync::{Arc, atomic::Ordering};

use super::*;
use crate::{
    error::ErrorKind,
    format::{
        frame::{Compression, FrameKind},
        page::PageWriter,
    },
    reader::testing::{Packs, Writer, noise},
};

/// Contents of the same runs in several shapes, and of others.
struct Sample {
    reader: SnapshotReader,
    packs: Arc<Packs>,
    inline: Content,
    by_three: Content,
    by_four: Content,
    /// The last run is another one.
    changed: Content,
    /// A run more.
    longer: Content,
    /// A hole in the place of a chunk of the same length.
    holed: Content,
}

fn sample() -> Sample {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let bytes: Vec<Vec<u8>> = (0..26).map(|number| noise(number, 10)).collect();
    let pieces: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let chunks = writer.frame(FrameKind::Data, &pieces, Compression::Stored);
    let runs: Vec<Run> = chunks.into_iter().map(Run::Chunk).collect();
    let (same, other) = (&runs[..24], runs[25].clone());
    let changed = [&same[..23], std::slice::from_ref(&other)].concat();
    let holed = [&same[..10], &[Run::Hole(10)], &same[11..]].concat();
    Sample {
        packs,
        inline: Content::Inline(same.to_vec()),
        by_three: writer.paged(same, 3),
        by_four: writer.paged(same, 4),
        changed: writer.paged(&changed, 3),
        longer: writer.paged(&runs[..25], 3),
        holed: writer.paged(&holed, 3),
        reader: writer.finish(Vec::new(), 2),
    }
}

#[tokio::test]
async fn contents_are_the_same_by_their_runs_however_they_are_written() {
    let sample = sample();
    let same = [&sample.inline, &sample.by_three, &sample.by_four];
    let others = [&sample.changed, &sample.longer, &sample.holed, &Content::default()];
    for one in same {
        for other in same {
            assert!(
                same_contents(&sample.reader, &sample.reader, one, other).await.unwrap(),
                "{one:?} {other:?}"
            );
        }
        for other in others {
            for (old, new) in [(one, other), (other, one)] {
                let found = same_contents(&sample.reader, &sample.reader, old, new).await.unwrap();
                assert!(!found, "{old:?} {new:?}");
            }
        }
    }
}

#[tokio::test]
async fn pages_that_both_have_are_not_opened() {
    let sample = sample();
    let Content::Paged { depth: 2, pages } = &sample.by_three else { panic!("paged") };
    let page = sample.reader.page(&pages[0].0).await.unwrap();
    let Page::RunsInner(below) = &*page else { panic!("{page:?}") };
    let lowest = Content::Paged { depth: 1, pages: below.clone() };
    for (one, other, expected, requests) in [
        (&sample.by_three, &sample.by_three, true, 0),
        // The page of pages alone.
        (&sample.by_three, &lowest, true, 1),
        // Both pages of pages, and the last page of both.
        (&sample.by_three, &sample.changed, false, 4),
    ] {
        for (old, new) in [(one, other), (other, one)] {
            sample.packs.reads.store(0, Ordering::Relaxed);
            let found = same_contents(&sample.reader, &sample.reader, old, new).await.unwrap();
            assert_eq!((found, sample.packs.reads.load(Ordering::Relaxed)), (expected, requests));
        }
    }
}

#[tokio::test]
async fn pages_that_are_not_what_is_said_of_them_are_no_contents() {
    let sample = sample();
    let Content::Paged { depth: 2, pages } = &sample.by_three else { panic!("paged") };
    let (page, bytes) = pages[0].clone();
    let inner = sample.reader.page(&page).await.unwrap();
    let Page::RunsInner(below) = &*inner else { panic!("{inner:?}") };
    let (lowest, few) = below[0].clone();
    for (depth, page, bytes) in [
        (2, &page, bytes + 1),
        (1, &page, bytes),
        (3, &page, bytes),
        (limits::TREE_DEPTH + 1, &page, bytes),
        (2, &lowest, few),
        (1, &lowest, few - 1),
    ] {
        let wrong = Content::Paged { depth, pages: vec![(page.clone(), bytes)] };
        let error = same_contents(&sample.reader, &sample.reader, &sample.inline, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{depth} {bytes}: {error}");
    }
}

#[tokio::test]
async fn what_is_summed_up_is_the_same_as_what_is_compared() {
    let sample = sample();
    let same = [&sample.inline, &sample.by_three, &sample.by_four];
    let others = [&sample.changed, &sample.longer, &sample.holed, &Content::default()];
    let reader = &sample.reader;
    for pages_opened in 0..5 {
        for one in same {
            for other in same {
                let both = [one, other].map(|content| Runs::new(reader, content));
                let [one, other] = both;
                assert!(same_runs(one, other, pages_opened).await.unwrap());
            }
            for other in others {
                let [old, new] = [one, other].map(|content| Runs::new(reader, content));
                assert!(!same_runs(old, new, pages_opened).await.unwrap(), "{other:?}");
            }
        }
    }
}

/// An exbibyte of one chunk: in pages of two lengths, and with another chunk at its end.
#[tokio::test]
async fn contents_that_few_pages_stand_for_are_compared_in_no_time() {
    let mut writer = Writer::new();
    let bytes = [noise(1, 64), noise(2, 64)];
    let chunks = writer.frame(FrameKind::Data, &[&bytes[0], &bytes[1]], Compression::Stored);
    let [run, end] = [0, 1].map(|index: usize| Run::Chunk(chunks[index].clone()));
    // 2^54 chunks each.
    let (wide, size) = writer.tower(&run, 512, 6);
    let (narrow, same_size) = writer.tower(&run, 64, 9);
    assert_eq!((size, same_size), (1 << 60, 1 << 60));
    let mut page = PageWriter::runs();
    (0..63).for_each(|_| page.push_run(&run).unwrap());
    page.push_run(&end).unwrap();
    let mut changed = (writer.page(&page), 64 * 64);
    for level in 1..9 {
        let below = writer.tower(&run, 64, level);
        let mut page = PageWriter::runs_inner();
        (0..63).for_each(|_| page.push_runs_page(&below.0, below.1).unwrap());
        page.push_runs_page(&changed.0, changed.1).unwrap();
        changed = (writer.page(&page), 64 * below.1);
    }
    assert_eq!(changed.1, size);
    let reader = writer.finish(Vec::new(), 2);
    let wide = Content::Paged { depth: 6, pages: vec![(wide, size)] };
    let narrow = Content::Paged { depth: 9, pages: vec![(narrow, size)] };
    let changed = Content::Paged { depth: 9, pages: vec![changed] };
    assert!(same_contents(&reader, &reader, &wide, &narrow).await.unwrap());
    assert!(!same_contents(&reader, &reader, &wide, &changed).await.unwrap());
    assert!(!same_contents(&reader, &reader, &changed, &narrow).await.unwrap());
}
