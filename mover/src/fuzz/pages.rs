use std::collections::HashSet;

use crate::{
    error::Result,
    format::{
        frame::{ChunkRef, FramePlace},
        order::{compare_paths, is_valid_path},
        page::{Page, PageWriter},
    },
    limits,
};

/// What decodes is within all limits and in order, and encodes to bytes that decode to the same.
pub(super) fn page(bytes: &[u8]) {
    let Ok((page, _)) = Page::with_sessions(bytes) else { return };
    assert!(page.content_bytes().is_none() || !matches!(page, Page::Leaf(_) | Page::Inner(_)));
    for chunk in page.named() {
        let place = chunk.frame.place().expect("what was read has a place");
        assert!(chunk.offset.checked_add(chunk.length).is_some_and(|end| end <= place.plain));
    }
    if let Page::Leaf(entries) = &page {
        assert!(entries.iter().all(|entry| is_valid_path(&entry.path)));
        assert!(entries.is_sorted_by(|a, b| compare_paths(&a.path, &b.path).is_lt()));
        assert!(entries.iter().map(|entry| entry.path.len()).sum::<usize>() <= limits::PAGE_PATHS);
    }
    // A writer names a frame by its place, so it never makes a page that gives one place to two frames.
    if has_rivals(&page.named()) {
        return;
    }
    let again = encode(&page).expect("what was read can be written");
    assert_eq!(Page::from_bytes(&again).expect("what was written can be read"), page);
    assert_eq!(encode(&page).expect("it was written before"), again);
}

fn has_rivals(named: &[&ChunkRef]) -> bool {
    let places: HashSet<&FramePlace> = named.iter().filter_map(|chunk| chunk.frame.place()).collect();
    let keys: HashSet<_> = places.iter().map(|place| (place.pack, place.offset)).collect();
    // A place of no bytes is how a writer says that a frame was lost.
    keys.len() < places.len() || places.iter().any(|place| place.stored == 0 && place.plain == 0)
}

fn encode(page: &Page) -> Result<Vec<u8>> {
    let mut writer;
    match page {
        Page::Leaf(entries) => {
            writer = PageWriter::leaf();
            entries.iter().try_for_each(|entry| writer.push_entry(entry))?;
        }
        Page::Inner(children) => {
            writer = PageWriter::inner();
            children.iter().try_for_each(|child| writer.push_child(child))?;
        }
        Page::Runs(runs) => {
            writer = PageWriter::runs();
            runs.iter().try_for_each(|run| writer.push_run(run))?;
        }
        Page::RunsInner(pages) => {
            writer = PageWriter::runs_inner();
            pages.iter().try_for_each(|(page, bytes)| writer.push_runs_page(page, *bytes))?;
        }
    }
    writer.to_bytes()
}
