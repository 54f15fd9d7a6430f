use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::choose;
use crate::{
    codec::{self, Cipher, Domain},
    format::{
        frame::{Compression, FrameKind, FramePlace, Suite},
        pack::{Footer, Trailer},
        records::{self, RECORD_HEADER},
        session::{SessionKind, SessionName},
    },
    id::{ChunkId, LineageId, PackId, SessionNonce},
    keys::{Keys, WriterBundle},
    limits,
    reader::frame::FrameOpener,
    repo,
    secret::Key,
};

const SESSION: SessionName =
    SessionName { kind: SessionKind::Backup, lineage: LineageId([1; 8]), nonce: SessionNonce([2; 16]) };
/// What a sealed object may unpack to here, in bytes.
const PLAIN_LIMIT: usize = 1 << 20;

fn suite(code: u8) -> Suite {
    if code & 1 == 0 { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
}

/// The trailer is all of a pack that anybody can write: what it says comes back, but for what readers ignore.
pub(super) fn pack_trailer(bytes: &[u8]) {
    let Ok(trailer) = Trailer::from_bytes(bytes) else { return };
    let again = trailer.to_bytes();
    assert_eq!(Trailer::from_bytes(&again).expect("what was written can be read"), trailer);
    assert_eq!((&again[..42], &again[56..]), (&bytes[..42], &bytes[56..]));
}

pub(super) fn pack_footer(bytes: &[u8]) {
    let pack = PackId([7; 16]);
    let Ok(footer) = Footer::from_bytes(bytes, pack, limits::PACK_LIMIT) else { return };
    for pair in footer.frames.windows(2) {
        assert!(pair[0].place.offset + pair[0].place.stored <= pair[1].place.offset);
    }
    let again = footer.to_bytes();
    let read = Footer::from_bytes(&again, pack, limits::PACK_LIMIT).expect("what was written can be read");
    assert_eq!(read, footer);
    assert_eq!(read.to_bytes(), again);
}

/// Header and body are all there is, and come back byte for byte.
pub(super) fn record(bytes: &[u8]) {
    let Ok((kind, body)) = records::decode_record("fuzz", bytes) else { return };
    assert_eq!(body.len() + RECORD_HEADER, bytes.len());
    assert_eq!(records::encode_record(kind, body), bytes);
}

/// Every JSON structure of a repository, and the keys of a mover.
pub(super) fn json(bytes: &[u8]) {
    let Some((which, json)) = choose(bytes) else { return };
    match which % 12 {
        0 => same::<records::RepositoryFormat>(json),
        1 => same::<records::KeyFile>(json),
        2 => same::<crate::format::session::SessionObject>(json),
        3 => same::<records::Snapshot>(json),
        4 => same::<Vec<records::Moved>>(json),
        5 => same::<records::Condemned>(json),
        6 => same::<records::Final>(json),
        7 => same::<records::Mark>(json),
        8 => same::<records::Fenced>(json),
        9 => same::<records::Damaged>(json),
        10 => same::<repo::Checkpoint>(json),
        _ => bundle(json),
    }
}

fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    let Ok(value) = records::from_json::<T>("fuzz", json) else { return };
    let again = records::to_json(&value).expect("what was read can be written");
    assert_eq!(records::from_json::<T>("fuzz", &again).expect("what was written can be read"), value);
}

fn bundle(json: &[u8]) {
    let Ok(bundle) = records::from_json::<WriterBundle>("fuzz", json) else { return };
    let again = records::to_json(&bundle).expect("what was read can be written");
    let read = records::from_json::<WriterBundle>("fuzz", &again).expect("what was written can be read");
    assert_eq!(records::to_json(&read).expect("it was written before"), again);
    if let Ok(keys) = Keys::from_bundle(&bundle) {
        assert!(!keys.can_read_data(), "a mover's keys open no data");
        assert!(keys.check_can_maintain().is_err(), "nor do they maintain");
    }
}

pub(super) fn segment(bytes: &[u8]) {
    repo::fuzz_segment(bytes);
}

pub(super) fn joined_segment(bytes: &[u8]) {
    repo::fuzz_joined(bytes);
}

pub(super) fn hint(bytes: &[u8]) {
    repo::fuzz_hint(bytes);
}

/// First as an object that somebody without the key has put there, then as the compressed bytes that somebody with the
/// key has sealed.
pub(super) fn sealed_object(bytes: &[u8]) {
    let Some((which, bytes)) = choose(bytes) else { return };
    let cipher = Cipher::new(suite(which), &Key::new([3; 32]));
    let opened = codec::open_object(&cipher, Domain::Record, SESSION, bytes, PLAIN_LIMIT);
    assert!(opened.is_err(), "a seal was made without its key");
    let mut sealed = 5_u64.to_le_bytes().to_vec();
    sealed.extend_from_slice(bytes);
    let aad = codec::object_aad(Domain::Record, SESSION);
    cipher.seal(Domain::Record, 5, &aad, &mut sealed, 8).expect("it can be sealed");
    if let Ok(plain) = codec::open_object(&cipher, Domain::Record, SESSION, &sealed, PLAIN_LIMIT) {
        assert!(plain.len() <= PLAIN_LIMIT);
        let again =
            codec::seal_object(&cipher, Domain::Record, SESSION, 6, &plain).expect("it can be sealed");
        let read = codec::open_object(&cipher, Domain::Record, SESSION, &again, PLAIN_LIMIT);
        assert_eq!(read.expect("what was sealed can be opened"), plain);
    }
}

/// Bytes that somebody with the key has sealed as a frame, under any promise of their length; both ways of opening one
/// agree.
pub(super) fn frame(bytes: &[u8]) {
    let Some((which, rest)) = choose(bytes) else { return };
    let Some((plain, contents)) = rest.split_first_chunk::<3>() else { return };
    let plain = u32::from_le_bytes([plain[0], plain[1], plain[2], 0]) % (1 << 20);
    let kind = if which & 2 == 0 { FrameKind::Data } else { FrameKind::Metadata };
    let compression = if which & 4 == 0 { Compression::Zstd } else { Compression::Stored };
    let place = FramePlace {
        session: SESSION,
        pack: PackId([7; 16]),
        offset: 0,
        stored: 0,
        plain,
        compression,
        counter: 1,
        id: ChunkId([9; 32]),
    };
    let cipher = Cipher::new(suite(which), &Key::new([4; 32]));
    let mut sealed = contents.to_vec();
    cipher.seal(kind.into(), 1, &codec::frame_aad(kind, &place), &mut sealed, 0).expect("it can be sealed");
    let mut out = Vec::new();
    let one = codec::open_frame(&cipher, kind, &place, &mut sealed.clone(), &mut out);
    let mut opener = FrameOpener::default();
    match (one, opener.open(&cipher, kind, &place, &mut sealed)) {
        (Ok(()), Ok(other)) => {
            assert_eq!(out, other);
            assert_eq!(out.len(), plain as usize);
        }
        (Err(_), Err(_)) => {}
        (one, other) => assert_eq!(one.is_ok(), other.is_ok(), "two ways of opening a frame differ"),
    }
}
