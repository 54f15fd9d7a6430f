use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _,
    aead::{Aead as _, Payload},
};

use super::*;
use crate::{
    format::session::SessionKind,
    id::{LineageId, SessionNonce},
};

fn session() -> SessionName {
    SessionName { kind: SessionKind::Backup, lineage: LineageId([1; 8]), nonce: SessionNonce([2; 16]) }
}

#[test]
fn two_implementations_of_chacha_agree() {
    let key = Key::new([5; 32]);
    let ours = Cipher::new(Suite::ChaCha20Poly1305, &key);
    let derived = key.derive("carrack v1 sealing", &[2]);
    let theirs = ChaCha20Poly1305::new(derived.expose().into());
    for length in [0, 1, 15, 16, 17, 1000, 100_000] {
        let plain: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let aad = object_aad(Domain::Record, session());
        let mut buffer = plain.clone();
        ours.seal(Domain::Record, 77, &aad, &mut buffer, 0).unwrap();
        let mut nonce = [0; 12];
        nonce[0] = 3;
        nonce[4] = 77;
        let expected = theirs.encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad }).unwrap();
        assert_eq!(buffer, expected);
    }
}

#[test]
fn objects_round_trip_and_break_loudly() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let cipher = Cipher::new(suite, &Key::new([5; 32]));
        let plain = vec![42; 10_000];
        let sealed = seal_object(&cipher, Domain::Segment, session(), 3, &plain).unwrap();
        assert!(sealed.len() < 200);
        assert_eq!(open_object(&cipher, Domain::Segment, session(), &sealed, 10_000).unwrap(), plain);
        assert!(open_object(&cipher, Domain::Segment, session(), &sealed, 9_999).is_err(), "a bomb");
        assert!(open_object(&cipher, Domain::Footer, session(), &sealed, 10_000).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open_object(&cipher, Domain::Segment, session(), &damaged, 10_000).is_err(), "{at}");
            assert!(open_object(&cipher, Domain::Segment, session(), &sealed[..at], 10_000).is_err(), "{at}");
        }
    }
}

#[test]
fn padme_costs_little_and_hides_low_bits() {
    for length in (0..10_000).chain((10_000..100_000_000).step_by(99_991)) {
        let padded = padme(length);
        assert!(padded >= length && padded <= length + length / 8 + 1, "{length} {padded}");
    }
    assert_eq!(padme(33_000_000), 33_030_144);
}

#[test]
fn the_length_of_a_sealed_object_is_padded_and_nothing_hides_in_the_padding() {
    let session = session();
    let cipher = Cipher::new(Suite::Aes256Gcm, &Key::new([1; 32]));
    let noise: Vec<u8> =
        (0..2000_u32).flat_map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect();
    let seal = |plain: &[u8]| seal_object(&cipher, Domain::Record, session, 0, plain).unwrap();
    for length in [0, 1, 999, 1000, 64_000] {
        let sealed = seal(&noise[..length]);
        assert_eq!(sealed.len() - 24, padme(sealed.len() - 24), "{length}");
        assert_eq!(open_object(&cipher, Domain::Record, session, &sealed, 64_000).unwrap(), noise[..length]);
    }
    assert_eq!(seal(&noise[..60_000]).len(), seal(&noise[..60_100]).len());
    let mut hidden = 0_u64.to_le_bytes().to_vec();
    hidden.extend_from_slice(&compress(&noise[..1000], 3).unwrap());
    hidden.extend_from_slice(&[0, 0, 1]);
    cipher.seal(Domain::Record, 0, &object_aad(Domain::Record, session), &mut hidden, 8).unwrap();
    let refused = open_object(&cipher, Domain::Record, session, &hidden, 64_000).unwrap_err();
    assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt);
}
