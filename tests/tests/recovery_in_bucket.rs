//! Recipes of the recovery handbook on a bucket of a real service: those that ask for nothing but the program. What stands
//! there in the place of `cp` and `rsync` belongs to other programs.
//!
//! Needs rsync, the program beside the tests (`cargo build -p carrack-mover`), and MinIO (`tests/servers/build.sh minio`).

use std::{fs, path::Path, process::Command};

use carrack_tests::{
    bucket::Bucket,
    handbook::{cook, newest},
    minio::{BUCKET, MinioServer},
    place::Place,
    trees::{noise, rsync_differences},
};

/// What a recipe is told beyond where everything is.
type Told = Vec<(&'static str, String)>;

/// A recipe after a disaster.
struct Case {
    recipe: &'static str,
    /// What happens before it is needed.
    disaster: fn(&Place, &Bucket) -> Told,
    /// The exit codes of the program, in turn: the recipe would bear that nothing was found, and this does not.
    codes: &'static [i32],
    /// What must have come of it.
    after: fn(&Place),
}

const CASES: [Case; 5] = [
    Case {
        recipe: "damaged-pack-without-copy",
        disaster: |_, bucket| {
            let pack = largest_pack(bucket);
            let mut bytes = bucket.get(&pack).expect("it is read");
            bytes[100] ^= 1;
            bucket.put(&pack, &bytes).expect("it is put over");
            Vec::new()
        },
        codes: &[14, 0, 0, 0],
        after: |place| assert_restored(place, "target/whole", &place.source()),
    },
    Case {
        recipe: "half-a-bucket-without-copy",
        disaster: lose_a_pack_of_one,
        codes: &[14, 3, 0, 3, 0],
        after: |place| {
            let (new, again) = (text(place, "target/new"), text(place, "again"));
            place.run(&["-r", &new, "restore", "latest", "--target", &again], 0);
            assert_restored(place, "again", &place.path("other"));
        },
    },
    Case {
        recipe: "lost-index",
        disaster: |_, bucket| {
            let segment = bucket.names("index/").expect("a listing").remove(0);
            bucket.put(&segment, b"").expect("it is put over");
            Vec::new()
        },
        codes: &[14, 0, 0],
        after: the_source_comes_back,
    },
    Case {
        recipe: "lost-session",
        disaster: |_, bucket| {
            let session = bucket.names("sessions/").expect("a listing").remove(0);
            bucket.delete(&session).expect("it is deleted");
            vec![("LOST", session.replace("sessions/", ""))]
        },
        codes: &[14, 0, 0, 0],
        after: the_source_comes_back,
    },
    Case {
        recipe: "forgotten",
        disaster: |place, _| {
            let latest = latest(place);
            place.run(&["forget", &latest], 0);
            vec![("FORGOTTEN", latest)]
        },
        codes: &[0; 4],
        after: |place| assert_restored(place, "target/back", &place.source()),
    },
];

#[test]
fn recipes_that_need_nothing_but_the_program_work_on_a_bucket() {
    let server = MinioServer::start().expect("MinIO starts");
    for case in &CASES {
        let place = Place::on(&server, case.recipe);
        let bucket = Bucket::of_owner(&server, BUCKET, case.recipe).expect("a client");
        place.backup();
        let told = (case.disaster)(&place, &bucket);
        fs::create_dir(place.path("target")).expect("makes");
        let mut shell = Command::new("/bin/bash");
        shell.env_clear().env("SOURCE", place.source()).env("TARGET", place.path("target")).envs(told);
        // What leads the program to the repository.
        for (name, value) in place.command(&[]).get_envs() {
            shell.env(name, value.expect("nothing is taken away"));
        }
        let (said, codes) = cook(case.recipe, shell, &place.path(""));
        assert_eq!(codes, case.codes, "exit codes of {}:\n{said}", case.recipe);
        (case.after)(&place);
    }
}

fn text(place: &Place, name: &str) -> String {
    place.path(name).display().to_string()
}

fn largest_pack(bucket: &Bucket) -> String {
    let packs = bucket.list("packs/").expect("a listing");
    packs.into_iter().max_by_key(|(_, size)| *size).expect("a pack").0
}

/// The name of the newest snapshot.
fn latest(place: &Place) -> String {
    newest(&place.run(&["snapshots", "--json"], 0))
}

fn lose_a_pack_of_one(place: &Place, bucket: &Bucket) -> Told {
    let (pack, damaged) = (largest_pack(bucket), latest(place));
    fs::create_dir(place.path("other")).expect("makes");
    fs::write(place.path("other/file"), noise(200, 50_000)).expect("writes");
    place.run(&["backup", &text(place, "other")], 0);
    bucket.delete(&pack).expect("it is deleted");
    vec![("DAMAGED", damaged)]
}

fn the_source_comes_back(place: &Place) {
    place.compare("latest", &place.source(), "again");
}

/// Whether a snapshot of this tree was restored to this target as it is.
fn assert_restored(place: &Place, target: &str, tree: &Path) {
    let found = place.path(target).join(tree.strip_prefix("/").expect("an absolute path"));
    assert_eq!(rsync_differences(tree, &found, &[]).expect("rsync runs"), "", "{target} is not as it was");
}
