//! What a source is: the same one however its path is written, and only what a backup of files can keep.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use carrack_tests::program::{Printed, Program, ended};

fn prepared() -> (Program, PathBuf) {
    let carrack = Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
    let place = carrack.path("place");
    fs::create_dir_all(place.join("src/below")).expect("makes");
    fs::write(place.join("src/file"), b"contents").expect("writes");
    (carrack, place)
}

fn run_in(carrack: &Program, directory: &Path, arguments: &[&str], code: i32) -> Printed {
    ended(carrack.command(arguments).current_dir(directory), code)
}

/// The snapshots that this list has, oldest first.
fn snapshots(printed: &Printed) -> Vec<serde_json::Value> {
    let messages = printed.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    messages.filter(|message: &serde_json::Value| message["message_type"] == "snapshot").collect()
}

#[test]
fn a_source_is_the_same_however_it_is_written() {
    let (carrack, place) = prepared();
    let source = place.join("src").display().to_string();
    let ways = ["src", "src/", "./src", "src/../src", &format!("/{source}//."), "src ./src/"];
    for way in ways {
        let arguments: Vec<&str> = ["backup", "--host", "db1"].into_iter().chain(way.split(' ')).collect();
        run_in(&carrack, &place, &arguments, 0);
    }
    run_in(&carrack, &place.join("src/below"), &["backup", "--host", "db1", ".."], 0);
    let all = snapshots(&run_in(&carrack, &place, &["snapshots", "--json", "--path", "src/"], 0));
    assert_eq!(all.len(), ways.len() + 1);
    for (index, snapshot) in all.iter().enumerate() {
        assert_eq!(snapshot["paths"], serde_json::json!([source]));
        assert_eq!(snapshot["parent"].is_null(), index == 0, "{snapshot}");
    }
}

#[test]
fn a_writer_bundle_is_for_a_source_however_it_is_written() {
    let (carrack, place) = prepared();
    let bundle = run_in(&carrack, &place, &["key", "bundle", "--host", "db1", "--path", "./src/"], 0);
    let file = place.join("bundle").display().to_string();
    fs::write(&file, bundle.out).expect("writes");
    for (way, code) in [("src", 0), ("src/", 0), ("src/below/..", 0), ("src/below", 13)] {
        let mut command = carrack.command(["--writer-bundle", &file, "backup", "--host", "db1", way]);
        ended(command.env_remove("CARRACK_PASSWORD").current_dir(&place), code);
    }
}

/// By name alone another directory would be backed up than the one that was named.
#[test]
fn what_is_named_through_a_link_is_backed_up() {
    let (carrack, place) = prepared();
    symlink("src/below", place.join("link")).expect("links");
    run_in(&carrack, &place, &["backup", "link/../file"], 0);
    carrack.run(["cat", "file", &format!("latest:{}/src/file", place.display())], 0);
    run_in(&carrack, &place, &["backup", "link"], 0);
    let listed = carrack.run(["ls", "latest", "-R", "-l"], 0);
    assert!(listed.out.trim_end().ends_with("/place/link -> src/below"), "{}", listed.out);
}

#[test]
fn lists_of_paths_have_comments_and_patterns() {
    let (carrack, place) = prepared();
    let list = place.join("list").display().to_string();
    fs::write(&list, "# what is kept\n\nsr?\nnone*\n").expect("writes");
    let told = run_in(&carrack, &place, &["backup", "--files-from", &list], 0);
    assert!(told.err.contains("none*"), "{}", told.err);
    let text = carrack.run(["snapshots", "--json"], 0);
    assert_eq!(snapshots(&text)[0]["paths"], serde_json::json!([place.join("src").display().to_string()]));
    run_in(&carrack, &place, &["backup", "--files-from-verbatim", &list], 10);
    fs::write(&list, "none*\n").expect("writes");
    run_in(&carrack, &place, &["backup", "--files-from", &list], 2);
}

#[test]
fn a_device_as_a_path_is_refused() {
    let (carrack, place) = prepared();
    let device = place.join("src/device");
    let block = rustix::fs::FileType::BlockDevice;
    let mode = rustix::fs::Mode::RUSR;
    let made = rustix::fs::mknodat(rustix::fs::CWD, &device, block, mode, rustix::fs::makedev(7, 250));
    if made.is_err() {
        eprintln!("no device can be made here");
        return;
    }
    symlink("device", place.join("src/volume")).expect("links");
    for name in ["src/device", "src/volume"] {
        let told = run_in(&carrack, &place, &["backup", name], 2);
        assert!(told.err.contains(&format!("carrack backup --device {name}")), "{}", told.err);
    }
    run_in(&carrack, &place, &["backup", "src"], 0);
}

/// An image file may be backed up as a file as well, under the same path.
#[test]
fn an_image_is_no_parent_of_a_file() {
    let (carrack, place) = prepared();
    for arguments in
        [["--device", "src/file"].as_slice(), &["src/file"], &["--device", "src/file"], &["src/file"]]
    {
        run_in(&carrack, &place, &[&["backup"], arguments].concat(), 0);
    }
    let all = snapshots(&carrack.run(["snapshots", "--json"], 0));
    let id = |index: usize| &all[index]["id"];
    assert!(all[0]["parent"].is_null() && all[1]["parent"].is_null(), "{all:?}");
    assert_eq!((&all[2]["parent"], &all[3]["parent"]), (id(0), id(1)));
    assert_eq!(snapshots(&carrack.run(["snapshots", "--json", "--latest", "1"], 0)).len(), 2);
}

#[test]
fn a_snapshot_names_who_made_it() {
    let (carrack, place) = prepared();
    run_in(&carrack, &place, &["backup", "src"], 0);
    let users = fs::read_to_string("/etc/passwd").expect("reads");
    let user = snapshots(&carrack.run(["snapshots", "--json"], 0))[0]["username"].clone();
    let user = user.as_str().expect("a name");
    assert!(users.lines().any(|line| line.starts_with(&format!("{user}:"))), "{user}");
}
