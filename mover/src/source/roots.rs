//! The roots of a walk, merged into one tree of names that begins at `/`.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
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

/// Makes the tree of `roots`. Relative ones are made absolute by `base`; `.` and `..` are resolved by name
/// alone; a root within another root is part of that one, and still remembered: it may be on another file system.
pub fn merge_roots(base: &Path, roots: &[PathBuf]) -> Result<Arc<RootNode>> {
    if roots.is_empty() {
        return Err(Error::invalid("no path to back up was given"));
    }
    let mut top = RootNode::default();
    for root in roots {
        insert(&mut top, &absolute(base, root)?);
    }
    Ok(Arc::new(top))
}

/// The names from `/` to `path`.
fn absolute(base: &Path, path: &Path) -> Result<Vec<CString>> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("a path to back up is empty"));
    }
    let mut names: Vec<CString> = Vec::new();
    for component in base.join(path).components() {
        match component {
            Component::Normal(name) => names.push(c_name(name, path)?),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
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
