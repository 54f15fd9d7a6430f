//! The directory that a tree is restored into, when it is to be as a directory of the snapshot.

use std::ffi::CString;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::attributes::{Handle, apply};
use super::tree::{DirectoryHandle, TargetTree, failed};
use crate::error::Result;
use crate::format::metadata::Metadata;
use crate::sys::directory::{each_entry, open_directory};
use crate::sys::stat::{stat_at, stat_of};

/// What a new file system holds, which is nobody's.
pub(crate) const MADE_BY_THE_FILE_SYSTEM: &[u8] = b"lost+found";
/// How the target itself is named in messages, where everything else has its path beneath it.
const ITSELF: &[u8] = b".";
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

impl TargetTree {
    /// Whether the target holds nothing.
    pub fn is_empty(&self) -> Result<bool> {
        self.holds_only(&[])
    }

    /// Whether the target holds nothing that anybody has put there.
    pub fn is_unused(&self) -> Result<bool> {
        self.holds_only(MADE_BY_THE_FILE_SYSTEM)
    }

    fn holds_only(&self, name: &[u8]) -> Result<bool> {
        let mut only = true;
        let look = |fd| {
            each_entry(fd, 0, |entry| {
                only = entry.file_name().to_bytes() == name;
                Ok(if only { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        };
        open_directory(&self.root, c".").and_then(look).map_err(|error| failed(error, "list", ITSELF))?;
        Ok(only)
    }

    /// Whether a directory of the target is the top of another file system than the directory above it is on.
    pub fn is_mounted(&self, path: &[u8]) -> bool {
        // The target itself may be mounted anywhere.
        let on_another = |(parent, name): (Arc<DirectoryHandle>, CString)| {
            let (above, below) = (stat_of(&parent.fd).ok()?, stat_at(&parent.fd, &name).ok()?);
            Some(above.st_dev != below.st_dev)
        };
        !path.is_empty() && self.locate(path).ok().and_then(on_another).unwrap_or_default()
    }

    /// Gives the target its attributes before anything is in it: what is restored is at no time open to more people
    /// than it was, and a restore that is stopped leaves the right owner and mode. What fails is told at the end.
    pub fn prepare_root(&self, metadata: &Metadata) -> Result<()> {
        let mut early = Metadata { flags: 0, ..metadata.clone() };
        if !self.is_root {
            early.mode |= 0o700;
            let listed = early.xattrs.len();
            early.xattrs.retain(|xattr| xattr.name != ACCESS_LIST);
            if early.xattrs.len() < listed {
                // Without its list, the rights of the group are those of everybody in the list.
                early.mode &= !0o070;
            }
        }
        self.apply_to_root(&early, true)
    }

    /// Gives the target its attributes after everything in it is done.
    pub fn finish_root(&self, metadata: &Metadata) -> Result<()> {
        self.apply_to_root(metadata, false)
    }

    fn apply_to_root(&self, metadata: &Metadata, early: bool) -> Result<()> {
        let stat = stat_of(&self.root).map_err(|error| failed(error, "examine", ITSELF))?;
        apply(&Handle::open(&self.root, self.is_root), ITSELF, metadata, &stat, true, &mut |problem| {
            if !early {
                self.report(problem);
            }
        });
        Ok(())
    }
}
