//! A large sparse device: an image file with data in few places.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::{Setup, Subject, sizes};
use crate::rng::Rng;
use crate::tools::Name;

/// What is written in one place: a run of blocks as a guest's file system writes them.
const EXTENT: u64 = 1 << 20;
const FILE: &str = "device.img";

/// A sparse image.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Device {
    /// Length of the image in GiB; ext4 takes 16 TiB at most.
    #[arg(long, default_value_t = 10 << 10)]
    size_gib: u64,
    /// MiB of blocks that differ from each other, at the last point. As much is needed for the repository; 1048576 is
    /// a TiB.
    #[arg(long, default_value_t = 256)]
    distinct_mib: u64,
    /// MiB that change before the backups with a list of changed blocks, at their last point.
    #[arg(long, default_value_t = 16)]
    changed_mib: u64,
}

/// First and unchanged backup of ever more data in an image of the same length, and then backups with a list of changed
/// blocks, of ever more changes.
pub fn device(setup: &Setup, args: Device) -> Result<()> {
    let mut subject = Subject::new(setup, "device", "GiB")?;
    subject.place.device = Some(FILE);
    let source = subject.place.home.join("source");
    fs::create_dir_all(&source).with_context(|| format!("create {}", source.display()))?;
    let path = source.join(FILE);
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
    let file = file.with_context(|| format!("create {}", path.display()))?;
    let length = args.size_gib << 30;
    file.set_len(length).with_context(|| format!("make {} {} GiB long", path.display(), args.size_gib))?;
    let places = args.distinct_mib.max(1);
    // Spread over the whole length, at whole extents.
    let stride = (length / places / EXTENT).max(1) * EXTENT;
    let mut made = 0;
    for count in sizes(places) {
        write(&file, made..count, stride, "device")?;
        made = count;
        let gib = count as f64 / 1024.0;
        subject.init()?;
        subject.place.changed = None;
        subject.backup("first", gib, Name::CarrackDevice, &source)?;
        subject.backup("unchanged", gib, Name::CarrackDevice, &source)?;
    }
    for count in sizes(args.changed_mib.min(places)) {
        write(&file, 0..count, stride, &format!("changed {count}"))?;
        let list = subject.place.home.join("changed-blocks");
        let text: String = (0..count).map(|number| format!("{} {EXTENT}\n", number * stride)).collect();
        crate::tools::write(&list, &text)?;
        subject.place.changed = Some(list);
        subject.backup("changed, with a list", count as f64 / 1024.0, Name::CarrackList, &source)?;
    }
    restored_is_source(&mut subject, &source)?;
    subject.finish()
}

/// Restores the image and compares the extents that have data, of which a list may have lost some.
fn restored_is_source(subject: &mut Subject<'_>, source: &Path) -> Result<()> {
    let target = subject.place.home.join("restored");
    fs::create_dir_all(&target).with_context(|| format!("create {}", target.display()))?;
    let gib = crate::walk::walk(source)?.files.iter().map(|file| file.allocated).sum::<u64>() as f64
        / (1_u64 << 30) as f64;
    let restore = subject.tool(Name::CarrackDevice).restore(&subject.place, source, &target);
    subject.run("restore", gib, &restore)?;
    let (wanted, found) = (source.join(FILE), target.join(FILE));
    let (wanted, found) = (File::open(wanted)?, File::open(found)?);
    let (mut one, mut other) = (vec![0; EXTENT as usize], vec![0; EXTENT as usize]);
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&wanted, rustix::fs::SeekFrom::Data(at)) {
        wanted.read_exact_at(&mut one, data)?;
        found.read_exact_at(&mut other, data).context("the restored image is too short")?;
        anyhow::ensure!(one == other, "the restored image differs at byte {data}");
        at = data + EXTENT;
    }
    Ok(())
}

/// Fills the extents of these numbers with bytes of their own.
fn write(file: &File, numbers: std::ops::Range<u64>, stride: u64, label: &str) -> Result<()> {
    numbers.into_par_iter().try_for_each_init(
        || vec![0; EXTENT as usize],
        |bytes, number| {
            Rng::new(number, label).fill(bytes);
            file.write_all_at(bytes, number * stride).context("write the image")
        },
    )
}
