//! Checkpoints: what a backup that is killed leaves for the next one.

use std::{sync::Arc, time::Duration};

use super::assemble::CHECKPOINT_INTERVAL;
use crate::{
    clock::World,
    error::Result,
    format::records::SourceKind,
    pipeline::{
        frames::Shared,
        packer::Packer,
        tree::{Pages, TreeWriter},
    },
    repo::Checkpoint,
};

/// Writes a checkpoint when enough time has passed.
pub(crate) struct Checkpoints {
    world: World,
    shared: Arc<Shared>,
    metadata: Arc<Packer>,
    source: SourceKind,
    last: Duration,
}

impl Checkpoints {
    /// The first one is due after one interval.
    pub(crate) fn new(world: World, shared: Arc<Shared>, metadata: Arc<Packer>, source: SourceKind) -> Self {
        let last = world.clock.monotonic();
        Self { world, shared, metadata, source, last }
    }

    /// Writes a checkpoint of the tree so far if one is due. Order as in W6: packs, then the segment, then the
    /// checkpoint that names them.
    pub(crate) fn consider(&mut self, tree: &TreeWriter, pages: &mut Pages) -> Result<()> {
        if self.world.clock.monotonic().saturating_sub(self.last) < CHECKPOINT_INTERVAL {
            return Ok(());
        }
        let (root, depth) = tree.clone().finish(pages)?;
        let Some(root) = root else { return Ok(()) };
        self.shared.packer.flush()?;
        self.metadata.flush()?;
        self.shared.bridge.finish()?;
        let session = self.shared.bridge.session();
        let rows = self.shared.packer.take_indexed();
        self.shared.bridge.wait(session.put_segment(&rows))?;
        let checkpoint = Checkpoint {
            source: self.source,
            root,
            depth,
            sessions: session.known_keys(pages.sessions())?,
            started: self.world.clock.now(),
        };
        self.shared.bridge.wait(session.put_checkpoint(&checkpoint))?;
        self.last = self.world.clock.monotonic();
        Ok(())
    }
}
