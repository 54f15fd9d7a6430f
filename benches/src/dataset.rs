//! The five datasets: made from a seed, at any scale, with the changes that scenarios apply to them.
//!
//! Same name, scale, seed and [`VERSION`] are the same bytes on every machine. At scale 1.0:
//!
//! | name | holds |
//! |---|---|
//! | `random` | 2 GiB in 8 files that nothing can compress |
//! | `vm` | a 4 GiB disk image: a quarter holes, a quarter repeats of earlier blocks, the rest text, code and packed data |
//! | `tree` | 60 000 files, 2 GiB: a system tree, many small files and few large ones |
//! | `small` | 200 000 files, 0.86 GiB |
//! | `db` | one file of 1 GiB in pages of 8 KiB |

mod content;
mod files;
mod image;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Raised when any generator changes, so that cached datasets of an older one are not taken for new.
pub const VERSION: u32 = 1;

/// A dataset by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// Large incompressible files.
    Random,
    /// A virtual machine's disk image.
    Vm,
    /// A system tree.
    Tree,
    /// 200 000 small files.
    Small,
    /// A database file.
    Db,
}

impl Dataset {
    /// The name used on the command line, in paths and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Vm => "vm",
            Self::Tree => "tree",
            Self::Small => "small",
            Self::Db => "db",
        }
    }

    /// Name of the only file, where the dataset is one that can be taken for a device.
    pub const fn device(self) -> Option<&'static str> {
        match self {
            Self::Vm => Some(image::VM_FILE),
            Self::Db => Some(image::DB_FILE),
            _ => None,
        }
    }

    /// Whether [`change`] has a change for this dataset.
    pub const fn changes(self) -> bool {
        self.device().is_some()
    }
}

/// Makes `dataset` below `cache`, or finds it there unchanged; the directory that tools are to back up.
pub fn prepare(cache: &Path, dataset: Dataset, scale: f64, seed: u64) -> Result<PathBuf> {
    let base = cache.join("data");
    let dir = base.join(dataset.name());
    let marker = base.join(format!("{}.pristine", dataset.name()));
    let wanted = format!("version {VERSION} scale {scale} seed {seed}\n");
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(dir);
    }
    remove(&dir)?;
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    create(&dir, dataset, scale, seed).with_context(|| format!("make dataset {}", dataset.name()))?;
    fs::write(&marker, wanted).with_context(|| format!("write {}", marker.display()))?;
    Ok(dir)
}

/// Says that the dataset is about to be changed, so that the next run makes it anew.
pub fn spoil(cache: &Path, dataset: Dataset) -> Result<()> {
    let marker = cache.join("data").join(format!("{}.pristine", dataset.name()));
    match fs::remove_file(&marker) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", marker.display()))
        }
        _ => Ok(()),
    }
}

/// Writes `dataset` into the empty directory `dir`.
pub fn create(dir: &Path, dataset: Dataset, scale: f64, seed: u64) -> Result<()> {
    match dataset {
        Dataset::Random => files::random(dir, scale, seed),
        Dataset::Tree => files::tree(dir, scale, seed),
        Dataset::Small => files::small(dir, scale, seed),
        Dataset::Vm => image::vm(dir, scale, seed),
        Dataset::Db => image::db(dir, scale, seed),
    }
}

/// Changes 2 % of the blocks, chosen at random; `epoch` makes each change of one dataset another one.
/// Returns offset and length of what was written, some of it perhaps twice.
pub fn change(dir: &Path, dataset: Dataset, seed: u64, epoch: u32) -> Result<Vec<(u64, u64)>> {
    match dataset {
        Dataset::Vm => image::change_vm(dir, seed, epoch),
        Dataset::Db => image::change_db(dir, seed, epoch),
        _ => Ok(Vec::new()),
    }
}

/// Gives every file a new ctime and leaves its contents alone, as a cloned volume does.
pub fn renew(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for file in crate::walk::walk(dir)?.files {
        let mode = fs::symlink_metadata(&file.path)?.permissions().mode();
        // Setting the mode it has already is enough for the kernel to stamp the ctime.
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("renew the ctime of {}", file.path.display()))?;
    }
    Ok(())
}

/// Removes a tree that may not be there.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
