//! Datasets of many files: `random`, `tree`, `small`.
//!
//! Every file has a stream of its own, named by its number, so that threads may make them in any order.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::content::{self, Kind, Words};
use crate::rng::Rng;

/// Bytes made at a time; bounds a thread's memory whatever the file's size.
const PIECE: usize = 1 << 20;

/// Eight files, 256 MiB each at scale 1.
pub(super) fn random(dir: &Path, scale: f64, seed: u64) -> Result<()> {
    let size = ((256_u64 << 20) as f64 * scale) as u64;
    (0..8).into_par_iter().try_for_each(|number| {
        let mut rng = Rng::new(seed, &format!("random {number}"));
        write(&dir.join(format!("blob-{number}.bin")), Kind::Packed, size, &Words::new(seed), &mut rng)
    })
}

/// A system tree: of 60 000 files nine in ten are below 64 KiB, and the few large ones hold most bytes.
pub(super) fn tree(dir: &Path, scale: f64, seed: u64) -> Result<()> {
    let words = Words::new(seed);
    let count = (60_000.0 * scale).ceil() as u64;
    directories(dir, count / 20 + 1)?;
    (0..count).into_par_iter().try_for_each(|number| {
        let mut rng = Rng::new(seed, &format!("tree {number}"));
        let size = tree_size(&mut rng);
        let kind = match rng.below(100) {
            0..50 => Kind::Text,
            50..85 => Kind::Code,
            _ => Kind::Packed,
        };
        let path = directory(dir, number / 20).join(format!("file-{number}.{}", extension(kind)));
        if number % 40 == 39 {
            let target = format!("file-{}.link", number - 1);
            return std::os::unix::fs::symlink(&target, &path)
                .with_context(|| format!("link {}", path.display()));
        }
        write(&path, kind, size, &words, &mut rng)
    })
}

/// 200 000 files of 4.5 KiB on average.
pub(super) fn small(dir: &Path, scale: f64, seed: u64) -> Result<()> {
    let words = Words::new(seed);
    let count = (200_000.0 * scale).ceil() as u64;
    directories(dir, count / 100 + 1)?;
    (0..count).into_par_iter().try_for_each(|number| {
        let mut rng = Rng::new(seed, &format!("small {number}"));
        let size = 64 + rng.below(2) * rng.below(6_000) + rng.below(6_000);
        let kind = match rng.below(100) {
            0..75 => Kind::Text,
            75..90 => Kind::Code,
            _ => Kind::Packed,
        };
        let path = directory(dir, number / 100).join(format!("file-{number}"));
        write(&path, kind, size, &words, &mut rng)
    })
}

/// Sizes as in `/usr`: log-uniform within bands; the mean is about 35 KiB.
fn tree_size(rng: &mut Rng) -> u64 {
    let (low, doublings) = match rng.below(1000) {
        0..450 => (64, 6),
        450..900 => (4 << 10, 4),
        900..985 => (64 << 10, 2),
        985..999 => (256 << 10, 2),
        _ => (1 << 20, 4),
    };
    let size = low << rng.below(doublings);
    size + rng.below(size)
}

const fn extension(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "txt",
        Kind::Code => "so",
        Kind::Packed => "gz",
    }
}

/// Two levels of at most 64 directories below each other, so that no directory is unnaturally wide.
fn directory(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("part-{:03}", number / 64)).join(format!("dir-{number:05}"))
}

fn directories(dir: &Path, count: u64) -> Result<()> {
    for number in 0..count {
        let path = directory(dir, number);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    Ok(())
}

fn write(path: &Path, kind: Kind, size: u64, words: &Words, rng: &mut Rng) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut left = size;
    let mut piece = Vec::new();
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        piece.clear();
        content::append(&mut piece, kind, length, words, rng);
        file.write_all(&piece).with_context(|| format!("write {}", path.display()))?;
        left -= length as u64;
    }
    Ok(())
}
