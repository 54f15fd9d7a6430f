//! All packs of a repository with what is needed of each, in 48 bytes a pack: three million packs, 100 TiB, fit into
//! the memory that a prune has.

use std::collections::BTreeMap;

use crate::{
    error::Result,
    format::pack::{PackSending, parse_pack_object},
    id::PackId,
    repo::mark::Needs,
    store,
};

/// Parts that a pack is divided into for the question of what is needed of it.
const SLOTS: u64 = 128;
/// Bytes of a pack that are footer and padding rather than waste: an eighth and a little, but no more than this.
const TAIL_BYTES: u64 = 512 << 10;
const SMALL_TAIL_BYTES: u64 = 4 << 10;

/// One pack.
#[derive(Debug, Clone)]
pub(super) struct PackRow {
    pub(super) pack: PackId,
    /// Bytes of all its sendings.
    pub(super) bytes: u64,
    /// Bytes of the longest sending.
    length: u32,
    /// Sendings that were listed, one bit each.
    attempts: u8,
    needed: [u64; 2],
}

/// Packs in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct PackTable {
    rows: Vec<PackRow>,
    /// Packs that are needed and were not listed, each with the offset of one frame; if everything was listed.
    unlisted: Option<BTreeMap<PackId, u32>>,
}

/// Packs that are remembered as needed and not listed: one is enough to stop.
const UNLISTED_KEPT: usize = 1000;

impl PackTable {
    /// Every pack that is there.
    pub(super) async fn list(store: &dyn store::ObjectStore) -> Result<Self> {
        let mut rows: Vec<PackRow> = Vec::new();
        store::for_each(store, "packs/", |object| {
            if let Some((pack, attempt)) = parse_pack_object(&object.name) {
                let length = u32::try_from(object.size).unwrap_or(u32::MAX);
                let attempts = 1u8.checked_shl(attempt.into()).unwrap_or_default();
                rows.push(PackRow { pack, bytes: object.size, length, attempts, needed: [0; 2] });
            }
        })
        .await?;
        rows.sort_unstable_by_key(|row| row.pack);
        rows.dedup_by(|later, kept| {
            let same = later.pack == kept.pack;
            if same {
                kept.bytes += later.bytes;
                kept.length = kept.length.max(later.length);
                kept.attempts |= later.attempts;
            }
            same
        });
        Ok(Self { rows, unlisted: Some(BTreeMap::new()) })
    }

    /// Packs that are needed and were not there when all were listed, each with the offset of one frame.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = (PackId, u32)> {
        self.unlisted.iter().flatten().map(|(pack, offset)| (*pack, *offset))
    }

    /// The sendings that were listed of these packs.
    pub(super) fn sendings(&self, packs: &[PackId]) -> Vec<PackSending> {
        let rows = packs.iter().filter_map(|pack| self.get(*pack));
        rows.flat_map(PackRow::sendings).collect()
    }

    /// Only these packs, of which nothing but "needed or not" will be asked.
    pub(super) fn of(packs: impl IntoIterator<Item = PackId>) -> Self {
        let row = |pack| PackRow { pack, bytes: 0, length: 0, attempts: 0, needed: [0; 2] };
        let mut rows: Vec<PackRow> = packs.into_iter().map(row).collect();
        rows.sort_unstable_by_key(|row| row.pack);
        Self { rows, unlisted: None }
    }

    pub(super) fn rows(&self) -> &[PackRow] {
        &self.rows
    }

    /// The row of a pack.
    pub(super) fn get(&self, pack: PackId) -> Option<&PackRow> {
        self.rows.binary_search_by_key(&pack, |row| row.pack).ok().map(|found| &self.rows[found])
    }

    /// Whether anything of a pack is needed.
    pub(super) fn needs(&self, pack: PackId) -> bool {
        self.get(pack).is_some_and(PackRow::is_needed)
    }
}

impl Needs for PackTable {
    fn frame(&mut self, pack: PackId, offset: u32, stored: u32) {
        if let Ok(found) = self.rows.binary_search_by_key(&pack, |row| row.pack) {
            self.rows[found].need(offset, stored);
        } else if let Some(unlisted) =
            self.unlisted.as_mut().filter(|unlisted| unlisted.len() < UNLISTED_KEPT)
        {
            unlisted.insert(pack, offset);
        }
    }
}

impl PackRow {
    fn sendings(&self) -> impl Iterator<Item = PackSending> + use<> {
        let (pack, attempts) = (self.pack, self.attempts);
        (0..8)
            .filter(move |attempt| attempts & 1 << attempt != 0)
            .map(move |attempt| PackSending { pack, attempt })
    }

    pub(super) fn is_needed(&self) -> bool {
        self.needed != [0; 2]
    }

    /// Bytes that are needed: at most a slot too many at either end of each needed stretch.
    pub(super) fn needed_bytes(&self) -> u64 {
        let slots = u64::from(self.needed[0].count_ones() + self.needed[1].count_ones());
        (slots * self.slot_bytes()).min(self.length.into())
    }

    /// Bytes in the pack that nothing needs: at least so many.
    pub(super) fn unused_bytes(&self) -> u64 {
        let length = u64::from(self.length);
        length
            .saturating_sub(self.needed_bytes())
            .saturating_sub(TAIL_BYTES.min(length / 8 + SMALL_TAIL_BYTES))
    }

    fn slot_bytes(&self) -> u64 {
        u64::from(self.length).div_ceil(SLOTS).max(1)
    }

    fn need(&mut self, offset: u32, stored: u32) {
        let slot = |byte: u64| (byte / self.slot_bytes()).min(SLOTS - 1);
        let first = slot(offset.into());
        let last = slot(u64::from(offset) + u64::from(stored.max(1)) - 1);
        for slot in first..=last {
            self.needed[(slot / 64) as usize] |= 1 << (slot % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: u32) -> PackRow {
        PackRow { pack: PackId::default(), bytes: length.into(), length, attempts: 1, needed: [0; 2] }
    }

    #[test]
    fn what_is_needed_is_never_underestimated() {
        let mut half = row(32 << 20);
        for frame in 0..16u32 {
            half.need(frame << 20, 1 << 20);
        }
        assert_eq!(half.needed_bytes(), 16 << 20);
        assert_eq!(half.unused_bytes(), (16 << 20) - TAIL_BYTES);
        for (length, offset, stored) in [(1, 0, 1), (100, 99, 1), (40_000, 7, 0), (1 << 30, (1 << 30) - 1, 1)]
        {
            let mut row = row(length);
            row.need(offset, stored);
            assert!(row.is_needed() && row.needed_bytes() >= u64::from(stored), "{row:?}");
        }
    }

    #[test]
    fn a_pack_that_is_needed_whole_has_nothing_unused() {
        let mut whole = row(32 << 20);
        whole.need(0, (32 << 20) - (300 << 10));
        assert_eq!(whole.unused_bytes(), 0);
    }
}
