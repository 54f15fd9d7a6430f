//! Tells whether what is stored is what was written, at four levels of effort; names what is damaged, which files
//! of which snapshots that touches, and which snapshots still restore.

mod data;
mod structure;

use std::{collections::HashSet, sync::Arc};

use crate::{
    cancel::Cancel,
    error::Result,
    format::{entry::Run, session::SessionName},
    id::PackId,
    monitor::{Monitor, Problem, escape_path},
    reader::{SnapshotReader, walk::Part},
    repo::Repository,
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
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// How thoroughly.
    pub level: CheckLevel,
    /// Memory to keep to, in bytes.
    pub memory_bytes: u64,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A file that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Affected {
    /// The snapshot.
    pub snapshot: String,
    /// The path in it.
    pub path: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct CheckReport {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Pages read.
    pub pages: u64,
    /// Packs that exist.
    pub packs: u64,
    /// Packs whose data was read.
    pub packs_read: u64,
    /// Frames opened.
    pub frames: u64,
    /// Chunks compared with their ids.
    pub chunks: u64,
    /// Small chunks that only their frame's seal vouches for, because there were too many to remember.
    pub chunks_by_seal: u64,
    /// Stored bytes read.
    pub bytes_read: u64,
    /// With 95 % certainty, fewer than this share of the packs is damaged; only of a sample without damage.
    pub below_share_95: Option<f64>,
    /// The same with 99 %.
    pub below_share_99: Option<f64>,
    /// What is damaged: the first thousand.
    pub damage: Vec<Damage>,
    /// How much is damaged.
    pub damages: u64,
    /// Files that it touches: the first thousand.
    pub affected: Vec<Affected>,
    /// How many files it touches.
    pub affected_files: u64,
    /// Snapshots that restore whole, as far as this level can tell.
    pub whole: Vec<SessionName>,
    /// Snapshots that do not.
    pub damaged: Vec<SessionName>,
}

/// Things listed word for word; the rest is counted.
const LISTED: usize = 1000;

/// A frame that cannot be read.
pub(crate) type Bad = HashSet<(PackId, u32)>;

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damages == 0 && self.affected_files == 0
    }

    pub(crate) fn add_damage(&mut self, monitor: &dyn Monitor, object: String, problem: String) {
        monitor.problem(Problem { what: object.clone(), message: problem.clone() });
        self.damages += 1;
        if self.damage.len() < LISTED {
            self.damage.push(Damage { object, problem });
        }
    }
}

/// Checks a repository.
pub async fn check(
    repository: &Repository,
    options: CheckOptions,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    monitor.phase("structure");
    let mut structure = structure::check(repository, &mut report, &*monitor, &cancel).await?;
    if options.level != CheckLevel::Structure {
        monitor.phase("packs");
        data::check(repository, options, &mut structure, &mut report, &monitor, &cancel).await?;
    }
    monitor.phase("snapshots");
    for reader in &structure.readers {
        cancel.check()?;
        let session = reader.snapshot().session;
        let broken = structure.broken_trees.contains(&session);
        let touched = if structure.bad.is_empty() { 0 } else { touched(reader, &structure.bad, &mut report).await };
        if broken || touched > 0 {
            report.damaged.push(session);
        } else {
            report.whole.push(session);
        }
    }
    Ok(report)
}

/// Lists the files of a snapshot that want a bad frame.
async fn touched(reader: &SnapshotReader, bad: &Bad, report: &mut CheckReport) -> u64 {
    let mut count = 0;
    let Ok(mut walk) = reader.entries(Part::all()) else { return 1 };
    loop {
        let leaf = match walk.next_leaf().await {
            Ok(Some(leaf)) => leaf,
            Ok(None) => return count,
            // A page of the tree is gone: that is reported already, and some files are not known any more.
            Err(_) => return count + 1,
        };
        for entry in leaf {
            if wants_bad(reader, &entry.content, bad).await {
                count += 1;
                report.affected_files += 1;
                if report.affected.len() < LISTED {
                    let snapshot = reader.snapshot().session.nonce.short();
                    report.affected.push(Affected { snapshot, path: escape_path(&entry.path) });
                }
            }
        }
    }
}

async fn wants_bad(reader: &SnapshotReader, content: &crate::format::entry::Content, bad: &Bad) -> bool {
    let mut runs = reader.runs(content);
    loop {
        match runs.next_piece().await {
            Ok(None) => return false,
            Err(_) => return true,
            Ok(Some((_, piece))) => {
                let is_bad = |run: &Run| match run {
                    Run::Chunk(chunk) => {
                        chunk.frame.place().is_none_or(|place| bad.contains(&(place.pack, place.offset)))
                    }
                    Run::Hole(_) => false,
                };
                if piece.iter().any(is_bad) {
                    return true;
                }
            }
        }
    }
}
