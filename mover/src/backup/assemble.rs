//! The in-order end of the pipeline: answers of workers become entries, entries become pages.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::{
    checkpoint::{Checkpoints, no_last_checkpoint},
    compare::same_contents,
    queue,
    worker::{Failure, Input},
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::Kind,
        records::{PageRef, Statistics},
    },
    monitor::{Monitor, Problem, Progress, escape_path},
    pipeline::{
        promise::Promise,
        runs::RunsWriter,
        tree::{Pages, TreeWriter},
    },
    repo::Unfinished,
    source::reads::Reader,
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
    /// What is read, to see whether it changed meanwhile; none for a stream.
    pub(crate) input: Option<Input>,
    /// What the parent has of a file that looks the same.
    pub(crate) before: Option<Content>,
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
    /// Entries in the tree.
    pub(crate) entries: u64,
    /// Large contents that could not be read, each of which was reported.
    pub(crate) left_out: u64,
    /// Large files that were read and are as the parent has them.
    pub(crate) found_same: u64,
}

/// Takes items until there are no more, and writes the tree.
pub(crate) struct Assembler {
    pub(crate) tree: TreeWriter,
    pub(crate) pages: Pages,
    pub(crate) monitor: Arc<dyn Monitor>,
    /// Of this thread.
    pub(crate) reader: Reader,
    /// Whether some thread may never answer, so that none is waited for.
    pub(crate) given_up: Cancel,
    pub(super) checkpoints: Checkpoints,
    pub(crate) statistics: Statistics,
    pub(crate) entries: u64,
    pub(crate) left_out: u64,
    /// Large files that were read and are as the parent has them.
    pub(crate) found_same: u64,
    /// Whether the tree holds whole entries only: not so after an error in the middle of one.
    pub(crate) is_whole: bool,
}

impl Assembler {
    /// Works until the dispatcher has sent everything.
    pub(crate) fn run(mut self, items: &Receiver<Item>) -> Result<(Assembled, Pages)> {
        while let Some(item) = queue::next(items, &self.given_up) {
            if let Err(error) = self.item(item) {
                self.last_checkpoint(None)?;
                return Err(error);
            }
            if self.checkpoints.is_due()? {
                self.checkpoints.write(self.tree.clone(), &mut self.pages, None)?;
            }
        }
        if self.checkpoints.is_stopping() {
            self.last_checkpoint(None)?;
            return Err(super::dispatch::stopped());
        }
        let (root, depth) = self.tree.finish(&mut self.pages)?;
        let Self { statistics, entries, left_out, found_same, .. } = self;
        Ok((Assembled { root, depth, statistics, entries, left_out, found_same }, self.pages))
    }

    fn item(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Entries(entries) => self.push_all(&entries),
            Item::Batch(promise) => {
                let entries = promise.wait(&self.given_up)?;
                self.push_all(&entries)
            }
            Item::Large(large) => self.large(*large),
        }
    }

    /// When somebody asked to stop: what was done is there for the next run. Once.
    fn last_checkpoint(&mut self, partial: Option<(&Entry, &RunsWriter)>) -> Result<()> {
        if !self.is_whole || !self.checkpoints.is_stopping() {
            return Ok(());
        }
        self.is_whole = false;
        self.checkpoints.hurry();
        let prepared = match partial {
            Some((entry, writer)) => self.with_partial(entry, writer).map(|(tree, rest)| (tree, Some(rest))),
            None => Ok((self.tree.clone(), None)),
        };
        match prepared {
            Ok((tree, unfinished)) => self.checkpoints.write_last(tree, &mut self.pages, unfinished),
            Err(error) => no_last_checkpoint(error),
        }
    }

    /// The tree with the beginning of one more content.
    fn with_partial(&mut self, entry: &Entry, writer: &RunsWriter) -> Result<(TreeWriter, Unfinished)> {
        let mut partial = entry.clone();
        partial.metadata.size = writer.total();
        partial.content = writer.clone().finish(&mut self.pages)?;
        let mut tree = self.tree.clone();
        tree.push(&partial, &mut self.pages)?;
        Ok((tree, Unfinished { path: entry.path.clone(), size: entry.metadata.size }))
    }

    fn push_all(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.push(entry)?;
        }
        Ok(())
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        match entry.kind {
            Kind::File | Kind::Image => {
                let total = &mut self.statistics.bytes_total;
                *total = total.saturating_add(entry.metadata.size);
            }
            Kind::Directory => self.statistics.directories += 1,
            _ => self.statistics.others += 1,
        }
        Progress::add(&self.monitor.progress().entries, 1);
        self.is_whole = false;
        self.tree.push(entry, &mut self.pages)?;
        self.entries += 1;
        self.is_whole = true;
        Ok(())
    }

    fn large(&mut self, large: Large) -> Result<()> {
        let Large { mut entry, pieces, input, before } = large;
        let mut writer = RunsWriter::default();
        while let Some(piece) = queue::next(&pieces, &self.given_up) {
            let runs = match piece {
                Piece::Runs(runs) => runs,
                Piece::Later(promise) => match promise.wait(&self.given_up) {
                    Ok(runs) => runs,
                    Err(Failure::Source(error)) if !error.is_of_the_run() => {
                        return self.give_up(&entry, &error, &pieces);
                    }
                    Err(Failure::Source(error) | Failure::Store(error)) => {
                        self.last_checkpoint(Some((&entry, &writer)))?;
                        return Err(error);
                    }
                },
            };
            self.append(&mut writer, runs)?;
            if self.checkpoints.is_due()? {
                let (tree, unfinished) = self.with_partial(&entry, &writer)?;
                self.checkpoints.write(tree, &mut self.pages, Some(unfinished))?;
            }
        }
        if self.checkpoints.is_stopping() {
            // The pieces may have ended before the contents did.
            self.last_checkpoint(Some((&entry, &writer)))?;
            return Err(super::dispatch::stopped());
        }
        let total = writer.total();
        let reading = self.reader.begin(&entry.path);
        let unchanged = input.map(|input| input.is_unchanged());
        drop(reading);
        match unchanged {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => self.report(&entry, super::CHANGED_WHILE_READ.to_owned()),
            Some(Err(error)) => self.report(&entry, error.in_one_line()),
        }
        entry.metadata.size = total;
        entry.content = writer.finish(&mut self.pages)?;
        if before.is_some_and(|before| same_contents(&before, &entry.content)) {
            self.found_same += 1;
        }
        self.push(&entry)
    }

    fn append(&mut self, writer: &mut RunsWriter, runs: Vec<Run>) -> Result<()> {
        // An error in the middle leaves a content of which nobody can tell how far it goes.
        self.is_whole = false;
        for run in runs {
            writer.push(run, &mut self.pages)?;
        }
        self.is_whole = true;
        Ok(())
    }

    /// A source that cannot be read costs its own entry, and is reported; the backup goes on.
    fn give_up(&mut self, entry: &Entry, error: &Error, pieces: &Receiver<Piece>) -> Result<()> {
        // The dispatcher goes on sending until it is through with the file.
        while let Some(piece) = queue::next(pieces, &self.given_up) {
            if let Piece::Later(promise) = piece
                && let Err(Failure::Store(error)) = promise.wait(&self.given_up)
            {
                return Err(error);
            }
        }
        self.left_out += 1;
        self.report(entry, error.in_one_line());
        Ok(())
    }

    fn report(&self, entry: &Entry, message: String) {
        self.monitor.problem(Problem { what: format!("/{}", escape_path(&entry.path)), message });
    }
}
