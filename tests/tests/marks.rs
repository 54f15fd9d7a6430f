//! What is said of snapshots: pins and verdicts stay true whatever happens to the snapshots that they speak of.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    path::{Path, PathBuf},
};

use carrack_tests::{
    place::Place,
    trees::{files_below, noise},
};
use serde_json::Value;

/// A place with two snapshots, each of which has something that the other one lacks.
fn two() -> Place {
    let place = Place::local();
    for index in 0..2 {
        fs::write(place.source().join(format!("file {index}")), noise(900 + index, 300_000)).expect("writes");
        place.backup();
    }
    place
}

/// The snapshots, the oldest first.
fn snapshots(place: &Place) -> Vec<Value> {
    let text = place.run(&["snapshots", "--json"], 0);
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    messages.filter(|message| message["message_type"] == "snapshot").collect()
}

fn id(snapshot: &Value) -> &str {
    snapshot["id"].as_str().expect("an id")
}

/// Changes bits of the byte that lies so far from the end.
fn change(file: &Path, from_end: usize, bits: u8) {
    let mut bytes = fs::read(file).expect("reads");
    let at = bytes.len() - from_end;
    bytes[at] ^= bits;
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(file, writable).expect("sets");
    fs::write(file, bytes).expect("writes");
}

#[test]
fn what_was_pinned_is_pinned_when_it_is_brought_back() {
    let place = two();
    let first = id(&snapshots(&place)[0]).to_owned();
    place.run(&["forget", "--pin", &first], 0);
    let of_first = |path: &PathBuf| path.display().to_string().contains(&first);
    let session =
        files_below(&place.path("repository/sessions")).into_iter().find(of_first).expect("its object");
    fs::remove_file(session).expect("removes");
    place.run(&["repo", "revive", &first], 0);
    place.run(&["prune"], 0);
    let revived = snapshots(&place);
    assert_eq!(revived.len(), 2, "{revived:?}");
    assert_eq!(revived[0]["pinned"], true, "{revived:?}");
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(snapshots(&place).len(), 2);
    place.run(&["check", "--read-data"], 0);
}

#[test]
fn what_is_found_damaged_is_verified_no_more() {
    let place = Place::local();
    fs::write(place.source().join("file 0"), noise(900, 300_000)).expect("writes");
    place.backup();
    let before = files_below(&place.path("repository/packs"));
    fs::write(place.source().join("file 1"), noise(901, 300_000)).expect("writes");
    place.backup();
    place.run(&["check", "--read-data"], 0);
    let verified = |place: &Place| -> Vec<bool> {
        snapshots(place).iter().map(|snapshot| !snapshot["verified"].is_null()).collect()
    };
    assert_eq!(verified(&place), [true, true]);
    let new = files_below(&place.path("repository/packs")).into_iter().filter(|pack| !before.contains(pack));
    let data = new.max_by_key(|pack| fs::metadata(pack).map_or(0, |metadata| metadata.len()));
    change(&data.expect("a pack of data"), 200_000, 1);
    place.run(&["check", "--read-data"], 14);
    assert_eq!(verified(&place), [true, false]);
    // The last one that is known to restore stays, whatever is newer.
    place.backup();
    let first = id(&snapshots(&place)[0]).to_owned();
    place.run(&["forget", "--keep-last", "1"], 0);
    let left = snapshots(&place);
    assert!(left.iter().any(|snapshot| id(snapshot) == first), "{left:?}");
}

#[test]
fn an_empty_text_names_no_snapshot() {
    let place = Place::local();
    place.backup();
    place.run(&["forget", ""], 2);
    place.run(&["restore", "", "--target", "/nowhere"], 2);
    place.run(&["repo", "revive", ""], 2);
    assert_eq!(snapshots(&place).len(), 1);
}

/// In a repository whose format is known nothing is newer: what says so was changed, and hints are only hints.
#[test]
fn hints_and_packs_that_claim_to_be_newer_hinder_nobody() {
    let place = two();
    for segment in files_below(&place.path("repository/index")) {
        // The version is the fifth byte.
        let length = fs::metadata(&segment).expect("looks").len();
        change(&segment, usize::try_from(length).expect("short") - 4, 8);
    }
    place.run(&["check", "--sizes"], 14);
    fs::write(place.source().join("new"), noise(7, 100_000)).expect("writes");
    place.backup();
    place.run(&["prune"], 0);
    place.run(&["repo", "merge-index"], 0);
    place.compare("latest", &place.source(), "restored");
    // All packs so far, of which the index knows what is in them: it is stored again.
    for pack in files_below(&place.path("repository/packs")) {
        // The trailer ends in the version and a magic.
        change(&pack, 8, 2);
    }
    place.run(&["backup", "--host", "another", place.source().to_str().expect("UTF-8")], 0);
    place.run(&["repo", "repair-index"], 3);
    place.compare("latest", &place.source(), "restored again");
}
