//! Tells whether what is stored is what was written, at four levels of effort; names what is damaged, which files
//! of which snapshots that touches, and which snapshots still restore.
//!
//! Memory: an eighth of the setting remembers pages, a quarter holds what snapshots name in packs, a quarter the
//! ranges that are being read, an eighth pages that are being decoded. What does not fit is done again (pages) or
//! in a further pass (names), never left out in silence.

mod data;
mod packs;
mod report;
mod sample;
mod structure;
#[cfg(test)]
mod tests;
mod touched;
mod verify;
mod walk;
mod wanted;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

pub use report::{CheckReport, DAMAGE_LISTED, Damage, TOUCHED_LISTED, Verdict};
pub use sample::{Sample, detection, fewer_than};

use self::{data::Reading, packs::Packs, structure::Structure, touched::Bad, walk::Seen, wanted::Wanted};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    format::{records::Snapshot, session::SessionName},
    id::PackId,
    monitor::{Monitor, Problem, Progress},
    repo::{Repository, SnapshotList, VERIFIED},
};

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CheckLevel {
    /// Ends, sessions, every page of every snapshot, and that every frame lies inside an existing pack.
    Structure,
    /// And the footer of every pack.
    Sizes,
    /// And all data of this percentage of the packs, chosen at random.
    Sample(f64),
    /// And all data.
    Data,
}

/// How to check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// How thoroughly.
    pub level: CheckLevel,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
    /// Threads that open and compare.
    pub threads: usize,
    /// Only these snapshots and what they need; everything if absent.
    pub only: Option<Vec<SessionName>>,
    /// Mark snapshots as verified of which all data was read and is whole, and note which packs are damaged.
    pub mark: bool,
}

/// Listings of packs at most: one, and one more each time that a prune moves what is being looked at. A prune moves a pack
/// days after it was filled, so even three are rare.
const LISTINGS: u32 = 8;

/// One check under way.
struct Check<'a> {
    repository: &'a Repository,
    options: &'a CheckOptions,
    monitor: &'a Arc<dyn Monitor>,
    cancel: &'a Cancel,
    report: CheckReport,
    packs: Packs,
    snapshots: Vec<Snapshot>,
    bad: Bad,
}

/// Checks a repository.
pub async fn check(
    repository: &Repository,
    options: &CheckOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<CheckReport> {
    monitor.phase("structure");
    let reads_data = matches!(options.level, CheckLevel::Sample(_) | CheckLevel::Data);
    if reads_data && !repository.keys().can_read_data() {
        return Err(Error::denied("these keys do not open data")
            .with_hint("give the password or the secret of the repository, or check without data"));
    }
    let (mut report, has_all_keys) = (CheckReport::default(), repository.keys().can_read_data());
    // Snapshots are read before packs are listed: what a backup adds in between is unused, not missing.
    let mut list = repository.snapshots().await?;
    let (packs, others) = Packs::list(repository).await?;
    report.packs = packs.all.len() as u64;
    others.into_iter().for_each(|problem| report.add_unproven(&*monitor, problem));
    let snapshots = choose(&mut list, options, &mut report, &*monitor, has_all_keys);
    report.snapshots = snapshots.len() as u64;
    let bad = Bad::default();
    if options.only.is_none() {
        small_objects(repository, options.level, &mut report, &*monitor).await?;
    }
    let (monitor, cancel) = (&monitor, &cancel);
    let mut check = Check { repository, options, monitor, cancel, report, packs, snapshots, bad };
    check.look().await?;
    if check.report.damages > 0 {
        check.still_visible().await?;
    }
    check.verdicts().await?;
    if options.mark {
        check.unmark(&list).await?;
    }
    if options.mark && options.level == CheckLevel::Data {
        check.mark(&list).await?;
    }
    if options.mark
        && let Err(error) = check.note_damage().await
    {
        check.report.note_problem = Some(unless_defect(error)?);
    }
    Ok(check.report)
}

/// What a check says of an error that does not make it fail. A defect of the program does.
fn unless_defect(error: Error) -> Result<String> {
    match error.kind() {
        ErrorKind::Internal => Err(error),
        _ => Ok(error.in_one_line()),
    }
}

/// What no snapshot refers to: it costs no file, but somebody relies on it.
async fn small_objects(
    repository: &Repository,
    level: CheckLevel,
    report: &mut CheckReport,
    monitor: &dyn Monitor,
) -> Result<()> {
    if repository.keys().can_read_data() {
        let unproven = repository.unproven().await?.into_iter();
        unproven.for_each(|problem| report.add_unproven(monitor, problem));
    }
    if level != CheckLevel::Structure {
        for (object, error) in repository.unreadable_hints().await? {
            report.add_damage(monitor, object, error.to_string());
        }
    }
    Ok(())
}

/// The snapshots to look at. An end that cannot be read is damage, unless only others were asked for.
fn choose(
    list: &mut SnapshotList,
    options: &CheckOptions,
    report: &mut CheckReport,
    monitor: &dyn Monitor,
    has_all_keys: bool,
) -> Vec<Snapshot> {
    let mut snapshots = std::mem::take(&mut list.snapshots);
    if let Some(only) = &options.only {
        snapshots.retain(|snapshot| only.contains(&snapshot.session));
        return snapshots;
    }
    for (session, error) in &list.unreadable {
        if error.kind() == ErrorKind::Denied && !has_all_keys {
            // Of another source or generation than these keys are for: nothing is said of it.
            let what = format!("snapshot {}", session.nonce.short());
            monitor.problem(Problem { what, message: error.in_one_line() });
            report.not_readable += 1;
            continue;
        }
        report.add_damage(monitor, session.end_object(), error.to_string());
        report.damaged.push(*session);
    }
    snapshots
}

impl Check<'_> {
    /// Looks at everything, and once more for what a prune has moved meanwhile.
    async fn look(&mut self) -> Result<()> {
        for _ in 0..LISTINGS {
            self.look_at_listed().await?;
            if !self.packs.have_gone() {
                if let Some(sample) = self.report.sample.as_mut().filter(|_| self.report.damages > 0) {
                    (sample.fewer_than_95, sample.fewer_than_99) = (None, None);
                }
                return Ok(());
            }
            // What is gone may have been forgotten, or been moved by somebody whose keys these are not.
            self.still_visible().await?;
            self.repository.check_keys_unchanged().await?;
            let (packs, _) = Packs::list(self.repository).await?;
            let earlier = std::mem::replace(&mut self.packs, packs);
            self.packs.follow(earlier);
        }
        Err(Error::conflict("packs were moved again and again while they were checked")
            .with_hint("run the check again when no prune is at work"))
    }

    /// Structure, then what the level adds, of the packs of one listing.
    async fn look_at_listed(&mut self) -> Result<()> {
        let level = self.options.level;
        let draws = matches!(level, CheckLevel::Sample(_)) && !self.packs.is_later();
        // A share of a few packs cannot be drawn before it is known which packs are needed.
        if matches!(level, CheckLevel::Data | CheckLevel::Sample(_)) && !draws {
            self.packs.all.iter_mut().for_each(|pack| pack.read = !pack.looked_at);
        }
        self.report.pages = 0;
        let all = 0..u32::try_from(self.packs.all.len()).unwrap_or(u32::MAX);
        let rows = self.rows();
        let mut wanted = Wanted::new(all.clone(), rows);
        self.walk(&mut wanted, true).await?;
        if level == CheckLevel::Structure {
            return Ok(());
        }
        self.monitor.phase("packs");
        if let CheckLevel::Sample(percent) = level
            && draws
        {
            self.draw(percent);
        }
        let chosen = self.only_needed();
        let is_read = |pack: &packs::Pack| pack.read && (pack.needed || !chosen);
        let total = self.packs.all.iter().filter(|pack| is_read(pack)).map(|pack| pack.size).sum();
        Progress::add(&self.monitor.progress().bytes_expected, total);
        let reading =
            Reading::new(self.repository, self.options.threads, self.options.memory_bytes / 4, chosen)?;
        if !draws && wanted.left_out == 0 {
            return self.span(&reading, wanted, all).await;
        }
        drop(wanted);
        for span in wanted::spans(&self.packs, rows) {
            let mut wanted = Wanted::new(span.clone(), rows);
            self.walk(&mut wanted, false).await?;
            self.report.chunks_by_seal += wanted.left_out;
            self.span(&reading, wanted, span).await?;
        }
        Ok(())
    }

    /// Whether packs are looked at only if a snapshot needs them: what was added since the first listing need not be.
    fn only_needed(&self) -> bool {
        self.options.only.is_some() || self.packs.is_later()
    }

    /// Rows of what snapshots name that fit into a quarter of the memory.
    fn rows(&self) -> usize {
        let bytes = match self.options.level {
            CheckLevel::Structure | CheckLevel::Sizes => 0,
            CheckLevel::Sample(_) | CheckLevel::Data => self.options.memory_bytes / 4,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX) / wanted::ROW_BYTES
    }

    async fn walk(&mut self, wanted: &mut Wanted, first: bool) -> Result<()> {
        let visit = Structure {
            packs: &mut self.packs,
            seen: Seen::within(self.options.memory_bytes / 8),
            wanted,
            report: &mut self.report,
            bad: &mut self.bad,
            monitor: &**self.monitor,
            is_first: first,
            last_misfit: None,
            last_frame: None,
        };
        let memory = self.options.memory_bytes / 8;
        structure::check(self.repository, &self.snapshots, memory, visit, self.cancel).await
    }

    /// Draws the packs of a sample, and says what a sample of that size proves.
    fn draw(&mut self, percent: f64) {
        let chosen = self.options.only.is_some();
        let mut from: Vec<usize> =
            (0..self.packs.all.len()).filter(|index| !chosen || self.packs.all[*index].needed).collect();
        let wanted = sample::size_of(from.len() as u64, percent);
        for index in 0..usize::try_from(wanted).unwrap_or(usize::MAX) {
            let random = u64::from_le_bytes(self.repository.world().random());
            let other = index + (random % (from.len() - index) as u64) as usize;
            from.swap(index, other);
            self.packs.all[from[index]].read = true;
        }
        self.report.sample = Some(Sample::new(from.len() as u64, wanted));
    }

    /// Footers and data of a span of packs.
    async fn span(&mut self, reading: &Reading, wanted: Wanted, span: std::ops::Range<u32>) -> Result<()> {
        let only_needed = self.only_needed();
        let is_chosen = |pack: &packs::Pack| !pack.looked_at && (pack.needed || !only_needed);
        let chosen: Vec<u32> =
            span.filter(|index| self.packs.all.get(*index as usize).is_some_and(is_chosen)).collect();
        let (found, wanted) = ((&mut self.report, &mut self.bad), Arc::new(wanted));
        let gone =
            data::check(reading, &self.packs, &chosen, &wanted, found, self.monitor, self.cancel).await?;
        let away: HashSet<PackId> = gone.iter().copied().collect();
        for index in chosen {
            let pack = &mut self.packs.all[index as usize];
            pack.looked_at = !away.contains(&pack.id);
        }
        for pack in gone {
            if self.packs.miss(pack) {
                self.bad.lose(pack);
                self.report.add_damaged_pack(&**self.monitor, pack, "it is listed, and not there".to_owned());
            }
        }
        Ok(())
    }

    /// Fails if a snapshot was forgotten meanwhile: a prune may have freed what seemed to be missing.
    async fn still_visible(&self) -> Result<()> {
        let visible = self.repository.visible("b").await?;
        let gone = self.snapshots.iter().find(|snapshot| !visible.contains(&snapshot.session));
        match gone {
            None => Ok(()),
            Some(snapshot) => Err(structure::forgotten(snapshot.session)),
        }
    }

    /// Says of each snapshot whether it restores.
    async fn verdicts(&mut self) -> Result<()> {
        self.monitor.phase("snapshots");
        let damaged = self.report.damages > 0;
        let mut look = touched::Look {
            packs: &self.packs,
            bad: &self.bad,
            read_doubtful: matches!(self.options.level, CheckLevel::Data | CheckLevel::Sample(_)),
            clean: Seen::within(self.options.memory_bytes / 8),
            monitor: &**self.monitor,
            cancel: self.cancel,
        };
        for snapshot in &self.snapshots {
            self.cancel.check()?;
            let verdict = if damaged {
                let reader = structure::open(self.repository, snapshot.session).await?;
                look.snapshot(&reader, &mut self.report).await?
            } else {
                Verdict::new(snapshot)
            };
            let list = if verdict.whole { &mut self.report.whole } else { &mut self.report.damaged };
            list.push(snapshot.session);
            self.report.verdicts.push(verdict);
        }
        Ok(())
    }

    /// Has later backups store again what was in damaged packs, as far as their sources have it; and rely again on
    /// packs that all data was read of and nothing is wrong with any more.
    async fn note_damage(&mut self) -> Result<()> {
        let notes = self.repository.damage_notes().await?;
        let known: BTreeSet<PackId> = notes.iter().flat_map(|note| &note.packs).copied().collect();
        let damaged = &self.report.damaged_packs;
        let new: BTreeSet<PackId> = damaged.difference(&known).copied().collect();
        if !new.is_empty() {
            self.repository.note_damage(&new).await?;
            self.report.noted = new.len() as u64;
        }
        if self.options.level == CheckLevel::Data && self.options.only.is_none() {
            for note in notes.iter().filter(|note| note.packs.iter().all(|pack| !damaged.contains(pack))) {
                self.repository.drop_note(note).await?;
            }
        }
        Ok(())
    }

    /// Retention keeps the last verified snapshot whatever its age: that must be one that restores.
    async fn unmark(&mut self, list: &SnapshotList) -> Result<()> {
        let marked = self.report.damaged.iter().filter(|session| list.is_marked(**session, VERIFIED));
        for session in marked.copied() {
            if let Err(error) = self.repository.unmark_snapshot(session, VERIFIED).await {
                let what = format!("snapshot {}", session.nonce.short());
                self.report.unmark_problem.get_or_insert(unless_defect(error.context(what))?);
            }
        }
        Ok(())
    }

    /// Marks what is whole as verified, once. That it cannot be marked (these keys may not, the store refuses) does
    /// not make the check fail.
    async fn mark(&mut self, list: &SnapshotList) -> Result<()> {
        if self.report.chunks_by_seal > 0 {
            self.report.mark_problem = Some("some chunks were not compared with their ids".to_owned());
            return Ok(());
        }
        for verdict in self.report.verdicts.iter_mut().filter(|verdict| verdict.whole) {
            let session = verdict.session;
            if list.is_marked(session, VERIFIED) {
                continue;
            }
            if let Err(error) = self.repository.mark_snapshot(session, VERIFIED).await {
                self.report.mark_problem = Some(unless_defect(error)?);
                return Ok(());
            }
            verdict.marked_verified = true;
            self.report.marked += 1;
        }
        Ok(())
    }
}
