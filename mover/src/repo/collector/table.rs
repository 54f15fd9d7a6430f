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

    fn pack(number: u8) -> PackId {
        PackId([number; 16])
    }

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
    fn what_is_needed_is_counted_by_slots() {
        // 128 slots of ten bytes each.
        for (offset, stored, expected) in [
            (0, 1, 10),
            (9, 1, 10),
            (9, 2, 20),
            (10, 10, 10),
            (10, 11, 20),
            (1279, 1, 10),
            (1200, 1000, 80),
            (5000, 1, 10),
            (0, 1280, 1280),
            (640, 0, 10),
        ] {
            let mut row = row(1280);
            assert!(!row.is_needed());
            row.need(offset, stored);
            assert_eq!((row.needed_bytes(), row.is_needed()), (expected, true), "{offset} {stored}");
        }
        let mut odd = row(1281);
        odd.need(0, 12);
        assert_eq!(odd.needed_bytes(), 22, "a slot is rounded up");
        let mut short = row(100);
        short.need(0, 100);
        assert_eq!((short.needed_bytes(), short.unused_bytes()), (100, 0));
    }

    #[test]
    fn a_footer_is_no_waste() {
        let small = row(80_000);
        assert_eq!(small.unused_bytes(), 80_000 - 10_000 - 4096);
        assert_eq!(row(16 << 20).unused_bytes(), (16 << 20) - (512 << 10));
        assert_eq!(row(4000).unused_bytes(), 0);
    }

    #[tokio::test]
    async fn all_sendings_of_a_pack_are_one_row() {
        let store = store::mem::MemStore::new();
        let put = |number, attempt, length| {
            let object = PackSending { pack: pack(number), attempt }.object();
            store.tamper(&object, Some(vec![0; length].into()));
        };
        put(7, 0, 30);
        put(3, 0, 10);
        put(3, 5, 20);
        put(3, 2, 20);
        store.tamper("packs/zz/other", Some("neither name nor number".into()));
        let mut table = PackTable::list(&store).await.unwrap();
        let found: Vec<_> = table.rows().iter().map(|row| (row.pack, row.bytes, row.length)).collect();
        assert_eq!(found, [(pack(3), 50, 20), (pack(7), 30, 30)]);
        let of = |number, attempt| PackSending { pack: pack(number), attempt };
        assert_eq!(table.sendings(&[pack(7), pack(9), pack(3)]), [of(7, 0), of(3, 0), of(3, 2), of(3, 5)]);

        assert!(!table.needs(pack(3)) && !table.needs(pack(9)));
        table.frame(pack(3), 5, 2);
        table.frame(pack(9), 40, 1);
        assert!(table.needs(pack(3)) && !table.needs(pack(7)) && !table.needs(pack(9)));
        assert_eq!(table.unlisted().collect::<Vec<_>>(), [(pack(9), 40)]);
        for number in 0..UNLISTED_KEPT as u32 + 10 {
            let mut absent = [8; 16];
            absent[..4].copy_from_slice(&number.to_le_bytes());
            table.frame(PackId(absent), 1, 1);
        }
        assert_eq!(table.unlisted().count(), UNLISTED_KEPT);

        let mut some = PackTable::of([pack(7), pack(3)]);
        some.frame(pack(7), 0, 1);
        some.frame(pack(9), 0, 1);
        assert!(some.needs(pack(7)) && !some.needs(pack(3)) && !some.needs(pack(9)));
        assert_eq!(some.unlisted().count(), 0);
    }

    #[test]
    fn a_pack_that_is_needed_whole_has_nothing_unused() {
        let mut whole = row(32 << 20);
        whole.need(0, (32 << 20) - (300 << 10));
        assert_eq!(whole.unused_bytes(), 0);
    }
}
