//! Objects that are signed and sealed as they must be, and say what is not so.

use std::fs;

use carrack_mover::{
    codec::{self, Domain},
    format::{
        entry::{Content, Run},
        frame::{ChunkRef, Compression, Frame, FrameKind, FramePlace, Suite},
        pack::{Footer, FooterChunk, FooterFrame, Trailer},
        page::PageWriter,
        records::{PageRef, Snapshot},
        session::{SessionKind, SessionName},
    },
    id::{ChunkId, PackId},
    keys::Keys,
    reader::{SnapshotReader, walk::Part},
    repo::Session,
};
use carrack_tests::{stage::Stage, trees::noise};

use crate::{
    Thief, names, now,
    versions::{all, bytes, go_back, versioned, with_bytes},
};

/// Bytes of a seal.
const TAG: usize = 16;

/// A pack of frames of one chunk each.
struct Pack<'s> {
    session: &'s Session,
    keys: &'s Keys,
    id: PackId,
    body: Vec<u8>,
    frames: Vec<FooterFrame>,
}

impl<'s> Pack<'s> {
    fn of(session: &'s Session, keys: &'s Keys) -> Self {
        Self { session, keys, id: session.new_pack(), body: Vec::new(), frames: Vec::new() }
    }

    fn place(&self, kind: FrameKind, chunk: ChunkId, length: usize) -> FramePlace {
        let plain = u32::try_from(length).unwrap();
        FramePlace {
            session: self.session.name(),
            pack: self.id,
            offset: u32::try_from(self.body.len()).unwrap(),
            stored: u32::try_from(length + TAG).unwrap(),
            plain,
            compression: Compression::Stored,
            counter: self.session.next_counter(Domain::from(kind)),
            id: codec::frame_id(self.keys, &[(chunk, plain)]),
        }
    }

    /// A chunk that is there.
    fn chunk(&mut self, kind: FrameKind, plain: &[u8]) -> ChunkRef {
        let id = self.keys.chunk_id(plain);
        let place = self.place(kind, id, plain.len());
        let cipher = match kind {
            FrameKind::Data => self.session.data_cipher(),
            FrameKind::Metadata => self.session.metadata_cipher(),
        };
        let mut sealed = plain.to_vec();
        let binding = codec::frame_aad(kind, &place);
        cipher.seal(Domain::from(kind), place.counter, &binding, &mut sealed, 0).unwrap();
        self.body.extend_from_slice(&sealed);
        self.frames.push(FooterFrame { kind, place, chunks: Vec::new() });
        ChunkRef { id, offset: 0, length: place.plain, frame: Frame::settled(place) }
    }

    /// A chunk of these contents, which is not there.
    fn promise(&mut self, contents: &[u8]) -> ChunkId {
        let id = self.keys.chunk_id(contents);
        let place = self.place(FrameKind::Data, id, contents.len());
        self.body.resize(self.body.len() + place.stored as usize, 0);
        let chunks = vec![FooterChunk { id, offset: 0, length: place.plain }];
        self.frames.push(FooterFrame { kind: FrameKind::Data, place, chunks });
        id
    }

    async fn send(self) {
        let (session, info) = (self.session.name(), self.session.key_info());
        let footer = Footer { sessions: vec![info.clone()], frames: self.frames };
        let counter = self.session.next_counter(Domain::Footer);
        let (binding, plain) = (codec::footer_aad(session, self.id), footer.to_bytes());
        let sealed =
            codec::seal_bound(self.session.index_cipher(), Domain::Footer, &binding, counter, &plain)
                .unwrap();
        let (generation, suite) = (info.generation, info.suite);
        let footer_length = u32::try_from(sealed.len()).unwrap();
        let trailer = Trailer { footer_length, counter, generation, suite, session };
        let body = [self.body, sealed, trailer.to_bytes().to_vec()].concat();
        self.session.put_pack(self.id, body.into()).await.unwrap();
    }
}

/// Footers are sealed with a key that every mover has. Others rely on one that promises what is not there, and a check
/// of all data finds it.
#[test]
fn chunks_that_a_footer_only_promises_are_missed_until_a_check_and_stored_again_after_it() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    // Known before it is backed up: a file of every installation, say. It is one chunk.
    let known = noise(42, 10_000);
    let engine = thief.engine(&stage);
    stage.owner.run(async {
        let lineage = thief.bundle.lineage;
        let session = engine.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await.unwrap();
        let mut pack = Pack::of(&session, engine.keys());
        let (id, chunk) = (pack.id, pack.promise(&known));
        pack.send().await;
        session.put_segment(&[(chunk, id)]).await.unwrap();
        session.abandon("nobody shall wait for it").await.unwrap();
    });
    fs::write(stage.source("mail").join("known"), &known).unwrap();
    let mail = stage.source("mail").display().to_string();
    let backup = ["backup", "--json", "--host", "mail", &mail];
    let misled = stage.run(&backup, 0).message("summary")["session"].as_str().unwrap().to_owned();
    let target = stage.path("misled");
    let restored = stage.run(&["restore", &misled, "--target", target.to_str().unwrap()], 3);
    names(&restored, "mail/known");
    stage.all_come_back().unwrap();

    let checked = stage.run(&["check", "--read-data"], 14);
    names(&checked, "mail/known");
    assert_eq!(stage.owner.names("damaged/").unwrap().len(), 1, "it is not noted");
    // Nothing of the file has changed, and it is read and stored all the same.
    stage.backup("mail").unwrap();
    stage.all_come_back().unwrap();

    stage.run(&["forget", &misled], 0);
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

/// Commits a snapshot of his own source in which one file has other contents of the same length, and no other attribute
/// is another. It claims to be begun in an hour, so nothing is too young to be believed.
fn poison(stage: &Stage, thief: &Thief, genuine: SessionName, file: &[u8], contents: &[u8]) -> SessionName {
    let engine = thief.engine(stage);
    stage.owner.run(async {
        let reader = SnapshotReader::of(&engine, genuine).await.unwrap();
        let (mut entries, mut walk) = (Vec::new(), reader.entries(Part::all()).unwrap());
        while let Some(leaf) = walk.next_leaf().await.unwrap() {
            entries.extend(leaf);
        }
        let lineage = thief.bundle.lineage;
        let session = engine.begin(SessionKind::Backup, lineage, Suite::Aes256Gcm).await.unwrap();
        let mut pack = Pack::of(&session, engine.keys());
        let poisoned = entries.iter_mut().find(|entry| entry.path.ends_with(file)).unwrap();
        assert_eq!(poisoned.metadata.size, contents.len() as u64);
        poisoned.content = Content::Inline(vec![Run::Chunk(pack.chunk(FrameKind::Data, contents))]);
        let mut leaf = PageWriter::leaf();
        entries.iter().for_each(|entry| leaf.push_entry(entry).unwrap());
        let page = pack.chunk(FrameKind::Metadata, &leaf.to_bytes().unwrap());
        pack.send().await;
        let genuine = reader.snapshot().clone();
        let mut sessions = genuine.sessions.clone();
        sessions.push(session.key_info().clone());
        let record = Snapshot {
            session: session.name(),
            root: PageRef::from_chunk(&page),
            depth: 1,
            sessions,
            started: now() + jiff::SignedDuration::from_hours(1),
            ..genuine
        };
        session.commit(&record).await.unwrap();
        session.name()
    })
}

#[test]
fn a_poisoned_parent_is_believed_until_all_is_read_again() {
    let mut stage = Stage::set().unwrap();
    let thief = Thief::of(&stage, false);
    stage.change("db1", 4).unwrap();
    let genuine = stage.backup("db1").unwrap().parse().unwrap();
    let path = stage.source("db1").join("secret plan").display().to_string();
    let (truth, lie) = ("the plan 4 of db1\n".repeat(500), "the trap 4 of db1\n".repeat(500));
    assert!(fs::read_to_string(&path).unwrap() == truth);
    let poisoned = poison(&stage, &thief, genuine, b"secret plan", lie.as_bytes());

    let source = stage.source("db1").display().to_string();
    let backup = |stage: &Stage, more: &[&str]| {
        let printed = stage.run(&[&["backup", "--json", "--host", "db1", &source], more].concat(), 0);
        printed.message("summary")["session"].as_str().unwrap().to_owned()
    };
    let holds = |stage: &Stage, session: &str, contents: &str| {
        let found = stage.run(&["cat", "file", &format!("{session}:{path}")], 0).out;
        assert!(found == contents, "{session} holds {:?}", &found[..20]);
    };
    let misled = backup(&stage, &[]);
    holds(&stage, &misled, &lie);
    // Whoever reads all of it anew is not misled, and is the next parent, although his claims to be younger still.
    for more in [&["--force"][..], &[]] {
        let true_one = backup(&stage, more);
        stage.keep(&true_one, "db1").unwrap();
        holds(&stage, &true_one, &truth);
    }

    stage.run(&["forget", &poisoned.to_string(), &misled], 0);
    let after = stage.backup("db1").unwrap();
    holds(&stage, &after, &truth);
    stage.all_come_back().unwrap();
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}

/// A list and its final are true for ever, as they are signed. What they name was needed by nobody, until its owner
/// brought it back.
#[test]
fn an_old_true_list_that_is_put_back_deletes_nothing_that_is_needed() {
    let mut stage = versioned();
    stage.change("db1", 1).unwrap();
    let first = stage.backup("db1").unwrap();
    fs::remove_file(stage.source("db1").join("deep/random 1")).unwrap();
    stage.change("db1", 2).unwrap();
    stage.backup("db1").unwrap();
    let (versions, packs) = (all(&stage), stage.owner.names("packs/").unwrap());
    stage.run(&["forget", &first], 0);
    stage.run(&["prune", "--max-unused", "unlimited"], 0);
    assert!(stage.owner.names("packs/").unwrap().len() < packs.len(), "nothing was freed");
    let lists: Vec<(String, Vec<u8>)> = with_bytes(&stage, "gc/")
        .into_iter()
        .map(|version| (version.0.clone(), bytes(&stage, &version)))
        .collect();
    assert_eq!(lists.len(), 2, "a list and its final: {lists:?}");
    go_back(&stage, &versions);
    stage.all_come_back().unwrap();

    let thief = Thief::of(&stage, true);
    lists.iter().for_each(|(name, body)| thief.bucket.put(name, body).unwrap());
    for _ in 0..2 {
        let stopped = stage.run(&["prune"], 14);
        names(&stopped, "somebody put an old list back");
        lists.iter().take(1).for_each(|(name, _)| names(&stopped, name));
        assert_eq!(stage.owner.names("packs/").unwrap(), packs);
    }
    // Backups go on, and rely on nothing that the list names.
    stage.change("db1", 3).unwrap();
    stage.backup("db1").unwrap();
    stage.all_come_back().unwrap();
    lists.iter().for_each(|(name, _)| stage.owner.delete(name).unwrap());
    stage.run(&["prune"], 0);
    stage.run(&["check", "--read-data"], 0);
    stage.all_come_back().unwrap();
}
