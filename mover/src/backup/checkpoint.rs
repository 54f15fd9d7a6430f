//! Checkpoints: what a backup that is stopped or killed leaves for the next one.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    cancel::Cancel,
    clock::World,
    error::{Error, ErrorKind, Result},
    format::records::{CopiedFrom, SourceKind},
    limits,
    monitor::{Monitor, Progress},
    pipeline::{
        frames::Shared,
        packer::Packer,
        tree::{Pages, TreeWriter},
    },
    repo::{Checkpoint, ImageState, Repository, Unfinished},
};

/// Checkpoints take at least this share of the time apart, so that a long backup writes few: one of ten hours some
/// hundred, each a record that stays until maintenance. A killed run repeats at most that share.
const INTERVAL_SHARE: u32 = 20;
/// How long a run that was asked to stop may take for a last checkpoint: somebody waits.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What checkpoints of one run say alike.
pub(super) struct About {
    pub(super) repository: Repository,
    pub(super) source: SourceKind,
    pub(super) started: Timestamp,
    pub(super) image: Option<ImageState>,
    pub(super) copied_from: Option<CopiedFrom>,
    /// Least time between two.
    pub(super) interval: Duration,
    /// Rows of the index that are held in memory at most before a segment is written.
    pub(super) rows: usize,
}

/// Writes a checkpoint when enough was done.
pub(super) struct Checkpoints {
    about: About,
    world: World,
    shared: Arc<Shared>,
    metadata: Arc<Packer>,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
    began: Duration,
    last: Duration,
    last_moved: u64,
    last_written: Timestamp,
}

impl Checkpoints {
    /// The first one is due after one interval.
    pub(super) fn new(
        about: About,
        shared: Arc<Shared>,
        metadata: Arc<Packer>,
        monitor: Arc<dyn Monitor>,
        cancel: Cancel,
    ) -> Self {
        let world = about.repository.world().clone();
        let began = world.clock.monotonic();
        let last_written = Timestamp::MIN;
        let last_moved = Progress::get(&monitor.progress().bytes_moved);
        Self { about, world, shared, metadata, monitor, cancel, began, last: began, last_moved, last_written }
    }

    /// Whether enough time has passed or enough was read since the last one. Writes a segment of the index if there
    /// are many rows.
    pub(super) fn is_due(&self) -> Result<bool> {
        if self.shared.packer.indexed() >= self.about.rows {
            self.put_segment()?;
        }
        let now = self.world.clock.monotonic();
        let interval = self.about.interval.max(now.saturating_sub(self.began) / INTERVAL_SHARE);
        let moved = Progress::get(&self.monitor.progress().bytes_moved);
        let much = moved.saturating_sub(self.last_moved) >= limits::CHECKPOINT_BYTES;
        Ok(much || now.saturating_sub(self.last) >= interval)
    }

    /// Whether somebody asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// From now on the store has little time.
    pub(super) fn hurry(&self) {
        self.shared.bridge.hurry(LAST_PATIENCE);
    }

    /// Writes a checkpoint of this tree.
    ///
    /// Order as in W6: the packs that it names arrive and are durable, then the segment, then the checkpoint.
    pub(super) fn write(
        &mut self,
        mut tree: TreeWriter,
        pages: &mut Pages,
        unfinished: Option<Unfinished>,
    ) -> Result<()> {
        let (Some(root), depth) = tree.finish(pages)? else { return Ok(()) };
        let written = self.next_moment();
        let bytes = tree.total();
        self.shared.packer.flush()?;
        self.metadata.flush()?;
        let (bridge, session) = (&self.shared.bridge, self.shared.bridge.session());
        // Before the packs arrive: what is given up forgets the keys that are carried, after it has failed the bridge.
        let sessions = session.known_keys(&pages.sessions())?;
        bridge.settle()?;
        self.wait(self.about.repository.store().flush())?;
        self.put_segment()?;
        let checkpoint = Checkpoint {
            source: self.about.source,
            root,
            depth,
            sessions,
            started: self.about.started,
            written,
            bytes,
            unfinished,
            image: self.about.image.clone(),
            copied_from: self.about.copied_from,
        };
        self.wait(session.put_checkpoint(&checkpoint))?;
        self.last = self.world.clock.monotonic();
        self.last_moved = Progress::get(&self.monitor.progress().bytes_moved);
        self.last_written = written;
        Ok(())
    }

    /// One name a millisecond: no name is ever sent twice, also where the clock was set back meanwhile.
    fn next_moment(&self) -> Timestamp {
        let next = self.last_written.checked_add(jiff::SignedDuration::from_millis(1));
        self.world.clock.now().max(next.unwrap_or(Timestamp::MAX))
    }

    /// The last one of a run that stops on request, if it can be written soon.
    pub(super) fn write_last(
        &mut self,
        tree: TreeWriter,
        pages: &mut Pages,
        unfinished: Option<Unfinished>,
    ) -> Result<()> {
        self.write(tree, pages, unfinished).or_else(no_last_checkpoint)
    }

    fn put_segment(&self) -> Result<()> {
        let rows = self.shared.packer.take_indexed();
        self.wait(self.shared.bridge.session().put_segment(&rows))
    }

    fn wait(&self, future: impl Future<Output = Result<()>>) -> Result<()> {
        if !self.is_stopping() {
            return self.shared.bridge.wait(future);
        }
        let late = || Error::new(ErrorKind::Cancelled, "the store did not answer in time");
        self.shared.bridge.wait(self.world.timeout(LAST_PATIENCE, future)).unwrap_or_else(|| Err(late()))
    }
}

/// The checkpoint before serves as well, a little less far, and there may be no time for another. A defect is told all the same.
pub(super) fn no_last_checkpoint(error: Error) -> Result<()> {
    if error.kind() == ErrorKind::Internal {
        return Err(error);
    }
    tracing::info!(%error, "no last checkpoint was written");
    Ok(())
}
