use std::sync::{Arc, atomic::Ordering};

use super::*;
use crate::{
    error::ErrorKind,
    format::frame::{Compression, FrameKind},
    reader::testing::{Packs, Writer, noise},
};

/// Fifty runs of different lengths, every third of them a hole, and where each begins.
fn content(per_page: usize) -> (SnapshotReader, Arc<Packs>, Content, Vec<(u64, Run)>) {
    let mut writer = Writer::new();
    let packs = Arc::clone(&writer.packs);
    let bytes: Vec<Vec<u8>> = (0..50).map(|number| noise(number, 3 + number as usize % 7)).collect();
    let pieces: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let chunks = writer.frame(FrameKind::Data, &pieces, Compression::Stored);
    let runs: Vec<Run> = chunks
        .into_iter()
        .enumerate()
        .map(|(at, chunk)| if at % 3 == 0 { Run::Hole(at as u64 + 1) } else { Run::Chunk(chunk) })
        .collect();
    let content = writer.paged(&runs, per_page);
    let mut position = 0;
    let placed = runs.into_iter().map(|run| {
        let at = position;
        position += run.length();
        (at, run)
    });
    let placed = placed.collect();
    (writer.finish(Vec::new(), 2), packs, content, placed)
}

/// What a walk hands out, each run with its place.
async fn rest(mut walk: RunWalk) -> Result<Vec<(u64, Run)>> {
    let mut all = Vec::new();
    while let Some((mut position, piece)) = walk.next_piece().await? {
        for run in piece {
            let at = position;
            position += run.length();
            all.push((at, run));
        }
    }
    Ok(all)
}

#[tokio::test]
async fn pages_that_end_before_are_skipped_and_no_others() {
    let (reader, _, content, placed) = content(3);
    let total = placed.last().map(|(at, run)| at + run.length()).unwrap();
    for from in 0..=total {
        let mut walk = reader.runs(&content);
        walk.skip_to(from).await.unwrap();
        // The page that has this byte, and all behind it.
        let within = placed.iter().position(|(at, run)| at + run.length() > from);
        let first = within.map_or(placed.len(), |index| index / 3 * 3);
        assert_eq!(rest(walk).await.unwrap(), placed[first..], "{from}");
    }
}

#[tokio::test]
async fn four_pages_are_fetched_with_one_request() {
    let (reader, packs, content, placed) = content(3);
    let before = packs.reads.load(Ordering::Relaxed);
    assert_eq!(rest(reader.runs(&content)).await.unwrap(), placed);
    // One page of pages, and seventeen below it.
    assert_eq!(packs.reads.load(Ordering::Relaxed) - before, 1 + 5);
}

#[tokio::test]
async fn holes_are_no_stored_bytes() {
    let (reader, _, content, placed) = content(3);
    let stored = placed.iter().filter(|(_, run)| run.chunk().is_some()).map(|(_, run)| run.length());
    assert_eq!(reader.runs(&content).chunk_bytes(&Cancel::default()).await.unwrap(), stored.sum::<u64>());
    let stopped = Cancel::default();
    stopped.cancel();
    let error = reader.runs(&content).chunk_bytes(&stopped).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let inline = Content::Inline(placed.iter().map(|(_, run)| run.clone()).collect());
    assert_eq!(rest(reader.runs(&inline)).await.unwrap(), placed);
}

#[tokio::test]
async fn pages_are_what_the_page_above_says() {
    let (reader, _, content, _) = content(3);
    let Content::Paged { depth: 2, pages } = content else { panic!("{content:?}") };
    let (page, bytes) = pages[0].clone();
    let below = match &*reader.page(&page).await.unwrap() {
        Page::RunsInner(below) => below.clone(),
        other => panic!("{other:?}"),
    };
    for (depth, pages) in [
        (2, vec![(page.clone(), bytes + 1)]),
        (1, vec![(page.clone(), bytes)]),
        (0, vec![(page.clone(), bytes)]),
        (3, vec![(page.clone(), bytes)]),
        (limits::TREE_DEPTH + 1, vec![(page, bytes)]),
        (1, vec![(below[0].0.clone(), below[0].1 - 1)]),
        (2, vec![below[0].clone()]),
    ] {
        let content = Content::Paged { depth, pages };
        let error = rest(reader.runs(&content)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{content:?}: {error}");
    }
    // Said as it is, on the lowest level.
    for depth in [0, 1] {
        let lowest = Content::Paged { depth, pages: below.clone() };
        assert_eq!(rest(reader.runs(&lowest)).await.unwrap().len(), 50);
    }
}

#[tokio::test]
async fn a_page_without_a_chunk_is_the_last() {
    let mut writer = Writer::new();
    let chunk = Run::Chunk(writer.frame(FrameKind::Data, &[b"chunk"], Compression::Stored).remove(0));
    let hole = Run::Hole(7);
    let last = writer.paged(&[chunk.clone(), chunk.clone(), hole.clone()], 2);
    // Before a page that is fetched with it, and before one that is not.
    let first = writer.paged(&[hole.clone(), chunk.clone()], 1);
    let many = vec![chunk.clone(); PAGES_AT_ONCE];
    let spread = writer.paged(&[&many[1..], std::slice::from_ref(&hole), &many[..1]].concat(), 1);
    let reader = writer.finish(Vec::new(), 2);
    assert_eq!(rest(reader.runs(&last)).await.unwrap(), [(0, chunk.clone()), (5, chunk), (10, hole)]);
    let Content::Paged { depth, pages } = last else { panic!("{last:?}") };
    let twice = Content::Paged { depth, pages: [pages.clone(), pages].concat() };
    for content in [first, spread, twice] {
        let error = rest(reader.runs(&content)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{content:?}: {error}");
    }
}

#[tokio::test]
async fn what_is_counted_ends_where_there_is_enough() {
    let (reader, packs, content, placed) = content(3);
    let stored = placed.iter().filter(|(_, run)| run.chunk().is_some()).map(|(_, run)| run.length());
    let all = stored.sum::<u64>();
    let go_on = Cancel::default();
    for (enough, requests) in [(u64::MAX, 6), (all, 6), (0, 2)] {
        packs.reads.store(0, Ordering::Relaxed);
        let fresh = SnapshotReader::with_access(Arc::clone(&packs) as _, reader.snapshot().clone());
        let found = fresh.runs(&content).chunk_bytes_beyond(enough, &go_on).await.unwrap();
        assert_eq!(found == all, enough > 0, "{enough}: {found}");
        assert!(found > enough.min(all - 1), "{enough}: {found}");
        assert_eq!(packs.reads.load(Ordering::Relaxed), requests, "{enough}");
    }
}

#[tokio::test]
async fn pages_of_different_levels_are_not_fetched_together() {
    let (reader, packs, content, placed) = content(3);
    let Content::Paged { depth: 2, pages } = content else { panic!("{content:?}") };
    let twice = Content::Paged { depth: 2, pages: [pages.clone(), pages].concat() };
    let before = packs.reads.load(Ordering::Relaxed);
    let found: Vec<Run> = rest(reader.runs(&twice)).await.unwrap().into_iter().map(|(_, run)| run).collect();
    let once: Vec<Run> = placed.into_iter().map(|(_, run)| run).collect();
    assert_eq!(found, [once.clone(), once].concat());
    // The page of pages is remembered.
    assert_eq!(packs.reads.load(Ordering::Relaxed) - before, 1 + 5 + 5);
}
