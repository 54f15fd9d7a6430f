//! The keys of a repository: one root key, and everything that is derived from it.
//!
//! What a process may do is which keys it holds. A writer has the id key, the chunker's seed, the metadata key of
//! its own lineage, the index key and two public keys: it can write, deduplicate and read its own trees, and
//! neither open what anybody wrote nor take anything out of view. A restore also holds the private data key, and
//! maintenance the private signing key. A holder of the root key has all of them.
//!
//! Rotation adds a *generation*: a new root from which new sessions take their data, metadata, index and
//! maintenance keys. Ids and cuts stay with the first generation, because they are what deduplication compares.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _};
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};

use crate::{
    clock::World,
    error::{Error, Result},
    format::session::SessionName,
    id::{ChunkId, LineageId, RepositoryId},
    secret::Key,
};

#[cfg(test)]
mod tests;

type Kem = hpke::kem::X25519HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;

/// Length of a sealed session key: the encapsulated key, the ciphertext and its tag, in bytes.
pub const SEALED_KEY_LENGTH: usize = 32 + 32 + 16;

/// Keys of one generation.
struct Generation {
    data_public: PublicKey,
    data_private: Option<PrivateKey>,
    metadata: LineageKeys,
    index: Key,
    maintenance_public: [u8; 32],
    maintenance_private: Option<Ed25519KeyPair>,
}

/// Which lineages' trees the holder can read and write.
enum LineageKeys {
    All(Key),
    One(LineageId, Key),
}

/// The keys that a process holds of one repository. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    shared: Arc<Shared>,
}

struct Shared {
    id_key: Key,
    chunk_seed: Key,
    /// Number of the first generation that is held.
    base: u32,
    generations: Vec<Generation>,
    /// Public maintenance keys of all generations that were there when these keys were handed out.
    maintenance_publics: Vec<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("generations", &self.shared.generations.len()).finish_non_exhaustive()
    }
}

/// What a mover pod is given: enough to write one lineage, nothing to read others or to delete. Lower-case
/// hexadecimal in JSON.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct WriterBundle {
    /// The repository it is for.
    pub repository: RepositoryId,
    /// Generation that new sessions are written with.
    pub generation: u32,
    /// The one lineage that it can write.
    pub lineage: LineageId,
    #[serde(with = "hex_key")]
    id_key: [u8; 32],
    #[serde(with = "hex_key")]
    chunk_seed: [u8; 32],
    #[serde(with = "hex_key")]
    lineage_key: [u8; 32],
    #[serde(with = "hex_key")]
    index_key: [u8; 32],
    #[serde(with = "hex_key")]
    data_public: [u8; 32],
    /// Public maintenance keys of all generations, oldest first.
    maintenance_publics: Vec<HexKey>,
    /// What the generations before were like, oldest first: what was written with them is still to be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<EarlierKeys>,
}

/// The keys of a generation that nothing is written with any more: parents, footers, segments and relocations of it stay
/// in use.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct EarlierKeys {
    #[serde(with = "hex_key")]
    lineage_key: [u8; 32],
    #[serde(with = "hex_key")]
    index_key: [u8; 32],
    #[serde(with = "hex_key")]
    data_public: [u8; 32],
}

/// 32 public bytes in hexadecimal.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct HexKey(#[serde(with = "hex_key")] [u8; 32]);

impl fmt::Debug for WriterBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterBundle({}, {})", self.repository, self.lineage)
    }
}

mod hex_key {
    pub(super) fn serialize<S: serde::Serializer>(key: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        hex::serde::serialize(key, serializer)
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        hex::serde::deserialize(deserializer)
    }
}

impl Keys {
    /// Derives everything from the root keys, oldest generation first.
    pub fn from_roots(repository: RepositoryId, roots: &[Key]) -> Result<Self> {
        let first = roots.first().ok_or_else(|| Error::corrupt("the key file holds no root key"))?;
        let generations: Vec<Generation> =
            roots.iter().map(|root| Generation::from_root(repository, root)).collect::<Result<_>>()?;
        let shared = Shared {
            id_key: first.derive("carrack v1 chunk ids", &repository.0),
            chunk_seed: first.derive("carrack v1 chunker seed", &repository.0),
            base: 0,
            maintenance_publics: generations.iter().map(|generation| generation.maintenance_public).collect(),
            generations,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The keys of a mover that may write one lineage.
    pub fn from_bundle(bundle: &WriterBundle) -> Result<Self> {
        let current = EarlierKeys {
            lineage_key: bundle.lineage_key,
            index_key: bundle.index_key,
            data_public: bundle.data_public,
        };
        let earlier = u32::try_from(bundle.earlier.len()).ok();
        let base = earlier.and_then(|earlier| bundle.generation.checked_sub(earlier)).ok_or_else(|| {
            Error::invalid("the writer bundle has keys of more generations than there were")
                .with_hint("make it again: carrack key bundle")
        })?;
        let generations = bundle.earlier.iter().chain([&current]).zip(base..).map(|(keys, generation)| {
            let public = bundle.maintenance_publics.get(generation as usize);
            Ok(Generation {
                data_public: public_key(&keys.data_public)?,
                data_private: None,
                metadata: LineageKeys::One(bundle.lineage, Key::new(keys.lineage_key)),
                index: Key::new(keys.index_key),
                maintenance_public: public.map_or([0; 32], |key| key.0),
                maintenance_private: None,
            })
        });
        let shared = Shared {
            id_key: Key::new(bundle.id_key),
            chunk_seed: Key::new(bundle.chunk_seed),
            base,
            generations: generations.collect::<Result<_>>()?,
            maintenance_publics: bundle.maintenance_publics.iter().map(|key| key.0).collect(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What to hand to a mover that shall write this lineage and no more.
    pub fn writer_bundle(&self, repository: RepositoryId, lineage: LineageId) -> Result<WriterBundle> {
        let of_generation = |generation: &Generation| -> Result<EarlierKeys> {
            Ok(EarlierKeys {
                lineage_key: *generation.lineage_key(lineage)?.expose(),
                index_key: *generation.index.expose(),
                data_public: generation.data_public.to_bytes().into(),
            })
        };
        let mut earlier = self.shared.generations.iter().map(of_generation).collect::<Result<Vec<_>>>()?;
        let current = earlier.pop().ok_or_else(|| Error::internal("there is no key generation"))?;
        Ok(WriterBundle {
            repository,
            generation: self.newest(),
            lineage,
            id_key: *self.shared.id_key.expose(),
            chunk_seed: *self.shared.chunk_seed.expose(),
            lineage_key: current.lineage_key,
            index_key: current.index_key,
            data_public: current.data_public,
            earlier,
            maintenance_publics: self.shared.maintenance_publics.iter().copied().map(HexKey).collect(),
        })
    }

    /// The generation that new sessions are written with.
    pub fn newest(&self) -> u32 {
        let held =
            u32::try_from(self.shared.generations.len()).expect("a key file holds a handful of generations");
        self.shared.base + held - 1
    }

    /// The id of contents.
    pub fn chunk_id(&self, contents: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(self.shared.id_key.expose(), contents).as_bytes())
    }

    /// A keyed hash for purposes other than contents; `context` keeps them apart.
    pub fn keyed_hash(&self, context: &str, material: &[&[u8]]) -> [u8; 32] {
        let key = self.shared.id_key.derive("carrack v1 other ids", context.as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(key.expose());
        for piece in material {
            hasher.update(&(piece.len() as u64).to_le_bytes());
            hasher.update(piece);
        }
        *hasher.finalize().as_bytes()
    }

    /// The seed of the chunker's gear table.
    pub fn chunk_seed(&self) -> &Key {
        &self.shared.chunk_seed
    }

    /// The key that a session's trees and records are sealed with. `Denied` for another lineage's session.
    pub fn session_metadata_key(&self, generation: u32, session: SessionName) -> Result<Key> {
        let lineage_key = self.generation(generation)?.lineage_key(session.lineage)?;
        Ok(lineage_key.derive("carrack v1 session metadata", session.to_string().as_bytes()))
    }

    /// The key that a session's footers and index segments are sealed with.
    pub fn session_index_key(&self, generation: u32, session: SessionName) -> Result<Key> {
        let index = &self.generation(generation)?.index;
        Ok(index.derive("carrack v1 session index", session.to_string().as_bytes()))
    }

    /// Seals a session's data key to the public key: only who holds the private one can open it.
    pub fn seal_data_key(
        &self,
        generation: u32,
        session: SessionName,
        key: &Key,
        world: &World,
    ) -> Result<Vec<u8>> {
        let recipient = &self.generation(generation)?.data_public;
        let (encapsulated, sealed) =
            hpke::single_shot_seal_with_rng::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, Kem>(
                &OpModeS::Base,
                recipient,
                DATA_KEY_INFO,
                key.expose(),
                session.to_string().as_bytes(),
                &mut WorldRng(world),
            )
            .map_err(|_| Error::internal("sealing the session's data key did not work"))?;
        let mut bytes = encapsulated.to_bytes().to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    /// `Denied` for a process that may only write: so that nothing is begun that would fail at every file.
    pub fn check_opens_data(&self) -> Result<()> {
        if self.can_read_data() { Ok(()) } else { Err(only_writes()) }
    }

    /// Opens a session's data key. `Denied` for a process that may only write.
    pub fn open_data_key(&self, generation: u32, session: SessionName, sealed: &[u8]) -> Result<Key> {
        let private = self.generation(generation)?.data_private.as_ref().ok_or_else(only_writes)?;
        let damaged = || Error::corrupt(format!("the data key in session {session} does not open"));
        if sealed.len() != SEALED_KEY_LENGTH {
            return Err(damaged());
        }
        let (encapsulated, ciphertext) = sealed.split_at(32);
        let encapsulated =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| damaged())?;
        let opened = hpke::single_shot_open::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, Kem>(
            &OpModeR::Base,
            private,
            &encapsulated,
            DATA_KEY_INFO,
            ciphertext,
            session.to_string().as_bytes(),
        )
        .map_err(|_| damaged())?;
        Ok(Key::new(<[u8; 32]>::try_from(opened.as_slice()).map_err(|_| damaged())?))
    }

    /// Signs what takes something out of view or condemns it. `Denied` for a process that may only write.
    pub fn sign_maintenance(&self, context: &str, message: &[u8]) -> Result<Vec<u8>> {
        let pair = self.maintenance_pair()?;
        Ok(pair.sign(&signed_message(context, message)).as_ref().to_vec())
    }

    /// Fails with kind `Denied` for a process that may only write.
    pub fn check_can_maintain(&self) -> Result<()> {
        self.maintenance_pair().map(|_pair| ())
    }

    fn maintenance_pair(&self) -> Result<&Ed25519KeyPair> {
        self.generation(self.newest())?.maintenance_private.as_ref().ok_or_else(|| {
            Error::denied("these keys can write to the repository, but not forget or delete")
                .with_hint("run this with the repository's password or root key")
        })
    }

    /// Signs what says what the repository is: `format`, and key files, which are judged before any key is held. So
    /// it is always the first generation that signs.
    pub fn sign_foundation(&self, context: &str, message: &[u8]) -> Result<Vec<u8>> {
        let first = self.generation(0)?.maintenance_private.as_ref().ok_or_else(only_writes)?;
        Ok(first.sign(&signed_message(context, message)).as_ref().to_vec())
    }

    /// The public key that belongs to [`Keys::sign_foundation`].
    pub fn foundation_public(&self) -> Option<&[u8; 32]> {
        self.shared.maintenance_publics.first()
    }

    /// Whether a maintenance signature is true, by any generation's key.
    pub fn verify_maintenance(&self, context: &str, message: &[u8], signature: &[u8]) -> bool {
        let message = signed_message(context, message);
        self.shared.maintenance_publics.iter().any(|public| {
            signature::UnparsedPublicKey::new(&signature::ED25519, public).verify(&message, signature).is_ok()
        })
    }

    /// Whether data can be opened: false for a mover's keys.
    pub fn can_read_data(&self) -> bool {
        self.shared.generations.iter().all(|generation| generation.data_private.is_some())
    }

    fn generation(&self, generation: u32) -> Result<&Generation> {
        let held = generation.checked_sub(self.shared.base);
        held.and_then(|index| self.shared.generations.get(index as usize)).ok_or_else(|| {
            Error::denied(format!("these keys do not hold key generation {generation}"))
                .with_hint("fetch the keys again: the repository's key was rotated")
        })
    }
}

const DATA_KEY_INFO: &[u8] = b"carrack v1 session data key";

fn only_writes() -> Error {
    Error::denied("these keys can write to the repository, but not open data")
        .with_hint("restore with the repository's password or root key")
}

fn signed_message(context: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(context.len() + 9 + message.len());
    bytes.extend_from_slice(&(context.len() as u64).to_le_bytes());
    bytes.extend_from_slice(context.as_bytes());
    bytes.extend_from_slice(message);
    bytes
}

fn public_key(bytes: &[u8; 32]) -> Result<PublicKey> {
    PublicKey::from_bytes(bytes).map_err(|_| Error::corrupt("the public data key is not a valid key"))
}

impl Generation {
    fn from_root(repository: RepositoryId, root: &Key) -> Result<Self> {
        let seed = root.derive("carrack v1 data key pair", &repository.0);
        let (data_private, data_public) = Kem::derive_keypair(seed.expose());
        let maintenance = root.derive("carrack v1 maintenance signature", &repository.0);
        let pair = SigningKey::new(&maintenance)?.0;
        Ok(Self {
            data_public,
            data_private: Some(data_private),
            metadata: LineageKeys::All(root.derive("carrack v1 metadata", &repository.0)),
            index: root.derive("carrack v1 index", &repository.0),
            maintenance_public: public_bytes(&pair),
            maintenance_private: Some(pair),
        })
    }

    fn lineage_key(&self, lineage: LineageId) -> Result<Key> {
        match &self.metadata {
            LineageKeys::All(key) => Ok(key.derive("carrack v1 lineage metadata", &lineage.0)),
            LineageKeys::One(own, key) if *own == lineage => Ok(key.clone()),
            LineageKeys::One(own, _) => Err(Error::denied(format!(
                "these keys are for the source {own} and cannot read the trees of {lineage}"
            ))),
        }
    }
}

/// A key pair that signs as one session.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// The pair that belongs to this seed.
    pub fn new(seed: &Key) -> Result<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .map(Self)
            .map_err(|_| Error::internal("no signing key could be made from its seed"))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        public_bytes(&self.0)
    }

    /// Signs a message for one purpose.
    pub fn sign(&self, context: &str, message: &[u8]) -> Vec<u8> {
        self.0.sign(&signed_message(context, message)).as_ref().to_vec()
    }
}

/// Whether the holder of `public` signed this message for this purpose.
pub fn verify_signature(public: &[u8; 32], context: &str, message: &[u8], signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ED25519, public)
        .verify(&signed_message(context, message), signature)
        .is_ok()
}

fn public_bytes(pair: &Ed25519KeyPair) -> [u8; 32] {
    pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
}

/// The injected randomness, in the form that HPKE asks for.
struct WorldRng<'a>(&'a World);

impl rand_core::TryRng for WorldRng<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(self.0.random()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(self.0.random()))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        self.0.entropy.fill(buffer);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for WorldRng<'_> {}
