//! Keys from outside: passwords come and go, a rotation shuts the others out, and nothing that was backed up is lost,
//! whenever a rotation is killed.
//!
//! Needs the program beside the tests (`cargo build -p carrack-mover`).

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use carrack_tests::{
    program::{Printed, Program, ended, wait_until},
    trees::{differences, noise, read},
};

fn prepared() -> (Program, PathBuf) {
    let carrack = Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
    let source = carrack.path("source");
    fs::create_dir(&source).expect("makes");
    for name in ["one", "two", "three"] {
        fs::write(source.join(name), noise(name.len() as u64, 50_000)).expect("writes");
    }
    for password in ["second", "third"] {
        fs::write(carrack.path(password), format!("{password}\n")).expect("writes");
    }
    backup(&carrack, "correct", 0);
    (carrack, source)
}

/// Runs the program with another password.
fn with(carrack: &Program, password: &str, arguments: &[&str], code: i32) -> Printed {
    ended(carrack.command(arguments).env("CARRACK_PASSWORD", password), code)
}

fn backup(carrack: &Program, password: &str, code: i32) -> Printed {
    let source = carrack.path("source").display().to_string();
    with(carrack, password, &["backup", "--host", "db1", &source], code)
}

/// Adds a password that lies in a file of its name.
fn add(carrack: &Program, password: &str) {
    let file = carrack.path(password).display().to_string();
    with(carrack, "correct", &["key", "add", "--label", password, "--new-password-file", &file], 0);
}

fn keys(carrack: &Program) -> Vec<serde_json::Value> {
    let printed = carrack.run(["key", "list", "--json"], 0);
    let messages = printed.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    messages.filter(|message: &serde_json::Value| message["message_type"] == "key").collect()
}

fn snapshots(carrack: &Program, password: &str) -> Vec<String> {
    let printed = with(carrack, password, &["snapshots", "--json"], 0);
    let ids = printed.out.split("\"id\":\"").skip(1);
    ids.filter_map(|text| text.split('"').next()).map(str::to_owned).collect()
}

/// Every snapshot comes back with this password, the newest one as the source is now.
fn all_come_back(carrack: &Program, password: &str, source: &Path, count: usize) {
    let ids = snapshots(carrack, password);
    assert_eq!(ids.len(), count, "{ids:?}");
    for id in ids.iter().map(String::as_str).chain(["latest"]) {
        let target = tempfile::tempdir().expect("a directory");
        let place = target.path().display().to_string();
        let what = format!("{id}:{}", source.display());
        with(carrack, password, &["restore", &what, "--target", &place, "--verify"], 0);
        if id == "latest" {
            let (mut wanted, mut found) =
                (read(&[source]).expect("reads"), read(&[target.path()]).expect("reads"));
            // The target itself belongs to whoever made it.
            wanted.remove(&b"0"[..]);
            found.remove(&b"0"[..]);
            assert_eq!(differences(&wanted, &found), [""; 0]);
        }
    }
}

#[test]
fn passwords_come_and_go() {
    let (carrack, source) = prepared();
    add(&carrack, "second");
    let listed = keys(&carrack);
    assert_eq!(listed.len(), 2);
    let second = listed.iter().find(|key| key["label"] == "second").expect("it is listed");
    assert_eq!(second["kind"], "passphrase");
    all_come_back(&carrack, "second", &source, 1);
    backup(&carrack, "second", 0);
    all_come_back(&carrack, "correct", &source, 2);

    // Without a terminal it says which options give the new one, not the variables of the one in use.
    let missing = carrack.run(["key", "add"], 13);
    assert!(missing.err.contains("no new password for"), "{}", missing.err);
    assert!(missing.err.contains("--new-password-file"), "{}", missing.err);
    assert!(!missing.err.contains("CARRACK_PASSWORD"), "{}", missing.err);

    let id = second["id"].as_str().expect("an id")[..8].to_owned();
    with(&carrack, "wrong", &["key", "remove", &id], 13);
    carrack.run(["key", "remove", "ffffffffffffffff"], 10);
    carrack.run(["key", "remove", &id], 0);
    with(&carrack, "second", &["snapshots"], 13);
    all_come_back(&carrack, "correct", &source, 2);
    // The last one stays.
    let last = keys(&carrack)[0]["id"].as_str().expect("an id").to_owned();
    let refused = carrack.run(["key", "remove", &last], 11);
    assert!(refused.err.contains("next: "), "{}", refused.err);
    carrack.run(["snapshots"], 0);
}

#[test]
fn a_removal_shows_what_goes_and_what_opens_afterwards() {
    let (carrack, _) = prepared();
    add(&carrack, "second");
    let listed = keys(&carrack);
    let [first, second] = &listed[..] else { unreachable!("{listed:?}") };
    let short = |key: &serde_json::Value| key["id"].as_str().expect("an id")[..8].to_owned();
    let (kept, gone) = (short(first), short(second));
    let plan = serde_json::json!(
        {"message_type": "plan", "remove": [without_type(second)], "unproven": [], "stay": [without_type(first)]}
    );
    for options in [&["--dry-run"][..], &[]] {
        if !options.is_empty() {
            let words = carrack.run(["key", "remove", &gone, "-n"], 0).out;
            let lines: Vec<&str> = words.lines().collect();
            assert!(
                lines[0].starts_with(&format!("remove  {gone}  ")) && lines[0].ends_with("second"),
                "{words}"
            );
            assert!(lines[1].starts_with(&format!("stays   {kept}  ")), "{words}");
            assert_eq!(lines[2..], ["nothing was removed"], "{words}");
        }
        let printed = carrack.run(["key", "remove", &gone, "--json"].iter().chain(options), 0);
        assert_eq!(printed.message("plan"), plan);
        let summary = printed.message("summary");
        let (dry, removed) = (!options.is_empty(), if options.is_empty() { 1 } else { 0 });
        assert_eq!((&summary["dry_run"], &summary["removed"]), (&dry.into(), &removed.into()));
        with(&carrack, "second", &["snapshots"], if dry { 0 } else { 13 });
    }
    assert_eq!(keys(&carrack), std::slice::from_ref(first));
    // A dry run is refused as the removal would be, and what nobody signed is shown by its name.
    carrack.run(["key", "remove", &kept, "-n"], 11);
    carrack.run(["key", "remove", "ffffffffffffffff", "-n"], 10);
    let forged = carrack.path("repository/keys").join("0f".repeat(16));
    fs::write(&forged, b"not a key").expect("writes");
    let name = format!("keys/{}", "0f".repeat(16));
    for options in [&["--dry-run"][..], &[]] {
        let arguments = ["key", "remove", "--unproven", "--json"];
        let printed = carrack.run(arguments.iter().chain(options), 0);
        let plan = printed.message("plan");
        assert_eq!(
            (&plan["remove"], &plan["unproven"]),
            (&serde_json::json!([]), &serde_json::json!([name]))
        );
        assert_eq!(plan["stay"], serde_json::json!([without_type(first)]));
        assert_eq!(printed.message("summary")["removed"], if options.is_empty() { 1 } else { 0 });
        assert_eq!(forged.exists(), !options.is_empty());
    }
}

/// A key as a part of another message.
fn without_type(key: &serde_json::Value) -> serde_json::Value {
    let mut fields = key.as_object().expect("an object").clone();
    fields.remove("message_type");
    fields.into()
}

#[test]
fn a_secret_opens_as_a_password_does() {
    let (carrack, source) = prepared();
    let file = carrack.path("secret");
    fs::write(&file, format!("{}\n", "0f".repeat(32))).expect("writes");
    carrack.run(["key".as_ref(), "add".as_ref(), "--new-key-file".as_ref(), file.as_os_str()], 0);
    let with_key = |arguments: &[&str], code| {
        let mut command = carrack.command(arguments);
        ended(command.env_remove("CARRACK_PASSWORD").env("CARRACK_KEY_FILE", &file), code)
    };
    with_key(&["snapshots"], 0);
    with_key(&["check"], 0);
    fs::write(&file, "0f0f").expect("writes");
    with_key(&["snapshots"], 2);
    fs::write(&file, "f0".repeat(32)).expect("writes");
    with_key(&["snapshots"], 13);
    all_come_back(&carrack, "correct", &source, 1);
}

#[test]
fn a_rotation_shuts_the_other_passwords_out_and_keeps_every_snapshot() {
    let (carrack, source) = prepared();
    add(&carrack, "second");
    let before = keys(&carrack);
    let dry = carrack.run(["key", "rotate", "--dry-run"], 0);
    assert!(dry.out.contains("second"), "{}", dry.out);
    assert_eq!(keys(&carrack), before);

    carrack.run(["key", "rotate"], 0);
    let after = keys(&carrack);
    assert_eq!(after.len(), 1);
    assert!(before.iter().all(|key| key["id"] != after[0]["id"]), "the key is a new one");
    with(&carrack, "second", &["snapshots"], 13);
    backup(&carrack, "second", 13);
    all_come_back(&carrack, "correct", &source, 1);
    fs::write(source.join("four"), noise(4, 200_000)).expect("writes");
    backup(&carrack, "correct", 0);
    all_come_back(&carrack, "correct", &source, 2);

    // A key added now opens both generations, and so does the next rotation.
    add(&carrack, "third");
    all_come_back(&carrack, "third", &source, 2);
    with(&carrack, "third", &["key", "rotate"], 0);
    with(&carrack, "correct", &["snapshots"], 13);
    fs::write(source.join("five"), noise(5, 1_000)).expect("writes");
    backup(&carrack, "third", 0);
    all_come_back(&carrack, "third", &source, 3);
}

/// A mover's keys write one lineage, read no data, and know only the generation that they were made in.
#[test]
fn a_bundle_writes_and_does_not_read() {
    let (carrack, source) = prepared();
    let path = source.display().to_string();
    let make = |name: &str| {
        let printed = carrack.run(["key", "bundle", "--host", "db1", "--path", &path], 0);
        let file = carrack.path(name);
        fs::write(&file, printed.out).expect("writes");
        file
    };
    let mover = |bundle: &Path, arguments: &[&str], code| {
        let mut command = carrack.command(arguments);
        ended(command.env_remove("CARRACK_PASSWORD").env("CARRACK_WRITER_BUNDLE", bundle), code)
    };
    let bundle = make("bundle");
    fs::write(source.join("by the mover"), noise(6, 100_000)).expect("writes");
    mover(&bundle, &["backup", "--host", "db1", &path], 0);
    all_come_back(&carrack, "correct", &source, 2);
    let target = carrack.path("stolen").display().to_string();
    mover(&bundle, &["restore", "latest", "--target", &target], 13);
    assert!(!Path::new(&target).join(path.trim_start_matches('/')).join("one").exists());
    mover(&bundle, &["key", "rotate"], 13);
    mover(&bundle, &["forget", "--keep-last", "1"], 13);

    // After a rotation it still writes what its owner can read, and a new one takes its place.
    carrack.run(["key", "rotate"], 0);
    fs::write(source.join("later"), noise(7, 100_000)).expect("writes");
    mover(&bundle, &["backup", "--host", "db1", &path], 0);
    all_come_back(&carrack, "correct", &source, 3);
    let bundle = make("next");
    fs::write(source.join("latest"), noise(8, 100_000)).expect("writes");
    mover(&bundle, &["backup", "--host", "db1", &path], 0);
    all_come_back(&carrack, "correct", &source, 4);
}

#[test]
fn a_killed_rotation_leaves_a_repository_that_opens() {
    let (carrack, source) = prepared();
    add(&carrack, "second");
    let objects = |name: &str| fs::read_dir(carrack.path("repository").join(name)).map_or(0, Iterator::count);
    for round in 0..6_u64 {
        let mut command = carrack.command(["key", "rotate"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(12 * round));
        } else {
            // As soon as the new key is there, and perhaps before an old one is gone.
            let before = objects("keys");
            wait_until(|| objects("keys") > before || child.try_wait().is_ok_and(|ended| ended.is_some()))
                .expect("it goes on");
        }
        child.kill().expect("it can be killed, ended or not");
        child.wait().expect("ends");
        fs::write(source.join("one"), noise(20 + round, 30_000)).expect("writes");
        backup(&carrack, "correct", 0);
    }
    // What was left over goes with the next one.
    carrack.run(["key", "rotate"], 0);
    assert_eq!(keys(&carrack).len(), 1);
    with(&carrack, "second", &["snapshots"], 13);
    carrack.run(["check", "--read-data"], 0);
    all_come_back(&carrack, "correct", &source, 7);
}

/// As if it had been killed as soon as the new key was there.
#[test]
fn a_rotation_counts_from_the_moment_its_key_is_there() {
    let (carrack, source) = prepared();
    add(&carrack, "second");
    let old: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(carrack.path("repository/keys"))
        .expect("lists")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(&path).expect("reads")))
        .collect();
    carrack.run(["key", "rotate"], 0);
    for (path, bytes) in &old {
        fs::write(path, bytes).expect("writes");
    }
    fs::write(source.join("four"), noise(4, 50_000)).expect("writes");
    backup(&carrack, "correct", 0);
    // Whoever has a key of before would not see that, and could take away what opens it.
    for arguments in [&["snapshots"][..], &["prune"], &["key", "rotate"]] {
        let refused = with(&carrack, "second", arguments, 13);
        assert!(refused.err.contains("were rotated"), "{}", refused.err);
    }
    let is_old = |key: &serde_json::Value| {
        old.iter().any(|(path, _)| path.file_name().and_then(OsStr::to_str) == key["id"].as_str())
    };
    let listed = keys(&carrack);
    let newest = listed.iter().find(|key| !is_old(key)).expect("it is listed");
    carrack.run(["key", "remove", newest["id"].as_str().expect("an id")], 11);
    carrack.run(["prune"], 0);
    assert_eq!(keys(&carrack), std::slice::from_ref(newest));
    all_come_back(&carrack, "correct", &source, 2);
}

#[test]
fn a_new_password_is_not_made_up_where_nobody_can_be_asked() {
    let (carrack, _) = prepared();
    let refused = carrack.run([OsStr::new("key"), "add".as_ref()], 13);
    assert!(refused.err.contains("terminal"), "{}", refused.err);
    assert_eq!(keys(&carrack).len(), 1);
}
