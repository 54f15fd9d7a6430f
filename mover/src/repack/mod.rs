//! Repack: moves what is needed out of packs that are mostly not, by the rules R1 to R4. The old packs are then
//! needed by nobody, and the collector takes them as it takes any other.
//!
//! Frames are moved as they are sealed. Each is opened once before, so that no damage is carried on while the only
//! good copy is deleted.

mod copy;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use self::copy::Copier;
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        frame::Suite,
        session::{SessionKind, SessionName},
    },
    id::{LineageId, PackId},
    monitor::Monitor,
    repo::{Needs, PrunePlan, Repository, Session, Watch},
};

/// What a repack did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepackReport {
    /// Packs of which everything that is needed was moved.
    pub packs: Vec<PackId>,
    /// Packs that could not be moved whole, and stay.
    pub left: u64,
    /// Frames that were moved.
    pub frames: u64,
    /// Bytes of new packs.
    pub bytes: u64,
    /// The session that did it, if it moved anything.
    pub session: Option<SessionName>,
}

/// Frames that one repack moves at most: its record is read by every writer.
const FRAMES_MAX: usize = 64 << 10;

/// Moves what is needed of the plan's packs, and has the plan delete them afterwards.
pub async fn repack(
    repository: &Repository,
    plan: &mut PrunePlan,
    memory_bytes: u64,
    monitor: Arc<dyn Monitor>,
    cancel: &Cancel,
) -> Result<RepackReport> {
    if plan.repack.is_empty() {
        return Ok(RepackReport::default());
    }
    repository.check_maintainable()?;
    // What a list of others condemns, nobody may move.
    monitor.phase("finishing what others began");
    let watch = Watch { monitor: monitor.as_ref(), cancel };
    repository.finish_abandoned(plan, watch).await?.into_iter().for_each(|problem| monitor.problem(problem));
    // R1 with W1, W2 and W5: a session of its own.
    let session =
        repository.begin(SessionKind::Repack, LineageId::default(), Suite::ChaCha20Poly1305).await?;
    let session = Arc::new(session);
    let done = run(repository, plan, &session, memory_bytes, monitor, cancel).await;
    match done {
        Ok(report) => {
            plan.delete.extend(&report.packs);
            plan.delete.sort_unstable();
            Ok(report)
        }
        Err(error) => {
            if let Err(second) = session.abandon("it failed").await {
                tracing::warn!(error = %second, "the repack's session has no end; maintenance will give it one");
            }
            Err(error)
        }
    }
}

async fn run(
    repository: &Repository,
    plan: &PrunePlan,
    session: &Arc<Session>,
    memory_bytes: u64,
    monitor: Arc<dyn Monitor>,
    cancel: &Cancel,
) -> Result<RepackReport> {
    monitor.phase("finding what is to be moved");
    let mut wanted = Wanted::new(&plan.repack);
    repository.mark(&mut wanted, Watch { monitor: monitor.as_ref(), cancel }).await?;
    monitor.phase("moving what is needed");
    let copier = Copier::new(repository.clone(), Arc::clone(session), memory_bytes, monitor, cancel.clone());
    let handle = Handle::current();
    let work = tokio::task::spawn_blocking(move || copier.run(wanted.packs, FRAMES_MAX, handle));
    let copied = work.await.map_err(|error| Error::internal("the repack broke").with_source(error))??;
    let mut report = copied.report;
    if copied.moved.is_empty() {
        session.abandon("there was nothing to move").await?;
        return Ok(report);
    }
    // W6, R1 and W7.
    session.put_segment(&copied.indexed).await?;
    session.commit_relocations(&copied.moved).await?;
    report.session = Some(session.name());
    Ok(report)
}

/// Offsets of the frames that are needed of some packs.
struct Wanted {
    packs: BTreeMap<PackId, BTreeSet<u32>>,
}

impl Wanted {
    fn new(packs: &[PackId]) -> Self {
        Self { packs: packs.iter().map(|pack| (*pack, BTreeSet::new())).collect() }
    }
}

impl Needs for Wanted {
    fn frame(&mut self, pack: PackId, offset: u32, _stored: u32) {
        if let Some(offsets) = self.packs.get_mut(&pack) {
            offsets.insert(offset);
        }
    }
}
