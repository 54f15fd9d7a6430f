//! Packs that an object lock holds: they are left out of the plan (C1). Time decides here only when something is deleted
//! that nobody needs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{PrunePlan, table::PackTable};
use crate::{
    error::{Error, Result},
    format::pack::PackSending,
    id::PackId,
    repo::Repository,
};

#[cfg(test)]
mod tests;

/// Packs that are asked for at once.
const PARALLEL_LOOKS: usize = 16;

impl Repository {
    /// Takes out of the plan what the store would not let go yet.
    pub(super) async fn leave_locked(&self, plan: &mut PrunePlan, table: &PackTable) -> Result<()> {
        let wanted: Vec<PackId> = plan.delete.iter().chain(&plan.repack).copied().collect();
        let locked = self.locked(table.sendings(&wanted)).await?;
        if locked.is_empty() {
            return Ok(());
        }
        for row in
            plan.delete.iter().filter(|pack| locked.contains_key(*pack)).filter_map(|pack| table.get(*pack))
        {
            plan.delete_bytes -= row.bytes;
            plan.locked_bytes += row.bytes;
        }
        for row in
            plan.repack.iter().filter(|pack| locked.contains_key(*pack)).filter_map(|pack| table.get(*pack))
        {
            plan.repack_bytes -= row.needed_bytes();
            plan.repack_unused_bytes -= row.unused_bytes();
            plan.locked_bytes += row.unused_bytes();
        }
        plan.delete.retain(|pack| !locked.contains_key(pack));
        plan.repack.retain(|pack| !locked.contains_key(pack));
        plan.locked_until = locked.values().min().copied();
        plan.locked = locked.into_keys().collect();
        Ok(())
    }

    /// Which of these are held, and until when.
    async fn locked(&self, sendings: Vec<PackSending>) -> Result<BTreeMap<PackId, Timestamp>> {
        let now = self.world().clock.now();
        let (mut locked, mut running) = (BTreeMap::<PackId, Timestamp>::new(), JoinSet::new());
        let mut sendings = sendings.into_iter();
        loop {
            while running.len() < PARALLEL_LOOKS
                && let Some(sending) = sendings.next()
            {
                let repository = self.clone();
                running.spawn(async move {
                    let until = repository.store().locked_until(&sending.object()).await;
                    until.map(|until| (sending.pack, until))
                });
            }
            let Some(joined) = running.join_next().await else { return Ok(locked) };
            let (pack, until) =
                joined.map_err(|error| Error::internal("looking at a lock broke").with_source(error))??;
            if let Some(until) = until.filter(|until| *until > now) {
                let kept = locked.entry(pack).or_insert(until);
                *kept = until.max(*kept);
            }
        }
    }
}
