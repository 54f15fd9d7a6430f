//! Ends of sessions: reading them, believing them, and which snapshots are visible (V).

use std::collections::{BTreeMap, BTreeSet};

use super::{Repository, packs::Relocations, read_short};
use crate::{
    chunker,
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        pack::newer,
        records::{self, Fenced, Mark, Moved, RecordKind, Snapshot, decode_record},
        session::{SessionKind, SessionName, SessionObject},
    },
    id::{LineageId, RandomId},
    keys::verify_signature,
    limits,
    monitor::{Problem, unescape_path},
    store::{ByteRange, Put, list_all},
};

#[cfg(test)]
mod tests;

/// How a session ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It committed a snapshot.
    Committed(Box<Snapshot>),
    /// It committed relocations.
    Relocated(Vec<Moved>),
    /// It was shut out, gave up, or counted once and was cleaned up.
    Fenced {
        /// Its clean-up put this in the place of an end.
        cleaned_up: bool,
    },
    /// Its session was cleaned up since: it is not visible.
    Gone,
    /// There is something that does not verify: a decision against the session, never for it.
    Void(String),
}

/// Requests that are under way at once while ends are read.
const PARALLEL_READS: usize = 16;
/// Ends up to this many bytes are read side by side, longer ones one after the other: what is read and not yet looked
/// at stays within some megabytes.
const SHORT_END_BYTES: u64 = 256 << 10;

impl Repository {
    /// Sessions whose snapshot is visible: rule V in bulk, ends first, then markers, then sessions. Whether an end
    /// is a record that can be believed is seen when it is read.
    pub async fn visible(&self, prefix: &str) -> Result<Vec<SessionName>> {
        Ok(self.survey_of(prefix).await?.in_view())
    }

    /// Whether a snapshot carries a true marker of a forget.
    pub async fn is_forgotten(&self, session: SessionName) -> Result<bool> {
        Ok(!self.marks("forgotten/", &format!("{session}.")).await?.0.is_empty())
    }

    pub(crate) async fn session_names(&self, folder: &str, prefix: &str) -> Result<BTreeSet<SessionName>> {
        let name = format!("{folder}{prefix}");
        // Of a name that is whole no other one can be listed.
        if let Ok(session) = prefix.parse::<SessionName>() {
            return Ok(self.exists(&name).await?.then_some(session).into_iter().collect());
        }
        let listed = list_all(self.store().as_ref(), &name).await?;
        Ok(listed.iter().filter_map(|object| object.name.strip_prefix(folder)?.parse().ok()).collect())
    }

    /// Marks below a folder that carry a true maintenance signature, and the rest as problems.
    pub(crate) async fn marks(&self, folder: &str, prefix: &str) -> Result<(Vec<Mark>, Vec<Problem>)> {
        let (mut marks, mut problems) = (Vec::new(), Vec::new());
        let mut running = tokio::task::JoinSet::new();
        let kind = if folder == "forgotten/" { RecordKind::Forgotten } else { RecordKind::Mark };
        let mut objects = list_all(self.store().as_ref(), &format!("{folder}{prefix}")).await?.into_iter();
        loop {
            while running.len() < PARALLEL_READS
                && let Some(object) = objects.next()
            {
                let repository = self.clone();
                running.spawn(async move { repository.read_mark(&object.name, kind).await });
            }
            let Some(joined) = running.join_next().await else { break };
            match joined.map_err(|error| Error::internal("reading a mark broke").with_source(error))?? {
                Some(Ok(mark)) => marks.push(mark),
                Some(Err(problem)) => problems.push(problem),
                None => {}
            }
        }
        marks.sort_by_key(|mark: &Mark| (mark.session, mark.created));
        problems.sort_by(|a, b| a.what.cmp(&b.what));
        Ok((marks, problems))
    }

    /// None if it was cleaned up between the listing and now.
    async fn read_mark(
        &self,
        name: &str,
        kind: RecordKind,
    ) -> Result<Option<std::result::Result<Mark, Problem>>> {
        let bytes = match read_short(self.store().as_ref(), name).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return Ok(Some(Err(untrue(name, &error.to_string()))));
            }
            Err(error) => return Err(error),
        };
        let own = name.split_once('/').and_then(|(_, rest)| rest.split_once('.')).map(|(session, _)| session);
        Ok(Some(match self.open_signed::<Mark>(name, kind, &bytes) {
            Ok(mark) if own == Some(mark.session.to_string().as_str()) => Ok(mark),
            Ok(_) => Err(untrue(name, "it speaks of another session")),
            Err(error) => Err(untrue(name, &error.to_string())),
        }))
    }

    /// Reads JSON behind a maintenance signature (AUTH); the signature covers the object's name.
    pub(crate) fn open_signed<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        kind: RecordKind,
        bytes: &[u8],
    ) -> Result<T> {
        let (signature, json) = records::split_signature(name, records::decode_kind(name, bytes, kind)?)?;
        if !self.keys().verify_maintenance(name, json, signature) {
            return Err(Error::denied(format!("object {name} is not signed with the maintenance key")));
        }
        records::from_json(name, json)
    }

    /// Writes JSON behind a maintenance signature over the object's name and the JSON.
    pub(crate) fn seal_signed<T: serde::Serialize>(
        &self,
        name: &str,
        kind: RecordKind,
        value: &T,
    ) -> Result<Vec<u8>> {
        let json = records::to_json(value)?;
        let mut body = self.keys().sign_maintenance(name, &json)?;
        body.extend_from_slice(&json);
        Ok(records::encode_record(kind, &body))
    }

    /// Stores a signed record under a name with a random part that was never used, so that nobody can squat it. N1: an
    /// unclear or taken name is abandoned for another one.
    pub(super) async fn put_signed_anew<T: serde::Serialize>(
        &self,
        kind: RecordKind,
        what: &str,
        make: impl Fn(RandomId) -> (String, T),
    ) -> Result<RandomId> {
        self.check_maintainable()?;
        for _ in 0..limits::PACK_ATTEMPTS {
            let random = RandomId(self.world().random());
            let (name, value) = make(random);
            let body = self.seal_signed(&name, kind, &value)?;
            match self.store().put_if_absent(&name, body.into()).await {
                Ok(Put::Created) => return Ok(random),
                Ok(Put::Exists) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::unavailable(format!("{what} could not be stored")))
    }

    /// The record of one snapshot: rule V for a single one, in its order.
    pub async fn snapshot(&self, session: SessionName) -> Result<Snapshot> {
        let end = self.end(session).await?;
        let (forgotten, _) = self.marks("forgotten/", &session.to_string()).await?;
        let gone = || Error::not_found(format!("there is no snapshot {session}"));
        if !forgotten.is_empty() || self.session_object(session).await?.is_none() {
            return Err(gone());
        }
        match end {
            Some(End::Committed(snapshot)) => Ok(*snapshot),
            Some(End::Void(problem)) => Err(Error::corrupt(format!("snapshot {session}: {problem}"))),
            _ => Err(gone()),
        }
    }

    /// How a session ended, if it has. An end with a false signature counts against its session; one that cannot be
    /// read (damage, a newer version, a key generation that is not held) is an error, because nobody can tell.
    pub(crate) async fn end(&self, session: SessionName) -> Result<Option<End>> {
        let name = session.end_object();
        let _one_at_a_time;
        let mut bytes = match self.store().get(&name, ByteRange::Last(SHORT_END_BYTES + 1)).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 > SHORT_END_BYTES {
            _one_at_a_time = self.inner.long_record.acquire().await;
            let Some(whole) = self.there(&name).await? else { return Ok(None) };
            bytes = whole;
        }
        // That a session was shut out is known without its object, which may be damaged or never have been one.
        if let Some(fenced) = self.read_fenced(session, &name, &bytes) {
            return Ok(Some(fenced));
        }
        let end = match self.session_object(session).await {
            Ok(Some(object)) => self.read_end(session, &name, &bytes, &object),
            Ok(None) => return Ok(Some(End::Gone)),
            Err(error) => Err(error),
        };
        let hint =
            format!("look at the damage: carrack check; or give the snapshot up: carrack forget {session}");
        end.map(Some).map_err(|error| if error.hint().is_some() { error } else { error.with_hint(hint) })
    }

    /// A fence that carries the maintenance key's signature.
    fn read_fenced(&self, session: SessionName, name: &str, bytes: &[u8]) -> Option<End> {
        let fenced: Fenced = self.open_signed(name, RecordKind::Fenced, bytes).ok()?;
        (fenced.session == session).then_some(End::Fenced { cleaned_up: fenced.cleaned_up })
    }

    fn read_end(
        &self,
        session: SessionName,
        name: &str,
        bytes: &[u8],
        object: &SessionObject,
    ) -> Result<End> {
        let (kind, body) = decode_record(name, bytes)?;
        let (signature, sealed) = records::split_signature(name, body)?;
        let void = |problem: &str| Ok(End::Void(problem.to_owned()));
        match (kind, session.kind) {
            (RecordKind::Fenced, _) => void("it is not signed with the maintenance key"),
            (RecordKind::Abandoned, _) => {
                if !verify_signature(&object.signing_public, name, sealed, signature) {
                    return void(&not_own(session));
                }
                let abandoned: Fenced = records::from_json(name, sealed)?;
                match abandoned.session == session {
                    true => Ok(End::Fenced { cleaned_up: false }),
                    false => void("it ends another session"),
                }
            }
            (RecordKind::Snapshot, SessionKind::Backup) => {
                if !verify_signature(&object.signing_public, name, sealed, signature) {
                    return void(&not_own(session));
                }
                let snapshot = self.open_snapshot(session, object, name, sealed)?;
                // Retention goes by host and paths: a mover must not speak for another source than its own.
                match self.lineage_of(&snapshot) == Some(session.lineage) {
                    true => Ok(End::Committed(Box::new(snapshot))),
                    false => void("it names a host or paths that its session is not for"),
                }
            }
            (RecordKind::Relocation, SessionKind::Repack) => {
                if !self.keys().verify_maintenance(name, sealed, signature) {
                    return void("it is not signed with the maintenance key");
                }
                Ok(End::Relocated(self.open_relocations(object, name, sealed)?))
            }
            _ => void(&format!("a {kind:?} record cannot end this session")),
        }
    }

    /// The lineage of the source that a record names; none if its paths cannot be.
    fn lineage_of(&self, snapshot: &Snapshot) -> Option<LineageId> {
        let paths: Option<Vec<Vec<u8>>> = snapshot.paths.iter().map(|path| unescape_path(path)).collect();
        Some(self.lineage(&snapshot.host, &paths?))
    }

    pub(super) fn open_snapshot(
        &self,
        session: SessionName,
        object: &SessionObject,
        name: &str,
        sealed: &[u8],
    ) -> Result<Snapshot> {
        let key = self.keys().session_metadata_key(object.key.generation, session);
        let key = key.map_err(|error| error.context(format!("object {}", session.session_object())))?;
        let cipher = Cipher::new(object.key.suite, &key);
        let plain = codec::open_object(&cipher, Domain::Record, session, sealed, limits::SNAPSHOT_LIMIT)
            .map_err(|error| error.context(format!("object {name}")))?;
        let snapshot: Snapshot = records::from_json(name, &plain)?;
        if snapshot.session != session {
            return Err(Error::corrupt(format!("object {name}: it is the record of another session")));
        }
        if snapshot.depth > limits::TREE_DEPTH
            || snapshot.root.as_ref().is_some_and(|root| !root.is_bounded())
        {
            return Err(Error::corrupt(format!("object {name}: its tree cannot be")));
        }
        if snapshot.version != 1 {
            return Err(newer("snapshot", snapshot.version));
        }
        if snapshot.grid != 0 && !chunker::is_grid(snapshot.grid) {
            let grid = snapshot.grid;
            return Err(Error::corrupt(format!("object {name}: no device is cut on a grid of {grid} bytes")));
        }
        Ok(snapshot)
    }

    /// The session object, if it exists.
    pub(crate) async fn session_object(&self, session: SessionName) -> Result<Option<SessionObject>> {
        let name = session.session_object();
        let bytes = match read_short(self.store().as_ref(), &name).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let body = records::decode_kind(&name, &bytes, RecordKind::Session)?;
        let version = records::json_version(&name, body)?;
        if version != 1 {
            return Err(newer("session object", version).context(format!("object {name}")));
        }
        let object: SessionObject = records::from_json(&name, body)?;
        if object.key.session != session {
            return Err(Error::corrupt(format!("object {name}: it speaks of another session")));
        }
        Ok(Some(object))
    }

    /// Reads many ends at once, in the order of their names.
    pub(crate) async fn ends_of(
        &self,
        names: &[SessionName],
    ) -> Result<BTreeMap<SessionName, Result<Option<End>>>> {
        let mut running = tokio::task::JoinSet::new();
        let mut ends = BTreeMap::new();
        for name in names {
            while running.len() >= PARALLEL_READS {
                collect(&mut running, &mut ends).await?;
            }
            let (repository, name) = (self.clone(), *name);
            running.spawn(async move { (name, repository.end(name).await) });
        }
        while !running.is_empty() {
            collect(&mut running, &mut ends).await?;
        }
        Ok(ends)
    }

    /// All visible relocations (R2), and the repacks whose relocations cannot be read or believed, or have lost their
    /// session. Those may have been forged; but they may be damaged as well, or signed with a key newer than these keys.
    /// What follows from that is another thing for a reader, a writer and a collector.
    pub(crate) async fn relocations(&self) -> Result<(Relocations, Vec<(SessionName, Error)>)> {
        let survey = self.survey_of("r").await?;
        let (mut relocations, mut doubtful) = (Relocations::default(), self.lost_repacks(&survey).await?);
        for (name, end) in self.ends_of(&survey.visible(SessionKind::Repack)).await? {
            match end {
                Ok(Some(End::Relocated(moved))) => relocations.add(name, &moved),
                Ok(Some(End::Void(problem))) => {
                    let error = Error::denied(format!("repack {name} cannot be believed: {problem}"));
                    let hint = format!(
                        "fetch the keys again if the repository's key was rotated; else it is forged: \
                         carrack forget {name}"
                    );
                    doubtful.push((name, error.with_hint(hint)));
                }
                Ok(_) => {}
                Err(error) if is_doubt(&error) => doubtful.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok((relocations, doubtful))
    }
}

type EndResult = (SessionName, Result<Option<End>>);

async fn collect(
    running: &mut tokio::task::JoinSet<EndResult>,
    ends: &mut BTreeMap<SessionName, Result<Option<End>>>,
) -> Result<()> {
    if let Some(joined) = running.join_next().await {
        let (name, end) =
            joined.map_err(|error| Error::internal("reading an end broke").with_source(error))?;
        ends.insert(name, end);
    }
    Ok(())
}

fn not_own(session: SessionName) -> String {
    format!("it is not signed with the key that {} names", session.session_object())
}

/// Whether an end is there that cannot be read: damaged, forged, newer, or of a key that is not held.
pub(super) fn is_doubt(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Denied | ErrorKind::Invalid)
}

/// The parent that a record names, which was visible then. Of another source nobody can have had one.
pub(super) fn parent_of(snapshot: &Snapshot) -> Option<SessionName> {
    snapshot.parent.filter(|parent| parent.lineage == snapshot.session.lineage)
}

/// An object that claims something and cannot prove it.
pub(crate) fn untrue(name: &str, why: &str) -> Problem {
    Problem { what: format!("object {name}"), message: format!("it is ignored: {why}") }
}
