//! What the kernel hands out, and some file system may have made up.

use carrack_mover::{fuzz::Target, sys::owners::are_hidden_in_acl};

pub(crate) const TARGETS: [Target; 1] = [Target { name: "rights", run: rights }];

/// Bytes before the first entry of a list of rights.
const HEADER: usize = 4;
/// Bytes of an entry.
const ENTRY: usize = 8;
/// Entries that name a user or a group, and those that are about nobody by number.
const NAMED: [u16; 2] = [0x02, 0x08];
const OF_THE_FILE: [u16; 4] = [0x01, 0x04, 0x10, 0x20];

/// A list of rights as the kernel gives it: whoever is named in it without a number is found, and nobody else.
fn rights(bytes: &[u8]) {
    let hidden = are_hidden_in_acl(bytes);
    let half = bytes.len().saturating_sub(HEADER) % ENTRY;
    let mut whole = bytes[..bytes.len() - half].to_vec();
    assert_eq!(are_hidden_in_acl(&whole), hidden, "half an entry names nobody");
    whole.resize(whole.len().max(HEADER), 0);
    let with = |kind: u16, number: u32| {
        are_hidden_in_acl(&[&whole[..], &kind.to_le_bytes(), &[7, 0], &number.to_le_bytes()].concat())
    };
    for kind in NAMED {
        assert!(with(kind, u32::MAX));
        assert_eq!(with(kind, u32::MAX - 1), hidden);
    }
    for kind in OF_THE_FILE {
        assert_eq!(with(kind, u32::MAX), hidden);
    }
    whole.drain(..HEADER);
    let one_by_one = whole.chunks(ENTRY).any(|entry| are_hidden_in_acl(&[&[2, 0, 0, 0], entry].concat()));
    assert_eq!(one_by_one, hidden, "an entry means what it means alone");
}
