//! Somebody works against a restore in its target: directories become links, and files become links and further names of
//! what lies outside, all the time while it looks, deletes, writes and reads back. Nothing outside changes, nobody comes
//! there, and it ends in time.
//!
//! Needs root, Python for the peak of memory, and the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use carrack_mover::format::{
    entry::{Content, Run},
    frame::FrameKind,
    metadata::Kind,
};
use carrack_tests::{
    hostile::{
        Forger, entry,
        lookout::Lookout,
        scene::Scene,
        swaps::{Swaps, while_swapping},
        with_contents,
    },
    program::text,
    trees::noise,
};

/// Those that take long to write. Something outside has the same names.
const LARGE: [&str; 2] = ["victim", "directory/inside"];
/// Names in a directory that the snapshot does not have: so many take a while to go.
const OTHERS: usize = 2_000;

fn small() -> Vec<String> {
    (0..200).map(|number| format!("file {number}")).collect()
}

/// A directory `d` of small files, and, if it is `whole`, with a directory and large files as well.
fn scene(whole: bool) -> Scene {
    let scene = Scene::new(assert_cmd::cargo::cargo_bin("carrack"));
    scene.forge(async |mut forger: Forger| {
        let mut entries = vec![entry(b"d", Kind::Directory)];
        for name in small() {
            entries.push(forger.file(format!("d/{name}").as_bytes(), b"hostile")?);
        }
        if whole {
            entries.push(entry(b"d/directory", Kind::Directory));
            for name in small() {
                entries.push(forger.file(format!("d/directory/{name}").as_bytes(), b"hostile")?);
            }
            for name in LARGE {
                let chunk = forger.chunk(FrameKind::Data, &noise(3, 1 << 20))?;
                let runs = vec![Run::Chunk(chunk.clone()), Run::Hole(1 << 20), Run::Chunk(chunk)];
                entries.push(with_contents(format!("d/{name}").as_bytes(), Content::Inline(runs), 3 << 20));
            }
        }
        forger.commit_entries(entries).await
    });
    scene
}

fn empty(target: &Path) {
    if target.exists() {
        fs::remove_dir_all(target).expect("removes");
    }
}

/// Restores with these options again and again while somebody works against it, each time into what `prepare` makes of the
/// target.
fn against(scene: &Scene, options: &[&str], prepare: impl Fn(&Path)) {
    let files: Vec<String> =
        small().into_iter().flat_map(|name| [name, LARGE[0].to_owned(), LARGE[1].to_owned()]).collect();
    let target = scene.carrack.path("target");
    let arguments = [&["restore", "latest", "--target", text(&target)][..], options].concat();
    let mut swaps = Swaps::default();
    for round in 0..20 {
        if round >= 3 && swaps.all_happened() {
            break;
        }
        prepare(&target);
        let lookout = Lookout::at(&[&scene.outside, &scene.outside.join("directory")]);
        let (_, meanwhile) =
            while_swapping(&target.join("d"), &scene.outside, &files, || scene.run_against(&arguments));
        assert_eq!(lookout.seen(), [""; 0], "{arguments:?} was led there");
        scene.assert_outside();
        // That has opened everything there.
        assert!(!lookout.seen().is_empty(), "the lookout is blind");
        swaps += meanwhile;
    }
    assert!(swaps.all_happened(), "nobody worked against it: {swaps:?}");
}

/// In the end, when nobody works against it any more, the same restore does all that it is to do.
fn left_alone(scene: &Scene, options: &[&str]) {
    let target = scene.carrack.path("target");
    let outcome = scene.run(&[&["restore", "latest", "--target", text(&target)][..], options].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for name in small() {
        assert_eq!(fs::read(target.join("d").join(&name)).expect("it is there"), b"hostile", "{name}");
    }
}

/// The large files are as in the snapshot.
fn assert_large(scene: &Scene) {
    let part = noise(3, 1 << 20);
    let wanted = [&part[..], &vec![0; 1 << 20], &part].concat();
    for name in LARGE {
        let found = fs::read(scene.carrack.path("target").join("d").join(name)).expect("it is there");
        assert!(found == wanted, "{name}");
    }
}

/// Restores into the target, which nobody disturbs.
fn restored(scene: &Scene, target: &Path) {
    empty(target);
    scene.carrack.run(["restore", "latest", "--target", text(target)], 0);
}

#[test]
fn a_new_target_leads_nowhere() {
    let scene = scene(true);
    against(&scene, &[], empty);
}

/// What is deleted is what lies in the target, and never what somebody puts in its place.
#[test]
fn what_is_deleted_leads_nowhere() {
    let scene = scene(false);
    against(&scene, &["--delete"], |target| {
        empty(target);
        let directories = [target.join("d"), target.join("d/directory"), target.join("d/directory/deeper")];
        for directory in directories {
            fs::create_dir_all(&directory).expect("makes");
            for number in 0..OTHERS {
                fs::write(directory.join(format!("other {number}")), b"").expect("writes");
            }
        }
        for name in LARGE.into_iter().map(str::to_owned).chain(small()) {
            fs::write(target.join("d").join(name), b"of the target").expect("writes");
        }
    });
    left_alone(&scene, &["--delete"]);
    let left = fs::read_dir(scene.carrack.path("target/d")).expect("it is there").count();
    assert_eq!(left, small().len(), "something else is left");
}

/// What is read back is what lies in the target.
#[test]
fn what_is_read_back_leads_nowhere() {
    let scene = scene(true);
    // All is as it is to be, so that most of the time goes into reading it.
    let options = ["--overwrite", "if-changed", "--verify"];
    against(&scene, &options, |target| restored(&scene, target));
    left_alone(&scene, &["--verify"]);
    assert_large(&scene);
}

/// Also right after it was written.
#[test]
fn what_is_written_and_read_back_leads_nowhere() {
    let scene = scene(true);
    against(&scene, &["--verify"], empty);
}

/// Files that differ in a few bytes are written in place: in those of the target, and in nobody else's.
fn in_place(options: &[&str]) {
    let scene = scene(true);
    against(&scene, options, |target| {
        restored(&scene, target);
        for name in LARGE.into_iter().map(str::to_owned).chain(small()) {
            let file = File::options().write(true).open(target.join("d").join(&name)).expect("opens");
            // In the last byte, and in what is to be a hole.
            file.write_all_at(b"x", 6).expect("writes");
            if LARGE.contains(&name.as_str()) {
                file.write_all_at(b"x", 3 << 19).expect("writes");
            }
        }
    });
    left_alone(&scene, options);
    assert_large(&scene);
}

#[test]
fn what_is_compared_and_written_in_place_leads_nowhere() {
    in_place(&["--overwrite", "always"]);
}

#[test]
fn what_has_changed_and_is_written_in_place_leads_nowhere() {
    in_place(&["--overwrite", "if-changed", "--verify"]);
}

/// All of it at once.
#[test]
fn what_is_deleted_written_in_place_and_read_back_leads_nowhere() {
    in_place(&["--overwrite", "if-changed", "--delete", "--verify"]);
}
