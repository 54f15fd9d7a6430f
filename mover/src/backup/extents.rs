//! Data and holes of a small file that lies in memory.

use crate::source::file::SourceFile;

/// A stretch of a small file: `(offset, length, is a hole)`.
pub(crate) type Extent = (usize, usize, bool);

/// Data and holes of a small file, of which `data` was read.
pub(super) fn extents_of(file: &SourceFile, data: &[u8]) -> Vec<Extent> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for extent in file.extents() {
        // The file may have changed meanwhile: nothing outside what was read.
        let clamp = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).clamp(at, data.len());
        let end = clamp(extent.offset + extent.length);
        let start = first_nonzero_if_hole(data, at, clamp(extent.offset));
        if start > at {
            pieces.push((at, start - at, true));
        }
        if end > start {
            pieces.push((start, end - start, false));
        }
        at = end.max(start);
    }
    let rest = first_nonzero_if_hole(data, at, data.len());
    if rest > at {
        pieces.push((at, rest - at, true));
    }
    if rest < data.len() {
        pieces.push((rest, data.len() - rest, false));
    }
    pieces
}

/// A hole that does hold data by now ends where that begins.
fn first_nonzero_if_hole(data: &[u8], from: usize, to: usize) -> usize {
    data[from..to].iter().position(|byte| *byte != 0).map_or(to, |at| from + at)
}
