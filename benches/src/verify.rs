//! Proof that a restore is what was backed up, so that no tool is praised for speed it got by losing data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use crate::walk;

/// One entry of a tree, comparable with that of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Path relative to the tree's root.
    pub path: PathBuf,
    /// `dir`, `link TARGET`, or `file LENGTH HASH`.
    pub what: String,
}

/// All entries below `root`, sorted by path, contents hashed.
pub fn summary(root: &Path) -> Result<Vec<Entry>> {
    let walk = walk::walk(root)?;
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_path_buf();
    let mut entries: Vec<Entry> = walk
        .files
        .par_iter()
        .map(|file| {
            let mut hasher = blake3::Hasher::new();
            let open = fs::File::open(&file.path).with_context(|| format!("open {}", file.path.display()))?;
            hasher.update_reader(open).with_context(|| format!("read {}", file.path.display()))?;
            let what = format!("file {} {}", file.size, hasher.finalize().to_hex());
            Ok(Entry { path: relative(&file.path), what })
        })
        .collect::<Result<_>>()?;
    entries.extend(walk.directories.iter().map(|dir| Entry { path: relative(dir), what: "dir".into() }));
    for other in &walk.others {
        let target = fs::read_link(other).map(|t| t.display().to_string()).unwrap_or_default();
        entries.push(Entry { path: relative(other), what: format!("link {target}") });
    }
    entries.sort();
    Ok(entries)
}

/// Fails when `target` does not hold what `wanted` says, naming the first difference.
///
/// Tools differ in where below the target they put the tree: at its top, under the source's absolute path,
/// or under its last name. Whichever of these holds the same names as the source's top is taken.
pub fn compare(wanted: &[Entry], source: &Path, target: &Path) -> Result<()> {
    let root = locate(source, target)?;
    let found = summary(&root)?;
    if let Some((want, have)) = wanted.iter().zip(&found).find(|(want, have)| want != have) {
        bail!(
            "restore differs: expected {} ({}), found {} ({})",
            want.path.display(),
            want.what,
            have.path.display(),
            have.what
        );
    }
    if wanted.len() != found.len() {
        bail!("restore differs: {} entries expected, {} found", wanted.len(), found.len());
    }
    Ok(())
}

fn locate(source: &Path, target: &Path) -> Result<PathBuf> {
    let top = |dir: &Path| -> Result<BTreeSet<_>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let wanted = top(source).with_context(|| format!("list {}", source.display()))?;
    let absolute = target.join(source.strip_prefix("/").unwrap_or(source));
    let named = target.join(source.file_name().unwrap_or_default());
    for candidate in [target.to_path_buf(), absolute, named] {
        if top(&candidate).is_ok_and(|found| found == wanted) {
            return Ok(candidate);
        }
    }
    bail!("the restored tree was not found below {}", target.display())
}
