//! What nobody signed who may, and what is no object of ours at all.

use std::time::Duration;

use carrack_mover::{
    error::ErrorKind,
    format::{
        frame::Suite,
        records::{self, Mark, RecordKind, Snapshot},
        session::{SessionKind, SessionName},
    },
    id::LineageId,
    keys::SigningKey,
    secret::Key,
};
use carrack_tests::{program::Printed, stage::Stage};

use crate::{Thief, added, backed_up, lineage_of, name, names, now};

/// With a policy that is too wide, what only maintenance may write counts as absent.
#[test]
fn forged_markers_lists_notes_and_keys_are_ignored_named_and_swept() {
    let stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, true);
    let sessions = stage.ends().unwrap();
    // A true marker to copy from: of a snapshot that was pinned, and is pinned no more.
    stage.run(&["forget", "--pin", &sessions[0]], 0);
    let pin = stage.owner.names("marks/").unwrap().remove(0);
    let pinned = thief.bucket.get(&pin).unwrap();

    let mut forged = Vec::new();
    for session in &sessions {
        let session: SessionName = session.parse().unwrap();
        let marker = format!("forgotten/{session}.{}", "1".repeat(32));
        let mark = Mark { session, word: "forgotten".into(), created: now() };
        forged.push((
            marker.clone(),
            thief.signed(&marker, RecordKind::Forgotten, &records::to_json(&mark).unwrap()),
        ));
        forged.push((format!("forgotten/{session}.{}", "2".repeat(32)), pinned.clone()));
        forged.push((format!("forgotten/{session}.{}", "3".repeat(32)), Vec::new()));
        let mark = format!("marks/{session}.verified.{}", "4".repeat(32));
        forged.push((mark.clone(), thief.signed(&mark, RecordKind::Mark, b"{}")));
    }
    let packs: Vec<String> = stage.owner.names("packs/").unwrap();
    let packs: Vec<&str> = packs.iter().filter_map(|pack| pack.get(9..)).collect();
    let note = format!("damaged/{}", "5".repeat(32));
    let list = serde_json::json!({ "created": now(), "packs": packs });
    forged.push((note.clone(), thief.signed(&note, RecordKind::Damaged, list.to_string().as_bytes())));
    let id = "6".repeat(32);
    let list = serde_json::json!({ "collection": id, "created": now(), "packs": packs, "relocations": [] });
    for (object, kind) in [("condemned", RecordKind::Condemned), ("final", RecordKind::Final)] {
        let object = format!("gc/{id}.{object}");
        forged.push((object.clone(), thief.signed(&object, kind, list.to_string().as_bytes())));
    }
    // More keys than are tried, of which each would take a gigabyte for an hour, before the true one by name.
    let key = serde_json::json!({
        "version": 1, "label": "", "created": now(), "commitment": "00".repeat(32), "sealed_roots": "00".repeat(60),
        "derivation": { "kind": "argon2id", "salt": "00".repeat(16), "memory_kib": 1 << 20, "passes": 64, "lanes": 1 },
    });
    for number in 0..120 {
        let object = format!("keys/{number:032}");
        forged.push((object.clone(), thief.signed(&object, RecordKind::Key, key.to_string().as_bytes())));
    }
    thief.bucket.flood(forged.clone()).unwrap();
    assert_eq!(thief.bucket.create("format", b"mine").unwrap_err().to_string(), "PreconditionFailed");

    stage.all_come_back().unwrap();
    let checked = stage.run(&["check"], 3);
    names(&checked, &format!("{} objects", forged.len()));
    forged.iter().for_each(|(object, _)| names(&checked, object));
    let pruned = stage.run(&["prune"], 3);
    forged
        .iter()
        .filter(|(object, _)| !object.starts_with("keys/"))
        .for_each(|(object, _)| names(&pruned, object));
    names(&stage.run(&["key", "list"], 3), &format!("keys/{:032}", 119));
    stage.run(&["key", "remove", "--unproven"], 0);
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    assert!(
        stage.owner.names("gc/").unwrap().is_empty() && stage.owner.names("damaged/").unwrap().is_empty()
    );
    assert!(stage.owner.names("forgotten/").unwrap().is_empty());
    assert!(stage.owner.names("marks/").unwrap().contains(&pin), "the true pin stays");
    stage.all_come_back().unwrap();
}

/// Ends of sessions that are not his, by every kind of record, some with session objects that he made.
fn forge_ends(stage: &Stage, thief: &Thief) -> Vec<SessionName> {
    let (own, mail) = (thief.bundle.lineage, lineage_of(stage, "mail"));
    let mut made = Vec::new();
    let mut put = |session: SessionName, object: Vec<u8>, end: Vec<u8>| {
        thief.bucket.put(&session.session_object(), &object).unwrap();
        thief.bucket.put(&session.end_object(), &end).unwrap();
        made.push(session);
    };
    for (number, kind) in
        [RecordKind::Snapshot, RecordKind::Fenced, RecordKind::Abandoned].into_iter().enumerate()
    {
        let session = name(SessionKind::Backup, mail, number as u64);
        let other = SigningKey::new(&Key::new([9; 32])).unwrap();
        let mut body = other.sign(&session.end_object(), b"{}");
        body.extend_from_slice(b"{}");
        put(session, thief.session(session, now()), records::encode_record(kind, &body));
    }
    // Signed as it must be, of a source whose keys he lacks; garbage; and of a generation that never was.
    let session = name(SessionKind::Backup, mail, 10);
    put(
        session,
        thief.session(session, now()),
        thief.signed(&session.end_object(), RecordKind::Snapshot, &[0; 99]),
    );
    let session = name(SessionKind::Backup, own, 11);
    put(session, b"CRKR\x01\x03\0\0{}".to_vec(), b"CRKR\x01\x04\0\0garbage".to_vec());
    let session = name(SessionKind::Backup, own, 12);
    put(session, b"CRKR\x02\x03\0\0{}".to_vec(), b"CRKR\x02\x04\0\0garbage".to_vec());
    made
}

#[test]
fn forged_ends_stop_maintenance_until_all_of_them_are_given_up_at_once() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    // After a rotation nobody can say that a false signature may only be newer than the keys at hand.
    stage.run(&["key", "rotate"], 0);
    let forged = forge_ends(&stage, &thief);
    stage.all_come_back().unwrap();
    let packs = stage.owner.names("packs/").unwrap();
    let listed = stage.run(&["snapshots"], 3);
    forged.iter().for_each(|session| names(&listed, &session.nonce.short()));
    let checked = stage.run(&["check"], 14);
    forged.iter().for_each(|session| names(&checked, &session.end_object()));
    for _ in 0..2 {
        let stopped = stage.run(&["prune"], 14);
        names(&stopped, "carrack forget --unreadable");
        assert_eq!(stage.owner.names("packs/").unwrap(), packs);
    }
    // Backups go on.
    for (host, number) in [("mail", 4), ("db1", 5)] {
        stage.change(host, number).unwrap();
        stage.backup(host).unwrap();
    }

    stage.run(&["forget", "--unreadable", "--dry-run"], 0);
    stage.run(&["prune"], 14);
    stage.run(&["forget", "--unreadable"], 0);
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.run(&["snapshots"], 0);
    stage.all_come_back().unwrap();
}

/// Whether a backup relied on nothing that was there.
fn is_all_new(printed: &Printed) -> bool {
    added(printed) >= printed.message("summary")["total_bytes_processed"].as_u64().unwrap()
}

/// A policy that is too wide lets him end a repack. What it says is not believed; and who restores is not stopped.
#[test]
fn forged_relocations_stop_neither_restores_nor_backups() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, true);
    let session = name(SessionKind::Repack, LineageId::default(), 1);
    thief.bucket.put(&session.session_object(), &thief.session(session, now())).unwrap();
    let end = thief.signed(&session.end_object(), RecordKind::Relocation, &[0; 99]);
    thief.bucket.put(&session.end_object(), &end).unwrap();
    stage.all_come_back().unwrap();
    // A writer cannot know what it missed, so it relies on nothing that is there; and it says so.
    stage.change("mail", 5).unwrap();
    let printed = backed_up(&mut stage, "mail", 3);
    names(&printed, &session.end_object());
    assert!(is_all_new(&printed), "{}", printed.out);
    names(&stage.run(&["check"], 14), &session.end_object());
    let stopped = stage.run(&["prune"], 13);
    names(&stopped, &format!("carrack forget {session}"));
    stage.run(&["forget", "--unreadable"], 0);
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

/// Lists and finals of everything that is stored, signed by him: a list with its final, and one of each alone.
fn forge_lists(stage: &Stage, thief: &Thief) -> [(String, Vec<u8>); 4] {
    let packs = stage.owner.names("packs/").unwrap();
    let packs: Vec<&str> = packs.iter().filter_map(|pack| pack.get(9..)).collect();
    let repack = name(SessionKind::Repack, LineageId::default(), 1).to_string();
    [("6", "condemned"), ("6", "final"), ("7", "condemned"), ("8", "final")].map(|(digit, word)| {
        let id = digit.repeat(32);
        let object = format!("gc/{id}.{word}");
        let kind = if word == "final" { RecordKind::Final } else { RecordKind::Condemned };
        let list = serde_json::json!({
            "collection": id, "created": now(), "packs": packs, "relocations": [repack],
        });
        (object.clone(), thief.signed(&object, kind, list.to_string().as_bytes()))
    })
}

/// With a policy that is too wide: a list may be signed with a key that a writer does not know yet, so writers obey it.
#[test]
fn backups_obey_forged_lists_and_have_everything_all_the_same() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, true);
    let forged = forge_lists(&stage, &thief);
    thief.bucket.flood(forged.clone()).unwrap();
    // One by who holds all keys, and one by a mover, who could not tell a true list.
    stage.change("mail", 4).unwrap();
    let printed = backed_up(&mut stage, "mail", 0);
    assert!(is_all_new(&printed), "{}", printed.out);
    stage.change("db1", 5).unwrap();
    let source = stage.source("db1").display().to_string();
    let backup = ["backup", "--json", "--host", "db1", &source];
    let printed = stage.run_as(&thief.bucket, &thief.bundle_file, &backup, 0);
    assert!(is_all_new(&printed), "{}", printed.out);
    stage.keep(printed.message("summary")["session"].as_str().unwrap(), "db1").unwrap();
    stage.all_come_back().unwrap();
    let (checked, pruned) = (stage.run(&["check"], 3), stage.run(&["prune"], 3));
    for (object, _) in &forged {
        names(&checked, object);
        names(&pruned, object);
    }
    assert!(stage.owner.names("gc/").unwrap().is_empty());
    stage.run(&["check", "--read-data"], 0);
    // Nothing is condemned any more.
    stage.change("mail", 6).unwrap();
    let printed = backed_up(&mut stage, "mail", 0);
    assert!(!is_all_new(&printed), "{}", printed.out);
    stage.all_come_back().unwrap();
}

/// What such a list may name nobody knows, so nothing is relied on; and the backup says so.
#[test]
fn backups_rely_on_nothing_beside_lists_that_cannot_be_read() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, true);
    let object = |digit: &str| format!("gc/{}.condemned", digit.repeat(32));
    let list = serde_json::json!({
        "collection": "6".repeat(32), "created": now(), "packs": [], "relocations": [],
    });
    let list = list.to_string();
    let forged = [
        (object("1"), b"rubbish".to_vec()),
        (object("2"), thief.signed(&object("2"), RecordKind::Condemned, list.as_bytes())),
        (object("6"), thief.signed(&object("6"), RecordKind::Final, list.as_bytes())),
    ];
    thief.bucket.flood(forged.clone()).unwrap();
    stage.change("mail", 4).unwrap();
    let printed = backed_up(&mut stage, "mail", 3);
    assert!(is_all_new(&printed), "{}", printed.out);
    stage.all_come_back().unwrap();
    let (checked, pruned) = (stage.run(&["check"], 3), stage.run(&["prune"], 3));
    for (object, _) in &forged {
        names(&printed, object);
        names(&checked, object);
        names(&pruned, object);
    }
    assert!(stage.owner.names("gc/").unwrap().is_empty());
    stage.change("mail", 5).unwrap();
    let printed = backed_up(&mut stage, "mail", 0);
    assert!(!is_all_new(&printed), "{}", printed.out);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

#[test]
fn names_that_he_takes_before_others_decide_against_him() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, true);
    let owner = stage.owner.run(stage.engine(&stage.owner, None)).unwrap();
    let mail = lineage_of(&stage, "mail");
    let begin =
        |stage: &Stage| stage.owner.run(owner.begin(SessionKind::Backup, mail, Suite::Aes256Gcm)).unwrap();

    // The end of a session at work: the run fails loudly, and says who is to blame.
    let session = begin(&stage);
    let oldest: SessionName = stage.ends().unwrap()[0].parse().unwrap();
    thief.bucket.put(&session.name().end_object(), b"CRKR\x01\x04\0\0mine").unwrap();
    let record: Snapshot = stage.owner.run(owner.snapshot(oldest)).unwrap();
    let refused = stage.owner.run(session.commit(&record)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("taken the name"), "{refused}");
    names(&stage.run(&["prune"], 14), &session.name().to_string());
    stage.run(&["forget", &session.name().to_string()], 0);

    // The final of a list at work, which waits for a session: the list is void, and another one does the work.
    let taken = session.name().to_string();
    let is_mail = |name: &String| name.contains(&mail.to_hex()) && *name != taken;
    let gone = stage.ends().unwrap().into_iter().find(is_mail).unwrap();
    stage.run(&["forget", &gone], 0);
    stage.give_up(&gone);
    let session = begin(&stage);
    let packs = stage.owner.names("packs/").unwrap().len();
    let mut command = stage.command(&["prune", "--wait", "60s"]);
    let prune = carrack_tests::program::Running::start(&mut command);
    let condemned = loop {
        if let Some(list) =
            stage.owner.names("gc/").unwrap().into_iter().find(|name| name.ends_with(".condemned"))
        {
            break list;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let decision = condemned.replace(".condemned", ".final");
    thief.bucket.put(&decision, b"CRKR\x01\x08\0\0mine").unwrap();
    stage.owner.run(session.abandon("the test goes on")).unwrap();
    let output = prune.wait_with_output();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(&decision), "{text}");
    assert!(stage.owner.names("packs/").unwrap().len() < packs, "nothing was freed");
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

/// Sessions that cannot be read, never began, or begin in the year 2900; and rubbish under every name there is.
/// `CARRACK_FLOOD=2000` makes it 22 000 objects.
#[test]
fn a_flood_of_garbage_does_not_stop_maintenance() {
    let stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, true);
    let (own, mail) = (thief.bundle.lineage, lineage_of(&stage, "mail"));
    let mut flood = Vec::new();
    let mut add = |name: String, body: &[u8]| flood.push((name, body.to_vec()));
    let many = std::env::var("CARRACK_FLOOD").ok().and_then(|text| text.parse().ok()).unwrap_or(60_u64);
    for number in 0..many {
        let future = now() + jiff::SignedDuration::from_hours(24 * 365 * 900);
        let session = name(SessionKind::Backup, own, number);
        add(session.session_object(), &thief.session(session, future));
        let session = name(SessionKind::Backup, mail, 1000 + number);
        add(session.session_object(), if number % 2 == 0 { b"rubbish" } else { b"CRKR\x09\x03\0\0{}" });
        let hex = format!("{number:032x}");
        add(format!("index/s-{hex}"), b"CRKR\x01\x0b\0\0rubbish");
        add(format!("index/c{mail}-{number:016x}{number:016x}"), b"CRKR\x01\x0c\0\0rubbish");
        add(format!("packs/{}/{hex}", &hex[16..18]), b"rubbish");
        add(format!("gc/{hex}.condemned"), b"rubbish");
        add(format!("gc/{:032x}.final", number + (1 << 40)), b"rubbish");
        add(format!("forgotten/{}.{hex}", name(SessionKind::Backup, mail, number)), b"rubbish");
        add(format!("damaged/{hex}"), b"rubbish");
        add(format!("marks/{hex}"), b"rubbish");
        add(format!("snapshots/{}", name(SessionKind::Backup, mail, 5000 + number)), b"rubbish");
    }
    // Not even a name.
    for foreign in ["sessions/x", "snapshots/x", "packs/x", "gc/x", "index/x", "rubbish"] {
        add(foreign.to_owned(), b"rubbish");
    }
    let count = flood.len();
    thief.bucket.flood(flood).unwrap();
    let before = stage.owner.names("").unwrap().len();
    stage.all_come_back().unwrap();
    // Nothing of it needs a person but the few objects without a name of ours.
    for _ in 0..3 {
        stage.run(&["prune", "--wait", "0"], 3);
    }
    let left = stage.owner.names("").unwrap();
    // Of what claimed to be a session, a fence stays for 30 days.
    let fences = left.iter().filter(|name| name.starts_with("snapshots/") && name.ends_with("eeee")).count();
    assert!(
        before + fences - left.len() >= count - 6,
        "{count} of {before} were rubbish, {} are left: {left:?}",
        left.len()
    );
    for foreign in ["sessions/x", "snapshots/x", "packs/x", "gc/x", "index/x", "rubbish"] {
        assert!(left.contains(&foreign.to_owned()), "{foreign} is not ours to delete");
    }
    for foreign in ["sessions/x", "snapshots/x", "packs/x", "gc/x", "index/x", "rubbish"] {
        stage.owner.delete(foreign).unwrap();
    }
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}
