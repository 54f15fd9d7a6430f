//! What a check found: damaged objects with the snapshots and files that they touch, and a verdict on each snapshot.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use super::{packs::name, sample::Sample};
use crate::{
    format::{records::Snapshot, session::SessionName},
    id::PackId,
    monitor::{Monitor, Problem, Touched, escape_path},
};

/// Damaged objects that are listed; the rest is counted.
pub const DAMAGE_LISTED: usize = 1000;
/// Paths that are listed for one damaged object, and snapshots; the rest is counted.
pub const TOUCHED_LISTED: usize = 20;

#[cfg(test)]
mod tests;

/// An object that is not as it must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it: the first thing that was found.
    pub problem: String,
    /// How many things are wrong with it.
    pub problems: u64,
    /// Snapshots that it touches: the first [`TOUCHED_LISTED`].
    pub snapshots: Vec<String>,
    /// How many snapshots it touches.
    pub snapshots_touched: u64,
    /// Entries that it touches, each counted in every snapshot that has it.
    pub files_touched: u64,
    /// The first [`TOUCHED_LISTED`] of them.
    pub files: Vec<Touched>,
    #[serde(skip)]
    last_touched: Option<String>,
}

/// What is known of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Its short id.
    pub snapshot: String,
    /// Its name.
    pub session: SessionName,
    /// When it was begun.
    pub time: Timestamp,
    /// Its host.
    pub hostname: String,
    /// Its paths.
    pub paths: Vec<String>,
    /// Whether all of it restores, as far as this level can tell.
    pub whole: bool,
    /// Entries that it has; counted only if anything in the repository is damaged.
    pub entries: u64,
    /// Those of them that do not restore whole.
    pub entries_damaged: u64,
    /// Whether this check has marked it as verified.
    pub marked_verified: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct CheckReport {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Snapshots that these keys may not read, of which nothing is said.
    pub not_readable: u64,
    /// Objects that claim something and cannot prove it, or that have no name of ours: nothing depends on them.
    pub unproven: u64,
    /// Pages read.
    pub pages: u64,
    /// Packs that exist.
    pub packs: u64,
    /// Packs whose footer was read and compared with their size.
    pub packs_sized: u64,
    /// Packs whose data was read.
    pub packs_read: u64,
    /// Frames opened.
    pub frames: u64,
    /// Chunks compared with their ids.
    pub chunks: u64,
    /// Chunks that only their frame's seal vouches for, because one pack has more than the memory holds.
    pub chunks_by_seal: u64,
    /// Stored bytes read from packs.
    pub bytes_read: u64,
    /// Copies of packs that are damaged beside a whole one: nothing depends on them.
    pub spoiled_copies: u64,
    /// What the sample proves, if it was one.
    pub sample: Option<Sample>,
    /// Damaged objects: the first [`DAMAGE_LISTED`].
    #[serde(skip)]
    pub damage: Vec<Damage>,
    /// How many objects are damaged.
    pub damages: u64,
    /// Entries that do not restore whole, each counted in every snapshot that has it.
    pub affected_files: u64,
    /// One for each snapshot that was looked at.
    #[serde(skip)]
    pub verdicts: Vec<Verdict>,
    /// Snapshots that restore whole, as far as this level can tell.
    pub whole: Vec<SessionName>,
    /// Snapshots that do not.
    pub damaged: Vec<SessionName>,
    /// Snapshots that were marked as verified.
    pub marked: u64,
    /// Why no snapshot could be marked, or not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark_problem: Option<String>,
    /// Why a snapshot that is damaged is still marked as verified: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmark_problem: Option<String>,
    /// Damaged packs that no later backup relies on, noted by this check.
    pub noted: u64,
    /// Why they could not be noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note_problem: Option<String>,
    /// All damaged packs.
    #[serde(skip)]
    pub(super) damaged_packs: BTreeSet<PackId>,
    /// Where in the list an object is.
    #[serde(skip)]
    known: HashMap<String, usize>,
    /// Digests of the damaged objects that are not in the list, so that each is counted once: 16 bytes of each.
    #[serde(skip)]
    unlisted: HashSet<[u8; 16]>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damages == 0 && self.damaged.is_empty()
    }

    pub(super) fn add_unproven(&mut self, monitor: &dyn Monitor, problem: Problem) {
        self.unproven += 1;
        monitor.problem(problem);
    }

    pub(super) fn add_damaged_pack(&mut self, monitor: &dyn Monitor, pack: PackId, problem: String) {
        self.damaged_packs.insert(pack);
        self.add_damage(monitor, name(pack), problem);
    }

    pub(super) fn add_damage(&mut self, monitor: &dyn Monitor, object: String, problem: String) {
        if let Some(index) = self.known.get(&object) {
            self.damage[*index].problems += 1;
            return;
        }
        if self.damage.len() >= DAMAGE_LISTED && !self.unlisted.insert(digest(&object)) {
            return;
        }
        monitor.damaged(&object, &problem);
        monitor.problem(Problem { what: object.clone(), message: problem.clone() });
        self.damages += 1;
        if self.damage.len() < DAMAGE_LISTED {
            self.known.insert(object.clone(), self.damage.len());
            self.damage.push(Damage { object, problem, problems: 1, ..Damage::default() });
        }
    }

    /// An entry, or `count` entries of which the first and the last name are known, do not restore because of this
    /// object.
    pub(super) fn touch(
        &mut self,
        monitor: &dyn Monitor,
        object: &str,
        snapshot: &str,
        paths: (&[u8], Option<&[u8]>),
        count: u64,
    ) {
        let (path, to) = (escape_path(paths.0), paths.1.map(escape_path));
        let touched = Touched { snapshot: snapshot.to_owned(), path, to };
        monitor.touched(object, &touched, count);
        let Some(index) = self.known.get(object) else { return };
        let damage = &mut self.damage[*index];
        // Snapshots are looked at one after the other.
        if damage.last_touched.as_deref() != Some(snapshot) {
            damage.last_touched = Some(snapshot.to_owned());
            damage.snapshots_touched += 1;
            if damage.snapshots.len() < TOUCHED_LISTED {
                damage.snapshots.push(snapshot.to_owned());
            }
        }
        damage.files_touched += count;
        if damage.files.len() < TOUCHED_LISTED {
            damage.files.push(touched);
        }
    }
}

fn digest(object: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(object.as_bytes()).as_bytes()[..16]);
    digest
}

impl Verdict {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            snapshot: snapshot.session.nonce.short(),
            session: snapshot.session,
            time: snapshot.started,
            hostname: snapshot.host.clone(),
            paths: snapshot.paths.clone(),
            whole: true,
            entries: 0,
            entries_damaged: 0,
            marked_verified: false,
        }
    }
}
