//! The index: which pack a chunk is in. Nothing but hints: whoever follows one looks at the pack first (W4).

use super::Repository;
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        bytes::{Reader, put_varint},
        frame::Suite,
        records::{self, RecordKind},
        session::{SessionKeyInfo, SessionKind, SessionName},
    },
    id::{ChunkId, LineageId, PackId, RandomId, SessionNonce},
    keys::SEALED_KEY_LENGTH,
    limits,
    store::{ByteRange, list_all},
};

/// Rows of one segment: about 20 MB.
pub(super) const SEGMENT_ROWS: usize = 1 << 20;
const PREFIX_LENGTH: usize = 16;

/// The plain bytes of a segment: packs, then rows of id prefix and pack, sorted by prefix.
pub(super) fn encode_segment(rows: &[(ChunkId, PackId)]) -> Vec<u8> {
    let mut packs: Vec<PackId> = rows.iter().map(|(_, pack)| *pack).collect();
    packs.sort_unstable();
    packs.dedup();
    let mut sorted: Vec<(&[u8], PackId)> =
        rows.iter().map(|(id, pack)| (&id.0[..PREFIX_LENGTH], *pack)).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut out = Vec::with_capacity(packs.len() * 16 + sorted.len() * 18 + 16);
    put_varint(&mut out, packs.len() as u64);
    packs.iter().for_each(|pack| out.extend_from_slice(&pack.0));
    put_varint(&mut out, sorted.len() as u64);
    for (prefix, pack) in sorted {
        out.extend_from_slice(prefix);
        let position = packs.binary_search(&pack).expect("every pack of a row is in the list");
        put_varint(&mut out, position as u64);
    }
    out
}

/// Reads a segment.
pub(super) fn decode_segment(bytes: &[u8]) -> Result<Vec<([u8; PREFIX_LENGTH], PackId)>> {
    let mut reader = Reader::new("index segment", bytes);
    let count = reader.count(PackId::LENGTH)?;
    let packs: Vec<PackId> = (0..count).map(|_| reader.array().map(PackId)).collect::<Result<_>>()?;
    let count = reader.count(PREFIX_LENGTH + 1)?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let prefix = reader.array()?;
        let pack = usize::try_from(reader.varint()?).ok().and_then(|index| packs.get(index));
        rows.push((prefix, *pack.ok_or_else(|| reader.malformed("a row of a pack that is not listed"))?));
    }
    reader.finish()?;
    Ok(rows)
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

/// Chunks of all sessions, as far as memory goes.
#[derive(Debug, Default)]
pub struct DedupIndex {
    rows: Vec<([u8; PREFIX_LENGTH], u32)>,
    packs: Vec<PackId>,
    left_out: u64,
}

impl DedupIndex {
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

    /// Rows that did not fit: chunks that may be stored again.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn add(&mut self, rows: Vec<([u8; PREFIX_LENGTH], PackId)>, max_rows: usize) {
        let room = max_rows.saturating_sub(self.rows.len());
        self.left_out += rows.len().saturating_sub(room) as u64;
        let mut positions = std::collections::HashMap::new();
        for (prefix, pack) in rows.into_iter().take(room) {
            let position = *positions.entry(pack).or_insert_with(|| {
                self.packs.push(pack);
                self.packs.len() as u32 - 1
            });
            self.rows.push((prefix, position));
        }
    }
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
        let mut index = DedupIndex::default();
        let names = list_all(self.store().as_ref(), "index/s-").await?;
        let mut running = tokio::task::JoinSet::new();
        let mut names = names.into_iter();
        loop {
            while running.len() < PARALLEL_SEGMENTS
                && let Some(listed) = names.next()
            {
                let repository = self.clone();
                running.spawn(async move { repository.segment(&listed.name).await });
            }
            let Some(joined) = running.join_next().await else { break };
            let rows =
                joined.map_err(|error| Error::internal("reading the index broke").with_source(error))?;
            match rows {
                Ok(rows) => index.add(rows, max_rows),
                Err(error) if is_lost_hint(&error) => {
                    tracing::warn!(%error, "an index segment is left out");
                }
                Err(error) => return Err(error),
            }
        }
        index.rows.sort_unstable();
        Ok(index)
    }

    pub(crate) async fn segment(&self, name: &str) -> Result<Vec<([u8; PREFIX_LENGTH], PackId)>> {
        let bytes = self.store().get(name, ByteRange::All).await?;
        let (info, sealed) = decode_hint(records::decode_kind(name, &bytes, RecordKind::Segment)?)?;
        let key = self.keys().session_index_key(info.generation, info.session)?;
        let cipher = Cipher::new(info.suite, &key);
        let plain = codec::open_object(&cipher, Domain::Segment, info.session, sealed, limits::RECORD_LIMIT)
            .map_err(|error| error.context(format!("object {name}")))?;
        decode_segment(&plain)
    }
}

/// Segments beyond this many are merged: each is a request of every writer.
const SEGMENTS_KEPT: usize = 8;
/// Rows that a merge holds in memory.
const MERGE_ROWS: usize = 4 << 20;

impl Repository {
    /// Merges index segments and drops rows of packs that are gone, and checkpoints whose session has ended. Any
    /// process may do this at any time: the index carries no safety.
    pub(crate) async fn merge_index(
        &self,
        packs: &std::collections::BTreeMap<PackId, (u64, Vec<String>)>,
    ) -> Result<()> {
        let names = list_all(self.store().as_ref(), "index/s-").await?;
        if names.len() > SEGMENTS_KEPT {
            let mut rows = Vec::new();
            let mut merged = Vec::new();
            for listed in &names {
                match self.segment(&listed.name).await {
                    Ok(segment) if rows.len() + segment.len() <= MERGE_ROWS => {
                        rows.extend(segment.into_iter().filter(|(_, pack)| packs.contains_key(pack)));
                        merged.push(&listed.name);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "an index segment is not merged"),
                }
            }
            self.put_merged(rows).await?;
            for name in merged {
                self.store().delete(name).await?;
            }
        }
        for listed in list_all(self.store().as_ref(), "index/c").await? {
            if let Ok(bytes) = self.store().get(&listed.name, ByteRange::All).await
                && let Ok(body) = records::decode_kind(&listed.name, &bytes, RecordKind::Checkpoint)
                && let Ok((info, _)) = decode_hint(body)
                && self.exists(&info.session.end_object()).await?
            {
                self.store().delete(&listed.name).await?;
            }
        }
        Ok(())
    }

    /// A merged segment is sealed under the name of a session that never was, so its counter starts afresh.
    async fn put_merged(&self, rows: Vec<([u8; PREFIX_LENGTH], PackId)>) -> Result<()> {
        let rows: Vec<(ChunkId, PackId)> = rows
            .into_iter()
            .map(|(prefix, pack)| {
                let mut id = ChunkId::default();
                id.0[..PREFIX_LENGTH].copy_from_slice(&prefix);
                (id, pack)
            })
            .collect();
        for rows in rows.chunks(SEGMENT_ROWS) {
            let session = SessionName {
                kind: SessionKind::Repack,
                lineage: LineageId::default(),
                nonce: SessionNonce(self.world().random()),
            };
            let generation = self.keys().newest();
            let suite = Suite::ChaCha20Poly1305;
            let cipher = Cipher::new(suite, &self.keys().session_index_key(generation, session)?);
            let sealed = codec::seal_object(&cipher, Domain::Segment, session, 0, &encode_segment(rows))?;
            let info =
                SessionKeyInfo { session, generation, suite, sealed_data_key: vec![0; SEALED_KEY_LENGTH] };
            let name = format!("index/s-{}", RandomId(self.world().random()));
            let body = records::encode_record(RecordKind::Segment, &encode_hint(&info, &sealed));
            self.store().put_if_absent(&name, body.into()).await?;
        }
        Ok(())
    }
}
