//! Hints, as a check looks at them: nobody relies on one, but one that changed says that the store changes what it holds.

use tokio::task::JoinSet;

use super::{
    Repository,
    segments::{PARALLEL_SEGMENTS, is_lost_hint},
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::LineageId,
    store::{ByteRange, list_all},
};

#[cfg(test)]
mod tests;

impl Repository {
    /// Segments and checkpoints that do not open: they cost work, and say that the store changes what it holds.
    pub(crate) async fn unreadable_hints(&self) -> Result<Vec<(String, Error)>> {
        let (mut unreadable, mut denied) = (Vec::new(), Vec::new());
        let mut hints =
            list_all(self.store().as_ref(), "index/").await?.into_iter().map(|object| object.name);
        let mut running = JoinSet::new();
        loop {
            while running.len() < PARALLEL_SEGMENTS
                && let Some(name) = hints.next()
            {
                let repository = self.clone();
                running.spawn(async move { (repository.open_hint(&name).await, name) });
            }
            let Some(joined) = running.join_next().await else { break };
            match joined.map_err(|error| Error::internal("reading a hint broke").with_source(error))? {
                // Gone since it was listed.
                (Err(error), _) if error.kind() == ErrorKind::NotFound => {}
                (Err(error), name) if error.kind() == ErrorKind::Denied => denied.push((name, error)),
                (Err(error), name) if is_lost_hint(&error) => unreadable.push((name, error)),
                (other, _) => other?,
            }
        }
        // Who holds all keys there are holds those of every hint that is true.
        if !denied.is_empty() && self.keys().can_read_data() {
            self.check_keys_unchanged().await?;
            unreadable.append(&mut denied);
        }
        unreadable.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(unreadable)
    }

    async fn open_hint(&self, name: &str) -> Result<()> {
        match checkpoint_of(name) {
            Some((lineage, tag)) => self.checkpoint(name, lineage, tag).await.map(drop),
            None => self.segment(name).await.map(drop),
        }
    }

    /// The bytes of an object, if it is there.
    pub(super) async fn there(&self, name: &str) -> Result<Option<bytes::Bytes>> {
        match self.store().get(name, ByteRange::All).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn checkpoint_of(name: &str) -> Option<(LineageId, crate::id::SessionTag)> {
    let (lineage, _) = name.strip_prefix("index/c")?.split_once('-')?;
    let tag = super::checkpoint::tag_of(name, &format!("index/c{lineage}-"))?;
    Some((LineageId::from_hex(lineage)?, tag))
}
