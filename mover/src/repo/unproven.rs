//! Small objects that no snapshot refers to, as a check looks at them: keys, markers, lists, notes and hints.

use super::{Repository, index::is_lost_hint, session::condemned_id};
use crate::{
    error::{Error, ErrorKind, Result},
    format::records::{self, Condemned, Damaged, Final, KeyFile, RecordKind},
    id::LineageId,
    monitor::Problem,
    store::{ByteRange, list_all},
};

impl Repository {
    /// Key objects that cannot be read: nobody may notice until the other key is lost.
    pub(crate) async fn unreadable_keys(&self) -> Result<Vec<(String, Error)>> {
        let mut unreadable = Vec::new();
        for object in list_all(self.store().as_ref(), "keys/").await? {
            let Some(bytes) = self.there(&object.name).await? else { continue };
            let read = records::decode_kind(&object.name, &bytes, RecordKind::Key)
                .and_then(|body| records::from_json::<KeyFile>(&object.name, body));
            unreadable.extend(read.err().map(|error| (object.name, error)));
        }
        Ok(unreadable)
    }

    /// Markers, lists and notes that claim something and cannot prove it.
    pub(crate) async fn unproven(&self) -> Result<Vec<Problem>> {
        let (_, mut problems) = self.marks("forgotten/", "").await?;
        for object in list_all(self.store().as_ref(), "gc/").await? {
            let name = object.name.as_str();
            let Some(bytes) = self.there(name).await? else { continue };
            let proven = match condemned_id(name) {
                Some(id) => {
                    self.open_signed::<Condemned>(name, RecordKind::Condemned, &bytes).and_then(|list| {
                        if list.collection == id {
                            Ok(())
                        } else {
                            Err(Error::corrupt("it speaks of another list"))
                        }
                    })
                }
                None => self.open_signed::<Final>(name, RecordKind::Final, &bytes).map(|_| ()),
            };
            problems.extend(proven.err().map(|error| super::ends::untrue(name, &error.to_string())));
        }
        for object in list_all(self.store().as_ref(), "damaged/").await? {
            let name = object.name.as_str();
            let Some(bytes) = self.there(name).await? else { continue };
            let proven = self.open_signed::<Damaged>(name, RecordKind::Damaged, &bytes);
            problems.extend(proven.err().map(|error| super::ends::untrue(name, &error.to_string())));
        }
        Ok(problems)
    }

    /// Segments and checkpoints that do not open: they cost work, and say that the store changes what it holds.
    pub(crate) async fn unreadable_hints(&self) -> Result<Vec<(String, Error)>> {
        let mut unreadable = Vec::new();
        for object in list_all(self.store().as_ref(), "index/").await? {
            let read = match checkpoint_of(&object.name) {
                Some((lineage, tag)) => self.checkpoint(&object.name, lineage, tag).await.map(|_| ()),
                None => self.segment(&object.name).await.map(|_| ()),
            };
            match read {
                // Gone since it was listed, or of keys that are not held.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {}
                Err(error) if is_lost_hint(&error) => unreadable.push((object.name, error)),
                other => other?,
            }
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
