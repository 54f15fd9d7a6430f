//! Whether a thing is as an earlier run had it: then it is taken over, otherwise it is read.

use super::{
    dispatch::{Dispatcher, Gathered},
    earlier::Found,
    resume::Begun,
    worker::{BatchItem, Renewed},
};
use crate::{
    error::Result,
    format::{
        entry::{Content, Entry, Run},
        frame::ChunkRef,
        metadata::{FileTime, Kind, Metadata},
        records::{CopiedFrom, Statistics},
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
                if self.is_unchanged(&parent.entry.metadata, &parent.entry.kind, &met, racy_from)
                    && self.has_its_contents(&met, self.earlier.parent.copied_from, true)? =>
            {
                if met.has_contents() {
                    self.statistics.files_unmodified += 1;
                }
                match parent.is_sound()? {
                    true => self.take_over(parent, met, racy_from),
                    // What it names is about to be deleted, or was moved: it is read again, once.
                    false => self.not_as_parent(&path, met, Some(parent), None),
                }
            }
            parent => {
                let alike = |parent: &&Found| {
                    met.has_contents() && self.is_alike(&parent.entry.metadata, &parent.entry.kind, &met)
                };
                let before = parent.as_ref().filter(alike).map(|parent| parent.entry.content.clone());
                if met.has_contents() {
                    match &parent {
                        Some(_) => self.statistics.files_changed += 1,
                        None => self.statistics.files_new += 1,
                    }
                }
                self.not_as_parent(&path, met, parent, before)
            }
        }
    }

    /// Takes an entry from an unfinished run if it is as it was then; otherwise it is read. `before`: what the parent has
    /// of a file that looks the same, and was counted as changed until its contents are known.
    fn not_as_parent(
        &mut self,
        path: &[u8],
        met: Met,
        parent: Option<Found>,
        before: Option<Content>,
    ) -> Result<()> {
        let mut hints: Vec<Found> = Vec::new();
        let mut begun = None;
        for index in 0..self.earlier.checkpoints.len() {
            let Some(mut found) = self.earlier.checkpoints[index].find(path) else { continue };
            let tree = &self.earlier.checkpoints[index];
            let (unfinished, racy_from) = (tree.unfinished_size(path), tree.racy_from);
            let copied_from = tree.copied_from;
            let covered = found.entry.metadata.size;
            found.entry.metadata.size = unfinished.unwrap_or(covered);
            let unchanged = self.is_unchanged(&found.entry.metadata, &found.entry.kind, &met, racy_from)
                && self.has_its_contents(&met, copied_from, false)?;
            match unfinished {
                None if unchanged && found.is_sound()? => {
                    self.continued.file(&found.entry, covered);
                    if before.is_some_and(|before| same_contents(&before, &found.entry.content)) {
                        was_unmodified(&mut self.statistics, 1);
                    }
                    return self.take_over(found, met, racy_from);
                }
                Some(_) if unchanged && begun.is_none() => begun = Some(Begun { found, covered }),
                _ => hints.push(found),
            }
        }
        hints.extend(parent);
        match met {
            Met::Walked(walked) => self.changed(walked, hints, begun, before),
            Met::Stored(entry) => self.stored(entry, hints, begun),
        }
    }

    fn take_over(&mut self, found: Found, met: Met, racy_from: FileTime) -> Result<()> {
        found.carry_keys()?;
        let mut earlier = found.entry;
        if met.has_contents() {
            Progress::add(&self.monitor.progress().bytes, met.metadata().size);
        }
        let entry = match met {
            // Contents may be believed without this time, if so asked; a change of attributes shows in nothing else.
            Met::Walked(walked)
                if walked.metadata.ctime != earlier.metadata.ctime || earlier.metadata.ctime >= racy_from =>
            {
                let renewed = Renewed { walked, content: earlier.content };
                return self.push(Gathered::Ready(BatchItem::Renewed(Box::new(renewed))), 0);
            }
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

    /// Whether times that are the same mean contents that are: so it is in a file system, by the rules of those who back it
    /// up, and of a snapshot it can be known.
    fn has_its_contents(&self, met: &Met, copied_from: Option<CopiedFrom>, is_parent: bool) -> Result<bool> {
        match met {
            Met::Stored(entry) if met.has_contents() => self.has_contents_of(entry, copied_from, is_parent),
            Met::Stored(_) | Met::Walked(_) => Ok(true),
        }
    }

    /// Kind, size and times as the earlier run has them, and not so young that a change could hide.
    fn is_unchanged(&self, old: &Metadata, kind: &Kind, met: &Met, racy_from: FileTime) -> bool {
        self.is_alike(old, kind, met)
            && !self.options.force
            && old.mtime < racy_from
            && (self.options.ignore_ctime || old.ctime < racy_from)
    }

    /// Kind, size and times as the earlier run has them. Times say nothing of an image.
    fn is_alike(&self, old: &Metadata, kind: &Kind, met: &Met) -> bool {
        let new = met.metadata();
        kind == met.kind()
            && *kind != Kind::Image
            && old.size == new.size
            && old.mtime == new.mtime
            && (self.options.ignore_ctime || old.ctime == new.ctime)
            && (self.options.ignore_inode || old.inode == new.inode)
            && old.mode == new.mode
            && (old.uid, old.gid) == (new.uid, new.gid)
    }
}

/// Files that were read because they were too young to be believed turned out to be the same.
pub(super) fn was_unmodified(statistics: &mut Statistics, files: u64) {
    statistics.files_changed = statistics.files_changed.saturating_sub(files);
    statistics.files_unmodified += files;
}

/// Whether two lists have the same contents, wherever these are stored. Of long lists the pages are compared: one that
/// only names other places counts as another.
pub(super) fn same_contents(old: &Content, new: &Content) -> bool {
    let same_run = |(old, new): (&Run, &Run)| match (old, new) {
        (Run::Chunk(old), Run::Chunk(new)) => old.id == new.id,
        (Run::Hole(old), Run::Hole(new)) => old == new,
        _ => false,
    };
    match (old, new) {
        (Content::Inline(old), Content::Inline(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(same_run)
        }
        (Content::Paged { depth: old_depth, pages: old }, Content::Paged { depth, pages: new }) => {
            let named = |pages: &[(ChunkRef, u64)]| -> Vec<_> {
                pages.iter().map(|(page, bytes)| (page.id, *bytes)).collect()
            };
            old_depth == depth && named(old) == named(new)
        }
        _ => false,
    }
}
