//! Datasets of one large file: the disk image `vm` and the database `db`.
//!
//! Both are laid out in units that a function of the unit's number decides, so units are made in parallel
//! and a change rewrites a unit in place.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::content::{self, Kind, PAGE, Words};
use crate::rng::Rng;

/// The image's name.
pub(super) const VM_FILE: &str = "disk.img";
/// The database's name.
pub(super) const DB_FILE: &str = "table.db";
/// What the image is laid out in: an extent that one file of the guest would fill.
const EXTENT: u64 = 1 << 20;
/// What changes at a time: a guest's file system writes blocks, seldom single ones.
const BLOCK: u64 = 64 << 10;
/// Pages made at a time.
const BATCH: u64 = 128;
/// Share of the blocks and pages that a change touches, in percent.
const CHANGED: u64 = 2;

/// A disk image of 4 GiB at scale 1.
pub(super) fn vm(dir: &Path, scale: f64, seed: u64) -> Result<()> {
    let words = Words::new(seed);
    let extents = (4096.0 * scale).ceil() as u64;
    let path = dir.join(VM_FILE);
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(extents * EXTENT)?;
    (0..extents).into_par_iter().try_for_each(|number| {
        let Some(bytes) = extent(number, seed, &words) else { return Ok(()) };
        file.write_all_at(&bytes, number * EXTENT).with_context(|| format!("write {}", path.display()))
    })
}

/// One extent's bytes; none for a hole.
fn extent(number: u64, seed: u64, words: &Words) -> Option<Vec<u8>> {
    let mut rng = Rng::new(seed, &format!("vm {number}"));
    let kind = match rng.below(100) {
        0..25 => return None,
        // A repeat: the guest holds the same file again; the source is of a small set of fixed extents.
        25..50 => {
            let source = rng.below(64);
            let mut rng = Rng::new(seed, &format!("vm repeat {source}"));
            let mut bytes = Vec::with_capacity(EXTENT as usize);
            content::append(&mut bytes, Kind::Code, EXTENT as usize, words, &mut rng);
            return Some(bytes);
        }
        50..72 => Kind::Text,
        72..92 => Kind::Code,
        _ => Kind::Packed,
    };
    let mut bytes = Vec::with_capacity(EXTENT as usize);
    content::append(&mut bytes, kind, EXTENT as usize, words, &mut rng);
    Some(bytes)
}

/// A database file of 1 GiB at scale 1.
pub(super) fn db(dir: &Path, scale: f64, seed: u64) -> Result<()> {
    let words = Words::new(seed);
    let pages = ((131_072.0 * scale).ceil() as u64).next_multiple_of(BATCH);
    let path = dir.join(DB_FILE);
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    (0..pages / BATCH).into_par_iter().try_for_each(|batch| {
        let mut rng = Rng::new(seed, &format!("db {batch}"));
        let mut bytes = vec![0; BATCH as usize * PAGE];
        for (index, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
            content::page(page, batch * BATCH + index as u64, &words, &mut rng);
        }
        file.write_all_at(&bytes, batch * BATCH * PAGE as u64)
            .with_context(|| format!("write {}", path.display()))
    })
}

/// Rewrites 2 % of the image in blocks of 64 KiB, in runs of up to 16 as a guest writes files.
pub(super) fn change_vm(dir: &Path, seed: u64, epoch: u32) -> Result<Vec<(u64, u64)>> {
    let words = Words::new(seed);
    let (file, length) = open(&dir.join(VM_FILE))?;
    let blocks = length / BLOCK;
    let mut rng = Rng::new(seed, &format!("vm change {epoch}"));
    let goal = (blocks * CHANGED / 100).max(1);
    let (mut written, mut changed) = (0, Vec::new());
    while written < goal {
        let start = rng.below(blocks);
        let run = (1 + rng.below(16)).min(blocks - start).min(goal - written);
        let kind = if rng.chance(50) { Kind::Text } else { Kind::Code };
        let mut bytes = Vec::new();
        content::append(&mut bytes, kind, (run * BLOCK) as usize, &words, &mut rng);
        file.write_all_at(&bytes, start * BLOCK)?;
        written += run;
        changed.push((start * BLOCK, run * BLOCK));
    }
    Ok(changed)
}

/// Rewrites 2 % of the pages, each chosen at random by itself: the worst case for content-defined chunks.
pub(super) fn change_db(dir: &Path, seed: u64, epoch: u32) -> Result<Vec<(u64, u64)>> {
    let words = Words::new(seed);
    let (file, length) = open(&dir.join(DB_FILE))?;
    let pages = length / PAGE as u64;
    let mut rng = Rng::new(seed, &format!("db change {epoch}"));
    let goal = (pages * CHANGED / 100).max(1);
    let mut bytes = vec![0; PAGE];
    let mut changed = Vec::new();
    for _ in 0..goal {
        let number = rng.below(pages);
        content::page(&mut bytes, number, &words, &mut rng);
        file.write_all_at(&bytes, number * PAGE as u64)?;
        changed.push((number * PAGE as u64, PAGE as u64));
    }
    Ok(changed)
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file =
        OpenOptions::new().write(true).open(path).with_context(|| format!("open {}", path.display()))?;
    let length = file.metadata()?.len();
    Ok((file, length))
}
