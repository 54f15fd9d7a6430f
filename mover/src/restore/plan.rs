//! Walks the tree, makes what has no contents, and collects the rest into batches.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use tokio::{sync::mpsc, task::JoinHandle};

mod delete;
mod directories;
mod dry_run;
mod links;
mod opened;
#[cfg(test)]
mod tests;

use self::{
    delete::{Others, join},
    directories::finish_directories,
    links::{Links, Role, link},
    opened::Opened,
};
use super::{
    Existing, RestoreOptions, RestoreReport,
    batch::{Batch, FILE_BYTES, FileTask, Sink, weight},
    execute::{Executor, Shared},
    places::Places,
    report,
    select::relative,
};
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        entry::{Content, Entry, Run},
        metadata::{Kind, Metadata},
    },
    monitor::{Monitor, Progress},
    reader::SnapshotReader,
    target::tree::TargetTree,
};

/// The first batch is small, so that the workers begin at once; each is twice the one before.
const FIRST_BATCH_BYTES: usize = 1 << 20;
/// Directories that wait for their attributes are kept up to this part of the memory; beyond it the tree is
/// walked a second time, backwards.
const DIRECTORY_SHARE: u64 = 16;
/// What is remembered of the first names of files with several, and of their further ones, takes this part of the memory
/// each.
const LINK_SHARE: u64 = 16;
/// Two batches live at once and take this part of the memory each.
pub(super) const BATCH_SHARE: u64 = 8;
/// Stored bytes in flight take this part of the memory.
const FLIGHT_SHARE: u64 = 4;

/// A restore that is being planned.
struct Planner<'o> {
    options: &'o RestoreOptions,
    shared: Arc<Shared>,
    prefix: Vec<u8>,
    /// The target has nothing in it, and gets the attributes of the directory that is restored to it.
    unused: bool,
    /// Those attributes.
    root: Option<Metadata>,
    /// The directory whose names came last, for the directories above what patterns chose.
    above: Vec<u8>,
    /// The target was empty: nothing needs to be looked up.
    fresh: bool,
    /// The target of a dry run, which is only looked at.
    looked_at: Option<TargetTree>,
    batches: mpsc::Sender<Batch>,
    batch: Batch,
    batch_limit: usize,
    /// Directories in the order they were made; none once there are too many.
    directories: Option<Vec<(Vec<u8>, Metadata)>>,
    directory_bytes: usize,
    links: Links,
    /// Files that stay as they are, by their place among the selected ones.
    kept: Places,
    /// What is to be removed.
    others: Others,
    report: RestoreReport,
}

/// Plans and executes a restore to a directory.
pub(crate) async fn run(
    reader: &SnapshotReader,
    options: &RestoreOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<(RestoreReport, Places)> {
    let prefix = options.selection.prefix(reader).await?;
    if options.delete && prefix != options.selection.path {
        return Err(Error::invalid(
            "--delete goes with a directory, and this is one file: all else would be deleted",
        )
        .with_hint("leave --delete out, or name the directory that the file is in"));
    }
    let mut opened = Opened::at(options)?;
    let tree = opened.tree.take();
    let shared = Arc::new(Shared::new(reader, tree, Arc::clone(&monitor), cancel));
    let (batches, mut dispatcher) = dispatch(options, &shared)?;
    let mut planner = Planner::new(options, Arc::clone(&shared), prefix, opened, batches);
    let mut planned = planner.walk().await;
    loop {
        // Without a way to them the workers come to an end.
        drop(planner.batches);
        let written = dispatcher
            .await
            .map_err(|error| Error::internal("the restore did not finish").with_source(error))?;
        // What ended the work says more than what the planner saw of it.
        written?;
        planned?;
        link(options, &shared, &planner.prefix, &mut planner.links).await?;
        let Some(waiting) = planner.links.next_round() else { break };
        (planner.batches, dispatcher) = dispatch(options, &shared)?;
        planned = planner.walk_again(&waiting).await;
    }
    drop(planner.shared);
    let (mut report, kept) = (planner.report, planner.kept);
    if !options.dry_run {
        finish_directories(options, &shared, &planner.prefix, planner.directories).await?;
        directories::finish_root(&shared, planner.root.as_ref());
        shared.check()?;
    }
    report.deleted += shared.tree.as_ref().map_or(0, TargetTree::removed);
    report.bytes_written = shared.written.load(Ordering::Relaxed);
    report.bytes_fetched = shared.fetched.load(Ordering::Relaxed);
    finish_tree(shared)?;
    report.problems = Progress::get(&monitor.progress().problems);
    Ok((report, kept))
}

/// Starts what executes batches: the way to it, and what it came to once that way is closed.
fn dispatch(
    options: &RestoreOptions,
    shared: &Arc<Shared>,
) -> Result<(mpsc::Sender<Batch>, JoinHandle<Result<()>>)> {
    let executor = Executor::start(Arc::clone(shared), options.threads, options.memory_bytes / FLIGHT_SHARE)?;
    let (batches, mut queue) = mpsc::channel::<Batch>(1);
    let dispatcher = tokio::spawn(async move {
        while let Some(batch) = queue.recv().await {
            executor.run(batch).await?;
        }
        executor.finish().await
    });
    Ok((batches, dispatcher))
}

impl<'o> Planner<'o> {
    /// Of a target whose tree belongs to those who write.
    fn new(
        options: &'o RestoreOptions,
        shared: Arc<Shared>,
        prefix: Vec<u8>,
        opened: Opened,
        batches: mpsc::Sender<Batch>,
    ) -> Self {
        let Opened { looked_at, fresh, unused, .. } = opened;
        Self {
            options,
            shared,
            prefix,
            unused,
            root: None,
            above: Vec::new(),
            fresh,
            looked_at,
            batches,
            batch: Batch::default(),
            batch_limit: FIRST_BATCH_BYTES,
            directories: Some(Vec::new()),
            directory_bytes: 0,
            links: Links::new(options.memory_bytes),
            kept: Places::default(),
            others: Others::new(options.memory_bytes),
            report: RestoreReport::default(),
        }
    }
}

impl Planner<'_> {
    async fn walk(&mut self) -> Result<()> {
        let mut walk = self.shared.reader.entries(self.options.selection.part())?;
        while let Some(leaf) = walk.next_leaf().await? {
            self.shared.check()?;
            for entry in leaf {
                self.entry(entry).await?;
            }
        }
        if self.options.delete {
            self.remove_rest().await?;
        }
        self.flush().await
    }

    async fn entry(&mut self, entry: Entry) -> Result<()> {
        let Some(path) = relative(&entry.path, &self.prefix).map(<[u8]>::to_vec) else {
            self.target_itself(entry.metadata);
            return Ok(());
        };
        if self.options.delete {
            self.pass_name(&path);
        }
        if self.options.selection.has_patterns() {
            if !self.options.selection.wants(&path) {
                return Ok(());
            }
            self.make_above(&path).await?;
        }
        let place = self.links.meet(&entry);
        Progress::add(&self.shared.monitor.progress().entries_expected, 1);
        Progress::add(&self.shared.monitor.progress().bytes_expected, entry.metadata.size);
        // The sizes of one snapshot may be any numbers.
        self.report.bytes = self.report.bytes.saturating_add(entry.metadata.size);
        match &entry.kind {
            Kind::Directory => {
                self.report.directories += 1;
                self.directory(path, entry.metadata);
                Ok(())
            }
            Kind::File => {
                self.report.files += 1;
                self.file(path, entry, place).await
            }
            Kind::Image => {
                let error = Error::invalid("it is an image, which a restore to a directory cannot place")
                    .with_hint("restore it to a device or file of its own");
                report(&*self.shared.monitor, &path, &error);
                Ok(())
            }
            _ => {
                self.report.others += 1;
                self.node(&path, &entry, place);
                Ok(())
            }
        }
    }

    /// What is no directory and has no contents; `place` is that among the names of files with several.
    fn node(&mut self, path: &[u8], entry: &Entry, place: Option<u64>) {
        let present = self.present(path);
        if self.keeps(present.as_ref(), &entry.metadata) {
            self.pass_by(&entry.metadata);
            return;
        }
        if !self.is_in_the_way(path, present.as_ref()) {
            self.make_node(path, entry, place);
        }
    }

    fn make_node(&mut self, path: &[u8], entry: &Entry, place: Option<u64>) {
        let shared = Arc::clone(&self.shared);
        let Some(tree) = &shared.tree else { return };
        if place.is_some_and(|place| self.links.role(place, path, &entry.metadata) != Role::First) {
            return;
        }
        match tree.create_node(path, &entry.kind, &entry.metadata) {
            Ok(made) => {
                Progress::add(&self.shared.monitor.progress().entries, 1);
                if place.is_some() {
                    let key = (entry.metadata.device, entry.metadata.inode);
                    lock(&self.shared.made).insert(key, made);
                }
            }
            Err(error) => self.shared.report(path, &error),
        }
    }

    /// Progress of what stays as it is.
    fn pass_by(&self, metadata: &Metadata) {
        Progress::add(&self.shared.monitor.progress().entries, 1);
        Progress::add(&self.shared.monitor.progress().bytes, metadata.size);
    }

    /// The target, if something may be there already.
    fn used(&self) -> Option<&TargetTree> {
        self.shared.tree.as_ref().or(self.looked_at.as_ref()).filter(|_| !self.fresh)
    }

    /// What is at a path of the target now. What cannot be looked at is met again when it is to be written.
    fn present(&self, path: &[u8]) -> Option<(Kind, Metadata)> {
        self.used().and_then(|tree| tree.look_up(path).unwrap_or_default())
    }

    /// Whether what is there stays as it is.
    fn keeps(&self, present: Option<&(Kind, Metadata)>, wanted: &Metadata) -> bool {
        let Some((kind, present)) = present else { return false };
        match self.options.existing {
            Existing::Keep => true,
            // The time of a directory says nothing about a file that is to be in its place.
            Existing::KeepNewer => *kind != Kind::Directory && present.mtime >= wanted.mtime,
            Existing::Trust | Existing::Compare => false,
        }
    }

    async fn file(&mut self, path: Vec<u8>, entry: Entry, place: Option<u64>) -> Result<()> {
        let present = self.present(&path);
        // A name that stays is not the first one: the others of its inode are restored without it.
        if self.keeps(present.as_ref(), &entry.metadata) {
            self.report.files_skipped += 1;
            self.kept.add(self.report.files - 1);
            self.pass_by(&entry.metadata);
            return Ok(());
        }
        if self.is_in_the_way(&path, present.as_ref()) {
            return Ok(());
        }
        self.report.files_new += u64::from(!matches!(present, Some((Kind::File, _))));
        self.write_file(path, entry, place, present).await
    }

    /// Plans the contents of a file, unless it has them from another name.
    async fn write_file(
        &mut self,
        path: Vec<u8>,
        entry: Entry,
        place: Option<u64>,
        present: Option<(Kind, Metadata)>,
    ) -> Result<()> {
        match place.map(|place| self.links.role(place, &path, &entry.metadata)) {
            None | Some(Role::First) => {}
            Some(Role::Further) => {
                // Its contents are those of the first name.
                Progress::add(&self.shared.monitor.progress().bytes, entry.metadata.size);
                return Ok(());
            }
            Some(Role::Later) => return Ok(()),
        }
        let reuse = matches!(present, Some((Kind::File, _)));
        let right = self.options.existing == Existing::Trust
            && place.is_none()
            && matches!(&present, Some((Kind::File, old)) if looks_right(old, &entry.metadata));
        if self.options.dry_run {
            self.report.files_skipped += u64::from(right);
            self.count_file(&path, &entry, present.as_ref()).await;
            return Ok(());
        }
        let sink = match self.sink(&path, &entry, reuse) {
            Ok(sink) => sink,
            Err(error) => {
                self.shared.report(&path, &error);
                return Ok(());
            }
        };
        let Entry { metadata, content, .. } = entry;
        let task = Arc::new(FileTask::new(path, metadata, sink));
        // One that could not be taken over is an empty file now, whatever was there.
        if right && task.sink.is_reused() {
            self.report.files_skipped += 1;
        } else if self.shared.tree.is_some() {
            self.batch.compares |= reuse;
            self.contents(&task, &content).await?;
        }
        if self.shared.tree.is_some() && task.done() {
            self.batch.complete(task);
        }
        // Here and not only where contents are added: of a target that is right already nothing else is.
        if self.batch.size() >= self.batch_limit {
            self.flush().await?;
        }
        Ok(())
    }

    fn sink(&self, path: &[u8], entry: &Entry, reuse: bool) -> Result<Sink> {
        let Some(tree) = &self.shared.tree else { return Ok(Sink::Check) };
        if reuse {
            return tree.prepare_file(path, entry.metadata.flags, true).map(Sink::existing);
        }
        let small = matches!(&entry.content, Content::Inline(runs) if matches!(&runs[..], [Run::Chunk(_)]));
        Ok(if small { Sink::Small } else { Sink::file() })
    }

    async fn contents(&mut self, task: &Arc<FileTask>, content: &Content) -> Result<()> {
        let mut index = self.batch.file(Arc::clone(task));
        let mut runs = self.shared.reader.runs(content);
        while let Some((start, piece)) = match runs.next_piece().await {
            Ok(next) => next,
            Err(error) => {
                self.shared.fail(task, &error);
                return Ok(());
            }
        } {
            // Holes fill no batch, and there may be any number of them.
            self.shared.check()?;
            let mut at = start;
            for run in &piece {
                match run {
                    Run::Chunk(chunk) => self.batch.add(index, at, chunk)?,
                    Run::Hole(length) => self.punch(task, at, *length),
                }
                at += run.length();
            }
            if self.batch.size() >= self.batch_limit {
                let compares = self.batch.compares;
                self.flush().await?;
                index = self.batch.file(Arc::clone(task));
                self.batch.compares = compares;
            }
        }
        Ok(())
    }

    fn punch(&self, task: &FileTask, at: u64, length: u64) {
        if let (Sink::File { open, .. }, Some(tree)) = (&task.sink, &self.shared.tree)
            && let Some(file) = open.get()
            && let Err(error) = tree.punch(file, at, length)
        {
            self.shared.fail(task, &error);
        }
    }

    async fn flush(&mut self) -> Result<()> {
        let batch = mem::take(&mut self.batch);
        let most = usize::try_from(self.options.memory_bytes / BATCH_SHARE).unwrap_or(usize::MAX);
        self.batch_limit = (self.batch_limit * 2).min(most).max(FILE_BYTES);
        match self.batches.send(batch).await {
            Ok(()) => self.shared.check(),
            Err(_) => self.shared.check().and(Err(Error::internal("nobody executes the restore"))),
        }
    }
}

/// Whether a file that is there has the size and time that is wanted. One with further names is made anew in any case,
/// because writing to it would change what they name.
fn looks_right(present: &Metadata, wanted: &Metadata) -> bool {
    present.links == 1 && present.size == wanted.size && present.mtime == wanted.mtime
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn finish_tree(shared: Arc<Shared>) -> Result<()> {
    let shared = Arc::into_inner(shared).ok_or_else(|| Error::internal("a restore is still under way"))?;
    let Some(tree) = shared.tree else { return Ok(()) };
    let left = tree.finish();
    for problem in &left.problems {
        report(&*shared.monitor, &problem.path, &problem.error);
    }
    for (what, count) in left.further {
        for _ in 0..count {
            Progress::add(&shared.monitor.progress().problems, 1);
        }
        tracing::warn!(what, count, "further attributes could not be restored");
    }
    Ok(())
}
