//! What somebody learns who can list and read the whole bucket, and has no key: sizes within their padding, times, and
//! the numbers that `mover/docs/format.md` names in its section 17; nothing else. His credentials are real ones, which the
//! service lets do no more.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::Write as _,
    process::Stdio,
};

use carrack_mover::{
    codec::padme,
    format::records::{RecordKind, decode_record},
    repo::Join,
};
use carrack_tests::{
    bucket::Bucket,
    minio::BUCKET,
    program::{Running, ended, wait_until},
    stage::{PREFIX, Stage},
    trees::noise,
};
use serde_json::{Value, json};

/// What must not be found in any form: names of hosts, files, directories, tags, the words of contents, the password.
const WORDS: [&str; 9] = [
    "jupiter-db",
    "saturn-mail",
    "pluto-web",
    "secret plan",
    "the plan",
    "carrack-stage",
    "confidential",
    "dump.sql",
    "correct",
];
/// What all images begin with, by the seed of its noise and its bytes; and the same of what follows it in each. Of the first
/// one only the beginning is left.
const IMAGE: u64 = 300;
const HALF: usize = 512 << 10;
const IMAGES: [(u64, usize); 2] = [(301, 8 * HALF), (302, HALF)];
/// Segments of few rows that a backup joins.
const JOINED: u64 = Join::FROM as u64;
/// Bytes of a pack that say in clear what the format says they do.
const TRAILER: usize = 64;
/// Bytes of equal content that would be found as equal bytes.
const WINDOW: usize = 16;

type Objects = BTreeMap<String, Vec<u8>>;

/// A repository with some history: two backups of a tree, one of them again without a change, an image of which a prune
/// has moved what is left, a stream, a mark, a snapshot that was forgotten and freed, and a second password. Then a note of
/// damage, segments that were joined, a prune that ended between its decision and its deletes, a backup that was killed, and
/// a prune that was killed before its decision.
fn repository(host: &str) -> (Stage, Objects) {
    let mut stage = Stage::empty(BUCKET, |_| Ok(())).unwrap();
    stage.change(host, 1).unwrap();
    let first = stage.backup(host).unwrap();
    stage.change(host, 2).unwrap();
    let twice = [(); 2].map(|()| stage.backup(host).unwrap());
    let images = IMAGES.map(|contents| image(&stage, contents));
    stream(&stage, &noise(77, 500_000));
    stage.run(&["forget", "--pin", "latest"], 0);
    stage.run(&["forget", &first, &images[0]], 0);
    stage.run(&["prune", "--max-unused", "0"], 0);
    stage.run(&["check", "--read-data"], 0);
    let file = stage.path("password");
    fs::write(&file, "another\n").unwrap();
    stage.run(&["key", "add", "--new-password-file", file.to_str().unwrap()], 0);

    note_damage(&stage);
    stage.change(host, 3).unwrap();
    stage.backup(host).unwrap();
    // Each leaves a segment, and one of them joins those that there are.
    (0..=JOINED).for_each(|number| stream(&stage, &noise(400 + number, 10_000)));
    twice.iter().for_each(|snapshot| drop(stage.run(&["forget", snapshot], 0)));
    twice.iter().chain([&first]).for_each(|snapshot| stage.give_up(snapshot));
    cut_prune_off(&stage);
    kill_backup(&stage);
    kill_prune(&stage);
    stage.all_come_back().unwrap();
    let objects = seen(&stage);
    assert!(objects.contains_key(&format!("snapshots/{}", images[1])), "no image is in the scene");
    let is_relocations = |(name, bytes): (&String, &Vec<u8>)| {
        name.starts_with("snapshots/r")
            && decode_record(name, bytes).is_ok_and(|(kind, _)| kind == RecordKind::Relocation)
    };
    assert!(objects.iter().any(is_relocations), "no repack that has moved anything is in the scene");
    (stage, objects)
}

/// Backs a stream up.
fn stream(stage: &Stage, contents: &[u8]) {
    let stream = [
        "backup",
        "--host",
        "the-same-host",
        "--tag",
        "confidential",
        "--stdin",
        "--stdin-filename",
        "dump.sql",
    ];
    let mut child = stage.command(&stream).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(contents).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Backs an image up that begins with the same half megabyte each time, and has a hole at its end; the snapshot's name.
fn image(stage: &Stage, rest: (u64, usize)) -> String {
    let image = stage.path("secret plan of a disk");
    let mut contents = [noise(IMAGE, HALF), noise(rest.0, rest.1)].concat();
    contents.resize(10 * HALF, 0);
    fs::write(&image, contents).unwrap();
    let backup = ["backup", "--json", "--host", "the-same-host", "--device", image.to_str().unwrap()];
    stage.run(&backup, 0).message("summary")["session"].as_str().unwrap().to_owned()
}

/// A check finds a pack that is damaged for a while, and notes it.
fn note_damage(stage: &Stage) {
    let pack = stage.owner.names("packs/").unwrap().remove(0);
    let whole = stage.owner.get(&pack).unwrap();
    stage.owner.put(&pack, &vec![0; whole.len()]).unwrap();
    stage.run(&["check", "--read-data"], 14);
    stage.owner.put(&pack, &whole).unwrap();
}

/// A prune that decides what goes, and may not delete it. It moves nothing: frames that were moved and not deleted yet are
/// there twice.
fn cut_prune_off(stage: &Stage) {
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "s3:*", "Resource": [&bucket, &format!("{bucket}/*")] },
        { "Effect": "Deny", "Action": "s3:DeleteObject", "Resource": format!("{bucket}/{PREFIX}/packs/*") },
    ] });
    let weak = Bucket::of(&stage.server, &policy, &stage.path("weak"), PREFIX).unwrap();
    let mut command = stage.command(&["prune", "--max-unused", "unlimited"]);
    ended(command.env("AWS_SHARED_CREDENTIALS_FILE", weak.credentials_file()), 13);
}

/// A backup that has left a checkpoint, and would wait for ever for the rest of its stream.
fn kill_backup(stage: &Stage) {
    let backup = [
        "backup",
        "--host",
        "pluto-web",
        "--stdin",
        "--stdin-filename",
        "secret plan",
        "--checkpoint-interval",
        "0",
    ];
    let mut running = Running::start(stage.command(&backup).stdin(Stdio::piped()));
    let mut input = running.stdin.take().unwrap();
    // More than it reads at once: that is stored, whatever comes behind it.
    input.write_all(&noise(200, 5_000_000)).unwrap();
    wait_until(|| !stage.owner.names("index/c").unwrap().is_empty()).unwrap();
    running.kill().unwrap();
    assert!(!running.wait().unwrap().success(), "it was done before it was killed");
}

/// A prune that has condemned, and waits for the killed backup (once before, because of what the one before has left).
fn kill_prune(stage: &Stage) {
    let lists = || {
        let names = stage.owner.names("gc/").unwrap();
        names.iter().filter(|name| name.ends_with(".condemned")).count()
    };
    let before = lists();
    let prune = ["prune", "--max-unused", "unlimited", "--wait", "10s"];
    let mut running = Running::start(&mut stage.command(&prune));
    wait_until(|| lists() > before).unwrap();
    running.kill().unwrap();
    assert!(!running.wait().unwrap().success(), "it was done before it was killed");
}

/// Everything that credentials show which may list and read, and nothing else.
fn seen(stage: &Stage) -> Objects {
    let resources = [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")];
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": resources },
    ] });
    let onlooker = Bucket::of(&stage.server, &policy, &stage.path("onlooker"), PREFIX).unwrap();
    let names = onlooker.names("").unwrap();
    assert_eq!(names, stage.owner.names("").unwrap());
    assert_eq!(onlooker.put("sessions/x", b"mine").unwrap_err().to_string(), "AccessDenied");
    assert_eq!(onlooker.delete(&names[0]).unwrap_err().to_string(), "AccessDenied");
    for kind in [
        "format",
        "keys/",
        "sessions/b",
        "sessions/r",
        "snapshots/b",
        "snapshots/r",
        "packs/",
        "index/s-",
        "index/c",
        "forgotten/",
        "marks/",
        "damaged/",
        "gc/",
    ] {
        assert!(names.iter().any(|name| name.starts_with(kind)), "{kind} is not in the scene: {names:?}");
    }
    for kind in [".condemned", ".final", ".joined"] {
        assert!(names.iter().any(|name| name.ends_with(kind)), "{kind} is not in the scene: {names:?}");
    }
    names.into_iter().map(|name| (name.clone(), onlooker.get(&name).unwrap())).collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_session(text: &str) -> bool {
    let Some((start, nonce)) = text.split_once('-') else { return false };
    matches!(start.as_bytes().first(), Some(b'b' | b'r')) && is_hex(&start[1..], 16) && is_hex(nonce, 32)
}

/// The lineage, then age and tag.
fn is_checkpoint(text: &str) -> bool {
    let parts = text.strip_prefix('c').and_then(|text| text.split_once('-'));
    parts.is_some_and(|(lineage, rest)| is_hex(lineage, 16) && is_hex(rest, 32))
}

/// Whether a name is one that the format gives.
fn is_documented(name: &str) -> bool {
    let Some((folder, rest)) = name.split_once('/') else { return name == "format" };
    let marked = |words: &[&str]| {
        let mut parts = rest.split('.');
        parts.next().is_some_and(is_session)
            && words.iter().all(|word| parts.next() == Some(word))
            && parts.next().is_some_and(|random| is_hex(random, 32))
            && parts.next().is_none()
    };
    match folder {
        "keys" | "damaged" => is_hex(rest, 32),
        "sessions" | "snapshots" => is_session(rest),
        "packs" => rest.split_once('/').is_some_and(|(two, id)| is_hex(id, 32) && two == &id[16..18]),
        "index" => {
            let id = rest.strip_prefix("s-").map(|id| id.strip_suffix(".joined").unwrap_or(id));
            id.is_some_and(|id| is_hex(id, 32)) || is_checkpoint(rest)
        }
        "gc" => {
            let id = rest.strip_suffix(".condemned").or_else(|| rest.strip_suffix(".final"));
            id.is_some_and(|id| is_hex(id, 32))
        }
        "forgotten" => marked(&[]),
        "marks" => marked(&["pinned"]) || marked(&["verified"]),
        _ => false,
    }
}

/// The sealed bytes of an object, and the clear JSON of one that has any.
fn parts(name: &str, bytes: &[u8]) -> (Vec<u8>, Option<Value>) {
    if name.starts_with("packs/") {
        return (bytes[..bytes.len() - TRAILER].to_vec(), None);
    }
    assert_eq!(&bytes[..5], b"CRKR\x01", "{name}");
    let json = |from: usize| Some(serde_json::from_slice(&bytes[from..]).unwrap());
    match bytes[5] {
        3 => (Vec::new(), json(8)),
        1 | 2 | 6..=10 | 13 | 14 => (bytes[8..72].to_vec(), json(72)),
        4 | 5 => (bytes[80..].to_vec(), None),
        11 | 12 => (bytes[126..].to_vec(), None),
        kind => unreachable!("{name} is of kind {kind}"),
    }
}

/// The fields that are in clear, which section 17 speaks of.
fn clear_fields(name: &str) -> &'static [&'static str] {
    match name.split('/').next().unwrap() {
        "format" => &[
            "version",
            "repository",
            "maintenance_public",
            "cut",
            "read_features",
            "write_features",
            "maintain_features",
            "created",
        ],
        "keys" => &[
            "version",
            "label",
            "created",
            "repository",
            "generations",
            "derivation",
            "commitment",
            "sealed_roots",
        ],
        "sessions" => {
            &["version", "session", "generation", "suite", "sealed_data_key", "signing_public", "started"]
        }
        // A fence, or the end of a session that gave up.
        "snapshots" => &["session", "created", "reason", "cleaned_up"],
        "marks" | "forgotten" => &["session", "word", "created"],
        "damaged" => &["created", "packs"],
        "gc" => &["collection", "created", "packs", "relocations"],
        other => unreachable!("{other}/ has JSON in clear"),
    }
}

/// Sealed bytes that occur twice are equal contents that show.
fn windows(objects: &Objects) -> HashSet<[u8; WINDOW]> {
    let mut seen = HashSet::new();
    for (name, bytes) in objects {
        let (sealed, _) = parts(name, bytes);
        for window in sealed.windows(WINDOW) {
            assert!(seen.insert(window.try_into().unwrap()), "sealed bytes of {name} are there twice");
        }
    }
    seen
}

#[test]
fn a_reader_of_the_bucket_learns_sizes_within_the_padding_and_nothing_else() {
    let repositories = [repository("jupiter-db"), repository("saturn-mail")];
    for (_, objects) in &repositories {
        for (name, bytes) in objects {
            assert!(is_documented(name), "{name} is no name that the format gives");
            for word in WORDS {
                for form in [word.as_bytes().to_vec(), hex::encode(word).into_bytes(), utf16(word)] {
                    let found = bytes.windows(form.len()).any(|window| window == form);
                    assert!(!found && !name.contains(word), "{word:?} shows in {name}");
                }
            }
            let (_, json) = parts(name, bytes);
            if let Some(json) = json {
                let allowed = clear_fields(name);
                for field in json.as_object().unwrap().keys() {
                    assert!(allowed.contains(&field.as_str()), "{name} says {field} in clear");
                }
            }
            check_size(name, bytes);
        }
    }
    // The contents themselves: the same stream is in both, and the same random file.
    let [one, other] = repositories.each_ref().map(|(_, objects)| windows(objects));
    let [_, (rest, length)] = IMAGES;
    let image = [noise(IMAGE, HALF), noise(rest, length)].concat();
    for contents in [noise(77, 500_000), noise(1, 300_000), noise(2, 300_000), image] {
        for piece in contents.chunks_exact(WINDOW) {
            let piece: [u8; WINDOW] = piece.try_into().unwrap();
            assert!(!one.contains(&piece) && !other.contains(&piece), "contents are there as they are");
        }
    }
    assert!(one.is_disjoint(&other), "equal contents are equal bytes");
    // The same host and path gave another lineage, and nothing in a name is in both.
    let [one, other] = repositories.each_ref().map(|(_, objects)| ids(objects));
    let zero = "0".repeat(16);
    let common: Vec<_> = one.intersection(&other).filter(|id| **id != zero).collect();
    assert!(common.is_empty(), "{common:?} are in the names of both");
}

/// Runs of hexadecimal digits in names.
fn ids(objects: &Objects) -> BTreeSet<String> {
    let pieces = objects.keys().flat_map(|name| name.split(|letter: char| !letter.is_ascii_hexdigit()));
    pieces.filter(|piece| piece.len() >= 16).map(str::to_owned).collect()
}

fn utf16(word: &str) -> Vec<u8> {
    word.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Lengths of what is sealed are of the classes that the format names.
fn check_size(name: &str, bytes: &[u8]) {
    let padded = |sealed: usize| {
        let length = sealed - 24;
        assert_eq!(padme(length), length, "{name}: a sealed object of {sealed} bytes is not padded");
    };
    if name.starts_with("packs/") {
        let length = bytes.len();
        assert!(
            length.is_multiple_of(256 << 10) || padme(length) == length,
            "{name}: a pack of {length} bytes"
        );
        let trailer = &bytes[length - TRAILER..];
        padded(u32::from_le_bytes(trailer[..4].try_into().unwrap()) as usize);
        assert!(trailer[42..56].iter().all(|byte| *byte == 0));
        return;
    }
    match bytes[5] {
        4 | 5 => padded(bytes.len() - 72),
        11 | 12 => padded(bytes.len() - 118),
        _ => {}
    }
}
