use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::process::Command;

use super::{Disk, State, Steps};
use crate::images::in_private_mounts;

/// A shell that does this in a directory with a new disk; what is on it then, and the steps that it took.
fn done(script: &str, end_at: Option<u64>) -> (State, u64, bool) {
    counted(script, Steps::Changes, end_at)
}

fn counted(script: &str, steps: Steps, end_at: Option<u64>) -> (State, u64, bool) {
    in_private_mounts(|| {
        let place = tempfile::tempdir().expect("a directory");
        let disk = Disk::mount(State::default(), place.path()).expect("mounts");
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(place.path());
        let ran = disk.run(&mut command, steps, end_at).expect("runs");
        assert_eq!(ran.output.status.success(), !ran.killed, "{:?}", ran.output);
        (disk.state(), ran.steps, ran.killed)
    })
}

#[test]
fn what_was_not_synced_is_gone_without_power() {
    let (state, ..) = done("mkdir d; echo one > d/synced; echo two > d/not; sync d/synced", None);
    assert_eq!(state.paths(""), ["d/", "d/not", "d/synced"]);
    assert!(state.after_power_loss(None).paths("").is_empty(), "no name was synced");

    let (state, ..) = done("mkdir d; echo one > d/synced; echo two > d/not; sync d/synced d .", None);
    let state = state.after_power_loss(None);
    assert_eq!(state.paths(""), ["d/", "d/not", "d/synced"]);
    in_private_mounts(|| {
        let place = tempfile::tempdir().expect("a directory");
        let _disk = Disk::mount(state.clone(), place.path()).expect("mounts");
        assert_eq!(fs::read(place.path().join("d/synced")).expect("reads"), b"one\n");
        assert_eq!(
            fs::read(place.path().join("d/not")).expect("reads"),
            b"",
            "its name came, its bytes did not"
        );
    });
}

#[test]
fn torn_states_are_between_the_two() {
    let script = "echo old > a; sync a .; for n in 1 2 3 4 5 6; do echo new > $n; done; rm a";
    let (state, ..) = done(script, None);
    let states: Vec<_> = (0..20).map(|seed| state.after_power_loss(Some(seed)).paths("")).collect();
    assert!(states.iter().any(|paths| paths.contains(&"a".into())));
    assert!(states.iter().any(|paths| !paths.contains(&"a".into())));
    assert!(states.iter().any(|paths| (2..6).contains(&paths.len())));
    assert_eq!(states, (0..20).map(|seed| state.after_power_loss(Some(seed)).paths("")).collect::<Vec<_>>());
}

#[test]
fn a_program_is_killed_at_each_step() {
    let script = "echo one > a; mkdir d; mv a d/b; ln d/b c; sync d; rm c";
    let (whole, steps, _) = done(script, None);
    assert_eq!(whole.paths(""), ["d/", "d/b"]);
    let mut before = Vec::new();
    for step in 1..=steps {
        let (state, taken, killed) = done(script, Some(step));
        assert_eq!((taken, killed), (step - 1, true));
        before.push(state.paths(""));
    }
    assert_eq!(before.first(), Some(&vec![]));
    assert_eq!(before.last(), Some(&vec!["c".to_owned(), "d/".into(), "d/b".into()]));
    assert!(!done(script, Some(steps + 1)).2);
}

#[test]
fn what_only_looks_has_steps_if_they_are_counted() {
    let script = "echo one > a; mkdir d; cat a; ls d";
    let (_, changes, _) = done(script, None);
    let (_, all, _) = counted(script, Steps::All, None);
    assert_eq!(all, changes + 2, "a file that is opened, and a directory that is listed");
    for step in [all - 1, all] {
        let (_, taken, killed) = counted(script, Steps::All, Some(step));
        assert_eq!((taken, killed), (step - 1, true));
    }
    assert!(!counted(script, Steps::All, Some(all + 1)).2);
}

#[test]
fn it_behaves_as_file_systems_do() {
    in_private_mounts(|| {
        let place = tempfile::tempdir().expect("a directory");
        let disk = Disk::mount(State::default(), place.path()).expect("mounts");
        let at = |name: &str| place.path().join(name);
        fs::write(at("file"), b"0123456789").expect("writes");
        let file = File::options().read(true).write(true).open(at("file")).expect("opens");
        file.write_all_at(b"xyz", 20).expect("writes");
        file.set_len(22).expect("sets");
        assert_eq!(fs::read(at("file")).expect("reads"), b"0123456789\0\0\0\0\0\0\0\0\0\0xy");
        fs::hard_link(at("file"), at("other")).expect("links");
        assert_eq!(fs::metadata(at("file")).expect("looks").nlink(), 2);
        fs::remove_file(at("file")).expect("removes");
        // Whoever has it open keeps it, with or without names.
        fs::remove_file(at("other")).expect("removes");
        file.write_all_at(b"open", 0).expect("writes");
        symlink("nowhere", at("link")).expect("links");
        assert_eq!(fs::read_link(at("link")).expect("reads").as_os_str(), "nowhere");
        fs::create_dir_all(at("a/b")).expect("makes");
        assert!(fs::remove_dir(at("a")).is_err(), "it is not empty");
        let (from, to) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
        let kept = rustix::fs::renameat_with(from, at("link"), from, at("a"), to);
        assert_eq!(kept, Err(rustix::io::Errno::EXIST));
        assert_eq!(disk.state().paths(""), ["a/", "a/b/", "link"]);
    });
}
