//! Packs: sending them (N1), reading them back, and where repacking put what was in them (R2).

use std::{collections::HashMap, ops::Range, time::Duration};

use bytes::Bytes;

use super::Repository;
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        pack::{Footer, Trailer, pack_object},
        records::Moved,
        session::SessionName,
    },
    id::PackId,
    limits,
    store::{ByteRange, Put},
};

#[cfg(test)]
mod tests;

/// The footer of a pack that was fetched just now.
#[derive(Debug, Clone)]
pub struct PackFooter {
    /// What the pack holds.
    pub footer: Footer,
    /// Bytes of footer and trailer together.
    pub tail_bytes: u64,
    /// Which sending of it was found.
    pub attempt: u8,
}

/// Sends a pack. An unclear answer, or a name that is taken, abandons the name for the next one (N1): the bytes are
/// the same in each, so any copy that did arrive serves.
pub(super) async fn put_pack(repository: &Repository, pack: PackId, body: Bytes) -> Result<()> {
    let (store, world) = (repository.store(), repository.world());
    let mut last = None;
    for attempt in 0..limits::PACK_ATTEMPTS {
        if attempt > 0 {
            world.sleep(backoff(attempt)).await;
        }
        match store.put_if_absent(&pack_object(pack, attempt), body.clone()).await {
            Ok(Put::Created) => return Ok(()),
            Ok(Put::Exists) => last = Some(Error::conflict(format!("the name of pack {pack} is taken"))),
            Err(error) if error.kind() == ErrorKind::Unavailable => last = Some(error),
            Err(error) => return Err(error.context(format!("pack {pack} could not be stored"))),
        }
    }
    let attempts = limits::PACK_ATTEMPTS;
    let error = last.unwrap_or_else(|| Error::internal("no attempt was made"));
    Err(error.context(format!("pack {pack} could not be stored in {attempts} attempts")))
}

fn backoff(attempt: u8) -> Duration {
    Duration::from_millis(100 << attempt.min(7))
}

impl Repository {
    /// Reads a part of a pack, whichever sending of it arrived. `NotFound` if none did.
    pub async fn read_pack(&self, pack: PackId, range: ByteRange) -> Result<Bytes> {
        self.read_attempts(pack, 0..limits::PACK_ATTEMPTS, range).await.map(|(bytes, _)| bytes)
    }

    /// Reads a part of a pack and opens it. All sendings have equal bytes, but a name that a lost sending left free can be
    /// taken by others: where `open` finds one spoiled, the next serves. If none does, the first error tells more than the
    /// last.
    pub async fn open_part<T>(
        &self,
        pack: PackId,
        range: ByteRange,
        mut open: impl FnMut(Bytes) -> Result<T>,
    ) -> Result<T> {
        let (mut first, mut rest) = (None, 0..limits::PACK_ATTEMPTS);
        while !rest.is_empty() {
            let (bytes, attempt) = match self.read_attempts(pack, rest.clone(), range).await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                    return Err(first.unwrap_or(error));
                }
                found => found?,
            };
            match open(bytes) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    first.get_or_insert(error);
                }
                opened => return opened,
            }
            rest.start = attempt + 1;
        }
        Err(first.unwrap_or_else(|| Error::internal("no attempt was made")))
    }

    /// All sendings have equal bytes: where one was cut short, the next one serves.
    async fn read_attempts(
        &self,
        pack: PackId,
        attempts: Range<u8>,
        range: ByteRange,
    ) -> Result<(Bytes, u8)> {
        let (mut missing, mut short) = (None, None);
        for attempt in attempts {
            match self.store().get(&pack_object(pack, attempt), range).await {
                Ok(bytes) => return Ok((bytes, attempt)),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    missing.get_or_insert(error);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    short.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(short.or(missing).unwrap_or_else(|| Error::internal("no attempt was made")))
    }

    /// Reads a part of one sending of a pack. `NotFound` if that did not arrive.
    pub async fn read_sending(&self, pack: PackId, attempt: u8, range: ByteRange) -> Result<Bytes> {
        self.store().get(&pack_object(pack, attempt), range).await
    }

    /// Whether any sending of a pack is there.
    pub(super) async fn has_pack(&self, pack: PackId) -> Result<bool> {
        match self.store().list(&pack_object(pack, 0), None).await {
            Ok(page) => Ok(!page.objects.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fetches and opens the footer of a pack.
    pub async fn footer(&self, pack: PackId) -> Result<PackFooter> {
        self.footer_among(pack, 0..limits::PACK_ATTEMPTS).await
    }

    /// The same of one sending of it.
    pub async fn footer_of_sending(&self, pack: PackId, attempt: u8) -> Result<PackFooter> {
        self.footer_among(pack, attempt..attempt.saturating_add(1)).await
    }

    /// A name that a lost sending left free can be taken by others: where a footer is spoiled, that of the next sending
    /// serves. If none does, the first error tells more than the last.
    async fn footer_among(&self, pack: PackId, attempts: Range<u8>) -> Result<PackFooter> {
        let (mut first, mut rest) = (None, attempts);
        while !rest.is_empty() {
            let last = ByteRange::Last(limits::FOOTER_GUESS);
            let (tail, attempt) = match self.read_attempts(pack, rest.clone(), last).await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                    return Err(first.unwrap_or(error));
                }
                found => found?,
            };
            match self.open_footer(pack, attempt, tail).await {
                Err(error) if self.is_spoiled(&error) => {
                    first.get_or_insert(error);
                }
                footer => return footer,
            }
            rest.start = attempt + 1;
        }
        Err(first.unwrap_or_else(|| Error::internal("no attempt was made")))
    }

    /// Whether a footer that cannot be opened may be somebody else's: a trailer is not sealed, so it may name any version,
    /// and any generation of keys. A mover that lacks the keys of a generation has nothing to conclude from that.
    fn is_spoiled(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Invalid => true,
            ErrorKind::Denied => self.keys().can_read_data(),
            _ => false,
        }
    }

    async fn open_footer(&self, pack: PackId, attempt: u8, mut tail: Bytes) -> Result<PackFooter> {
        let object = || format!("object {}", pack_object(pack, attempt));
        let Some((_, trailer)) = tail.split_last_chunk::<{ Trailer::LENGTH }>() else {
            return Err(Error::corrupt(format!("{}: it is too short for a pack", object())));
        };
        let trailer = Trailer::from_bytes(trailer).map_err(|error| error.context(object()))?;
        let needed = trailer.footer_length as usize + Trailer::LENGTH;
        if tail.len() < needed {
            if (tail.len() as u64) < limits::FOOTER_GUESS {
                return Err(Error::corrupt(format!("{}: it is shorter than its own footer", object())));
            }
            tail = self.read_sending(pack, attempt, ByteRange::Last(needed as u64)).await?;
        }
        if tail.len() < needed {
            return Err(Error::corrupt(format!("{}: it is shorter than its own footer", object())));
        }
        let sealed = &tail[tail.len() - needed..tail.len() - Trailer::LENGTH];
        if !sealed.starts_with(&trailer.counter.to_le_bytes()) {
            return Err(Error::corrupt(format!("{}: its trailer is not that of its footer", object())));
        }
        if !trailer.session.owns(pack) {
            return Err(Error::corrupt(format!("{}: it was written as another pack", object())));
        }
        let key = self.keys().session_index_key(trailer.generation, trailer.session)?;
        let cipher = Cipher::new(trailer.suite, &key);
        let plain = codec::open_bound(
            &cipher,
            Domain::Footer,
            &codec::footer_aad(trailer.session, pack),
            sealed,
            limits::FOOTER_LIMIT,
        )
        .map_err(|error| error.context(format!("{}: footer", object())))?;
        let footer =
            Footer::from_bytes(&plain, pack, limits::PACK_LIMIT).map_err(|error| error.context(object()))?;
        Ok(PackFooter { footer, tail_bytes: needed as u64, attempt })
    }
}

/// Where repacking moved frames: all visible relocations, resolved.
#[derive(Debug, Clone, Default)]
pub struct Relocations {
    sessions: Vec<SessionName>,
    moves: HashMap<(PackId, u32), Move>,
}

/// One row: the session by its position, for there are many rows of each.
#[derive(Debug, Clone, Copy)]
struct Move {
    session: u32,
    pack: PackId,
    offset: u32,
}

/// Longest chain of relocations that is followed; maintenance shortens them long before.
const CHAIN_LIMIT: usize = 1000;

impl Relocations {
    /// Adds what one visible repack moved. Of several, the lowest session name wins, for everyone (R2).
    pub fn add(&mut self, session: SessionName, moved: &[Moved]) {
        let position = u32::try_from(self.sessions.len()).expect("relocations are bounded by their limit");
        self.sessions.push(session);
        for row in moved {
            let entry = Move { session: position, pack: row.new_pack, offset: row.new_offset };
            let kept = self.moves.entry((row.old_pack, row.old_offset)).or_insert(entry);
            if session < self.sessions[kept.session as usize] {
                *kept = entry;
            }
        }
    }

    /// Whether nothing was moved.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Frames that were moved.
    pub fn len(&self) -> usize {
        self.moves.len()
    }

    /// The repacks that moved them.
    pub fn sessions(&self) -> &[SessionName] {
        &self.sessions
    }

    /// Where the frames were that were moved.
    pub(crate) fn froms(&self) -> impl Iterator<Item = (PackId, u32)> {
        self.moves.keys().copied()
    }

    /// Where the frame is now, if it was moved; chains are followed.
    pub fn lookup(&self, pack: PackId, offset: u32) -> Option<(PackId, u32)> {
        self.lookup_through(pack, offset, |_| {})
    }

    /// The same; tells each repack that the way leads through.
    pub(crate) fn lookup_through(
        &self,
        pack: PackId,
        offset: u32,
        mut through: impl FnMut(SessionName),
    ) -> Option<(PackId, u32)> {
        let mut at = (pack, offset);
        let mut found = None;
        for _ in 0..CHAIN_LIMIT {
            match self.moves.get(&at) {
                Some(step) => {
                    through(self.sessions[step.session as usize]);
                    at = (step.pack, step.offset);
                    found = Some(at);
                }
                None => return found,
            }
        }
        found
    }
}
