//! Segments of the index as objects: how they are sealed, and who reads which.
//!
//! Every backup leaves a segment, and only maintenance may delete. So that a backup need not read all that were left since,
//! a writer that finds many small ones puts a *joined* segment with their rows, which names them: whoever reads that one
//! passes the others over. Maintenance believes no such claim and reads all: what a joined segment hides it brings back.

use std::collections::{BTreeSet, HashSet};

use super::{
    Repository, Session,
    index::{self, DedupIndex, Prefix, SEGMENT_ROWS, Segment, decode_joined, decode_segment},
};
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        bytes::Reader,
        pack::is_newer,
        records::{self, RecordKind},
        session::SessionKeyInfo,
    },
    id::{ChunkId, PackId, RandomId},
    limits,
    store::{ByteRange, Listed, list_all},
};

#[cfg(test)]
mod tests;

/// Index objects that are fetched at once.
pub(super) const PARALLEL_SEGMENTS: usize = 4;

/// What all segments begin with, and what the names of joined ones end with.
const SEGMENTS: &str = "index/s-";
const JOINED: &str = ".joined";

/// Rows that are joined at once: as many as half a segment has.
const JOIN_ROWS_MAX: usize = SEGMENT_ROWS / 2;
/// Part of the rows of the index that may be joined: they are kept until the backup ends, and written then.
const JOIN_SHARE: usize = 32;
/// A segment that has no more than so small a part of the rows that may be joined is small: of these the fewest that are
/// joined fit, with some that turn out to be joined already.
const SMALL_SHARE: usize = 16;

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

/// Comes back byte for byte.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_hint(bytes: &[u8]) {
    if let Ok((info, sealed)) = decode_hint(bytes) {
        assert_eq!(encode_hint(&info, sealed), bytes);
    }
}

/// Whether a hint simply does not help: gone, damaged, or of a key generation that this process does not hold.
pub(super) fn is_lost_hint(error: &Error) -> bool {
    let is_away = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied);
    is_away || is_spoiled_hint(error) || error.is_of_broken_disk()
}

/// Whether nobody can use a hint. In a repository whose `format` is known there is nothing newer: what claims to be was
/// changed.
pub(super) fn is_spoiled_hint(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt || is_newer(error)
}

/// Small segments whose rows are to be put into one.
#[derive(Debug)]
pub struct Join {
    segments: BTreeSet<RandomId>,
    rows: Vec<(Prefix, PackId)>,
    /// Segments that there were.
    seen: HashSet<RandomId>,
}

impl Join {
    /// The fewest small segments that a backup joins: each is a request of every writer.
    pub const FROM: usize = 12;
    /// Bytes of one row: as it is kept, and twice while a segment is made of it.
    const ROW_BYTES: usize = 32 + 32 + 18;
    /// The same for each row that the index may have.
    pub(crate) const SHARE_BYTES: usize = Self::ROW_BYTES.div_ceil(JOIN_SHARE);

    /// Rows that are joined at most, by the rows that the index may have.
    pub(crate) fn rows_max(index_rows: usize) -> usize {
        (index_rows / JOIN_SHARE).min(JOIN_ROWS_MAX)
    }
}

/// What a writer knows of the index.
#[derive(Debug)]
pub struct LoadedIndex {
    /// Where chunks may be.
    pub index: DedupIndex,
    /// What its session may join, if there is much to join.
    pub join: Option<Join>,
}

/// Whoever reads segments.
pub(super) trait Reading {
    /// Whether this one is to be read, by what was read so far.
    fn wants(&self, name: &str) -> bool;
    /// One that was read.
    fn take(&mut self, listed: Listed, segment: Segment);
    /// One that nobody can read.
    fn spoiled(&mut self, listed: Listed);
}

/// A writer's reading.
struct Loading {
    index: DedupIndex,
    there: HashSet<RandomId>,
    joined: HashSet<RandomId>,
    small: Vec<Small>,
    small_rows: usize,
    join_rows: usize,
}

/// A small segment that was read.
struct Small {
    id: RandomId,
    joins: Vec<RandomId>,
    rows: Vec<(Prefix, PackId)>,
}

impl Loading {
    fn new(listed: &[Listed], max_rows: usize) -> Self {
        Self {
            index: DedupIndex::new(max_rows),
            there: listed.iter().filter_map(|listed| segment_id(&listed.name)).collect(),
            joined: HashSet::new(),
            small: Vec::new(),
            small_rows: 0,
            join_rows: Join::rows_max(max_rows),
        }
    }

    /// Of segments that another one has joined there are no rows to keep.
    fn join(self) -> Option<Join> {
        let Self { there, joined, mut small, .. } = self;
        small.retain(|segment| !joined.contains(&segment.id));
        if small.len() < Join::FROM {
            return None;
        }
        let mut join = Join { segments: BTreeSet::new(), rows: Vec::new(), seen: there };
        for Small { id, joins, rows } in small {
            join.segments.extend(joins.into_iter().chain([id]));
            join.rows.extend(rows);
        }
        Some(join)
    }
}

impl Reading for Loading {
    fn wants(&self, name: &str) -> bool {
        segment_id(name).is_none_or(|id| !self.joined.contains(&id))
    }

    fn take(&mut self, listed: Listed, mut segment: Segment) {
        // What is gone need not be named again, and nobody can name more than there is.
        segment.joins.retain(|id| self.there.contains(id));
        self.joined.extend(&segment.joins);
        let rows = segment.len();
        if let Some(id) = segment_id(&listed.name)
            && rows <= self.join_rows / SMALL_SHARE
            && self.small_rows + rows <= self.join_rows
        {
            self.small_rows += rows;
            let joins = std::mem::take(&mut segment.joins);
            self.small.push(Small { id, joins, rows: segment.rows().collect() });
        }
        self.index.add(segment, |_| true);
    }

    fn spoiled(&mut self, _listed: Listed) {}
}

/// The id in the name of a segment.
fn segment_id(name: &str) -> Option<RandomId> {
    let rest = name.strip_prefix(SEGMENTS)?;
    RandomId::from_hex(rest.strip_suffix(JOINED).unwrap_or(rest))
}

pub(super) fn is_joined(name: &str) -> bool {
    name.ends_with(JOINED)
}

/// The name of a segment that nobody has joined anything into.
pub(super) fn segment_name(id: RandomId) -> String {
    format!("{SEGMENTS}{id}")
}

impl Repository {
    /// Loads the index, at most so many rows. What cannot be read is left out: it costs deduplication only.
    pub async fn load_index(&self, max_rows: usize) -> Result<LoadedIndex> {
        let listed = self.segment_names().await?;
        let (mut joined, plain): (Vec<_>, Vec<_>) =
            listed.iter().cloned().partition(|listed| is_joined(&listed.name));
        // By the store's word, which costs requests if it is not so. One is longer than those that it has joined.
        joined.sort_by_key(|listed| std::cmp::Reverse(listed.size));
        let mut loading = Loading::new(&listed, max_rows);
        self.read_segments(joined, &mut loading).await?;
        self.read_segments(plain, &mut loading).await?;
        let mut index = std::mem::take(&mut loading.index);
        index.settle();
        Ok(LoadedIndex { index, join: loading.join() })
    }

    /// All segments.
    pub(super) async fn segment_names(&self) -> Result<Vec<Listed>> {
        list_all(self.store().as_ref(), SEGMENTS).await
    }

    /// Reads these segments in their order, but for those that are not wanted when their turn comes.
    pub(super) async fn read_segments(&self, listed: Vec<Listed>, reading: &mut impl Reading) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        let mut listed = listed.into_iter();
        loop {
            while running.len() < PARALLEL_SEGMENTS
                && let Some(next) = listed.by_ref().find(|listed| reading.wants(&listed.name))
            {
                let repository = self.clone();
                running.spawn(async move { (repository.segment(&next.name).await, next) });
            }
            let Some(joined) = running.join_next().await else { return Ok(()) };
            match joined.map_err(|error| Error::internal("reading the index broke").with_source(error))? {
                (Ok(segment), listed) => reading.take(listed, segment),
                (Err(error), listed) if is_lost_hint(&error) => {
                    tracing::warn!(%error, "an index segment is left out");
                    if is_spoiled_hint(&error) {
                        reading.spoiled(listed);
                    }
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    pub(super) async fn segment(&self, name: &str) -> Result<Segment> {
        let domain = if is_joined(name) { Domain::Joined } else { Domain::Segment };
        let bytes = self.store().get(name, ByteRange::All).await?;
        let (info, sealed) = decode_hint(records::decode_kind(name, &bytes, RecordKind::Segment)?)?;
        let key = self.keys().session_index_key(info.generation, info.session)?;
        let cipher = Cipher::new(info.suite, &key);
        let plain = codec::open_object(&cipher, domain, info.session, sealed, limits::RECORD_LIMIT)
            .map_err(|error| error.context(format!("object {name}")))?;
        match domain {
            Domain::Joined => decode_joined(&plain),
            _ => decode_segment(&plain),
        }
    }
}

impl Session {
    /// Writes an index segment (W6); nothing for no rows.
    pub async fn put_segment(&self, chunks: &[(ChunkId, PackId)]) -> Result<()> {
        for chunks in chunks.chunks(SEGMENT_ROWS) {
            let plain = index::encode_segment(index::rows(chunks));
            let sealed = self.seal_index(Domain::Segment, &plain)?;
            let name = segment_name(RandomId(self.world().random()));
            self.put_hint(&name, RecordKind::Segment, &sealed).await?;
        }
        Ok(())
    }

    /// Writes the last index segment of a backup (W6), with what is to be joined if nobody has joined anything meanwhile:
    /// of many that have read the same segments one is enough.
    pub async fn put_joined(&self, join: Option<Join>, chunks: &[(ChunkId, PackId)]) -> Result<()> {
        let Some(join) = join else { return self.put_segment(chunks).await };
        let is_new = |listed: &Listed| {
            is_joined(&listed.name) && segment_id(&listed.name).is_some_and(|id| !join.seen.contains(&id))
        };
        // A hint that cannot be asked for is no reason to fail.
        let is_joined_by_others = match self.repository().segment_names().await {
            Ok(listed) => listed.iter().any(is_new),
            Err(error) if error.is_of_the_run() => return Err(error),
            Err(error) => {
                tracing::info!(%error, "small index segments are left to the next backup");
                true
            }
        };
        if is_joined_by_others {
            return self.put_segment(chunks).await;
        }
        let has_room = join.rows.len() + chunks.len() <= SEGMENT_ROWS;
        if !has_room {
            self.put_segment(chunks).await?;
        }
        let own = if has_room { chunks } else { &[] };
        let mut rows = index::rows(own);
        rows.extend(join.rows.iter().map(|(prefix, pack)| (&prefix[..], *pack)));
        let sealed = self.seal_index(Domain::Joined, &index::encode_joined(&join.segments, rows))?;
        let name = format!("{}{JOINED}", segment_name(RandomId(self.world().random())));
        self.put_hint(&name, RecordKind::Segment, &sealed).await
    }
}
