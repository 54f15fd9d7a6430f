//! The roots of a walk, merged into one tree of names that begins at `/`.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A name on the way to a root, or a root.
#[derive(Debug, Default, Clone)]
pub struct RootNode {
    /// Whether everything below belongs to the walk.
    pub whole: bool,
    /// The names to go through, in byte order; in a root those that lead to further roots within it.
    pub children: BTreeMap<CString, Arc<Self>>,
}

/// Makes the tree of `roots`; a root within another root is part of that one, and still remembered: it may be on
/// another file system.
pub fn merge_roots(roots: &[PathBuf]) -> Result<Arc<RootNode>> {
    if roots.is_empty() {
        return Err(Error::invalid("no path to back up was given"));
    }
    let mut top = RootNode::default();
    for root in roots {
        insert(&mut top, &names(&absolute(root)?)?);
    }
    Ok(Arc::new(top))
}

/// The one form of a path that names a source: absolute, without `.`, `..`, doubled slashes or one at the end. What
/// has this form already stays as it is.
///
/// Host and paths name a source, so each way to write the same path must give the same one. As in restic this is
/// done by name alone wherever that is true, so that links on the way keep the names that were typed, and a link
/// that is named is backed up as a link. It is not true behind a link: in `link/..` the file system means the parent
/// of where the link leads, and in `link/` and `link/.` the directory there. By name alone another place would be
/// backed up than the one that was named, or just the link instead of all that is behind it. Only then is the file
/// system believed, and all links up to there are resolved. What cannot be asked, such as a path of another machine
/// that is to choose snapshots, is taken by name.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("a path is empty").with_hint("name a file or a directory; . is this one"));
    }
    let mut so_far = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        std::env::current_dir().map_err(|error| {
            Error::io(error, "cannot tell the working directory").with_hint("give absolute paths")
        })?
    };
    for component in path.components() {
        match component {
            Component::Normal(name) => so_far.push(name),
            Component::ParentDir => so_far = parent_of(&so_far),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let is_link = || so_far.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let bytes = path.as_os_str().as_bytes();
    if (bytes.ends_with(b"/") || bytes.ends_with(b"/.")) && is_link() {
        return Ok(so_far.canonicalize().unwrap_or(so_far));
    }
    Ok(so_far)
}

/// What `..` means in a directory.
fn parent_of(path: &Path) -> PathBuf {
    let by_name = path.parent().unwrap_or(path);
    let place = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    let (meant, named) = (place(&path.join("..")), place(by_name));
    if meant.is_some() && meant != named {
        return path.join("..").canonicalize().unwrap_or_else(|_| by_name.to_owned());
    }
    by_name.to_owned()
}

/// The names from `/` to `path`.
fn names(path: &Path) -> Result<Vec<CString>> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    normal.map(|name| c_name(name, path)).collect()
}

fn c_name(name: &OsStr, path: &Path) -> Result<CString> {
    CString::new(name.as_bytes())
        .map_err(|_| Error::invalid(format!("the path {} holds a NUL byte", path.display())))
}

fn insert(top: &mut RootNode, names: &[CString]) {
    let mut node = top;
    for name in names {
        node = Arc::make_mut(node.children.entry(name.clone()).or_default());
    }
    node.whole = true;
}
