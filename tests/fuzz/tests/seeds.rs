//! The inputs that the corpus began with: every object of the first golden repository, and what another one has beyond, opened
//! as far as its decoder sees it, and words for the parsers of text. All of them must pass; `CARRACK_WRITE_CORPUS=1` writes them.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use carrack_fuzz::{folder, targets};
use carrack_mover::{
    clock::World,
    codec::{self, Cipher, Domain},
    format::{
        entry::Run,
        frame::{ChunkRef, Frame, FrameKind},
        pack::{FooterFrame, Trailer, parse_pack_object},
        page::{Page, PageWriter},
        records::RECORD_HEADER,
        session::SessionKeyInfo,
    },
    id::PackId,
    keys::Keys,
    repo::{Repository, Unlock},
    secret::Passphrase,
    store::{ByteRange, FsStore, ObjectStore, list_all},
};

/// Larger inputs are left out, in bytes: small ones lead to the same places.
const LARGEST: usize = 8 << 10;
/// What a hint has before its sealed part.
const HINT_HEADER: usize = SessionKeyInfo::LENGTH;

#[derive(Default)]
struct Seeds(BTreeMap<&'static str, Vec<Vec<u8>>>);

impl Seeds {
    fn add(&mut self, target: &'static str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if bytes.len() <= LARGEST {
            self.0.entry(target).or_default().push(bytes);
        }
    }

    fn json(&mut self, which: u8, json: &[u8]) {
        self.add("json", [&[which], json].concat());
    }
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden")
}

/// A golden repository, and where it lies.
async fn opened(name: &str) -> (Repository, Arc<dyn ObjectStore>) {
    let path = golden().join(name).join("repository");
    let store: Arc<dyn ObjectStore> = Arc::new(FsStore::open(path, World::system()));
    let unlock = Unlock::Passphrase(Passphrase::new(b"golden".to_vec()));
    let repository = Repository::open(Arc::clone(&store), World::system(), &unlock).await.expect("it opens");
    (repository, store)
}

async fn golden_repository(seeds: &mut Seeds) {
    let (repository, store) = opened("v1").await;
    let snapshots = repository.snapshots().await.expect("they are read").snapshots;
    let mut infos: BTreeMap<_, SessionKeyInfo> = BTreeMap::new();
    for snapshot in &snapshots {
        let snapshot = &repository.snapshot(snapshot.session).await.expect("it is read");
        infos.extend(snapshot.sessions.iter().map(|info| (info.session, info.clone())));
        let json = serde_json::to_vec(snapshot).expect("JSON");
        seeds.json(3, &json);
        seeds.add("sealed_object", [&[0], &codec::compress(&json, 3).expect("compresses")[..]].concat());
    }
    for object in list_all(store.as_ref(), "").await.expect("it lists") {
        let name = object.name.as_str();
        if let Some((pack, _)) = parse_pack_object(name) {
            one_pack(&repository, pack, &infos, seeds).await;
            seeds.add("names", name);
            seeds.add("names", name.rsplit('/').next().unwrap_or_default());
            continue;
        }
        let bytes = store.get(name, ByteRange::All).await.expect("it is read");
        seeds.add("record", &bytes[..]);
        let body = &bytes[RECORD_HEADER..];
        match name.split('/').next() {
            Some("format") => seeds.json(0, body),
            Some("keys") => seeds.json(1, body),
            Some("sessions") => {
                seeds.json(2, body);
                seeds.add("names", &name["sessions/".len()..]);
            }
            Some("index") => {
                seeds.add("hint", body);
                let plain = segment(repository.keys(), body, Domain::Segment);
                // Such a one may be joined, too, and then names others: here two.
                seeds.add("joined_segment", [&[2][..], &[1; 16], &[2; 16], &plain].concat());
                seeds.add("segment", plain);
            }
            _ => {}
        }
    }
    let lineage = snapshots[0].session.lineage;
    let bundle = repository.keys().writer_bundle(repository.format().repository, lineage);
    seeds.json(11, &serde_json::to_vec(&bundle.expect("a bundle")).expect("JSON"));
}

/// The joined segment of a repository with many backups.
async fn joined_segment(seeds: &mut Seeds) {
    let (repository, store) = opened("v1-0.1.0").await;
    let listed = list_all(store.as_ref(), "index/").await.expect("it lists");
    let joined = listed.iter().find(|object| object.name.ends_with(".joined")).expect("a joined segment");
    let bytes = store.get(&joined.name, ByteRange::All).await.expect("it is read");
    seeds.add("joined_segment", segment(repository.keys(), &bytes[RECORD_HEADER..], Domain::Joined));
}

/// The bytes of a segment, behind the keys of its session.
fn segment(keys: &Keys, body: &[u8], domain: Domain) -> Vec<u8> {
    let (header, sealed) = body.split_at(HINT_HEADER);
    let session = session_of(header);
    let suite = carrack_mover::format::frame::Suite::from_code(header[29]).expect("a suite");
    let generation = u32::from_le_bytes(header[25..29].try_into().expect("four bytes"));
    let key = keys.session_index_key(generation, session).expect("a key");
    let cipher = Cipher::new(suite, &key);
    codec::open_object(&cipher, domain, session, sealed, 1 << 20).expect("it opens")
}

fn session_of(binary: &[u8]) -> carrack_mover::format::session::SessionName {
    let (lineage, nonce) = (hex::encode(&binary[1..9]), hex::encode(&binary[9..25]));
    format!("{}{lineage}-{nonce}", char::from(binary[0])).parse().expect("a session")
}

async fn one_pack(
    repository: &Repository,
    pack: PackId,
    infos: &BTreeMap<carrack_mover::format::session::SessionName, SessionKeyInfo>,
    seeds: &mut Seeds,
) {
    let tail = repository.read_pack(pack, ByteRange::Last(Trailer::LENGTH as u64)).await.expect("its end");
    seeds.add("pack_trailer", &tail[..]);
    let footer = repository.footer(pack).await.expect("its footer").footer;
    seeds.add("pack_footer", footer.to_bytes());
    for FooterFrame { kind, place, .. } in footer.frames {
        let info = &infos[&place.session];
        let keys = repository.keys();
        let key = match kind {
            FrameKind::Data => keys.open_data_key(info.generation, info.session, &info.sealed_data_key),
            FrameKind::Metadata => keys.session_metadata_key(info.generation, info.session),
        };
        let cipher = Cipher::new(info.suite, &key.expect("a key"));
        let range = ByteRange::Slice { offset: place.offset.into(), length: place.stored.into() };
        let mut stored = repository.read_pack(pack, range).await.expect("a frame").to_vec();
        let mut plain = Vec::new();
        codec::open_frame(&cipher, kind, &place, &mut stored, &mut plain).expect("it opens");
        let packed = codec::compress(&plain, 3).expect("compresses");
        seeds.add("frame", [&[0], &place.plain.to_le_bytes()[..3], &packed].concat());
        if kind == FrameKind::Metadata {
            named_runs(&plain, seeds);
            seeds.add("page", plain);
        }
    }
}

/// Pages of runs, which a small repository does not have, of chunks that a real leaf names.
fn named_runs(leaf: &[u8], seeds: &mut Seeds) {
    let page = Page::from_bytes(leaf).expect("a page");
    let chunks: Vec<ChunkRef> = page.named().into_iter().cloned().collect();
    let (mut runs, mut inner) = (PageWriter::runs(), PageWriter::runs_inner());
    for chunk in chunks.iter().take(20) {
        runs.push_run(&Run::Chunk(chunk.clone())).expect("fits");
        runs.push_run(&Run::Hole(4096)).expect("fits");
        inner.push_runs_page(chunk, 1 << 20).expect("fits");
    }
    seeds.add("page", runs.to_bytes().expect("fits"));
    seeds.add("page", inner.to_bytes().expect("fits"));
    // A frame that is named under two lengths.
    if let Some(place) = chunks.first().and_then(|chunk| chunk.frame.place()) {
        let mut other = *place;
        other.offset += 1;
        let mut rival = PageWriter::runs();
        rival
            .push_run(&Run::Chunk(ChunkRef { frame: Frame::settled(other), ..chunks[0].clone() }))
            .expect("fits");
        seeds.add("page", rival.to_bytes().expect("fits"));
    }
}

fn vectors(seeds: &mut Seeds) {
    let text = fs::read_to_string(golden().join("vectors.json")).expect("reads");
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (target, at) in [("page", "/leaf/bytes"), ("page", "/inner/bytes"), ("pack_trailer", "/trailer")] {
        let hex = vectors.pointer(at).and_then(serde_json::Value::as_str).expect("it is there");
        seeds.add(target, hex::decode(hex).expect("hex"));
    }
}

const SESSION: &str = "b0123456789abcdef-000102030405060708090a0b0c0d0e0f";
const PACK: &str = "000102030405060708090a0b0c0d0e0f";

fn json_of_records(seeds: &mut Seeds) {
    let (session, pack) = (SESSION, PACK);
    let pages = format!(
        r#"{{"id":"{0}{0}","place":{{"session":"{session}","pack":"{pack}","offset":1,"stored":2,"plain":3,
            "compression":"zstd","counter":18446744073709551615,"id":"{0}{0}"}}}}"#,
        pack
    );
    let json = [
        (
            4,
            format!(
                r#"[{{"old_pack":"{pack}","old_offset":1,"new_pack":"{pack}","new_offset":4294967295}}]"#
            ),
        ),
        (
            5,
            format!(
                r#"{{"collection":"{pack}","created":"2024-01-01T00:00:00Z","packs":["{pack}.7"],"relocations":["{session}"]}}"#
            ),
        ),
        (6, format!(r#"{{"collection":"{pack}","packs":["{pack}"],"relocations":["{session}"]}}"#)),
        (7, format!(r#"{{"session":"{session}","word":"pinned","created":"2024-01-01T00:00:00.5Z"}}"#)),
        (8, format!(r#"{{"session":"{session}","created":"2024-01-01T00:00:00Z","reason":"\u0000"}}"#)),
        (9, format!(r#"{{"created":"2024-01-01T00:00:00Z","packs":["{pack}"]}}"#)),
        (
            10,
            format!(
                r#"{{"source":"block","root":{pages},"depth":1,"sessions":[],"started":"2024-01-01T00:00:00Z",
            "written":"2024-01-01T00:00:00Z","bytes":1,"unfinished":{{"path":"61ff","size":3}},
            "image":{{"size":1,"grid":65536,"change_id":"x","file":{{"device":1,"inode":2,"mtime":[-1,2],"ctime":[3,4]}}}}}}"#
            ),
        ),
    ];
    json.iter().for_each(|(which, json)| seeds.json(*which, json.as_bytes()));
}

fn words(seeds: &mut Seeds) {
    for text in
        ["0 1\n4095 2 # one\n", r#" [{"offset":0,"length":1},{"byte_offset":4096,"size_bytes":2}]"#, "[]"]
    {
        seeds.add("changed_blocks", [&65_536_u32.to_le_bytes(), text.as_bytes()].concat());
    }
    let text: [(&'static str, &[&str]); 6] = [
        (
            "units",
            &[
                "96MiB",
                "1.5KB/s",
                "0",
                "1y6m3d12h",
                "1d12h",
                "90s",
                "5%",
                "1..6",
                "auto",
                "nightly,db",
                "9e15",
                "18446744073709551615",
            ],
        ),
        (
            "exclude",
            &[
                "*.log\n!/a/keep.log\na/x.log",
                "/home/*/[a-c]?\\*\nhome/u/b",
                "**/x/**\na{b}/x\na{b}",
                "dir/\\\ndir/\\",
            ],
        ),
        ("path_list", &["a?\n# no\n\n b \n[[]x]\r\n", "*/c\nnone*\n", "a[!1]\n{x}*\n"]),
        ("order", &["a\na-\na/b", "a/b/c\na/c\nb", "x\ny\nz/\u{e9}"]),
        (
            "names",
            &[
                SESSION,
                "r0000000000000000-000102030405060708090a0b0c0d0e0f",
                "000102030405060708090a0b0c0d0e0f.7",
            ],
        ),
        ("bytes", &["\0\u{1}\u{7f}", "\u{1}\u{2}\u{3}", "\u{2}\u{5}", "\u{3}\u{3}abc\0"]),
    ];
    for (target, words) in text {
        words.iter().for_each(|word| seeds.add(target, word.as_bytes()));
    }
}

/// Lists of rights, of users and groups with a number and without one.
fn rights(seeds: &mut Seeds) {
    let entry = |kind: u16, id: u32| [&kind.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
    let (own, mask) = (entry(0x01, u32::MAX), entry(0x10, u32::MAX));
    for named in [entry(0x02, 1000), entry(0x08, 1000), entry(0x02, u32::MAX), entry(0x08, u32::MAX)] {
        seeds.add("rights", [&2_u32.to_le_bytes()[..], &own, &named, &mask].concat());
    }
    seeds.add("rights", 2_u32.to_le_bytes());
}

/// What goes between programs.
fn border(seeds: &mut Seeds) {
    let job = |task: &str| {
        format!(
            r#"0{{"version":1,"repository":{{"url":"s3://b/x","maxRequests":8,"pathStyle":true}},"keys":{{"keyFile":"/k"}},
                "resources":{{"memoryBytes":67108864,"threads":1}},"task":{task}}}"#
        )
    };
    let texts = [
        job(r#"{"connect":{"initialise":true}}"#),
        job(r#"{"maintain":{"keep":{"last":"3","within":"1y6m"},"prune":true,"checkPercent":5}}"#),
        job(r#"{"forget":{"snapshot":"b0123456789abcdef-000102030405060708090a0b0c0d0e0f"}}"#),
        r#"1{"version":1,"outcome":"partial","exitCode":3,"message":"\u001b","next":"again","problems":7,
            "firstProblems":[{"item":"/x","message":"gone"}],"output":{"connect":{"id":"a0","initialised":false}}}"#
            .to_owned(),
        format!(r#"1{{"version":1,"outcome":"failed","exitCode":70,"message":"{}"}}"#, "\\\"".repeat(500)),
        format!(
            r#"1{{"version":1,"outcome":"completed","exitCode":0,"output":{{"bundle":{{"sealed":"{}"}}}}}}"#,
            "a0".repeat(2200)
        ),
        r#"2{"message_type":"status","phase":"backup","bytes_done":5,"total_bytes":0,"error_count":1}"#.to_owned(),
    ];
    for text in texts {
        seeds.add("border", [&[text.as_bytes()[0] - b'0'], &text.as_bytes()[1..]].concat());
    }
    for text in ["", "07".repeat(32).as_str(), " 0A\n", "a secret"] {
        seeds.add("seal", text.as_bytes());
    }
    // Volume of 1 GiB, two extents; and a request.
    seeds.add("wire", hex::decode("1080808080041a060880201080201a08088080c002108020").expect("hex"));
    seeds.add("wire", hex::decode("10001a00").expect("hex"));
    seeds.add("wire", b"\x0a\x02to\x12\x02ns\x1a\x04base\x22\x03new\x28\x80\x20\x30\x05");
}

/// Answers of an S3 service; the number before each says what was asked.
fn answers(seeds: &mut Seeds) {
    let listing = "200\n\n<ListBucketResult><IsTruncated>true</IsTruncated><KeyCount>2</KeyCount>\
         <NextContinuationToken>n</NextContinuationToken>\
         <Contents><Key>x/packs/aa/x</Key><Size>5</Size><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>\
         <Contents><Key>x/packs/Foreign</Key><Size>0</Size></Contents></ListBucketResult>";
    let redirect = "301\nlocation: https://user:pass@other.example:9000/bucket?x=y\nx-amz-bucket-region: eu-west-3\n\n\
         <Error><Code>PermanentRedirect</Code><Message>use another</Message></Error>";
    let locked = "200\nx-amz-version-id: v1\nx-amz-object-lock-mode: COMPLIANCE\n\
         x-amz-object-lock-retain-until-date: 2020-01-01T00:00:00Z\n\n\
         <ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    let skewed = "403\ndate: Sun, 06 Nov 1994 08:49:37 GMT\nx-amz-request-id: 1\n\n\
         <Error><Code>RequestTimeTooSkewed</Code><Message>&#x43;locks</Message></Error>";
    let absent = "404\n\n<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Key>x</Key></Error>";
    let answers: [(u8, &str); 17] = [
        (0, "200\netag: \"x\"\nx-amz-checksum-crc32c: 4waSgw==\n\n"),
        (0, "412\n\n<Error><Code>PreconditionFailed</Code></Error>"),
        (0, "501\n\n<Error><Code>NotImplemented</Code><Message>a header</Message></Error>"),
        (1, "200\ncontent-length: 8\n\ncontents"),
        (1, absent),
        (1, "200\ncontent-type: text/html; charset=utf-8\ncontent-length: 6\n\n<html>"),
        (2, "206\ncontent-range: bytes 5-9/123\ncontent-length: 5\n\nparts"),
        (3, "206\ncontent-range: bytes 118-122/123\ncontent-length: 5\n\nparts"),
        (3, "416\n\n<Error><Code>InvalidRange</Code></Error>"),
        (4, listing),
        (4, redirect),
        (4, skewed),
        (5, "204\n\n"),
        (5, absent),
        (6, locked),
        (7, locked),
        (7, "503\nretry-after: 18446744073709551615\n\n<Error><Code>SlowDown</Code></Error>"),
    ];
    for (which, answer) in answers {
        seeds.add("answer", [&[which], answer.as_bytes()].concat());
    }
}

#[test]
fn real_objects_pass_their_targets() {
    let mut seeds = Seeds::default();
    // Not for longer: a target may have a runtime of its own.
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        golden_repository(&mut seeds).await;
        joined_segment(&mut seeds).await;
    });
    answers(&mut seeds);
    vectors(&mut seeds);
    json_of_records(&mut seeds);
    words(&mut seeds);
    rights(&mut seeds);
    border(&mut seeds);
    let write = std::env::var_os("CARRACK_WRITE_CORPUS").is_some();
    for target in targets() {
        let inputs = seeds.0.remove(target.name).unwrap_or_default();
        assert!(!inputs.is_empty(), "nothing to begin with for {}", target.name);
        for (index, input) in inputs.iter().enumerate() {
            (target.run)(input);
            if write {
                fs::create_dir_all(folder(target.name)).expect("makes");
                fs::write(folder(target.name).join(format!("seed-{index:02}")), input).expect("writes");
            }
        }
    }
    assert!(seeds.0.is_empty(), "no target for {:?}", seeds.0.keys());
}
