//! Listing a directory tree in the order of full object names, page by page.
//!
//! A page starts after the last name of the page before, so that objects that come and go between two pages
//! move nothing else.

use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::{Inner, TEMPORARY, open_folder};
use crate::error::Result;
use crate::store::{Listed, Page, valid_name};

/// Objects per page: a folder is read once per page that touches it.
const PAGE_OBJECTS: usize = 10_000;
/// Folders whose names are durable once they were listed. What sessions, segments and packs are needed are named by
/// snapshots, which whoever wrote them put last.
const RELIED_ON: [&str; 5] = ["damaged/", "forgotten/", "keys/", "marks/", "snapshots/"];

struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    objects: Vec<Listed>,
    full: bool,
}

struct Entry {
    /// The full name; with a slash at the end for a folder, which is its place in the order.
    name: String,
    folder: bool,
}

fn modified(stat: &Stat) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).ok()?;
    Timestamp::new(stat.st_mtime, nanoseconds).ok()
}

impl Inner {
    pub(super) fn list(&self, prefix: &str, token: Option<&str>) -> Result<Page> {
        let root = self.root(false)?;
        let top = open_folder(root, ".").map_err(|errno| self.fail(errno, "list", ""))?;
        let mut walk = Walk { prefix, after: token.unwrap_or(""), objects: Vec::new(), full: false };
        self.walk(&top, "", &mut walk)?;
        let last = walk.objects.last().map(|object| object.name.clone());
        Ok(Page { next: last.filter(|_| walk.full), objects: walk.objects })
    }

    fn walk(&self, folder: &OwnedFd, path: &str, walk: &mut Walk<'_>) -> Result<()> {
        for entry in self.entries(folder, path, walk)? {
            let leaf = entry.name[path.len()..].trim_end_matches('/');
            if entry.folder {
                match open_folder(folder.as_fd(), leaf) {
                    Ok(below) => {
                        self.walk(&below, &entry.name, walk)?;
                        // Who sees snapshots, what is said of them, or which keys there are, relies on it, and whoever
                        // changed that may have been killed before it was durable. Without the right to sync it is as it is.
                        if RELIED_ON.contains(&entry.name.as_str())
                            && let Err(errno) = fs::fsync(&below)
                        {
                            tracing::debug!(%errno, folder = entry.name, "its names are not synced");
                        }
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.fail(errno, "list", &entry.name)),
                }
            } else if walk.objects.len() == PAGE_OBJECTS {
                walk.full = true;
            } else {
                match fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => {
                        let size = u64::try_from(stat.st_size).expect("a file has no negative size");
                        let modified = modified(&stat);
                        walk.objects.push(Listed { name: entry.name, size, modified });
                    }
                    // Deleted since the folder was read.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.fail(errno, "list", &entry.name)),
                }
            }
            if walk.full {
                break;
            }
        }
        Ok(())
    }

    fn entries(&self, folder: &OwnedFd, path: &str, walk: &Walk<'_>) -> Result<Vec<Entry>> {
        let fail = |errno| self.fail(errno, "list", path);
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(leaf) = entry.file_name().to_str() else {
                tracing::warn!(folder = path, "a file with a foreign name is left out of the listing");
                continue;
            };
            if matches!(leaf, "." | "..") || (path.is_empty() && leaf == TEMPORARY) {
                continue;
            }
            // Of a folder of thousands a single object may be asked for.
            if !walk.may_want(path, leaf) {
                continue;
            }
            let mut name = format!("{path}{leaf}");
            let kind = match entry.file_type() {
                FileType::Unknown => match fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(fail(errno)),
                },
                kind => kind,
            };
            if !valid_name(&name) || !matches!(kind, FileType::RegularFile | FileType::Directory) {
                tracing::warn!(name, ?kind, "a foreign file is left out of the listing");
                continue;
            }
            let folder = kind == FileType::Directory;
            if folder {
                name.push('/');
            }
            if walk.wants(&name, folder) {
                entries.push(Entry { name, folder });
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

impl Walk<'_> {
    /// Whether something of this name in a folder that is wanted, be it a folder itself, may be wanted too.
    fn may_want(&self, path: &str, leaf: &str) -> bool {
        self.prefix.get(path.len()..).is_none_or(|rest| leaf.starts_with(rest) || rest.starts_with(leaf))
    }

    fn wants(&self, name: &str, folder: bool) -> bool {
        if folder {
            let under = name.starts_with(self.prefix) || self.prefix.starts_with(name);
            under && (name > self.after || self.after.starts_with(name))
        } else {
            name.starts_with(self.prefix) && name > self.after
        }
    }
}
