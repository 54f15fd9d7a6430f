//! Which packs of a run that did not finish may be named again (W4).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::{Error, Result},
    format::{entry::Run, frame::ChunkRef},
    id::PackId,
    pipeline::bridge::Bridge,
};

/// Packs whose verdict is remembered: 4 TiB of them, about 5 MB. Beyond, footers are fetched again.
const VERDICTS: usize = 1 << 17;
/// Footers that are fetched at once: each is up to a megabyte when it is open.
const FOOTERS_AT_ONCE: usize = 8;

/// Looks at packs before they are named again, each once.
#[derive(Debug)]
pub(crate) struct Vouch {
    bridge: Arc<Bridge>,
    verdicts: Mutex<HashMap<PackId, bool>>,
}

impl Vouch {
    /// Asks the session behind this bridge.
    pub(crate) fn new(bridge: Arc<Bridge>) -> Self {
        Self { bridge, verdicts: Mutex::default() }
    }

    /// Whether all of these packs may be named again.
    pub(crate) fn all(&self, packs: &[PackId]) -> Result<bool> {
        Ok(self.verdicts(packs)?.into_iter().all(|sound| sound))
    }

    /// Whether the pack of this chunk may be named again.
    pub(crate) fn chunk(&self, chunk: &ChunkRef) -> Result<bool> {
        self.all(&pack_of(chunk).map_or_else(Vec::new, |pack| vec![pack]))
    }

    fn verdicts(&self, packs: &[PackId]) -> Result<Vec<bool>> {
        let known = |packs: &[PackId]| -> Vec<Option<bool>> {
            let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
            packs.iter().map(|pack| verdicts.get(pack).copied()).collect()
        };
        let mut found = known(packs);
        for (packs, found) in packs.chunks(FOOTERS_AT_ONCE).zip(found.chunks_mut(FOOTERS_AT_ONCE)) {
            let asked: Vec<PackId> = packs
                .iter()
                .zip(&*found)
                .filter(|(_, found)| found.is_none())
                .map(|(pack, _)| *pack)
                .collect();
            if asked.is_empty() {
                continue;
            }
            let answers = self.ask(asked)?;
            for (pack, found) in packs.iter().zip(found) {
                *found = found.or_else(|| answers.get(pack).copied());
            }
            let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
            if verdicts.len() > VERDICTS {
                verdicts.clear();
            }
            verdicts.extend(answers);
        }
        Ok(found.into_iter().map(|found| found.unwrap_or(false)).collect())
    }

    fn ask(&self, packs: Vec<PackId>) -> Result<HashMap<PackId, bool>> {
        let session = Arc::clone(self.bridge.session());
        self.bridge.wait(async move {
            let mut running = tokio::task::JoinSet::new();
            for pack in packs {
                let session = Arc::clone(&session);
                running.spawn(async move { (pack, session.reusable(pack).await) });
            }
            let mut verdicts = HashMap::new();
            while let Some(joined) = running.join_next().await {
                let (pack, footer) =
                    joined.map_err(|error| Error::internal("looking at a pack broke").with_source(error))?;
                let sound = footer?.is_some();
                if !sound {
                    tracing::info!(%pack, "a pack of a checkpoint is gone, damaged or condemned");
                }
                verdicts.insert(pack, sound);
            }
            Ok(verdicts)
        })
    }
}

/// The packs that these runs name, neighbours that are equal as one.
pub(crate) fn packs_of<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<PackId> {
    let mut packs: Vec<PackId> = Vec::new();
    for run in runs {
        if let Run::Chunk(chunk) = run
            && let Some(pack) = pack_of(chunk)
            && packs.last() != Some(&pack)
        {
            packs.push(pack);
        }
    }
    packs.sort_unstable();
    packs.dedup();
    packs
}

fn pack_of(chunk: &ChunkRef) -> Option<PackId> {
    Some(chunk.frame.place()?.pack)
}
