//! The index: which pack a chunk is in. Nothing but hints: whoever follows one looks at the pack first (W4).

use super::Repository;
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        bytes::{Reader, put_varint},
        frame::FrameKind,
        pack::{Footer, FooterChunk},
        records::{self, RecordKind},
        session::SessionKeyInfo,
    },
    id::{ChunkId, PackId},
    limits,
    store::{ByteRange, Listed, list_all},
};

/// Rows of one segment: about 2.4 MB, of which a writer reads a few at once.
pub(super) const SEGMENT_ROWS: usize = 1 << 17;
/// Rows of the whole index after a merge: 75 MB that every writer reads, all chunks of 256 GiB. Of larger
/// repositories a sample of the chunks is kept: whoever finds one finds its neighbours through the pack's footer.
pub(super) const INDEX_ROWS_MAX: usize = 4 << 20;
pub(super) const PREFIX_LENGTH: usize = 16;

type Prefix = [u8; PREFIX_LENGTH];

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

/// The rows of some chunks.
pub(super) fn rows(chunks: &[(ChunkId, PackId)]) -> Vec<(&[u8], PackId)> {
    chunks.iter().map(|(id, pack)| (&id.0[..PREFIX_LENGTH], *pack)).collect()
}

/// The rows of one segment: id prefix, and position among the packs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
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
        Self { packs: vec![pack], rows: data.flat_map(|frame| &frame.chunks).map(row).collect() }
    }
}

/// Reads a segment.
pub(super) fn decode_segment(bytes: &[u8]) -> Result<Segment> {
    let mut reader = Reader::new("index segment", bytes);
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
    Ok(Segment { packs, rows })
}

/// Puts the session before the sealed part of a hint.
pub(super) fn encode_hint(info: &SessionKeyInfo, sealed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SessionKeyInfo::LENGTH + sealed.len());
    info.write(&mut out);
    out.extend_from_slice(sealed);
    out
}

pub(super) fn decode_hint(body: &[u8]) -> Result<(SessionKeyInfo, &[u8])> {
    let mut reader = Reader::new("index object", body);
    let info = SessionKeyInfo::read(&mut reader)?;
    let rest = reader.left();
    Ok((info, reader.take(rest)?))
}

/// What decodes encodes to bytes that decode to the same rows.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_segment(bytes: &[u8]) {
    let Ok(segment) = decode_segment(bytes) else { return };
    let rows = |segment: &Segment| {
        let row = |(prefix, pack): &(Prefix, u32)| (*prefix, segment.packs[*pack as usize]);
        segment.rows.iter().map(row).collect::<std::collections::BTreeSet<_>>()
    };
    let all = rows(&segment);
    let again = encode_segment(all.iter().map(|(prefix, pack)| (&prefix[..], *pack)).collect());
    let read = decode_segment(&again).expect("what was written can be read");
    assert_eq!(rows(&read), all);
    let mut index = DedupIndex::new(64);
    index.add(segment, |_| true);
    index.settle();
    assert!(index.len() <= 64);
}

/// Comes back byte for byte.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_hint(bytes: &[u8]) {
    if let Ok((info, sealed)) = decode_hint(bytes) {
        assert_eq!(encode_hint(&info, sealed), bytes);
    }
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
        let Segment { packs, rows } = segment;
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
                self.thin_out();
                // Positions have changed: packs of this segment that come again are listed again.
                positions.fill(None);
            }
        }
    }

    /// Puts the rows into the order that they are looked up in.
    pub(super) fn settle(&mut self) {
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

/// Whether a hint simply does not help: gone, damaged, or of a key generation that this process does not hold.
pub(super) fn is_lost_hint(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Denied)
}

/// Index objects that are fetched at once.
const PARALLEL_SEGMENTS: usize = 4;

impl Repository {
    /// Loads the index, at most so many rows. What cannot be read is left out: it costs deduplication only.
    pub async fn load_index(&self, max_rows: usize) -> Result<DedupIndex> {
        let names = self.segment_names().await?;
        let (index, _) = self.read_segments(&names, max_rows, |_| true).await?;
        Ok(index)
    }

    /// Names of all segments with their lengths.
    pub(super) async fn segment_names(&self) -> Result<Vec<Listed>> {
        list_all(self.store().as_ref(), "index/s-").await
    }

    /// The rows of these segments, and the names of those that may go once the rows are stored anew.
    pub(super) async fn read_segments(
        &self,
        names: &[Listed],
        max_rows: usize,
        is_there: impl Fn(PackId) -> bool,
    ) -> Result<(DedupIndex, Vec<String>)> {
        let mut index = DedupIndex::new(max_rows);
        let mut read = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        let mut names = names.iter();
        loop {
            while running.len() < PARALLEL_SEGMENTS
                && let Some(listed) = names.next()
            {
                let (repository, name) = (self.clone(), listed.name.clone());
                running.spawn(async move { (repository.segment(&name).await, name) });
            }
            let Some(joined) = running.join_next().await else { break };
            let (rows, name) =
                joined.map_err(|error| Error::internal("reading the index broke").with_source(error))?;
            match rows {
                Ok(segment) => {
                    index.add(segment, &is_there);
                    read.push(name);
                }
                Err(error) if is_lost_hint(&error) => {
                    tracing::warn!(%error, "an index segment is left out");
                    // Nobody can read this one, and everybody tries: it goes with those that were merged.
                    read.extend((error.kind() == ErrorKind::Corrupt).then_some(name));
                }
                Err(error) => return Err(error),
            }
        }
        index.settle();
        Ok((index, read))
    }

    pub(super) async fn segment(&self, name: &str) -> Result<Segment> {
        let bytes = self.store().get(name, ByteRange::All).await?;
        let (info, sealed) = decode_hint(records::decode_kind(name, &bytes, RecordKind::Segment)?)?;
        let key = self.keys().session_index_key(info.generation, info.session)?;
        let cipher = Cipher::new(info.suite, &key);
        let plain = codec::open_object(&cipher, Domain::Segment, info.session, sealed, limits::RECORD_LIMIT)
            .map_err(|error| error.context(format!("object {name}")))?;
        decode_segment(&plain)
    }
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
    fn a_row_of_a_pack_that_is_not_listed_is_malformed() {
        let mut bytes = encode_segment(vec![(&chunk(1).0[..PREFIX_LENGTH], pack(1))]);
        *bytes.last_mut().expect("it is not empty") = 1;
        assert!(decode_segment(&bytes).is_err());
    }
}
