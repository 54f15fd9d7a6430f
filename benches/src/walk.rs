//! A bare parallel walk: readdir and lstat, nothing else. It is the limit of an unchanged backup.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

/// A regular file that the walk met.
#[derive(Clone, Debug)]
pub struct Found {
    /// Path below the walk's root, the root included.
    pub path: PathBuf,
    /// Length in bytes.
    pub size: u64,
    /// Bytes the file system holds for it; less than the length where there are holes.
    pub allocated: u64,
}

/// Everything below a directory.
#[derive(Debug, Default)]
pub struct Walk {
    /// Regular files, in no order.
    pub files: Vec<Found>,
    /// Directories, the root excluded.
    pub directories: Vec<PathBuf>,
    /// Symbolic links and the rest.
    pub others: Vec<PathBuf>,
}

/// Walks `root` on all cores.
pub fn walk(root: &Path) -> Result<Walk> {
    let mut found = Walk::default();
    let mut level = vec![root.to_path_buf()];
    while !level.is_empty() {
        let lists: Vec<Walk> = level.par_iter().map(|dir| list(dir)).collect::<Result<_>>()?;
        level.clear();
        for mut list in lists {
            level.extend(list.directories.iter().cloned());
            found.files.append(&mut list.files);
            found.directories.append(&mut list.directories);
            found.others.append(&mut list.others);
        }
    }
    Ok(found)
}

/// Reads every file below `root`, so that it is in the page cache as far as there is room.
pub fn warm(root: &Path) -> Result<()> {
    walk(root)?.files.par_iter().try_for_each_init(
        || vec![0; 1 << 20],
        |buffer, file| {
            let named = || format!("read {}", file.path.display());
            let mut open = fs::File::open(&file.path).with_context(named)?;
            while open.read(buffer).with_context(named)? > 0 {}
            Ok(())
        },
    )
}

fn list(dir: &Path) -> Result<Walk> {
    let mut found = Walk::default();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let path = entry.path();
        // `DirEntry::metadata` is an lstat relative to the open directory.
        let meta = entry.metadata().with_context(|| format!("lstat {}", path.display()))?;
        if meta.is_dir() {
            found.directories.push(path);
        } else if meta.is_file() {
            found.files.push(Found { path, size: meta.len(), allocated: meta.blocks() * 512 });
        } else {
            found.others.push(path);
        }
    }
    Ok(found)
}

/// Sum of the lengths of all files below `root`; what a repository takes.
pub fn stored(root: &Path) -> Result<u64> {
    Ok(walk(root)?.files.iter().map(|file| file.size).sum())
}
