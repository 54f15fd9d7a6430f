use std::sync::{Arc, atomic::Ordering};

use super::*;
use crate::{
    error::ErrorKind,
    format::{
        entry::Content,
        frame::{Compression, FrameKind},
    },
    reader::testing::{Writer, noise},
};

/// Runs of two chunks and a hole in turns, so many.
fn runs(writer: &mut Writer, count: usize) -> Vec<Run> {
    let bytes = [noise(1, 10), noise(2, 20)];
    let chunks = writer.frame(FrameKind::Data, &[&bytes[0], &bytes[1]], Compression::Stored);
    let turn = [Run::Chunk(chunks[0].clone()), Run::Chunk(chunks[1].clone()), Run::Hole(5)];
    turn.into_iter().cycle().take(count).collect()
}

async fn total(reader: &SnapshotReader, sums: &mut Sums, content: &Content) -> Result<Sum> {
    let Content::Paged { depth, pages } = content else { panic!("{content:?}") };
    let listed = Listed::to_end(pages.iter().map(|(page, bytes)| (*depth, page.clone(), *bytes)));
    let mut parts = Parts::of(reader, sums, listed);
    let mut total = Sum::default();
    while let Some(part) = parts.next().await? {
        total = total.then(part);
    }
    Ok(total)
}

#[test]
fn numbers_are_those_of_the_field() {
    assert_eq!(fold(PRIME), 0);
    assert_eq!(fold(u128::MAX), 1);
    assert_eq!(add(PRIME - 1, 1), 0);
    assert_eq!(multiply(PRIME - 1, PRIME - 1), 1);
    assert_eq!(multiply(1 << 64, 1 << 64), 2);
    assert_eq!(multiply(1 << 126, 2), 1);
    assert_eq!(multiply(12_345_678_901_234_567_890, 98_765), 12_345_678_901_234_567_890 * 98_765);
    let numbers = [3, (1 << 90) + 77, PRIME - 5, HALF, (HALF << 62) + 9];
    for a in numbers {
        for b in numbers {
            assert_eq!(multiply(a, b), multiply(b, a));
            for c in numbers {
                assert_eq!(multiply(a, add(b, c)), add(multiply(a, b), multiply(a, c)), "{a} {b} {c}");
                assert_eq!(multiply(a, multiply(b, c)), multiply(multiply(a, b), c), "{a} {b} {c}");
            }
        }
    }
}

#[tokio::test]
async fn a_sum_is_that_of_the_runs_however_they_are_written() {
    let mut writer = Writer::new();
    let runs = runs(&mut writer, 24);
    // Pages whose runs begin with a chunk, and hold one each.
    let shapes: Vec<Content> = [2, 3, 7, 24].map(|per_page| writer.paged(&runs, per_page)).into();
    let reader = writer.finish(Vec::new(), 2);
    let mut sums = Sums::new();
    let wanted = sums.of_runs(&runs);
    assert_eq!((wanted.runs, wanted.chunk_bytes), (24, 8 * 30));
    for shape in &shapes {
        assert_eq!(total(&reader, &mut sums, shape).await.unwrap(), wanted, "{shape:?}");
    }
    for other in [&runs[1..], &runs[..23], &[runs[1].clone(), runs[0].clone()], &[Run::Hole(0)], &[]] {
        assert_ne!(sums.of_runs(other), wanted);
    }
    let swapped = [&runs[1..2], &runs[..1], &runs[2..]].concat();
    assert_ne!(sums.of_runs(&swapped), wanted, "the order counts");
}

#[tokio::test]
async fn pages_that_stand_for_an_exbibyte_are_opened_once() {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let runs = runs(&mut writer, 2);
    // 20 bytes, 2^14 times on each of four levels.
    let (page, bytes) = writer.tower(&runs[1], 1 << 14, 4);
    let reader = writer.finish(Vec::new(), 2);
    let content = Content::Paged { depth: 4, pages: vec![(page, bytes)] };
    packs.reads.store(0, Ordering::Relaxed);
    let sum = total(&reader, &mut Sums::new(), &content).await.unwrap();
    assert_eq!((sum.runs, sum.chunk_bytes), (1 << 56, 20 << 56));
    // Three pages of pages, and those of runs that were asked for together before the first was known.
    assert!(packs.reads.load(Ordering::Relaxed) <= 3 + PAGES_AT_ONCE as u64);
}

#[tokio::test]
async fn a_page_that_is_not_what_is_said_of_it_is_damage_however_often_it_was_right() {
    let mut writer = Writer::new();
    let runs = runs(&mut writer, 6);
    let content = writer.paged(&runs, 3);
    let reader = writer.finish(Vec::new(), 2);
    let Content::Paged { pages, .. } = &content else { panic!("{content:?}") };
    let (page, bytes) = pages[0].clone();
    let mut sums = Sums::new();
    total(&reader, &mut sums, &content).await.unwrap();
    for (depth, bytes) in [(2, bytes + 1), (1, bytes), (3, bytes), (limits::TREE_DEPTH + 1, bytes)] {
        let wrong = Content::Paged { depth, pages: vec![(page.clone(), bytes)] };
        let error = total(&reader, &mut sums, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{depth} {bytes}: {error}");
    }
}
