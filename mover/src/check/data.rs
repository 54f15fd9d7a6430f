//! Footers of packs, and the data in them: read in large ranges, opened and compared on all cores.

use std::{
    collections::HashMap,
    sync::Arc,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    CheckLevel, CheckOptions, CheckReport,
    structure::{Structure, name},
};
use crate::{
    cancel::Cancel,
    codec::Cipher,
    error::{Error, Result},
    format::{
        frame::FrameKind,
        pack::{Footer, FooterFrame},
        session::SessionName,
    },
    id::{ChunkId, PackId},
    keys::Keys,
    monitor::{Monitor, Progress},
    reader::{
        frame::{FrameOpener, into_mutable},
        piece,
    },
    repo::Repository,
    store::ByteRange,
};

/// Bytes of a pack that are read with one request and held until they are compared.
const RANGE_BYTES: u64 = 4 << 20;

/// Chunks of a frame that its footer does not list.
type Small = Vec<(u32, u32, ChunkId)>;

/// What became of one range of a pack.
struct Verified {
    pack: PackId,
    frames: u64,
    chunks: u64,
    bytes: u64,
    /// Frames that are damaged, by offset, with the reason.
    bad: Vec<(u32, String)>,
}

pub(super) async fn check(
    repository: &Repository,
    options: CheckOptions,
    structure: &mut Structure,
    report: &mut CheckReport,
    monitor: &Arc<dyn Monitor>,
    cancel: &Cancel,
) -> Result<()> {
    let mut packs: Vec<(PackId, u64)> = structure.packs.iter().map(|(pack, size)| (*pack, *size)).collect();
    packs.sort_unstable();
    let read = match options.level {
        CheckLevel::Structure | CheckLevel::Sizes => 0,
        CheckLevel::Sample(percent) => sample(repository, &mut packs, percent, report),
        CheckLevel::Data => packs.len(),
    };
    let total: u64 = packs[..read].iter().map(|(_, size)| size).sum();
    Progress::add(&monitor.progress().bytes_expected, total);
    let parallel = usize::try_from(options.memory_bytes / 2 / (2 * RANGE_BYTES)).unwrap_or(usize::MAX);
    let slots = Arc::new(Semaphore::new(parallel.clamp(1, 32)));
    let mut ranges: JoinSet<Result<Verified>> = JoinSet::new();
    let damages_before = report.damages;
    for (index, (pack, size)) in packs.iter().enumerate() {
        cancel.check()?;
        let footer = match repository.footer(*pack).await {
            Ok(found) => found.footer,
            Err(error) => {
                report.add_damage(&**monitor, name(*pack), error.to_string());
                continue;
            }
        };
        let end = footer.frames.last().map_or(0, |frame| u64::from(frame.place.offset) + u64::from(frame.place.stored));
        if end > *size {
            report.add_damage(&**monitor, name(*pack), format!("it has {size} bytes, its footer speaks of {end}"));
            continue;
        }
        if index >= read {
            continue;
        }
        report.packs_read += 1;
        let ciphers = Arc::new(ciphers(repository.keys(), &footer));
        for frames in split(footer.frames) {
            let closed = |error| Error::internal("the slots were closed").with_source(error);
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(closed)?;
            let small = frames
                .iter()
                .filter_map(|frame| {
                    let key = (*pack, frame.place.offset);
                    Some((frame.place.offset, structure.small.remove(&key)?))
                })
                .collect();
            let (repository, ciphers, pack) = (repository.clone(), Arc::clone(&ciphers), *pack);
            ranges.spawn(async move {
                let verified = verify_range(repository, pack, frames, small, ciphers).await;
                drop(slot);
                verified
            });
            while let Some(done) = ranges.try_join_next() {
                take(done, structure, report, &**monitor)?;
            }
        }
    }
    while let Some(done) = ranges.join_next().await {
        take(done, structure, report, &**monitor)?;
    }
    if report.damages > damages_before {
        (report.below_share_95, report.below_share_99) = (None, None);
    }
    Ok(())
}

/// Moves a random part of the packs to the front, and says what a sample of that size proves.
fn sample(
    repository: &Repository,
    packs: &mut [(PackId, u64)],
    percent: f64,
    report: &mut CheckReport,
) -> usize {
    let wanted = (packs.len() as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as usize;
    let wanted = wanted.min(packs.len());
    for index in 0..wanted {
        let random = u64::from_le_bytes(repository.world().random());
        let other = index + (random % (packs.len() - index) as u64) as usize;
        packs.swap(index, other);
    }
    if wanted > 0 {
        // If a share s of packs were damaged, all n drawn being whole would have the chance (1 - s)^n.
        let below = |chance: f64| 1.0 - chance.powf(1.0 / wanted as f64);
        (report.below_share_95, report.below_share_99) = (Some(below(0.05)), Some(below(0.01)));
    }
    wanted
}

type Ciphers = HashMap<(SessionName, bool), Result<Cipher>>;

fn ciphers(keys: &Keys, footer: &Footer) -> Ciphers {
    let mut ciphers = HashMap::new();
    for info in &footer.sessions {
        let data = keys.open_data_key(info.generation, info.session, &info.sealed_data_key);
        let metadata = keys.session_metadata_key(info.generation, info.session);
        ciphers.insert((info.session, true), data.map(|key| Cipher::new(info.suite, &key)));
        ciphers.insert((info.session, false), metadata.map(|key| Cipher::new(info.suite, &key)));
    }
    ciphers
}

/// Stretches of frames that one request fetches.
fn split(frames: Vec<FooterFrame>) -> Vec<Vec<FooterFrame>> {
    let mut ranges: Vec<Vec<FooterFrame>> = Vec::new();
    for frame in frames {
        let end = u64::from(frame.place.offset) + u64::from(frame.place.stored);
        match ranges.last_mut() {
            Some(range) if end - u64::from(range[0].place.offset) <= RANGE_BYTES => range.push(frame),
            _ => ranges.push(vec![frame]),
        }
    }
    ranges
}

async fn verify_range(
    repository: Repository,
    pack: PackId,
    frames: Vec<FooterFrame>,
    small: HashMap<u32, Small>,
    ciphers: Arc<Ciphers>,
) -> Result<Verified> {
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return Ok(Verified { pack, frames: 0, chunks: 0, bytes: 0, bad: Vec::new() });
    };
    let offset = u64::from(first.place.offset);
    let length = u64::from(last.place.offset) + u64::from(last.place.stored) - offset;
    let bytes = match repository.read_pack(pack, ByteRange::Slice { offset, length }).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let bad = frames.iter().map(|frame| (frame.place.offset, error.to_string())).collect();
            return Ok(Verified { pack, frames: 0, chunks: 0, bytes: 0, bad });
        }
    };
    tokio::task::spawn_blocking(move || verify(repository.keys(), pack, bytes, &frames, &small, &ciphers))
        .await
        .map_err(|error| Error::internal("verifying did not finish").with_source(error))
}

fn verify(
    keys: &Keys,
    pack: PackId,
    bytes: Bytes,
    frames: &[FooterFrame],
    small: &HashMap<u32, Small>,
    ciphers: &Ciphers,
) -> Verified {
    thread_local! {
        static OPENER: std::cell::RefCell<FrameOpener> = std::cell::RefCell::default();
    }
    let mut stored = into_mutable(bytes);
    let mut verified = Verified { pack, frames: 0, chunks: 0, bytes: stored.len() as u64, bad: Vec::new() };
    let start = frames[0].place.offset;
    for frame in frames {
        let from = (frame.place.offset - start) as usize;
        let slice = &mut stored[from..from + frame.place.stored as usize];
        let done = OPENER.with_borrow_mut(|opener| {
            let cipher = match ciphers.get(&(frame.place.session, frame.kind == FrameKind::Data)) {
                Some(Ok(cipher)) => cipher,
                Some(Err(error)) => return Err(Error::corrupt(error.to_string())),
                None => return Err(Error::corrupt("its session's key is not in the footer")),
            };
            let plain = opener.open(cipher, frame.kind, &frame.place, slice)?;
            let listed = frame.chunks.iter().map(|chunk| (chunk.offset, chunk.length, chunk.id));
            let unlisted = small.get(&frame.place.offset).into_iter().flatten().copied();
            let mut count = 0;
            for (offset, length, id) in listed.chain(unlisted) {
                if keys.chunk_id(piece(plain, offset, length)?) != id {
                    return Err(crate::reader::frame::wrong_id(&frame.place, offset));
                }
                count += 1;
            }
            Ok(count)
        });
        match done {
            Ok(count) => {
                verified.frames += 1;
                verified.chunks += count;
            }
            Err(error) => verified.bad.push((frame.place.offset, error.to_string())),
        }
    }
    verified
}

fn take(
    done: Result<Result<Verified>, tokio::task::JoinError>,
    structure: &mut Structure,
    report: &mut CheckReport,
    monitor: &dyn Monitor,
) -> Result<()> {
    let done = done.map_err(|error| Error::internal("verifying did not finish").with_source(error))??;
    report.frames += done.frames;
    report.chunks += done.chunks;
    report.bytes_read += done.bytes;
    Progress::add(&monitor.progress().bytes, done.bytes);
    Progress::add(&monitor.progress().bytes_stored, done.bytes);
    for (offset, problem) in done.bad {
        report.add_damage(monitor, name(done.pack), problem);
        let here = (done.pack, offset);
        structure.bad.insert(here);
        // Snapshots know a moved frame by its old place.
        if let Some(old) = structure.moved_from.get(&here) {
            structure.bad.insert(*old);
        }
    }
    Ok(())
}
