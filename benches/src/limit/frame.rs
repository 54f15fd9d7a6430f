//! Frames: neighbouring chunks compressed and sealed together, in files of 32 MiB.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use carrack_mover::codec::{self, Effort};
use carrack_mover::limits;
use carrack_mover::sys::file::write_full_at;

use super::{Cipher, Id, KEY, Place, next};

/// Plain bytes in a frame.
const FRAME: usize = 1 << 20;
/// Bytes in an output file.
const PACK: u64 = 32 << 20;
/// Compression level that the engine leaves only where less costs next to nothing.
const LEVEL: i32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) id: Id,
    pub(super) length: u32,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct Frame {
    pack: u64,
    offset: u64,
    pub(super) stored: u32,
    plain: u32,
    compressed: bool,
    pub(super) chunks: Vec<Chunk>,
}

fn key(cipher: Cipher) -> Result<LessSafeKey> {
    let algorithm = match cipher {
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::Chacha20Poly1305 => &CHACHA20_POLY1305,
    };
    let key = UnboundKey::new(algorithm, &KEY).map_err(|_| anyhow!("make the cipher's key"))?;
    Ok(LessSafeKey::new(key))
}

/// File and offset name a frame once in a store's life.
fn nonce(pack: u64, offset: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&pack.to_le_bytes());
    bytes[8..].copy_from_slice(&(offset as u32).to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn path(dir: &Path, pack: u64) -> PathBuf {
    dir.join(format!("pack-{pack:06}"))
}

/// Seals one thread's frames and writes its files.
pub(super) struct Writer<'a> {
    key: LessSafeKey,
    dir: &'a Path,
    next_pack: &'a AtomicU64,
    output: Option<(u64, u64, File)>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    chunks: Vec<Chunk>,
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(cipher: Cipher, dir: &'a Path, next_pack: &'a AtomicU64) -> Result<Self> {
        Ok(Self {
            key: key(cipher)?,
            dir,
            next_pack,
            output: None,
            plain: Vec::with_capacity(FRAME + limits::CHUNK_MAX as usize),
            sealed: Vec::new(),
            chunks: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, id: Id, bytes: &[u8], place: Place, frames: &mut Vec<Frame>) -> Result<()> {
        self.plain.extend_from_slice(bytes);
        self.chunks.push(Chunk { id, length: bytes.len() as u32, place });
        if self.plain.len() >= FRAME { self.flush(frames) } else { Ok(()) }
    }

    pub(super) fn flush(&mut self, frames: &mut Vec<Frame>) -> Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        self.sealed.clear();
        codec::compress_into(&self.plain, Effort::Level(LEVEL), &mut self.sealed)?;
        let compressed = self.sealed.len() < self.plain.len();
        if !compressed {
            self.sealed.clear();
            self.sealed.extend_from_slice(&self.plain);
        }
        let (pack, offset, file) = match self.output.take() {
            Some((pack, offset, file)) if offset < PACK => (pack, offset, file),
            _ => {
                let pack = next(self.next_pack);
                let path = path(self.dir, pack);
                (pack, 0, File::create(&path).with_context(|| format!("create {}", path.display()))?)
            }
        };
        self.key
            .seal_in_place_append_tag(nonce(pack, offset), Aad::empty(), &mut self.sealed)
            .map_err(|_| anyhow!("seal a frame"))?;
        write_full_at(&file, &self.sealed, offset).context("write a pack of the limit's store")?;
        frames.push(Frame {
            pack,
            offset,
            stored: self.sealed.len() as u32,
            plain: self.plain.len() as u32,
            compressed,
            chunks: std::mem::take(&mut self.chunks),
        });
        self.output = Some((pack, offset + self.sealed.len() as u64, file));
        self.plain.clear();
        Ok(())
    }
}

/// Opens frames for one thread.
pub(super) struct Opener<'a> {
    key: LessSafeKey,
    codec: zstd::bulk::Decompressor<'static>,
    dir: &'a Path,
    input: Option<(u64, File)>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(cipher: Cipher, dir: &'a Path) -> Result<Self> {
        Ok(Self {
            key: key(cipher)?,
            codec: zstd::bulk::Decompressor::new()?,
            dir,
            input: None,
            sealed: Vec::new(),
            plain: Vec::new(),
        })
    }

    pub(super) fn open(&mut self, frame: &Frame) -> Result<&[u8]> {
        let file = match self.input.take() {
            Some((pack, file)) if pack == frame.pack => file,
            _ => {
                let path = path(self.dir, frame.pack);
                File::open(&path).with_context(|| format!("open {}", path.display()))?
            }
        };
        self.sealed.resize(frame.stored as usize, 0);
        file.read_exact_at(&mut self.sealed, frame.offset)?;
        self.input = Some((frame.pack, file));
        let content = self
            .key
            .open_in_place(nonce(frame.pack, frame.offset), Aad::empty(), &mut self.sealed)
            .map_err(|_| anyhow!("a frame of the limit's own store does not open"))?;
        if !frame.compressed {
            return Ok(content);
        }
        self.plain.clear();
        self.plain.reserve(frame.plain as usize);
        self.codec.decompress_to_buffer(content, &mut self.plain)?;
        Ok(&self.plain)
    }
}
