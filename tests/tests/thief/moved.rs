//! Names of packs that a prune has moved and deleted are free: what he puts there.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use carrack_mover::format::pack::Trailer;
use carrack_tests::{minio::BUCKET, stage::Stage, trees::noise};
use serde_json::json;

use crate::{Thief, names};

/// What he puts, made from the pack that was there.
type Squat = fn(&[u8]) -> Vec<u8>;

/// Two backups of `db1`, of which the first is forgotten. Of its data the second needs a part, which a prune has moved.
/// Gives the packs that this deleted, by name.
fn moved(stage: &mut Stage) -> BTreeMap<String, Vec<u8>> {
    stage.change("db1", 1).unwrap();
    // Frames of a megabyte that go, in one pack with what stays.
    let goes = stage.source("db1").join("goes");
    fs::write(&goes, noise(100, 3_000_000)).unwrap();
    let first = stage.backup("db1").unwrap();
    let mut packs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for name in stage.owner.names("packs/").unwrap() {
        let whole = stage.owner.get(&name).unwrap();
        packs.insert(name, whole);
    }
    fs::remove_file(goes).unwrap();
    stage.change("db1", 2).unwrap();
    stage.backup("db1").unwrap();
    stage.run(&["forget", &first], 0);
    stage.give_up(&first);
    let pruned = stage.run(&["prune", "--json", "--max-unused", "0"], 0);
    let plan = pruned.message("prune_plan");
    let ids: Vec<&str> = plan["repack"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    packs.retain(|name, _| ids.iter().any(|id| name.ends_with(*id)));
    let left = stage.owner.names("packs/").unwrap();
    assert!(!packs.is_empty() && !left.iter().any(|name| packs.contains_key(name)), "{plan}");
    packs
}

/// As many bytes, with the true trailer, in which there is another number at this place.
fn with_trailer(whole: &[u8], place: usize, number: u32) -> Vec<u8> {
    let from = whole.len() - Trailer::LENGTH;
    let mut bytes = vec![0; from];
    bytes.extend_from_slice(&whole[from..]);
    bytes[from + place..from + place + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The older snapshot names the old place. Whatever is there, it comes back from the new one; and so does what relies on
/// it.
#[test]
fn garbage_under_the_name_of_a_pack_that_was_moved_hides_nothing_and_goes_with_the_next_prune() {
    // A trailer is not sealed: it can claim keys that nobody holds, and a version that there is not.
    let squats: [(&str, Squat, i32); 7] = [
        ("some bytes", |_| b"rubbish".to_vec(), 14),
        ("as many bytes", |whole| vec![0; whole.len()], 14),
        ("the true footer, and nothing before it", |whole| whole[whole.len() / 2..].to_vec(), 14),
        (
            "garbage and the true footer",
            |whole| [&vec![0; whole.len() / 2], &whole[whole.len() / 2..]].concat(),
            14,
        ),
        ("another generation of keys", |whole| with_trailer(whole, 12, 7), 14),
        ("another version", |whole| with_trailer(whole, 56, 2), 14),
        ("the pack itself", <[u8]>::to_vec, 0),
    ];
    let mut stage = Stage::empty(BUCKET, |_| Ok(())).unwrap();
    let moved = moved(&mut stage);
    let thief = Thief::of(&stage, false);
    for (number, (what, squat, code)) in (4..).zip(squats) {
        moved.iter().for_each(|(name, whole)| thief.bucket.create(name, &squat(whole)).unwrap());
        stage.change("db1", number).unwrap();
        let next = stage.backup("db1").unwrap();
        stage.all_come_back().context(what).unwrap();

        // No snapshot needs it, so what does not read all packs does not meet it.
        stage.run(&["check"], 0);
        let checked = stage.run(&["check", "--read-data", "--json"], code);
        let summary = checked.message("summary");
        let touched = (&summary["damaged"], &summary["affected_files"]);
        assert_eq!(touched, (&json!([]), &json!(0)), "{what}: {summary}");
        let damaged = if code == 0 { 0 } else { moved.len() };
        assert_eq!(summary["damages"], json!(damaged), "{what}: {summary}");
        moved.keys().take(damaged).for_each(|name| names(&checked, name));

        stage.run(&["prune"], 0);
        let left = stage.owner.names("packs/").unwrap();
        assert!(!left.iter().any(|name| moved.contains_key(name)), "{what}: {left:?}");
        stage.run(&["check", "--read-data"], 0);
        stage.all_come_back().context(what).unwrap();
        stage.give_up(&next);
    }
}
