//! Segments of the index: joined ones, sealed as they must be, that say what is not so; and some that say nothing.

use std::{collections::BTreeSet, fs};

use carrack_mover::{
    codec::{self, Domain},
    format::{
        frame::Suite,
        pack::parse_pack_object,
        records::{self, RecordKind},
        session::{SessionKind, SessionName},
    },
    id::{ChunkId, PackId, RandomId},
    repo::Session,
};
use carrack_tests::{engine::leave_small_segments, stage::Stage, trees::noise};
use serde_json::json;

use crate::{Thief, added, backed_up, lineage_of, names};

/// What the names of segments begin with, and those of joined ones end with.
const SEGMENTS: &str = "index/s-";
const JOINED: &str = ".joined";
/// Bytes of a chunk id that a row has.
const PREFIX: usize = 16;
/// Where a segment says of which generation its keys are, in clear: behind the head of the record and its session.
const GENERATION: usize = 8 + SessionName::LENGTH;
/// Bytes of each file that both hosts have.
const SHARED: u64 = 300_000;

/// The form of a number that is short enough for one byte.
fn short(number: usize) -> u8 {
    u8::try_from(number).ok().filter(|byte| *byte < 0x80).expect("there are few of them")
}

/// What a joined segment says: whose rows it has, and its rows.
fn plain(segments: &BTreeSet<RandomId>, rows: &BTreeSet<(ChunkId, PackId)>) -> Vec<u8> {
    let packs: BTreeSet<PackId> = rows.iter().map(|(_, pack)| *pack).collect();
    let mut plain = vec![short(segments.len())];
    segments.iter().for_each(|id| plain.extend_from_slice(&id.0));
    plain.push(short(packs.len()));
    packs.iter().for_each(|pack| plain.extend_from_slice(&pack.0));
    plain.push(short(rows.len()));
    for (chunk, pack) in rows {
        plain.extend_from_slice(&chunk.0[..PREFIX]);
        plain.push(short(packs.range(..*pack).count()));
    }
    plain
}

/// A joined segment as the program would put it.
fn sealed(session: &Session, plain: &[u8]) -> Vec<u8> {
    let (info, counter) = (session.key_info(), session.next_counter(Domain::Joined));
    let mut body = info.session.to_bytes().to_vec();
    body.extend_from_slice(&info.generation.to_le_bytes());
    body.push(info.suite.code());
    body.extend_from_slice(&info.sealed_data_key);
    let cipher = session.index_cipher();
    let sealed = codec::seal_object(cipher, Domain::Joined, session.name(), counter, plain).unwrap();
    body.extend_from_slice(&sealed);
    records::encode_record(RecordKind::Segment, &body)
}

/// What he puts: objects by name.
struct Lies {
    /// Writers read them.
    believed: Vec<(String, Vec<u8>)>,
    /// Nobody can read these.
    garbage: Vec<(String, Vec<u8>)>,
}

impl Lies {
    /// One says that these contents are in packs that lack them or are not there; one that it has the rows of all
    /// segments, of which it has none.
    fn of(stage: &Stage, thief: &Thief, contents: &[u8]) -> Self {
        let (engine, lineage) = (thief.engine(stage), thief.bundle.lineage);
        let session = engine.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm);
        let session = stage.owner.run(session).unwrap();
        let honest = thief.bucket.names(SEGMENTS).unwrap();
        let named: BTreeSet<RandomId> =
            honest.iter().map(|name| RandomId::from_hex(&name[SEGMENTS.len()..]).unwrap()).collect();
        let chunk = engine.keys().chunk_id(contents);
        let away = packs_of(stage, "mail").into_iter().chain([PackId([9; 16])]);
        let rows: BTreeSet<(ChunkId, PackId)> = away.map(|pack| (chunk, pack)).collect();
        assert!(rows.len() > 1, "mail has no pack");
        let name = |number: u64| format!("{SEGMENTS}{number:032x}{JOINED}");
        let believed = vec![
            (name(1), sealed(&session, &plain(&BTreeSet::new(), &rows))),
            (name(2), sealed(&session, &plain(&named, &BTreeSet::new()))),
        ];
        let garbage = vec![
            (name(3), b"rubbish".to_vec()),
            // It names more than it has bytes for.
            (name(4), sealed(&session, &[0x7f])),
            // A true one, under the name of a joined one.
            (name(5), thief.bucket.get(&honest[0]).unwrap()),
        ];
        stage.owner.run(session.abandon("nobody shall wait for it")).unwrap();
        Self { believed, garbage }
    }

    fn all(&self) -> impl Iterator<Item = &(String, Vec<u8>)> {
        self.believed.iter().chain(&self.garbage)
    }

    fn put(&self, thief: &Thief) {
        self.all().for_each(|(name, body)| thief.bucket.create(name, body).unwrap());
    }

    fn is_one(&self, name: &str) -> bool {
        self.all().any(|(lie, _)| lie == name)
    }
}

/// Packs of the one backup of a host.
fn packs_of(stage: &Stage, host: &str) -> Vec<PackId> {
    let lineage = lineage_of(stage, host).to_hex();
    let session = stage.ends().unwrap().into_iter().find(|name| name.contains(&lineage)).unwrap();
    let session: SessionName = session.parse().unwrap();
    let packs = stage.owner.names("packs/").unwrap();
    let packs = packs.iter().map(|name| parse_pack_object(name).unwrap().0);
    packs.filter(|pack| session.owns(*pack)).collect()
}

fn joined(stage: &Stage) -> Vec<String> {
    let names = stage.owner.names(SEGMENTS).unwrap();
    names.into_iter().filter(|name| name.ends_with(JOINED)).collect()
}

/// As many small segments as the next backup joins.
fn leave_small_ones(stage: &Stage) {
    let lineage = lineage_of(stage, "mail");
    let engine = stage.owner.run(stage.engine(&stage.owner, None)).unwrap();
    stage.owner.run(leave_small_segments(&engine, lineage)).unwrap();
}

/// Backs `mail` up with a file that `db1` has stored; how much that added.
fn shared(stage: &mut Stage, number: u64) -> u64 {
    let file = stage.source("db1").join(format!("deep/random {number}"));
    fs::copy(file, stage.source("mail").join(format!("of db1 {number}"))).unwrap();
    added(&backed_up(stage, "mail", 0))
}

/// Whoever says so of all segments has backups store again what they would have found, and honest ones that join carry it
/// on. Prunes do not believe it.
#[test]
fn false_joined_segments_cost_room_until_the_next_prune_and_nothing_else() {
    let mut stage = Stage::set().unwrap();
    [5, 7].into_iter().for_each(|number| stage.change("db1", number).unwrap());
    stage.backup("db1").unwrap();
    let thief = Thief::of(&stage, false);
    // One chunk, which nobody has stored.
    let contents = noise(42, 10_000);
    let lies = Lies::of(&stage, &thief, &contents);
    lies.put(&thief);

    fs::write(stage.source("mail").join("elsewhere"), &contents).unwrap();
    let stored = shared(&mut stage, 1);
    assert!(stored >= SHARED + contents.len() as u64, "{stored}");
    leave_small_ones(&stage);
    let stored = shared(&mut stage, 3);
    assert!(stored >= SHARED, "{stored}");
    let honest: Vec<String> = joined(&stage).into_iter().filter(|name| !lies.is_one(name)).collect();
    assert_eq!(honest.len(), 1, "{honest:?}");
    stage.all_come_back().unwrap();
    stage.run(&["check"], 0);
    let checked = stage.run(&["check", "--read-data", "--json"], 14);
    lies.garbage.iter().for_each(|(name, _)| names(&checked, name));
    let summary = checked.message("summary");
    let found = (&summary["damages"], &summary["damaged"]);
    assert_eq!(found, (&json!(lies.garbage.len()), &json!([])), "what is sealed is not damaged: {summary}");

    // His are gone, and an honest one still says it.
    lies.all().for_each(|(name, _)| stage.owner.delete(name).unwrap());
    let stored = shared(&mut stage, 5);
    assert!(stored >= SHARED, "{stored}");
    lies.put(&thief);
    stage.run(&["prune"], 0);
    assert_eq!(joined(&stage), [""; 0]);
    stage.run(&["check", "--read-data"], 0);
    let stored = shared(&mut stage, 7);
    assert!(stored < SHARED / 3, "{stored}");
    stage.all_come_back().unwrap();
}

/// What claims keys that nobody holds may be of somebody who holds more, so a merge leaves it.
#[test]
fn garbage_in_the_index_is_named_and_goes_with_a_merge_or_a_repair() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    let honest = thief.bucket.names(SEGMENTS).unwrap().remove(0);
    let mut of_other_keys = thief.bucket.get(&honest).unwrap();
    of_other_keys[GENERATION..GENERATION + 4].copy_from_slice(&7_u32.to_le_bytes());
    let [rubbish, other] = [8, 9].map(|number: u64| format!("{SEGMENTS}{number:032x}"));
    thief.bucket.create(&rubbish, b"rubbish").unwrap();
    thief.bucket.create(&other, &of_other_keys).unwrap();
    stage.change("mail", 4).unwrap();
    stage.backup("mail").unwrap();
    stage.all_come_back().unwrap();

    // There are too few to be merged.
    stage.run(&["prune"], 0);
    let checked = stage.run(&["check", "--sizes"], 14);
    names(&checked, &rubbish);
    names(&checked, &other);
    stage.run(&["repo", "merge-index"], 0);
    let checked = stage.run(&["check", "--sizes"], 14);
    names(&checked, &other);
    assert!(!stage.owner.names(SEGMENTS).unwrap().contains(&rubbish), "a merge has left it");
    stage.run(&["repo", "repair-index"], 0);
    stage.run(&["check", "--sizes"], 0);
    stage.all_come_back().unwrap();
}
