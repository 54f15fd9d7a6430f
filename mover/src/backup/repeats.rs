//! Pages that a list of runs names again.

use std::collections::HashSet;

use crate::{format::frame::ChunkRef, id::ChunkId};

/// Pages that are remembered, in less than 2 MB: about those of a device of a terabyte. Others are looked at again, which
/// costs time only.
const PAGES_MET: usize = 1 << 14;

/// Pages of one list that were looked at: few can stand for any number of them.
#[derive(Debug, Default)]
pub(super) struct PagesMet {
    keys: HashSet<(ChunkId, u8, u64)>,
}

impl PagesMet {
    /// Whether the page was not met on this level with so many bytes of contents below it.
    pub(super) fn is_new(&mut self, page: &ChunkRef, level: u8, bytes: u64) -> bool {
        let key = (page.id, level, bytes);
        if self.keys.len() >= PAGES_MET { !self.keys.contains(&key) } else { self.keys.insert(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::chunk_ending;

    #[test]
    fn a_page_is_new_once_unless_something_else_is_said_of_it() {
        let (page, other) = (chunk_ending(1, 1, 10), chunk_ending(1, 2, 10));
        let mut met = PagesMet::default();
        for (page, level, bytes) in [(&page, 1, 5), (&other, 1, 5), (&page, 2, 5), (&page, 1, 6)] {
            assert!(met.is_new(page, level, bytes), "{page:?} {level} {bytes}");
            assert!(!met.is_new(page, level, bytes), "{page:?} {level} {bytes}");
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_new_again() {
        let mut met = PagesMet::default();
        let page = |number: usize| chunk_ending(1, number as u32, 10);
        (0..PAGES_MET).for_each(|number| assert!(met.is_new(&page(number), 1, 5)));
        assert!(met.is_new(&page(PAGES_MET), 1, 5));
        assert!(met.is_new(&page(PAGES_MET), 1, 5));
        assert!(!met.is_new(&page(0), 1, 5));
    }
}
