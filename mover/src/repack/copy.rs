//! Copies sealed frames from pack to pack.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::RepackReport;
use crate::{
    cancel::Cancel,
    codec::{self, Cipher},
    error::{Error, ErrorKind, Result},
    format::{
        frame::FrameKind,
        pack::{Footer, FooterFrame},
        records::Moved,
        session::{SessionKeyInfo, SessionName},
    },
    id::{ChunkId, PackId},
    limits,
    monitor::{Monitor, Problem, Progress},
    pipeline::{bridge::Bridge, packer::Packer},
    repo::{Repository, Session},
    store::ByteRange,
};

#[cfg(test)]
mod tests;

/// Bytes that are read from a pack at once, and bytes between two frames that are rather read than asked around.
const RANGE_BYTES: u64 = 8 << 20;
const RANGE_GAP_BYTES: u64 = 256 << 10;
/// Pack buffers that are used again: one is filled while one is under way.
const BUFFERS_KEPT: usize = 1;
/// Ciphers that are kept, about 500 bytes each.
const CIPHERS_KEPT: usize = 4096;

/// Moves frames within one session.
pub(super) struct Copier {
    repository: Repository,
    session: Arc<Session>,
    memory_bytes: u64,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
}

/// What was copied.
pub(super) struct Copied {
    pub(super) report: RepackReport,
    pub(super) moved: Vec<Moved>,
    pub(super) indexed: Vec<(ChunkId, PackId)>,
}

/// Where copies go, and the keys they were checked with.
struct Run {
    bridge: Arc<Bridge>,
    data: Packer,
    metadata: Packer,
    ciphers: HashMap<(SessionName, bool), Arc<Cipher>>,
    moved: Vec<Moved>,
}

impl Copier {
    pub(super) fn new(
        repository: Repository,
        session: Arc<Session>,
        memory_bytes: u64,
        monitor: Arc<dyn Monitor>,
        cancel: Cancel,
    ) -> Self {
        Self { repository, session, memory_bytes, monitor, cancel }
    }

    /// Copies the frames at these offsets, until so many have been copied. Runs on a thread of its own.
    pub(super) fn run(
        &self,
        wanted: BTreeMap<PackId, BTreeSet<u32>>,
        frames_max: usize,
        handle: Handle,
    ) -> Result<Copied> {
        let session = Arc::clone(&self.session);
        let bridge = Arc::new(Bridge::new(handle, session, Arc::clone(&self.monitor), self.memory_bytes / 4));
        let pack_bytes =
            usize::try_from(self.memory_bytes / 8).unwrap_or(usize::MAX).min(limits::PACK_TARGET);
        let mut run = Run {
            data: Packer::new(Arc::clone(&bridge), pack_bytes, BUFFERS_KEPT),
            metadata: Packer::new(Arc::clone(&bridge), pack_bytes / 4, 0),
            bridge,
            ciphers: HashMap::new(),
            moved: Vec::new(),
        };
        let mut report = RepackReport::default();
        for (pack, offsets) in wanted {
            self.cancel.check()?;
            if run.moved.len() + offsets.len() > frames_max {
                report.left += 1;
                continue;
            }
            match self.copy_pack(pack, &offsets, &mut run) {
                Ok(true) => report.packs.push(pack),
                Ok(false) => report.left += 1,
                Err(error) => return Err(error.context(format!("pack {pack} could not be moved"))),
            }
            Progress::add(&self.monitor.progress().entries, 1);
        }
        run.data.flush()?;
        run.metadata.flush()?;
        run.bridge.settle()?;
        report.frames = run.moved.len() as u64;
        report.bytes = run.data.stored() + run.metadata.stored();
        Ok(Copied { report, moved: run.moved, indexed: run.data.take_indexed() })
    }

    /// Copies what is needed of one pack; false if it is condemned, gone, or not whole: then it stays as it is.
    fn copy_pack(&self, pack: PackId, offsets: &BTreeSet<u32>, run: &mut Run) -> Result<bool> {
        let Some(found) = run.bridge.wait(self.session.reusable(pack))? else {
            self.problem(pack, "its footer cannot be used");
            return Ok(false);
        };
        let frames: Vec<&FooterFrame> =
            found.footer.frames.iter().filter(|frame| offsets.contains(&frame.place.offset)).collect();
        if frames.len() < offsets.len() {
            self.problem(pack, "its footer does not list a frame that a snapshot needs");
        }
        let mut whole = frames.len() == offsets.len();
        let mut rest = &frames[..];
        while !rest.is_empty() {
            self.cancel.check()?;
            let (range, after) = rest.split_at(neighbours(rest));
            whole &= self.copy_range(pack, &found.footer, range, run)?;
            rest = after;
        }
        Ok(whole)
    }

    /// From whichever sending of the pack has all of it whole, or else frame by frame.
    fn copy_range(
        &self,
        pack: PackId,
        footer: &Footer,
        frames: &[&FooterFrame],
        run: &mut Run,
    ) -> Result<bool> {
        let start = u64::from(frames[0].place.offset);
        let range = ByteRange::Slice { offset: start, length: end(frames[frames.len() - 1]) - start };
        let infos = frames.iter().map(|frame| info_of(footer, frame)).collect::<Result<Vec<_>>>()?;
        let ciphers = infos.iter().zip(frames).map(|(info, frame)| self.cipher(info, frame.kind, run));
        let ciphers = ciphers.collect::<Result<Vec<_>>>()?;
        let mut plain = Vec::new();
        let open = |bytes: Bytes| {
            for (frame, cipher) in frames.iter().zip(&ciphers) {
                let mut sealed = sealed(&bytes, start, frame).to_vec();
                codec::open_frame(cipher, frame.kind, &frame.place, &mut sealed, &mut plain)?;
            }
            Ok(bytes)
        };
        let bytes = match run.bridge.wait(self.repository.open_part(pack, range, open)) {
            Err(error) if error.kind() == ErrorKind::Corrupt && frames.len() == 1 => {
                self.problem(pack, &format!("the frame at {start} stays: {error}"));
                return Ok(false);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let mut whole = true;
                for frame in frames.chunks(1) {
                    whole &= self.copy_range(pack, footer, frame, run)?;
                }
                return Ok(whole);
            }
            bytes => bytes?,
        };
        for (frame, info) in frames.iter().zip(infos) {
            let packer = if frame.kind == FrameKind::Data { &run.data } else { &run.metadata };
            let new = packer.append_of(info, (*frame).clone(), sealed(&bytes, start, frame))?;
            run.moved.push(Moved {
                old_pack: pack,
                old_offset: frame.place.offset,
                new_pack: new.pack,
                new_offset: new.offset,
            });
        }
        Ok(true)
    }

    fn cipher(&self, info: &SessionKeyInfo, kind: FrameKind, run: &mut Run) -> Result<Arc<Cipher>> {
        let keys = self.repository.keys();
        let key = (info.session, kind == FrameKind::Data);
        if run.ciphers.len() >= CIPHERS_KEPT && !run.ciphers.contains_key(&key) {
            run.ciphers.clear();
        }
        match run.ciphers.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(Arc::clone(known.get())),
            std::collections::hash_map::Entry::Vacant(free) => {
                let secret = match kind {
                    FrameKind::Data => {
                        keys.open_data_key(info.generation, info.session, &info.sealed_data_key)?
                    }
                    FrameKind::Metadata => keys.session_metadata_key(info.generation, info.session)?,
                };
                Ok(Arc::clone(free.insert(Arc::new(Cipher::new(info.suite, &secret)))))
            }
        }
    }

    fn problem(&self, pack: PackId, message: &str) {
        self.monitor.problem(Problem { what: format!("pack {pack}"), message: message.to_owned() });
    }
}

fn end(frame: &FooterFrame) -> u64 {
    u64::from(frame.place.offset) + u64::from(frame.place.stored)
}

fn info_of<'f>(footer: &'f Footer, frame: &FooterFrame) -> Result<&'f SessionKeyInfo> {
    let found = footer.sessions.iter().find(|info| info.session == frame.place.session);
    found.ok_or_else(|| Error::internal("a footer lost one of its sessions"))
}

/// The stored bytes of a frame, in what was read from `start` on.
fn sealed<'b>(bytes: &'b [u8], start: u64, frame: &FooterFrame) -> &'b [u8] {
    let from = (u64::from(frame.place.offset) - start) as usize;
    &bytes[from..from + frame.place.stored as usize]
}

/// How many of the frames, from the first, are read together.
fn neighbours(frames: &[&FooterFrame]) -> usize {
    let start = u64::from(frames[0].place.offset);
    let together = |pair: &&[&FooterFrame]| {
        u64::from(pair[1].place.offset) <= end(pair[0]) + RANGE_GAP_BYTES
            && end(pair[1]) - start <= RANGE_BYTES
    };
    1 + frames.windows(2).take_while(together).count()
}
