//! The recipes of the recovery handbook, taken from the document and run as they stand there, each after its disaster.
//!
//! Needs root, FUSE, rsync, and the program beside the tests (`cargo build -p carrack-mover`).

mod desk;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use carrack_mover::{
    clock::{Clock, World},
    repo::Repository,
};
use carrack_tests::{
    damage::scene::{Walled, prune, tree_of, world},
    handbook::recipes,
    images::in_private_mounts,
    place::program,
    program::wait_until,
    trees::{noise, rsync_differences},
};

use crate::desk::{Desk, runtime};

/// A recipe after a disaster.
struct Case {
    recipe: &'static str,
    /// What happens before it is needed.
    disaster: fn(&mut Desk),
    /// The exit codes of the program, in turn: the recipe would bear that nothing was found, and this does not.
    codes: &'static [i32],
    /// What must have come of it; it gets what was said.
    after: fn(&mut Desk, &str),
}

const CASES: [Case; 20] = [
    Case { recipe: "first-look", disaster: lose_the_largest_pack, codes: &[0, 14], after: the_pack_is_named },
    Case { recipe: "first-look", disaster: damage_an_end, codes: &[3, 14], after: the_end_is_named },
    Case { recipe: "before", disaster: |_| {}, codes: &[0], after: the_key_file_opens },
    Case { recipe: "lost-password", disaster: lose_password, codes: &[0; 3], after: the_new_password_opens },
    Case {
        recipe: "damaged-pack",
        disaster: |desk| {
            desk.copy_repository();
            desk.flip(&desk.largest_pack());
        },
        codes: &[14, 0],
        after: the_source_comes_back,
    },
    Case {
        recipe: "damaged-pack-without-copy",
        disaster: |desk| desk.flip(&desk.largest_pack()),
        codes: &[14, 0, 0, 0],
        after: |desk, _| desk.assert_restored("target/whole", "source"),
    },
    Case { recipe: "half-a-bucket", disaster: lose_half, codes: &[14, 0], after: the_source_comes_back },
    Case {
        recipe: "half-a-bucket-without-copy",
        disaster: lose_a_pack_of_one,
        codes: &[14, 3, 0, 3, 0],
        after: what_was_whole_is_in_the_new_one,
    },
    Case {
        recipe: "lost-index",
        disaster: |desk| {
            let segment = desk.objects("index").remove(0);
            fs::write(segment, b"").expect("writes");
        },
        codes: &[14, 0, 0],
        after: the_source_comes_back,
    },
    Case {
        recipe: "lost-format",
        disaster: |desk| {
            desk.cook("before");
            fs::remove_file(desk.path("repository/format")).expect("removes");
            fs::remove_dir_all(desk.path("repository/keys")).expect("removes");
        },
        codes: &[14, 0],
        after: the_source_comes_back,
    },
    Case {
        recipe: "lost-session",
        disaster: |desk| {
            let session = desk.objects("sessions").remove(0);
            fs::remove_file(&session).expect("removes");
            desk.set("LOST", name_of(&session));
        },
        codes: &[14, 0, 0, 0],
        after: the_source_comes_back,
    },
    Case { recipe: "lost-end", disaster: lose_end, codes: &[14, 0], after: the_first_comes_back },
    Case {
        recipe: "wrong-clock",
        disaster: back_up_in_the_future,
        codes: &[0; 4],
        after: |desk, _| desk.assert_restored("target/right", "source"),
    },
    Case {
        recipe: "clock-behind",
        disaster: back_up_in_the_past,
        codes: &[0; 5],
        after: |desk, _| {
            desk.assert_restored("target/past", "kept");
            the_source_comes_back(desk, "");
        },
    },
    Case {
        recipe: "full-disk",
        disaster: |desk| {
            fs::create_dir(desk.path("much")).expect("makes");
            fs::write(desk.path("much/large"), noise(5, 30_000_000)).expect("writes");
            let ballast = desk.path("disk/ballast").display().to_string();
            desk.set("BALLAST", ballast);
            desk.set("LARGE", desk.path("much").display().to_string());
        },
        codes: &[15, 0, 0, 0],
        after: the_source_comes_back,
    },
    Case {
        recipe: "killed-prune",
        disaster: kill_a_prune,
        codes: &[0, 0],
        after: |desk, said| {
            assert!(!desk.path("repository/gc").exists() || desk.objects("gc").is_empty(), "lists stay");
            the_source_comes_back(desk, said);
        },
    },
    Case {
        recipe: "forgotten",
        disaster: |desk| {
            let id = desk.latest();
            desk.carrack(&["forget", &id]);
            desk.set("FORGOTTEN", id);
        },
        codes: &[0; 4],
        after: |desk, _| desk.assert_restored("target/back", "source"),
    },
    Case {
        recipe: "forgotten-and-pruned",
        disaster: |desk| {
            desk.copy_repository();
            let id = desk.latest();
            desk.carrack(&["forget", &id, "--prune"]);
            desk.set("FORGOTTEN", id);
        },
        codes: &[0],
        after: |desk, _| desk.assert_restored("target/back", "source"),
    },
    Case { recipe: "dead-mount", disaster: kill_a_mount, codes: &[], after: the_source_comes_back },
    Case {
        recipe: "stolen-bundle",
        disaster: |desk| {
            let source = desk.path("source").display().to_string();
            fs::write(desk.path("safe/new-password"), "another\n").expect("writes");
            desk.carrack(&["backup", "--host", "db1", &source]);
        },
        codes: &[0; 5],
        after: |desk, said| {
            desk.refused(13, &["snapshots"]);
            the_new_password_opens(desk, said);
        },
    },
];

#[test]
fn every_recipe_of_the_handbook_works() {
    in_private_mounts(|| {
        for name in recipes().keys() {
            assert!(CASES.iter().any(|case| case.recipe == name), "no disaster is known for {name}");
        }
        for case in &CASES {
            let mut desk = Desk::new(case.recipe == "full-disk");
            (case.disaster)(&mut desk);
            let (said, codes) = desk.cook(case.recipe);
            assert_eq!(codes, case.codes, "exit codes of {}:\n{said}", case.recipe);
            (case.after)(&mut desk, &said);
        }
    });
}

fn name_of(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

fn lose_password(desk: &mut Desk) {
    desk.cook("before");
    fs::write(desk.path("safe/new-password"), "another\n").expect("writes");
    // What is typed is not what it was.
    desk.set("CARRACK_PASSWORD", "forgotten".to_owned());
}

fn lose_half(desk: &mut Desk) {
    desk.back_up();
    desk.copy_repository();
    for folder in ["packs", "index", "sessions", "snapshots"] {
        let objects = desk.objects(folder);
        for object in objects.iter().step_by(2) {
            fs::remove_file(object).expect("removes");
        }
    }
}

fn lose_a_pack_of_one(desk: &mut Desk) {
    let pack = desk.largest_pack();
    let damaged = desk.latest();
    fs::create_dir(desk.path("other")).expect("makes");
    fs::write(desk.path("other/file"), noise(200, 50_000)).expect("writes");
    desk.carrack(&["backup", desk.path("other").to_str().expect("UTF-8")]);
    fs::remove_file(pack).expect("removes");
    desk.set("DAMAGED", damaged);
}

fn lose_the_largest_pack(desk: &mut Desk) {
    let pack = desk.largest_pack();
    fs::remove_file(&pack).expect("removes");
    desk.set("GONE", name_of(&pack));
}

fn damage_an_end(desk: &mut Desk) {
    let end = desk.objects("snapshots").remove(0);
    desk.flip(&end);
    desk.set("GONE", name_of(&end));
}

fn the_pack_is_named(desk: &mut Desk, said: &str) {
    let pack = desk.get("GONE");
    assert!(said.lines().any(|line| line.starts_with("damaged ") && line.contains(pack)), "{pack}: {said}");
}

fn the_end_is_named(desk: &mut Desk, said: &str) {
    let session = desk.get("GONE");
    assert!(said.contains(session), "{session}: {said}");
}

fn the_source_comes_back(desk: &mut Desk, _: &str) {
    desk.restore("latest");
    desk.assert_restored("again", "source");
}

fn the_first_comes_back(desk: &mut Desk, _: &str) {
    desk.restore(desk.get("FIRST"));
    desk.assert_restored("again", "kept");
}

/// Names and bytes of the files of a directory: a copy has times of its own.
fn contents(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("lists").map(|entry| entry.expect("lists"));
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("reads"))).collect()
}

fn the_key_file_opens(desk: &mut Desk, said: &str) {
    desk.set("CARRACK_PASSWORD", String::new());
    desk.set("CARRACK_KEY_FILE", desk.path("safe/carrack.key").display().to_string());
    the_source_comes_back(desk, said);
    assert_eq!(contents(&desk.path("repository/keys")), contents(&desk.path("safe/carrack-objects/keys")));
}

fn the_new_password_opens(desk: &mut Desk, said: &str) {
    desk.set("CARRACK_PASSWORD", String::new());
    desk.set("CARRACK_PASSWORD_FILE", desk.path("safe/new-password").display().to_string());
    the_source_comes_back(desk, said);
}

fn what_was_whole_is_in_the_new_one(desk: &mut Desk, _: &str) {
    desk.set("CARRACK_REPOSITORY", desk.path("target/new").display().to_string());
    desk.restore("latest");
    let other = desk.path("other");
    let found = desk.path("again").join(other.strip_prefix("/").expect("an absolute path"));
    assert_eq!(rsync_differences(&other, &found, &[]).expect("rsync runs"), "");
    // Of the damaged one, what came back is what it was.
    let source = desk.path("source");
    let rest = desk.path("target/rest").join(source.strip_prefix("/").expect("an absolute path"));
    for (path, contents) in tree_of(&rest).expect("lists") {
        let name = Path::new("/").join(path);
        let name = name.strip_prefix(&rest).expect("it lies below");
        assert!(fs::read(source.join(name)).expect("reads") == contents, "{}", name.display());
    }
}

fn lose_end(desk: &mut Desk) {
    let first = desk.objects("snapshots").remove(0);
    desk.set("FIRST", desk.latest());
    desk.keep_source();
    desk.change_source();
    desk.back_up();
    desk.copy_repository();
    fs::remove_file(first).expect("removes");
}

fn back_up_in_the_future(desk: &mut Desk) {
    let session = desk.back_up_in(world(400), "ahead");
    desk.set("FUTURE", session);
    desk.change_source();
}

/// The system's world, with a clock that is behind.
#[derive(Debug)]
struct Behind(Arc<dyn Clock>);

impl Clock for Behind {
    fn now(&self) -> jiff::Timestamp {
        self.0.now() - Duration::from_secs(400 * 86_400)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

fn back_up_in_the_past(desk: &mut Desk) {
    let system = World::system();
    let behind = World { clock: Arc::new(Behind(system.clock)), ..system };
    desk.set("CARRACK_HOST", "desk".to_owned());
    desk.back_up();
    desk.change_source();
    desk.keep_source();
    let session = desk.back_up_in(behind, "desk");
    desk.set("PAST", session);
    fs::write(desk.path("source/inner/new"), noise(103, 5000)).expect("writes");
}

fn kill_a_prune(desk: &mut Desk) {
    fs::write(desk.path("source/large"), noise(101, 600_000)).expect("writes");
    let old = desk.latest();
    desk.back_up();
    desk.carrack(&["forget", &old]);
    let store = Arc::new(Walled { inner: desk.store(), put: "", delete: "packs/" });
    runtime().block_on(async {
        let repository = Repository::open(store, world(0), &Desk::unlock()).await.expect("opens");
        prune(&repository).await.expect_err("it is killed when it begins to delete");
    });
    assert!(!desk.objects("gc").is_empty(), "it leaves its lists");
}

fn kill_a_mount(desk: &mut Desk) {
    let mut command = desk.command(&program());
    command.args(["mount", desk.path("mounted").to_str().expect("UTF-8")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("reads");
    assert!(line.contains("until ctrl-C or umount"), "{line}");
    child.kill().expect("kills");
    child.wait().expect("it is dead");
    let is_dead = || fs::read_dir(desk.path("mounted")).is_err();
    wait_until(is_dead).expect("a dead mount stays");
}
