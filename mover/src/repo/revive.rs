//! Bringing back what is out of view: a snapshot that was forgotten by mistake, or one whose session object is lost or
//! damaged; and the relocations of a repack of which the same is true.
//!
//! Nothing is put back under an old name (N1): a new session commits the same record. It is a writer like any other, so
//! a prune that condemns what the record needs is seen (W2), and one that comes later sees the session (C3). Unlike other writers
//! it may name what is missing, and old sides of relocations: the mark resolves them as it does those of the old record.

use std::collections::{BTreeSet, HashSet};

use super::{
    Needs, Repository, Watch,
    ends::{End, is_doubt},
    forget::PINNED,
    session::Session,
};
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        frame::Suite,
        pack::parse_pack_object,
        records::{self, Moved, RecordKind, SIGNATURE_LENGTH, Snapshot, decode_record},
        session::{SessionKeyInfo, SessionKind, SessionName, SessionObject},
    },
    id::PackId,
    limits, store,
};

#[cfg(test)]
mod tests;

/// Something that can be brought back.
#[derive(Debug)]
pub struct Hidden {
    /// Its session.
    pub session: SessionName,
    /// Whether it was forgotten; otherwise its session object is lost or damaged.
    pub is_forgotten: bool,
    /// Its record; of a repack there is none to show.
    pub snapshot: Option<Snapshot>,
}

/// What was brought back.
#[derive(Debug, Clone)]
pub struct Revived {
    /// The session that it is in view under now.
    pub session: SessionName,
    /// Packs that it needs and that are not there: what is in them does not restore.
    pub missing: Vec<PackId>,
}

pub(super) enum Record {
    Snapshot(Box<Snapshot>),
    Relocations(Vec<Moved>),
}

/// Packs that a record needs.
#[derive(Default)]
struct Packs(BTreeSet<PackId>);

impl Needs for Packs {
    fn frame(&mut self, pack: PackId, _offset: u32, _stored: u32) {
        self.0.insert(pack);
    }
}

impl Repository {
    /// What is out of view and has a record that can be read.
    pub async fn hidden(&self) -> Result<Vec<Hidden>> {
        let survey = self.survey().await?;
        let mut sessions: Vec<(SessionName, bool)> =
            survey.forgotten().map(|session| (session, true)).collect();
        for kind in [SessionKind::Backup, SessionKind::Repack] {
            let ends = self.ends_of(&survey.visible(kind)).await?.into_iter();
            let unreadable = ends.filter(|(_, end)| matches!(end, Err(_) | Ok(Some(End::Void(_)))));
            sessions.extend(unreadable.map(|(session, _)| (session, false)));
        }
        let lost = self.lost_sessions(&survey).await?.found;
        sessions.extend(lost.into_iter().map(|(session, _)| (session, false)));
        let mut hidden = Vec::new();
        for (session, is_forgotten) in sessions {
            match self.record_of(session).await {
                Ok(Record::Snapshot(snapshot)) => {
                    hidden.push(Hidden { session, is_forgotten, snapshot: Some(*snapshot) });
                }
                Ok(Record::Relocations(_)) => hidden.push(Hidden { session, is_forgotten, snapshot: None }),
                Err(error) if is_doubt(&error) || error.kind() == ErrorKind::NotFound => {
                    tracing::info!(%session, %error, "it cannot be brought back");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(hidden)
    }

    /// Brings a record back into view under a new session; the old one is left to the next prune.
    pub async fn revive(&self, old: SessionName, watch: Watch<'_>) -> Result<Revived> {
        self.check_maintainable()?;
        let record = self.record_of(old).await?;
        let session = self.begin(old.kind, old.lineage, Suite::ChaCha20Poly1305).await?;
        let done = self.commit_again(&session, record, watch).await;
        match done {
            Ok(missing) => {
                self.carry_pin(old, session.name()).await?;
                self.forget(&[old]).await?;
                Ok(Revived { session: session.name(), missing })
            }
            Err(error) => {
                if let Err(second) = session.abandon("nothing was brought back").await {
                    tracing::info!(error = %second, "the session has no end");
                }
                Err(error)
            }
        }
    }

    /// What somebody wanted kept is kept under its new name, too. That it was verified has to be found out again.
    async fn carry_pin(&self, old: SessionName, new: SessionName) -> Result<()> {
        let (marks, _) = self.marks("marks/", &format!("{old}.")).await?;
        match marks.iter().any(|mark| mark.word == PINNED) {
            true => self.mark_snapshot(new, PINNED).await,
            false => Ok(()),
        }
    }

    async fn commit_again(&self, session: &Session, record: Record, watch: Watch<'_>) -> Result<Vec<PackId>> {
        // W2 once more, because a session takes notes of damage for condemned as well.
        let lists = self.absent().await?;
        let mut needed = Packs::default();
        let through = match &record {
            Record::Snapshot(snapshot) => self.needs_of(snapshot, &mut needed, watch).await?,
            Record::Relocations(moved) => {
                needed.0.extend(moved.iter().map(|row| row.new_pack));
                HashSet::new()
            }
        };
        if lists.may_name(&needed.0, &through) {
            return Err(Error::conflict("a prune has condemned data that it needs")
                .with_hint("bring its packs back from a copy when that prune has ended, and try again"));
        }
        // Listed after the lists were read: what is there now and not condemned stays.
        let mut missing = needed.0;
        store::for_each(self.store().as_ref(), "packs/", |object| {
            if let Some((pack, _)) = parse_pack_object(&object.name) {
                missing.remove(&pack);
            }
        })
        .await?;
        match record {
            Record::Snapshot(snapshot) => {
                session.commit(&Snapshot { session: session.name(), ..*snapshot }).await?;
            }
            Record::Relocations(moved) => session.commit_relocations(&moved).await?,
        }
        Ok(missing.into_iter().collect())
    }

    /// What a session committed, whatever became of its object: then only the seal says that one wrote it who may.
    pub(super) async fn record_of(&self, session: SessionName) -> Result<Record> {
        let name = session.end_object();
        let gone = || Error::not_found(format!("{name} is gone: a prune has cleaned it up"));
        let bytes = self.there(&name).await?.ok_or_else(gone)?;
        match self.end(session).await {
            Ok(Some(End::Committed(snapshot))) => return Ok(Record::Snapshot(snapshot)),
            Ok(Some(End::Relocated(moved))) => return Ok(Record::Relocations(moved)),
            Ok(Some(End::Fenced { .. })) => return Err(gone()),
            Err(error) if !is_doubt(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let (kind, body) = decode_record(&name, &bytes)?;
        let Some((signature, sealed)) = body.split_first_chunk::<SIGNATURE_LENGTH>() else {
            return Err(Error::corrupt(format!("object {name}: it is too short for a signature")));
        };
        for generation in (0..=self.keys().newest()).rev() {
            for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
                let key = SessionKeyInfo { session, generation, suite, sealed_data_key: Vec::new() };
                let (signing_public, started) = ([0; 32], self.world().clock.now());
                let object = SessionObject { version: 1, key, signing_public, started };
                let opened = match (kind, session.kind) {
                    (RecordKind::Snapshot, SessionKind::Backup) => self
                        .open_snapshot(session, &object, &name, sealed)
                        .map(Box::new)
                        .map(Record::Snapshot),
                    (RecordKind::Relocation, SessionKind::Repack)
                        if self.keys().verify_maintenance(&name, sealed, signature) =>
                    {
                        self.open_relocations(&object, &name, sealed).map(Record::Relocations)
                    }
                    _ => break,
                };
                match opened {
                    Err(error) if error.kind() == ErrorKind::Corrupt => {}
                    other => return other,
                }
            }
        }
        Err(Error::corrupt(format!("object {name}: it opens with none of the repository's keys")))
    }

    pub(super) fn open_relocations(
        &self,
        object: &SessionObject,
        name: &str,
        sealed: &[u8],
    ) -> Result<Vec<Moved>> {
        let session = object.key.session;
        let key = self.keys().session_index_key(object.key.generation, session);
        let key = key.map_err(|error| error.context(format!("object {}", session.session_object())))?;
        let cipher = Cipher::new(object.key.suite, &key);
        let plain = codec::open_object(&cipher, Domain::Record, session, sealed, limits::RECORD_LIMIT)
            .map_err(|error| error.context(format!("object {name}")))?;
        records::from_json(name, &plain)
    }
}
