//! Records: the small objects that say what the repository is, how sessions ended and what may be deleted.
//!
//! Each begins with eight bytes, `CRKR`, version, kind and two zero bytes. What takes something out of view or
//! condemns it is signed with the maintenance key; a snapshot is sealed by its session and signed with the
//! session's own key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    frame::{ChunkRef, Frame, FramePlace},
    pack::PackSending,
    session::{SessionKeyInfo, SessionName},
};
use crate::{
    chunker::CutSizes,
    error::{Error, Result},
    id::{ChunkId, PackId, RandomId, RepositoryId},
    limits,
};

/// What a record is; the sixth byte of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// `format`: signature, then JSON.
    Format,
    /// `keys/<id>`: signature, then JSON.
    Key,
    /// `sessions/<session>`: JSON.
    Session,
    /// `snapshots/<session>` of a backup that was committed: signature, then the sealed record.
    Snapshot,
    /// `snapshots/<session>` of a repack that was committed: signature, then the sealed relocations.
    Relocation,
    /// `snapshots/<session>` of a session that was shut out: signature, then JSON.
    Fenced,
    /// `gc/<id>.condemned`: signature, then JSON.
    Condemned,
    /// `gc/<id>.final`: signature, then JSON.
    Final,
    /// `forgotten/<session>.<random>`: signature, then JSON.
    Forgotten,
    /// `marks/<session>.<word>.<random>`: signature, then JSON.
    Mark,
    /// `index/s-<random>`, `index/s-<random>.joined`: key info, then the sealed segment.
    Segment,
    /// `index/c<lineage>-<age><tag>`: key info, then the sealed checkpoint.
    Checkpoint,
    /// `snapshots/<session>` of a session that gave up: signature of the session itself, then JSON.
    Abandoned,
    /// `damaged/<id>`: signature, then JSON.
    Damaged,
}

const MAGIC: &[u8; 4] = b"CRKR";
const VERSION: u8 = 1;
const KINDS: [RecordKind; 14] = [
    RecordKind::Format,
    RecordKind::Key,
    RecordKind::Session,
    RecordKind::Snapshot,
    RecordKind::Relocation,
    RecordKind::Fenced,
    RecordKind::Condemned,
    RecordKind::Final,
    RecordKind::Forgotten,
    RecordKind::Mark,
    RecordKind::Segment,
    RecordKind::Checkpoint,
    RecordKind::Abandoned,
    RecordKind::Damaged,
];

/// Bytes before the body of a record.
pub const RECORD_HEADER: usize = 8;
/// Bytes of a signature.
pub const SIGNATURE_LENGTH: usize = 64;

/// Puts the header before a body.
pub fn encode_record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
    let code = KINDS.iter().position(|known| *known == kind).expect("every kind is listed") as u8 + 1;
    let mut out = Vec::with_capacity(RECORD_HEADER + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, code, 0, 0]);
    out.extend_from_slice(body);
    out
}

/// Reads the header; `name` is the object, for errors.
pub fn decode_record<'b>(name: &str, bytes: &'b [u8]) -> Result<(RecordKind, &'b [u8])> {
    let damaged = |problem: &str| Error::corrupt(format!("object {name}: {problem}"));
    if bytes.len() > limits::RECORD_LIMIT {
        return Err(damaged("it is longer than any record"));
    }
    let Some((header, body)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
        return Err(damaged("it is too short for a record"));
    };
    if header[..4] != *MAGIC {
        return Err(damaged("it does not begin with CRKR"));
    }
    if header[4] != VERSION {
        return Err(super::pack::newer("record", u32::from(header[4])).context(format!("object {name}")));
    }
    let kind = usize::from(header[5]).checked_sub(1).and_then(|index| KINDS.get(index));
    let kind = kind.ok_or_else(|| damaged("it is of an unknown kind"))?;
    if header[6..] != [0, 0] {
        return Err(damaged("its header is not as it must be"));
    }
    Ok((*kind, body))
}

/// Reads a record that must be of this kind.
pub fn decode_kind<'b>(name: &str, bytes: &'b [u8], expected: RecordKind) -> Result<&'b [u8]> {
    let (kind, body) = decode_record(name, bytes)?;
    if kind == expected {
        Ok(body)
    } else {
        Err(Error::corrupt(format!("object {name}: a {kind:?} record where a {expected:?} record belongs")))
    }
}

/// Splits a body into its signature and what it signs.
pub fn split_signature<'b>(name: &str, body: &'b [u8]) -> Result<(&'b [u8; SIGNATURE_LENGTH], &'b [u8])> {
    body.split_first_chunk()
        .ok_or_else(|| Error::corrupt(format!("object {name}: it is too short for a signature")))
}

/// Writes a value as JSON.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::internal("a record could not be written").with_source(error))
}

/// Reads JSON that came from the store.
pub fn from_json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(format!("object {name} cannot be read")).with_source(error))
}

/// The version that the JSON of an object says it has. To be looked at before anything else of it: what is newer may have other
/// fields.
pub(crate) fn json_version(name: &str, bytes: &[u8]) -> Result<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    from_json::<Versioned>(name, bytes).map(|json| json.version)
}

/// The `format` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFormat {
    /// Major version: a program that knows only smaller ones refuses.
    pub version: u32,
    /// The repository.
    pub repository: RepositoryId,
    /// The public maintenance key of the first generation. It signs this object and every key file.
    #[serde(with = "hex::serde")]
    pub maintenance_public: [u8; 32],
    /// How files are cut.
    pub cut: CutSizes,
    /// Features that a reader must know.
    pub read_features: Vec<String>,
    /// Features that a writer must know.
    pub write_features: Vec<String>,
    /// Features that maintenance must know.
    pub maintain_features: Vec<String>,
    /// When it was made, for people.
    pub created: Timestamp,
}

/// A key file: the root keys, sealed under a passphrase or a 256-bit secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    /// Version of this structure, 1.
    pub version: u32,
    /// What people call it.
    pub label: String,
    /// When it was made, for people.
    pub created: Timestamp,
    /// The repository that it opens; absent: the one that it lies in. Whoever is killed while he makes a repository
    /// leaves the key of one that never came to be, in the place where the next one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryId>,
    /// How many generations it opens; absent: nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generations: Option<Generations>,
    /// How the wrapping key is found.
    pub derivation: KeyDerivation,
    /// Keyed hash that tells a wrong password from a damaged file.
    #[serde(with = "hex::serde")]
    pub commitment: [u8; 32],
    /// The roots, oldest first, 32 bytes each, sealed with ChaCha20-Poly1305 under the wrapping key: nonce of 12
    /// bytes, ciphertext, tag.
    #[serde(with = "hex::serde")]
    pub sealed_roots: Vec<u8>,
}

/// How many generations a key opens, signed so that those who hold an earlier one know of the later: a rotation counts
/// from the moment its key is there, whether or not it came to removing the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations {
    /// How many.
    pub count: u32,
    /// Maintenance signature of the generation that was the newest before.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
}

impl Generations {
    /// What is signed, with the name of the key object as context.
    pub fn statement(repository: RepositoryId, count: u32) -> Vec<u8> {
        [&repository.0[..], &count.to_le_bytes()].concat()
    }
}

/// How a wrapping key is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum KeyDerivation {
    /// Argon2id, version 0x13, of a passphrase.
    Argon2id {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; 16],
        /// KiB of memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// BLAKE3 of a 256-bit secret.
    Secret {
        /// 16 random bytes.
        #[serde(with = "hex::serde")]
        salt: [u8; 16],
    },
}

/// What was backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Trees of files.
    Files,
    /// A block device or image file.
    Block,
    /// A stream.
    Stdin,
}

/// The record of a committed backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of this structure, 1.
    pub version: u32,
    /// The session that wrote it; its name is the snapshot's name.
    pub session: SessionName,
    /// What was backed up.
    pub source: SourceKind,
    /// Host it was taken on.
    pub host: String,
    /// User who took it.
    pub user: String,
    /// Absolute paths of the roots; bytes that are not UTF-8 as `\xNN`, a backslash as `\\`.
    pub paths: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// When reading began.
    pub started: Timestamp,
    /// When it was committed.
    pub finished: Timestamp,
    /// The snapshot it was compared with.
    pub parent: Option<SessionName>,
    /// Grid of a device in bytes; 0 for files.
    pub grid: u32,
    /// Change identifier of the device, for the next changed-block list.
    pub change_id: Option<String>,
    /// The top page of the tree; none for an empty tree.
    pub root: Option<PageRef>,
    /// Levels of pages: 1 if the root is a leaf.
    pub depth: u8,
    /// Keys of every session that the tree refers to.
    pub sessions: Vec<SessionKeyInfo>,
    /// Counts and bytes.
    pub statistics: Statistics,
    /// What could not be read or kept: the first of them; the statistics have the number.
    pub problems: Vec<ProblemRecord>,
    /// Program that wrote it.
    pub program: String,
    /// The snapshot that it is a copy of; of a copy of a copy, the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<CopiedFrom>,
}

/// Names a snapshot in all the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CopiedFrom {
    /// The repository that it was made in.
    pub repository: RepositoryId,
    /// Its name there.
    pub session: SessionName,
}

/// Counts and bytes of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Files that the parent did not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files as in the parent.
    pub files_unmodified: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links, devices, pipes and sockets.
    pub others: u64,
    /// Entries that were left out by rule.
    pub excluded: u64,
    /// Entries or attributes that could not be read or kept.
    pub problems: u64,
    /// Bytes of all contents, holes included.
    pub bytes_total: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes of chunks that were new.
    pub bytes_new: u64,
    /// Bytes that were added to the repository, data and metadata, after compression.
    pub bytes_stored: u64,
    /// Chunks that were new.
    pub chunks_new: u64,
    /// Chunks that were there already.
    pub chunks_known: u64,
    /// Packs that were written.
    pub packs: u64,
}

/// Something that could not be read or kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemRecord {
    /// The path, escaped as in `paths`.
    pub path: String,
    /// What went wrong.
    pub message: String,
}

/// A reference to a page in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Id of the plain page.
    pub id: ChunkId,
    /// Its frame.
    pub place: FramePlace,
}

impl PageRef {
    /// From the reference that pages use; `None` while the frame is not packed yet.
    pub fn from_chunk(chunk: &ChunkRef) -> Option<Self> {
        Some(Self { id: chunk.id, place: *chunk.frame.place()? })
    }

    /// Whether its lengths are within what a reader may allocate. To be asked of every one that was read.
    pub fn is_bounded(&self) -> bool {
        let stored = self.place.stored as usize;
        self.place.plain as usize <= limits::PAGE_LIMIT && stored <= self.place.plain as usize + 4096
    }

    /// The reference that pages use.
    pub fn to_chunk(&self) -> ChunkRef {
        ChunkRef { id: self.id, offset: 0, length: self.place.plain, frame: Frame::settled(self.place) }
    }
}

/// `gc/<id>.condemned`: packs that a collector means to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    /// The collection; must be the one in the object's name.
    pub collection: RandomId,
    /// When, for people.
    pub created: Timestamp,
    /// The sendings of packs that were there when it was written.
    pub packs: Vec<PackSending>,
    /// Repacks whose relocations nobody needs any more (R4).
    pub relocations: Vec<SessionName>,
}

/// `gc/<id>.final`: what of a condemned list is deleted. If it names nothing, the list is void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    /// The collection; must be the one in the object's name.
    pub collection: RandomId,
    /// The sendings of packs: these objects and no others are deleted, however late.
    pub packs: Vec<PackSending>,
    /// Repacks whose relocations go.
    pub relocations: Vec<SessionName>,
}

/// `damaged/<id>`: packs that a check found missing, cut or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// When, for people.
    pub created: Timestamp,
    /// The packs.
    pub packs: Vec<PackId>,
}

/// The end of a session that was shut out, or gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// The session.
    pub session: SessionName,
    /// When, for people.
    pub created: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// It took the place of an end that had counted and was cleaned up.
    #[serde(default)]
    pub cleaned_up: bool,
}

/// `forgotten/<session>.<random>` and `marks/<session>.<word>.<random>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The session.
    pub session: SessionName,
    /// `forgotten`, `pinned` or `verified`.
    pub word: String,
    /// When, for people and for retention.
    pub created: Timestamp,
}

/// One frame that a repack moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Where snapshots say it is.
    pub old_pack: PackId,
    /// Offset there, which names the frame.
    pub old_offset: u32,
    /// Where it is now.
    pub new_pack: PackId,
    /// Offset there.
    pub new_offset: u32,
}
