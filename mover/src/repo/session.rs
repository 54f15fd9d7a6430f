//! Sessions: one run of a writer, from its first object to its end (W1 to W7).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    Repository,
    checkpoint::Checkpoint,
    ends::End,
    packs::{self, PackFooter, Relocations},
    segments,
};
use crate::{
    clock::World,
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        frame::Suite,
        records::{self, Condemned, Fenced, Moved, RecordKind, Snapshot},
        session::{SessionKeyInfo, SessionKind, SessionName, SessionObject},
    },
    id::{LineageId, PackId, RandomId, SessionNonce},
    keys::SigningKey,
    limits,
    monitor::Problem,
    secret::Key,
    store::{ByteRange, Put, list_all},
};

#[cfg(test)]
mod tests;

/// One writer's run.
#[derive(Debug)]
pub struct Session {
    repository: Repository,
    key_info: SessionKeyInfo,
    signing: SigningKey,
    data: Cipher,
    metadata: Cipher,
    index: Cipher,
    counters: [AtomicU64; Domain::COUNT],
    absent: Absent,
    relocations: Relocations,
    keys_seen: Mutex<HashMap<SessionName, SessionKeyInfo>>,
    footers: Mutex<FooterCache>,
}

/// What condemned lists name, and notes of damage: absent to a session for its whole life (W2).
#[derive(Debug, Default)]
pub(crate) struct Absent {
    packs: HashSet<PackId>,
    relocations: HashSet<SessionName>,
    /// Lists and relocations that could not be read or believed. If there is any, no pack of others may be reused at
    /// all: a collector deletes by the final, whatever became of its list, and what was moved is deleted where it was.
    doubts: Vec<(String, String)>,
}

impl Absent {
    /// Whether a list names this repack's relocations.
    pub(super) fn condemns(&self, repack: SessionName) -> bool {
        self.relocations.contains(&repack)
    }

    /// Whether a list names any of these, or may, because nobody can read it.
    pub(super) fn may_name(&self, packs: &BTreeSet<PackId>, repacks: &HashSet<SessionName>) -> bool {
        !self.doubts.is_empty()
            || !self.relocations.is_disjoint(repacks)
            || packs.iter().any(|pack| self.packs.contains(pack))
    }
}

/// Footers that were fetched within this session, which is what makes their packs reusable (W4).
#[derive(Debug, Default)]
struct FooterCache {
    verdicts: HashMap<PackId, bool>,
    recent: Vec<(PackId, Arc<PackFooter>)>,
}

/// Footers that are kept whole: each up to a megabyte, and their chunks go to the table of known ones anyway.
const FOOTERS_KEPT: usize = 4;
/// Verdicts on packs that are kept; beyond, footers are fetched again.
const VERDICTS_KEPT: usize = 1 << 20;
/// How long a session that gives up waits for its last word to arrive: nobody needs it to, and somebody may be waiting
/// for the program to end.
const ABANDON_TIME: Duration = Duration::from_secs(10);
/// How often a decision object is sent before its session gives up.
const END_ATTEMPTS: u32 = 8;

impl Repository {
    /// Begins a session: W1, W2 and W5.
    pub async fn begin(&self, kind: SessionKind, lineage: LineageId, suite: Suite) -> Result<Session> {
        self.check_writable()?;
        let world = self.world();
        let signing_seed = Key::new(world.random());
        let signing = SigningKey::new(&signing_seed)?;
        let data_key = Key::new(world.random());
        let generation = self.keys().newest();
        // W1: the session exists before anything else is read or written. N1: a new name for each attempt.
        let mut attempt = 0;
        let key_info = loop {
            let session = SessionName { kind, lineage, nonce: SessionNonce(world.random()) };
            let sealed_data_key = self.keys().seal_data_key(generation, session, &data_key, world)?;
            let key = SessionKeyInfo { session, generation, suite, sealed_data_key };
            let object = SessionObject {
                version: 1,
                key: key.clone(),
                signing_public: signing.public(),
                started: world.clock.now(),
            };
            let body = records::encode_record(RecordKind::Session, &records::to_json(&object)?);
            match self.store().put_if_absent(&session.session_object(), body.into()).await {
                Ok(Put::Created) => break key,
                Err(error) if error.kind() != ErrorKind::Unavailable || attempt >= END_ATTEMPTS => {
                    return Err(error.context("the session could not be begun"));
                }
                Ok(Put::Exists) | Err(_) => attempt += 1,
            }
            world.sleep(Duration::from_millis(100 << attempt.min(6))).await;
        };
        let session = key_info.session;
        // W2: what any condemned list names is absent to this session for its whole life.
        let mut absent = self.absent().await?;
        absent.packs.extend(self.damage_notes().await?.into_iter().flat_map(|note| note.packs));
        // W5: the visible relocations, read after W2.
        let (relocations, doubtful) = self.relocations().await?;
        absent
            .doubts
            .extend(doubtful.into_iter().map(|(name, error)| (name.end_object(), error.in_one_line())));
        Ok(Session {
            data: Cipher::new(suite, &data_key),
            metadata: Cipher::new(suite, &self.keys().session_metadata_key(generation, session)?),
            index: Cipher::new(suite, &self.keys().session_index_key(generation, session)?),
            repository: self.clone(),
            keys_seen: Mutex::new(HashMap::from([(session, key_info.clone())])),
            key_info,
            signing,
            counters: Default::default(),
            absent,
            relocations,
            footers: Mutex::default(),
        })
    }

    /// Everything that a condemned list names, signed or not: a forged list costs deduplication, but one that is
    /// signed with a key which this process does not know yet must be obeyed.
    pub(crate) async fn absent(&self) -> Result<Absent> {
        let mut absent = Absent::default();
        for object in list_all(self.store().as_ref(), "gc/").await? {
            let Some(id) = condemned_id(&object.name) else { continue };
            let bytes = match self.store().get(&object.name, ByteRange::All).await {
                Ok(bytes) => bytes,
                // Dropped by its collector since it was listed (C9): what it named is deleted or was taken back.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match read_unverified::<Condemned>(&object.name, RecordKind::Condemned, &bytes) {
                Ok(list) if list.collection == id => {
                    absent.packs.extend(list.packs.iter().map(|sending| sending.pack));
                    absent.relocations.extend(list.relocations);
                }
                Ok(_) => absent.doubts.push((object.name, "it names another collection".to_owned())),
                Err(error) => absent.doubts.push((object.name, error.in_one_line())),
            }
        }
        Ok(absent)
    }
}

/// Reads JSON behind a signature without looking at the signature.
fn read_unverified<T: serde::de::DeserializeOwned>(name: &str, kind: RecordKind, bytes: &[u8]) -> Result<T> {
    let body = records::decode_kind(name, bytes, kind)?;
    let json = body.get(records::SIGNATURE_LENGTH..).unwrap_or_default();
    records::from_json(name, json)
}

/// The collection of a condemned list's name.
pub(super) fn condemned_id(name: &str) -> Option<RandomId> {
    RandomId::from_hex(name.strip_prefix("gc/")?.strip_suffix(".condemned")?)
}

impl Session {
    /// Its name, which is the snapshot's.
    pub fn name(&self) -> SessionName {
        self.key_info.session
    }

    /// What a reader needs to open what it writes.
    pub fn key_info(&self) -> &SessionKeyInfo {
        &self.key_info
    }

    /// Seals data frames.
    pub fn data_cipher(&self) -> &Cipher {
        &self.data
    }

    /// Seals metadata frames.
    pub fn metadata_cipher(&self) -> &Cipher {
        &self.metadata
    }

    /// Seals footers and index segments.
    pub fn index_cipher(&self) -> &Cipher {
        &self.index
    }

    /// Clock and randomness.
    pub fn world(&self) -> &World {
        self.repository.world()
    }

    /// Random bytes for padding.
    pub fn world_random(&self) -> [u8; 32] {
        self.world().random()
    }

    /// A counter that was never used before in this domain.
    pub fn next_counter(&self, domain: Domain) -> u64 {
        self.counters[domain as usize].fetch_add(1, Ordering::Relaxed)
    }

    /// A name for a new pack.
    pub fn new_pack(&self) -> PackId {
        let mut id = PackId::default();
        id.0[..8].copy_from_slice(&self.name().nonce.tag().0);
        id.0[8..].copy_from_slice(&self.world().random::<8>());
        id
    }

    fn is_in_doubt(&self) -> bool {
        !self.absent.doubts.is_empty()
    }

    /// Why nothing that others stored is used, if so: objects that cannot be read or believed.
    pub fn doubts(&self) -> impl Iterator<Item = Problem> {
        self.absent.doubts.iter().map(|(name, why)| Problem {
            what: format!("object {name}"),
            message: format!("everything is stored again, because this object cannot be believed: {why}"),
        })
    }

    /// Where a new record may name a frame that others wrote: off packs that were repacked (W5). `None`: the frame,
    /// or the way to it, is condemned, and so absent to this session for its whole life (W2), whoever names it.
    pub fn usable(&self, pack: PackId, offset: u32) -> Option<(PackId, u32)> {
        let mut lost = self.is_in_doubt();
        let through = |repack| lost |= self.absent.relocations.contains(&repack);
        let at = self.relocations.lookup_through(pack, offset, through).unwrap_or((pack, offset));
        (!lost && !self.absent.packs.contains(&at.0)).then_some(at)
    }

    /// Where a frame was moved to (W5).
    pub fn relocated(&self, pack: PackId, offset: u32) -> Option<(PackId, u32)> {
        self.relocations.lookup(pack, offset)
    }

    /// Whether every frame of others is usable where it was written.
    pub fn all_usable_in_place(&self) -> bool {
        self.relocations.is_empty() && self.absent.packs.is_empty() && !self.is_in_doubt()
    }

    /// Keeps the keys of other sessions, so that the snapshot can carry those it needs.
    pub fn learn_keys(&self, infos: &[SessionKeyInfo]) {
        let mut seen = self.keys_seen.lock().unwrap_or_else(PoisonError::into_inner);
        for info in infos {
            seen.entry(info.session).or_insert_with(|| info.clone());
        }
    }

    /// The keys of these sessions, in the order of their names. One that is not known is an error: a snapshot
    /// without it could not be restored.
    pub fn known_keys(&self, sessions: &HashSet<SessionName>) -> Result<Vec<SessionKeyInfo>> {
        let seen = self.keys_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |session: &SessionName| {
            seen.get(session).cloned().ok_or_else(|| {
                Error::internal("the tree refers to a session whose key was never seen")
                    .context(format!("session {session}"))
            })
        };
        let mut keys = sessions.iter().map(find).collect::<Result<Vec<_>>>()?;
        keys.sort_by_key(|key| key.session);
        Ok(keys)
    }

    /// Sends a pack (N1).
    pub async fn put_pack(&self, pack: PackId, body: Bytes) -> Result<()> {
        packs::put_pack(&self.repository, pack, body).await
    }

    /// W4: whether a pack that a hint names may be reused: not condemned, and its footer was fetched within this
    /// session, so after W2.
    pub async fn reusable(&self, pack: PackId) -> Result<Option<Arc<PackFooter>>> {
        if self.is_in_doubt() || self.absent.packs.contains(&pack) {
            return Ok(None);
        }
        {
            let cache = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.verdicts.get(&pack) == Some(&false) {
                return Ok(None);
            }
            if let Some((_, footer)) = cache.recent.iter().find(|(known, _)| *known == pack) {
                return Ok(Some(Arc::clone(footer)));
            }
        }
        let footer = match self.repository.footer(pack).await {
            Ok(footer) => Some(Arc::new(footer)),
            // A pack that is gone, damaged or of another key generation is no reason to fail: its chunks are stored
            // again.
            Err(error) if segments::is_lost_hint(&error) => None,
            Err(error) => return Err(error),
        };
        let mut cache = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.verdicts.len() < VERDICTS_KEPT {
            cache.verdicts.insert(pack, footer.is_some());
        }
        if let Some(footer) = &footer {
            if cache.recent.len() >= FOOTERS_KEPT {
                cache.recent.remove(0);
            }
            cache.recent.push((pack, Arc::clone(footer)));
        }
        Ok(footer)
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Seals a segment of the index.
    pub(super) fn seal_index(&self, domain: Domain, plain: &[u8]) -> Result<Vec<u8>> {
        codec::seal_object(&self.index, domain, self.name(), self.next_counter(domain), plain)
    }

    /// Writes a checkpoint.
    pub async fn put_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let counter = self.next_counter(Domain::Checkpoint);
        let plain = records::to_json(checkpoint)?;
        let sealed = codec::seal_object(&self.metadata, Domain::Checkpoint, self.name(), counter, &plain)?;
        self.put_hint(&checkpoint.object(self.name()), RecordKind::Checkpoint, &sealed).await
    }

    /// Hints carry the name, generation and cipher of their session before the sealed part. A lost hint costs
    /// deduplication and nothing else, so an unclear answer is good enough (N1 forbids to send the name again).
    pub(super) async fn put_hint(&self, name: &str, kind: RecordKind, sealed: &[u8]) -> Result<()> {
        let body = segments::encode_hint(&self.key_info, sealed);
        match self.repository.store().put_if_absent(name, records::encode_record(kind, &body).into()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(name, %error, "an index object may not have arrived");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// W6 and W7: commits the snapshot. All packs and the segment must have arrived.
    pub async fn commit(&self, snapshot: &Snapshot) -> Result<()> {
        let plain = records::to_json(snapshot)?;
        if plain.len() > limits::SNAPSHOT_LIMIT {
            let sessions = snapshot.sessions.len();
            return Err(Error::invalid(format!(
                "the record of the snapshot would be longer than {} MiB: what it names was stored by {sessions} backups",
                limits::SNAPSHOT_LIMIT >> 20
            ))
            .with_hint("begin a new repository for this source; the old one stays as it is"));
        }
        let counter = self.next_counter(Domain::Record);
        let sealed = codec::seal_object(&self.metadata, Domain::Record, self.name(), counter, &plain)?;
        let name = self.name().end_object();
        let mut body = self.signing.sign(&name, &sealed);
        body.extend_from_slice(&sealed);
        self.end(records::encode_record(RecordKind::Snapshot, &body)).await
    }

    /// R1, W6 and W7: commits what a repack moved. All packs and the segment must have arrived.
    pub async fn commit_relocations(&self, moved: &[Moved]) -> Result<()> {
        let counter = self.next_counter(Domain::Record);
        let plain = records::to_json(&moved)?;
        let sealed = codec::seal_object(&self.index, Domain::Record, self.name(), counter, &plain)?;
        let name = self.name().end_object();
        let mut body = self.repository.keys().sign_maintenance(&name, &sealed)?;
        body.extend_from_slice(&sealed);
        self.end(records::encode_record(RecordKind::Relocation, &body)).await
    }

    async fn end(&self, body: Vec<u8>) -> Result<()> {
        let (store, name) = (self.repository.store(), self.name().end_object());
        let body = Bytes::from(body);
        // Crash order: everything the record names is durable before the record is.
        store.flush().await?;
        let mut attempt = 0;
        loop {
            // N2: the end may be sent again; who finds one there reads it and obeys.
            match store.put_if_absent(&name, body.clone()).await {
                Ok(Put::Created) => break,
                Ok(Put::Exists) => {
                    if store.get(&name, ByteRange::All).await? == body {
                        break;
                    }
                    return Err(self.ended_by_others().await);
                }
                Err(error) if error.kind() == ErrorKind::Unavailable && attempt < END_ATTEMPTS => {
                    attempt += 1
                }
                Err(error) => {
                    return Err(error.context(format!("session {} could not be ended", self.name())));
                }
            }
            self.world().sleep(Duration::from_millis(100 << attempt.min(6))).await;
        }
        store.flush().await?;
        // W7: only if the session still exists was the end a decision.
        match store.get(&self.name().session_object(), ByteRange::All).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.shut_out()),
            Err(error) => {
                Err(error.context("whether the snapshot counts is not known; see carrack snapshots"))
            }
        }
    }

    /// What stands where this session's own end should.
    async fn ended_by_others(&self) -> Error {
        match self.repository.end(self.name()).await {
            Err(error) if error.kind() == ErrorKind::Internal => error,
            Ok(Some(End::Void(_))) | Err(_) => Error::conflict(format!(
                "session {} cannot be ended: something that nobody can believe has taken the name {}",
                self.name(),
                self.name().end_object()
            ))
            .with_hint(
                "see who may write to the store, and run the same command again; what was uploaded is reused",
            ),
            Ok(_) => self.shut_out(),
        }
    }

    fn shut_out(&self) -> Error {
        Error::conflict(format!("session {} was shut out: maintenance took it for dead", self.name()))
            .with_hint(
                "run the same command again; what was uploaded is found and reused where it still exists",
            )
    }

    /// Gives up. The end that says so lets maintenance go on without waiting for this session; if it does not
    /// arrive, maintenance shuts the session out when it is overdue.
    pub async fn abandon(&self, reason: &str) -> Result<()> {
        tracing::debug!(session = %self.name(), reason, "abandoned");
        let name = self.name().end_object();
        let (session, created) = (self.name(), self.world().clock.now());
        let json =
            records::to_json(&Fenced { session, created, reason: reason.to_owned(), cleaned_up: false })?;
        let mut body = self.signing.sign(&name, &json);
        body.extend_from_slice(&json);
        let body = records::encode_record(RecordKind::Abandoned, &body);
        // N2: whatever is there already stays.
        let store = self.repository.store();
        let put = self.world().timeout(ABANDON_TIME, store.put_if_absent(&name, body.into())).await;
        put.unwrap_or_else(|| Err(Error::unavailable("the store does not answer")))?;
        store.flush().await
    }
}
