//! An old state of the store that is put back, whole or in part. What stays in the store names what was lost; the rest is
//! known to whoever remembers, which the program does in a small file. What nobody can notice stands in
//! `docs/threat-model.md`.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf, process::Command};

use carrack_tests::{images::run, place::Place};

/// A place whose machine remembers what it saw.
struct Machine {
    place: Place,
    state: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let place = Place::local();
        let state = place.path("state");
        Self { place, state }
    }

    /// Runs the program with the memory or without; answers with all that it printed.
    fn run(&self, arguments: &[&str], remembers: bool, code: i32) -> String {
        let mut command = self.place.command(arguments);
        if remembers {
            command.env("CARRACK_STATE_DIR", &self.state);
        }
        let printed = carrack_tests::program::ended(&mut command, code);
        format!("{}{}", printed.out, printed.err)
    }

    fn backup(&self, remembers: bool, code: i32) -> String {
        let source = self.place.source().display().to_string();
        fs::write(self.place.source().join("changes"), format!("{:?}", std::time::Instant::now())).unwrap();
        self.run(&["backup", "--host", "db1", &source], remembers, code)
    }

    /// Keeps the state of the repository.
    fn save(&self, name: &str) {
        let repository = self.place.path("repository");
        run(Command::new("cp").arg("-a").arg(repository).arg(self.place.path(name))).unwrap();
    }

    /// Puts a state back, as a whole.
    fn put_back(&self, name: &str) {
        fs::remove_dir_all(self.place.path("repository")).unwrap();
        let saved = self.place.path(name);
        run(Command::new("cp").arg("-a").arg(saved).arg(self.place.path("repository"))).unwrap();
    }

    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.place.path("repository").join(folder)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
        paths
    }
}

#[test]
fn a_whole_state_that_was_put_back_is_noticed_by_who_remembers() {
    let machine = Machine::new();
    machine.backup(true, 0);
    machine.save("old");
    machine.backup(true, 0);
    machine.save("new");
    // Forgetting as it is meant to be is no alarm, freed or not, nor is a snapshot that was made elsewhere.
    machine.backup(false, 0);
    machine.run(&["forget", "--keep-last", "1", "--prune"], false, 0);
    machine.run(&["snapshots"], true, 0);
    machine.backup(true, 0);

    machine.put_back("old");
    let listed = machine.run(&["snapshots"], true, 3);
    assert!(listed.contains("an old state of the store was put back"), "{listed}");
    // Nothing is deleted before somebody has looked; who runs it again has.
    let refused = machine.run(&["prune"], true, 11);
    assert!(refused.contains("an old state of the store was put back"), "{refused}");
    machine.run(&["prune"], true, 0);

    machine.put_back("new");
    machine.run(&["snapshots"], true, 0);
    machine.put_back("old");
    // A backup goes on, and says so once.
    let noticed = machine.backup(true, 3);
    assert!(noticed.contains("an old state of the store was put back"), "{noticed}");
    machine.backup(true, 0);
    machine.run(&["check", "--read-data"], true, 0);
    // Without the memory nobody can tell: it is a repository like any other.
    machine.put_back("old");
    machine.run(&["snapshots"], false, 0);
}

/// Of a part: the end or the session object of a snapshot is gone, and what is left names it.
#[test]
fn a_part_that_was_put_back_stops_what_deletes() {
    let machine = Machine::new();
    for _ in 0..3 {
        machine.backup(false, 0);
    }
    let packs = machine.objects("packs").len();
    let names: Vec<String> = machine
        .objects("snapshots")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    for (folder, name) in [("snapshots", &names[0]), ("sessions", &names[1])] {
        let lost = machine.place.path("repository").join(folder).join(name);
        let bytes = fs::read(&lost).unwrap();
        fs::remove_file(&lost).unwrap();
        let object = format!("{folder}/{name}");
        assert!(machine.run(&["snapshots"], false, 3).contains(&object));
        assert!(machine.run(&["check"], false, 14).contains(&object));
        let stopped = machine.run(&["prune", "--fence-after", "1s", "--wait", "0"], false, 14);
        assert!(stopped.contains(&object) && stopped.contains("carrack forget"), "{stopped}");
        assert_eq!(machine.objects("packs").len(), packs);
        fs::write(&lost, bytes).unwrap();
        machine.run(&["check", "--read-data"], false, 0);
    }
    // The newest has no child that names it; a mark does.
    machine.run(&["check", "--read-data"], false, 0);
    fs::remove_file(machine.place.path("repository/snapshots").join(&names[2])).unwrap();
    let stopped = machine.run(&["prune", "--fence-after", "1s", "--wait", "0"], false, 14);
    assert!(stopped.contains("a parent or a mark says that it was there"), "{stopped}");
    // Who gives it up goes on.
    machine.run(&["forget", &names[2]], false, 0);
    machine.run(&["prune"], false, 0);
    machine.run(&["check", "--read-data"], false, 0);
}

#[test]
fn what_says_what_the_repository_is_cannot_be_exchanged() {
    let machine = Machine::new();
    machine.backup(false, 0);
    let other = Machine::new();
    let format = machine.place.path("repository").join("format");
    let genuine = fs::read(&format).unwrap();
    let text = String::from_utf8_lossy(&genuine[72..]).into_owned();
    let with = |text: &str| [&genuine[..72], text.as_bytes()].concat();
    for changed in [
        with(&text.replace("\"average\":65536", "\"average\":32768")),
        with(&text.replace("\"read_features\":[]", "\"read_features\":[\"x\"]")),
        with(&text.replace("\"version\":1", "\"version\":0")),
        genuine[..71].to_vec(),
        fs::read(other.place.path("repository").join("format")).unwrap(),
    ] {
        assert_ne!(changed, genuine);
        fs::write(&format, changed).unwrap();
        let refused = machine.run(&["snapshots"], false, 14);
        assert!(refused.contains("from a copy"), "{refused}");
    }
    fs::write(&format, &genuine).unwrap();
    machine.run(&["check", "--read-data"], false, 0);
}
