//! A secret that leaves a pod through its status, where many may read it.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};

const KEY_BYTES: usize = 32;

/// Of compression: the text is short.
const LEVEL: i32 = 19;

/// Most bytes of a secret.
const SECRET_LIMIT: usize = 64 << 10;

/// A key that only the controller and one pod know.
pub struct SealKey([u8; KEY_BYTES]);

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not 64 hexadecimal digits.
    #[error("the key of the seal is not 64 hexadecimal digits")]
    Key,
    /// Another key, or other bytes.
    #[error("the seal does not open: it was made with another key, or is damaged")]
    Broken,
    /// The source of randomness failed.
    #[error("there is no randomness to make a seal with")]
    Randomness,
    /// There is none to compress in.
    #[error("there is no memory to make a seal in")]
    Memory,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// A new one.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| SealError::Randomness)?;
        Ok(Self(key))
    }

    /// From the text of [`Self::to_text`].
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let bytes = hex::decode(text.trim()).map_err(|_| SealError::Key)?;
        bytes.try_into().map(Self).map_err(|_| SealError::Key)
    }

    /// As 64 hexadecimal digits. A secret.
    pub fn to_text(&self) -> String {
        hex::encode(self.0)
    }

    /// Seals a secret into printable text. It is compressed before: secrets in hexadecimal digits take half of it, and
    /// a termination message is short.
    pub fn seal(&self, secret: &[u8]) -> Result<String, SealError> {
        let mut bytes = zstd::bulk::compress(secret, LEVEL).map_err(|_| SealError::Memory)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(|_| SealError::Key)?;
        let nonce =
            key.seal_in_place_append_tag(Aad::empty(), &mut bytes).map_err(|_| SealError::Randomness)?;
        Ok(hex::encode([nonce.as_ref().as_slice(), &bytes].concat()))
    }

    /// Opens what [`Self::seal`] made.
    pub fn open(&self, sealed: &str) -> Result<Vec<u8>, SealError> {
        let bytes = hex::decode(sealed).map_err(|_| SealError::Broken)?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN).ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(|_| SealError::Key)?;
        let mut rest = rest.to_vec();
        let opened = key.open_in_place(nonce, Aad::empty(), &mut rest).map_err(|_| SealError::Broken)?;
        zstd::bulk::decompress(opened, SECRET_LIMIT).map_err(|_| SealError::Broken)
    }
}
