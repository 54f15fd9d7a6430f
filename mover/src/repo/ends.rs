//! Ends of sessions: reading them, believing them, and which snapshots are visible (V).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Repository, packs::Relocations, read_short};
use crate::{
    codec::{self, Cipher, Domain},
    error::{Error, ErrorKind, Result},
    format::{
        records::{self, Fenced, Mark, Moved, RecordKind, Snapshot, decode_record},
        session::{SessionKind, SessionName, SessionObject},
    },
    id::{LineageId, RandomId},
    keys::verify_signature,
    limits,
    monitor::{Problem, unescape_path},
    store::{ByteRange, Put, list_all},
};

/// All snapshots that are visible, and what could not be read or believed.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// By the time they were begun.
    pub snapshots: Vec<Snapshot>,
    /// Visible, but their record cannot be read. Repacks among them.
    pub unreadable: Vec<(SessionName, Error)>,
    /// Pins and verifications that carry a true signature.
    pub marks: Vec<Mark>,
    /// Objects that claim something and cannot prove it.
    pub problems: Vec<Problem>,
}

/// Which snapshots are meant.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// One of these hosts; any if empty.
    pub hosts: Vec<String>,
    /// All tags of one of these comma-separated lists; any if empty.
    pub tags: Vec<String>,
    /// All of these paths; any if empty.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    /// Whether it lets every snapshot through.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// Whether the snapshot is meant.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let host = self.hosts.is_empty() || self.hosts.contains(&snapshot.host);
        let tags = self.tags.is_empty() || self.tags.iter().any(|list| carries(snapshot, list));
        host && tags && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }

    /// The error of a verb that needs a snapshot and finds none that is meant.
    pub fn no_match(&self) -> Error {
        let words = match self.is_empty() {
            true => "there is no snapshot".to_owned(),
            false => format!("no snapshot matches {self}"),
        };
        Error::not_found(words).with_hint("see what there is: carrack snapshots")
    }
}

/// In words: `host db1 or db2, tags nightly,db, path /srv`.
impl fmt::Display for SnapshotFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |what: &str, names: &[String], between: &str| {
            (!names.is_empty()).then(|| format!("{what} {}", names.join(between)))
        };
        let parts = [
            part("host", &self.hosts, " or "),
            part("tags", &self.tags, " or "),
            part("path", &self.paths, " and "),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Whether the snapshot has all tags of a comma-separated list.
pub(super) fn carries(snapshot: &Snapshot, list: &str) -> bool {
    list.split(',').all(|tag| snapshot.tags.iter().any(|own| own == tag))
}

/// How a session ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It committed a snapshot.
    Committed(Box<Snapshot>),
    /// It committed relocations.
    Relocated(Vec<Moved>),
    /// It was shut out, or gave up.
    Fenced,
    /// Its session was cleaned up since: it is not visible.
    Gone,
    /// There is something that does not verify: a decision against the session, never for it.
    Void(String),
}

/// Requests that are under way at once while ends are read.
const PARALLEL_READS: usize = 16;

impl Repository {
    /// Sessions whose snapshot is visible: rule V in bulk, ends first, then markers, then sessions. Whether an end
    /// is a record that can be believed is seen when it is read.
    pub async fn visible(&self, prefix: &str) -> Result<Vec<SessionName>> {
        let ends = self.session_names("snapshots/", prefix).await?;
        if ends.is_empty() {
            return Ok(Vec::new());
        }
        let (forgotten, _) = self.marks("forgotten/", prefix).await?;
        let forgotten: BTreeSet<SessionName> = forgotten.into_iter().map(|mark| mark.session).collect();
        let sessions = self.session_names("sessions/", prefix).await?;
        Ok(ends.into_iter().filter(|name| sessions.contains(name) && !forgotten.contains(name)).collect())
    }

    /// Whether a snapshot carries a true marker of a forget.
    pub async fn is_forgotten(&self, session: SessionName) -> Result<bool> {
        Ok(!self.marks("forgotten/", &format!("{session}.")).await?.0.is_empty())
    }

    pub(crate) async fn session_names(&self, folder: &str, prefix: &str) -> Result<BTreeSet<SessionName>> {
        let listed = list_all(self.store().as_ref(), &format!("{folder}{prefix}")).await?;
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

    /// The newest snapshot below `prefix` that is wanted, read once more in order V after all of them were read at once.
    /// What cannot be read or believed is passed over, and told.
    pub(crate) async fn newest(
        &self,
        prefix: &str,
        wanted: impl Fn(&Snapshot) -> bool,
        tell: impl Fn(SessionName, &Error),
    ) -> Result<Option<Snapshot>> {
        let mut found = Vec::new();
        for names in self.visible(prefix).await?.chunks(super::mark::ENDS_PER_ROUND) {
            for (name, end) in self.ends_of(names).await? {
                match end {
                    Ok(Some(End::Committed(snapshot))) if wanted(&snapshot) => {
                        found.push((snapshot.started, name));
                    }
                    Ok(Some(End::Void(problem))) => tell(name, &Error::corrupt(problem)),
                    Ok(_) => {}
                    Err(error) if is_doubt(&error) => tell(name, &error),
                    Err(error) => return Err(error),
                }
            }
        }
        found.sort_unstable();
        for (_, name) in found.into_iter().rev() {
            match self.snapshot(name).await {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_doubt(&error) => tell(name, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// How a session ended, if it has. An end with a false signature counts against its session; one that cannot be
    /// read (damage, a newer version, a key generation that is not held) is an error, because nobody can tell.
    pub(crate) async fn end(&self, session: SessionName) -> Result<Option<End>> {
        let name = session.end_object();
        let bytes = match self.store().get(&name, ByteRange::All).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
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
        (fenced.session == session).then_some(End::Fenced)
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
                    return void("it is not signed by its own session");
                }
                let abandoned: Fenced = records::from_json(name, sealed)?;
                if abandoned.session == session { Ok(End::Fenced) } else { void("it ends another session") }
            }
            (RecordKind::Snapshot, SessionKind::Backup) => {
                if !verify_signature(&object.signing_public, name, sealed, signature) {
                    return void("it is not signed by its own session");
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
        let key = self.keys().session_metadata_key(object.key.generation, session)?;
        let cipher = Cipher::new(object.key.suite, &key);
        let plain = codec::open_object(&cipher, Domain::Record, session, sealed, limits::RECORD_LIMIT)
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
            return Err(crate::format::pack::newer("snapshot", snapshot.version));
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
        let object: SessionObject = records::from_json(&name, body)?;
        if object.key.session != session {
            return Err(Error::corrupt(format!("object {name}: it speaks of another session")));
        }
        Ok(Some(object))
    }

    /// Every visible snapshot with its record, and the marks that speak of them.
    pub async fn snapshots(&self) -> Result<SnapshotList> {
        let survey = self.survey().await?;
        let ends = self.ends_of(&survey.visible(SessionKind::Backup)).await?;
        let mut list = SnapshotList::default();
        for (name, end) in ends {
            match end {
                Ok(Some(End::Committed(snapshot))) => list.snapshots.push(*snapshot),
                Ok(Some(End::Void(problem))) => {
                    let problem = format!("object {} cannot be believed: {problem}", name.end_object());
                    list.unreadable.push((name, Error::corrupt(problem)));
                }
                Ok(_) => {}
                Err(error) if is_doubt(&error) => list.unreadable.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        list.snapshots.sort_by_key(|snapshot| (snapshot.started, snapshot.session));
        // A repack that nobody can read stops writers and maintenance alike, so it is named with the snapshots.
        for (name, end) in self.ends_of(&survey.visible(SessionKind::Repack)).await? {
            match end {
                Ok(Some(End::Void(problem))) => list.unreadable.push((name, Error::corrupt(problem))),
                Ok(_) => {}
                Err(error) if is_doubt(&error) => list.unreadable.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        list.unreadable.extend(self.lost_sessions(&survey).await?);
        let (marks, problems) = self.marks("marks/", "").await?;
        list.marks = marks;
        list.problems.extend(problems);
        let parents = list.snapshots.iter().filter_map(parent_of).collect();
        list.unreadable.extend(self.lost_ends(&survey, parents, &list.marks).await?);
        if !list.unreadable.is_empty() && self.keys().can_read_data() {
            self.check_keys_unchanged().await?;
        }
        Ok(list)
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

    /// All visible relocations (R2), and the repacks whose relocations cannot be read or believed. Those may have been
    /// forged; but they may be damaged as well, or signed with a key newer than these keys. What follows from that is
    /// another thing for a reader, a writer and a collector.
    pub(crate) async fn relocations(&self) -> Result<(Relocations, Vec<(SessionName, Error)>)> {
        let names = self.visible("r").await?;
        let (mut relocations, mut doubtful) = (Relocations::default(), Vec::new());
        for (name, end) in self.ends_of(&names).await? {
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

    /// The snapshot that a person means: `latest`, or the beginning of its id.
    pub async fn find_snapshot(&self, text: &str, filter: &SnapshotFilter) -> Result<Snapshot> {
        let list = self.snapshots().await?;
        let mut matching = list.snapshots.into_iter().filter(|snapshot| filter.matches(snapshot));
        if text == "latest" {
            return matching.next_back().ok_or_else(|| filter.no_match());
        }
        let by_id = |snapshot: &Snapshot| {
            snapshot.session.nonce.to_hex().starts_with(text) || snapshot.session.to_string() == text
        };
        let mut found = matching.filter(by_id);
        match (found.next(), found.next()) {
            (Some(snapshot), None) => Ok(snapshot),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "more than one snapshot begins with {text:?}; give more of the id"
            ))),
            (None, _) => {
                let of = if filter.is_empty() { String::new() } else { format!(" of {filter}") };
                Err(Error::not_found(format!("there is no snapshot {text:?}{of}"))
                    .with_hint("see what there is: carrack snapshots"))
            }
        }
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
