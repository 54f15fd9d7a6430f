//! Finds paths by pattern in snapshots.

use crate::{
    error::Result,
    format::entry::Entry,
    reader::{SnapshotReader, walk::Part},
    source::exclude::Exclude,
};

#[cfg(test)]
mod tests;

/// Hands the entries that one of the patterns matches to `found`, in tree order, some at a time; gives their number.
pub async fn find(
    reader: &SnapshotReader,
    part: Part,
    patterns: &Exclude,
    found: &mut (dyn FnMut(Vec<Entry>) -> Result<()> + Send),
) -> Result<u64> {
    let mut walk = reader.entries(part)?;
    let mut count = 0;
    while let Some(mut leaf) = walk.next_leaf().await? {
        leaf.retain(|entry| patterns.matches(&entry.path));
        if !leaf.is_empty() {
            count += leaf.len() as u64;
            found(leaf)?;
        }
    }
    Ok(count)
}
