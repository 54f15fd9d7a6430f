//! The index: which pack a chunk is in. Nothing but hints: whoever follows one looks at the pack first (W4).

use std::collections::BTreeSet;

use crate::{
    error::Result,
    format::{
        bytes::{Reader, put_varint},
        frame::FrameKind,
        pack::{Footer, FooterChunk},
    },
    id::{ChunkId, PackId, RandomId},
};

/// Rows of one segment: about 2.4 MB, of which a writer reads a few at once.
pub(super) const SEGMENT_ROWS: usize = 1 << 17;
/// Rows of the whole index after a merge: 75 MB that every writer reads, all chunks of 256 GiB. Of larger
/// repositories a sample of the chunks is kept: whoever finds one finds its neighbours through the pack's footer.
pub(super) const INDEX_ROWS_MAX: usize = 4 << 20;
pub(super) const PREFIX_LENGTH: usize = 16;

pub(super) type Prefix = [u8; PREFIX_LENGTH];

/// The plain bytes of a segment: packs, then rows of id prefix and pack, sorted by prefix.
pub(super) fn encode_segment(mut rows: Vec<(&[u8], PackId)>) -> Vec<u8> {
    let mut packs: Vec<PackId> = rows.iter().map(|(_, pack)| *pack).collect();
    packs.sort_unstable();
    packs.dedup();
    rows.sort_unstable();
    rows.dedup();
    let mut out = Vec::with_capacity(packs.len() * 16 + rows.len() * 18 + 16);
    put_varint(&mut out, packs.len() as u64);
    packs.iter().for_each(|pack| out.extend_from_slice(&pack.0));
    put_varint(&mut out, rows.len() as u64);
    for (prefix, pack) in rows {
        out.extend_from_slice(prefix);
        let position = packs.binary_search(&pack).expect("every pack of a row is in the list");
        put_varint(&mut out, position as u64);
    }
    out
}

/// The plain bytes of a joined segment: the segments whose rows it has, then as any segment.
pub(super) fn encode_joined(joins: &BTreeSet<RandomId>, rows: Vec<(&[u8], PackId)>) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, joins.len() as u64);
    joins.iter().for_each(|id| out.extend_from_slice(&id.0));
    out.extend_from_slice(&encode_segment(rows));
    out
}

/// The rows of some chunks.
pub(super) fn rows(chunks: &[(ChunkId, PackId)]) -> Vec<(&[u8], PackId)> {
    chunks.iter().map(|(id, pack)| (&id.0[..PREFIX_LENGTH], *pack)).collect()
}

/// The rows of one segment: id prefix, and position among the packs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Segments whose rows it has too.
    pub(super) joins: Vec<RandomId>,
    packs: Vec<PackId>,
    rows: Vec<(Prefix, u32)>,
}

impl Segment {
    /// The chunks that the footer of a pack lists.
    pub(super) fn of_footer(pack: PackId, footer: &Footer) -> Self {
        let data = footer.frames.iter().filter(|frame| frame.kind == FrameKind::Data);
        let row = |chunk: &FooterChunk| {
            let mut prefix = [0; PREFIX_LENGTH];
            prefix.copy_from_slice(&chunk.id.0[..PREFIX_LENGTH]);
            (prefix, 0)
        };
        let rows = data.flat_map(|frame| &frame.chunks).map(row).collect();
        Self { joins: Vec::new(), packs: vec![pack], rows }
    }

    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Its rows, each with its pack.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Prefix, PackId)> {
        self.rows.iter().map(|(prefix, pack)| (*prefix, self.packs[*pack as usize]))
    }
}

/// Reads a segment.
pub(super) fn decode_segment(bytes: &[u8]) -> Result<Segment> {
    read_segment(Reader::new("index segment", bytes), Vec::new())
}

/// Reads a joined segment.
pub(super) fn decode_joined(bytes: &[u8]) -> Result<Segment> {
    let mut reader = Reader::new("joined index segment", bytes);
    let count = reader.count(RandomId::LENGTH)?;
    let joins = (0..count).map(|_| reader.array().map(RandomId)).collect::<Result<_>>()?;
    read_segment(reader, joins)
}

fn read_segment(mut reader: Reader<'_>, joins: Vec<RandomId>) -> Result<Segment> {
    let count = reader.count(PackId::LENGTH)?;
    let packs: Vec<PackId> = (0..count).map(|_| reader.array().map(PackId)).collect::<Result<_>>()?;
    let count = reader.count(PREFIX_LENGTH + 1)?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let prefix = reader.array()?;
        let pack = reader.varint32()?;
        if pack as usize >= packs.len() {
            return Err(reader.malformed("a row of a pack that is not listed"));
        }
        rows.push((prefix, pack));
    }
    reader.finish()?;
    Ok(Segment { joins, packs, rows })
}

/// What decodes encodes to bytes that decode to the same rows.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_segment(bytes: &[u8]) {
    let Ok(segment) = decode_segment(bytes) else { return };
    let all: BTreeSet<_> = segment.rows().collect();
    let again = encode_segment(all.iter().map(|(prefix, pack)| (&prefix[..], *pack)).collect());
    let read = decode_segment(&again).expect("what was written can be read");
    assert_eq!(read.rows().collect::<BTreeSet<_>>(), all);
    let mut index = DedupIndex::new(64);
    index.add(segment, |_| true);
    index.settle();
    assert!(index.len() <= 64);
}

/// The same of joined ones, with the same segments named.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_joined(bytes: &[u8]) {
    let Ok(segment) = decode_joined(bytes) else { return };
    let (joins, all): (BTreeSet<_>, BTreeSet<_>) =
        (segment.joins.iter().copied().collect(), segment.rows().collect());
    let rows = all.iter().map(|(prefix, pack)| (&prefix[..], *pack)).collect();
    let read = decode_joined(&encode_joined(&joins, rows)).expect("what was written can be read");
    assert!(read.joins.iter().eq(&joins));
    assert_eq!(read.rows().collect::<BTreeSet<_>>(), all);
}

/// Chunks of all sessions. When there are more than fit, a sample of them: all whose id has enough zero bits, the
/// same for everybody, so that what is left still leads to every pack that holds a few hundred chunks.
#[derive(Debug)]
pub struct DedupIndex {
    rows: Vec<(Prefix, u32)>,
    packs: Vec<PackId>,
    max_rows: usize,
    zero_bits: u32,
    left_out: u64,
}

impl Default for DedupIndex {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl DedupIndex {
    /// About how many bytes a row takes, with its share of the packs.
    pub const ROW_BYTES: usize = size_of::<(Prefix, u32)>() + PackId::LENGTH;

    pub(super) fn new(max_rows: usize) -> Self {
        Self { rows: Vec::new(), packs: Vec::new(), max_rows: max_rows.max(1), zero_bits: 0, left_out: 0 }
    }

    /// Packs that may hold the chunk.
    pub fn lookup(&self, id: &ChunkId) -> impl Iterator<Item = PackId> {
        let prefix = &id.0[..PREFIX_LENGTH];
        let start = self.rows.partition_point(|(row, _)| &row[..] < prefix);
        self.rows[start..]
            .iter()
            .take_while(move |(row, _)| row == prefix)
            .map(|(_, pack)| self.packs[*pack as usize])
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Rows that did not fit: chunks that are found only through their neighbours.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) fn add(&mut self, segment: Segment, is_there: impl Fn(PackId) -> bool) {
        let Segment { packs, rows, .. } = segment;
        let mut positions: Vec<Option<u32>> = vec![None; packs.len()];
        for (prefix, pack) in rows {
            let pack = pack as usize;
            if zero_bits(&prefix) < self.zero_bits {
                self.left_out += 1;
                continue;
            }
            if !is_there(packs[pack]) {
                continue;
            }
            let position = *positions[pack].get_or_insert_with(|| {
                self.packs.push(packs[pack]);
                u32::try_from(self.packs.len() - 1).expect("there are fewer packs than rows")
            });
            if self.rows.len() == self.rows.capacity() {
                // Doubling would go far beyond the limit just before it is reached.
                let more = self.rows.len().max(1024).min(self.max_rows - self.rows.len());
                self.rows.reserve_exact(more);
            }
            self.rows.push((prefix, position));
            if self.rows.len() >= self.max_rows {
                // Rows come more than once where a joined segment has them too.
                self.settle();
                // Of ids that are more alike than hashes are, nobody knows how often.
                while self.rows.len() > self.max_rows / 4 * 3 {
                    self.thin_out();
                }
                // Positions have changed: packs of this segment that come again are listed again.
                positions.fill(None);
            }
        }
    }

    /// Puts the rows into the order that they are looked up in, each once.
    pub(super) fn settle(&mut self) {
        let mut packs = self.packs.clone();
        packs.sort_unstable();
        packs.dedup();
        for (_, pack) in &mut self.rows {
            let found = packs.binary_search(&self.packs[*pack as usize]);
            *pack = u32::try_from(found.expect("it is the same list"))
                .expect("there are fewer packs than before");
        }
        self.packs = packs;
        self.rows.sort_unstable();
        self.rows.dedup();
    }

    /// Rows with their packs, in order.
    pub(super) fn parts(&self, rows: usize) -> impl Iterator<Item = Vec<(&[u8], PackId)>> {
        self.rows
            .chunks(rows)
            .map(|part| part.iter().map(|(prefix, pack)| (&prefix[..], self.packs[*pack as usize])).collect())
    }

    /// Keeps the half of the rows whose ids have one more zero bit.
    fn thin_out(&mut self) {
        let before = self.rows.len();
        self.zero_bits += 1;
        self.rows.retain(|(prefix, _)| zero_bits(prefix) >= self.zero_bits);
        self.left_out += (before - self.rows.len()) as u64;
        let mut moved: Vec<Option<u32>> = vec![None; self.packs.len()];
        let mut packs = Vec::new();
        for (_, pack) in &mut self.rows {
            let old = *pack as usize;
            *pack = *moved[old].get_or_insert_with(|| {
                packs.push(self.packs[old]);
                u32::try_from(packs.len() - 1).expect("there are fewer packs than before")
            });
        }
        self.packs = packs;
    }
}

/// Zero bits of an id's prefix, from its last byte's highest on. Ids are keyed hashes: each bit halves their number.
fn zero_bits(prefix: &Prefix) -> u32 {
    u128::from_le_bytes(*prefix).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u64) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn pack(number: u64) -> PackId {
        let mut pack = PackId::default();
        pack.0[..8].copy_from_slice(&number.to_le_bytes());
        pack
    }

    /// Chunks `from..to`, 500 to a pack.
    fn segment(from: u64, to: u64) -> Segment {
        let ids: Vec<ChunkId> = (from..to).map(chunk).collect();
        let rows = ids.iter().zip(from..).map(|(id, at)| (&id.0[..PREFIX_LENGTH], pack(at / 500)));
        decode_segment(&encode_segment(rows.collect())).expect("what was written can be read")
    }

    #[test]
    fn an_index_that_fits_finds_every_chunk() {
        let mut index = DedupIndex::new(usize::MAX);
        index.add(segment(0, 3000), |_| true);
        index.add(segment(2000, 5000), |found| found != pack(9));
        index.rows.sort_unstable();
        index.rows.dedup();
        for number in 0..4500 {
            assert!(index.lookup(&chunk(number)).any(|found| found == pack(number / 500)), "{number}");
        }
        assert_eq!(index.lookup(&chunk(4600)).count(), 0, "its pack is not there");
        assert_eq!(index.left_out(), 0);
    }

    #[test]
    fn an_index_that_does_not_fit_still_leads_to_nearly_every_pack() {
        let mut index = DedupIndex::new(2000);
        for part in 0..20 {
            index.add(segment(part * 5000, (part + 1) * 5000), |_| true);
        }
        index.rows.sort_unstable();
        assert!(index.len() <= 2000 && index.len() > 900, "{}", index.len());
        assert!(index.rows.capacity() <= 2000, "{}", index.rows.capacity());
        assert_eq!(index.left_out() + index.len() as u64, 100_000);
        let mut found = std::collections::HashSet::new();
        for number in 0..100_000 {
            for pack in index.lookup(&chunk(number)) {
                assert_eq!(pack, self::pack(number / 500), "{number}");
                found.insert(pack);
            }
        }
        assert!(found.len() > 195, "{} of 200 packs are found", found.len());
    }

    #[test]
    fn an_index_is_full_one_row_before_its_limit() {
        let mut index = DedupIndex::new(100);
        index.add(segment(0, 99), |_| true);
        assert_eq!((index.len(), index.left_out(), index.is_empty()), (99, 0, false));
        index.add(segment(99, 100), |_| true);
        assert!((20..80).contains(&index.len()) && index.left_out() == 100 - index.len() as u64, "{index:?}");
        assert!(DedupIndex::new(100).is_empty());
    }

    #[test]
    fn what_comes_again_takes_no_room() {
        let mut index = DedupIndex::new(100);
        for _ in 0..10 {
            // As much as stays without being thinned out.
            index.add(segment(0, 75), |_| true);
        }
        index.settle();
        assert_eq!((index.len(), index.packs.len(), index.left_out()), (75, 1, 0));
        assert!((0..75).all(|number| index.lookup(&chunk(number)).eq([pack(0)])));
    }

    /// Who holds a writer's keys can make rows of any id.
    #[test]
    fn however_alike_ids_are_there_are_no_more_rows_than_the_limit() {
        for prefix in [[0; PREFIX_LENGTH], [0xff; PREFIX_LENGTH]] {
            let rows = (0..4000).map(|number| (&prefix[..], pack(number))).collect();
            let mut index = DedupIndex::new(64);
            index.add(decode_segment(&encode_segment(rows)).expect("reads"), |_| true);
            assert!(index.len() < 64 && index.packs.len() < 64, "{}", index.len());
            assert_eq!(index.left_out() + index.len() as u64, 4000);
        }
    }

    #[test]
    fn a_chunk_may_be_in_several_packs_and_a_row_is_kept_once() {
        let ids = [chunk(1), chunk(2)];
        let rows = [(ids[0], pack(7)), (ids[1], pack(7)), (ids[0], pack(3)), (ids[0], pack(7))];
        let bytes = encode_segment(self::rows(&rows));
        let read = decode_segment(&bytes).expect("reads");
        assert_eq!((read.packs.len(), read.rows.len()), (2, 3));
        let mut index = DedupIndex::default();
        index.add(read, |_| true);
        index.add(decode_segment(&bytes).expect("reads"), |_| true);
        index.settle();
        assert_eq!(
            index.lookup(&ids[0]).collect::<std::collections::BTreeSet<_>>(),
            [pack(3), pack(7)].into()
        );
        assert_eq!(index.lookup(&ids[1]).next(), Some(pack(7)));
        assert_eq!(index.lookup(&chunk(3)).count(), 0);
        let parts: Vec<usize> = index.parts(4).map(|part| part.len()).collect();
        assert_eq!(parts.iter().sum::<usize>(), index.len());
        assert!(parts[..parts.len() - 1].iter().all(|rows| *rows == 4), "{parts:?}");
    }

    #[test]
    fn a_row_of_a_pack_that_is_not_listed_is_malformed() {
        let mut bytes = encode_segment(vec![(&chunk(1).0[..PREFIX_LENGTH], pack(1))]);
        *bytes.last_mut().expect("it is not empty") = 1;
        assert!(decode_segment(&bytes).is_err());
    }
}
