//! Names that are there already, and names that a lost sending has left free: what he puts over the ones, and into the
//! others.

use std::fs;

use anyhow::Context as _;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use carrack_tests::{
    bucket::MOVER_FOLDERS,
    minio::BUCKET,
    program::ended,
    stage::{PASSWORD, Stage},
};

use crate::{
    Thief, names,
    versions::{all, go_back, versioned, with_bytes},
};

/// Objects that the operator guide lets a mover write.
fn writable(stage: &Stage) -> Vec<String> {
    let all = MOVER_FOLDERS.iter().flat_map(|folder| stage.owner.names(folder).unwrap());
    all.filter(|name| !name.starts_with("sessions/r") && !name.starts_with("snapshots/r")).collect()
}

#[test]
fn what_he_puts_over_is_named_and_the_versions_before_bring_it_back() {
    let mut stage = versioned();
    for (host, number) in [("db1", 1), ("mail", 2)] {
        stage.change(host, number).unwrap();
        stage.backup(host).unwrap();
    }
    let before = writable(&stage);
    stage.change("db1", 3).unwrap();
    let source = stage.source("db1").display().to_string();
    let last = stage.run(&["backup", "--json", "--host", "db1", &source], 0).message("summary")["session"]
        .as_str()
        .unwrap()
        .to_owned();
    let thief = Thief::of(&stage, false);
    let (true_versions, everything) = (all(&stage), writable(&stage));
    let of_last: Vec<String> = everything.iter().filter(|name| !before.contains(name)).cloned().collect();
    for folder in MOVER_FOLDERS {
        assert!(of_last.iter().any(|name| name.starts_with(folder)), "{folder} of {of_last:?}");
    }

    // Without a condition, over each object of one backup: the others are not touched.
    for object in &of_last {
        thief.bucket.put(object, b"put over").unwrap();
        assert_eq!(stage.owner.get(object).unwrap(), b"put over");
    }
    let checked = stage.run(&["check", "--read-data"], 14);
    of_last.iter().for_each(|object| names(&checked, object));
    // The others come back, though what lists them ends with 3.
    stage.all_come_back().unwrap();
    stage.keep(&last, "db1").unwrap();

    // Over everything. The older versions are not his to take away.
    for object in &everything {
        thief.bucket.put(object, b"put over again").unwrap();
    }
    let checked = stage.run(&["check", "--read-data"], 14);
    everything.iter().for_each(|object| names(&checked, object));
    for (name, version) in with_bytes(&stage, "") {
        let delete = thief.bucket.client().delete_object().bucket(BUCKET).key(thief.bucket.key(&name));
        let refused = thief.bucket.run(delete.version_id(version).send()).unwrap_err();
        assert_eq!(refused.code(), Some("AccessDenied"), "{name}");
    }

    // What checks have noted meanwhile goes as well.
    assert!(go_back(&stage, &true_versions) >= of_last.len() + everything.len());
    stage.run(&["check", "--read-data"], 0);
    stage.run(&["snapshots"], 0);
    stage.all_come_back().unwrap();
    stage.change("db1", 4).unwrap();
    stage.backup("db1").unwrap();
    stage.run(&["prune"], 0);
    stage.all_come_back().unwrap();
}

/// What he puts where a lost sending was meant to be, made from the sending that arrived.
type Squat = fn(&[u8]) -> Vec<u8>;

/// Copies into a new repository have everything.
fn all_are_copied(stage: &Stage) {
    let copies = stage.path("copies");
    let of_copies = |arguments: &[&str]| {
        let mut command = stage.command(arguments);
        command.env("CARRACK_REPOSITORY", &copies).env("CARRACK_FROM_PASSWORD", PASSWORD);
        command
    };
    ended(&mut of_copies(&["init"]), 0);
    ended(&mut of_copies(&["copy", "--from-repo", &stage.repository()]), 0);
    let checked = ended(&mut of_copies(&["check", "--read-data", "--json"]), 0);
    let original = stage.run(&["check", "--json"], 0);
    assert_eq!(checked.message("summary")["snapshots"], original.message("summary")["snapshots"]);
    fs::remove_dir_all(&copies).unwrap();
}

/// A pack whose first sending was lost lies under its second name, and the first one is free for whoever comes. Whatever
/// is there, the whole one serves.
#[test]
fn garbage_under_the_name_of_a_lost_sending_stops_nobody() {
    // Below the true footer, whose bytes he knows, nothing tells before the frames themselves are read; nor do zeros.
    let squats: [(&str, Squat); 6] = [
        ("some bytes", |_| b"rubbish".to_vec()),
        ("its first half", |whole| whole[..whole.len() / 2].to_vec()),
        ("as many bytes", |whole| vec![0; whole.len()]),
        ("more bytes", |whole| vec![0; whole.len() + 1]),
        ("the true footer, and nothing before it", |whole| whole[whole.len() / 2..].to_vec()),
        ("garbage and the true footer", |whole| {
            [&vec![0; whole.len() / 2], &whole[whole.len() / 2..]].concat()
        }),
    ];
    for (what, squat) in squats {
        let mut stage = Stage::set().unwrap();
        let thief = Thief::of(&stage, false);
        let packs = stage.owner.names("packs/").unwrap();
        for pack in &packs {
            let whole = stage.owner.get(pack).unwrap();
            stage.owner.put(&format!("{pack}.1"), &whole).unwrap();
            stage.owner.delete(pack).unwrap();
            thief.bucket.create(pack, &squat(&whole)).unwrap();
        }
        stage.all_come_back().context(what).unwrap();
        for number in [5, 6] {
            for host in ["db1", "mail"] {
                stage.change(host, number).unwrap();
                stage.backup(host).unwrap();
            }
        }
        stage.all_come_back().context(what).unwrap();
        let checked = stage.run(&["check", "--read-data"], 0);
        packs.iter().for_each(|pack| names(&checked, pack));
        let before = stage.owner.names("packs/").unwrap();
        stage.run(&["prune"], 0);
        assert_eq!(stage.owner.names("packs/").unwrap(), before);
        stage.all_come_back().context(what).unwrap();
        let file = stage.source("mail").join("deep/random 2");
        let printed =
            stage.command(&["cat", "file", &format!("latest:{}", file.display())]).output().unwrap();
        assert!(printed.status.success() && printed.stdout == fs::read(file).unwrap(), "{what}: {printed:?}");
        all_are_copied(&stage);
        // What the first snapshot alone needs goes, and the rest is moved.
        let oldest = stage.oldest().unwrap();
        stage.give_up(&oldest);
        stage.run(&["forget", &oldest], 0);
        let moved = stage.run(&["prune", "--max-unused", "0"], 0);
        assert!(stage.owner.names("packs/").unwrap() != before, "{what}: {}", moved.err);
        stage.all_come_back().context(what).unwrap();

        packs.iter().for_each(|pack| stage.owner.delete(pack).unwrap());
        let whole = stage.run(&["check", "--read-data"], 0);
        assert!(!packs.iter().any(|pack| whole.err.contains(pack)), "{what}: {}", whole.err);
        stage.run(&["prune"], 0);
        stage.all_come_back().context(what).unwrap();
    }
}
