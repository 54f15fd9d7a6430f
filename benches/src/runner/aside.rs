//! Trees that are done with, kept until all scenarios are over.
//!
//! ext4 without a journal gives no inode out again for five minutes after it was deleted, and passes over those one by
//! one whenever it looks for a free one. Files that are made meanwhile take more than ten times as long, whoever makes
//! them. So nothing of many inodes is deleted while there is still something to measure: files are made empty, which
//! frees what they take on the disk, and moved away.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use crate::{dataset, walk};

/// Where such trees are.
#[derive(Debug)]
pub(super) struct Aside {
    dir: PathBuf,
}

impl Aside {
    /// What a run that was broken off left there stays as long as what is put there now.
    pub(super) fn new(cache: &Path) -> Self {
        Self { dir: cache.join("aside") }
    }

    /// Takes a tree that may not be there.
    pub(super) fn put(&self, tree: &Path) -> Result<()> {
        if !tree.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let mut places = (0_u64..).map(|number| self.dir.join(number.to_string()));
        let place = places.find(|place| !place.exists()).context("all numbers are taken")?;
        fs::rename(tree, &place).with_context(|| format!("move {} away", tree.display()))?;
        walk::walk(&place)?.files.par_iter().filter(|file| file.allocated > 0).try_for_each(|file| {
            let open = OpenOptions::new().write(true).open(&file.path);
            let empty = open.and_then(|open| open.set_len(0));
            empty.with_context(|| format!("make {} empty", file.path.display()))
        })
    }

    /// Deletes everything.
    pub(super) fn clear(&self) -> Result<()> {
        dataset::remove(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn trees_keep_their_inodes_and_no_blocks() {
        let dir = tempfile::tempdir().expect("a directory");
        let (aside, tree) = (Aside::new(dir.path()), dir.path().join("tree"));
        aside.put(&tree).expect("nothing to take");
        for number in 0..2 {
            fs::create_dir_all(tree.join("below")).expect("a directory");
            let file = tree.join("below/file");
            fs::write(&file, vec![1; 100_000]).expect("a file");
            let before = fs::metadata(&file).expect("a file");
            aside.put(&tree).expect("a tree moves");
            assert!(!tree.exists());
            let kept = dir.path().join(format!("aside/{number}/below/file"));
            let after = fs::metadata(kept).expect("a file");
            assert_eq!((after.ino(), after.len()), (before.ino(), 0));
        }
        aside.clear().expect("everything goes");
        assert!(!dir.path().join("aside").exists());
    }
}
