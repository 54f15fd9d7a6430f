//! Whether a thing is as an earlier run had it: then it is taken over, otherwise it is read.

use super::{
    dispatch::{Dispatcher, Gathered},
    earlier::Found,
    resume::Begun,
    worker::BatchItem,
};
use crate::{
    error::Result,
    format::{
        entry::Entry,
        metadata::{FileTime, Kind, Metadata},
    },
    monitor::Progress,
    source::walk::Walked,
};

/// What the dispatcher meets next, in tree order.
pub(super) enum Met {
    /// A name in the file system.
    Walked(Walked),
    /// An entry of the snapshot that is copied; its contents are in the other repository.
    Stored(Entry),
}

impl Met {
    fn path(&self) -> Vec<u8> {
        match self {
            Self::Walked(walked) => walked.path(),
            Self::Stored(entry) => entry.path.clone(),
        }
    }

    fn kind(&self) -> &Kind {
        match self {
            Self::Walked(walked) => &walked.kind,
            Self::Stored(entry) => &entry.kind,
        }
    }

    fn metadata(&self) -> &Metadata {
        match self {
            Self::Walked(walked) => &walked.metadata,
            Self::Stored(entry) => &entry.metadata,
        }
    }

    fn has_contents(&self) -> bool {
        matches!(self.kind(), Kind::File | Kind::Image)
    }
}

impl Dispatcher<'_> {
    /// Takes the next one over from an earlier run, or has it read.
    pub(super) fn meet(&mut self, met: Met) -> Result<()> {
        self.met += 1;
        let path = met.path();
        let racy_from = self.earlier.parent.racy_from;
        let parent = self.earlier.parent.find(&path);
        match parent {
            Some(parent)
                if self.is_unchanged(&parent.entry.metadata, &parent.entry.kind, &met, racy_from) =>
            {
                if met.has_contents() {
                    self.statistics.files_unmodified += 1;
                }
                match parent.is_sound() {
                    true => self.take_over(parent, met),
                    // What it names is about to be deleted, or was moved: it is read again, once.
                    false => self.not_as_parent(&path, met, Some(parent)),
                }
            }
            parent => {
                if met.has_contents() {
                    match &parent {
                        Some(_) => self.statistics.files_changed += 1,
                        None => self.statistics.files_new += 1,
                    }
                }
                self.not_as_parent(&path, met, parent)
            }
        }
    }

    /// Takes an entry from an unfinished run if it is as it was then; otherwise it is read.
    fn not_as_parent(&mut self, path: &[u8], met: Met, parent: Option<Found>) -> Result<()> {
        let mut hints: Vec<Found> = Vec::new();
        let mut begun = None;
        for index in 0..self.earlier.checkpoints.len() {
            let Some(mut found) = self.earlier.checkpoints[index].find(path) else { continue };
            let tree = &self.earlier.checkpoints[index];
            let (unfinished, racy_from) = (tree.unfinished_size(path), tree.racy_from);
            let covered = found.entry.metadata.size;
            found.entry.metadata.size = unfinished.unwrap_or(covered);
            let unchanged = self.is_unchanged(&found.entry.metadata, &found.entry.kind, &met, racy_from);
            match unfinished {
                None if unchanged && found.is_sound() => {
                    self.continued.file(&found.entry, covered);
                    return self.take_over(found, met);
                }
                Some(_) if unchanged && begun.is_none() => begun = Some(Begun { found, covered }),
                _ => hints.push(found),
            }
        }
        hints.extend(parent);
        match met {
            Met::Walked(walked) => self.changed(walked, hints, begun),
            Met::Stored(entry) => self.stored(entry, hints, begun),
        }
    }

    fn take_over(&mut self, found: Found, met: Met) -> Result<()> {
        found.carry_keys();
        let mut earlier = found.entry;
        if met.has_contents() {
            Progress::add(&self.monitor.progress().bytes, met.metadata().size);
        }
        let entry = match met {
            // Hard-link groups are told by device and inode of one and the same walk, never by an older one's.
            Met::Walked(walked) => {
                let xattrs = std::mem::take(&mut earlier.metadata.xattrs);
                earlier.metadata = Metadata { xattrs, flags: earlier.metadata.flags, ..walked.metadata };
                earlier
            }
            // It has all its attributes; only the contents are elsewhere.
            Met::Stored(entry) => Entry { content: earlier.content, ..entry },
        };
        self.push(Gathered::Ready(BatchItem::Done(entry)), 0)
    }

    /// Kind, size and times as the earlier run has them, and not so young that a change could hide. Times say
    /// nothing of an image.
    fn is_unchanged(&self, old: &Metadata, kind: &Kind, met: &Met, racy_from: FileTime) -> bool {
        let new = met.metadata();
        let same = kind == met.kind()
            && *kind != Kind::Image
            && old.size == new.size
            && old.mtime == new.mtime
            && (self.options.ignore_ctime || old.ctime == new.ctime)
            && (self.options.ignore_inode || old.inode == new.inode)
            && old.mode == new.mode
            && (old.uid, old.gid) == (new.uid, new.gid);
        same && !self.options.force
            && old.mtime < racy_from
            && (self.options.ignore_ctime || old.ctime < racy_from)
    }
}
