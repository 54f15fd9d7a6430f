//! An old state of the store that is put back, whole or in part, in a directory and in a bucket of a real service. What
//! stays in the store names what was lost; the rest is known to whoever remembers, which the program does in a small
//! file. What nobody can notice stands in `docs/threat-model.md`.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use carrack_tests::{
    bucket::Bucket,
    minio::{BUCKET, MinioServer},
    place::Place,
    program::{Printed, ended},
    trees::files_below,
};

/// Where the repository is in its bucket.
const PREFIX: &str = "repository";

/// All objects of a repository, by name.
type State = BTreeMap<String, Vec<u8>>;

/// Where the objects are, for somebody who may do anything with them.
enum Objects {
    Directory(PathBuf),
    Bucket(Bucket),
}

impl Objects {
    fn names(&self, folder: &str) -> Vec<String> {
        match self {
            Self::Directory(path) => files_below(&path.join(folder))
                .iter()
                .map(|file| file.strip_prefix(path).unwrap().to_str().unwrap().to_owned())
                .collect(),
            Self::Bucket(bucket) => bucket.names(folder).unwrap(),
        }
    }

    fn get(&self, name: &str) -> Vec<u8> {
        match self {
            Self::Directory(path) => fs::read(path.join(name)).unwrap(),
            Self::Bucket(bucket) => bucket.get(name).unwrap(),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        match self {
            Self::Directory(path) => {
                fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
                fs::write(path.join(name), bytes).unwrap();
            }
            Self::Bucket(bucket) => bucket.put(name, bytes).unwrap(),
        }
    }

    fn delete(&self, name: &str) {
        match self {
            Self::Directory(path) => fs::remove_file(path.join(name)).unwrap(),
            Self::Bucket(bucket) => bucket.delete(name).unwrap(),
        }
    }

    fn state(&self) -> State {
        self.names("").into_iter().map(|name| (name.clone(), self.get(&name))).collect()
    }

    /// Puts a state back, as a whole.
    fn put_back(&self, state: &State) {
        self.names("").iter().filter(|name| !state.contains_key(*name)).for_each(|name| self.delete(name));
        state.iter().for_each(|(name, bytes)| self.put(name, bytes));
        assert_eq!(&self.state(), state);
    }
}

/// A place whose machine remembers what it saw.
struct Machine {
    place: Place,
    objects: Objects,
    state: PathBuf,
    /// Ends with it.
    _server: Option<MinioServer>,
}

impl Machine {
    fn with_directory() -> Self {
        let place = Place::local();
        let objects = Objects::Directory(place.path("repository"));
        Self::at(place, objects, None)
    }

    fn with_bucket() -> Self {
        let server = MinioServer::start().unwrap();
        let place = Place::on(&server, PREFIX);
        let objects = Objects::Bucket(Bucket::of_owner(&server, BUCKET, PREFIX).unwrap());
        Self::at(place, objects, Some(server))
    }

    fn at(place: Place, objects: Objects, server: Option<MinioServer>) -> Self {
        let state = place.path("state");
        Self { place, objects, state, _server: server }
    }

    /// Runs the program with the memory or without.
    fn ended(&self, arguments: &[&str], remembers: bool, code: i32) -> Printed {
        let mut command = self.place.command(arguments);
        if remembers {
            command.env("CARRACK_STATE_DIR", &self.state);
        }
        ended(&mut command, code)
    }

    /// The same; answers with all that it printed.
    fn run(&self, arguments: &[&str], remembers: bool, code: i32) -> String {
        let printed = self.ended(arguments, remembers, code);
        format!("{}{}", printed.out, printed.err)
    }

    /// Changes the source, and gives the arguments of its backup.
    fn changed(&self) -> [String; 5] {
        fs::write(self.place.source().join("changes"), format!("{:?}", std::time::Instant::now())).unwrap();
        let source = self.place.source().display().to_string();
        ["backup".into(), "--json".into(), "--host".into(), "db1".into(), source]
    }

    fn backup(&self, remembers: bool, code: i32) -> String {
        self.run(&self.changed().each_ref().map(String::as_str), remembers, code)
    }

    /// Backs the source up; answers with the name of the snapshot.
    fn snapshot(&self) -> String {
        let printed = self.ended(&self.changed().each_ref().map(String::as_str), false, 0);
        printed.message("summary")["session"].as_str().unwrap().to_owned()
    }
}

/// A state that is put back as a whole is noticed by who remembers what came after it.
fn put_back_whole(machine: &Machine) {
    machine.backup(true, 0);
    let old = machine.objects.state();
    machine.backup(true, 0);
    let new = machine.objects.state();
    // Forgetting as it is meant to be is no alarm, freed or not, nor is a snapshot that was made elsewhere.
    machine.backup(false, 0);
    machine.run(&["forget", "--keep-last", "1", "--prune"], false, 0);
    machine.run(&["snapshots"], true, 0);
    machine.backup(true, 0);

    machine.objects.put_back(&old);
    let listed = machine.run(&["snapshots"], true, 3);
    assert!(listed.contains("an old state of the store was put back"), "{listed}");
    // Nothing is deleted before somebody has looked; who runs it again has.
    let refused = machine.run(&["prune"], true, 11);
    assert!(refused.contains("an old state of the store was put back"), "{refused}");
    machine.run(&["prune"], true, 0);

    machine.objects.put_back(&new);
    machine.run(&["snapshots"], true, 0);
    machine.objects.put_back(&old);
    // A backup goes on, and says so once.
    let noticed = machine.backup(true, 3);
    assert!(noticed.contains("an old state of the store was put back"), "{noticed}");
    machine.backup(true, 0);
    machine.run(&["check", "--read-data"], true, 0);
    // Without the memory nobody can tell: it is a repository like any other.
    machine.objects.put_back(&old);
    machine.run(&["snapshots"], false, 0);
    machine.run(&["check", "--read-data"], false, 0);
}

#[test]
fn a_whole_state_of_a_directory_that_was_put_back_is_noticed_by_who_remembers() {
    put_back_whole(&Machine::with_directory());
}

#[test]
fn a_whole_state_of_a_bucket_that_was_put_back_is_noticed_by_who_remembers() {
    put_back_whole(&Machine::with_bucket());
}

/// Of a part: the end or the session object of a snapshot is gone, and what is left names it.
fn put_back_in_part(machine: &Machine) {
    let names = [(); 3].map(|()| machine.snapshot());
    let packs = machine.objects.names("packs").len();
    assert!(packs >= names.len(), "each backup has packs of its own");
    for (folder, name) in [("snapshots", &names[0]), ("sessions", &names[1])] {
        let object = format!("{folder}/{name}");
        let bytes = machine.objects.get(&object);
        machine.objects.delete(&object);
        assert!(machine.run(&["snapshots"], false, 3).contains(&object));
        assert!(machine.run(&["check"], false, 14).contains(&object));
        let stopped = machine.run(&["prune", "--fence-after", "1s", "--wait", "0"], false, 14);
        assert!(stopped.contains(&object) && stopped.contains("carrack forget"), "{stopped}");
        assert_eq!(machine.objects.names("packs").len(), packs);
        machine.objects.put(&object, &bytes);
        machine.run(&["check", "--read-data"], false, 0);
    }
    // The newest has no child that names it; a mark does.
    machine.run(&["check", "--read-data"], false, 0);
    machine.objects.delete(&format!("snapshots/{}", names[2]));
    let stopped = machine.run(&["prune", "--fence-after", "1s", "--wait", "0"], false, 14);
    assert!(stopped.contains("a parent or a mark says that it was there"), "{stopped}");
    // Who gives it up goes on.
    machine.run(&["forget", &names[2]], false, 0);
    machine.run(&["prune"], false, 0);
    machine.run(&["check", "--read-data"], false, 0);
}

#[test]
fn a_part_of_a_directory_that_was_put_back_stops_what_deletes() {
    put_back_in_part(&Machine::with_directory());
}

#[test]
fn a_part_of_a_bucket_that_was_put_back_stops_what_deletes() {
    put_back_in_part(&Machine::with_bucket());
}

/// What says what the repository is cannot be exchanged.
fn exchange_format(machine: &Machine, other: &Machine) {
    machine.backup(false, 0);
    let genuine = machine.objects.get("format");
    let text = String::from_utf8_lossy(&genuine[72..]).into_owned();
    let with = |text: &str| [&genuine[..72], text.as_bytes()].concat();
    for changed in [
        with(&text.replace("\"average\":65536", "\"average\":32768")),
        with(&text.replace("\"read_features\":[]", "\"read_features\":[\"x\"]")),
        with(&text.replace("\"version\":1", "\"version\":0")),
        genuine[..71].to_vec(),
        other.objects.get("format"),
    ] {
        assert_ne!(changed, genuine);
        machine.objects.put("format", &changed);
        let refused = machine.run(&["snapshots"], false, 14);
        assert!(refused.contains("from a copy"), "{refused}");
    }
    machine.objects.put("format", &genuine);
    machine.run(&["check", "--read-data"], false, 0);
}

#[test]
fn what_says_what_a_repository_in_a_directory_is_cannot_be_exchanged() {
    exchange_format(&Machine::with_directory(), &Machine::with_directory());
}

#[test]
fn what_says_what_a_repository_in_a_bucket_is_cannot_be_exchanged() {
    exchange_format(&Machine::with_bucket(), &Machine::with_bucket());
}
