//! What earlier runs of the same source had: the parent snapshot, and checkpoints of runs that did not finish.
//!
//! The parent is asked first. It is believed as it is (W3), where of a checkpoint every pack must be looked at; and
//! what is unchanged since the parent has the same contents in both. A checkpoint serves for what the parent does
//! not have, or has otherwise.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::{
    parent::{PageOpener, ParentStream, SharedPages},
    vouch::Vouch,
};
use crate::{
    error::{Error, Result},
    format::{
        entry::{Content, Entry},
        metadata::FileTime,
        records::{CopiedFrom, Snapshot, SourceKind},
    },
    pipeline::{bridge::Bridge, tree::EarlierPages},
    repo::{Checkpoint, Repository},
};

/// Unfinished runs that are gone on from: the last one, and the one that came furthest before it. Each has a few
/// open pages in memory.
const CHECKPOINTS_USED: usize = 2;
/// Files that were changed within so many seconds before an earlier run began, or later, are read again: their
/// times may not tell of a change in the same tick.
const RACY_SECONDS: i64 = 2;

/// The checkpoints to go on from, of those that a lineage has (newest first): younger than the parent, and each
/// with more in it than a newer one.
pub(super) fn choose(
    checkpoints: Vec<Checkpoint>,
    source: SourceKind,
    parent: Option<&Snapshot>,
) -> Vec<Checkpoint> {
    let mut chosen: Vec<Checkpoint> = Vec::new();
    for checkpoint in checkpoints {
        let is_younger = parent.is_none_or(|parent| parent.finished < checkpoint.written);
        let has_more = chosen.last().is_none_or(|last| last.bytes < checkpoint.bytes);
        if checkpoint.source == source && is_younger && has_more {
            chosen.truncate(CHECKPOINTS_USED - 1);
            chosen.push(checkpoint);
        }
    }
    chosen
}

/// Trees of earlier runs, read beside the walk.
pub(super) struct Earlier {
    pub(super) parent: Tree,
    pub(super) checkpoints: Vec<Tree>,
}

/// One of them.
pub(super) struct Tree {
    stream: ParentStream,
    opener: Option<Arc<PageOpener>>,
    /// The grid that an image in it is cut on, in bytes; 0 where it is cut by contents.
    pub(super) grid: u32,
    /// Which snapshot of another repository it is a copy of, or was to become one.
    pub(super) copied_from: Option<CopiedFrom>,
    /// What was changed at this moment or later may have changed again without a trace.
    pub(super) racy_from: FileTime,
    /// The checkpoint that it is of; none for the parent.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// An entry that an earlier run had, and what opens its pages.
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) opener: Arc<PageOpener>,
}

impl Earlier {
    /// Starts to read.
    pub(super) fn start(
        repository: &Repository,
        bridge: &Arc<Bridge>,
        parent: Option<&Snapshot>,
        checkpoints: &[Checkpoint],
        pages: &Arc<Mutex<EarlierPages>>,
    ) -> Self {
        let opener = |infos: &[_], vouch| {
            let (repository, bridge) = (repository.clone(), Arc::clone(bridge));
            Arc::new(PageOpener::new(repository, bridge, infos, SharedPages::clone(pages), vouch))
        };
        let mut tree = Tree::none();
        if let Some(parent) = parent {
            (tree.racy_from, tree.grid) = (racy_from(parent.started), parent.grid);
            tree.copied_from = parent.copied_from;
            if let Some(root) = &parent.root {
                let opener = opener(&parent.sessions, None);
                tree.stream = ParentStream::start(Arc::clone(&opener), root.to_chunk(), parent.depth);
                tree.opener = Some(opener);
            }
        }
        let vouch = Arc::new(Vouch::new(Arc::clone(bridge)));
        let unfinished = |checkpoint: &Checkpoint| {
            let opener = opener(&checkpoint.sessions, Some(Arc::clone(&vouch)));
            let root = checkpoint.root.to_chunk();
            Tree {
                stream: ParentStream::start(Arc::clone(&opener), root, checkpoint.depth),
                opener: Some(opener),
                copied_from: checkpoint.copied_from,
                grid: checkpoint.image.as_ref().map_or(0, |image| image.grid),
                racy_from: racy_from(checkpoint.started),
                checkpoint: Some(checkpoint.clone()),
            }
        };
        Self { parent: tree, checkpoints: checkpoints.iter().map(unfinished).collect() }
    }

    /// What is compared is as of this moment, not of now: what an earlier run read later than that may differ from
    /// it without a trace.
    pub(super) fn compare_as_of(&mut self, moment: Timestamp) {
        for tree in self.checkpoints.iter_mut().chain([&mut self.parent]) {
            tree.racy_from = tree.racy_from.min(racy_from(moment));
        }
    }

    /// What ended the parent's tree early, once. That of a checkpoint only is a hint less, but for a defect.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        for tree in &mut self.checkpoints {
            if let Some(error) = tree.stream.take_error() {
                if error.is_of_the_run() {
                    return Some(error);
                }
                tracing::info!(%error, "the rest of a checkpoint cannot be used");
            }
        }
        self.parent.stream.take_error()
    }
}

impl Tree {
    fn none() -> Self {
        let racy_from = FileTime::default();
        Self {
            stream: ParentStream::empty(),
            opener: None,
            grid: 0,
            copied_from: None,
            racy_from,
            checkpoint: None,
        }
    }

    /// The entry of this path. Paths must be asked for in tree order.
    pub(super) fn find(&mut self, path: &[u8]) -> Option<Found> {
        let entry = self.stream.find(path)?;
        Some(Found { entry, opener: Arc::clone(self.opener.as_ref()?) })
    }

    /// The whole size of this entry, if the checkpoint has only the beginning of its contents.
    pub(super) fn unfinished_size(&self, path: &[u8]) -> Option<u64> {
        let unfinished = self.checkpoint.as_ref()?.unfinished.as_ref()?;
        (unfinished.path == path).then_some(unfinished.size)
    }
}

impl Found {
    /// Whether every pack that it names may be named again.
    pub(super) fn is_sound(&self) -> Result<bool> {
        match self.opener.require_all(&self.entry.content) {
            Ok(()) => Ok(true),
            Err(error) if error.is_of_the_run() => Err(error),
            Err(error) => {
                let path = crate::monitor::escape_path(&self.entry.path);
                tracing::info!(%error, path, "it is read again");
                Ok(false)
            }
        }
    }

    /// Has the new snapshot carry the keys that its contents need.
    pub(super) fn carry_keys(&self) -> Result<()> {
        self.opener.carry_keys(&self.entry.content)
    }

    /// The first that has few runs, all of which may be named again.
    pub(super) fn first_inline(all: Vec<Self>) -> Result<Option<Entry>> {
        for found in all {
            if matches!(found.entry.content, Content::Inline(_)) && found.is_sound()? {
                return Ok(Some(found.entry));
            }
        }
        Ok(None)
    }
}

fn racy_from(started: Timestamp) -> FileTime {
    FileTime { seconds: started.as_second() - RACY_SECONDS, nanoseconds: 0 }
}
