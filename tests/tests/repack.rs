//! Repacking: what is needed moves out of packs that are mostly not, and everything still comes back, however often
//! it is done, killed, or done twice at once.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use carrack_tests::{place::Place, trees::noise};
use serde_json::Value;

/// Files of a megabyte each, which do not compress: a frame or so for each.
const FILES: u64 = 48;

fn place() -> Place {
    let place = Place::local();
    for index in 0..FILES {
        fs::write(file(&place, index), noise(100 + index, 1 << 20)).expect("writes");
    }
    place
}

fn file(place: &Place, index: u64) -> PathBuf {
    place.source().join(format!("megabyte {index:02}"))
}

/// Removes all files but every so-manieth.
fn thin_out(place: &Place, keep_every: u64) {
    for index in (0..FILES).filter(|index| index % keep_every != 0) {
        let path = file(place, index);
        if path.exists() {
            fs::remove_file(path).expect("removes");
        }
    }
}

fn repository_bytes(place: &Place) -> u64 {
    fn below(path: &Path) -> u64 {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => below(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            })
            .sum()
    }
    below(&place.path("repository").join("packs"))
}

fn repacks(place: &Place) -> usize {
    let sessions = fs::read_dir(place.path("repository").join("sessions")).expect("reads");
    sessions.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with('r')).count()
}

fn whole(place: &Place, name: &str) {
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), name);
}

#[test]
fn it_frees_what_is_unused_and_old_snapshots_find_what_moved() {
    let place = place();
    place.backup();
    thin_out(&place, 4);
    place.backup();
    let full = repository_bytes(&place);
    place.run(&["forget", "--keep-last", "1"], 0);
    let planned = place.run(&["prune", "--dry-run"], 0);
    assert!(planned.contains("to move"), "{planned}");
    assert_eq!(repository_bytes(&place), full, "a dry run deletes nothing");
    place.run(&["prune"], 0);
    let thin = repository_bytes(&place);
    assert!(thin < full * 6 / 10, "{thin} of {full} bytes are left");
    assert_eq!(repacks(&place), 1);
    // The snapshot was written before anything moved.
    whole(&place, "moved");
    let again = place.run(&["prune"], 0);
    assert!(!again.contains("to move"), "{again}");
    assert_eq!(repository_bytes(&place), thin, "there is nothing more to free\n{again}");

    // A new backup takes over what did not change, where it is now.
    fs::write(place.source().join("new"), noise(7, 10_000)).expect("writes");
    place.backup();
    assert!(repository_bytes(&place) < thin + (2 << 20), "what moved is found by the next backup");
    whole(&place, "taken over");

    // Moved again: a chain of two for those who still name the first place.
    thin_out(&place, 12);
    place.backup();
    place.run(&["forget", "--keep-last", "2"], 0);
    place.run(&["forget", "--keep-last", "1"], 0);
    place.run(&["prune", "--max-unused", "0"], 0);
    whole(&place, "twice");
    place.backup();
    whole(&place, "after twice");
}

#[test]
fn relocations_that_nobody_needs_go() {
    let place = place();
    place.backup();
    thin_out(&place, 4);
    place.backup();
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(repacks(&place), 1);
    // The newest snapshot names the new places itself.
    fs::write(place.source().join("new"), noise(8, 10_000)).expect("writes");
    place.backup();
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    assert_eq!(repacks(&place), 0, "{}", place.run(&["prune", "--dry-run", "--json"], 0));
    whole(&place, "restored");
}

/// Its end says where frames went that are nowhere else; nobody can take it for several things in doubt.
#[test]
fn a_repack_without_its_session_is_named_once_with_the_way_back() {
    let place = place();
    place.backup();
    thin_out(&place, 4);
    place.backup();
    place.run(&["forget", "--keep-last", "1", "--prune"], 0);
    let sessions = fs::read_dir(place.path("repository").join("sessions")).expect("reads").flatten();
    let names = sessions.map(|entry| entry.file_name().into_string().expect("text"));
    let repack = names.into_iter().find(|name| name.starts_with('r')).expect("something was moved");
    fs::remove_file(place.path("repository").join("sessions").join(&repack)).expect("removes");
    let refused = place.command(&["prune"]).output().expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(14), "{said}");
    assert!(said.contains(&format!("carrack repo revive {repack}")) && !said.contains("in doubt"), "{said}");
    place.run(&["repo", "revive", &repack], 0);
    place.run(&["prune"], 0);
    whole(&place, "revived");
}

#[test]
fn unused_bytes_are_left_alone_when_they_may_be() {
    let place = place();
    place.backup();
    thin_out(&place, 4);
    place.backup();
    place.run(&["forget", "--keep-last", "1"], 0);
    let full = repository_bytes(&place);
    place.run(&["prune", "--max-unused", "unlimited"], 0);
    // A limit above nothing may let something tiny move: where packs and pages end differs from key to key.
    place.run(&["prune", "--max-repack-size", "0"], 0);
    assert!(repository_bytes(&place) > full * 9 / 10);
    assert_eq!(repacks(&place), 0);
    for mebibytes in [1, 4, 8, 16] {
        let limit = format!("{mebibytes}MiB");
        let plan = place.run(&["prune", "--dry-run", "--json", "--max-repack-size", &limit], 0);
        let plan = plan.lines().find(|line| line.contains("prune_plan")).expect("a plan");
        let plan: Value = serde_json::from_str(plan).expect("JSON");
        let moved = plan["repack_bytes"].as_u64().expect("bytes");
        assert!(moved <= mebibytes << 20, "at most {limit} may move: {plan}");
    }
}

fn start(place: &Place, arguments: &[&str]) -> Child {
    place.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

#[test]
fn killed_at_any_time_it_leaves_everything_whole_and_the_next_one_goes_on() {
    let place = place();
    place.backup();
    let full = repository_bytes(&place);
    thin_out(&place, 3);
    place.backup();
    place.run(&["forget", "--keep-last", "1"], 0);
    for round in 0..8 {
        let mut child = start(&place, &["prune", "--wait", "0", "--fence-after", "1s"]);
        std::thread::sleep(Duration::from_millis(40 + 45 * round));
        child.kill().expect("it can be killed, ended or not");
        child.wait().expect("ends");
        place.run(&["check"], 0);
    }
    place.run(&["prune", "--fence-after", "1s"], 0);
    place.run(&["prune", "--fence-after", "1s"], 0);
    let thin = repository_bytes(&place);
    assert!(thin < full * 6 / 10, "{thin} of {full} bytes are left");
    whole(&place, "restored");
}

#[test]
fn two_prunes_and_a_backup_at_once() {
    let place = place();
    place.backup();
    for round in 0..3 {
        thin_out(&place, 2 + round);
        fs::write(place.source().join("random"), noise(20 + round, 3_000_000)).expect("writes");
        place.backup();
        place.run(&["forget", "--keep-last", "1"], 0);
        let mut others = [start(&place, &["prune"]), start(&place, &["prune"]), place.start_backup()];
        for other in &mut others {
            other.wait().expect("ends");
        }
        // A prune may have been told that something changed under it; nothing is lost by that.
        whole(&place, &format!("restored {round}"));
    }
    place.run(&["prune"], 0);
    whole(&place, "restored at last");
}
