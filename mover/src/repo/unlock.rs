//! Key files: a passphrase or a secret opens the root keys.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize as _;

use super::key_files::{self, KeyFiles};
use crate::{
    chunker::CutSizes,
    clock::World,
    error::{Error, ErrorKind, Result},
    format::records::{Generations, KeyDerivation, KeyFile, RepositoryFormat},
    id::{RandomId, RepositoryId},
    keys::{Keys, WriterBundle},
    secret::{Key, Passphrase},
    store::{ObjectStore, Put},
    sys::memory::expect_filling,
};

#[cfg(test)]
mod tests;

/// What opens a repository.
#[derive(Debug, Clone)]
pub enum Unlock {
    /// Something a person types.
    Passphrase(Passphrase),
    /// 256 random bits.
    Secret(Key),
    /// A mover's keys: they can write one source's backups and not read data.
    Bundle(Box<WriterBundle>),
}

/// How a repository is made.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// How files are cut.
    pub cut: CutSizes,
    /// What people call the first key.
    pub label: String,
    /// Memory of Argon2id in KiB.
    pub kdf_memory_kib: u32,
    /// Passes of Argon2id.
    pub kdf_passes: u32,
    /// Lanes of Argon2id.
    pub kdf_lanes: u32,
}

impl Default for CreateOptions {
    /// 64 MiB in four lanes: what a wrong guess costs, for some tens of milliseconds at each opening.
    fn default() -> Self {
        Self {
            cut: CutSizes::default(),
            label: String::new(),
            kdf_memory_kib: 64 << 10,
            kdf_passes: 1,
            kdf_lanes: 4,
        }
    }
}

/// The most memory that a key file may ask for, in KiB: a hostile one must not take the machine.
const KDF_MEMORY_LIMIT_KIB: u32 = 1 << 20;
/// The most passes that a key file may ask for.
const KDF_PASSES_LIMIT: u32 = 64;
/// The most lanes that a key file may ask for.
const KDF_LANES_LIMIT: u32 = 64;
/// Keys that a repository has at most: each costs whoever opens it some tens of milliseconds. More than that, as several
/// that add at once may leave, are tried all the same, so that nobody is shut out by the keys of others.
pub(super) const KEYS_LIMIT: usize = 100;
const NONCE_LENGTH: usize = 12;

/// Wraps the roots and stores the key file under a new name.
pub(super) async fn add_key(
    store: &dyn ObjectStore,
    world: &World,
    repository: RepositoryId,
    unlock: &Unlock,
    options: &CreateOptions,
    signed: (&[Key], &Keys),
) -> Result<RandomId> {
    let id = RandomId(world.random());
    match put_key(store, world, (repository, id), unlock, options, signed).await? {
        Put::Created => Ok(id),
        Put::Exists => Err(Error::internal("a random name was taken")),
    }
}

/// The same under this name, unless it is taken.
pub(super) async fn put_key(
    store: &dyn ObjectStore,
    world: &World,
    (repository, id): (RepositoryId, RandomId),
    unlock: &Unlock,
    options: &CreateOptions,
    (roots, signer): (&[Key], &Keys),
) -> Result<Put> {
    let name = format!("{}{id}", key_files::FOLDER);
    let salt = world.random();
    let derivation = match unlock {
        Unlock::Passphrase(_) => KeyDerivation::Argon2id {
            salt,
            memory_kib: options.kdf_memory_kib,
            passes: options.kdf_passes,
            lanes: options.kdf_lanes,
        },
        Unlock::Secret(_) => KeyDerivation::Secret { salt },
        Unlock::Bundle(_) => {
            return Err(Error::invalid("a mover's keys cannot open a repository for others"));
        }
    };
    let wrapping = derive(&derivation, unlock)?
        .ok_or_else(|| Error::internal("a derivation that fits the secret did not apply"))?;
    let file = KeyFile {
        version: 1,
        label: options.label.clone(),
        created: world.clock.now(),
        repository: Some(repository),
        generations: Some(generations(&name, repository, roots.len(), signer)?),
        commitment: commitment(&wrapping, repository),
        sealed_roots: seal_roots(&wrapping, repository, roots, world)?,
        derivation,
    };
    let body = key_files::encode(&name, &file, &Keys::from_roots(repository, roots)?)?;
    store.put_if_absent(&name, body.into()).await
}

/// The id of the key that the next rotation stores. Whoever rotates the same keys takes the same one (N2): else the put of a
/// rotation that seemed to fail could land after that of the next, and there would be two newest keys.
pub(super) fn rotation_id(newest: &Key) -> RandomId {
    let derived = newest.derive("carrack v1 rotation", &[]);
    let mut id = RandomId::default();
    let length = id.0.len();
    id.0.copy_from_slice(&derived.expose()[..length]);
    id
}

fn generations(name: &str, repository: RepositoryId, count: usize, signer: &Keys) -> Result<Generations> {
    let count = u32::try_from(count)
        .map_err(|error| Error::internal("too many generations of keys").with_source(error))?;
    let signature = signer.sign_maintenance(name, &Generations::statement(repository, count))?;
    Ok(Generations { count, signature })
}

/// How many generations a key file opens, if somebody says so who held one of these.
pub(super) fn signed_generations(
    keys: &Keys,
    name: &str,
    repository: RepositoryId,
    file: &KeyFile,
) -> Option<u32> {
    let said = file.generations.as_ref()?;
    let statement = Generations::statement(repository, said.count);
    keys.verify_maintenance(name, &statement, &said.signature).then_some(said.count)
}

/// Opens the keys with whatever somebody has.
pub(super) fn open_keys(
    store: &dyn ObjectStore,
    format: &RepositoryFormat,
    files: &KeyFiles,
    unlock: &Unlock,
) -> Result<Keys> {
    let keys = match unlock {
        Unlock::Bundle(bundle) if bundle.repository != format.repository => {
            return Err(Error::denied("the mover's keys are for another repository"));
        }
        Unlock::Bundle(bundle) => Keys::from_bundle(bundle)?,
        _ => {
            let roots = open_root_keys(store, format, files, unlock)?;
            let keys = Keys::from_roots(format.repository, &roots)?;
            refuse_older(store, format, files, (&keys, &roots))?;
            keys
        }
    };
    // Whoever replaces both the object and its signature names a key of his own.
    if keys.foundation_public() == Some(&format.maintenance_public) {
        return Ok(keys);
    }
    Err(Error::corrupt(format!("the object `format` of {} is not this repository's own", store.describe()))
        .with_hint("bring that object back from a copy, and look who can write to the store"))
}

/// A key of before a rotation that did not come to removing it would not see what was written since. What a later program
/// says of its key this one cannot read, but that of a rotation has a name that these keys know (N2).
fn refuse_older(
    store: &dyn ObjectStore,
    format: &RepositoryFormat,
    files: &KeyFiles,
    (keys, roots): (&Keys, &[Key]),
) -> Result<()> {
    let rotated = Error::denied(format!(
        "the keys of {} were rotated: this one opens nothing any more",
        store.describe()
    ));
    let next = roots.last().map(|newest| format!("{}{}", key_files::FOLDER, rotation_id(newest)));
    if let Some(name) = next.filter(|name| files.newer.contains_key(name)) {
        let hint = format!("use a newer carrack, with the password or secret of the object {name}");
        return Err(rotated.with_hint(hint));
    }
    let later = |(name, file): &(&String, &KeyFile)| {
        let count = signed_generations(keys, name, format.repository, file);
        count.is_some_and(|count| usize::try_from(count).is_ok_and(|count| count > roots.len()))
    };
    match files.proven.iter().find(later) {
        None => Ok(()),
        Some((name, _)) => Err(rotated.with_hint(format!("use the password or secret of the object {name}"))),
    }
}

/// Opens the root keys: tries every key file that the repository has signed, and no other.
pub(super) fn open_root_keys(
    store: &dyn ObjectStore,
    format: &RepositoryFormat,
    files: &KeyFiles,
    unlock: &Unlock,
) -> Result<Vec<Key>> {
    let (mut damaged, mut opened): (_, Option<Vec<Key>>) = (None, None);
    for (name, file) in &files.proven {
        match open_file(name, file, format.repository, unlock) {
            // After a rotation that was broken off the same password may fit two: the later has more roots.
            Ok(Some(roots)) if opened.as_ref().is_none_or(|opened| opened.len() < roots.len()) => {
                opened = Some(roots);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Internal => return Err(error),
            Err(error) => damaged = Some(error.in_one_line()),
        }
    }
    if let Some(roots) = opened {
        return Ok(roots);
    }
    if let (None, Some((name, version))) = (&damaged, files.newer.first_key_value()) {
        return Err(match files.proven.is_empty() {
            true => key_files::unknown_version(name, *version).context("there is no other key"),
            false => does_not_fit_or_is_newer(store, unlock, name),
        });
    }
    match damaged.or_else(|| files.unproven.values().next().map(Error::in_one_line)) {
        Some(unreadable) if files.proven.is_empty() => {
            Err(Error::corrupt(format!("no key of {} can be believed: {unreadable}", store.describe()))
                .with_hint("bring back `format` and the objects below keys/ from a copy of the repository"))
        }
        Some(unreadable) => Err(Error::corrupt(unreadable)
            .context("no other key fits, and one key cannot be read")
            .with_hint("check the password; if it is right, bring that object back from a copy")),
        None if files.proven.is_empty() => Err(Error::corrupt(format!("{} has no keys", store.describe()))
            .with_hint("bring back the objects below keys/ from a copy of the repository")),
        None => Err(does_not_fit(store, unlock)),
    }
}

fn does_not_fit(store: &dyn ObjectStore, unlock: &Unlock) -> Error {
    let (what, hint) = match unlock {
        Unlock::Secret(_) => ("the secret does not open", "check --key-file or CARRACK_KEY_FILE"),
        _ => (
            "wrong password for",
            "check CARRACK_PASSWORD, CARRACK_PASSWORD_FILE or CARRACK_PASSWORD_COMMAND",
        ),
    };
    Error::denied(format!("{what} the repository at {}", store.describe())).with_hint(hint)
}

/// The same where there is a key that this program cannot try.
fn does_not_fit_or_is_newer(store: &dyn ObjectStore, unlock: &Unlock, name: &str) -> Error {
    let error = does_not_fit(store, unlock);
    let check = error.hint().unwrap_or_default();
    let hint = format!("{check}; if it is right, it may be that of the object {name}: use a newer carrack");
    error.with_hint(hint)
}

pub(super) fn open_file(
    name: &str,
    file: &KeyFile,
    repository: RepositoryId,
    unlock: &Unlock,
) -> Result<Option<Vec<Key>>> {
    let Some(wrapping) = derive(&file.derivation, unlock)? else { return Ok(None) };
    if commitment(&wrapping, repository) != file.commitment {
        return Ok(None);
    }
    open_roots(&wrapping, repository, &file.sealed_roots).map(Some).ok_or_else(|| {
        Error::corrupt(format!("object {name}: the password fits, but the keys in it are damaged"))
    })
}

/// The wrapping key; none if the file is for another kind of secret.
fn derive(derivation: &KeyDerivation, unlock: &Unlock) -> Result<Option<Key>> {
    match (derivation, unlock) {
        (KeyDerivation::Argon2id { salt, memory_kib, passes, lanes }, Unlock::Passphrase(passphrase)) => {
            let bounded = *memory_kib <= KDF_MEMORY_LIMIT_KIB
                && *passes <= KDF_PASSES_LIMIT
                && *lanes <= KDF_LANES_LIMIT;
            let parameters =
                argon2::Params::new(*memory_kib, *passes, *lanes, Some(32)).ok().filter(|_| bounded);
            let parameters = parameters.ok_or_else(|| {
                Error::corrupt(format!("a key asks for {memory_kib} KiB, {passes} passes, {lanes} lanes"))
            })?;
            let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
            let mut key = [0; 32];
            let mut memory = Vec::with_capacity(argon.params().block_count());
            expect_filling(memory.spare_capacity_mut());
            memory.resize(argon.params().block_count(), argon2::Block::default());
            argon
                .hash_password_into_with_memory(passphrase.expose(), salt, &mut key, &mut memory[..])
                .map_err(|error| Error::internal("Argon2id did not work").with_source(error.to_string()))?;
            let wrapping = Key::new(key);
            key.zeroize();
            Ok(Some(wrapping))
        }
        (KeyDerivation::Secret { salt }, Unlock::Secret(secret)) => {
            Ok(Some(secret.derive("carrack v1 secret", salt)))
        }
        _ => Ok(None),
    }
}

fn commitment(wrapping: &Key, repository: RepositoryId) -> [u8; 32] {
    *wrapping.derive("carrack v1 key commitment", &repository.0).expose()
}

fn wrapping_cipher(wrapping: &Key) -> LessSafeKey {
    let key = wrapping.derive("carrack v1 key wrapping", &[]);
    let key = UnboundKey::new(&aead::CHACHA20_POLY1305, key.expose());
    LessSafeKey::new(key.expect("ChaCha20-Poly1305 takes keys of 32 bytes"))
}

fn seal_roots(wrapping: &Key, repository: RepositoryId, roots: &[Key], world: &World) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_LENGTH] = world.random();
    let mut plain: Vec<u8> = roots.iter().flat_map(|root| *root.expose()).collect();
    let tag = wrapping_cipher(wrapping)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(repository.0), &mut plain)
        .map_err(|_| Error::internal("the root keys could not be sealed"))?;
    Ok([&nonce[..], &plain, tag.as_ref()].concat())
}

fn open_roots(wrapping: &Key, repository: RepositoryId, sealed: &[u8]) -> Option<Vec<Key>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
    let mut buffer = ciphertext.to_vec();
    let plain = wrapping_cipher(wrapping)
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(repository.0), &mut buffer)
        .ok()?;
    let (roots, rest) = plain.as_chunks::<32>();
    let roots: Vec<Key> = roots.iter().map(|root| Key::new(*root)).collect();
    let whole = rest.is_empty() && !roots.is_empty();
    buffer.zeroize();
    whole.then_some(roots)
}
