//! An open directory: a walk under way, and the names that were handed out last.
//!
//! A directory of any size takes the memory of a few pages. The kernel steps back a little when its buffer was
//! full, which the names kept behind serve; whoever seeks further back begins a new walk.

use std::{collections::VecDeque, sync::Mutex};

use fuser::FileType;

use super::attributes;
use crate::{
    error::Result,
    format::order::split_path,
    reader::{
        SnapshotReader,
        walk::{Part, TreeWalk},
    },
};

/// Names that are kept behind the position: several times what one `getdents` takes.
const BEHIND: usize = 4096;

/// A name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) kind: FileType,
}

#[derive(Debug)]
pub(super) struct OpenDirectory {
    reader: SnapshotReader,
    pub(super) snapshot: usize,
    pub(super) path: Vec<u8>,
    pub(super) listing: Mutex<Listing>,
}

/// Where a listing is.
#[derive(Debug, Default)]
pub(super) struct Listing {
    walk: Option<TreeWalk>,
    /// Position of the first name that is kept.
    base: u64,
    names: VecDeque<Name>,
    ended: bool,
}

impl OpenDirectory {
    pub(super) fn new(reader: SnapshotReader, snapshot: usize, path: &[u8]) -> Self {
        Self { reader, snapshot, path: path.to_vec(), listing: Mutex::default() }
    }

    /// The name at a position; `None` at the end.
    pub(super) async fn name<'l>(&self, listing: &'l mut Listing, position: u64) -> Result<Option<&'l Name>> {
        if position < listing.base {
            *listing = Listing::default();
        }
        while position >= listing.base + listing.names.len() as u64 && !listing.ended {
            if let Err(error) = self.advance(listing).await {
                // The walk may have lost pages that could not be read: names would be missing without a word.
                *listing = Listing::default();
                return Err(error);
            }
            listing.let_go(position);
        }
        Ok(listing.names.get((position - listing.base) as usize))
    }

    async fn advance(&self, listing: &mut Listing) -> Result<()> {
        let walk = match &mut listing.walk {
            Some(walk) => walk,
            none => none.insert(self.reader.entries(Part::directory(&self.path))?),
        };
        let Some(leaf) = walk.next_leaf().await? else {
            listing.ended = true;
            return Ok(());
        };
        listing.names.extend(leaf.into_iter().filter(|entry| entry.path != self.path).map(|entry| Name {
            name: split_path(&entry.path).1.to_vec(),
            kind: attributes::file_type(&entry.kind),
        }));
        Ok(())
    }
}

impl Listing {
    fn let_go(&mut self, position: u64) {
        let behind = usize::try_from(position.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let surplus = behind.saturating_sub(BEHIND).min(self.names.len());
        self.names.drain(..surplus);
        self.base += surplus as u64;
    }
}
