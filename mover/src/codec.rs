//! Compress and seal, open and decompress: bytes in, bytes out.
//!
//! Every key seals with a counter that is never used twice, in a nonce of one domain byte, three zero bytes and
//! the counter. The associated data binds kind, session, counter, id, plain length and compression, but not the
//! pack: moving ciphertext to another pack is legal, exchanging it for other ciphertext is not.

use std::cell::RefCell;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{
    error::{Error, Result},
    format::{
        frame::{Compression, FrameKind, FramePlace, Suite},
        session::SessionName,
    },
    id::{ChunkId, PackId},
    secret::Key,
};

#[cfg(test)]
mod tests;

/// Bytes that sealing adds.
pub const TAG_LENGTH: usize = 16;

/// What a nonce is for; part of the nonce and of the associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Data frames.
    Data,
    /// Metadata frames.
    Metadata,
    /// Pack footers.
    Footer,
    /// The record in a session's end.
    Record,
    /// Index segments.
    Segment,
    /// Checkpoints.
    Checkpoint,
    /// Joined index segments.
    Joined,
}

impl Domain {
    /// How many there are.
    pub(crate) const COUNT: usize = 7;

    fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Metadata => 1,
            Self::Footer => 2,
            Self::Record => 3,
            Self::Segment => 4,
            Self::Checkpoint => 5,
            Self::Joined => 6,
        }
    }
}

impl From<FrameKind> for Domain {
    fn from(kind: FrameKind) -> Self {
        match kind {
            FrameKind::Data => Self::Data,
            FrameKind::Metadata => Self::Metadata,
        }
    }
}

/// One key, ready to seal and to open.
pub struct Cipher {
    key: LessSafeKey,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(…)")
    }
}

impl Cipher {
    /// Expands a key for a suite. The key is derived once more, so that no key ever serves two suites.
    pub fn new(suite: Suite, key: &Key) -> Self {
        let key = key.derive("carrack v1 sealing", &[suite.code()]);
        let algorithm = match suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key.expose()).expect("both suites take keys of 32 bytes");
        Self { key: LessSafeKey::new(key) }
    }

    /// Seals `buffer[from..]` where it is and appends the tag.
    pub fn seal(
        &self,
        domain: Domain,
        counter: u64,
        aad: &[u8],
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> Result<()> {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(domain, counter), Aad::from(aad), &mut buffer[from..])
            .map_err(|_| Error::internal("a buffer could not be sealed"))?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens what was sealed, in place; the answer is the plain part of `buffer`.
    pub fn open<'b>(
        &self,
        domain: Domain,
        counter: u64,
        aad: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b mut [u8]> {
        self.key
            .open_in_place(nonce(domain, counter), Aad::from(aad), buffer)
            .map_err(|_| Error::corrupt("the seal is broken"))
    }
}

fn nonce(domain: Domain, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[0] = domain.code();
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What the seal of a frame binds.
pub fn frame_aad(kind: FrameKind, place: &FramePlace) -> [u8; 71] {
    let mut aad = [0; 71];
    aad[0] = Domain::from(kind).code();
    aad[1..26].copy_from_slice(&place.session.to_bytes());
    aad[26..34].copy_from_slice(&place.counter.to_le_bytes());
    aad[34..66].copy_from_slice(&place.id.0);
    aad[66..70].copy_from_slice(&place.plain.to_le_bytes());
    aad[70] = place.compression.code();
    aad
}

/// What the seal of a footer, record, segment or checkpoint binds: domain and the session that wrote it.
pub fn object_aad(domain: Domain, session: SessionName) -> [u8; 26] {
    let mut aad = [0; 26];
    aad[0] = domain.code();
    aad[1..].copy_from_slice(&session.to_bytes());
    aad
}

/// What the seal of a footer binds: that it is the footer of this pack.
pub fn footer_aad(session: SessionName, pack: PackId) -> [u8; 42] {
    let mut aad = [0; 42];
    aad[..26].copy_from_slice(&object_aad(Domain::Footer, session));
    aad[26..].copy_from_slice(&pack.0);
    aad
}

/// The next length whose lowest bits are zero, as in Padmé: at most 12 % more, and only log log of the length shows.
pub fn padme(length: usize) -> usize {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let step = 1usize << exponent.saturating_sub(kept);
    length.next_multiple_of(step)
}

/// Seals a small structure with zstd and padding inside: counter, ciphertext, tag.
pub fn seal_object(
    cipher: &Cipher,
    domain: Domain,
    session: SessionName,
    counter: u64,
    plain: &[u8],
) -> Result<Vec<u8>> {
    seal_bound(cipher, domain, &object_aad(domain, session), counter, plain)
}

/// The same for a structure that is bound to more than its session.
pub fn seal_bound(
    cipher: &Cipher,
    domain: Domain,
    aad: &[u8],
    counter: u64,
    plain: &[u8],
) -> Result<Vec<u8>> {
    let mut out = counter.to_le_bytes().to_vec();
    out.extend_from_slice(&compress(plain, OBJECT_LEVEL)?);
    // How long a path is, or how many chunks a pack has, must not show.
    out.resize(8 + padme(out.len() - 8), 0);
    cipher.seal(domain, counter, aad, &mut out, 8)?;
    Ok(out)
}

/// Opens what `seal_object` made; the plain bytes are at most `limit` long.
pub fn open_object(
    cipher: &Cipher,
    domain: Domain,
    session: SessionName,
    sealed: &[u8],
    limit: usize,
) -> Result<Vec<u8>> {
    open_bound(cipher, domain, &object_aad(domain, session), sealed, limit)
}

/// Opens what `seal_bound` made; the plain bytes are at most `limit` long.
pub fn open_bound(
    cipher: &Cipher,
    domain: Domain,
    aad: &[u8],
    sealed: &[u8],
    limit: usize,
) -> Result<Vec<u8>> {
    let Some((counter, ciphertext)) = sealed.split_first_chunk::<8>() else {
        return Err(Error::corrupt("a sealed object is too short"));
    };
    let mut buffer = ciphertext.to_vec();
    let plain = unpadded(cipher.open(domain, u64::from_le_bytes(*counter), aad, &mut buffer)?)?;
    let length = content_size(plain)?;
    if length > limit as u64 {
        return Err(Error::corrupt(format!(
            "a sealed object unpacks to {length} bytes, {limit} are allowed"
        )));
    }
    let mut out = Vec::new();
    decompress(plain, length as usize, &mut out)?;
    Ok(out)
}

/// The zstd frame that zero bytes follow.
fn unpadded(plain: &[u8]) -> Result<&[u8]> {
    let length = zstd::zstd_safe::find_frame_compressed_size(plain).ok();
    match length.and_then(|length| plain.split_at_checked(length)) {
        Some((frame, padding)) if padding.iter().all(|byte| *byte == 0) => Ok(frame),
        _ => Err(Error::corrupt("a sealed object is not one compressed frame and padding")),
    }
}

/// Compression of small structures: they are few, so tighter than data.
const OBJECT_LEVEL: i32 = 5;

thread_local! {
    /// zstd contexts are large and slow to make; each thread keeps one for each direction.
    static COMPRESSORS: RefCell<Vec<(Effort, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(Vec::new()) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// How hard a frame is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As hard as a level of zstd.
    Level(i32),
    /// Between levels 2 and 3: how much faster than level 3, `cargo bench -p carrack-benches --bench codec` shows, and
    /// `docs/design/0001-engine.md` what it costs in bytes.
    Quick,
}

/// Contexts that a thread keeps, each about a megabyte.
const COMPRESSORS_KEPT: usize = 2;

impl Effort {
    fn compressor(self) -> std::io::Result<zstd::bulk::Compressor<'static>> {
        use zstd::zstd_safe::CParameter;
        // Tables that leave room for the data in a core's own cache: zstd's choice for frames of 1 MiB does not.
        const HASH_LOG: u32 = 16;
        match self {
            Self::Level(3) => {
                let mut compressor = zstd::bulk::Compressor::new(3)?;
                compressor.set_parameter(CParameter::HashLog(HASH_LOG))?;
                Ok(compressor)
            }
            Self::Level(level) => zstd::bulk::Compressor::new(level),
            Self::Quick => {
                let mut compressor = zstd::bulk::Compressor::new(2)?;
                compressor.set_parameter(CParameter::HashLog(HASH_LOG))?;
                compressor.set_parameter(CParameter::MinMatch(5))?;
                Ok(compressor)
            }
        }
    }
}

/// Compresses into a new buffer, as one zstd frame that names its length.
pub fn compress(plain: &[u8], level: i32) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    compress_into(plain, Effort::Level(level), &mut out)?;
    Ok(out)
}

/// Appends the compressed bytes to `out`.
pub fn compress_into(plain: &[u8], effort: Effort, out: &mut Vec<u8>) -> Result<()> {
    let broken = |error: std::io::Error| Error::internal("zstd could not compress").with_source(error);
    COMPRESSORS.with_borrow_mut(|kept| {
        let index = match kept.iter().position(|(of, _)| *of == effort) {
            Some(index) => index,
            None => {
                kept.truncate(COMPRESSORS_KEPT - 1);
                kept.insert(0, (effort, effort.compressor().map_err(broken)?));
                0
            }
        };
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(plain.len()), 0);
        let length = kept[index].1.compress_to_buffer(plain, &mut out[start..]).map_err(broken)?;
        out.truncate(start + length);
        Ok(())
    })
}

/// The length that a zstd frame says it unpacks to; a frame that does not say is not ours.
fn content_size(compressed: &[u8]) -> Result<u64> {
    zstd::zstd_safe::get_frame_content_size(compressed)
        .ok()
        .flatten()
        .ok_or_else(|| Error::corrupt("compressed bytes do not say their length"))
}

/// Decompresses exactly `length` bytes into `out`, which is cleared first. Never allocates more than that.
pub fn decompress(compressed: &[u8], length: usize, out: &mut Vec<u8>) -> Result<()> {
    let broken = |error: std::io::Error| Error::corrupt("compressed bytes are damaged").with_source(error);
    DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(zstd::bulk::Decompressor::new().map_err(broken)?);
        }
        let decompressor = kept.as_mut().expect("it was just put there");
        out.clear();
        out.resize(length, 0);
        let written = decompressor.decompress_to_buffer(compressed, &mut out[..]).map_err(broken)?;
        if written != length {
            return Err(Error::corrupt(format!(
                "{written} bytes came out of compression, {length} were promised"
            )));
        }
        Ok(())
    })
}

/// The id of a frame: a keyed hash over the ids and lengths of its chunks.
pub fn frame_id(keys: &crate::keys::Keys, chunks: &[(ChunkId, u32)]) -> ChunkId {
    let mut bytes = Vec::with_capacity(16 + chunks.len() * 36);
    bytes.extend_from_slice(b"carrack v1 frame");
    for (id, length) in chunks {
        bytes.extend_from_slice(&id.0);
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    keys.chunk_id(&bytes)
}

/// Opens one frame from its stored bytes into `out` (cleared first).
pub fn open_frame(
    cipher: &Cipher,
    kind: FrameKind,
    place: &FramePlace,
    stored: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let named = |error: Error| error.context(format!("frame at {} of pack {}", place.offset, place.pack));
    let plain = cipher.open(kind.into(), place.counter, &frame_aad(kind, place), stored).map_err(named)?;
    match place.compression {
        Compression::Zstd => decompress(plain, place.plain as usize, out).map_err(named),
        Compression::Stored if plain.len() == place.plain as usize => {
            out.clear();
            out.extend_from_slice(plain);
            Ok(())
        }
        Compression::Stored => Err(named(Error::corrupt("its length is not the one that was promised"))),
    }
}
