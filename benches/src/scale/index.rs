//! A repository whose index has as many rows as one of many TiB would have.
//!
//! The rows are of packs that are not there: what is measured is how a backup, the listing of snapshots and a check
//! bear an index of that length, not what deduplication finds in it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use carrack_mover::clock::World;
use carrack_mover::format::frame::Suite;
use carrack_mover::format::session::SessionKind;
use carrack_mover::id::{LineageId, RandomId};
use carrack_mover::store::{FsStore, list_all};

use super::{Setup, Subject, sizes};
use crate::dataset::{self, Dataset};
use crate::index::{Rows, create};
use crate::tools::Name;

/// Rows of one full segment.
const SEGMENT: usize = 1 << 17;
/// Segments for a TiB of chunks of 64 KiB.
const SEGMENTS_PER_TIB: u64 = (1 << 40) / (64 << 10) / SEGMENT as u64;

/// An index without its packs.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Index {
    /// TiB that the index is as long as, at the last point: 128 segments of 2.4 MB for each.
    #[arg(long, default_value_t = 4)]
    tib: u64,
    /// Segments with rows of their own; all others are hard links to these. 1600 for 100 TiB of different rows.
    #[arg(long, default_value_t = 16)]
    distinct_segments: u64,
}

/// Backups of a small tree into repositories with ever longer indexes.
pub fn index(setup: &Setup, args: Index) -> Result<()> {
    let mut subject = Subject::new(setup, "index", "TiB")?;
    let source = subject.place.home.join("source");
    fs::create_dir_all(&source).with_context(|| format!("create {}", source.display()))?;
    dataset::create(&source, Dataset::Db, 0.05, 1)?;
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    for tib in sizes(args.tib) {
        let repository = subject.repository();
        dataset::remove(&repository)?;
        let segments = tib * SEGMENTS_PER_TIB;
        runtime.block_on(fill(&repository, segments.min(args.distinct_segments.max(1))))?;
        multiply(&repository.join("index"), segments)?;
        let size = tib as f64;
        subject.backup("first", size, Name::Carrack, &source)?;
        subject.backup("unchanged", size, Name::Carrack, &source)?;
        let check = subject.tool(Name::Carrack).check_all(&subject.place);
        subject.run("check", size, &check)?;
        let prune = &subject.tool(Name::Carrack).forget_prune(&subject.place, &source);
        for command in prune {
            // Merges the segments, and drops the rows of packs that are not there: all but a few.
            subject.run("prune", size, command)?;
        }
    }
    subject.finish()
}

/// Makes a repository with so many full segments.
async fn fill(dir: &Path, segments: u64) -> Result<()> {
    let repository = create(Arc::new(FsStore::open(dir, World::system()))).await?;
    let session = repository.begin(SessionKind::Backup, LineageId::default(), Suite::Aes256Gcm).await?;
    let mut rows = Rows::new(1);
    for _ in 0..segments {
        session.put_segment(&rows.take(SEGMENT)).await?;
    }
    session.abandon("it was there for its segments only").await?;
    let found = list_all(repository.store().as_ref(), "index/s-").await?.len();
    ensure!(found as u64 == segments, "{found} segments are there, {segments} were written");
    Ok(())
}

/// Links the segments in `dir` under new names, in turn, until there are `count`.
fn multiply(dir: &Path, count: u64) -> Result<()> {
    let names = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let there = names.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let world = World::system();
    for number in there.len() as u64..count {
        let name = format!("s-{}", RandomId(world.random()));
        let from = &there[number as usize % there.len()];
        fs::hard_link(from, dir.join(name)).with_context(|| format!("link {}", from.display()))?;
    }
    Ok(())
}
