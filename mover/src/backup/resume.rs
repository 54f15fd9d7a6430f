//! Going on in the middle of a large content that an earlier run did not finish.

use crossbeam_channel::Sender;
use jiff::Timestamp;

use super::{assemble::Piece, dispatch::Dispatcher, earlier::Found};
use crate::{
    error::{Error, Result},
    format::{
        entry::{Entry, Run},
        metadata::Kind,
    },
    monitor::Progress,
};

/// What a checkpoint saved a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Continued {
    /// When the checkpoint was written; none if there was none to go on from.
    pub written: Option<Timestamp>,
    /// Files and images that were not read again, or not all of them.
    pub files: u64,
    /// Bytes of contents that were not read again.
    pub bytes: u64,
}

impl Continued {
    /// So many bytes of this entry were taken from the checkpoint.
    pub(super) fn file(&mut self, entry: &Entry, bytes: u64) {
        if matches!(entry.kind, Kind::File | Kind::Image) {
            self.files += 1;
            self.bytes += bytes;
        }
    }
}

/// A content of which an earlier run had stored the beginning, and which is as it was.
pub(super) struct Begun {
    pub(super) found: Found,
    /// Bytes that were stored.
    pub(super) covered: u64,
}

/// Runs that are sent to the tree in one piece.
const RUNS_AT_ONCE: usize = 4096;

impl Dispatcher<'_> {
    /// Sends what an earlier run had done of a content, as far as its packs may be named again; answers how far.
    pub(super) fn go_on(&mut self, begun: Option<Begun>, pieces: &Sender<Piece>) -> Result<u64> {
        let Some(Begun { found: Found { entry, opener }, covered }) = begun else { return Ok(0) };
        let (mut at, mut kept) = (0, Vec::new());
        let mut stopped: Option<Error> = None;
        let read = opener.runs(&entry.content, &mut |run: Run| {
            at += run.length();
            kept.push(run);
            if kept.len() < RUNS_AT_ONCE {
                return true;
            }
            let sent = self.piece(pieces, Piece::Runs(std::mem::take(&mut kept)));
            stopped = sent.and_then(|()| self.cancel.check()).err();
            stopped.is_none()
        });
        if let Some(error) = stopped {
            return Err(error);
        }
        if let Err(error) = read {
            if error.is_of_the_run() {
                return Err(error);
            }
            tracing::info!(%error, at, covered, "the rest of what a checkpoint has of a file is read again");
        }
        self.piece(pieces, Piece::Runs(kept))?;
        Progress::add(&self.monitor.progress().bytes, at);
        if at > 0 {
            self.continued.file(&entry, at);
        }
        Ok(at)
    }
}
