//! Finds paths by pattern in snapshots.

use globset::GlobSet;

use crate::{
    error::Result,
    format::entry::Entry,
    reader::{SnapshotReader, walk::Part},
    source::exclude::{End, Pattern, absolute, candidate, set_of},
};

#[cfg(test)]
mod tests;

/// Patterns to find paths by. Each is about a path itself and not about what is below it; the last one that matches
/// counts, and one that begins with `!` takes back what an earlier one found.
#[derive(Debug, Default, Clone)]
pub struct Wanted {
    patterns: Vec<Pattern>,
    set: GlobSet,
}

impl Wanted {
    /// Adds a pattern; `origin` says in an error where it comes from.
    pub fn add(&mut self, pattern: &str, ignore_case: bool, origin: &str) -> Result<()> {
        self.patterns.push(Pattern::read(pattern, ignore_case, End::Below, origin)?);
        self.set = set_of(&self.patterns, origin)?;
        Ok(())
    }

    /// Whether `path` (slash-joined, without a leading slash) is wanted.
    pub fn matches(&self, path: &[u8]) -> bool {
        let last = self.set.matches_candidate(&candidate(&absolute(path))).into_iter().max();
        last.is_some_and(|index| !self.patterns[index].negated)
    }
}

/// Hands the entries that one of the patterns matches to `found`, in tree order, some at a time; gives their number.
pub async fn find(
    reader: &SnapshotReader,
    part: Part,
    patterns: &Wanted,
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
