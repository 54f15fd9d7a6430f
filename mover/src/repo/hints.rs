//! Hints, as a check looks at them: nobody relies on one, but one that changed says that the store changes what it holds.

use super::{Repository, index::is_lost_hint};
use crate::{
    error::{Error, ErrorKind, Result},
    id::LineageId,
    store::{ByteRange, list_all},
};

impl Repository {
    /// Segments and checkpoints that do not open: they cost work, and say that the store changes what it holds.
    pub(crate) async fn unreadable_hints(&self) -> Result<Vec<(String, Error)>> {
        let (mut unreadable, mut denied) = (Vec::new(), Vec::new());
        for object in list_all(self.store().as_ref(), "index/").await? {
            let read = match checkpoint_of(&object.name) {
                Some((lineage, tag)) => self.checkpoint(&object.name, lineage, tag).await.map(|_| ()),
                None => self.segment(&object.name).await.map(|_| ()),
            };
            match read {
                // Gone since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Denied => denied.push((object.name, error)),
                Err(error) if is_lost_hint(&error) => unreadable.push((object.name, error)),
                other => other?,
            }
        }
        // Who holds all keys there are holds those of every hint that is true.
        if !denied.is_empty() && self.keys().can_read_data() {
            self.check_keys_unchanged().await?;
            unreadable.append(&mut denied);
        }
        Ok(unreadable)
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
