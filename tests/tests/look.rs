//! Looking without restoring: `diff` and `find` as people use them.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A repository with two snapshots of one host, and one of another.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        let write = |name: &str, text: &str| {
            let path = place.path("source").join(name);
            fs::create_dir_all(path.parent().expect("a directory above")).expect("makes");
            fs::write(path, text).expect("writes");
        };
        place.run(&["init"]);
        for (name, text) in [("etc/passwd", "root"), ("etc/gone", "gone"), ("srv/Dump.SQL", "rows")] {
            write(name, text);
        }
        place.backup("one");
        fs::remove_file(place.path("source/etc/gone")).expect("removes");
        write("etc/passwd", "root and more");
        write("etc/new", "new");
        place.backup("one");
        place.backup("two");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn backup(&self, host: &str) {
        let source = self.path("source");
        self.run(&["backup", source.to_str().expect("UTF-8"), "--host", host]);
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(assert_cmd::cargo::cargo_bin("carrack"))
            .args(arguments)
            .env_clear()
            .env("CARRACK_PASSWORD", "correct")
            .env("CARRACK_REPOSITORY", self.path("repository"))
            .output()
            .expect("the program was built: cargo build -p carrack-mover");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{out}\n{err}");
        out
    }

    /// The ids of all snapshots, oldest first.
    fn ids(&self) -> Vec<String> {
        let listed = self.run(&["snapshots", "--json"]);
        let messages =
            listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        messages.filter_map(|message| Some(message["id"].as_str()?.to_owned())).collect()
    }

    /// Lines about files below the source, without its path.
    fn files(&self, text: &str) -> Vec<String> {
        let source = self.path("source").display().to_string();
        let lines = text.lines().filter(|line| line.contains(&source));
        lines.map(|line| line.replace(&format!("{source}/"), "")).collect()
    }
}

#[test]
fn diff_tells_what_changed() {
    let place = Place::new();
    let ids = place.ids();
    let told = place.run(&["diff", &ids[0], &ids[1]]);
    assert_eq!(place.files(&told), ["-    etc/gone", "+    etc/new", "M    etc/passwd"], "{told}");
    assert!(told.contains("1 added (3 B), 1 removed (4 B), 1 changed"), "{told}");
    let with_attributes = place.run(&["diff", &ids[0], &ids[1], "--metadata"]);
    assert!(place.files(&with_attributes).contains(&"U    etc".to_owned()), "{with_attributes}");
    let source = place.path("source").display().to_string();
    let srv = |id: &str| format!("{id}:{source}/srv");
    let told = place.run(&["diff", &srv(&ids[0]), &srv(&ids[1])]);
    assert!(place.files(&told).is_empty(), "{told}");
    let told = place.run(&["diff", &ids[1], &ids[2]]);
    assert!(told.starts_with("0 added"), "equal trees of two hosts: {told}");
}

#[test]
fn find_looks_by_pattern_case_and_snapshot() {
    let place = Place::new();
    let ids = place.ids();
    assert_eq!(place.files(&place.run(&["find", "passwd"])), ["etc/passwd"; 3]);
    assert_eq!(place.files(&place.run(&["find", "passwd", "--host", "two"])), ["etc/passwd"]);
    assert_eq!(place.files(&place.run(&["find", "gone", "--snapshot", &ids[0]])), ["etc/gone"]);
    assert!(place.run(&["find", "gone", "--snapshot", &ids[1]]).contains("nothing matches"));
    assert!(place.run(&["find", "dump.*"]).contains("nothing matches"));
    assert_eq!(place.files(&place.run(&["find", "-i", "dump.*", "--snapshot", "latest"])), ["srv/Dump.SQL"]);
    let told = place.run(&["find", "new", "gone", "--snapshot", &ids[1], "--long"]);
    assert!(told.contains(&format!("snapshot {}", ids[1])) && told.contains("rw-"), "{told}");
}
