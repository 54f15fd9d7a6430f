//! Names and contents of session objects.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{bytes::Reader, frame::Suite};
use crate::{
    error::{Error, Result},
    id::{LineageId, PackId, SessionNonce},
    keys::SEALED_KEY_LENGTH,
};

/// What a session is for; the first letter of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionKind {
    /// Writes a snapshot.
    Backup,
    /// Moves live frames out of packs that are mostly dead.
    Repack,
}

impl SessionKind {
    fn letter(self) -> char {
        match self {
            Self::Backup => 'b',
            Self::Repack => 'r',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'b' => Some(Self::Backup),
            b'r' => Some(Self::Repack),
            _ => None,
        }
    }
}

/// The name of a session: kind, lineage, and a nonce that was never used before. Text form `b<16 hex>-<32 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionName {
    /// What it is for.
    pub kind: SessionKind,
    /// The source it belongs to; zero for a repack.
    pub lineage: LineageId,
    /// Drawn at random.
    pub nonce: SessionNonce,
}

impl SessionName {
    /// Bytes of the binary form.
    pub const LENGTH: usize = 1 + LineageId::LENGTH + SessionNonce::LENGTH;

    /// The object that says the session exists.
    pub fn session_object(self) -> String {
        format!("sessions/{self}")
    }

    /// The object that says how it ended.
    pub fn end_object(self) -> String {
        format!("snapshots/{self}")
    }

    /// Whether the pack was written by this session.
    pub fn owns(self, pack: PackId) -> bool {
        pack.tag() == self.nonce.tag()
    }

    /// The binary form, as footers and pages carry it.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = self.kind.letter() as u8;
        bytes[1..9].copy_from_slice(&self.lineage.0);
        bytes[9..].copy_from_slice(&self.nonce.0);
        bytes
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let kind = reader.byte()?;
        let kind =
            SessionKind::from_byte(kind).ok_or_else(|| reader.malformed("an unknown kind of session"))?;
        Ok(Self { kind, lineage: LineageId(reader.array()?), nonce: SessionNonce(reader.array()?) })
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}-{}", self.kind.letter(), self.lineage, self.nonce)
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionName({self})")
    }
}

impl FromStr for SessionName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let kind = SessionKind::from_byte(*text.as_bytes().first()?)?;
            let (lineage, nonce) = text.get(1..)?.split_once('-')?;
            Some(Self { kind, lineage: LineageId::from_hex(lineage)?, nonce: SessionNonce::from_hex(nonce)? })
        };
        parse().ok_or_else(|| Error::corrupt(format!("{text:?} is not the name of a session")))
    }
}

impl Serialize for SessionName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a reader needs to open what a session wrote. Copied into footers and snapshot records, because the session
/// object itself may be cleaned up while others still use its packs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionKeyInfo {
    /// The session.
    pub session: SessionName,
    /// Which key generation it used.
    pub generation: u32,
    /// Which cipher its frames are sealed with.
    pub suite: Suite,
    /// The data key, sealed to the public key.
    #[serde(with = "hex::serde")]
    pub sealed_data_key: Vec<u8>,
}

impl SessionKeyInfo {
    /// Bytes of the binary form.
    pub const LENGTH: usize = SessionName::LENGTH + 5 + SEALED_KEY_LENGTH;

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.to_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.push(self.suite.code());
        debug_assert_eq!(self.sealed_data_key.len(), SEALED_KEY_LENGTH, "sealed keys have one length");
        out.extend_from_slice(&self.sealed_data_key);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let session = SessionName::read(reader)?;
        let generation = u32::from_le_bytes(reader.array()?);
        let suite = Suite::from_code(reader.byte()?).ok_or_else(|| reader.malformed("an unknown cipher"))?;
        Ok(Self { session, generation, suite, sealed_data_key: reader.take(SEALED_KEY_LENGTH)?.to_vec() })
    }
}

/// The session object: JSON, readable without any key, says nothing about the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionObject {
    /// Version of this structure, 1.
    pub version: u32,
    /// Name, generation, cipher and sealed data key.
    #[serde(flatten)]
    pub key: SessionKeyInfo,
    /// Public key that the session's end is signed with: nobody else can end it but maintenance, by fencing.
    #[serde(with = "hex::serde")]
    pub signing_public: [u8; 32],
    /// When it began by the writer's clock. For people and for "overdue", never for safety.
    pub started: jiff::Timestamp,
}
