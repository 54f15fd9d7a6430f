//! Checkpoints: the tree of a backup that may not finish. A hint for the next one; nothing in it is believed before
//! the packs that it names were looked at (W4).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Repository,
    segments::{decode_hint, is_lost_hint},
};
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        metadata::FileTime,
        records::{self, CopiedFrom, PageRef, RecordKind, SourceKind},
        session::{SessionKeyInfo, SessionName},
    },
    id::{LineageId, SessionTag},
    limits,
    store::{ByteRange, list_all},
};

#[cfg(test)]
mod tests;

/// What a backup had done when this was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What was being backed up.
    pub source: SourceKind,
    /// The tree so far.
    pub root: PageRef,
    /// Its levels.
    pub depth: u8,
    /// Keys of the sessions that it refers to.
    pub sessions: Vec<SessionKeyInfo>,
    /// When the backup began to read.
    pub started: Timestamp,
    /// When this was written.
    pub written: Timestamp,
    /// Bytes of contents in the tree: how far it came.
    pub bytes: u64,
    /// The last entry of the tree, if its contents are there in part only.
    pub unfinished: Option<Unfinished>,
    /// What a device or image was like; none for files and streams.
    pub image: Option<ImageState>,
    /// Which snapshot was being copied; none where a source was read.
    #[serde(default)]
    pub copied_from: Option<CopiedFrom>,
}

/// An entry of which only the beginning was stored. In the tree its size is what was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Its path.
    #[serde(with = "hex")]
    pub path: Vec<u8>,
    /// Its whole size in bytes.
    pub size: u64,
}

/// By what a later run tells that a device or image is still what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageState {
    /// Its whole size in bytes.
    pub size: u64,
    /// The grid it is cut on, in bytes.
    pub grid: u32,
    /// The name of this state of it, as given by whoever made a snapshot of the device.
    pub change_id: Option<String>,
    /// Of a regular file: which one, and when it was changed.
    pub file: Option<FileState>,
}

/// Which file, and when it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Last change of the contents: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Last change of the inode.
    pub ctime: (i64, u32),
}

impl FileState {
    /// The later of its two times.
    pub fn changed(&self) -> FileTime {
        let (seconds, nanoseconds) = self.mtime.max(self.ctime);
        FileTime { seconds, nanoseconds }
    }
}

/// Sessions whose checkpoint is read, newest first: each is a request or two.
const SESSIONS_READ: usize = 16;

impl Checkpoint {
    /// Names sort with the newest first, and tell the session: whoever looks for the last checkpoint of a killed
    /// run reads one object, however many there are. A session writes one in a millisecond at most.
    pub(super) fn object(&self, session: SessionName) -> String {
        let age = u64::MAX - u64::try_from(self.written.as_millisecond()).unwrap_or(0);
        format!("index/c{}-{age:016x}{}", session.lineage, session.nonce.tag())
    }
}

/// The session tag in a checkpoint's name.
pub(super) fn tag_of(name: &str, prefix: &str) -> Option<SessionTag> {
    SessionTag::from_hex(name.strip_prefix(prefix)?.get(16..)?)
}

impl Repository {
    /// The last checkpoint of each session of a lineage that committed nothing, newest first. What cannot be read
    /// is left out.
    pub async fn checkpoints(&self, lineage: LineageId) -> Result<Vec<Checkpoint>> {
        let prefix = format!("index/c{lineage}-");
        let mut last: Vec<(SessionTag, String)> = Vec::new();
        for listed in list_all(self.store().as_ref(), &prefix).await? {
            if let Some(tag) = tag_of(&listed.name, &prefix)
                && !last.iter().any(|(known, _)| *known == tag)
            {
                last.push((tag, listed.name));
            }
        }
        if last.is_empty() {
            return Ok(Vec::new());
        }
        let ended: BTreeMap<SessionTag, SessionName> = self
            .session_names("snapshots/", &format!("b{lineage}"))
            .await?
            .into_iter()
            .map(|name| (name.nonce.tag(), name))
            .collect();
        let mut checkpoints = Vec::new();
        for (tag, name) in last.into_iter().take(SESSIONS_READ) {
            if let Some(session) = ended.get(&tag)
                && !self.is_fenced(*session).await?
            {
                continue;
            }
            match self.checkpoint(&name, lineage, tag).await {
                Ok(checkpoint) => checkpoints.push(checkpoint),
                Err(error) if is_lost_hint(&error) => {
                    tracing::info!(%error, "a checkpoint is left out");
                }
                Err(error) => return Err(error),
            }
        }
        checkpoints.sort_by_key(|checkpoint: &Checkpoint| std::cmp::Reverse(checkpoint.written));
        Ok(checkpoints)
    }

    /// When a session last gave a sign of life by a checkpoint, by the writer's clock.
    pub(super) async fn last_checkpoint(&self, session: SessionName) -> Result<Option<Timestamp>> {
        let (lineage, tag) = (session.lineage, session.nonce.tag());
        let prefix = format!("index/c{lineage}-");
        let listed = list_all(self.store().as_ref(), &prefix).await?;
        let Some(newest) = listed.into_iter().find(|object| tag_of(&object.name, &prefix) == Some(tag))
        else {
            return Ok(None);
        };
        match self.checkpoint(&newest.name, lineage, tag).await {
            Ok(checkpoint) => Ok(Some(checkpoint.written)),
            Err(error) if is_lost_hint(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a session that has an end was shut out, or gave up: then its packs may be there for a while.
    async fn is_fenced(&self, session: SessionName) -> Result<bool> {
        let name = session.end_object();
        match self.store().get(&name, ByteRange::All).await {
            Ok(bytes) => {
                let kind = records::decode_record(&name, &bytes).map(|(kind, _)| kind);
                Ok(matches!(kind, Ok(RecordKind::Fenced | RecordKind::Abandoned)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn checkpoint(
        &self,
        name: &str,
        lineage: LineageId,
        tag: SessionTag,
    ) -> Result<Checkpoint> {
        let bytes = self.store().get(name, ByteRange::All).await?;
        let (info, sealed) = decode_hint(records::decode_kind(name, &bytes, RecordKind::Checkpoint)?)?;
        if info.session.lineage != lineage || info.session.nonce.tag() != tag {
            return Err(Error::corrupt(format!("object {name}: it was written as another checkpoint")));
        }
        let key = self.keys().session_metadata_key(info.generation, info.session)?;
        let cipher = Cipher::new(info.suite, &key);
        let plain =
            codec::open_object(&cipher, Domain::Checkpoint, info.session, sealed, limits::RECORD_LIMIT)
                .map_err(|error| error.context(format!("object {name}")))?;
        let checkpoint: Checkpoint = records::from_json(name, &plain)?;
        let levels = 1..=limits::TREE_DEPTH;
        if !checkpoint.root.is_bounded() || !levels.contains(&checkpoint.depth) {
            return Err(Error::corrupt(format!("object {name}: its root page cannot be")));
        }
        Ok(checkpoint)
    }
}
