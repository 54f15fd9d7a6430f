//! What the machine could do at best: the same algorithms on all cores with nothing around them.
//!
//! Reads, cuts (Gear, 16/64/256 KiB), hashes (keyed BLAKE3), drops what is known, compresses frames of about
//! 1 MiB of neighbouring chunks (zstd level 3), encrypts (AES-256-GCM or ChaCha20-Poly1305 of aws-lc), writes
//! files of 32 MiB; and the way back. The cut, the call of zstd and the way of writing past the page cache are the
//! engine's own, as slower ones would flatter the engine; everything else is written here, so that nothing of the
//! engine's pipeline is in what it is compared with. No index, no trees, no attributes, no fsync, no key derivation:
//! whatever a real tool pays for those shows as its distance from this.

mod frame;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use carrack_mover::chunker::{Chunker, CutSizes};
use carrack_mover::secret::Key;
use carrack_mover::sys::file::write_full_at;
use rayon::prelude::*;

use crate::walk;
use frame::{Frame, Opener, Writer};

/// Shards of the set of known chunks, so that threads seldom wait for each other.
const SHARDS: usize = 64;

/// Ciphers that the engine offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cipher {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
}

pub(crate) type Id = [u8; 32];

/// Where a chunk belongs: file number and offset in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

/// A store with nothing but frames, and the list of what is where, kept in memory.
#[derive(Debug)]
pub struct Limit {
    dir: PathBuf,
    cipher: Cipher,
    chunker: Chunker,
    known: Vec<Mutex<HashSet<Id>>>,
    frames: Vec<Frame>,
    repeats: Vec<(Id, Place)>,
    files: Vec<(PathBuf, u64)>,
    directories: Vec<PathBuf>,
    next_pack: AtomicU64,
}

pub(crate) const KEY: [u8; 32] = [7; 32];

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limit {
    /// An empty store in `dir`, which is made anew.
    pub fn new(dir: &Path, cipher: Cipher) -> Result<Self> {
        crate::dataset::remove(dir)?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            cipher,
            chunker: Chunker::new(&Key::new(KEY), CutSizes::default()),
            known: (0..SHARDS).map(|_| Mutex::default()).collect(),
            frames: Vec::new(),
            repeats: Vec::new(),
            files: Vec::new(),
            directories: Vec::new(),
            next_pack: AtomicU64::new(0),
        })
    }

    /// Reads, cuts and hashes all of `source` and stores what is new: the limit of a first backup, and of
    /// one that finds changes by content.
    pub fn backup(&mut self, source: &Path) -> Result<()> {
        let walk = walk::walk(source)?;
        let mut files = walk.files;
        files.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let units = read::units(&files);
        let results: Vec<read::UnitResult> = units
            .par_iter()
            .map_init(
                || Writer::new(self.cipher, &self.dir, &self.next_pack),
                |writer, unit| {
                    let writer = writer.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?;
                    read::unit(unit, &files, &self.chunker, &self.known, writer)
                },
            )
            .collect::<Result<_>>()?;
        self.repeats.clear();
        for (mut frames, mut repeats) in results {
            self.frames.append(&mut frames);
            self.repeats.append(&mut repeats);
        }
        let relative = |path: &Path| path.strip_prefix(source).unwrap_or(path).to_path_buf();
        self.files = files.iter().map(|file| (relative(&file.path), file.size)).collect();
        self.directories = walk.directories.iter().map(|dir| relative(dir)).collect();
        Ok(())
    }

    /// The limit of an unchanged backup: one lstat per entry.
    pub fn unchanged(source: &Path) -> Result<u64> {
        let walk = walk::walk(source)?;
        Ok((walk.files.len() + walk.directories.len() + walk.others.len()) as u64)
    }

    /// Reads, decrypts, decompresses and hashes every frame.
    pub fn check(&self) -> Result<()> {
        self.each_frame(|_, _| Ok(()))
    }

    /// Creates the files of the last backup in `target` and writes every byte that is not in a hole.
    ///
    /// Correct only when nothing was overwritten since the first backup; the runner restores from a store
    /// that holds that one alone.
    pub fn restore(&self, target: &Path) -> Result<()> {
        for dir in &self.directories {
            fs::create_dir_all(target.join(dir)).with_context(|| format!("create {}", dir.display()))?;
        }
        let mut repeats: HashMap<Id, Vec<Place>> = HashMap::new();
        for (id, place) in &self.repeats {
            repeats.entry(*id).or_default().push(*place);
        }
        self.files.par_iter().try_for_each(|(path, size)| -> Result<()> {
            // Files without a byte of data have no frame that would create them; sparse ones need their length.
            if *size == 0 || *size > read::SMALL {
                let path = target.join(path);
                let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
                file.set_len(*size)?;
            }
            Ok(())
        })?;
        self.each_frame(|frame, plain| {
            let mut sink = Sink { limit: self, target, open: None, run: None };
            let mut at = 0;
            for chunk in &frame.chunks {
                let range = at..at + chunk.length as usize;
                at = range.end;
                sink.put(plain, range.clone(), chunk.place)?;
                for place in repeats.get(&chunk.id).map_or(&[][..], Vec::as_slice) {
                    sink.put(plain, range.clone(), *place)?;
                }
            }
            sink.flush(plain)
        })
    }

    /// Bytes in the store.
    pub fn stored(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.stored)).sum()
    }

    fn each_frame(&self, then: impl Fn(&Frame, &[u8]) -> Result<()> + Sync) -> Result<()> {
        self.frames.par_iter().try_for_each_init(
            || Opener::new(self.cipher, &self.dir),
            |opener, frame| {
                let opener = opener.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?;
                let plain = opener.open(frame)?;
                let mut at = 0;
                for chunk in &frame.chunks {
                    let end = at + chunk.length as usize;
                    ensure!(
                        blake3::keyed_hash(&KEY, &plain[at..end]) == chunk.id,
                        "a chunk of the limit's own store differs"
                    );
                    at = end;
                }
                then(frame, plain)
            },
        )
    }
}

/// Writes what a frame holds, neighbours in one go.
#[derive(Debug)]
struct Sink<'a> {
    limit: &'a Limit,
    target: &'a Path,
    open: Option<(u32, File)>,
    run: Option<(Place, std::ops::Range<usize>)>,
}

impl Sink<'_> {
    fn put(&mut self, plain: &[u8], range: std::ops::Range<usize>, place: Place) -> Result<()> {
        if let Some((first, run)) = &mut self.run
            && first.file == place.file
            && run.end == range.start
            && first.offset + run.len() as u64 == place.offset
        {
            run.end = range.end;
            return Ok(());
        }
        self.flush(plain)?;
        self.run = Some((place, range));
        Ok(())
    }

    fn flush(&mut self, plain: &[u8]) -> Result<()> {
        let Some((place, range)) = self.run.take() else { return Ok(()) };
        if self.open.as_ref().is_none_or(|(number, _)| *number != place.file) {
            let path = self.target.join(&self.limit.files[place.file as usize].0);
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            self.open = Some((place.file, file.with_context(|| format!("create {}", path.display()))?));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        Ok(write_full_at(file, &plain[range], place.offset)?)
    }
}

/// True when `id` was not known yet; it is from now on.
pub(crate) fn learn(known: &[Mutex<HashSet<Id>>], id: &Id) -> bool {
    lock(&known[usize::from(id[0]) % SHARDS]).insert(*id)
}

pub(crate) fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}
