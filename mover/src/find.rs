//! Finds paths by pattern in snapshots.

use crate::{
    error::Result,
    format::entry::Entry,
    reader::{SnapshotReader, walk::Part},
    source::exclude::Exclude,
};

/// Hands every entry that one of the patterns matches to `found`, in tree order; gives their number.
pub async fn find(
    reader: &SnapshotReader,
    part: Part,
    patterns: &Exclude,
    found: &mut (dyn FnMut(Entry) + Send),
) -> Result<u64> {
    let mut walk = reader.entries(part)?;
    let mut count = 0;
    while let Some(leaf) = walk.next_leaf().await? {
        for entry in leaf {
            if patterns.matches(&entry.path) {
                count += 1;
                found(entry);
            }
        }
    }
    Ok(count)
}
