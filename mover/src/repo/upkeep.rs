//! Upkeep of the index: merging segments, and writing it anew from the footers of all packs.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Repository,
    index::{DedupIndex, INDEX_ROWS_MAX, PREFIX_LENGTH, SEGMENT_ROWS, Segment, encode_segment},
    segments::{Reading, decode_hint, encode_hint, is_joined, is_lost_hint, is_spoiled_hint, segment_name},
};
use crate::{
    cancel::Cancel,
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        frame::Suite,
        pack::parse_pack_object,
        records::{self, RecordKind},
        session::{SessionKeyInfo, SessionKind, SessionName},
    },
    id::{LineageId, PackId, RandomId, SessionNonce},
    keys::SEALED_KEY_LENGTH,
    limits,
    monitor::{Monitor, Problem, Progress},
    store::{self, ByteRange, Listed, list_all},
};

#[cfg(test)]
mod tests;

/// What a change of the index begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPlan {
    /// Segments that are read, or replaced.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs.
    pub packs: u64,
}

/// What a change of the index ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexReport {
    /// Rows: chunks that can be found.
    pub rows: u64,
    /// Packs whose footer could not be read: their chunks cannot be found.
    pub unreadable_packs: u64,
}

/// How long a store that did not answer is left alone before a merged segment is sent under another name.
const BEFORE_ANOTHER_NAME: Duration = Duration::from_millis(500);
/// Footers that are fetched at once.
const PARALLEL_FOOTERS: usize = 16;

/// Segments that are less than half full are merged when there are more than this many: each is a request of every
/// writer.
const SMALL_SEGMENTS_KEPT: usize = 8;
/// Bytes of a segment that is half full.
const HALF_SEGMENT_BYTES: u64 = (SEGMENT_ROWS * (PREFIX_LENGTH + 2) / 2) as u64;

/// The rows of segments that are to be stored anew.
struct Merging<F> {
    index: DedupIndex,
    is_there: F,
    /// Segments that may go then.
    read: Vec<String>,
}

impl<F: Fn(PackId) -> bool> Reading for Merging<F> {
    /// All: what one claims to have joined may be missing from it.
    fn wants(&self, _name: &str) -> bool {
        true
    }

    fn take(&mut self, listed: Listed, segment: Segment) {
        self.index.add(segment, &self.is_there);
        self.read.push(listed.name);
    }

    /// Nobody can read this one, and everybody tries: it goes with those that were merged.
    fn spoiled(&mut self, listed: Listed) {
        self.read.push(listed.name);
    }
}

impl Repository {
    /// Merges these segments if it is worth it, without the rows of packs that are gone, and drops checkpoints
    /// whose session has ended. Any process may do this at any time: the index carries no safety.
    pub(super) async fn merge_index(
        &self,
        segments: &[Listed],
        is_there: impl Fn(PackId) -> bool,
        cancel: &Cancel,
    ) -> Result<()> {
        let small = segments.iter().filter(|segment| segment.size < HALF_SEGMENT_BYTES).count();
        let bytes: u64 = segments.iter().map(|segment| segment.size).sum();
        let too_long = bytes / (PREFIX_LENGTH as u64 + 2) > INDEX_ROWS_MAX as u64 * 5 / 4;
        // What a joined one claims to have joined is believed by writers only.
        let has_joined = segments.iter().any(|segment| is_joined(&segment.name));
        if small > SMALL_SEGMENTS_KEPT || has_joined || too_long {
            self.merge_segments(segments, is_there, cancel).await?;
        }
        for listed in list_all(self.store().as_ref(), "index/c").await? {
            let bytes = match self.store().get(&listed.name, ByteRange::All).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_of_the_run() => return Err(error),
                Err(_) => continue,
            };
            let body = records::decode_kind(&listed.name, &bytes, RecordKind::Checkpoint);
            let is_done = match body.and_then(decode_hint) {
                Ok((info, _)) => {
                    self.exists(&info.session.end_object()).await?
                        || !self.exists(&info.session.session_object()).await?
                }
                // Nobody can use it.
                Err(error) => is_spoiled_hint(&error),
            };
            if is_done {
                self.store().delete(&listed.name).await?;
            }
        }
        Ok(())
    }

    /// Stopped at any point it has lost nothing: rows are stored anew before the old ones go.
    async fn merge_segments(
        &self,
        segments: &[Listed],
        is_there: impl Fn(PackId) -> bool,
        cancel: &Cancel,
    ) -> Result<usize> {
        cancel.check()?;
        let mut merging = Merging { index: DedupIndex::new(INDEX_ROWS_MAX), is_there, read: Vec::new() };
        self.read_segments(segments.to_vec(), &mut merging).await?;
        let Merging { mut index, read, .. } = merging;
        index.settle();
        cancel.check()?;
        self.put_merged(&index).await?;
        for name in &read {
            cancel.check()?;
            self.store().delete(name).await?;
        }
        Ok(index.len())
    }

    /// A merged segment is sealed under the name of a session that never was, so its counter starts afresh.
    async fn put_merged(&self, index: &DedupIndex) -> Result<()> {
        for rows in index.parts(SEGMENT_ROWS) {
            let rows = encode_segment(rows);
            let mut attempts = 1..limits::PACK_ATTEMPTS;
            // An unclear answer abandons the name for another (N1). Rows that are there twice cost their bytes and nothing else.
            while let Err(error) = self.put_merged_rows(&rows).await {
                if error.kind() != ErrorKind::Unavailable || attempts.next().is_none() {
                    return Err(error);
                }
                self.world().sleep(BEFORE_ANOTHER_NAME).await;
            }
        }
        Ok(())
    }

    async fn put_merged_rows(&self, rows: &[u8]) -> Result<()> {
        let session = SessionName {
            kind: SessionKind::Repack,
            lineage: LineageId::default(),
            nonce: SessionNonce(self.world().random()),
        };
        let generation = self.keys().newest();
        let suite = Suite::ChaCha20Poly1305;
        let cipher = Cipher::new(suite, &self.keys().session_index_key(generation, session)?);
        let sealed = codec::seal_object(&cipher, Domain::Segment, session, 0, rows)?;
        let info = SessionKeyInfo { session, generation, suite, sealed_data_key: vec![0; SEALED_KEY_LENGTH] };
        let name = segment_name(RandomId(self.world().random()));
        let body = records::encode_record(RecordKind::Segment, &encode_hint(&info, &sealed));
        self.store().put_if_absent(&name, body.into()).await.map(|_put| ())
    }
}

impl Repository {
    /// What a merge or a repair of the index has before it.
    pub async fn plan_index(&self) -> Result<IndexPlan> {
        let segments = self.segment_names().await?;
        let bytes = segments.iter().map(|segment| segment.size).sum();
        let packs = self.pack_ids().await?.len() as u64;
        Ok(IndexPlan { segments: segments.len() as u64, bytes, packs })
    }

    /// Merges all segments, and drops the rows of packs that are gone.
    pub async fn merge_whole_index(&self, cancel: &Cancel) -> Result<IndexReport> {
        self.check_maintainable()?;
        // Segments that exist before packs are listed name only packs that the listing has, or that are gone.
        let segments = self.segment_names().await?;
        let packs = self.pack_ids().await?;
        let rows = self.merge_segments(&segments, |pack| packs.contains(&pack), cancel).await? as u64;
        self.store().flush().await?;
        Ok(IndexReport { rows, unreadable_packs: 0 })
    }

    /// Writes the index anew from the footers of all packs. Segments that others write meanwhile stay.
    pub async fn repair_index(&self, monitor: &dyn Monitor, cancel: &Cancel) -> Result<IndexReport> {
        self.check_maintainable()?;
        let segments = self.segment_names().await?;
        let packs = self.pack_ids().await?;
        monitor.phase("reading footers");
        Progress::add(&monitor.progress().entries_expected, packs.len() as u64);
        let mut index = DedupIndex::new(INDEX_ROWS_MAX);
        let mut unreadable_packs = 0;
        let mut running = tokio::task::JoinSet::new();
        let mut packs = packs.into_iter();
        loop {
            cancel.check()?;
            while running.len() < PARALLEL_FOOTERS
                && let Some(pack) = packs.next()
            {
                let repository = self.clone();
                running.spawn(async move { (pack, repository.footer(pack).await) });
            }
            let Some(joined) = running.join_next().await else { break };
            let (pack, footer) =
                joined.map_err(|error| Error::internal("reading a footer broke").with_source(error))?;
            Progress::add(&monitor.progress().entries, 1);
            match footer {
                Ok(found) => index.add(Segment::of_footer(pack, &found.footer), |_| true),
                Err(error) if is_lost_hint(&error) => {
                    unreadable_packs += 1;
                    monitor.problem(Problem { what: format!("pack {pack}"), message: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        index.settle();
        self.put_merged(&index).await?;
        for segment in segments {
            self.store().delete(&segment.name).await?;
        }
        self.store().flush().await?;
        Ok(IndexReport { rows: index.len() as u64, unreadable_packs })
    }

    async fn pack_ids(&self) -> Result<BTreeSet<PackId>> {
        let mut packs = BTreeSet::new();
        store::for_each(self.store().as_ref(), "packs/", |object| {
            packs.extend(parse_pack_object(&object.name).map(|(pack, _)| pack));
        })
        .await?;
        Ok(packs)
    }
}
