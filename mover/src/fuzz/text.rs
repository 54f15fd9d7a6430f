use std::cmp::Ordering;

use super::choose;
use crate::{
    format::{
        bytes::{Reader, put_bytes, put_signed, put_varint},
        order::{compare_paths, is_valid_path, split_path},
        pack::{PackSending, pack_object, parse_pack_object},
        session::SessionName,
    },
    id::{ChunkId, PackId, RandomId, SessionTag},
    source::{changed::ChangedBlocks, exclude::Exclude},
    store::valid_name,
};

/// Numbers and lengths: what is read is written as the bytes that were read.
pub(super) fn bytes(bytes: &[u8]) {
    let Some((which, bytes)) = choose(bytes) else { return };
    let mut reader = Reader::new("fuzz", bytes);
    let mut out = Vec::new();
    loop {
        let before = reader.left();
        let read = match which % 4 {
            0 => reader.varint().map(|value| put_varint(&mut out, value)),
            1 => reader.signed().map(|value| put_signed(&mut out, value)),
            2 => reader.varint32().map(|value| put_varint(&mut out, value.into())),
            _ => reader.bytes(1000).map(|value| put_bytes(&mut out, value)),
        };
        if read.is_err() {
            break;
        }
        assert!(reader.left() < before, "nothing was read");
        assert_eq!(out, bytes[..bytes.len() - reader.left()]);
    }
}

/// Every name in a repository has one form.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(session) = text.parse::<SessionName>() {
        assert_eq!(session.to_string(), text);
        assert!(valid_name(&session.end_object()) && valid_name(&session.session_object()));
        assert_eq!(SessionName::read(&mut Reader::new("fuzz", &session.to_bytes())).ok(), Some(session));
    }
    if let Ok(sending) = text.parse::<PackSending>() {
        assert_eq!(sending.to_string(), text);
        assert!(valid_name(&sending.object()));
        assert_eq!(parse_pack_object(&sending.object()), Some((sending.pack, sending.attempt)));
    }
    if let Some((pack, attempt)) = parse_pack_object(text) {
        assert_eq!(pack_object(pack, attempt), text);
    }
    let ids = [
        ChunkId::from_hex(text).map(ChunkId::to_hex),
        PackId::from_hex(text).map(PackId::to_hex),
        RandomId::from_hex(text).map(RandomId::to_hex),
        SessionTag::from_hex(text).map(SessionTag::to_hex),
    ];
    ids.into_iter().flatten().for_each(|id| assert_eq!(id, text));
}

/// The order of paths is one: three of them, separated by line ends.
pub(super) fn order(bytes: &[u8]) {
    let paths: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|path| is_valid_path(path)).collect();
    let [a, b, c, ..] = paths[..] else { return };
    for (a, b) in [(a, b), (b, c), (a, c)] {
        assert_eq!(compare_paths(a, b), compare_paths(b, a).reverse());
        assert_eq!(compare_paths(a, b) == Ordering::Equal, a == b);
        let within = [a, b"/", b].concat();
        assert_eq!(compare_paths(a, &within), Ordering::Less, "a directory comes before what is in it");
        let (directory, name) = split_path(&within);
        assert_eq!([directory, b"/", name].concat(), within);
    }
    if compare_paths(a, b).is_le() && compare_paths(b, c).is_le() {
        assert!(compare_paths(a, c).is_le());
    }
}

/// A list of changed blocks, as lines or JSON, of a device whose size comes first.
pub(super) fn changed_blocks(bytes: &[u8]) {
    let Some((size, list)) = bytes.split_first_chunk::<4>() else { return };
    let (size, block) = (u64::from(u32::from_le_bytes(*size)), 4096);
    let Ok(changed) = ChangedBlocks::read(list, "fuzz", size, block) else { return };
    let blocks: Vec<u64> = changed.iter().collect();
    assert_eq!(blocks.len() as u64, changed.count());
    assert!(blocks.is_sorted() && blocks.iter().all(|at| changed.contains(*at) && at * block < size));
    // The same blocks, written by us.
    let lines: String =
        blocks.iter().map(|at| format!("{} {}\n", at * block, block.min(size - at * block))).collect();
    let again = ChangedBlocks::read(lines.as_bytes(), "fuzz", size, block);
    assert_eq!(again.expect("what was written can be read"), changed);
}

/// Patterns, one a line, the path they are asked about last.
pub(super) fn exclude(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(path) = lines.next_back() else { return };
    let mut rules = Exclude::default();
    for line in lines.take(8) {
        if let Ok(pattern) = str::from_utf8(line) {
            rules.add_pattern(pattern, line.len() % 2 == 1, "fuzz").unwrap_or_default();
        }
    }
    if rules.matches(path) {
        assert!(rules.has_patterns());
    }
    // A pattern that is nothing but the path, every byte of it escaped, is about the path.
    if let Ok(text) = str::from_utf8(path)
        && is_valid_path(path)
    {
        let literal: String =
            text.chars().flat_map(|c| if c == '/' { vec![c] } else { vec!['\\', c] }).collect();
        let mut own = Exclude::default();
        own.add_pattern(&format!("/{literal}"), false, "fuzz").expect("an escaped path is a pattern");
        assert!(own.matches(path), "{literal:?} is not about {text:?}");
    }
}
