//! The in-order end of the pipeline: answers of workers become entries, entries become pages.

use std::{sync::Arc, time::Duration};

use crossbeam_channel::Receiver;

use super::{
    checkpoint::Checkpoints,
    worker::{Failure, describe},
};
use crate::{
    error::{Error, Result},
    format::{
        entry::{Entry, Run},
        metadata::Kind,
        records::{PageRef, Statistics},
    },
    monitor::{Monitor, Problem, Progress, escape_path},
    pipeline::{
        promise::Promise,
        runs::RunsWriter,
        tree::{Pages, TreeWriter},
    },
    source::file::SourceFile,
};

/// What comes next in the tree.
pub(crate) enum Item {
    /// Entries that need nothing any more.
    Entries(Vec<Entry>),
    /// Entries of a batch that a worker reads.
    Batch(Promise<Result<Vec<Entry>>>),
    /// A large file or device, whose contents come in pieces.
    Large(Box<Large>),
}

/// A large file or device.
pub(crate) struct Large {
    /// Everything but the contents.
    pub(crate) entry: Entry,
    /// Pieces of the contents, in order.
    pub(crate) pieces: Receiver<Piece>,
    /// The open file, to see whether it changed while it was read; none for a stream.
    pub(crate) file: Option<Arc<SourceFile>>,
}

/// A piece of a large file's contents.
pub(crate) enum Piece {
    /// Known without reading.
    Runs(Vec<Run>),
    /// What a worker reads.
    Later(Promise<Result<Vec<Run>, Failure>>),
}

/// The tree that came out.
#[derive(Debug, Default)]
pub(crate) struct Assembled {
    pub(crate) root: Option<PageRef>,
    pub(crate) depth: u8,
    pub(crate) statistics: Statistics,
}

/// Takes items until there are no more, and writes the tree.
pub(crate) struct Assembler {
    pub(crate) tree: TreeWriter,
    pub(crate) pages: Pages,
    pub(crate) monitor: Arc<dyn Monitor>,
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) statistics: Statistics,
}

/// How often a long backup leaves a checkpoint: a killed one repeats at most this much reading.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

impl Assembler {
    /// Works until the dispatcher has sent everything.
    pub(crate) fn run(mut self, items: &Receiver<Item>) -> Result<(Assembled, Pages)> {
        for item in items {
            match item {
                Item::Entries(entries) => self.push_all(&entries)?,
                Item::Batch(promise) => {
                    let entries = promise.wait()?;
                    self.push_all(&entries)?;
                }
                Item::Large(large) => self.large(*large)?,
            }
            if let Some(checkpoints) = &mut self.checkpoints {
                checkpoints.consider(&self.tree, &mut self.pages)?;
            }
        }
        let (root, depth) = self.tree.finish(&mut self.pages)?;
        Ok((Assembled { root, depth, statistics: self.statistics }, self.pages))
    }

    fn push_all(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.push(entry)?;
        }
        Ok(())
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        match entry.kind {
            Kind::File | Kind::Image => self.statistics.bytes_total += entry.metadata.size,
            Kind::Directory => self.statistics.directories += 1,
            _ => self.statistics.others += 1,
        }
        Progress::add(&self.monitor.progress().entries, 1);
        self.tree.push(entry, &mut self.pages)
    }

    fn large(&mut self, large: Large) -> Result<()> {
        let Large { mut entry, pieces, file } = large;
        let mut writer = RunsWriter::default();
        for piece in &pieces {
            let runs = match piece {
                Piece::Runs(runs) => runs,
                Piece::Later(promise) => match promise.wait() {
                    Ok(runs) => runs,
                    Err(Failure::Source(error)) => return self.give_up(&entry, &error, &pieces),
                    Err(Failure::Store(error)) => return Err(error),
                },
            };
            for run in runs {
                writer.push(run, &mut self.pages)?;
            }
        }
        let total = writer.total();
        match file.map(|file| file.is_unchanged()) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => self.report(&entry, super::CHANGED_WHILE_READ.to_owned()),
            Some(Err(error)) => self.report(&entry, describe(&error)),
        }
        entry.metadata.size = total;
        entry.content = writer.finish(&mut self.pages)?;
        self.push(&entry)
    }

    /// A source that cannot be read costs its own entry, and is reported; the backup goes on.
    fn give_up(&mut self, entry: &Entry, error: &Error, pieces: &Receiver<Piece>) -> Result<()> {
        // The dispatcher goes on sending until it is through with the file.
        for piece in pieces {
            if let Piece::Later(promise) = piece
                && let Err(Failure::Store(error)) = promise.wait()
            {
                return Err(error);
            }
        }
        self.report(entry, describe(error));
        Ok(())
    }

    fn report(&self, entry: &Entry, message: String) {
        self.monitor.problem(Problem { what: format!("/{}", escape_path(&entry.path)), message });
    }
}
