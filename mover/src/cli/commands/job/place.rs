//! The volume of a task: whether it is there, and what on it is not its contents.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use carrack_mover::error::{Error, Result};
use carrack_proto::Place;

#[cfg(test)]
mod tests;

/// What `mkfs` puts into a new file system of the ext family.
const LOST_AND_FOUND: &str = "lost+found";

/// A volume that is not mounted would be backed up as empty, or restored into the container.
pub(super) fn require(place: &Place) -> Result<()> {
    let path = place.path();
    let hint = "see whether the volume is mounted there";
    let found = fs::metadata(path)
        .map_err(|error| Error::io(error, format!("volume {path} is not there")).with_hint(hint))?;
    match place {
        Place::Directory(_) if !found.is_dir() => {
            Err(Error::invalid(format!("volume {path} is not a directory")).with_hint(hint))
        }
        Place::Device(_) if found.is_dir() => {
            Err(Error::invalid(format!("volume {path} is a directory and not a device")).with_hint(hint))
        }
        _ => Ok(()),
    }
}

/// The directory for lost files at the top of a file system, as long as nothing was found. Most who are not root cannot
/// look into it; then its size as a directory tells that nothing is below it that is a directory too.
pub(super) fn lost_and_found(place: &Place) -> Option<PathBuf> {
    let Place::Directory(root) = place else { return None };
    let path = Path::new(root).join(LOST_AND_FOUND);
    let found = path.symlink_metadata().ok()?;
    if !found.is_dir() || found.uid() != 0 {
        return None;
    }
    let empty = match fs::read_dir(&path) {
        Ok(mut names) => names.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied && found.nlink() <= 2,
    };
    empty.then_some(path)
}
