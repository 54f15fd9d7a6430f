//! Opening the frames of one range of a pack, and comparing what is in them with ids. Runs on worker threads.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::wanted::{Row, Wanted, description, half, of_frame};
use crate::{
    codec::Cipher,
    error::{Error, Result},
    format::{
        frame::FrameKind,
        pack::{Footer, FooterFrame},
        session::SessionName,
    },
    keys::Keys,
    reader::{
        frame::{FrameOpener, into_mutable, wrong_id},
        piece,
    },
};

/// One range to verify.
pub(super) struct Job {
    pub keys: Keys,
    /// The pack's place in the list of packs.
    pub index: u32,
    pub frames: Vec<FooterFrame>,
    pub wanted: Arc<Wanted>,
    pub ciphers: Arc<Ciphers>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub frames: u64,
    pub chunks: u64,
    pub bytes: u64,
    /// Frames that are damaged, by offset, with the reason.
    pub bad: Vec<(u32, String)>,
    /// The pack is not there any more, and snapshots need it.
    pub is_gone: bool,
}

/// By session, and whether it is for data.
pub(super) type Ciphers = HashMap<(SessionName, bool), Result<Cipher>>;

/// The ciphers of all sessions that a footer names.
pub(super) fn ciphers(keys: &Keys, footer: &Footer) -> Ciphers {
    let mut ciphers = HashMap::new();
    for info in &footer.sessions {
        let data = keys.open_data_key(info.generation, info.session, &info.sealed_data_key);
        let metadata = keys.session_metadata_key(info.generation, info.session);
        ciphers.insert((info.session, true), data.map(|key| Cipher::new(info.suite, &key)));
        ciphers.insert((info.session, false), metadata.map(|key| Cipher::new(info.suite, &key)));
    }
    ciphers
}

/// Opens and compares everything in `bytes`, which begin with the first frame.
pub(super) fn verify(job: &Job, bytes: Bytes) -> Verified {
    thread_local! {
        static OPENER: std::cell::RefCell<FrameOpener> = std::cell::RefCell::default();
    }
    let mut stored = into_mutable(bytes);
    let mut verified = Verified { bytes: stored.len() as u64, ..Verified::default() };
    let start = job.frames.first().map_or(0, |frame| frame.place.offset);
    let rows = job.wanted.of_pack(job.index);
    for frame in &job.frames {
        let from = (frame.place.offset - start) as usize;
        let to = from + frame.place.stored as usize;
        let done = match stored.get_mut(from..to) {
            Some(slice) => OPENER
                .with_borrow_mut(|opener| one(job, opener, frame, of_frame(rows, frame.place.offset), slice)),
            None => Err(Error::corrupt("the store gave fewer bytes than were asked for")),
        };
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

/// One frame: opened by its seal, then every chunk that the footer lists or that a snapshot names.
fn one(
    job: &Job,
    opener: &mut FrameOpener,
    frame: &FooterFrame,
    rows: &[Row],
    stored: &mut [u8],
) -> Result<u64> {
    let cipher = match job.ciphers.get(&(frame.place.session, frame.kind == FrameKind::Data)) {
        Some(Ok(cipher)) => cipher,
        Some(Err(error)) => return Err(Error::corrupt(error.to_string())),
        None => return Err(Error::corrupt("its session's key is not in the footer")),
    };
    let described = description(frame.kind, &frame.place);
    if rows.iter().any(|row| row.is_frame() && row.id != described) {
        return Err(Error::corrupt(format!(
            "a snapshot describes the frame at {} otherwise than the footer",
            frame.place.offset
        )));
    }
    let plain = opener.open(cipher, frame.kind, &frame.place, stored)?;
    let mut count = 0;
    for chunk in &frame.chunks {
        if job.keys.chunk_id(piece(plain, chunk.offset, chunk.length)?) != chunk.id {
            return Err(wrong_id(&frame.place, chunk.offset));
        }
        count += 1;
    }
    // Both lists ascend, so each chunk that both have is met at the same time and hashed once.
    let mut listed = frame.chunks.iter().peekable();
    for row in rows.iter().filter(|row| !row.is_frame()) {
        while listed.next_if(|chunk| chunk.offset < row.offset).is_some() {}
        if listed.peek().is_some_and(|chunk| row.is_chunk(chunk.offset, chunk.length, &chunk.id)) {
            continue;
        }
        if half(&job.keys.chunk_id(piece(plain, row.offset, row.length)?)) != row.id {
            return Err(wrong_id(&frame.place, row.offset));
        }
        count += 1;
    }
    Ok(count)
}
