//! What a prune must not believe: damaged ends, forged markers and lists.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{fs, path::PathBuf, process::Command};

use carrack_tests::trees::files_below;
use tempfile::TempDir;

fn carrack(place: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(assert_cmd::cargo::cargo_bin("carrack"))
        .args(arguments)
        .env_clear()
        .env("CARRACK_PASSWORD", "correct")
        .env("CARRACK_REPOSITORY", place.path().join("repository"))
        .output()
        .expect("the program was built: cargo build -p carrack-mover");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A repository with two snapshots.
fn repository() -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let source = place.path().join("source");
    fs::create_dir(&source).expect("makes");
    assert_eq!(carrack(&place, &["init"]).0, Some(0));
    for contents in ["first", "second"] {
        fs::write(source.join("file"), contents.repeat(5000)).expect("writes");
        assert_eq!(carrack(&place, &["backup", source.to_str().expect("UTF-8")]).0, Some(0));
    }
    place
}

fn objects(place: &TempDir, folder: &str) -> Vec<PathBuf> {
    files_below(&place.path().join("repository").join(folder))
}

#[test]
fn a_damaged_end_stops_it_until_the_snapshot_is_given_up() {
    let place = repository();
    let packs = objects(&place, "packs");
    let end = &objects(&place, "snapshots")[0];
    let whole = fs::read(end).expect("reads");
    let newer = [&whole[..4], &[9], &whole[5..]].concat();
    for (damaged, expected) in [(&whole[..whole.len() / 2], 14), (&newer[..], 2), (&whole[..3], 14)] {
        fs::write(end, damaged).expect("writes");
        let (code, text) = carrack(&place, &["prune"]);
        assert_eq!(code, Some(expected), "{text}");
        assert_eq!(objects(&place, "packs"), packs, "{text}");
    }
    fs::write(end, &whole).expect("writes");
    assert_eq!(carrack(&place, &["check", "--read-data"]).0, Some(0));

    fs::write(end, &whole[..whole.len() / 2]).expect("writes");
    let session = end.file_name().expect("a name").to_str().expect("ASCII");
    let (_, text) = carrack(&place, &["forget", session]);
    let (code, pruned) = carrack(&place, &["prune"]);
    assert_eq!(code, Some(0), "{text}\n{pruned}");
    assert!(objects(&place, "packs").len() < packs.len(), "{pruned}");
    assert_eq!(carrack(&place, &["check", "--read-data"]).0, Some(0));
}

#[test]
fn forged_markers_and_lists_count_as_absent() {
    let place = repository();
    let packs = objects(&place, "packs");
    let repository = place.path().join("repository");
    for end in objects(&place, "snapshots") {
        let session = end.file_name().expect("a name").to_str().expect("ASCII").to_owned();
        fs::create_dir_all(repository.join("forgotten")).expect("makes");
        let marker = repository.join(format!("forgotten/{session}.{}", "0".repeat(32)));
        fs::write(marker, b"CRKR\x01\x0a\0\0forged").expect("writes");
    }
    fs::create_dir_all(repository.join("gc")).expect("makes");
    for name in ["condemned", "final"] {
        let list = repository.join(format!("gc/{}.{name}", "1".repeat(32)));
        fs::write(list, b"CRKR\x01\x08\0\0forged").expect("writes");
    }
    let (code, text) = carrack(&place, &["snapshots"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 snapshots"), "{text}");
    let (code, text) = carrack(&place, &["check", "--read-data"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("forgotten/") && text.contains("nothing is damaged"), "{text}");
    // Everything is kept, and what was not believed is named.
    let (code, text) = carrack(&place, &["prune"]);
    assert_eq!(code, Some(3), "{text}");
    for forged in ["forgotten/", ".condemned", ".final"] {
        assert!(text.contains(forged), "{text}");
    }
    assert_eq!(objects(&place, "packs"), packs, "{text}");
    assert!(objects(&place, "gc").is_empty(), "a void list is dropped");
    let (code, text) = carrack(&place, &["check", "--read-data"]);
    assert_eq!(code, Some(0), "{text}");
}

/// Whoever may create objects can write a session that nobody can read, and an end for it.
#[test]
fn sessions_that_cannot_be_read_stop_nobody_for_long() {
    let place = repository();
    let packs = objects(&place, "packs");
    let repository = place.path().join("repository");
    let name = |kind: char, digit: char| format!("{kind}{}-{}", "0".repeat(16), digit.to_string().repeat(32));
    for forged in [name('b', '1'), name('r', '2')] {
        fs::write(repository.join("sessions").join(forged), b"CRKR\x01\x03\0\0{}").expect("writes");
    }
    let (code, text) = carrack(&place, &["prune", "--wait", "0"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        objects(&place, "sessions").len(),
        4,
        "they are shut out at once, and cleaned up by the next prune"
    );
    assert_eq!(carrack(&place, &["prune", "--wait", "0"]).0, Some(0));
    assert_eq!(objects(&place, "sessions").len(), 2);

    // With an end, it might be a snapshot that was damaged, or a repack: a person decides.
    for forged in [name('b', '3'), name('r', '4')] {
        for folder in ["sessions", "snapshots"] {
            fs::write(repository.join(folder).join(&forged), b"CRKR\x01\x04\0\0forged").expect("writes");
        }
        let (code, text) = carrack(&place, &["prune", "--wait", "0"]);
        assert_eq!(code, Some(14), "{text}");
        assert!(text.contains(&format!("carrack forget {forged}")), "{text}");
        assert_eq!(carrack(&place, &["forget", &forged]).0, Some(0));
        let (code, text) = carrack(&place, &["prune", "--wait", "0"]);
        assert_eq!(code, Some(0), "{text}");
    }
    assert_eq!(objects(&place, "sessions").len(), 2);
    assert_eq!(objects(&place, "packs"), packs);
    assert_eq!(carrack(&place, &["check", "--read-data"]).0, Some(0));
}
