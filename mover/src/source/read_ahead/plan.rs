//! Which names of a directory belong to a walk.

use std::{ffi::CStr, io, sync::Arc};

use crate::{
    source::roots::RootNode,
    sys::{directory::Names, names::Listed},
};

/// What of a directory belongs to the walk.
#[derive(Debug, Clone)]
pub(in crate::source) enum Plan {
    /// All of it, if `device` is given only on that device; there may be further roots within, which belong to the
    /// walk wherever they are.
    Whole { device: Option<u64>, within: Option<Arc<RootNode>> },
    /// Only these names.
    Only(Arc<RootNode>),
}

impl Plan {
    /// All of a root.
    pub(in crate::source) fn of_root(root: &Arc<RootNode>, device: Option<u64>) -> Self {
        Self::Whole { device, within: (!root.children.is_empty()).then(|| Arc::clone(root)) }
    }

    /// What was asked for of this name: a root, or a name on the way to one.
    pub(super) fn named(&self, name: &CStr) -> Option<&Arc<RootNode>> {
        match self {
            Self::Only(roots) => Some(roots),
            Self::Whole { within, .. } => within.as_ref(),
        }
        .and_then(|roots| roots.children.get(name))
    }
}

/// These names and no others.
pub(super) fn only<'name>(names: impl IntoIterator<Item = &'name CStr>) -> io::Result<Listed> {
    let mut listed = Names::default();
    for name in names {
        if !listed.push(name) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
    }
    Ok(Listed::of(listed))
}
