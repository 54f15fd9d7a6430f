//! Secrets: types that cannot be printed and that are wiped when dropped.

use std::fmt;

use zeroize::{Zeroize as _, ZeroizeOnDrop};

/// A 256-bit key.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// Takes over the bytes of a key.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives another key for one purpose; `context` names the purpose and never repeats.
    pub fn derive(&self, context: &str, material: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        hasher.update(material);
        let mut bytes = *hasher.finalize().as_bytes();
        let key = Self(bytes);
        bytes.zeroize();
        key
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What a person types to open a repository.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// Takes over the bytes of a passphrase.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the key derivation.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}
