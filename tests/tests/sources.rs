//! What a source is: the same one however its path is written, and only what a backup of files can keep.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
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

#[test]
fn all_or_nothing_writes_no_snapshot_of_a_part() {
    let carrack = Program::as_nobody(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
    let source = carrack.path("source");
    fs::create_dir_all(source.join("private")).expect("makes");
    fs::write(source.join("file"), b"contents").expect("writes");
    fs::set_permissions(source.join("private"), fs::Permissions::from_mode(0o700)).expect("sets");
    let place = source.display().to_string();
    let refused = carrack.run(["backup", "--strict", &place], 16);
    assert!(refused.err.contains("private") && refused.err.contains("no snapshot is written"), "{refused:?}");
    assert!(snapshots(&carrack.run(["snapshots", "--json"], 0)).is_empty());
    carrack.run(["backup", &place], 3);
    fs::remove_dir(source.join("private")).expect("removes");
    carrack.run(["backup", "--strict", &place], 0);
    assert_eq!(snapshots(&carrack.run(["snapshots", "--json"], 0)).len(), 2);
}

/// Starts a command as root of a user namespace that knows the first 65536 users, as that of a pod.
fn in_user_namespace(command: &Command) -> Output {
    let mut inside = Command::new("unshare");
    inside.args(["--user", "sh", "-c", "read go && exec \"$@\"", "sh"]);
    inside.arg(command.get_program()).args(command.get_args()).env_clear();
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let pipes = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("unshare of util-linux");
    let own = fs::read_link("/proc/self/ns/user").expect("a namespace");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_link(format!("/proc/{}/ns/user", child.id())).is_ok_and(|other| other == own) {
        assert!(Instant::now() < deadline, "it has no namespace of its own");
        sleep(Duration::from_millis(5));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 65536").expect("root may map");
    }
    child.stdin.take().expect("a pipe").write_all(b"go\n").expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn owners_that_a_user_namespace_hides_are_named() {
    assert!(rustix::process::getuid().is_root(), "run as root: it makes files of other owners");
    let (carrack, place) = prepared();
    let source = place.join("src").display().to_string();
    let backup = |arguments: &[&str]| {
        let words = ["backup"].into_iter().chain(arguments.iter().copied()).chain([source.as_str()]);
        let output = in_user_namespace(&carrack.command(words));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    chown(place.join("src/file"), Some(1000), Some(1000)).expect("gives away");
    // Without a word of how far it is, which comes every few seconds.
    assert_eq!(backup(&["--strict", "--quiet"]), (Some(0), String::new()), "all of them are known");
    chown(place.join("src/file"), Some(100_000), Some(1000)).expect("gives away");
    let (code, said) = backup(&["--quiet"]);
    assert!(code == Some(3) && said.contains("src/file names somebody whom this user namespace"), "{said}");
    let (code, said) = backup(&["--strict"]);
    assert!(code == Some(16) && said.contains("no snapshot is written"), "{said}");
    chown(place.join("src/file"), Some(1000), Some(1000)).expect("gives away");
    let rights = ["-m", "u:100000:r", &format!("{source}/below")].map(str::to_owned);
    assert!(Command::new("setfacl").args(rights).status().expect("the package acl").success());
    let (code, said) = backup(&["--strict"]);
    assert!(code == Some(16) && said.contains("list of rights"), "{said}");
    // What a snapshot lacks, the next one does not take over in silence.
    for _ in 0..2 {
        let (code, said) = backup(&[]);
        assert!(code == Some(3) && said.contains("list of rights"), "{said}");
    }
    let (code, said) = backup(&["--strict", "--ignore-ctime"]);
    assert!(code == Some(16) && said.contains("list of rights"), "{said}");
    carrack.run(["backup", "--strict", &source], 0);
}
