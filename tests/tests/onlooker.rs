//! What somebody learns who can list and read the whole bucket, and has no key: sizes within their padding, times, and
//! the numbers that `mover/docs/format.md` names in its section 17; nothing else.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::Write as _,
    process::Stdio,
};

use carrack_mover::codec::padme;
use carrack_tests::{minio::BUCKET, stage::Stage, trees::noise};
use serde_json::Value;

/// What must not be found in any form: names of hosts, files, directories, tags, the words of contents, the password.
const WORDS: [&str; 8] = [
    "jupiter-db",
    "saturn-mail",
    "secret plan",
    "the plan",
    "carrack-stage",
    "confidential",
    "dump.sql",
    "correct",
];
/// Bytes of a pack that say in clear what the format says they do.
const TRAILER: usize = 64;
/// Bytes of equal content that would be found as equal bytes.
const WINDOW: usize = 16;

type Objects = BTreeMap<String, Vec<u8>>;

/// A repository with some history: two backups of a tree, one of them again without a change, a stream, a mark, a
/// snapshot that was forgotten and freed, and a second password.
fn repository(host: &str) -> (Stage, Objects) {
    let mut stage = Stage::empty(BUCKET, |_| Ok(())).unwrap();
    stage.change(host, 1).unwrap();
    let first = stage.backup(host).unwrap();
    stage.change(host, 2).unwrap();
    stage.backup(host).unwrap();
    stage.backup(host).unwrap();
    let stream = [
        "backup",
        "--host",
        "the-same-host",
        "--tag",
        "confidential",
        "--stdin",
        "--stdin-filename",
        "dump.sql",
    ];
    let mut child = stage.command(&stream).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&noise(77, 500_000)).unwrap();
    assert!(child.wait().unwrap().success());
    stage.run(&["forget", "--pin", "latest"], 0);
    stage.run(&["forget", &first], 0);
    stage.give_up(&first);
    stage.run(&["prune", "--max-unused", "0"], 0);
    stage.run(&["check", "--read-data"], 0);
    let file = stage.path("password");
    std::fs::write(&file, "another\n").unwrap();
    stage.run(&["key", "add", "--new-password-file", file.to_str().unwrap()], 0);
    stage.all_come_back().unwrap();
    let names = stage.owner.names("").unwrap();
    let objects = names.into_iter().map(|name| (name.clone(), stage.owner.get(&name).unwrap())).collect();
    (stage, objects)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_session(text: &str) -> bool {
    let Some((start, nonce)) = text.split_once('-') else { return false };
    matches!(start.as_bytes().first(), Some(b'b' | b'r')) && is_hex(&start[1..], 16) && is_hex(nonce, 32)
}

/// Whether a name is one that the format gives.
fn is_documented(name: &str) -> bool {
    let Some((folder, rest)) = name.split_once('/') else { return name == "format" };
    let marked = |words: &[&str]| {
        let mut parts = rest.split('.');
        parts.next().is_some_and(is_session)
            && words.iter().all(|word| parts.next() == Some(word))
            && parts.next().is_some_and(|random| is_hex(random, 32))
            && parts.next().is_none()
    };
    match folder {
        "keys" | "damaged" => is_hex(rest, 32),
        "sessions" | "snapshots" => is_session(rest),
        "packs" => rest.split_once('/').is_some_and(|(two, id)| is_hex(id, 32) && two == &id[16..18]),
        "index" => rest.strip_prefix("s-").is_some_and(|id| is_hex(id, 32)),
        "forgotten" => marked(&[]),
        "marks" => marked(&["pinned"]) || marked(&["verified"]),
        _ => false,
    }
}

/// The sealed bytes of an object, and the clear JSON of one that has any.
fn parts(name: &str, bytes: &[u8]) -> (Vec<u8>, Option<Value>) {
    if name.starts_with("packs/") {
        return (bytes[..bytes.len() - TRAILER].to_vec(), None);
    }
    assert_eq!(&bytes[..5], b"CRKR\x01", "{name}");
    let json = |from: usize| Some(serde_json::from_slice(&bytes[from..]).unwrap());
    match bytes[5] {
        3 => (Vec::new(), json(8)),
        1 | 2 | 6..=10 | 13 | 14 => (bytes[8..72].to_vec(), json(72)),
        4 | 5 => (bytes[80..].to_vec(), None),
        11 | 12 => (bytes[126..].to_vec(), None),
        kind => unreachable!("{name} is of kind {kind}"),
    }
}

/// The fields that are in clear, which section 17 speaks of.
fn clear_fields(name: &str) -> &'static [&'static str] {
    match name.split('/').next().unwrap() {
        "format" => &[
            "version",
            "repository",
            "maintenance_public",
            "cut",
            "read_features",
            "write_features",
            "maintain_features",
            "created",
        ],
        "keys" => &[
            "version",
            "label",
            "created",
            "repository",
            "generations",
            "derivation",
            "commitment",
            "sealed_roots",
        ],
        "sessions" => {
            &["version", "session", "generation", "suite", "sealed_data_key", "signing_public", "started"]
        }
        // A fence, or the end of a session that gave up.
        "snapshots" => &["session", "created", "reason", "cleaned_up"],
        "marks" | "forgotten" => &["session", "word", "created"],
        other => unreachable!("{other}/ has JSON in clear"),
    }
}

/// Sealed bytes that occur twice are equal contents that show.
fn windows(objects: &Objects) -> HashSet<[u8; WINDOW]> {
    let mut seen = HashSet::new();
    for (name, bytes) in objects {
        let (sealed, _) = parts(name, bytes);
        for window in sealed.windows(WINDOW) {
            assert!(seen.insert(window.try_into().unwrap()), "sealed bytes of {name} are there twice");
        }
    }
    seen
}

#[test]
fn a_reader_of_the_bucket_learns_sizes_within_the_padding_and_nothing_else() {
    let repositories = [repository("jupiter-db"), repository("saturn-mail")];
    for (_, objects) in &repositories {
        for (name, bytes) in objects {
            assert!(is_documented(name), "{name} is no name that the format gives");
            for word in WORDS {
                for form in [word.as_bytes().to_vec(), hex::encode(word).into_bytes(), utf16(word)] {
                    let found = bytes.windows(form.len()).any(|window| window == form);
                    assert!(!found && !name.contains(word), "{word:?} shows in {name}");
                }
            }
            let (_, json) = parts(name, bytes);
            if let Some(json) = json {
                let allowed = clear_fields(name);
                for field in json.as_object().unwrap().keys() {
                    assert!(allowed.contains(&field.as_str()), "{name} says {field} in clear");
                }
            }
            check_size(name, bytes);
        }
    }
    // The contents themselves: the same stream is in both, and the same random file.
    let [one, other] = repositories.each_ref().map(|(_, objects)| windows(objects));
    for contents in [noise(77, 500_000), noise(1, 300_000), noise(2, 300_000)] {
        for piece in contents.chunks_exact(WINDOW) {
            let piece: [u8; WINDOW] = piece.try_into().unwrap();
            assert!(!one.contains(&piece) && !other.contains(&piece), "contents are there as they are");
        }
    }
    assert!(one.is_disjoint(&other), "equal contents are equal bytes");
    // The same host and path gave another lineage, and nothing in a name is in both.
    let [one, other] = repositories.each_ref().map(|(_, objects)| ids(objects));
    let zero = "0".repeat(16);
    let common: Vec<_> = one.intersection(&other).filter(|id| **id != zero).collect();
    assert!(common.is_empty(), "{common:?} are in the names of both");
}

/// Runs of hexadecimal digits in names.
fn ids(objects: &Objects) -> BTreeSet<String> {
    let pieces = objects.keys().flat_map(|name| name.split(|letter: char| !letter.is_ascii_hexdigit()));
    pieces.filter(|piece| piece.len() >= 16).map(str::to_owned).collect()
}

fn utf16(word: &str) -> Vec<u8> {
    word.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Lengths of what is sealed are of the classes that the format names.
fn check_size(name: &str, bytes: &[u8]) {
    let padded = |sealed: usize| {
        let length = sealed - 24;
        assert_eq!(padme(length), length, "{name}: a sealed object of {sealed} bytes is not padded");
    };
    if name.starts_with("packs/") {
        let length = bytes.len();
        assert!(
            length.is_multiple_of(256 << 10) || padme(length) == length,
            "{name}: a pack of {length} bytes"
        );
        let trailer = &bytes[length - TRAILER..];
        padded(u32::from_le_bytes(trailer[..4].try_into().unwrap()) as usize);
        assert!(trailer[42..56].iter().all(|byte| *byte == 0));
        return;
    }
    match bytes[5] {
        4 | 5 => padded(bytes.len() - 72),
        11 | 12 => padded(bytes.len() - 118),
        _ => {}
    }
}
