//! How far he gets with what he stole: what opens, what may be written, what is believed.

use carrack_mover::{
    error::ErrorKind,
    format::{
        frame::Suite,
        pack::parse_pack_object,
        records::{self, RecordKind, Snapshot},
        session::{SessionKind, SessionName, SessionObject},
    },
    keys::Keys,
    repo::Repository,
};
use carrack_tests::{stage::Stage, trees::noise};

use crate::{Thief, lineage_of, names, now};

#[test]
fn he_opens_nothing_that_others_wrote_deletes_nothing_and_creates_no_name_twice() {
    let stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    let target = stage.path("loot").display().to_string();
    // By the program: neither data, nor other sources' trees, nor what only maintenance may.
    let plan = format!("latest:{}/secret plan", stage.source("db1").display());
    for arguments in [
        &["restore", "latest", "--target", &target][..],
        &["cat", "file", &plan],
        &["check", "--read-data"],
        &["prune"],
        &["forget", "--keep-last", "1"],
        &["key", "rotate"],
        &["key", "remove", "--unproven"],
    ] {
        stage.run_as(&thief.bucket, &thief.bundle_file, arguments, 13);
    }
    // By the engine, with every key of the bundle: the data keys of all sessions, his own older ones included, and the
    // trees and records of the other source stay shut.
    let (keys, mail) = (Keys::from_bundle(&thief.bundle).unwrap(), lineage_of(&stage, "mail"));
    let engine = thief.engine(&stage);
    for session in stage.ends().unwrap() {
        let session: SessionName = session.parse().unwrap();
        let object = thief.bucket.get(&session.session_object()).unwrap();
        let body = records::decode_kind("session", &object, RecordKind::Session).unwrap();
        let object: SessionObject = records::from_json("session", body).unwrap();
        let opened = keys.open_data_key(0, session, &object.key.sealed_data_key);
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Denied);
        let record = stage.owner.run(engine.snapshot(session));
        assert_eq!(record.is_err(), session.lineage == mail, "{session}");
        assert_eq!(keys.session_metadata_key(0, session).is_err(), session.lineage == mail);
    }
    assert!(
        keys.sign_maintenance("forgotten/x", b"").is_err() && keys.sign_foundation("format", b"").is_err()
    );

    let before = stage.owner.list("").unwrap();
    for (object, _) in &before {
        assert_eq!(thief.bucket.delete(object).unwrap_err().to_string(), "AccessDenied", "{object}");
        let replaced = thief.bucket.create(object, b"mine").unwrap_err().to_string();
        assert!(["AccessDenied", "PreconditionFailed"].contains(&replaced.as_str()), "{object}: {replaced}");
    }
    for forbidden in
        ["format", "keys/x", "gc/x.condemned", "forgotten/x", "marks/x", "damaged/x", "sessions/r0"]
    {
        let refused = thief.bucket.put(forbidden, b"mine").unwrap_err().to_string();
        assert_eq!(refused, "AccessDenied", "{forbidden}");
    }
    assert_eq!(stage.owner.list("").unwrap(), before);
    stage.all_come_back().unwrap();
}

/// False snapshots that count in retention: of his own source only, and not against what was verified.
#[test]
fn false_snapshots_push_out_no_verified_one_and_none_of_other_sources() {
    let stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    stage.run(&["check", "--read-data"], 0);
    let engine = thief.engine(&stage);
    let genuine: SessionName = stage
        .ends()
        .unwrap()
        .iter()
        .find(|name| name.contains(&thief.bundle.lineage.to_hex()))
        .unwrap()
        .parse()
        .unwrap();
    let record = stage.owner.run(engine.snapshot(genuine)).unwrap();
    let commit = |host: &str, paths: Vec<String>| {
        let lineage = thief.bundle.lineage;
        let session = stage.owner.run(engine.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm)).unwrap();
        let started = now() + jiff::SignedDuration::from_hours(1);
        let false_record =
            Snapshot { session: session.name(), host: host.to_owned(), paths, started, ..record.clone() };
        stage.owner.run(session.commit(&false_record)).unwrap();
        session.name()
    };
    let path = |host: &str| vec![stage.source(host).display().to_string()];
    let borrowed: Vec<SessionName> = (0..3).map(|_| commit("mail", path("mail"))).collect();
    for _ in 0..3 {
        commit("db1", path("db1"));
    }

    let listed = stage.run(&["snapshots"], 3);
    borrowed.iter().for_each(|session| names(&listed, &session.nonce.short()));
    let forgotten = stage.run(&["forget", "--keep-last", "1"], 3);
    names(&forgotten, "last verified");
    names(&stage.run(&["prune"], 14), "carrack forget --unreadable");
    stage.run(&["forget", "--unreadable"], 0);
    stage.run(&["prune"], 0);
    // Of `mail` its one snapshot, of `db1` the last verified one beside the thief's.
    let left = stage.ends().unwrap();
    assert!(left.iter().any(|name| name.contains(&lineage_of(&stage, "mail").to_hex())), "{left:?}");
    let printed = stage.run(&["snapshots", "--json", "--host", "db1"], 0);
    let verified =
        Stage::messages(&printed, "snapshot").into_iter().filter(|snapshot| snapshot["verified"].is_string());
    assert_eq!(verified.count(), 1);
    stage.run(&["check", "--read-data"], 0);
}

/// Whether a footer that he can open lists a chunk of these contents.
fn is_stored(thief: &Thief, stage: &Stage, engine: &Repository, contents: &[u8]) -> bool {
    let id = engine.keys().chunk_id(contents);
    thief.bucket.names("packs/").unwrap().iter().any(|object| {
        let (pack, _) = parse_pack_object(object).unwrap();
        match stage.owner.run(engine.footer(pack)) {
            Ok(found) => {
                found.footer.frames.iter().any(|frame| frame.chunks.iter().any(|chunk| chunk.id == id))
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
                false
            }
        }
    })
}

/// Backs a new file of `mail` up.
fn arrive(stage: &mut Stage, name: &str, contents: &[u8]) {
    std::fs::write(stage.source("mail").join(name), contents).unwrap();
    stage.backup("mail").unwrap();
}

/// Any mover finds what another one has stored, so he can ask for contents that he has himself. A rotation ends it for
/// what comes after.
#[test]
fn whether_known_contents_are_stored_shows_to_whoever_holds_the_keys_of_that_time() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    let engine = thief.engine(&stage);
    // Shorter than any cut, so each is one chunk.
    let [before, after] = [noise(42, 10_000), noise(43, 10_000)];
    assert!(!is_stored(&thief, &stage, &engine, &before));
    arrive(&mut stage, "before", &before);
    assert!(is_stored(&thief, &stage, &engine, &before), "this is what he can learn");

    stage.run(&["key", "rotate"], 0);
    arrive(&mut stage, "after", &after);
    let again = Thief::of(&stage, false);
    for (engine, is_seen) in [(&engine, false), (&again.engine(&stage), true)] {
        assert!(is_stored(&again, &stage, engine, &before), "what was written before stays as it was");
        assert_eq!(is_stored(&again, &stage, engine, &after), is_seen);
    }
    stage.all_come_back().unwrap();
}
